//! One lock on disk, as one process uses it: the path of the door, the queue, and the state record.
//!
//! There is no policy here. Each method is one step or a few steps of the protocol
//! (`docs/protocol.md`).
//!
//! This file has the queue and the open files. [`writer`] and [`reader`] have how a process becomes
//! the holder and how it leaves, [`permits`] the same for a semaphore, [`removal`] how a lock is
//! removed, and [`copies`] what a hard-linked copy of the directory needs.
//!
//! # Invariants
//!
//! 1. `state` is written only by a process that has it locked exclusively. [`record`] lists the
//!    exceptions.
//! 2. The open files are opened anew if the directory is gone, if a listing lacks `state`, or if
//!    the record says that the lock was removed.

use std::path::PathBuf;
use std::sync::Arc;

use super::Place;
use super::door::Door;
use super::queue_dir::{Other, OwnTicket, QueueDir};
use super::record::{self, Content, Draft, Kind, Record};
use super::slots::Slots;
use super::ticket::{Mode, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::step::{self, Step};
use crate::sys::file::{self, FileId};
use crate::sys::fork::Private;

/// How often a file that was just opened may turn out to be removed, before this counts as an
/// error.
const TRIES: usize = 1000;

mod copies;
mod permits;
mod reader;
mod removal;
mod writer;

pub(crate) use permits::Resized;

/// The files of one lock.
pub(crate) struct Disk {
    place: Arc<Place>,
    kind: Kind,
    /// The slot files, if this is a semaphore.
    slots: Option<Slots>,
    queue: Option<QueueDir>,
    /// How often the directory was opened. Distinguishes a directory from its successor.
    opened: u64,
    state: Option<Private>,
    /// The identity of the open state file.
    state_id: Option<FileId>,
    /// Whether the state file had another name when it was locked.
    state_linked: bool,
    draft: Draft,
    /// The holder that the draft names.
    words: Option<Arc<str>>,
    /// Whether this file system was seen to refuse a second lock.
    excludes: bool,
}

/// What a process learns when it becomes the holder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered {
    pub(crate) token: u64,
    pub(crate) predecessor_crashed: bool,
}

/// The position at which a ticket is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakePlace {
    End,
    /// At the end of the queue as it was listed last.
    EndAsListed,
    First,
}

/// The result of locking the state file. The door is locked.
enum StateLock {
    /// Locked. Contains the record, if there was one.
    Locked(Option<Record>),
    /// Refused. The record names this door, so its holder is dying: the kernel has closed the door
    /// before the state file.
    Dying,
    /// Refused. The record names another door, or none.
    Elsewhere,
}

/// The result of entering with the door locked.
pub(crate) enum Admission {
    In(Entered),
    /// The last holder is dying. Try again soon, and keep the door locked.
    Dying,
    /// A process holds the lock through another door, or died before it wrote the record. If this
    /// lasts, it is the former.
    Elsewhere,
}

impl Disk {
    pub(crate) fn new(place: Arc<Place>, kind: Kind, slots: Option<Slots>) -> Self {
        Self {
            place,
            kind,
            slots,
            queue: None,
            opened: 0,
            state: None,
            state_id: None,
            state_linked: false,
            draft: Draft::new(kind),
            words: None,
            excludes: false,
        }
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Returns the queue directory. Opens it, and creates it if it is missing. `bits` applies if
    /// the lock file is missing too.
    fn queue(&mut self, bits: Option<u32>) -> Result<&mut QueueDir> {
        if self.queue.is_none() {
            let door = self.model();
            let queue = QueueDir::open(&self.place.queue, &door, || {
                let opened = Door::open(&door, bits);
                opened.map_err(|e| Error::io("open the lock file", &door, e))
            })?;
            self.use_queue(Some(queue))?;
        }
        // Set just above.
        let text = "the queue directory is not open";
        self.queue
            .as_mut()
            .ok_or_else(|| Error::at(ErrorKind::Corrupt, text, &self.place.queue))
    }

    /// Uses a directory that was just opened. The state file of a holder is open already; it stays
    /// open if it is the one in this directory.
    fn use_queue(&mut self, queue: Option<QueueDir>) -> Result<()> {
        self.queue = queue;
        self.opened += 1;
        self.refresh()?;
        self.check_kind()
    }

    /// Opens the queue directory, and creates it if it is missing. A newcomer does this before it
    /// tries the lock, so that this costs no time while it competes with others.
    pub(crate) fn prepare(&mut self, bits: Option<u32>) -> Result<()> {
        self.queue(bits).map(drop)
    }

    /// Returns the file whose rights decide who may use the lock: the lock file, or the first slot
    /// file of a semaphore.
    fn model(&self) -> PathBuf {
        let slot = self.slots.as_ref().map(|it| it.path(0));
        slot.unwrap_or_else(|| self.place.door.clone())
    }

    /// Removes a ticket of this process from the queue.
    pub(crate) fn give_up(&mut self, own: OwnTicket) {
        if let Some(queue) = &mut self.queue {
            // If the removal fails, closing the file ends its lock, and the next process reaps the
            // ticket.
            let _ = queue.give_up(own);
        }
    }

    /// Deletes the spare files of this process.
    pub(crate) fn drop_spares(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.drop_spares();
        }
    }

