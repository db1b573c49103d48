//! The queue directory: lists the queue, takes tickets, and removes the tickets of dead processes.
//!
//! # Invariants
//!
//! 1. A number is never used twice. It is above all listed numbers, and at least the monotonic
//!    clock in nanoseconds. There is one exception: [`QueueDir::take_first`] takes a number just
//!    below the lowest one.
//! 2. A ticket counts from the moment its file is locked. On Linux the file is locked before it has
//!    its name.
//! 3. Only a process that has locked a ticket unlinks it, after it has seen that name and
//!    descriptor are the same inode.
//!
//! # Spare files
//!
//! A spare file is the file of a ticket that is done, kept for the next ticket.
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

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::STATE;
use super::ticket::{Mode, Ticket, next_number};
use crate::error::{Error, ErrorKind, Result};
use crate::step::{self, Step};
use crate::sys::dir::{Dir, Directory, Found, Opened, Unchanged};
use crate::sys::file::{self, FileId};
use crate::sys::fork::Private;
use crate::sys::rights::Rights;
use crate::sys::{flock, host, wake_lock};

/// How often other processes may take a chosen name before this counts as an error.
const TRIES: usize = 1000;
/// The prefix of the names of spare files. The rest is the inode number.
const SPARE: &str = "spare.";
/// The last word of the note on a ticket: the inode of the file that it was written on. A copy of
/// the file has the same note and another inode.
const FILE: &str = "file=";
/// How many spare files a process keeps: for its first cohort and the next one.
const MOST_SPARES: usize = 2;

/// An open queue directory, with the queue as it was listed last.
pub(super) struct QueueDir {
    dir: Dir,
    tickets: Vec<Ticket>,
    /// Since when `tickets` is right, if that can be determined.
    unchanged: Option<Unchanged>,
    /// The inode that has the name of the state file.
    state_inode: Option<u64>,
    /// The file whose rights decide who may use the files that are created here.
    door: PathBuf,
    spares: Spares,
}

/// A ticket of this process: its file, open and locked.
#[derive(Debug)]
pub(super) struct OwnTicket {
    pub(super) ticket: Ticket,
    file: TicketFile,
    /// Whether the file has its spare name too.
    kept: bool,
}

/// The result of opening another process's ticket.
pub(super) enum Other {
    Open(OtherTicket),
    Gone,
    /// This process may not open it. So it can neither watch the ticket nor learn whether its owner
    /// lives. The ticket keeps its place. Waiters behind it check whether it still exists, and
    /// bypass it as they bypass a frozen waiter.
    Denied,
}

/// The ticket of another process, open.
pub(super) struct OtherTicket {
    ticket: Ticket,
    file: Private,
    id: FileId,
    /// Whether it can be marked. Read permission is enough to try its lock.
    writable: bool,
}

impl OtherTicket {
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn into_file(self) -> Private {
        self.file
    }
}

/// The result of reaping the ticket of another process if its owner is dead.
pub(super) enum Reaped {
    Gone,
    Alive,
    /// See [`Other::Denied`]. With the error that says so.
    Denied(Error),
}

/// The present state of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Unmarked,
    Marked,
    Gone,
}

enum Created {
    Own(OwnTicket),
    Taken,
    Gone,
}

impl QueueDir {
    /// Opens the directory. If it is missing, creates it for the same users as the lock file
    /// `door`, which `make_door` creates if it is missing too.
    pub(super) fn open<T>(
        path: &Path,
        door: &Path,
        make_door: impl Fn() -> Result<T>,
    ) -> Result<Self> {
        for _ in 0..TRIES {
            if let Some(queue) = Self::open_existing(path, door)? {
                return Ok(queue);
            }
            drop(make_door()?);
            Dir::create(path, door)
                .map_err(|e| Error::io("create the queue directory", path, e))?;
        }
        let text = "the queue directory is removed whenever it is created";
        Err(Error::at(ErrorKind::Corrupt, text, path))
    }

