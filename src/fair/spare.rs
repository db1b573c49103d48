//! Spare files: the file of a ticket that is done, kept for the next ticket.
//!
//! Creating and deleting files is expensive under churn. ext4 does not use an inode again for a
//! minute, and searches longer and longer for a free one (27 µs for each ticket after some seconds,
//! against 6 µs). So a process keeps the file open and locked under the name `spare.<inode>`, and
//! links it under the number of its next ticket. The waiter behind a ticket is woken by the removal
//! of its name as it is by a close. After a quarter of a second without a ticket the process
//! deletes its spare files. The spare file of a dead process is adopted by the next process that
//! needs a file, or is deleted with the queue.
//!
//! Spare files are only an optimization. If a step with one fails, a new file is created.

use std::io;
use std::sync::Arc;

use crate::sys::dir::{Dir, Directory, Opened};
use crate::sys::file::{self, FileId};
use crate::sys::flock;
use crate::sys::fork::Private;
use crate::sys::rights::Rights;

/// The prefix of their names. The rest is the inode number.
const PREFIX: &str = "spare.";
/// The last word of the note on a ticket: the inode of the file that it was written on. A copy of
/// the file has the same note and another inode.
const FILE: &str = "file=";
/// How many files a process keeps: for its first cohort and the next one.
const MOST: usize = 2;

/// A file of this process, open and locked, that is a ticket, was one, or will be one.
#[derive(Debug)]
pub(super) struct TicketFile {
    pub(super) file: Private,
    pub(super) id: FileId,
    /// Who may use it.
    rights: Rights,
    /// The note on it, which describes its owner.
    words: Option<Arc<str>>,
}

/// The spare files of one queue, as this process sees them.
pub(super) struct Spares {
    own: Vec<TicketFile>,
    /// Names in the last listing.
    listed: Vec<String>,
    /// Whether the files of dead processes were looked for.
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

    /// Notes the owner on the file, unless the note is there already.
    pub(super) fn describe(&mut self, words: Option<&Arc<str>>) {
        let Some(words) = words else { return };
        if self.words.as_ref().is_none_or(|it| !Arc::ptr_eq(it, words)) {
            Dir::describe(&self.file, &format!("{words} {FILE}{}", self.id.inode));
            self.words = Some(words.clone());
        }
    }

    /// Returns whether the file may become a ticket. It must have these rights and no mark of its
    /// last ticket, which is removed here. A file that has a name in another directory is not
    /// written to.
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

    /// Begins a listing.
    pub(super) fn forget_names(&mut self) {
        self.listed.clear();
    }

    /// Notes a listed name that is no ticket.
    pub(super) fn note(&mut self, name: &[u8]) {
        let name = std::str::from_utf8(name).ok().filter(|it| is_name(it));
        if let Some(name) = name.filter(|_| !self.adopted) {
            self.listed.push(name.to_owned());
        }
    }

    /// Returns a file for a ticket with these rights, if there is one. The rights of a spare file
    /// do not change, so a file with other rights is given up.
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

    /// Adopts the files of dead processes, once for each queue. Deletes files beyond the limit,
    /// files that have another name, and files whose name has the number of another file. The last
    /// came here with a copy of the directory.
    fn adopt(&mut self, dir: &Dir, rights: &Rights) {
        if std::mem::replace(&mut self.adopted, true) {
            return;
        }
        for name in std::mem::take(&mut self.listed) {
            let Some((file, id)) = of_dead_process(dir, &name) else {
                continue;
            };
            // Another user may have put this file here. So it is adopted only if it is as it should
            // be, and never changed.
            let fits = name_of(id) == name && Dir::is_for(&file, rights);
            // Only the process that has the lock links the file, so this stays true.
            let one = file::names_of(&file).is_ok_and(|names| names == 1);
            if fits && one && self.has_room() {
                self.own.push(TicketFile::new(file, id, rights.clone()));
            } else {
                give_up(dir, &name, id, &file);
            }
        }
    }

    /// Deletes the spare files of this process.
    pub(super) fn drop_own(&mut self, dir: &Dir) {
        for spare in self.own.drain(..) {
            // A file that cannot be deleted is adopted by another process later.
            let _ = dir.unlink(&name_of(spare.id));
        }
    }

    /// Looks for files of dead processes again, from the next listing on.
    pub(super) fn adopt_again(&mut self) {
        self.adopted = false;
    }

    /// Deletes all listed spare files, also those of living processes, which create new ones. On
    /// failure returns the name that could not be deleted.
    pub(super) fn delete_listed(&mut self, dir: &Dir) -> Result<(), (String, io::Error)> {
        for name in std::mem::take(&mut self.listed) {
            dir.unlink(&name).map_err(|error| (name, error))?;
        }
        Ok(())
    }
}

/// Returns the name under which a spare file is kept.
pub(super) fn name_of(id: FileId) -> String {
    name_of_number(id.inode)
}

pub(super) fn name_of_number(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// Returns whether this is the name of a spare file, with any number.
fn is_name(name: &str) -> bool {
    let number = name.strip_prefix(PREFIX);
    number.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the inode of the file that a note was written on, as the note says.
pub(crate) fn file_noted(words: &str) -> Option<u64> {
    let mut words = words.split_ascii_whitespace();
    words.find_map(|word| word.strip_prefix(FILE)?.parse().ok())
}

/// Deletes the name of a locked file, and unlocks it. With a second name the file may be the ticket
/// of a dead process, which our lock must not keep alive.
fn give_up(dir: &Dir, name: &str, id: FileId, file: &Private) {
    if matches!(dir.find(name), Ok(Some(found)) if found.id == id) {
        let _ = dir.unlink(name);
    }
    let _ = flock::unlock(file);
}

/// Opens and locks the spare file of this name. Returns `None` if it is locked. If it was free, its
/// process is dead, or it is a copy.
fn of_dead_process(dir: &Dir, name: &str) -> Option<(Private, FileId)> {
    let Ok(Opened::File { file, .. }) = dir.open_ticket(name) else {
        return None;
    };
    let file = Private::new(file);
    let id = file::id_of(&file).ok()?;
    let ours = flock::try_lock_own(&file, false).ok()?;
    ours.then_some((file, id))
}
