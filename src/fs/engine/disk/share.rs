//! Being one of several readers inside, on disk: the state file under a shared lock.
//!
//! # Algorithm
//!
//! Readers write nothing, as long as the record is *clean*: it names the door they came through, and its held flag is
//! clear. While anybody has the door shared no writer is inside, so a clean record stays clean. Of readers that find another record
//! the one who gets its lock for himself is *in charge*: he makes the record name this door, and keeps the flag that
//! a dead writer has left until his guard has told of it. Whoever finds it locked then knows that somebody is in charge.
//!
//! # Invariants
//!
//! 1. A reader inside has `state` locked, shared, and the record names his door. So whoever finds `state` locked under a free door knows
//!    from the record whether somebody is dying or holds under another door.
//! 2. At most one reader writes.

use super::super::door::Door;
use super::super::state::{self, Content, Record};
use super::super::step::{self, Step};
use super::{Disk, Entered, TRIES, refuse_foreign};
use crate::error::{Error, Result};
use crate::fs::sys::{file, flock};

impl Disk {
    /// Makes a reader, who has the door locked, one who is inside. `None` while that cannot be told: a writer is dying, or another
    /// reader is about to write the record; try again soon, with the door kept.
    /// Which file `state` is counts from the last listing, as for [`Disk::enter`].
    pub(crate) fn enter_shared(&mut self, door: &Door) -> Result<Option<Entered>> {
        step::at(Step::LockState);
        for _ in 0..TRIES {
            self.open_state(door)?;
            if self.state.is_none() {
                continue;
            }
            let content = self.read_head()?;
            refuse_foreign(&self.place, self.kind, &content)?;
            let entered = match content {
                Content::Ours(record) if is_clean(&record, door) => self.join_readers(record)?,
                _ => self.take_charge(door)?,
            };
            if entered.is_some() || self.state_is_current()? {
                return Ok(entered);
            }
            // Whoever removed the lock still has the old file locked.
            self.reopen();
        }
        Err(self.vanishing())
    }

    fn try_state(&self, shared: bool) -> Result<bool> {
        let Some(file) = &self.state else {
            return Ok(false);
        };
        flock::try_lock(file, shared)
            .map_err(|e| Error::io("lock the state file", self.place.state(), e))
    }

    fn join_readers(&mut self, record: Record) -> Result<Option<Entered>> {
        if !self.try_state(true)? {
            return Ok(None);
        }
        if let Err(error) = self.read_locked() {
            self.unlock_state();
            return Err(error);
        }
        Ok(Some(Entered {
            token: record.token,
            predecessor_crashed: false,
        }))
    }

    /// The record is not clean: to be made so by us, or by somebody who is inside already.
    fn take_charge(&mut self, door: &Door) -> Result<Option<Entered>> {
        step::at(Step::TakeCharge);
        if self.try_state(false)? {
            let entered = self.write_as_reader(door);
            if entered.is_err() {
                self.unlock_state();
            }
            return entered.map(Some);
        }
        let Content::Ours(record) = self.read_head()? else {
            return Ok(None);
        };
        let entered = self.join_readers(record)?;
        if entered.is_none() || record.door == door.id() {
            return Ok(entered);
        }
        // Readers are inside, and the record named another door. Now, with them, it cannot change any more.
        match self.read_head()? {
            Content::Ours(record) if record.door == door.id() => Ok(entered),
            _ => {
                self.unlock_state();
                Err(self.replaced())
            }
        }
    }

    /// With `state` locked for us alone: leaves a record that names this door, then lets other readers in.
    fn write_as_reader(&mut self, door: &Door) -> Result<Entered> {
        let content = self.read_locked()?;
        refuse_foreign(&self.place, self.kind, &content)?;
        let found = match content {
            Content::Ours(record) => Some(record),
            _ => None,
        };
        let fresh = || state::next_token(0, state::wall_clock_us());
        let entered = Entered {
            token: found.map_or_else(fresh, |it| it.token),
            predecessor_crashed: found.is_some_and(|it| it.held),
        };
        let clean = found.is_some_and(|record| is_clean(&record, door));
        let Some(file) = &self.state else {
            return Ok(entered);
        };
        let at = |step, error| Error::io(step, self.place.state(), error);
        if !clean {
            self.draft.set_owner("");
            self.words = None;
            let bytes = self
                .draft
                .unheld(entered.token, door.id(), entered.predecessor_crashed);
            file::write_at(file, 0, bytes).map_err(|e| at("write the state file", e))?;
        }
        step::at(Step::ShareState);
        match flock::share(file).map_err(|e| at("share the lock of the state file", e))? {
            true => Ok(entered),
            false => Err(self.replaced()),
        }
    }

    /// A writer lets readers in: they may lock `state` as well. The door is shared already, so that no writer can come between.
    pub(crate) fn share_state(&mut self) -> Result<bool> {
        step::at(Step::ShareState);
        let Some(file) = &self.state else {
            return Ok(true);
        };
        flock::share(file)
            .map_err(|e| Error::io("share the lock of the state file", self.place.state(), e))
    }
}

fn is_clean(record: &Record, door: &Door) -> bool {
    record.door == door.id() && !record.held
}