    /// Opens the directory, if there is one.
    pub(super) fn open_existing(path: &Path, door: &Path) -> Result<Option<Self>> {
        let dir = Dir::open(path).map_err(|e| Error::io("open the queue directory", path, e))?;
        Ok(dir.map(|dir| Self {
            door: door.to_path_buf(),
            dir,
            tickets: Vec::new(),
            unchanged: None,
            state_inode: None,
            spares: Spares::default(),
        }))
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Opens the state file. Creates it if it is missing, for the same users as the lock file.
    pub(super) fn open_state(&self) -> io::Result<(File, FileId)> {
        let rights = || self.dir.rights(&self.door);
        self.dir.open_or_make(STATE, rights)
    }

    /// Lists the tickets in order. Returns `None` if the directory has been removed.
    pub(super) fn list(&mut self) -> Result<Option<&[Ticket]>> {
        self.unchanged = None;
        let (tickets, state_inode) = (&mut self.tickets, &mut self.state_inode);
        let spares = &mut self.spares;
        tickets.clear();
        spares.listed.clear();
        *state_inode = None;
        let alive = self
            .dir
            .list(|name, inode| match Ticket::parse(name) {
                Some(ticket) => tickets.push(ticket),
                None if name == STATE.as_bytes() => *state_inode = Some(inode),
                None => spares.note(name),
            })
            .map_err(|e| Error::io("list the queue directory", self.dir.path(), e))?;
        tickets.sort_unstable();
        Ok(alive.then_some(&self.tickets[..]))
    }

    /// Does the same, and lists only if the directory has changed. The check is an extra cost where
    /// it mostly has.
    pub(super) fn list_if_changed(&mut self) -> Result<Option<&[Ticket]>> {
        let unchanged = self.dir.unchanged_since();
        if unchanged.is_some() && unchanged == self.unchanged {
            return Ok(Some(&self.tickets));
        }
        let alive = self.list()?.is_some();
        self.unchanged = unchanged;
        Ok(alive.then_some(&self.tickets[..]))
    }

    /// Returns the queue as it was listed last.
    pub(super) fn tickets(&self) -> &[Ticket] {
        &self.tickets
    }

    /// Returns the inode of the state file in the last listing, or `None` if it was missing.
    pub(super) fn state_inode(&self) -> Option<u64> {
        self.state_inode
    }

    /// Takes a ticket at the end of the queue. Returns `None` if the directory has been removed.
    /// `listed` says that the queue has just been listed. `words` describe the waiter, if it is
    /// known.
    pub(super) fn take(
        &mut self,
        mode: Mode,
        words: Option<&Arc<str>>,
        mut listed: bool,
    ) -> Result<Option<OwnTicket>> {
        for _ in 0..TRIES {
            step::at(Step::ListQueue);
            if !std::mem::take(&mut listed) && self.list()?.is_none() {
                return Ok(None);
            }
            if self.clear_ahead_of_clock()? {
                continue;
            }
            let Some(number) = next_number(&self.tickets, host::monotonic_ns()) else {
                self.clear_last()?;
                continue;
            };
            match self.create(Ticket { number, mode }, words)? {
                Created::Own(own) => return Ok(Some(own)),
                Created::Taken => {}
                Created::Gone => return Ok(None),
            }
        }
        let text = "other processes take every ticket number first";
        Err(Error::at(ErrorKind::Corrupt, text, self.dir.path()))
    }

    /// Takes a ticket before all others. For a cohort without a ticket, whose process had the whole
    /// lock and gives up some or all of it.
    pub(super) fn take_first(
        &mut self,
        mode: Mode,
        words: Option<&Arc<str>>,
    ) -> Result<Option<OwnTicket>> {
        for back in 1..TRIES as u64 {
            if self.list()?.is_none() {
                return Ok(None);
            }
            let first = self.tickets.first().map(|first| first.number);
            let number = first.map_or_else(host::monotonic_ns, |it| it.saturating_sub(back));
            match self.create(Ticket { number, mode }, words)? {
                Created::Own(own) => return Ok(Some(own)),
                Created::Taken => {}
                Created::Gone => return Ok(None),
            }
        }
        self.take(mode, words, false)
    }

    /// Reaps the last tickets if their numbers are above the clock and their owners are dead. Such
    /// a ticket is from before a restart of the machine, was taken in the same nanosecond, or is a
    /// stray file. It would raise all later numbers. Returns whether one is gone.
    fn clear_ahead_of_clock(&self) -> Result<bool> {
        let clock = host::monotonic_ns();
        let ahead = |it: &&Ticket| it.number > clock;
        let mut cleared = false;
        for last in self.tickets.iter().rev().take_while(ahead) {
            if !matches!(self.reap_dead(*last)?, Reaped::Gone) {
                break;
            }
            cleared = true;
        }
        Ok(cleared)
    }

    fn create(&mut self, ticket: Ticket, words: Option<&Arc<str>>) -> Result<Created> {
        step::at(Step::CreateTicket);
        let name = ticket.to_string();
        let rights = self.dir.rights(&self.door);
        let rights = rights.map_err(|e| Error::io("look at the lock file", &self.door, e))?;
        if let Some(mut file) = self.spares.take(&self.dir, &rights) {
            file.describe(words);
            wake_lock::take(&file.file, ticket.number);
            match self.dir.link(&file.file, &name) {
                Ok(()) => {
                    let kept = true;
                    return Ok(Created::Own(OwnTicket { ticket, file, kept }));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    wake_lock::release(&file.file, ticket.number);
                    self.spares.own.push(file);
                    return Ok(Created::Taken);
                }
                // Another process has deleted it, or links are not supported. Create a new file.
                Err(_) => {}
            }
        }
        match self.dir.create_locked(&name, &rights) {
            Ok((file, id)) => {
                // A thread that looks for it before polls for this ticket.
                wake_lock::take(&file, ticket.number);
                let mut file = TicketFile::new(file, id, rights);
                file.describe(words);
                let kept = false;
                Ok(Created::Own(OwnTicket { ticket, file, kept }))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Created::Taken),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Created::Gone),
            Err(error) => Err(Error::io("take a ticket", self.path_of(ticket), error)),
        }
    }

