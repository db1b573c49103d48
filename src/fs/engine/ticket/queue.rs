//! The queue directory: listing the line, taking a place in it, and clearing away the places of the dead.
//!
//! # Invariants
//!
//! 1. A number never comes back: it is above everybody listed and at least the monotonic clock in nanoseconds.
//! 2. A place counts from the lock on its file. On Linux the file appears under its name already locked.
//! 3. A ticket's file is unlinked only by who holds its lock and has seen that name and descriptor are one inode.

use std::fs::File;
use std::io;
use std::path::Path;

use super::{Mode, Ticket, policy};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::engine::step::{self, Step};
use crate::fs::sys::dir::{Dir, Found};
use crate::fs::sys::file::{self, FileId};
use crate::fs::sys::fork::Private;
use crate::fs::sys::{flock, host};

/// The file that is not a ticket.
pub(crate) const STATE: &str = "state";
/// How often a name may be taken by others in a row before something is wrong.
const TRIES: usize = 1000;

/// An open queue directory with the line as it was last seen.
pub(crate) struct Queue {
    dir: Dir,
    line: Vec<Ticket>,
    has_state: bool,
    mode: u32,
}

/// A place in line that is ours: the ticket's file, open and locked.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) ticket: Ticket,
    file: Private,
    id: FileId,
}

impl Queue {
    /// Opens the directory, or makes it with the permissions that go with a lock file of `mode`.
    pub(crate) fn open(path: &Path, mode: impl FnOnce() -> Result<u32>) -> Result<Self> {
        let open = || Dir::open(path).map_err(|e| Error::io("open the queue directory", path, e));
        let mut mode = Some(mode);
        let mut known = None;
        for _ in 0..TRIES {
            if let Some(dir) = open()? {
                let mode = known.unwrap_or_else(|| dir.mode());
                return Ok(Self {
                    dir,
                    line: Vec::new(),
                    has_state: false,
                    mode,
                });
            }
            if let Some(mode) = mode.take() {
                known = Some(mode()?);
            }
            let bits = known.unwrap_or(0o600);
            // Who may read the files may enter the directory.
            Dir::create(path, bits | (bits & 0o444) >> 2)
                .map_err(|e| Error::io("make the queue directory", path, e))?;
        }
        let text = "the queue directory vanishes as fast as it is made";
        Err(Error::at(ErrorKind::Corrupt, text, path))
    }

