//! An exclusive hold on disk: the state file, locked, with the token and the held flag in it.
//! Readers are in [`reader`](super::reader).

use std::sync::Arc;

use super::{Admission, Disk, Entered, StateLock, TRIES, refuse_foreign};
use crate::error::{Error, ErrorKind, Result};
use crate::fair::door::Door;
use crate::fair::record::{self, Content, Flag, Record};
use crate::step::{self, Step};
use crate::sys::file::{self, FileId};
use crate::sys::flock;
use crate::sys::fork::Private;

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
        let now = record::wall_clock_us();
        let token = record::next_token(last, now);
        step::at(Step::WriteHeld);
        let bytes = self.draft.entered(token, door.id(), now);
        let written = match &self.state {
            Some(file) => file::write_at(file, 0, bytes),
            None => Ok(()),
        };
        if let Err(error) = written {
            let error = Error::io("write the state file", self.place.state(), error);
            self.unlock_state();
            return Err(error);
        }
        Ok(Admission::In(Entered {
            token,
            predecessor_crashed: record.is_some_and(|it| it.flag != Flag::Clear),
        }))
    }

    /// Locks the current state file exclusively, and reads it. A refusal says why.
    pub(super) fn lock_state(&mut self, door: &Door) -> Result<StateLock> {
        match self.try_state()? {
            Some(record) => Ok(StateLock::Locked(record)),
            None => self.refused(door),
        }
    }

    /// Does the same, and returns `None` if the lock was refused. The record is `None` if there was
    /// none.
    pub(super) fn try_state(&mut self) -> Result<Option<Option<Record>>> {
        for _ in 0..TRIES {
            let Some(record) = self.try_state_as_it_is()? else {
                return Ok(None);
            };
            match self.make_private() {
                Ok(true) => return Ok(Some(record)),
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
    pub(super) fn try_state_as_it_is(&mut self) -> Result<Option<Option<Record>>> {
        for _ in 0..TRIES {
            self.open_state()?;
            let Some(file) = &self.state else { continue };
            let at = |step, error| Error::io(step, self.place.state(), error);
            if !flock::try_lock_own(file, false).map_err(|e| at("lock the state file", e))? {
                if self.state_is_current()? {
                    return Ok(None);
                }
                // The process that removes the lock still has the old file locked.
                self.reopen();
                continue;
            }
            match self.read_locked() {
                Ok(Content::Ours(record)) => return Ok(Some(Some(record))),
                Ok(Content::Nothing) => return Ok(Some(None)),
                // The file is locked by us and still has its name, so the process that wanted to
                // remove the lock died before it could.
                Ok(Content::Removed) if self.state_is_current()? => {
                    return Ok(Some(None));
                }
                Ok(Content::Removed) => {
                    self.unlock_state();
                    self.reopen();
                }
                Ok(content @ Content::Foreign(_)) => {
                    self.unlock_state();
                    refuse_foreign(&self.place, self.kind, &content)?;
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
    pub(super) fn read_locked(&mut self) -> Result<Content> {
        let path = self.place.state();
        let named = file::named_at(&path);
        let named = named.map_err(|error| Error::io("look at the state file", &path, error))?;
        match named.filter(|(id, _)| Some(*id) == self.state_id) {
            Some((_, names)) => self.state_linked = names > 1,
            None => {
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

    /// Some file systems grant every lock. Checks that a second one is refused.
    fn check_that_locks_exclude(&self) -> Result<()> {
        let path = self.place.state();
        let at = |step, error| Error::io(step, &path, error);
        let second = file::open_to_read(&path).map_err(|e| at("open the state file", e))?;
        if let (Some(second), Some(file)) = (second, &self.state)
            && flock::is_granted_twice(file, &second).map_err(|e| at("lock the state file", e))?
        {
            let text = "this file system grants one lock to two holders";
            return Err(Error::at(ErrorKind::Unsupported, text, path));
        }
        Ok(())
    }

    /// Reads the record of the open state file.
    pub(super) fn read_head(&self) -> Result<Content> {
        let Some(file) = &self.state else {
            return Ok(Content::Nothing);
        };
        let mut buffer = [0; record::LENGTH];
        let read = record::read(file, self.state_id, &mut buffer)
            .map_err(|e| Error::io("read the state file", self.place.state(), e))?;
        Ok(self.parse(&buffer[..read]))
    }

    /// Opens the state file, unless it is open. May leave it closed; then the caller tries again.
    pub(super) fn open_state(&mut self) -> Result<()> {
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
    pub(super) fn use_state(&mut self, file: Private, id: FileId) -> Option<Private> {
        self.draft.set_file(id.inode);
        self.state_id = Some(id);
        self.state.replace(file)
    }

    pub(super) fn unlock_state(&self) {
        if let Some(file) = &self.state {
            // If this fails, closing the file ends the lock. Until then newcomers fail with
            // `Replaced`.
            let _ = flock::unlock(file);
        }
    }

    /// Returns the open state file, which is locked while this process holds the lock.
    pub(crate) fn state_file(&self) -> Option<&std::fs::File> {
        self.state.as_deref()
    }

    /// Returns whether the open state file is the current one.
    pub(super) fn state_is_current(&self) -> Result<bool> {
        let path = self.place.state();
        let at = |error| Error::io("look at the state file", &path, error);
        Ok(self.state.is_some() && file::id_at(&path).map_err(at)? == self.state_id)
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
    pub(super) fn refused(&self, door: &Door) -> Result<StateLock> {
        let bytes = self.read_unlocked()?.unwrap_or_default();
        if let Content::Ours(record) = self.parse(&bytes)
            && record.door == door.id()
        {
            return Ok(StateLock::Dying);
        }
        Ok(StateLock::Elsewhere)
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
        let Some(file) = &self.state else {
            return Ok(());
        };
        let (at, bytes) = self.draft.token(token);
        file::write_at(file, at, bytes)
            .map_err(|e| Error::io("write the state file", self.place.state(), e))
    }

    /// Writes the last granted token, and the flag without a writer inside: clear, or held or found
    /// if a crash has not been reported yet.
    pub(crate) fn clear_held(&mut self, token: u64, flag: Flag) -> Result<()> {
        step::at(Step::ClearHeld);
        self.write_flag(token, flag)
    }

    /// Writes token and held flag for the next holder, which is in this process too.
    pub(crate) fn set_held(&mut self, token: u64) -> Result<()> {
        step::at(Step::WriteHeld);
        self.write_flag(token, Flag::Held)
    }

    fn write_flag(&mut self, token: u64, flag: Flag) -> Result<()> {
        let Some(file) = &self.state else {
            return Ok(());
        };
        let (at, bytes) = self.draft.flag(token, flag);
        file::write_at(file, at, bytes)
            .map_err(|e| Error::io("write the state file", self.place.state(), e))
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
        let bytes = self.read_unlocked()?.unwrap_or_default();
        Ok(matches!(self.parse(&bytes), Content::Ours(record) if record.flag == Flag::Held))
    }

    /// Returns the token in the record. Takes no lock.
    pub(crate) fn peek_token(&mut self) -> Result<u64> {
        self.open_state()?;
        let bytes = self.read_unlocked()?.unwrap_or_default();
        Ok(match self.parse(&bytes) {
            Content::Ours(record) => record.token,
            _ => 0,
        })
    }
}