    /// Frees the highest possible number. If its owner is alive, no process can take a ticket any
    /// more.
    fn clear_last(&mut self) -> Result<()> {
        let Some(last) = self.tickets.last().copied() else {
            let text = "the monotonic clock is beyond all ticket numbers";
            return Err(Error::at(ErrorKind::Corrupt, text, self.dir.path()));
        };
        if let Reaped::Gone = self.reap_dead(last)? {
            return Ok(());
        }
        let text = "the highest ticket number is in use";
        Err(Error::at(ErrorKind::Corrupt, text, self.path_of(last)))
    }

    /// Opens the ticket of another process, to watch it and to try its lock.
    pub(super) fn open_other(&self, ticket: Ticket) -> Result<Other> {
        let at = |e| Error::io("open the ticket", self.path_of(ticket), e);
        let opened = self.dir.open_ticket(&ticket.to_string()).map_err(at)?;
        let Opened::File { file, writable } = opened else {
            return Ok(match opened {
                Opened::Gone => Other::Gone,
                _ => Other::Denied,
            });
        };
        let id = file::id_of(&file).map_err(at)?;
        let file = Private::new(file);
        Ok(Other::Open(OtherTicket {
            ticket,
            file,
            id,
            writable,
        }))
    }

    /// Tries the lock of another process's open ticket. If the lock is free, its owner is dead.
    /// Then unlinks the file, unless the name means another file by now, and returns `true`.
    ///
    /// The lock is released here. If it were not, the close by the caller would leave it to the
    /// last copy of the descriptor.
    pub(super) fn reap_if_dead(&self, other: &OtherTicket) -> Result<bool> {
        step::at(Step::TryPredecessor);
        let OtherTicket { ticket, file, .. } = other;
        let at = |step, error| Error::io(step, self.path_of(*ticket), error);
        if !flock::try_lock_own(file, false).map_err(|e| at("try the lock of the ticket", e))? {
            return Ok(false);
        }
        step::at(Step::ReapPredecessor);
        let result = self.unlink_if_same(*ticket, other.id);
        let unlocked = flock::unlock(file).map_err(|e| at("unlock the ticket", e));
        result.and(unlocked)?;
        Ok(true)
    }

    /// Opens the ticket of another process, and reaps it if its owner is dead. No process watches a
    /// marked ticket, so for such a ticket this wakes no waiter.
    pub(super) fn reap_dead(&self, ticket: Ticket) -> Result<Reaped> {
        Ok(match self.open_other(ticket)? {
            Other::Open(file) if self.reap_if_dead(&file)? => Reaped::Gone,
            Other::Open(_) => Reaped::Alive,
            Other::Gone => Reaped::Gone,
            Other::Denied => {
                let text = "cannot tell whether the owner of this ticket is alive: \
                            no permission to open the ticket";
                Reaped::Denied(Error::at(ErrorKind::Io, text, self.path_of(ticket)))
            }
        })
    }

    /// Returns whether a ticket has a mark, without opening it. A removed ticket has none.
    pub(super) fn is_marked(&self, ticket: Ticket) -> Result<bool> {
        Ok(self.find(ticket)?.is_some_and(|found| found.marked))
    }

