//! The names in the directory of a claim, and the rename that moves the baton.

use std::fmt;
use std::io;
use std::io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotFound, PermissionDenied};
use std::path::{Path, PathBuf};

use super::Form;
use super::record::names_record;
use crate::existence::is_old;
use crate::step::at_named;
use crate::sys::dir::{Dir, Directory};
use crate::sys::file;
use crate::sys::host::wall_clock_us;
use crate::sys::id::Id;

const FREE: &str = "free.";
/// The directory that contains the baton and nothing else.
const PLACE: &str = "baton";
const FRESH: &str = "fresh.";
/// The number of digits in a name.
const DIGITS: usize = 20;

/// The state that the name of the baton contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Baton {
    number: u64,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Free(Id),
    Held(Id),
}

impl Baton {
    fn free(number: u64) -> Self {
        let state = State::Free(Id::fresh());
        Self { number, state }
    }

    pub(super) fn held(number: u64, id: Id) -> Self {
        let state = State::Held(id);
        Self { number, state }
    }

    /// Returns the token of the last grant, or of this one.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the ID of the hold, or `None` if the lock is free.
    pub(super) fn holder(&self) -> Option<&Id> {
        match &self.state {
            State::Held(id) => Some(id),
            State::Free(_) => None,
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let (digits, rest) = name.split_once('.')?;
        let plain = digits.len() == DIGITS && digits.bytes().all(|it| it.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| plain)?;
        let state = match rest.strip_prefix(FREE) {
            Some(id) => State::Free(Id::parse(id)?),
            None => State::Held(Id::parse(rest)?),
        };
        Some(Self { number, state })
    }

    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        place(directory).join(self.to_string())
    }

    /// Creates the baton in a new place.
    fn make(&self, fresh: &Path, form: Form) -> io::Result<()> {
        let path = fresh.join(self.to_string());
        match form {
            Form::Directory => std::fs::create_dir(path),
            Form::File => std::fs::File::create_new(path).map(drop),
        }
    }

    /// Returns whether the baton has this name.
    pub(super) fn is_there(&self, directory: &Path) -> io::Result<bool> {
        match std::fs::symlink_metadata(self.path(directory)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Renames the baton to a name that was never used. Returns `false` if it no longer has this
    /// name.
    pub(super) fn rename(&self, to: &Self, directory: &Path) -> io::Result<bool> {
        match std::fs::rename(self.path(directory), to.path(directory)) {
            Ok(()) => Ok(true),
            // A server may have done it, and its answer was lost. The second request then finds
            // nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => to.is_there(directory),
            Err(error) => Err(error),
        }
    }

    /// Renames the baton to a free one. Returns `false` if it no longer has this name.
    pub(super) fn release(&self, directory: &Path) -> io::Result<bool> {
        self.rename(&Self::free(self.number), directory)
    }

    /// Deletes the baton, if it has this name.
    pub(super) fn delete(&self, directory: &Path) {
        self.delete_in(&place(directory));
    }

    fn delete_in(&self, place: &Path) {
        let path = place.join(self.to_string());
        // A name with an ID is no lock by itself.
        if file::remove(&path, place).is_err() {
            let _ = delete_empty(path);
        }
    }
}

impl fmt::Display for Baton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match &self.state {
            State::Free(id) => write!(f, "{number:0DIGITS$}.{FREE}{id}"),
            State::Held(id) => write!(f, "{number:0DIGITS$}.{id}"),
        }
    }
}

/// Returns the place of the baton of a lock.
pub(super) fn place(directory: &Path) -> PathBuf {
    directory.join(PLACE)
}

/// Creates a place with a free baton, and renames it to where there is no place or an empty one. An
/// error comes with the step that failed.
pub(super) fn put_in_place(directory: &Path, form: Form) -> Result<(), (&'static str, io::Error)> {
    let fresh = directory.join(format!("{FRESH}{}", Id::fresh()));
    let place = place(directory);
    let placed = prepare_place(&fresh, form).and_then(|made| {
        at_named("PlaceClaims")?;
        // On platforms where a rename never replaces a directory, an empty one must go first.
        let _ = delete_empty(&place);
        Ok(made.then(|| std::fs::rename(&fresh, &place)))
    });
    if matches!(placed, Ok(Some(Ok(())))) {
        sweep_old(directory);
        return Ok(());
    }
    sweep(&fresh);
    match placed {
        Ok(Some(Err(error))) => match error.kind() {
            // Another process was faster, has removed the lock, or has deleted our place.
            NotFound | DirectoryNotEmpty | AlreadyExists => Ok(()),
            // Windows reports this for a directory that exists.
            PermissionDenied if place.is_dir() => Ok(()),
            _ => Err(("put a baton in", error)),
        },
        Ok(_) => Ok(()),
        Err(error) => Err(("create a baton in", error)),
    }
}

