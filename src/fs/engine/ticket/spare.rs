//! Spare files: the file of a ticket that is done, kept for the next one.
//!
//! To make and to delete a file is dear where many come and go: ext4 does not use an inode again for a minute and searches ever
//! longer for a fresh one (27 µs a ticket after some seconds, against 6 µs). So a process keeps the file under the name
//! `spare.<inode>`, open and locked, and links it under the next number. A name that disappears is announced to whoever watches the
//! file, as its close is. After a quarter of a second without a ticket it lets go of it. A dead process's spare file is
//! adopted by the next one that needs a file, or deleted with the queue.
//!
//! Spare files are a convenience: what cannot be had is left alone, and a new file is made.

use std::io;
use std::sync::Arc;

use crate::fs::sys::dir::{Dir, Opened};
use crate::fs::sys::file::{self, FileId};
use crate::fs::sys::flock;
use crate::fs::sys::fork::Private;
use crate::fs::sys::rights::Rights;

/// What their names begin with; the rest is the inode's number.
const PREFIX: &str = "spare.";
/// The last word of the note on a ticket: the inode of the file it was written on. A copy keeps the
/// note, and has another inode.
const FILE: &str = "file=";
/// How many files a process keeps: for its first cohort and the next one.
const MOST: usize = 2;

/// A file of ours, open and locked, that is a ticket, was one, or will be one.
#[derive(Debug)]
pub(super) struct TicketFile {
    pub(super) file: Private,
    pub(super) id: FileId,
    /// Who may use it.
    rights: Rights,
    /// What is noted on it for people.
    words: Option<Arc<str>>,
}

/// The spare files of one queue, as this process sees them.
pub(super) struct Spares {
    own: Vec<TicketFile>,
    /// Names in the last listing.
    listed: Vec<String>,
    /// Whether those of dead processes were looked for.
    adopted: bool,
}

impl TicketFile {
    pub(super) fn new(file: Private, id: FileId, rights: Rights) -> Self {
        Self {
            file,
            id,
            rights,
            words: None,
        }
    }

    /// Notes whose it is, unless that stands there already.
    pub(super) fn describe(&mut self, words: Option<&Arc<str>>) {
        let Some(words) = words else { return };
        if self.words.as_ref().is_none_or(|it| !Arc::ptr_eq(it, words)) {
            Dir::describe(&self.file, &format!("{words} {FILE}{}", self.id.inode));
            self.words = Some(words.clone());
        }
    }

    /// With a new name it becomes a ticket, which must not bear the mark of the last one. A file that
    /// has a name in another directory is not written into.
    fn is_clean(&self, rights: &Rights) -> bool {
        let one_name = file::names_of(&self.file).is_ok_and(|names| names == 1);
        one_name && self.rights == *rights && self.is_unmarked()
    }

    fn is_unmarked(&self) -> bool {
        match file::is_marked(&self.file) {
            Ok(false) => true,
            Ok(true) => file::set_mark(&self.file, false).is_ok(),
            Err(_) => false,
        }
    }
}

impl Spares {
    pub(super) fn new() -> Self {
        Self {
            own: Vec::new(),
            listed: Vec::new(),
            adopted: false,
        }
    }

    /// A listing begins.
    pub(super) fn forget_names(&mut self) {
        self.listed.clear();
    }

    /// A name in a listing that is no ticket.
    pub(super) fn see(&mut self, name: &[u8]) {
        let name = std::str::from_utf8(name).ok().filter(|it| is_name(it));
        if let Some(name) = name.filter(|_| !self.adopted) {
            self.listed.push(name.to_owned());
        }
    }

    /// A file for a ticket with these rights, if there is one. The rights of a file that is kept do
    /// not change: one with others goes.
    pub(super) fn take(&mut self, dir: &Dir, rights: &Rights) -> Option<TicketFile> {
        self.adopt(dir, rights);
        while let Some(spare) = self.own.pop() {
            if spare.is_clean(rights) {
                return Some(spare);
            }
            give_up(dir, &name_of(spare.id), spare.id, &spare.file);
        }
        None
    }

    pub(super) fn has_room(&self) -> bool {
        self.own.len() < MOST
    }

    pub(super) fn put(&mut self, spare: TicketFile) {
        self.own.push(spare);
    }

    /// Once per queue: takes over the files of dead processes. Deletes those that are too many, those
    /// that have another name, and those that bear the number of another file, because they came here
    /// with a copy of the directory.
    fn adopt(&mut self, dir: &Dir, rights: &Rights) {
        if std::mem::replace(&mut self.adopted, true) {
            return;
        }
        for name in std::mem::take(&mut self.listed) {
            let Some((file, id)) = of_the_dead(dir, &name) else {
                continue;
            };
            // Another user may have put this file here, so it is taken only as it should be, and
            // never changed.
            let fits = name_of(id) == name && Dir::is_for(&file, rights);
            // Only the process that has the lock gives it names, so this stays true.
            let one = file::names_of(&file).is_ok_and(|names| names == 1);
            if fits && one && self.has_room() {
                self.own.push(TicketFile::new(file, id, rights.clone()));
            } else {
                give_up(dir, &name, id, &file);
            }
        }
    }

    /// Deletes our own.
    pub(super) fn drop_own(&mut self, dir: &Dir) {
        for spare in self.own.drain(..) {
            // What cannot be deleted is adopted by somebody else later.
            let _ = dir.unlink(&name_of(spare.id));
        }
    }

    /// From the next listing on, names are noted again.
    pub(super) fn look_again(&mut self) {
        self.adopted = false;
    }

    /// Deletes all that were listed, also those of the living, who make new ones. The name that could not be deleted is told.
    pub(super) fn delete_listed(&mut self, dir: &Dir) -> Result<(), (String, io::Error)> {
        for name in std::mem::take(&mut self.listed) {
            dir.unlink(&name).map_err(|error| (name, error))?;
        }
        Ok(())
    }
}

/// The name under which a file is kept.
pub(super) fn name_of(id: FileId) -> String {
    name_of_number(id.inode)
}

pub(super) fn name_of_number(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// Whether this is the name of a spare file, of whatever number.
fn is_name(name: &str) -> bool {
    let number = name.strip_prefix(PREFIX);
    number.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The inode of the file that a note was written on, as the note says.
pub(crate) fn file_noted(words: &str) -> Option<u64> {
    let mut words = words.split_ascii_whitespace();
    words.find_map(|word| word.strip_prefix(FILE)?.parse().ok())
}

/// Deletes the name of a locked file, and unlocks it. With a second name it may be a ticket of the
/// dead, which our lock must not keep alive.
fn give_up(dir: &Dir, name: &str, id: FileId, file: &Private) {
    if matches!(dir.find(name), Ok(Some(found)) if found.id == id) {
        let _ = dir.unlink(name);
    }
    let _ = flock::unlock(file);
}

/// The spare file of this name, locked, if its lock was free: its process is dead, or it is a copy.
fn of_the_dead(dir: &Dir, name: &str) -> Option<(Private, FileId)> {
    let Ok(Opened::File { file, .. }) = dir.open_ticket(name) else {
        return None;
    };
    let file = Private::new(file);
    let id = file::id_of(&file).ok()?;
    let ours = flock::try_lock_exclusive(&file).ok()?;
    ours.then_some((file, id))
}
