//! The removal of a lock that no process uses.

use std::path::Path;

use super::{Core, Line};
use crate::error::{Error, Result};
use crate::fair::ticket::Mode;
use crate::status::Removal;
use crate::sys::uninterrupted;

impl Line {
    /// Removes lock file and queue if they are not in use. With `keep_crash`, it removes them only
    /// if no crash is left to report.
    pub(in crate::fair) fn remove(&self, keep_crash: bool) -> Result<Removal> {
        self.run(|core| core.remove(keep_crash))
    }
}

impl Core {
    fn remove(&mut self, keep_crash: bool) -> Result<Removal> {
        self.disk.check_kind()?;
        if self.possession.is_some()
            || self.cohorts.waiting() > 0
            || self.others_queue(Mode::Exclusive)?
        {
            return Ok(Removal::InUse);
        }
        if self.disk.slots().is_some() {
            return self.remove_slots(keep_crash);
        }
        let place = self.disk.place().clone();
        let door = match place.open_existing_door()? {
            Some(door) => door,
            None if !exists(&place.queue)? => return Ok(Removal::Removed),
            None => place.open_door(None)?,
        };
        if !place.try_lock(&door, false)? {
            return Ok(Removal::InUse);
        }
        let current = place.is_current(&door);
        let ready = current.and_then(|current| Ok(current && self.disk.list(None)?.is_empty()));
        if let Ok(true) = ready {
            return self.disk.remove(door, keep_crash);
        }
        let left = place.leave(door);
        ready.and(left).map(|()| Removal::InUse)
    }

    /// Removes a semaphore, if all permits there are can be had at once. With `if_queued`, leaves
    /// slot files without a queue alone: this process has created none of them.
    fn remove_slots(&mut self, if_queued: bool) -> Result<Removal> {
        if if_queued && !exists(&self.disk.place().queue)? {
            return Ok(Removal::Removed);
        }
        // Another process may have added permits.
        self.disk.adopt_limit()?;
        let Some(slots) = self.disk.slots_mut() else {
            return Ok(Removal::InUse);
        };
        let limit = slots.limit();
        let gathered = slots.gather(limit, None);
        let unused = gathered.and_then(|all| Ok(all && self.disk.list_existing()?.is_empty()));
        let cleared = match unused {
            Ok(true) => self.disk.remove_slots(),
            other => other.map(|_| Removal::InUse),
        };
        self.disk.keep_in_hand(0).and(cleared)
    }
}

fn exists(path: &Path) -> Result<bool> {
    let exists = uninterrupted(|| path.try_exists());
    exists.map_err(|e| Error::io("look for", path, e))
}
