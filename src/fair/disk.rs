//! One lock on disk, as one process uses it: the path of the door, the queue, and the state record.
//!
//! There is no policy here. Each method is one step or a few steps of the protocol
//! (`docs/protocol.md`).
//!
//! This file has the queue and the open files. [`writer`] and [`reader`] have how a process becomes
//! the holder and how it leaves, [`permits`] the same for a semaphore, and [`removal`] how a lock
//! is removed.
//!
//! # Invariants
//!
//! 1. `state` is written only by a process that has it locked exclusively. [`record`] lists the
//!    exceptions.
//! 2. The open files are opened anew if the directory is gone, if a listing lacks `state`, or if
//!    the record says that the lock was removed.
//!
//! # State files with a second name
//!
//! A hard-linked copy of the directory (`cp -al`, or a backup restored with links) leaves one. Two
//! directories then share one state file, and a write in one of them shows in both. So a process
//! that enters replaces the file by a private copy. It creates and locks a new file, writes the
//! record into it, and renames it to `state`, while it holds the lock on the old file too. The
//! other directory keeps the old file. If a process held the lock when the copy was made, it
//! continues to write into its own file.
//!
//! Before the rename the old record is in use. The new file then counts as a spare file with a
//! wrong name. The next process that adopts spare files deletes it, or the removal of the lock
//! does. After the rename the new record says what the old one said.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::queue_dir::{Other, OwnTicket, QueueDir};
use super::record::{self, Content, Draft, Record};
use super::slots::Slots;
use super::ticket::{Mode, Ticket};
use super::{Entered, Place, Settings};
use crate::door::Door;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::LockKind;
use crate::step::{self, Step};
use crate::sys::file::{self, FileId};
use crate::sys::flock;
use crate::sys::fork::Private;

/// How often a file that was just opened may turn out to be removed, before this counts as an
/// error.
const TRIES: usize = 1000;

mod permits;
mod reader;
mod removal;
mod writer;

/// The files of one lock.
pub(crate) struct Disk {
    place: Arc<Place>,
    kind: LockKind,
    /// The slot files, if this is a semaphore.
    slots: Option<Slots>,
    queue: Option<QueueDir>,
    /// How often the directory was opened. Distinguishes a directory from its successor.
    opened: u64,
    state: Option<State>,
    draft: Draft,
    /// The holder that the draft names.
    words: Option<Arc<str>>,
    /// Whether this file system was seen to refuse a second lock.
    excludes: bool,
}

/// The open state file.
struct State {
    file: Private,
    id: FileId,
    /// Whether it had another name when it was locked.
    linked: bool,
}

/// The position at which a ticket is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakePlace {
    End,
    /// At the end of the queue as it was listed last.
    EndAsListed,
    First,
}

/// The result of recording another limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resized {
    Done,
    /// Another process has the record locked. Try again soon.
    Later,
    /// The new limit is lower, and the caller does not hold all permits that there are now.
    NotAll,
}

