//! Removing a lock from disk. A process removes a lock only while it holds it and the queue is
//! empty, and every process that has its files open can see the removal.
//!
//! The steps: overwrite `state` with a tombstone, unlink it, remove the directory, unlink the door,
//! unlock, close. If the directory cannot be removed, the record is written back. A crash in
//! between leaves files that the next holder uses or replaces. An unreported crash of an earlier
//! holder is forgotten with the record, unless the caller wants to keep it. A lock file with
//! content holds data of other programs and stays. A record with a second name gets no tombstone;
//! see [`disk`](super).

use super::{Disk, State, StateLock, TriedState};
use crate::door::{Door, remove_file, remove_file_in};
use crate::error::{Error, Result};
use crate::fair::record::{self, Flag, Record};
use crate::fair::slots::Slots;
use crate::status::Removal;
use crate::step::{self, Step};
use crate::sys::{file, uninterrupted};

impl Disk {
    /// Removes the lock from disk. The door is locked and current, and the queue was found empty.
    /// With `keep_crash` nothing is removed while a crash is unreported.
    pub(crate) fn remove(&mut self, door: Door, keep_crash: bool) -> Result<Removal> {
        let result = self.remove_all(&door, keep_crash);
        let left = self.place.leave(door);
        let cleared = result?;
        left.map(|()| cleared)
    }

    fn remove_all(&mut self, door: &Door, keep_crash: bool) -> Result<Removal> {
        let record = match self.try_state_as_it_is()? {
            TriedState::Locked(record) => record,
            TriedState::Refused => match self.refused(door)? {
                StateLock::Elsewhere => return Err(self.replaced()),
                _ => return Ok(Removal::InUse),
            },
        };
        let unreported = keep_crash && record.is_some_and(|record| record.flag != Flag::Clear);
        let result = match unreported {
            true => Ok(Removal::InUse),
            false => self.remove_locked(record),
        };
        self.unlock_state();
        self.reopen();
        if result? == Removal::InUse {
            return Ok(Removal::InUse);
        }
        step::at(Step::UnlinkDoor);
        let path = &self.place.door;
        let at = |e| Error::io("look at the lock file", path, e);
        let facts = uninterrupted(|| door.file().metadata());
        let empty = facts.map_err(at)?.len() == 0;
        // Another file under this name is not ours to remove.
        if empty && door.is_current(path).map_err(at)? {
            remove_file(path, "remove the lock file")?;
        }
        Ok(Removal::Removed)
    }

    /// Removes the semaphore. The caller has all permits in hand, and the queue is empty.
    pub(crate) fn remove_slots(&mut self) -> Result<Removal> {
        let TriedState::Locked(record) = self.try_state_as_it_is()? else {
            return Ok(Removal::InUse);
        };
        let known = self.slots.as_ref().map(Slots::limit);
        let cleared = match record.map(|it| it.limit) {
            // Another process has changed the limit, so these may not be all permits.
            Some(limit) if Some(limit) != known => Ok(Removal::InUse),
            _ => self.remove_locked(record),
        };
        self.unlock_state();
        self.reopen();
        match (cleared?, &self.slots) {
            (Removal::Removed, Some(slots)) => slots.unlink().map(|()| Removal::Removed),
            (cleared, _) => Ok(cleared),
        }
    }

    fn remove_locked(&mut self, record: Option<Record>) -> Result<Removal> {
        let path = self.place.state();
        let at = |error| Error::io("write the state file", &path, error);
        if let Some(queue) = &mut self.queue {
            queue.clear_spares()?;
        }
        let Some(State { file, id, linked }) = &self.state else {
            return Ok(Removal::InUse);
        };
        step::at(Step::TombstoneState);
        let mut kept = record::read(file, Some(*id)).map_err(at)?;
        // In a hard-linked copy of the directory this is the record of a lock that stays in use.
        if !linked {
            file::write_at(file, 0, record::REMOVED.as_bytes()).map_err(at)?;
        }
        step::at(Step::UnlinkState);
        remove_file_in(&self.place.queue, &path, "remove the state file")?;
        step::at(Step::RemoveQueue);
        #[allow(clippy::disallowed_methods)] // the one place
        let removed = uninterrupted(|| std::fs::remove_dir(&self.place.queue));
        let error = match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => error,
            _ => return Ok(Removal::Removed),
        };
        // Write the record back for the next holder. A file that is there already is newer.
        let there = file::id_at(&path).map_err(at)?.is_some();
        if record.is_some() && !there {
            let at = |e| Error::io("write the state file back", &path, e);
            let Some(queue) = &self.queue else {
                return Ok(Removal::InUse);
            };
            let (fresh, id) = queue.open_state().map_err(at)?;
            record::set_file(&mut kept, id.inode);
            file::write_at(&fresh, 0, &kept).map_err(at)?;
        }
        // A process took a ticket meanwhile, or the directory contains other files.
        if error.kind() == std::io::ErrorKind::DirectoryNotEmpty {
            return Ok(Removal::InUse);
        }
        Err(Error::io(
            "remove the queue directory",
            &self.place.queue,
            error,
        ))
    }
}
