//! An exclusive hold on disk: the state file, locked, with the token and the held flag in it.
//! Readers are in [`reader`](super::reader).

use std::fs::File;
use std::sync::Arc;

use super::{Admission, Disk, Entered, StateLock};
use crate::door::Door;
use crate::error::{Error, ErrorKind, Result};
use crate::fair::record::Flag;
use crate::step::{self, Step};
use crate::sys::host::wall_clock_us;
use crate::token::next_token;

impl Disk {
    /// Makes the process that has locked the door the holder: locks `state`, and writes the token
    /// and the held flag. If another file is named `state` by now, this shows when the open one is
    /// locked.
    pub(crate) fn enter(&mut self, door: &Door, words: &Arc<str>) -> Result<Admission> {
        step::at(Step::LockState);
        let record = match self.lock_state(door)? {
            StateLock::Locked(record) => record,
            StateLock::Dying => return Ok(Admission::Dying),
            StateLock::Elsewhere => return Ok(Admission::Elsewhere),
        };
        if self.words.as_ref().is_none_or(|it| !Arc::ptr_eq(it, words)) {
            self.draft.set_owner(words);
            self.words = Some(words.clone());
        }
        let last = record.map_or(0, |record| record.token);
        let now = wall_clock_us();
        let token = next_token(last, now);
        step::at(Step::WriteHeld);
        if let Err(error) = self.write(|draft| draft.entered(token, door.id(), now)) {
            self.unlock_state();
            return Err(error);
        }
        Ok(Admission::In(Entered {
            token,
            predecessor_crashed: record.is_some_and(|it| it.flag != Flag::Clear),
        }))
    }

    /// Returns the open state file, which is locked while this process holds the lock.
    pub(crate) fn state_file(&self) -> Option<&File> {
        self.state.as_ref().map(|it| &*it.file)
    }

    /// Returns the error for a lock that is held through a door to which the path no longer leads.
    pub(crate) fn replaced(&self) -> Error {
        let text = "the lock file was deleted or replaced, \
                    and a process still holds the lock through the old one";
        Error::at(ErrorKind::Replaced, text, &self.place.door)
    }

    /// Raises the token on disk to the end of a block. Tokens of the block are granted without a
    /// write.
    pub(crate) fn reserve_to(&mut self, token: u64) -> Result<()> {
        self.write(|draft| draft.token(token))
    }

    /// Writes the last granted token, and the flag without a writer inside: clear, or held or found
    /// if a crash has not been reported yet.
    pub(crate) fn clear_held(&mut self, token: u64, flag: Flag) -> Result<()> {
        step::at(Step::ClearHeld);
        self.write(|draft| draft.flag(token, flag))
    }

    /// Writes token and held flag for the next holder, which is in this process too.
    pub(crate) fn set_held(&mut self, token: u64) -> Result<()> {
        step::at(Step::WriteHeld);
        self.write(|draft| draft.flag(token, Flag::Held))
    }

    /// Performs the last steps of a holder: unlocks everything and closes the door, also if a step
    /// fails.
    pub(crate) fn leave(&mut self, door: Arc<Door>) -> Result<()> {
        step::at(Step::UnlockState);
        self.unlock_state();
        Door::leave_last(door).map_err(|e| Error::io("unlock the lock file", &self.place.door, e))
    }

    /// Returns whether the record says that the lock is held. Takes no lock.
    pub(crate) fn says_held(&self) -> Result<bool> {
        Ok(self.peek()?.is_some_and(|it| it.flag == Flag::Held))
    }

    /// Returns the token in the record. Takes no lock.
    pub(crate) fn peek_token(&mut self) -> Result<u64> {
        self.open_state()?;
        Ok(self.peek()?.map_or(0, |it| it.token))
    }
}
