//! A shared hold on disk: the state file under a shared lock.
//!
//! # Algorithm
//!
//! A reader locks the door shared and never asks for more. So it excludes no other reader, and no
//! program that locks the door shared. It writes nothing if the record is *clean*: the record names
//! this door and its flag is not held. Otherwise the reader takes *charge* of the record. It locks
//! `state` exclusively, reads the record again, writes this door into it, marks the flag of a dead
//! writer as found, and converts its lock on `state` into a shared one. Only the reader in charge
//! reports that death, and it clears the flag afterwards.
//!
//! A reader that is refused `state` tries again. While the record names this door, the other
//! process is dying or in charge. Otherwise the holder may have entered through another door, or
//! another reader is about to take charge, and may be stopped. To tell these apart, a reader first
//! makes sure that it is alone at the door, and then [asks](Disk::is_held_elsewhere).
//!
//! # Invariants
//!
//! 1. Each reader that holds the lock has `state` locked shared, and the record names its door. So
//!    a process that has the whole door and finds `state` locked knows from the record whether the
//!    holder is dying or came through another door.
//! 2. `state` is written under its exclusive lock. There is one exception: the reader in charge
//!    clears the flag that it has reported. No other process can have the exclusive lock meanwhile.

use super::{Admission, Disk, Entered, StateLock, TRIES, TriedState};
use crate::door::Door;
use crate::error::Result;
use crate::fair::record::{Content, Flag, Record};
use crate::step::{self, Step};
use crate::sys::flock;
use crate::sys::host::wall_clock_us;
use crate::token::next_token;

/// How often a reader that is refused `state` tries again at once. Another reader has it for a few
/// system calls.
const REFUSALS: u32 = 16;

/// The result of one look at the record.
enum Tried {
    In(Entered),
    /// The record or the file has changed meanwhile. Look again.
    Changed,
    /// Another process has `state` locked.
    Refused,
}

impl Disk {
    /// Makes the process that has locked the door shared one of the holders. Reads the open state
    /// file before it locks it, so it trusts the last listing about which file that is. A caller
    /// that has waited since then calls [`Disk::refresh`] first.
    pub(crate) fn enter_shared(&mut self, door: &Door) -> Result<Admission> {
        step::at(Step::LockState);
        let mut refusals = 0;
        for _ in 0..TRIES {
            self.open_state()?;
            if self.state.is_none() {
                continue;
            }
            let content = self.read_head()?;
            content.refuse_foreign(&self.place, self.kind)?;
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

    /// Locks `state` shared after the record was clean, and reads the record again. A writer may
    /// have entered through another door meanwhile.
    fn share_clean(&mut self, door: &Door) -> Result<Tried> {
        if !self.try_share_state()? {
            if self.state_is_current()? {
                return Ok(Tried::Refused);
            }
            // The process that removes the lock still has the old file locked.
            self.reopen();
            return Ok(Tried::Changed);
        }
        let read = self.read_locked();
        if let Ok(Some(record)) = read.as_ref().map(|it| clean(it, door)) {
            return Ok(Tried::In(Entered::without_crash(record.token)));
        }
        self.unlock_state();
        read.map(|_| Tried::Changed)
    }

    fn try_share_state(&self) -> Result<bool> {
        let Some(state) = &self.state else {
            return Ok(false);
        };
        let locked = flock::try_lock_own(&state.file, true);
        locked.map_err(self.at_state("lock the state file"))
    }

    /// Makes the record clean, unless another process has `state` locked.
    fn take_charge(&mut self, door: &Door) -> Result<Tried> {
        step::at(Step::TakeCharge);
        let TriedState::Locked(found) = self.try_state_as_it_is()? else {
            return Ok(Tried::Refused);
        };
        let entered = self.make_clean(door, found);
        if !matches!(entered, Ok(Tried::In(_))) {
            self.unlock_state();
        }
        entered
    }

    /// Makes the record clean, with `state` locked exclusively. The record was read again, because
    /// another reader may have been in charge since the look without a lock. If its flag is already
    /// *found*, the reader that found it has died: no process can have the exclusive lock beside a
    /// live reader.
    fn make_clean(&mut self, door: &Door, found: Option<Record>) -> Result<Tried> {
        let fits = found.filter(|it| it.door == door.id() && it.flag == Flag::Clear);
        let entered = match fits {
            Some(record) => Entered::without_crash(record.token),
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
        let fresh = || next_token(0, wall_clock_us());
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
        step::at(Step::WriteHeld);
        self.write(|draft| draft.read(entered.token, door.id(), flag))?;
        Ok(entered)
    }

    /// Converts the exclusive lock on `state` into a shared one. A writer that admits readers has
    /// shared the door before, so no writer can enter in between.
    pub(crate) fn share_state(&self) -> Result<bool> {
        step::at(Step::ShareState);
        let Some(state) = &self.state else {
            return Ok(true);
        };
        let shared = flock::share_own(&state.file);
        shared.map_err(self.at_state("share the lock of the state file"))
    }

    /// Ends the charge of a reader that leaves before a guard has reported the death. If it is
    /// alone at `state`, it sets the flag again for the next guard. While others read, the flag
    /// stays as it is, for the next writer.
    pub(crate) fn untake_charge(&mut self, door: &Door) -> Result<()> {
        step::at(Step::UnlockState);
        self.unlock_state();
        // Not replaced by a private copy: readers that have the file open would continue with the
        // old one.
        let tried = self.try_state_as_it_is()?;
        let linked = self.state.as_ref().is_some_and(|it| it.linked);
        match tried {
            TriedState::Locked(Some(it))
                if it.door == door.id() && it.flag == Flag::Found && !linked =>
            {
                self.clear_held(it.token, Flag::Held)
            }
            // The lock ends with the last steps of the holder.
            _ => Ok(()),
        }
    }

    /// Returns whether `state` is locked by a holder that came through another door. The caller has
    /// the whole door.
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

/// Returns the record if a reader that came through this door has nothing to write into it.
fn clean(content: &Content, door: &Door) -> Option<Record> {
    match content {
        Content::Ours(record) if record.door == door.id() && record.flag != Flag::Held => {
            Some(*record)
        }
        _ => None,
    }
}