    /// Returns whether a ticket exists and has no mark.
    pub(super) fn is_unmarked(&self, ticket: Ticket) -> Result<bool> {
        Ok(self.find(ticket)?.is_some_and(|found| !found.marked))
    }

    /// Returns whether the name of a ticket still means this file, and whether it is marked.
    pub(super) fn still_stands(&self, ticket: Ticket, id: FileId) -> Result<Standing> {
        Ok(match self.find(ticket)?.filter(|found| found.id == id) {
            None => Standing::Gone,
            Some(found) if found.marked => Standing::Marked,
            Some(_) => Standing::Unmarked,
        })
    }

    /// Returns whether the file of a ticket has a name in another directory, where a mark would
    /// show too.
    pub(super) fn is_linked_elsewhere(&self, other: &OtherTicket) -> Result<bool> {
        let at = |error| Error::io("look at the ticket", self.path_of(other.ticket), error);
        let names = file::names_of(&other.file).map_err(at)?;
        let spare = self.dir.find(&spare_name(other.id.inode)).map_err(at)?;
        let here = 1 + u64::from(spare.is_some_and(|found| found.id == other.id));
        Ok(names > here)
    }

    /// Marks the ticket of a frozen waiter. Returns `false` if this process may only read it.
    pub(super) fn mark(&self, other: &OtherTicket) -> Result<bool> {
        step::at(Step::MarkTicket);
        if !other.writable {
            return Ok(false);
        }
        let at = |error| Error::io("mark the ticket", self.path_of(other.ticket), error);
        file::set_mark(&other.file, true).map_err(at)?;
        let found = self.find(other.ticket)?;
        if !found.is_some_and(|found| found.id == other.id) {
            // The owner has left meanwhile, and may use the file for its next ticket.
            file::set_mark(&other.file, false).map_err(at)?;
        }
        Ok(true)
    }

    /// Replaces the state file by a new one, which is locked and which `write` fills. Returns
    /// `None` if the directory has been removed, or the new file deleted.
    ///
    /// Until the rename, the new file has the name of a spare file, with a number that is not its
    /// own. If this process dies, the next one that adopts spare files deletes it.
    pub(super) fn replace_state(
        &self,
        write: impl FnOnce(&Private, FileId) -> Result<()>,
    ) -> Result<Option<(Private, FileId)>> {
        let Some((name, file, id)) = self.create_draft()? else {
            return Ok(None);
        };
        let replaced = write(&file, id).and_then(|()| {
            step::at(Step::ReplaceState);
            match self.dir.rename(&name, STATE) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => {
                    let path = self.dir.path().join(STATE);
                    Err(Error::io("replace the state file", path, error))
                }
            }
        });
        if !matches!(replaced, Ok(true)) {
            let _ = self.dir.unlink(&name);
        }
        replaced.map(|replaced| replaced.then_some((file, id)))
    }

    fn create_draft(&self) -> Result<Option<(String, Private, FileId)>> {
        let rights = self.dir.rights(&self.door);
        let rights = rights.map_err(|e| Error::io("look at the rights of", &self.door, e))?;
        for _ in 0..TRIES {
            let name = spare_name(host::monotonic_ns());
            match self.dir.create_locked(&name, &rights) {
                Ok((file, id)) => return Ok(Some((name, file, id))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    let path = self.dir.path().join(name);
                    return Err(Error::io("copy the state file to", path, error));
                }
            }
        }
        let text = "every name for a copy of the state file is taken";
        Err(Error::at(ErrorKind::Corrupt, text, self.dir.path()))
    }

    /// Removes a ticket of this process: unlinks it, then closes the file or keeps it for the next
    /// ticket.
    pub(super) fn give_up(&mut self, own: OwnTicket) -> Result<()> {
        let spare = spare_name(own.file.id.inode);
        // Links may not be supported.
        let set_aside = || self.dir.link(&own.file.file, &spare).is_ok();
        let keep = self.spares.has_room() && (own.kept || set_aside());
        step::at(Step::UnlinkTicket);
        let result = self.unlink_if_same(own.ticket, own.file.id);
        step::at(Step::CloseTicket);
        // The threads that this wakes find that the ticket is gone.
        wake_lock::release(&own.file.file, own.ticket.number);
        if own.kept && !keep {
            let _ = self.dir.unlink(&spare);
        }
        if keep && result.is_ok() {
            self.spares.own.push(own.file);
        }
        result
    }

    /// Deletes the spare files of this process.
    pub(super) fn drop_spares(&mut self) {
        for spare in self.spares.own.drain(..) {
            // A file that cannot be deleted is adopted by another process later.
            let _ = self.dir.unlink(&spare_name(spare.id.inode));
        }
    }

    /// Deletes all spare files, also those of living processes, which create new ones. For a
    /// process that removes the queue and has the door.
    pub(super) fn clear_spares(&mut self) -> Result<()> {
        self.drop_spares();
        // Those of dead processes are listed again too.
        self.spares.adopted = false;
        self.list()?;
        for name in std::mem::take(&mut self.spares.listed) {
            self.dir
                .unlink(&name)
                .map_err(|e| Error::io("delete a spare file", self.dir.path().join(name), e))?;
        }
        Ok(())
    }

    fn unlink_if_same(&self, ticket: Ticket, id: FileId) -> Result<()> {
        if self.find(ticket)?.is_some_and(|found| found.id == id) {
            self.dir
                .unlink(&ticket.to_string())
                .map_err(|e| Error::io("remove the ticket", self.path_of(ticket), e))?;
        }
        Ok(())
    }

    /// Looks at the file of a ticket without opening it. Opening it would wake its watchers.
    pub(super) fn find(&self, ticket: Ticket) -> Result<Option<Found>> {
        self.dir
            .find(&ticket.to_string())
            .map_err(|e| Error::io("look at the ticket", self.path_of(ticket), e))
    }

    /// Returns the note on a ticket, in which its owner describes itself. Returns `None` if it was
    /// written on another file than this one.
    pub(super) fn note(&self, ticket: Ticket, id: FileId) -> io::Result<Option<String>> {
        let note = self.dir.description(&ticket.to_string())?;
        let copied = file_noted(&note).is_some_and(|inode| inode != id.inode);
        Ok((!copied).then_some(note))
    }

    fn path_of(&self, ticket: Ticket) -> PathBuf {
        self.dir.path().join(ticket.to_string())
    }
}

