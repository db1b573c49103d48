//! Being one of several readers inside, on disk: the state file under a shared lock.
//!
//! # Algorithm
//!
//! A reader has the door locked shared and never asks for more, so it excludes no other reader and no program that locks the door
//! shared. It writes nothing if the record is *clean*: the record names this door, and no dead writer has left a flag in it that no
//! reader has found. Otherwise the reader takes *charge* of the record. It locks `state` exclusively, reads the record again,
//! makes it name this door, marks a dead writer's flag as found, and turns its lock on `state` into a shared one. Only the
//! reader in charge reports that death, and it clears the flag afterwards.
//!
//! A reader that is refused `state` tries again. While the record names this door, the other process is dying, or is in charge.
//! Otherwise the holder may also live behind another door. A reader that wants to know asks to be [alone](Disk::is_held_elsewhere)
//! at the door first, for the one in charge may stand still.
//!
//! # Invariants
//!
//! 1. While a reader is inside, it has `state` locked shared, and the record names its door. So a process that finds `state` locked
//!    with the whole door in hand knows from the record whether the holder is dying or came through another door.
//! 2. `state` is written with its exclusive lock in hand. One exception: the reader in charge clears the flag that it has reported,
//!    and no other process can have the exclusive lock meanwhile.

use super::super::door::Door;
use super::super::state::{self, Content, Flag, Record};
use super::super::step::{self, Step};
use super::{Admission, Disk, Entered, StateLock, TRIES, refuse_foreign};
use crate::error::{Error, Result};
use crate::fs::sys::{file, flock};

/// How often a reader that is refused `state` tries again at once. Another reader has it for a few system calls.
const REFUSALS: u32 = 16;

/// What came of one look at the record.
enum Tried {
    In(Entered),
    /// The record or the file has changed meanwhile: look again.
    Changed,
    /// Another process has `state` locked.
    Refused,
}

impl Disk {
    /// Makes a reader, which has the door locked shared, one that is inside.
    /// Which file `state` is counts from the last listing, as for [`Disk::enter`].
    pub(crate) fn enter_shared(&mut self, door: &Door) -> Result<Admission> {
        step::at(Step::LockState);
        let mut refusals = 0;
        for _ in 0..TRIES {
            self.open_state()?;
            if self.state.is_none() {
                continue;
            }
            let content = self.read_head()?;
            refuse_foreign(&self.place, self.kind, &content)?;
            let tried = match clean(&content, door) {
                Some(_) => self.share_clean(door)?,
                None => self.take_charge(door)?,
            };
            match tried {
                Tried::In(entered) => return Ok(Admission::In(entered)),
                Tried::Changed => {}
                Tried::Refused if refusals < REFUSALS => {
                    refusals += 1;
                    std::thread::yield_now();
                }
                Tried::Refused => {
                    return Ok(match self.refused(door)? {
                        StateLock::Elsewhere => Admission::Elsewhere,
                        StateLock::Dying | StateLock::Locked(_) => Admission::Dying,
                    });
                }
            }
        }
        Err(self.vanishing())
    }

    /// The record was clean: shares `state`, and reads the record again. It may be that of a writer who came through another door.
    fn share_clean(&mut self, door: &Door) -> Result<Tried> {
        if !self.try_share_state()? {
            if self.state_is_current()? {
                return Ok(Tried::Refused);
            }
            // A process that removes the lock still has the old file locked.
            self.reopen();
            return Ok(Tried::Changed);
        }
        let read = self.read_locked();
        if let Ok(Some(record)) = read.as_ref().map(|it| clean(it, door)) {
            return Ok(Tried::In(without_crash(record)));
        }
        self.unlock_state();
        read.map(|_| Tried::Changed)
    }

    fn try_share_state(&self) -> Result<bool> {
        let Some(file) = &self.state else {
            return Ok(false);
        };
        flock::try_lock_shared(file)
            .map_err(|e| Error::io("lock the state file", self.place.state(), e))
    }

    /// The record is not clean: makes it so, unless another process has `state` locked.
    fn take_charge(&mut self, door: &Door) -> Result<Tried> {
        step::at(Step::TakeCharge);
        let Some(found) = self.try_state_as_it_is()? else {
            return Ok(Tried::Refused);
        };
        let entered = self.make_clean(door, found);
        if !matches!(entered, Ok(Tried::In(_))) {
            self.unlock_state();
        }
        entered
    }

    /// With `state` locked exclusively, and the record as it is now: another reader may have been in charge since the look without a lock.
    /// A flag that is found already is of a reader that has died: nobody else can have the exclusive lock beside one that lives.
    fn make_clean(&mut self, door: &Door, found: Option<Record>) -> Result<Tried> {
        let fits = found.filter(|it| it.door == door.id() && it.flag == Flag::Clear);
        let entered = match fits {
            Some(record) => without_crash(record),
            None if self.make_private()? => self.write_as_reader(door, found)?,
            None => {
                self.unlock_state();
                self.reopen();
                return Ok(Tried::Changed);
            }
        };
        Ok(match self.share_state()? {
            true => Tried::In(entered),
            false => Tried::Changed,
        })
    }

    fn write_as_reader(&mut self, door: &Door, found: Option<Record>) -> Result<Entered> {
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
        Ok(entered)
    }

    /// From the exclusive lock on `state` to the shared one. A writer that lets readers in has shared the door before, so that no writer
    /// can come between.
    pub(crate) fn share_state(&self) -> Result<bool> {
        step::at(Step::ShareState);
        let Some(file) = &self.state else {
            return Ok(true);
        };
        flock::share(file)
            .map_err(|e| Error::io("share the lock of the state file", self.place.state(), e))
    }

    /// A reader in charge leaves, and no guard has reported the death. Alone at `state` it sets the flag again, for the next guard; while
    /// others read, the flag stays as it is, for the next writer.
    pub(crate) fn untake_charge(&mut self, door: &Door) -> Result<()> {
        step::at(Step::UnlockState);
        self.unlock_state();
        // Not replaced by a private copy: readers that have the file open would go on with the old one.
        match self.try_state_as_it_is()? {
            Some(Some(record))
                if record.door == door.id() && record.flag == Flag::Found && !self.state_linked =>
            {
                self.clear_held(record.token, Flag::Held)
            }
            // The lock goes with the last steps of a holder.
            _ => Ok(()),
        }
    }

    /// With the whole door in hand: whether `state` is locked all the same, by a holder that came through another door.
    pub(crate) fn is_held_elsewhere(&mut self, door: &Door) -> Result<bool> {
        step::at(Step::AskState);
        Ok(match self.lock_state(door)? {
            StateLock::Locked(_) => {
                self.unlock_state();
                false
            }
            StateLock::Dying => false,
            StateLock::Elsewhere => true,
        })
    }
}

fn without_crash(record: Record) -> Entered {
    Entered {
        token: record.token,
        predecessor_crashed: false,
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
