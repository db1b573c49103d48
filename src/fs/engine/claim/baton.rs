//! The names in the directory of a claim, and the one step that moves the baton.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fs::sys::host;

const RECORD: &str = "record.";
const FREE: &str = "free.";
/// Digits of a number in a name.
const DIGITS: usize = 20;
/// A directory that was made and never put in its place is swept away after this time.
const OLD: Duration = Duration::from_secs(60);

/// What the baton is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Directory,
    File,
}

/// 128 random bits, as 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(String);

impl Id {
    /// One that nobody has had.
    pub(crate) fn fresh() -> Self {
        // Two forks of one process have the same keys, but neither the same pid nor the same time.
        let here = (std::process::id(), host::monotonic_ns());
        let half = || RandomState::new().hash_one(here);
        Self(format!("{:016x}{:016x}", half(), half()))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let digit = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        (text.len() == 32 && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the name of the baton says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Baton {
    pub(super) number: u64,
    pub(super) state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free(Id),
    Held(Id),
}

impl Baton {
    pub(super) fn free(number: u64) -> Self {
        let state = State::Free(Id::fresh());
        Self { number, state }
    }

    pub(super) fn held(number: u64, id: Id) -> Self {
        let state = State::Held(id);
        Self { number, state }
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
        directory.join(self.to_string())
    }

    pub(super) fn make(&self, directory: &Path, form: Form) -> io::Result<()> {
        let path = self.path(directory);
        match form {
            Form::Directory => std::fs::create_dir(path),
            Form::File => std::fs::File::create_new(path).map(drop),
        }
    }

    /// Whether it bears this name.
    pub(super) fn is_there(&self, directory: &Path) -> io::Result<bool> {
        match std::fs::symlink_metadata(self.path(directory)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the baton another name, which was never one; `false` when this is not its name any more.
    pub(super) fn rename(&self, to: &Self, directory: &Path) -> io::Result<bool> {
        match std::fs::rename(self.path(directory), to.path(directory)) {
            Ok(()) => Ok(true),
            // A server may have done it and its answer been lost: the second request then finds nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => to.is_there(directory),
            Err(error) => Err(error),
        }
    }

    /// Deletes it, if this is its name.
    pub(super) fn delete(&self, directory: &Path) {
        let path = self.path(directory);
        if delete_file(&path).is_err() {
            let _ = delete_empty(&path);
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

/// What a directory of a claim holds.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// A listing that meets the step from one name to the next may show both, or none: the greater number is the newer.
    pub(super) baton: Option<Baton>,
    pub(super) records: Vec<Id>,
}

/// Lists a directory of a claim; what is neither baton nor record is nobody's business.
///
/// # Errors
///
/// `NotFound` when there is no directory, `NotADirectory` when something else is there, also a link to one.
pub(super) fn list(directory: &Path) -> io::Result<Names> {
    if !std::fs::symlink_metadata(directory)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mut names = Names::default();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(id) = name.strip_prefix(RECORD).and_then(Id::parse) {
            names.records.push(id);
        } else if let Some(found) = Baton::parse(name) {
            let newer = |it: &Baton| (it.number, is_later(it)) < (found.number, is_later(&found));
            if names.baton.as_ref().is_none_or(newer) {
                names.baton = Some(found);
            }
        }
    }
    Ok(names)
}

/// Of one number the free name is the later one.
fn is_later(baton: &Baton) -> bool {
    matches!(baton.state, State::Free(_))
}

pub(super) fn record_path(directory: &Path, id: &Id) -> PathBuf {
    directory.join(format!("{RECORD}{id}"))
}

/// Deletes a directory that was never put in its place.
pub(super) fn sweep(directory: &Path) {
    if let Ok(names) = list(directory)
        && let Some(baton) = names.baton
    {
        baton.delete(directory);
    }
    let _ = delete_empty(directory);
}

/// Deletes a record, or a baton that bears a name of ours.
#[allow(clippy::disallowed_methods)] // Names with an ID in them are nobody else's, and are no locks by themselves.
pub(super) fn delete_file(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// Deletes a directory if nothing is in it: the system's one step, so a baton in it is safe.
#[allow(clippy::disallowed_methods)] // An empty directory of claims is nobody's lock.
pub(super) fn delete_empty(directory: &Path) -> io::Result<()> {
    std::fs::remove_dir(directory)
}

/// Sweeps away those that were made long ago for this place and never put there, because their makers died.
pub(super) fn sweep_old(place: &Path) {
    let (Some(parent), Some(name)) = (place.parent(), place.file_name().and_then(|it| it.to_str()))
    else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let rest = found.to_str().and_then(|it| it.strip_prefix(name));
        let id = rest.and_then(|it| it.strip_prefix('.')).and_then(Id::parse);
        let age = |it: std::fs::Metadata| it.modified().ok()?.elapsed().ok();
        if id.is_some()
            && entry
                .metadata()
                .ok()
                .and_then(age)
                .is_some_and(|age| age > OLD)
        {
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