/// The result of trying the lock on the state file.
enum TriedState {
    /// Locked. Contains the record, if there was one.
    Locked(Option<Record>),
    Refused,
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
    pub(crate) fn new(place: Arc<Place>, kind: LockKind, slots: Option<Slots>) -> Self {
        Self {
            place,
            kind,
            slots,
            queue: None,
            opened: 0,
            state: None,
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
        let checked = self.refresh().and_then(|()| self.check_kind());
        if checked.is_err() {
            // The next use opens it again, and is refused like this one.
            self.queue = None;
        }
        checked
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
            Some(bytes) => record::parse(&bytes, self.kind).refuse_foreign(&self.place, self.kind),
            None => Ok(()),
        }
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
        let same = listed.is_some() && listed == self.state.as_ref().map(|it| it.id.inode);
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
    fn tickets(&self) -> &[Ticket] {
        self.queue.as_ref().map_or(&[], QueueDir::tickets)
    }

    /// Returns the queue directory, if it is open.
    pub(crate) fn open_queue(&self) -> Option<&QueueDir> {
        self.queue.as_ref()
    }

    /// Takes a ticket at the given position, for the handle with these settings.
    pub(crate) fn take_ticket(
        &mut self,
        mode: Mode,
        settings: Option<&Settings>,
        place: TakePlace,
    ) -> Result<OwnTicket> {
        let words = settings.map(|it| &it.words);
        let mut listed = place == TakePlace::EndAsListed && self.queue.is_some();
        for _ in 0..TRIES {
            let queue = self.queue(settings.and_then(|it| it.bits))?;
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
            Other::Open(file) => queue.mark(&file).map(|_| ()),
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
        let at =
            |step, error| Error::io(step, self.place.queue.join(own.ticket.to_string()), error);
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

    // ---- The state file ----

    /// Reads the state file without a lock on it.
    fn read_unlocked(&self) -> Result<Option<record::Bytes>> {
        let at = self.at_state("read the state file");
        let read = match &self.state {
            Some(state) => record::read(&state.file, Some(state.id)).map(Some),
            None => file::open_to_read(&self.place.state())
                .and_then(|file| file.map(|file| record::read(&file, None)).transpose()),
        };
        read.map_err(at)
    }

    /// Returns the record, if there is one of this kind. Takes no lock.
    fn peek(&self) -> Result<Option<Record>> {
        let bytes = self.read_unlocked()?;
        Ok(match bytes.map(|it| record::parse(&it, self.kind)) {
            Some(Content::Ours(record)) => Some(record),
            _ => None,
        })
    }

    /// Locks the current state file exclusively, and reads it. A refusal says why.
    fn lock_state(&mut self, door: &Door) -> Result<StateLock> {
        match self.try_state()? {
            TriedState::Locked(record) => Ok(StateLock::Locked(record)),
            TriedState::Refused => self.refused(door),
        }
    }

    /// Does the same, and does not ask why the lock was refused.
    fn try_state(&mut self) -> Result<TriedState> {
        for _ in 0..TRIES {
            let tried = self.try_state_as_it_is()?;
            if let TriedState::Refused = tried {
                return Ok(tried);
            }
            match self.make_private() {
                Ok(true) => return Ok(tried),
                Ok(false) => {
                    self.unlock_state();
                    self.reopen();
                }
                Err(error) => {
                    self.unlock_state();
                    return Err(error);
                }
            }
        }
        Err(self.vanishing())
    }

    /// Does the same, and accepts a file with a second name. The caller must not write into it
    /// then.
    fn try_state_as_it_is(&mut self) -> Result<TriedState> {
        for _ in 0..TRIES {
            self.open_state()?;
            let Some(state) = &self.state else { continue };
            let locked = flock::try_lock_own(&state.file, false);
            if !locked.map_err(self.at_state("lock the state file"))? {
                if self.state_is_current()? {
                    return Ok(TriedState::Refused);
                }
                // The process that removes the lock still has the old file locked.
                self.reopen();
                continue;
            }
            match self.read_locked() {
                Ok(Content::Ours(record)) => return Ok(TriedState::Locked(Some(record))),
                Ok(Content::Nothing) => return Ok(TriedState::Locked(None)),
                // The file is locked by us and still has its name, so the process that wanted to
                // remove the lock died before it could.
                Ok(Content::Removed) if self.state_is_current()? => {
                    return Ok(TriedState::Locked(None));
                }
                Ok(Content::Removed) => {
                    self.unlock_state();
                    self.reopen();
                }
                Ok(content @ Content::Foreign(_)) => {
                    self.unlock_state();
                    content.refuse_foreign(&self.place, self.kind)?;
                }
                Err(error) => {
                    self.unlock_state();
                    return Err(error);
                }
            }
        }
        Err(self.vanishing())
    }

    /// Reads the record, with the state file locked by us. If the path leads to another file by
    /// now, unlocks and closes the old one, and reports its record as removed. The record itself
    /// may not say so: a file with a second name gets no tombstone.
    fn read_locked(&mut self) -> Result<Content> {
        let path = self.place.state();
        let named = file::named_at(&path);
        let named = named.map_err(|error| Error::io("look at the state file", &path, error))?;
        match (&mut self.state, named) {
            (Some(state), Some((id, names))) if id == state.id => state.linked = names > 1,
            _ => {
                self.unlock_state();
                self.reopen();
                return Ok(Content::Removed);
            }
        }
        if !self.excludes {
            self.check_that_locks_exclude()?;
            self.excludes = true;
        }
        self.read_head()
    }

    /// Some file systems grant every lock. Checks that a second one is refused. An error proves
    /// nothing: the first lock was granted.
    fn check_that_locks_exclude(&self) -> Result<()> {
        let path = self.place.state();
        // With the right to write, as the first one: NFS 4 demands it for an exclusive lock.
        if let (Ok(Some((second, _))), Some(state)) = (file::open_existing(&path), &self.state)
            && flock::is_granted_twice(&state.file, &second).unwrap_or(false)
        {
            let text = "this file system grants one lock to two holders";
            return Err(Error::at(ErrorKind::Unsupported, text, path));
        }
        Ok(())
    }

    /// Reads the record of the open state file.
    fn read_head(&self) -> Result<Content> {
        let Some(state) = &self.state else {
            return Ok(Content::Nothing);
        };
        let read = record::read(&state.file, Some(state.id));
        let read = read.map_err(self.at_state("read the state file"))?;
        Ok(record::parse(&read, self.kind))
    }

    /// Opens the state file, unless it is open. May leave it closed; then the caller tries again.
    fn open_state(&mut self) -> Result<()> {
        self.queue(None)?;
        if self.state.is_some() {
            return Ok(());
        }
        match self.queue(None)?.open_state() {
            Ok((file, id)) => {
                self.use_state(Private::new(file), id);
            }
            // The directory was removed meanwhile. Create it again.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.reopen(),
            Err(error) => {
                return Err(Error::io("open the state file", self.place.state(), error));
            }
        }
        Ok(())
    }

    /// Uses this file as the state file from now on. Returns the previous one.
    fn use_state(&mut self, file: Private, id: FileId) -> Option<State> {
        self.draft.set_file(id.inode);
        let linked = false;
        self.state.replace(State { file, id, linked })
    }

    fn unlock_state(&self) {
        if let Some(state) = &self.state {
            // If this fails, closing the file ends the lock. Until then newcomers fail with
            // `Replaced`.
            let _ = flock::unlock(&state.file);
        }
    }

    /// Returns whether the open state file is the current one.
    fn state_is_current(&self) -> Result<bool> {
        let Some(state) = &self.state else {
            return Ok(false);
        };
        let named = file::id_at(&self.place.state());
        Ok(named.map_err(self.at_state("look at the state file"))? == Some(state.id))
    }

    /// Closes the state file if another file, or none, has its name by now.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        if self.state.is_some() && !self.state_is_current()? {
            self.state = None;
        }
        Ok(())
    }

    /// Decides why `state` is locked although the door was free. If the record names the same door,
    /// the holder is dying, and its files are closed one after another. If it names another door,
    /// the holder lives and the lock file was deleted or replaced under it, or the holder died
    /// before it wrote the record.
    fn refused(&self, door: &Door) -> Result<StateLock> {
        let same_door = self.peek()?.is_some_and(|it| it.door == door.id());
        Ok(match same_door {
            true => StateLock::Dying,
            false => StateLock::Elsewhere,
        })
    }

    /// Writes a part of the draft into the state file, which is locked.
    fn write(&mut self, part: impl FnOnce(&mut Draft) -> (u64, &[u8])) -> Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let (at, bytes) = part(&mut self.draft);
        let written = file::write_at(&state.file, at, bytes);
        written.map_err(self.at_state("write the state file"))
    }