impl OwnTicket {
    pub(super) fn is_marked(&self) -> io::Result<bool> {
        file::is_marked(&self.file.file)
    }

    pub(super) fn set_mark(&self, marked: bool) -> io::Result<()> {
        step::at(if marked {
            Step::MarkTicket
        } else {
            Step::Unmark
        });
        file::set_mark(&self.file.file, marked)
    }
}

/// A file of this process, open and locked, that is a ticket, was one, or will be one.
#[derive(Debug)]
struct TicketFile {
    file: Private,
    id: FileId,
    /// Who may use it.
    rights: Rights,
    /// The note on it, which describes its owner.
    words: Option<Arc<str>>,
}

/// The spare files of one queue, as this process sees them.
#[derive(Default)]
struct Spares {
    own: Vec<TicketFile>,
    /// Names in the last listing.
    listed: Vec<String>,
    /// Whether the files of dead processes were looked for.
    adopted: bool,
}

impl TicketFile {
    fn new(file: Private, id: FileId, rights: Rights) -> Self {
        Self {
            file,
            id,
            rights,
            words: None,
        }
    }

    /// Notes the owner on the file, unless the note is there already.
    fn describe(&mut self, words: Option<&Arc<str>>) {
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
    /// Notes a listed name that is no ticket.
    fn note(&mut self, name: &[u8]) {
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|it| is_spare_name(it));
        if let Some(name) = name.filter(|_| !self.adopted) {
            self.listed.push(name.to_owned());
        }
    }

    /// Returns a file for a ticket with these rights, if there is one. The rights of a spare file
    /// do not change, so a file with other rights is given up.
    fn take(&mut self, dir: &Dir, rights: &Rights) -> Option<TicketFile> {
        self.adopt(dir, rights);
        while let Some(spare) = self.own.pop() {
            if spare.is_clean(rights) {
                return Some(spare);
            }
            drop_spare(dir, &spare_name(spare.id.inode), spare.id, &spare.file);
        }
        None
    }

    fn has_room(&self) -> bool {
        self.own.len() < MOST_SPARES
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
            let fits = spare_name(id.inode) == name && Dir::is_for(&file, rights);
            // Only the process that has the lock links the file, so this stays true.
            let one = file::names_of(&file).is_ok_and(|names| names == 1);
            if fits && one && self.has_room() {
                self.own.push(TicketFile::new(file, id, rights.clone()));
            } else {
                drop_spare(dir, &name, id, &file);
            }
        }
    }
}

