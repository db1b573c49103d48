//! Everything of one lock on disk, as one process uses it: the door's path, the queue, the state.
//!
//! No policy: each method is one or a few steps of the protocol (`docs/protocol.md`), named as in the model.
//!
//! # Invariants
//!
//! 1. `state` is written only between [`Disk::enter`] and [`Disk::leave`], with the door and `state` itself locked.
//! 2. What was opened is opened anew when the directory is gone, when a listing lacks `state`, or when the record says
//!    that its lock was removed.

use std::path::PathBuf;
use std::sync::Arc;

use super::door::Door;
use super::slots::Slots;
use super::state::{self, Content, Draft, Kind, Record};
use super::step::{self, Step};
use super::ticket::queue::{Other, Own, Queue, STATE};
use super::ticket::{Mode, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::sys::file::{self, FileId};
use crate::fs::sys::fork::Private;

/// How often what was just opened may turn out to be removed before something is wrong.
const TRIES: usize = 1000;

mod copies;
mod hold;
mod permits;
mod removal;
mod share;

pub(crate) use permits::Resized;

/// Where a lock lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) door: PathBuf,
    pub(crate) queue: PathBuf,
}

impl Place {
    /// The lock file at this path and the queue beside it, `<path>.queue`.
    pub(crate) fn new(door: PathBuf) -> Self {
        let mut queue = door.clone().into_os_string();
        queue.push(".queue");
        Self {
            door,
            queue: queue.into(),
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.queue.join(STATE)
    }
}

/// The files of one lock.
pub(crate) struct Disk {
    place: Arc<Place>,
    kind: Kind,
    /// The doors of a semaphore.
    slots: Option<Slots>,
    queue: Option<Queue>,
    /// How often the directory was opened: tells one from its successor.
    opened: u64,
    state: Option<Private>,
    /// Which file `state` is.
    state_id: Option<FileId>,
    /// Whether it had another name when it was locked.
    state_linked: bool,
    draft: Draft,
    /// Whose words the draft bears.
    words: Option<Arc<str>>,
    /// Whether this file system was seen to refuse a second lock.
    excludes: bool,
}

/// What a holder that just entered knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered {
    pub(crate) token: u64,
    pub(crate) predecessor_crashed: bool,
}

/// Where in the line to take a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakePlace {
    End,
    /// At the end of the line as it has just been listed.
    EndAsListed,
    First,
}

/// What came of the lock on the state file.
enum StateLock {
    /// Locked, with the record found.
    Locked(Option<Record>),
    /// The last holder through this very door is dying: the kernel has dropped its door before its state.
    Dying,
    /// Locked through another door, as far as the record tells.
    Elsewhere,
}

/// What came of an attempt to be inside, with the door locked.
pub(crate) enum Admission {
    In(Entered),
    /// The last holder is dying; try again soon, with the door kept locked.
    Dying,
    /// Somebody is inside who came through another door, or is dying and could not write; after a while it is the first.
    Elsewhere,
}