    /// Builds the path only if there is an error.
    fn at_state(&self, step: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |error| Error::io(step, self.place.state(), error)
    }

    // ---- A state file with a second name ----

    /// Ensures that the state file, which is locked and current, has no second name. Returns
    /// `false` if the directory has changed meanwhile; then everything must be opened anew.
    fn make_private(&mut self) -> Result<bool> {
        if self.state.as_ref().is_some_and(|it| !it.linked) {
            return Ok(true);
        }
        step::at(Step::CopyState);
        let (Some(queue), Some(old)) = (&self.queue, &self.state) else {
            return Ok(false);
        };
        let replaced = queue.replace_state(|file, id| self.write_copy(old, file, id.inode))?;
        let Some((file, id)) = replaced else {
            return Ok(false);
        };
        let old = self.use_state(file, id);
        step::at(Step::UnlockState);
        if let Some(old) = old {
            let _ = flock::unlock(&old.file);
        }
        // The path may lead to another directory than the open one.
        self.state_is_current()
    }

    fn write_copy(&self, from: &State, to: &Private, inode: u64) -> Result<()> {
        let copied = record::read(&from.file, Some(from.id)).and_then(|mut record| {
            record::set_file(&mut record, inode);
            file::write_at(to, 0, &record)
        });
        copied.map_err(self.at_state("copy the state file"))
    }
}

/// Returns the kind and the limit of the lock that is recorded at this path. A record of another
/// version is an error.
pub(crate) fn recorded_kind(place: Place) -> Result<Option<(LockKind, u32)>> {
    let disk = Disk::new(Arc::new(place), LockKind::Lock, None);
    let Some(bytes) = disk.read_unlocked()? else {
        return Ok(None);
    };
    match (record::kind_of(&bytes), record::parse(&bytes, disk.kind)) {
        (None, Content::Foreign(theirs)) => {
            let text = format!("this version does not support the lock at this path: {theirs}");
            let path = disk.place.state();
            Err(Error::at(ErrorKind::Incompatible, text, path))
        }
        (found, _) => Ok(found),
    }
}