/// Returns the name under which a spare file with this inode is kept.
fn spare_name(inode: u64) -> String {
    format!("{SPARE}{inode}")
}

/// Returns whether this is the name of a spare file, with any number.
fn is_spare_name(name: &str) -> bool {
    let number = name.strip_prefix(SPARE);
    number.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the inode of the file that a note was written on, as the note says.
fn file_noted(words: &str) -> Option<u64> {
    let mut words = words.split_ascii_whitespace();
    words.find_map(|word| word.strip_prefix(FILE)?.parse().ok())
}

/// Deletes the name of a locked file, and unlocks it. With a second name the file may be the ticket
/// of a dead process, which our lock must not keep alive.
fn drop_spare(dir: &Dir, name: &str, id: FileId, file: &Private) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the empty queue of a lock file in a directory of its own.
    #[allow(clippy::disallowed_methods)] // Makes the lock file.
    fn queue() -> (tempfile::TempDir, PathBuf, impl Fn() -> QueueDir) {
        let place = tempfile::tempdir().expect("a directory");
        let door = place.path().join("it.lock");
        std::fs::write(&door, "").expect("a lock file");
        let path = place.path().join("it.lock.queue");
        Dir::create(&path, &door).expect("a queue");
        let queue = path.clone();
        let open = move || {
            let opened = QueueDir::open_existing(&queue, &door).expect("opened");
            opened.expect("there")
        };
        (place, path, open)
    }

    #[cfg(unix)]
    #[test]
    #[allow(clippy::disallowed_methods)] // It looks at what is there.
    fn p62_the_files_of_two_tickets_are_kept_and_used_again() {
        let (_place, path, open) = queue();
        let mut queue = open();
        let take = |queue: &mut QueueDir| {
            let taken = queue.take(Mode::Exclusive, None, false);
            taken.expect("no error").expect("a ticket")
        };
        let own = [(); 3].map(|()| take(&mut queue));
        let names = [0, 1].map(|it| format!("spare.{}", own[it].file.id.inode));
        for own in own {
            queue.give_up(own).expect("given up");
        }
        let there = || {
            let entries = std::fs::read_dir(&path).expect("a directory");
            let names = entries.map(|it| it.expect("an entry").file_name());
            let names: std::collections::BTreeSet<_> = names.collect();
            names
                .into_iter()
                .map(|it| it.into_string().expect("a name"))
        };
        let mut sorted = names.clone();
        sorted.sort();
        assert!(there().eq(sorted), "{:?}", there().collect::<Vec<_>>());
        let next = take(&mut queue);
        assert!(names.contains(&spare_name(next.file.id.inode)));
        queue.give_up(next).expect("given up");
        assert_eq!(there().count(), 2);
        // The process dies, and the next one uses what is left.
        drop(queue);
        let mut queue = open();
        let next = take(&mut queue);
        assert!(names.contains(&spare_name(next.file.id.inode)));
        queue.give_up(next).expect("given up");
        assert_eq!(there().count(), 2);
        queue.drop_spares();
        assert_eq!(there().count(), 0);
    }

    /// The machine has restarted, and its monotonic clock with it.
    #[test]
    #[allow(clippy::disallowed_methods)] // Plays the processes that died with the machine.
    fn p13_any_number_of_dead_tickets_ahead_of_the_clock_are_reaped() {
        let (_place, path, open) = queue();
        let first = host::monotonic_ns() + 1_000_000_000_000;
        for number in first..first + TRIES as u64 + 1 {
            let name = Ticket {
                number,
                mode: Mode::Exclusive,
            }
            .to_string();
            std::fs::write(path.join(name), "").expect("a ticket");
        }
        let mut queue = open();
        let taken = queue.take(Mode::Exclusive, None, false).expect("no error");
        assert!(taken.expect("a ticket").ticket.number < first);
        assert_eq!(queue.list().expect("no error").expect("there").len(), 1);
    }

    /// The lock was removed while this process had its directory open.
    #[test]
    #[allow(clippy::disallowed_methods)] // Plays the process that removes the lock.
    fn p38_nothing_is_made_in_a_queue_that_has_been_removed() {
        let (_place, path, open) = queue();
        let mut queue = open();
        std::fs::remove_dir(&path).expect("removed");
        let taken = queue.take(Mode::Exclusive, None, true);
        assert!(taken.expect("no error").is_none(), "a ticket");
        assert!(queue.create_draft().expect("no error").is_none(), "a copy");
        assert!(queue.list().expect("no error").is_none(), "a listing");
    }
}