/// How an attempt to remove a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cleared {
    Removed,
    InUse,
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

    /// The queue directory, opened or made. `mode` is for a lock file that does not exist yet either.
    fn queue(&mut self, mode: Option<u32>) -> Result<&mut Queue> {
        if self.queue.is_none() {
            self.state = None;
            let door = self.model();
            let queue = Queue::open(&self.place.queue, &door, || {
                let opened = Door::open(&door, mode);
                opened.map_err(|e| Error::io("open the lock file", &door, e))
            })?;
            self.queue = Some(queue);
            self.opened += 1;
            self.check_kind()?;
        }
        // Set just above.
        let text = "the queue directory is not open";
        self.queue
            .as_mut()
            .ok_or_else(|| Error::at(ErrorKind::Corrupt, text, &self.place.queue))
    }

    /// The file that says who may use the lock: the lock file, of a semaphore its first slot file.
    fn model(&self) -> PathBuf {
        let slot = self.slots.as_ref().map(|it| it.path(0));
        slot.unwrap_or_else(|| self.place.door.clone())
    }

    /// Removes our own tickets from the line.
    pub(crate) fn give_up(&mut self, own: Own) {
        if let Some(queue) = &mut self.queue {
            // What cannot be removed loses its lock with this descriptor, and the next one reaps it.
            let _ = queue.give_up(own);
        }
    }

    /// Deletes what this process keeps in the queue for its next ticket.
    pub(crate) fn drop_spares(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.drop_spares();
        }
    }

    /// Forgets what is open: the directory or the state file has been removed or replaced.
    pub(crate) fn reopen(&mut self) {
        self.queue = None;
        self.state = None;
    }

    /// Refuses a lock of another version or kind before anything of it is touched.
    pub(crate) fn check_kind(&self) -> Result<()> {
        match self.read_unlocked()? {
            Some(bytes) => refuse_foreign(&self.place, self.kind, &self.parse(&bytes)),
            None => Ok(()),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Content {
        state::parse(bytes, self.kind)
    }

    /// The bytes of the state file without any lock: for people and for the check of the kind.
    pub(crate) fn read_unlocked(&self) -> Result<Option<Vec<u8>>> {
        let path = self.place.state();
        let at = |error| Error::io("read the state file", &path, error);
        let mut buffer = [0; state::LENGTH];
        let read = match &self.state {
            Some(file) => state::read(file, self.state_id, &mut buffer).map_err(at)?,
            None => match file::open_to_read(&path).map_err(at)? {
                Some(file) => state::read(&file, None, &mut buffer).map_err(at)?,
                None => return Ok(None),
            },
        };
        Ok(Some(buffer[..read].to_vec()))
    }

    /// The line as it stands now.
    pub(crate) fn list(&mut self, mode: Option<u32>) -> Result<&[Ticket]> {
        self.list_by(mode, Queue::list)
    }

    /// The same for who expects that nothing has changed.
    pub(crate) fn list_if_changed(&mut self, mode: Option<u32>) -> Result<&[Ticket]> {
        self.list_by(mode, Queue::list_if_changed)
    }

    fn list_by(
        &mut self,
        mode: Option<u32>,
        list: impl Fn(&mut Queue) -> Result<Option<&[Ticket]>>,
    ) -> Result<&[Ticket]> {
        for _ in 0..TRIES {
            step::at(Step::ListQueue);
            let queue = self.queue(mode)?;
            if list(queue)?.is_some() {
                self.forget_old_state()?;
                return Ok(self.line());
            }
            self.reopen();
        }
        Err(self.vanishing())
    }

    /// The line as it stands now, without making a directory for it.
    pub(crate) fn list_existing(&mut self) -> Result<&[Ticket]> {
        if self.queue.is_none() {
            self.state = None;
            self.queue = Queue::open_existing(&self.place.queue, &self.model())?;
            self.opened += 1;
            self.check_kind()?;
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
        Ok(self.line())
    }

    /// Closes the state file when the listing shows that another one, or none, has its name.
    fn forget_old_state(&mut self) -> Result<()> {
        let listed = self.queue.as_ref().and_then(Queue::state_inode);
        let same = listed.is_some() && listed == self.state_id.map(|id| id.inode);
        // Some file systems list other numbers than they tell of open files; those are asked once more.
        if self.state.is_some() && !same && (listed.is_none() || !self.state_is_current()?) {
            self.state = None;
        }
        Ok(())
    }

    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// The line as it was last listed.
    pub(crate) fn line(&self) -> &[Ticket] {
        self.queue.as_ref().map_or(&[], Queue::line)
    }

    /// The queue directory, if it is open.
    pub(crate) fn open_queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    /// Takes a place: at the end of the line, or before everybody.
    pub(crate) fn take_ticket(
        &mut self,
        want: Mode,
        mode: Option<u32>,
        words: Option<&Arc<str>>,
        place: TakePlace,
    ) -> Result<Own> {
        let mut listed = place == TakePlace::EndAsListed && self.queue.is_some();
        for _ in 0..TRIES {
            let queue = self.queue(mode)?;
            let taken = if place == TakePlace::First {
                queue.take_first(want, words)?
            } else {
                queue.take(want, words, std::mem::take(&mut listed))?
            };
            if let Some(own) = taken {
                return Ok(own);
            }
            self.reopen();
        }
        Err(self.vanishing())
    }

    /// Marks our own ticket. Through a second descriptor, whose close tells whoever waits behind it.
    pub(crate) fn mark_own(&self, own: &Own) -> Result<()> {
        let Some(queue) = &self.queue else {
            return Ok(());
        };
        match queue.open_other(own.ticket)? {
            Other::Open(file) => queue.mark(own.ticket, &file).map(|_| ()),
            Other::Gone => Ok(()),
            // Those behind find the mark when they look.
            Other::Shut => own
                .set_mark(true)
                .map_err(|e| Error::io("mark the own ticket", &self.place.queue, e)),
        }
    }

    fn vanishing(&self) -> Error {
        let text = "the queue directory vanishes as fast as it is made";
        Error::at(ErrorKind::Corrupt, text, &self.place.queue)
    }
}

/// Which kind of lock is recorded at this place, and its limit. A record of another version is an error.
pub(crate) fn recorded_kind(place: Place) -> Result<Option<(Kind, u64)>> {
    let disk = Disk::new(Arc::new(place), Kind::Lock, None);
    let bytes = disk.read_unlocked()?.unwrap_or_default();
    match (state::kind_of(&bytes), disk.parse(&bytes)) {
        (None, Content::Foreign(theirs)) => {
            let text = format!("the lock at this path is of {theirs}, which is not known here");
            let path = disk.place.state();
            Err(Error::at(ErrorKind::Incompatible, text, path))
        }
        (found, _) => Ok(found),
    }
}

/// A lock of another version or kind is not touched.
pub(crate) fn refuse_foreign(place: &Place, kind: Kind, content: &Content) -> Result<()> {
    let Content::Foreign(theirs) = content else {
        return Ok(());
    };
    let text = format!(
        "the lock at this path is of {theirs}, this one is of {}",
        kind.of_ours()
    );
    Err(Error::at(ErrorKind::Incompatible, text, place.state()))
}
