//! The queue directory: listing the line, taking a place in it, and clearing away the places of the dead.
//!
//! # Invariants
//!
//! 1. A number never comes back: it is above everybody listed and at least the monotonic clock in nanoseconds. The one exception,
//!    [`Queue::take_first`], goes just below the lowest, while its process holds the door.
//! 2. A place counts from the lock on its file. On Linux the file appears under its name already locked.
//! 3. A ticket's file is unlinked only by who holds its lock and has seen that name and descriptor are one inode.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::spare::{self, Spares, TicketFile};
use super::{Mode, Ticket, policy};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::engine::step::{self, Step};
use crate::fs::sys::dir::{Dir, Found, Unchanged};
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
    /// Since when `line` is right, if that can be told.
    unchanged: Option<Unchanged>,
    /// The inode that bears the name of the state file.
    state_inode: Option<u64>,
    mode: u32,
    spares: Spares,
}

/// A place in line that is ours: the ticket's file, open and locked.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) ticket: Ticket,
    file: TicketFile,
    /// Whether the file has its spare name too.
    kept: bool,
}

impl Queue {
    /// Opens the directory, or makes it for the same people as the lock file, whose permission bits and group `door` tells.
    pub(crate) fn open(path: &Path, door: impl FnOnce() -> Result<(u32, u32)>) -> Result<Self> {
        let open = || Dir::open(path).map_err(|e| Error::io("open the queue directory", path, e));
        let mut door = Some(door);
        let mut known = None;
        for _ in 0..TRIES {
            if let Some(dir) = open()? {
                let mode = known.map_or_else(|| dir.mode(), |(mode, _)| mode);
                return Ok(Self {
                    dir,
                    line: Vec::new(),
                    unchanged: None,
                    state_inode: None,
                    mode,
                    spares: Spares::new(),
                });
            }
            if let Some(door) = door.take() {
                known = Some(door()?);
            }
            let (bits, group) = known.unwrap_or((0o600, 0));
            // Who may read the files may enter the directory.
            Dir::create(path, bits | (bits & 0o444) >> 2, group)
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
            unchanged: None,
            state_inode: None,
            spares: Spares::new(),
        }))
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The lock file's permission bits are known: they are those of the files in the queue.
    pub(crate) fn set_mode(&mut self, mode: u32) {
        self.mode = mode;
    }

    /// Permission bits of the files in the queue.
    pub(crate) fn mode(&self) -> u32 {
        self.mode
    }

    /// The line as it stands now, in order; `None` when the directory has been removed.
    pub(crate) fn list(&mut self) -> Result<Option<&[Ticket]>> {
        self.unchanged = None;
        let (line, state_inode) = (&mut self.line, &mut self.state_inode);
        let spares = &mut self.spares;
        line.clear();
        spares.forget_names();
        *state_inode = None;
        let alive = self
            .dir
            .list(|name, inode| match Ticket::parse(name) {
                Some(ticket) => line.push(ticket),
                None if name == STATE.as_bytes() => *state_inode = Some(inode),
                None => spares.see(name),
            })
            .map_err(|e| Error::io("list the queue directory", self.dir.path(), e))?;
        line.sort_unstable();
        Ok(alive.then_some(&self.line[..]))
    }

    /// The same, listed only if the directory has changed. To ask costs more where it mostly has.
    pub(crate) fn list_if_changed(&mut self) -> Result<Option<&[Ticket]>> {
        let unchanged = self.dir.unchanged_since();
        if unchanged.is_some() && unchanged == self.unchanged {
            return Ok(Some(&self.line));
        }
        let alive = self.list()?.is_some();
        self.unchanged = unchanged;
        Ok(alive.then_some(&self.line[..]))
    }

    /// The line as it was last listed.
    pub(crate) fn line(&self) -> &[Ticket] {
        &self.line
    }

    /// The inode of the state file in the last listing; `None` when it was missing.
    pub(crate) fn state_inode(&self) -> Option<u64> {
        self.state_inode
    }

    /// Takes a place at the end of the line; `None` when the directory has been removed. `listed` says that the line has just been
    /// listed.
    /// `words` say for people who waits, if that is known.
    pub(crate) fn take(
        &mut self,
        mode: Mode,
        words: Option<&Arc<str>>,
        mut listed: bool,
    ) -> Result<Option<Own>> {
        for _ in 0..TRIES {
            step::at(Step::ListQueue);
            if !std::mem::take(&mut listed) && self.list()?.is_none() {
                return Ok(None);
            }
            if self.clear_ahead_of_clock()? {
                continue;
            }
            let Some(number) = policy::next_number(&self.line, host::monotonic_ns()) else {
                self.clear_last()?;
                continue;
            };
            match self.create(Ticket { number, mode }, words)? {
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
    pub(crate) fn take_first(
        &mut self,
        mode: Mode,
        words: Option<&Arc<str>>,
    ) -> Result<Option<Own>> {
        for back in 1..TRIES as u64 {
            if self.list()?.is_none() {
                return Ok(None);
            }
            let first = self.line.first().map(|first| first.number);
            let number = first.map_or_else(host::monotonic_ns, |it| it.saturating_sub(back));
            match self.create(Ticket { number, mode }, words)? {
                Created::Own(own) => return Ok(Some(own)),
                Created::Taken => {}
                Created::Gone => return Ok(None),
            }
        }
        self.take(mode, words, false)
    }

    /// A number above the clock is somebody's who came in the same nanosecond, or rubbish that would push up all numbers
    /// to come: if its owner is dead it is cleared away.
    fn clear_ahead_of_clock(&self) -> Result<bool> {
        let Some(last) = self.line.last().copied() else {
            return Ok(false);
        };
        if last.number <= host::monotonic_ns() {
            return Ok(false);
        }
        match self.open_other(last)? {
            Some(file) => self.reap_if_dead(last, &file),
            None => Ok(true),
        }
    }

    fn create(&mut self, ticket: Ticket, words: Option<&Arc<str>>) -> Result<Created> {
        step::at(Step::CreateTicket);
        let name = ticket.name();
        if let Some(mut file) = self.spares.take(&self.dir, self.mode) {
            file.describe(words);
            match self.dir.link(&file.file, &name) {
                Ok(()) => {
                    let kept = true;
                    return Ok(Created::Own(Own { ticket, file, kept }));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.spares.put(file);
                    return Ok(Created::Taken);
                }
                // Somebody has deleted it, or links are not to be had: a new file, then.
                Err(_) => {}
            }
        }
        match self.dir.create_locked(&name, self.mode) {
            Ok((file, id)) => {
                let mut file = TicketFile::new(file, id);
                file.describe(words);
                let kept = false;
                Ok(Created::Own(Own { ticket, file, kept }))
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

    /// Whether a ticket that was opened has its name still.
    pub(crate) fn still_stands(&self, ticket: Ticket, file: &File) -> Result<Standing> {
        let id = file::id_of(file)
            .map_err(|e| Error::io("look at the ticket", self.path_of(ticket), e))?;
        Ok(match self.find(ticket)?.filter(|found| found.id == id) {
            None => Standing::Gone,
            Some(found) if found.marked => Standing::Marked,
            Some(_) => Standing::Unmarked,
        })
    }

    /// Whether the file of a ticket has a name in another directory, where a mark would show too.
    pub(crate) fn is_linked_elsewhere(&self, ticket: Ticket, file: &File) -> Result<bool> {
        let at = |error| Error::io("look at the ticket", self.path_of(ticket), error);
        let names = file::names_of(file).map_err(at)?;
        let id = file::id_of(file).map_err(at)?;
        let spare = self.dir.find(&spare::name_of(id)).map_err(at)?;
        let here = 1 + u64::from(spare.is_some_and(|found| found.id == id));
        Ok(names > here)
    }

    /// Marks the ticket of a sleeper.
    pub(crate) fn mark(&self, ticket: Ticket, file: &File) -> Result<()> {
        step::at(Step::MarkTicket);
        let at = |error| Error::io("mark the ticket", self.path_of(ticket), error);
        file::set_mark(file, true).map_err(at)?;
        let id = file::id_of(file).map_err(at)?;
        if !self.find(ticket)?.is_some_and(|found| found.id == id) {
            // The owner has gone in this instant and may use the file for its next ticket.
            file::set_mark(file, false).map_err(at)?;
        }
        Ok(())
    }

    /// Makes a file that is to be the state file; `None` when the directory has been removed. Its
    /// name is that of a spare file, with a number that is not its own. If this process dies, the
    /// next one that looks for spare files deletes it.
    pub(crate) fn create_draft(&self) -> Result<Option<StateDraft>> {
        for _ in 0..TRIES {
            let name = spare::name_of_number(host::monotonic_ns());
            match self.dir.create_locked(&name, self.mode) {
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

    /// Gives that file the name of the state file, in place of the one that has it. Returns `false`
    /// when it was deleted.
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

    /// Deletes a file that did not become the state file.
    pub(crate) fn drop_draft(&self, draft: &StateDraft) {
        let _ = self.dir.unlink(&draft.name);
    }

    /// Removes our own ticket from the line: unlink, then close, or keep the file for the next ticket.
    pub(crate) fn give_up(&mut self, own: Own) -> Result<()> {
        let keep = self.spares.has_room() && (own.kept || self.set_aside(&own));
        step::at(Step::UnlinkTicket);
        let result = self.unlink_if_same(own.ticket, own.file.id);
        step::at(Step::CloseTicket);
        if own.kept && !keep {
            let _ = self.dir.unlink(&spare::name_of(own.file.id));
        }
        if keep && result.is_ok() {
            self.spares.put(own.file);
        }
        result
    }

    /// Gives the ticket's file its spare name, where links are to be had.
    fn set_aside(&self, own: &Own) -> bool {
        let file = &own.file;
        self.dir.link(&file.file, &spare::name_of(file.id)).is_ok()
    }

    /// Deletes our own spare files.
    pub(crate) fn drop_spares(&mut self) {
        self.spares.drop_own(&self.dir);
    }

    /// Deletes all spare files, for whoever removes the queue, holding the door.
    pub(crate) fn clear_spares(&mut self) -> Result<()> {
        self.drop_spares();
        self.spares.look_again();
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

    /// Looks at a ticket without opening it.
    pub(crate) fn find(&self, ticket: Ticket) -> Result<Option<Found>> {
        self.dir
            .find(&ticket.name())
            .map_err(|e| Error::io("look at the ticket", self.path_of(ticket), e))
    }

    /// Whose a ticket is, as its owner noted it.
    pub(crate) fn description(&self, ticket: Ticket) -> Option<String> {
        self.dir.description(&ticket.name())
    }

    fn path_of(&self, ticket: Ticket) -> std::path::PathBuf {
        self.dir.path().join(ticket.name())
    }
}

/// What has become of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Unmarked,
    Marked,
    Gone,
}

/// A new file, open and locked, that is to be the state file.
pub(crate) struct StateDraft {
    pub(crate) file: Private,
    pub(crate) id: FileId,
    name: String,
}

enum Created {
    Own(Own),
    Taken,
    Gone,
}

impl Own {
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