/// Creates a place with a free baton under the name `fresh`. Returns `false` if the lock was
/// removed meanwhile.
fn prepare_place(fresh: &Path, form: Form) -> io::Result<bool> {
    let made = Dir::make_shared_draft(fresh).and_then(|()| {
        at_named("MakeBaton")?;
        Baton::free(wall_clock_us().max(1)).make(fresh, form)
    });
    match made {
        Err(error) if error.kind() == NotFound => Ok(false),
        made => made.map(|()| true),
    }
}

/// Returns the baton. A listing during a rename may show both names or none. The greater number is
/// the newer one.
///
/// # Errors
///
/// `NotFound` if there is no directory. `NotADirectory` if there is something else, also a link to
/// a directory.
pub(super) fn find(directory: &Path) -> io::Result<Option<Baton>> {
    if !std::fs::symlink_metadata(directory)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    newest_in(&place(directory))
}

fn newest_in(place: &Path) -> io::Result<Option<Baton>> {
    if !std::fs::symlink_metadata(place)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mut newest: Option<Baton> = None;
    for entry in std::fs::read_dir(place)? {
        let name = entry?.file_name();
        let Some(found) = name.to_str().and_then(Baton::parse) else {
            continue;
        };
        let newer = |it: &Baton| (it.number, is_later(it)) < (found.number, is_later(&found));
        if newest.as_ref().is_none_or(newer) {
            newest = Some(found);
        }
    }
    Ok(newest)
}

/// Returns whether the directory contains files that do not belong to the lock.
pub(super) fn has_other_files(directory: &Path) -> bool {
    let mut entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.any(|it| {
        let name = it.file_name();
        let Some(name) = name.to_str() else {
            return true;
        };
        let fresh = || name.strip_prefix(FRESH).and_then(Id::parse).is_some();
        it.path() != place(directory) && !names_record(name) && !fresh()
    })
}

/// Returns whether this is the later one of two names with the same number: the free one.
fn is_later(baton: &Baton) -> bool {
    matches!(baton.state, State::Free(_))
}

/// Deletes a place that was never renamed to `baton`.
fn sweep(fresh: &Path) {
    if let Ok(Some(baton)) = newest_in(fresh) {
        baton.delete_in(fresh);
    }
    let _ = delete_empty(fresh);
}

/// Deletes a directory if it is empty. The system does this in one step, so a baton in it is safe.
#[allow(clippy::disallowed_methods)] // An empty directory is no lock.
pub(super) fn delete_empty(directory: impl AsRef<Path>) -> io::Result<()> {
    std::fs::remove_dir(directory)
}

/// Deletes old places that were never renamed to `baton`, because their creators died.
pub(super) fn sweep_old(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|it| it.strip_prefix(FRESH));
        if id.and_then(Id::parse).is_some() && is_old(&entry) {
            sweep(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for baton in [Baton::free(0), Baton::held(u64::MAX, Id::fresh())] {
            assert_eq!(Baton::parse(&baton.to_string()), Some(baton));
        }
    }

    #[test]
    fn p33_other_names_are_no_batons() {
        let id = Id::fresh();
        for name in [
            String::new(),
            "free".into(),
            format!("1.{id}"),
            format!("+0000000000000000001.{id}"),
            format!("99999999999999999999.{id}"),
            format!("{:020}.{}", 1, "x".repeat(32)),
            format!("{:020}.free.", 1),
            format!("{:020}.{id}.x", 1),
            format!(
                "{:020}.{}",
                1,
                id.to_string().to_uppercase().replace('0', "A")
            ),
        ] {
            assert_eq!(Baton::parse(&name), None, "{name:?}");
        }
    }

    #[test]
    fn p49_ids_differ() {
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| Id::fresh()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
