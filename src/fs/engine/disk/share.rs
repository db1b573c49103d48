//! Being one of several readers inside, on disk: the state file under a shared lock.
//!
//! # Algorithm
//!
//! Readers write nothing, as long as the record is *clean*: it names the door they came through, and no dead writer's flag is in
//! it that nobody has taken up. A reader who finds another record takes the whole door for a moment, as a writer does, and with it the
//! *charge* of the record: he makes it name this door, turns a dead writer's flag into one that is taken up, and
//! then shares both locks. Only he tells of that death, and clears the flag when he has.
//!
//! # Invariants
//!
//! 1. While a reader is inside he has `state` locked, shared, and the record names his door. So whoever finds `state` locked under a free
//!    door knows from the record whether somebody is dying or holds under another door.
//! 2. Nobody but the reader in charge writes while readers are inside.

use super::super::door::Door;
use super::super::state::{self, Content, Flag, Record};
use super::super::step::{self, Step};
use super::{Admission, Disk, Entered, StateLock, TRIES, refuse_foreign};
use crate::error::{Error, Result};
use crate::fs::sys::{file, flock};

impl Disk {
    /// Makes a reader, who has the door locked, one who is inside.
    /// Which file `state` is counts from the last listing, as for [`Disk::enter`].
    pub(crate) fn enter_shared(&mut self, door: &Door) -> Result<Admission> {
        step::at(Step::LockState);
        for _ in 0..TRIES {
            self.open_state()?;
            if self.state.is_none() {
                continue;
            }
            let content = self.read_head()?;
            refuse_foreign(&self.place, self.kind, &content)?;
            if clean(&content, door).is_none() {
                return self.take_charge(door);
            }
            if self.try_share_state()? {
                // Read again: what was clean before may have been written by a writer who came through another door.
                let read = self.read_locked();
                if let Ok(Some(record)) = read.as_ref().map(|it| clean(it, door)) {
                    return Ok(Admission::In(Entered {
                        token: record.token,
                        predecessor_crashed: false,
                    }));
                }
                self.unlock_state();
                read?;
            } else if self.state_is_current()? {
                return Ok(Admission::Dying);
            } else {
                // Whoever removed the lock still has the old file locked.
                self.reopen();
            }
        }
        Err(self.vanishing())
    }

    fn try_share_state(&self) -> Result<bool> {
        let Some(file) = &self.state else {
            return Ok(false);
        };
        flock::try_lock_shared(file)
            .map_err(|e| Error::io("lock the state file", self.place.state(), e))
    }

    /// The record is not clean. If nobody else is at the door: makes it so, and lets other readers in again.
    fn take_charge(&mut self, door: &Door) -> Result<Admission> {
        step::at(Step::TakeCharge);
        let at = |e| Error::io("lock the lock file", &self.place.door, e);
        // A shared lock is lost where this fails.
        if !door.try_lock(false).map_err(at)? {
            return Ok(Admission::Back);
        }
        let found = match self.lock_state(door)? {
            StateLock::Locked(found) => found,
            StateLock::Dying => return Ok(Admission::Back),
            StateLock::Elsewhere => return Ok(Admission::Elsewhere),
        };
        let entered = self.write_as_reader(door, found);
        if !matches!(entered, Ok(Admission::In(_))) {
            self.unlock_state();
        }
        entered
    }

    fn write_as_reader(&mut self, door: &Door, found: Option<Record>) -> Result<Admission> {
        let fresh = || state::next_token(0, state::wall_clock_us());
        let entered = Entered {
            token: found.map_or_else(fresh, |it| it.token),
            predecessor_crashed: found.is_some_and(|it| it.flag != Flag::Clear),
        };
        let flag = match entered.predecessor_crashed {
            true => Flag::Found,
            false => Flag::Clear,
        };
        self.draft.set_owner("");
        self.words = None;
        let bytes = self.draft.read(entered.token, door.id(), flag);
        if let Some(file) = &self.state {
            step::at(Step::WriteHeld);
            file::write_at(file, 0, bytes)
                .map_err(|e| Error::io("write the state file", self.place.state(), e))?;
        }
        let at = |e| Error::io("share the lock of the lock file", &self.place.door, e);
        if !door.share().map_err(at)? || !self.share_state()? {
            return Ok(Admission::Back);
        }
        // Readers may have found it locked in this instant.
        door.ring(&self.place.door);
        Ok(Admission::In(entered))
    }

    /// A writer lets readers in: they may lock `state` as well. The door is shared already, so that no writer can come between.
    pub(crate) fn share_state(&self) -> Result<bool> {
        step::at(Step::ShareState);
        let Some(file) = &self.state else {
            return Ok(true);
        };
        flock::share(file)
            .map_err(|e| Error::io("share the lock of the state file", self.place.state(), e))
    }
}

/// The record, if readers through this door have nothing to write into it.
fn clean(content: &Content, door: &Door) -> Option<Record> {
    match content {
        Content::Ours(record) if record.door == door.id() && record.flag != Flag::Held => {
            Some(*record)
        }
        _ => None,
    }
}
