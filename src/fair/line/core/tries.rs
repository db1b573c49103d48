//! The calls that do not wait: `try_enter`, `is_locked`, `remove`.
//!
//! # Invariant
//!
//! A refused `try_enter` leaves nothing behind. It lists the queue before it touches the door,
//! creates no queue, and removes only the tickets of dead owners.

use std::path::Path;

use super::arrival::Fast;
use super::{Core, Grant, Mode, Request, Settings};
use crate::error::{Error, Result};
use crate::fair::disk::Cleared;
use crate::fair::door::{self, Door, Probed};
use crate::step::{self, Step};

/// How often a locked door is tried while the record names no holder.
const TRIES: usize = 16;

impl Core {
    /// Acquires the lock if it is free and no waiter is in the way.
    pub(crate) fn try_enter(&mut self, request: &Request<'_>) -> Result<Option<Grant>> {
        let mode = request.want.mode;
        self.refuse_closed(request.settings)?;
        self.refuse_impossible(mode)?;
        let fast = match mode {
            Mode::Permits(_) if self.others_queue(mode)? => Fast::Refused,
            Mode::Permits(count) => {
                self.saw_queue = false;
                self.permits_at_once(request, count)?
            }
            _ if self.possession.is_some() => self.try_join(request)?,
            _ if self.cohorts.waiting() > 0 || self.others_queue(mode)? => Fast::Refused,
            _ => self.try_door(request)?,
        };
        Ok(match fast {
            Fast::Granted(grant) => Some(grant),
            _ => None,
        })
    }

    /// Tries to enter, several times if the record names no holder. The queue has just been listed.
    fn try_door(&mut self, request: &Request<'_>) -> Result<Fast> {
        let mut fast = Fast::Refused;
        for _ in 0..TRIES {
            self.saw_queue = false;
            fast = self.fast_path(request)?;
            match fast {
                Fast::Granted(_) => return Ok(fast),
                // A waiter would try again for a while, because that holder may be dying. This
                // call fails at once.
                Fast::Elsewhere if request.want.mode == Mode::Exclusive => {
                    return Err(self.disk.replaced());
                }
                Fast::Elsewhere | Fast::Dying => {}
                Fast::Locked(_) | Fast::Queued | Fast::Refused if self.disk.says_held()? => {
                    return Ok(fast);
                }
                // The door is locked and the record names no holder. Another process only probes
                // it, enters or leaves.
                Fast::Locked(_) | Fast::Queued | Fast::Refused => {}
            }
            std::hint::spin_loop();
        }
        if matches!(fast, Fast::Elsewhere) {
            self.refuse_replaced(request.settings)?;
        }
        Ok(fast)
    }

    /// Fails if a holder came through another door. That may be why a reader was refused `state`.
    /// Only a process that is alone at the door can know.
    fn refuse_replaced(&mut self, settings: &Settings) -> Result<()> {
        let Ok(door) = self.lock_current_door(settings, Mode::Exclusive)? else {
            return Ok(());
        };
        let elsewhere = self.disk.is_held_elsewhere(&door);
        step::at(Step::GiveBack);
        let left = door.leave().map_err(|e| self.io("unlock the lock file", e));
        if elsewhere? {
            return Err(self.disk.replaced());
        }
        left
    }

    /// Enters with the readers of this process that are inside.
    fn try_join(&mut self, request: &Request<'_>) -> Result<Fast> {
        let mode = request.want.mode;
        if mode != Mode::Shared || !self.admits_readers() || self.others_queue(mode)? {
            return Ok(Fast::Refused);
        }
        self.share_if_wanted();
        Ok(self.join_readers(request))
    }

    /// Returns whether a ticket of another process is in the way. Tickets of dead owners are
    /// reaped. Fails if the answer depends on a ticket that this process may not open.
    fn others_queue(&mut self, want: Mode) -> Result<bool> {
        self.tidy();
        let own = self.own_tickets();
        let line = self.disk.list_existing()?.iter();
        let others = line.filter(|it| it.mode.conflicts(want) && !own.contains(it));
        let others = others.copied().collect();
        let (known, unknown) = self.living(others)?;
        match unknown.into_iter().next() {
            Some(unknown) if known == 0 => Err(unknown),
            _ => Ok(known > 0),
        }
    }

    /// Returns whether any process holds the lock. This is asked of the operating system.
    pub(crate) fn is_locked(&mut self) -> Result<bool> {
        if let Some(slots) = self.disk.slots_mut() {
            let reserved = slots.in_hand();
            let free = slots.gather(reserved + 1, None)?;
            return self.disk.keep_in_hand(reserved).map(|()| !free);
        }
        if self.possession.is_some() {
            return Ok(true);
        }
        Ok(door::probe(&self.disk.place().door)? != Probed::Free)
    }

    /// Tries the locks that other processes may hold, for a look that cannot know otherwise: the
    /// lock file, or slot by slot up to the first refusal.
    pub(crate) fn probe(&self) -> Result<Probed> {
        if self.possession.is_some() {
            return Ok(Probed::Exclusive);
        }
        let Some(slots) = self.disk.slots() else {
            return door::probe(&self.disk.place().door);
        };
        if slots.ours() > 0 {
            return Ok(Probed::Exclusive);
        }
        for path in slots.paths_of_others() {
            let found = door::probe(&path)?;
            if found != Probed::Free {
                return Ok(found);
            }
        }
        Ok(Probed::Free)
    }

    /// Removes lock file and queue if they are not in use. With `keep_crash`, it removes them only
    /// if no crash is left to report.
    pub(crate) fn remove(&mut self, keep_crash: bool) -> Result<Cleared> {
        self.disk.check_kind()?;
        if self.possession.is_some()
            || self.cohorts.waiting() > 0
            || self.others_queue(Mode::Exclusive)?
        {
            return Ok(Cleared::InUse);
        }
        if self.disk.slots().is_some() {
            return self.remove_slots();
        }
        let place = self.disk.place().clone();
        let at = |step, error| Error::io(step, &place.door, error);
        let exists = |path: &Path| path.try_exists().map_err(|e| at("look beside", e));
        let open = || Door::open_existing(&place.door).map_err(|e| at("open the lock file", e));
        let door = match open()? {
            Some(door) => door,
            None if !exists(&place.queue)? => return Ok(Cleared::Removed),
            None => Door::open(&place.door, None).map_err(|e| at("open the lock file", e))?,
        };
        if !door
            .try_lock(false)
            .map_err(|e| at("lock the lock file", e))?
        {
            return Ok(Cleared::InUse);
        }
        let ready = door
            .is_current(&place.door)
            .map_err(|e| at("look at the lock file", e))
            .and_then(|current| Ok(current && self.disk.list(None)?.is_empty()));
        if let Ok(true) = ready {
            return self.disk.remove(door, keep_crash);
        }
        let left = door.leave().map_err(|e| at("unlock the lock file", e));
        ready.and(left).map(|()| Cleared::InUse)
    }

    /// Removes a semaphore, if all permits there are can be had at once.
    fn remove_slots(&mut self) -> Result<Cleared> {
        // Another process may have added permits.
        self.disk.adopt_limit()?;
        let Some(slots) = self.disk.slots_mut() else {
            return Ok(Cleared::InUse);
        };
        let limit = slots.limit();
        let gathered = slots.gather(limit, None);
        let unused = gathered.and_then(|all| Ok(all && self.disk.list_existing()?.is_empty()));
        let cleared = match unused {
            Ok(true) => self.disk.remove_slots(),
            other => other.map(|_| Cleared::InUse),
        };
        self.disk.keep_in_hand(0).and(cleared)
    }
}