    /// Returns whether the queue directory or the state file is open.
    pub(crate) fn is_open(&self) -> bool {
        self.queue.is_some() || self.state.is_some()
    }

    /// Closes the queue directory of a lock that is held. Its next use opens it again.
    pub(crate) fn close_queue(&mut self) {
        self.drop_spares();
        self.queue = None;
    }

    /// Closes the queue directory and the state file, so that the next use opens them anew. The
    /// lock is idle, or one of the two has been removed or replaced.
    pub(crate) fn reopen(&mut self) {
        self.queue = None;
        self.state = None;
    }

    /// Refuses a lock of another version or kind before anything of it is changed.
    pub(crate) fn check_kind(&self) -> Result<()> {
        match self.read_unlocked()? {
            Some(bytes) => refuse_foreign(&self.place, self.kind, &self.parse(&bytes)),
            None => Ok(()),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Content {
        record::parse(bytes, self.kind)
    }

    /// Reads the state file without a lock on it: for status, and to check the kind.
    pub(crate) fn read_unlocked(&self) -> Result<Option<Vec<u8>>> {
        let path = self.place.state();
        let at = |error| Error::io("read the state file", &path, error);
        let mut buffer = [0; record::LENGTH];
        let read = match &self.state {
            Some(file) => record::read(file, self.state_id, &mut buffer).map_err(at)?,
            None => match file::open_to_read(&path).map_err(at)? {
                Some(file) => record::read(&file, None, &mut buffer).map_err(at)?,
                None => return Ok(None),
            },
        };
        Ok(Some(buffer[..read].to_vec()))
    }

    /// Lists the queue. Creates the directory if it is missing.
    pub(crate) fn list(&mut self, bits: Option<u32>) -> Result<&[Ticket]> {
        self.list_by(bits, QueueDir::list)
    }

    /// Does the same as [`list`](Disk::list), and is cheaper if nothing has changed.
    pub(crate) fn list_if_changed(&mut self, bits: Option<u32>) -> Result<&[Ticket]> {
        self.list_by(bits, QueueDir::list_if_changed)
    }

    fn list_by(
        &mut self,
        bits: Option<u32>,
        list: impl Fn(&mut QueueDir) -> Result<Option<&[Ticket]>>,
    ) -> Result<&[Ticket]> {
        for _ in 0..TRIES {
            step::at(Step::ListQueue);
            let queue = self.queue(bits)?;
            if list(queue)?.is_some() {
                self.forget_old_state()?;
                return Ok(self.tickets());
            }
            self.reopen();
        }
        Err(self.vanishing())
    }

    /// Lists the queue, and does not create the directory.
    pub(crate) fn list_existing(&mut self) -> Result<&[Ticket]> {
        if self.queue.is_none() {
            let queue = QueueDir::open_existing(&self.place.queue, &self.model())?;
            self.use_queue(queue)?;
        }
        let alive = match &mut self.queue {
            Some(queue) => queue.list()?.is_some(),
            None => return Ok(&[]),
        };
        if !alive {
            self.reopen();
        } else {
            self.forget_old_state()?;
        }
        Ok(self.tickets())
    }

    /// Closes the state file if the listing shows that another file, or none, has its name.
    fn forget_old_state(&mut self) -> Result<()> {
        let listed = self.queue.as_ref().and_then(QueueDir::state_inode);
        let same = listed.is_some() && listed == self.state_id.map(|id| id.inode);
        // Some file systems list other inode numbers than they report for open files. There the
        // path decides.
        if self.state.is_some() && !same && (listed.is_none() || !self.state_is_current()?) {
            self.state = None;
        }
        Ok(())
    }

    /// Returns how often the directory was opened.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Returns the queue as it was listed last.
    pub(crate) fn tickets(&self) -> &[Ticket] {
        self.queue.as_ref().map_or(&[], QueueDir::tickets)
    }

    /// Returns the queue directory, if it is open.
    pub(crate) fn open_queue(&self) -> Option<&QueueDir> {
        self.queue.as_ref()
    }

    /// Takes a ticket at the given position.
    pub(crate) fn take_ticket(
        &mut self,
        mode: Mode,
        bits: Option<u32>,
        words: Option<&Arc<str>>,
        place: TakePlace,
    ) -> Result<OwnTicket> {
        let mut listed = place == TakePlace::EndAsListed && self.queue.is_some();
        for _ in 0..TRIES {
            let queue = self.queue(bits)?;
            let taken = if place == TakePlace::First {
                queue.take_first(mode, words)?
            } else {
                queue.take(mode, words, std::mem::take(&mut listed))?
            };
            if let Some(own) = taken {
                return Ok(own);
            }
            self.reopen();
        }
        Err(self.vanishing())
    }

    /// Marks a ticket of this process. Writes through a second descriptor: the close of that
    /// descriptor wakes the waiter behind the ticket.
    pub(crate) fn mark_own(&self, own: &OwnTicket) -> Result<()> {
        let Some(queue) = &self.queue else {
            return Ok(());
        };
        match queue.open_other(own.ticket)? {
            Other::Open(file) => queue.mark(own.ticket, &file).map(|_| ()),
            Other::Gone => Ok(()),
            // The waiters behind it find the mark at their next look.
            Other::Denied => own
                .set_mark(true)
                .map_err(|e| Error::io("mark the ticket in", &self.place.queue, e)),
        }
    }

    /// Removes the mark of a ticket of this process, because its waiter is awake. Returns `true` if
    /// there was one.
    pub(crate) fn unmark(&self, own: &OwnTicket) -> Result<bool> {
        let at = |step, error| Error::io(step, self.place.queue.join(own.ticket.name()), error);
        let marked = own
            .is_marked()
            .map_err(|e| at("look at the own ticket", e))?;
        if marked {
            own.set_mark(false)
                .map_err(|e| at("unmark the own ticket", e))?;
        }
        Ok(marked)
    }

    /// Returns whether a bypassed ticket has lost its mark: its owner is awake, and first again.
    pub(crate) fn marks_gone(&self, bypassed: &[Ticket]) -> Result<bool> {
        let Some(queue) = &self.queue else {
            return Ok(false);
        };
        for &ticket in bypassed {
            if queue.is_unmarked(ticket)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn vanishing(&self) -> Error {
        let text = "the queue directory is removed whenever it is created";
        Error::at(ErrorKind::Corrupt, text, &self.place.queue)
    }
}

/// Returns the kind and the limit of the lock that is recorded at this path. A record of another
/// version is an error.
pub(crate) fn recorded_kind(place: Place) -> Result<Option<(Kind, u64)>> {
    let disk = Disk::new(Arc::new(place), Kind::Lock, None);
    let bytes = disk.read_unlocked()?.unwrap_or_default();
    match (record::kind_of(&bytes), disk.parse(&bytes)) {
        (None, Content::Foreign(theirs)) => {
            let text = format!("this version does not support the lock at this path: {theirs}");
            let path = disk.place.state();
            Err(Error::at(ErrorKind::Incompatible, text, path))
        }
        (found, _) => Ok(found),
    }
}

/// Refuses a lock of another version or kind.
pub(crate) fn refuse_foreign(place: &Place, kind: Kind, content: &Content) -> Result<()> {
    let Content::Foreign(theirs) = content else {
        return Ok(());
    };
    let text = format!(
        "the lock at this path is another one: {theirs}; this one: {}",
        record::description(kind)
    );
    Err(Error::at(ErrorKind::Incompatible, text, place.state()))
}