    /// Opens the directory to look at it; `None` when there is none.
    pub(crate) fn open_existing(path: &Path) -> Result<Option<Self>> {
        let dir = Dir::open(path).map_err(|e| Error::io("open the queue directory", path, e))?;
        Ok(dir.map(|dir| Self {
            mode: dir.mode(),
            dir,
            line: Vec::new(),
            has_state: false,
        }))
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Permission bits of the files in the queue.
    pub(crate) fn mode(&self) -> u32 {
        self.mode
    }

    /// The line as it stands now, in order; `None` when the directory has been removed.
    pub(crate) fn list(&mut self) -> Result<Option<&[Ticket]>> {
        let (line, has_state) = (&mut self.line, &mut self.has_state);
        line.clear();
        *has_state = false;
        let alive = self
            .dir
            .list(|name| match Ticket::parse(name) {
                Some(ticket) => line.push(ticket),
                None => *has_state |= name == STATE.as_bytes(),
            })
            .map_err(|e| Error::io("list the queue directory", self.dir.path(), e))?;
        line.sort_unstable();
        Ok(alive.then_some(&self.line[..]))
    }

    /// The line as it was last listed.
    pub(crate) fn line(&self) -> &[Ticket] {
        &self.line
    }

    /// Whether the last listing showed the state file.
    pub(crate) fn has_state(&self) -> bool {
        self.has_state
    }

    /// Takes a place at the end of the line; `None` when the directory has been removed.
    pub(crate) fn take(&mut self, mode: Mode) -> Result<Option<Own>> {
        for _ in 0..TRIES {
            step::at(Step::ListQueue);
            if self.list()?.is_none() {
                return Ok(None);
            }
            let Some(number) = policy::next_number(&self.line, host::monotonic_ns()) else {
                self.clear_last()?;
                continue;
            };
            match self.create(Ticket { number, mode })? {
                Created::Own(own) => return Ok(Some(own)),
                Created::Taken => {}
                Created::Gone => return Ok(None),
            }
        }
        let text = "somebody takes every ticket number before it can be used";
        Err(Error::at(ErrorKind::Corrupt, text, self.dir.path()))
    }

    /// Takes a place before everybody: for a process that holds the door, gives it up unused, and has no ticket to stay
    /// first in line with.
    pub(crate) fn take_first(&mut self, mode: Mode) -> Result<Option<Own>> {
        for back in 1..TRIES as u64 {
            if self.list()?.is_none() {
                return Ok(None);
            }
            let first = self.line.first().map(|first| first.number);
            let number = first.map_or_else(host::monotonic_ns, |it| it.saturating_sub(back));
            match self.create(Ticket { number, mode })? {
                Created::Own(own) => return Ok(Some(own)),
                Created::Taken => {}
                Created::Gone => return Ok(None),
            }
        }
        self.take(mode)
    }

    fn create(&self, ticket: Ticket) -> Result<Created> {
        step::at(Step::CreateTicket);
        let name = ticket.name();
        match self.dir.create_locked(&name, self.mode) {
            Ok((file, id)) => Ok(Created::Own(Own { ticket, file, id })),
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

    /// The highest number there can be is taken: by nobody who lives, or nobody can queue any more.
    fn clear_last(&mut self) -> Result<()> {
        let Some(last) = self.line.last().copied() else {
            let text = "the monotonic clock is beyond all ticket numbers";
            return Err(Error::at(ErrorKind::Corrupt, text, self.dir.path()));
        };
        let gone = match self.open_other(last)? {
            None => true,
            Some(file) => self.reap_if_dead(last, &file)?,
        };
        if gone {
            return Ok(());
        }
        let text = "the highest ticket number there can be is in use";
        Err(Error::at(ErrorKind::Corrupt, text, self.path_of(last)))
    }

    /// Opens somebody else's ticket, to watch it and try its lock; `None` when it is gone.
    pub(crate) fn open_other(&self, ticket: Ticket) -> Result<Option<File>> {
        self.dir
            .open_ticket(&ticket.name())
            .map_err(|e| Error::io("open the ticket", self.path_of(ticket), e))
    }

    /// Tries the lock of somebody else's open ticket. Got it: its owner is dead, and the file is unlinked unless the name means
    /// another one by now. `true` says that the place is free.
    ///
    /// The caller closes the file soon after: by then the lock is ours, and a close without an unlock would leave it to
    /// the last copy of the descriptor.
    pub(crate) fn reap_if_dead(&self, ticket: Ticket, file: &File) -> Result<bool> {
        step::at(Step::TryPredecessor);
        let at = |step, error| Error::io(step, self.path_of(ticket), error);
        if !flock::try_lock_exclusive(file).map_err(|e| at("try the lock of the ticket", e))? {
            return Ok(false);
        }
        step::at(Step::ReapPredecessor);
        let id = file::id_of(file).map_err(|e| at("look at the ticket", e))?;
        let result = self.unlink_if_same(ticket, id);
        let unlocked = flock::unlock(file).map_err(|e| at("unlock the ticket", e));
        result.and(unlocked)?;
        Ok(true)
    }

    /// Whether a ticket bears a mark, seen without opening it. One that is gone bears none.
    pub(crate) fn is_marked(&self, ticket: Ticket) -> Result<bool> {
        Ok(self.find(ticket)?.is_some_and(|found| found.marked))
    }

    /// Whether a ticket stands in line without a mark.
    pub(crate) fn is_unmarked(&self, ticket: Ticket) -> Result<bool> {
        Ok(self.find(ticket)?.is_some_and(|found| !found.marked))
    }

    /// Marks the ticket of a sleeper.
    pub(crate) fn mark(&self, ticket: Ticket, file: &File) -> Result<()> {
        step::at(Step::MarkTicket);
        file::set_mark(file, true)
            .map_err(|e| Error::io("mark the ticket", self.path_of(ticket), e))
    }

    /// Removes our own ticket from the line: unlink, then close.
    pub(crate) fn give_up(&self, own: Own) -> Result<()> {
        step::at(Step::UnlinkTicket);
        let result = self.unlink_if_same(own.ticket, own.id);
        step::at(Step::CloseTicket);
        drop(own);
        result
    }

    fn unlink_if_same(&self, ticket: Ticket, id: FileId) -> Result<()> {
        if self.find(ticket)?.is_some_and(|found| found.id == id) {
            self.dir
                .unlink(&ticket.name())
                .map_err(|e| Error::io("remove the ticket", self.path_of(ticket), e))?;
        }
        Ok(())
    }

    /// Looks at a ticket without opening it.
    pub(crate) fn find(&self, ticket: Ticket) -> Result<Option<Found>> {
        self.dir
            .find(&ticket.name())
            .map_err(|e| Error::io("look at the ticket", self.path_of(ticket), e))
    }

    fn path_of(&self, ticket: Ticket) -> std::path::PathBuf {
        self.dir.path().join(ticket.name())
    }
}

enum Created {
    Own(Own),
    Taken,
    Gone,
}

impl Own {
    pub(crate) fn is_marked(&self) -> io::Result<bool> {
        file::is_marked(&self.file)
    }

    pub(crate) fn set_mark(&self, marked: bool) -> io::Result<()> {
        step::at(if marked {
            Step::MarkTicket
        } else {
            Step::Unmark
        });
        file::set_mark(&self.file, marked)
    }
}
