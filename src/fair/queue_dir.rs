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

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::spare::{self, Spares, TicketFile};
use super::ticket::{Mode, Ticket, policy};
use crate::error::{Error, ErrorKind, Result};
use crate::step::{self, Step};
use crate::sys::dir::{Dir, Directory, Found, Opened, Unchanged};
use crate::sys::file::{self, FileId};
use crate::sys::fork::Private;
use crate::sys::{flock, host, wake_lock};

/// The name of the state file, which is no ticket.
pub(crate) const STATE: &str = "state";
/// How often other processes may take a chosen name before this counts as an error.
const TRIES: usize = 1000;

/// An open queue directory, with the queue as it was listed last.
pub(crate) struct QueueDir {
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
pub(crate) struct OwnTicket {
    pub(crate) ticket: Ticket,
    file: TicketFile,
    /// Whether the file has its spare name too.
    kept: bool,
}

/// The result of opening another process's ticket.
pub(crate) enum Other {
    Open(OtherTicket),
    Gone,
    /// This process may not open it. So it can neither watch the ticket nor learn whether its owner
    /// lives. The ticket keeps its place. Waiters behind it check whether it still exists, and
    /// bypass it as they bypass a frozen waiter.
    Denied,
}

/// The ticket of another process, open.
pub(crate) struct OtherTicket {
    file: Private,
    id: FileId,
    /// Whether it can be marked. Read permission is enough to try its lock.
    writable: bool,
}

impl OtherTicket {
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    pub(crate) fn into_file(self) -> Private {
        self.file
    }
}

/// The present state of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Unmarked,
    Marked,
    Gone,
}

/// A new file, open and locked, that is to become the state file.
pub(crate) struct StateDraft {
    pub(crate) file: Private,
    pub(crate) id: FileId,
    name: String,
}

enum Created {
    Own(OwnTicket),
    Taken,
    Gone,
}

impl QueueDir {
    /// Opens the directory. If it is missing, creates it for the same users as the lock file
    /// `door`, which `make_door` creates if it is missing too.
    pub(crate) fn open<T>(
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
    pub(crate) fn open_existing(path: &Path, door: &Path) -> Result<Option<Self>> {
        let dir = Dir::open(path).map_err(|e| Error::io("open the queue directory", path, e))?;
        Ok(dir.map(|dir| Self {
            door: door.to_path_buf(),
            dir,
            tickets: Vec::new(),
            unchanged: None,
            state_inode: None,
            spares: Spares::new(),
        }))
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Opens the state file. Creates it if it is missing, for the same users as the lock file.
    pub(crate) fn open_state(&self) -> io::Result<(File, FileId)> {
        let rights = || self.dir.rights(&self.door);
        self.dir.open_or_make(STATE, rights)
    }

    /// Lists the tickets in order. Returns `None` if the directory has been removed.
    pub(crate) fn list(&mut self) -> Result<Option<&[Ticket]>> {
        self.unchanged = None;
        let (tickets, state_inode) = (&mut self.tickets, &mut self.state_inode);
        let spares = &mut self.spares;
        tickets.clear();
        spares.forget_names();
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
    pub(crate) fn list_if_changed(&mut self) -> Result<Option<&[Ticket]>> {
        let unchanged = self.dir.unchanged_since();
        if unchanged.is_some() && unchanged == self.unchanged {
            return Ok(Some(&self.tickets));
        }
        let alive = self.list()?.is_some();
        self.unchanged = unchanged;
        Ok(alive.then_some(&self.tickets[..]))
    }

    /// Returns the queue as it was listed last.
    pub(crate) fn tickets(&self) -> &[Ticket] {
        &self.tickets
    }

    /// Returns the inode of the state file in the last listing, or `None` if it was missing.
    pub(crate) fn state_inode(&self) -> Option<u64> {
        self.state_inode
    }

    /// Takes a ticket at the end of the queue. Returns `None` if the directory has been removed.
    /// `listed` says that the queue has just been listed. `words` describe the waiter, if it is
    /// known.
    pub(crate) fn take(
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
            let Some(number) = policy::next_number(&self.tickets, host::monotonic_ns()) else {
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
    pub(crate) fn take_first(
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

    /// Reaps the last tickets if their numbers are above the clock and their owners are dead. Such a
    /// ticket is from before a restart of the machine, was taken in the same nanosecond, or is a
    /// stray file. It would raise all later numbers. Returns whether one is gone.
    fn clear_ahead_of_clock(&self) -> Result<bool> {
        let clock = host::monotonic_ns();
        let ahead = |it: &&Ticket| it.number > clock;
        let mut cleared = false;
        for last in self.tickets.iter().rev().take_while(ahead) {
            let gone = match self.open_other(*last)? {
                Other::Open(file) => self.reap_if_dead(*last, &file)?,
                Other::Gone => true,
                Other::Denied => false,
            };
            if !gone {
                break;
            }
            cleared = true;
        }
        Ok(cleared)
    }

    fn create(&mut self, ticket: Ticket, words: Option<&Arc<str>>) -> Result<Created> {
        step::at(Step::CreateTicket);
        let name = ticket.name();
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
                    self.spares.put(file);
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
            Err(error) => match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(Created::Taken),
                io::ErrorKind::NotFound => Ok(Created::Gone),
                _ => Err(Error::io(
                    "take a ticket",
                    self.dir.path().join(name),
                    error,
                )),
            },
        }
    }

    /// Frees the highest possible number. If its owner is alive, no process can take a ticket any
    /// more.
    fn clear_last(&mut self) -> Result<()> {
        let Some(last) = self.tickets.last().copied() else {
            let text = "the monotonic clock is beyond all ticket numbers";
            return Err(Error::at(ErrorKind::Corrupt, text, self.dir.path()));
        };
        let gone = match self.open_other(last)? {
            Other::Gone => true,
            Other::Open(file) => self.reap_if_dead(last, &file)?,
            Other::Denied => false,
        };
        if gone {
            return Ok(());
        }
        let text = "the highest ticket number is in use";
        Err(Error::at(ErrorKind::Corrupt, text, self.path_of(last)))
    }

    /// Opens the ticket of another process, to watch it and to try its lock.
    pub(crate) fn open_other(&self, ticket: Ticket) -> Result<Other> {
        let at = |e| Error::io("open the ticket", self.path_of(ticket), e);
        let opened = self.dir.open_ticket(&ticket.name()).map_err(at)?;
        let Opened::File { file, writable } = opened else {
            return Ok(match opened {
                Opened::Gone => Other::Gone,
                _ => Other::Denied,
            });
        };
        let id = file::id_of(&file).map_err(at)?;
        let file = Private::new(file);
        Ok(Other::Open(OtherTicket { file, id, writable }))
    }

    /// Returns the error for a ticket that this process may not open, so that it cannot learn
    /// whether the owner lives.
    pub(crate) fn denied(&self, ticket: Ticket) -> Error {
        let text = "cannot tell whether the owner of this ticket is alive: \
                    no permission to open the ticket";
        Error::at(ErrorKind::Io, text, self.path_of(ticket))
    }

    /// Tries the lock of another process's open ticket. If the lock is free, its owner is dead.
    /// Then unlinks the file, unless the name means another file by now, and returns `true`.
    ///
    /// The lock is released here. If it were not, the close by the caller would leave it to the
    /// last copy of the descriptor.
    pub(crate) fn reap_if_dead(&self, ticket: Ticket, other: &OtherTicket) -> Result<bool> {
        step::at(Step::TryPredecessor);
        let file = &other.file;
        let at = |step, error| Error::io(step, self.path_of(ticket), error);
        if !flock::try_lock_own(file, false).map_err(|e| at("try the lock of the ticket", e))? {
            return Ok(false);
        }
        step::at(Step::ReapPredecessor);
        let result = self.unlink_if_same(ticket, other.id);
        let unlocked = flock::unlock(file).map_err(|e| at("unlock the ticket", e));
        result.and(unlocked)?;
        Ok(true)
    }

    /// Reaps a marked ticket if its owner is dead. No process watches a marked ticket, so this
    /// wakes no waiter.
    pub(crate) fn reap_dead(&self, ticket: Ticket) -> Result<()> {
        match self.open_other(ticket)? {
            Other::Open(file) => self.reap_if_dead(ticket, &file).map(drop),
            Other::Gone | Other::Denied => Ok(()),
        }
    }

    /// Returns whether a ticket has a mark, without opening it. A removed ticket has none.
    pub(crate) fn is_marked(&self, ticket: Ticket) -> Result<bool> {
        Ok(self.find(ticket)?.is_some_and(|found| found.marked))
    }

    /// Returns whether a ticket exists and has no mark.
    pub(crate) fn is_unmarked(&self, ticket: Ticket) -> Result<bool> {
        Ok(self.find(ticket)?.is_some_and(|found| !found.marked))
    }

    /// Returns whether the name of a ticket still means this file, and whether it is marked.
    pub(crate) fn still_stands(&self, ticket: Ticket, id: FileId) -> Result<Standing> {
        Ok(match self.find(ticket)?.filter(|found| found.id == id) {
            None => Standing::Gone,
            Some(found) if found.marked => Standing::Marked,
            Some(_) => Standing::Unmarked,
        })
    }

    /// Returns whether the file of a ticket has a name in another directory, where a mark would
    /// show too.
    pub(crate) fn is_linked_elsewhere(&self, ticket: Ticket, other: &OtherTicket) -> Result<bool> {
        let at = |error| Error::io("look at the ticket", self.path_of(ticket), error);
        let names = file::names_of(&other.file).map_err(at)?;
        let spare = self.dir.find(&spare::name_of(other.id)).map_err(at)?;
        let here = 1 + u64::from(spare.is_some_and(|found| found.id == other.id));
        Ok(names > here)
    }

    /// Marks the ticket of a frozen waiter. Returns `false` if this process may only read it.
    pub(crate) fn mark(&self, ticket: Ticket, other: &OtherTicket) -> Result<bool> {
        step::at(Step::MarkTicket);
        if !other.writable {
            return Ok(false);
        }
        let at = |error| Error::io("mark the ticket", self.path_of(ticket), error);
        file::set_mark(&other.file, true).map_err(at)?;
        if !self.find(ticket)?.is_some_and(|found| found.id == other.id) {
            // The owner has left meanwhile, and may use the file for its next ticket.
            file::set_mark(&other.file, false).map_err(at)?;
        }
        Ok(true)
    }

    /// Creates the file that is to replace the state file. Returns `None` if the directory has been
    /// removed. It has the name of a spare file, with a number that is not its own. If this process
    /// dies, the next one that adopts spare files deletes it.
    pub(crate) fn create_draft(&self) -> Result<Option<StateDraft>> {
        let rights = self.dir.rights(&self.door);
        let rights =
            rights.map_err(|error| Error::io("look at the rights of", self.door.clone(), error))?;
        for _ in 0..TRIES {
            let name = spare::name_of_number(host::monotonic_ns());
            match self.dir.create_locked(&name, &rights) {
                Ok((file, id)) => return Ok(Some(StateDraft { file, id, name })),
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

    /// Renames the draft to `state`, in place of the old state file. Returns `false` if the draft
    /// was deleted.
    pub(crate) fn name_state(&self, draft: &StateDraft) -> Result<bool> {
        match self.dir.rename(&draft.name, STATE) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                let path = self.dir.path().join(STATE);
                Err(Error::io("replace the state file", path, error))
            }
        }
    }

    /// Deletes a draft that did not become the state file.
    pub(crate) fn drop_draft(&self, draft: &StateDraft) {
        let _ = self.dir.unlink(&draft.name);
    }

    /// Removes a ticket of this process: unlinks it, then closes the file or keeps it for the next
    /// ticket.
    pub(crate) fn give_up(&mut self, own: OwnTicket) -> Result<()> {
        let keep = self.spares.has_room() && (own.kept || self.set_aside(&own));
        step::at(Step::UnlinkTicket);
        let result = self.unlink_if_same(own.ticket, own.file.id);
        step::at(Step::CloseTicket);
        // The threads that this wakes find that the ticket is gone.
        wake_lock::release(&own.file.file, own.ticket.number);
        if own.kept && !keep {
            let _ = self.dir.unlink(&spare::name_of(own.file.id));
        }
        if keep && result.is_ok() {
            self.spares.put(own.file);
        }
        result
    }

    /// Gives the ticket's file its spare name. Returns `false` if links are not supported.
    fn set_aside(&self, own: &OwnTicket) -> bool {
        let file = &own.file;
        self.dir.link(&file.file, &spare::name_of(file.id)).is_ok()
    }

    /// Deletes the spare files of this process.
    pub(crate) fn drop_spares(&mut self) {
        self.spares.drop_own(&self.dir);
    }

    /// Deletes all spare files. For a process that removes the queue and has the door.
    pub(crate) fn clear_spares(&mut self) -> Result<()> {
        self.drop_spares();
        self.spares.adopt_again();
        self.list()?;
        self.spares
            .delete_listed(&self.dir)
            .map_err(|(name, e)| Error::io("delete a spare file", self.dir.path().join(name), e))
    }

    fn unlink_if_same(&self, ticket: Ticket, id: FileId) -> Result<()> {
        if self.find(ticket)?.is_some_and(|found| found.id == id) {
            self.dir
                .unlink(&ticket.name())
                .map_err(|e| Error::io("remove the ticket", self.path_of(ticket), e))?;
        }
        Ok(())
    }

    /// Looks at the file of a ticket without opening it. Opening it would wake its watchers.
    pub(crate) fn find(&self, ticket: Ticket) -> Result<Option<Found>> {
        self.dir
            .find(&ticket.name())
            .map_err(|e| Error::io("look at the ticket", self.path_of(ticket), e))
    }

    /// Returns the note on a ticket, in which its owner describes itself.
    pub(crate) fn description(&self, ticket: Ticket) -> io::Result<String> {
        self.dir.description(&ticket.name())
    }

    fn path_of(&self, ticket: Ticket) -> PathBuf {
        self.dir.path().join(ticket.name())
    }
}

impl OwnTicket {
    pub(crate) fn is_marked(&self) -> io::Result<bool> {
        file::is_marked(&self.file.file)
    }

    pub(crate) fn set_mark(&self, marked: bool) -> io::Result<()> {
        step::at(if marked {
            Step::MarkTicket
        } else {
            Step::Unmark
        });
        file::set_mark(&self.file.file, marked)
    }
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
        assert!(names.contains(&spare::name_of(next.file.id)));
        queue.give_up(next).expect("given up");
        assert_eq!(there().count(), 2);
        // The process dies, and the next one uses what is left.
        drop(queue);
        let mut queue = open();
        let next = take(&mut queue);
        assert!(names.contains(&spare::name_of(next.file.id)));
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
            let name = Ticket::exclusive(number).name();
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
