//! The ways to look at a lock or to take it without waiting: `try_enter`, `is_locked`, `status`, `remove`.
//!
//! # Invariants
//!
//! 1. `status` and `waiting` open no ticket, lock nothing and wake nobody.
//! 2. A refused `try_enter` leaves nothing behind: the line is listed before the door is touched, a missing queue is not made,
//!    and only the tickets of the dead are cleared away.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::disk::Cleared;
use super::super::door::Door;
use super::super::owner::identity;
use super::super::state::{self, Content};
use super::super::ticket::Ticket;
use super::super::ticket::queue::Queue;
use super::super::watch::watch;
use super::cohort::Key;
use super::contender::Contender;
use super::core::Core;
use super::{Grant, Settings};
use crate::error::{Error, Result};
use crate::fs::sys::host::{self, LockTable};
use crate::lock::{Owner, Status, Waiter, Waiting};

impl Core {
    /// Takes the lock if nobody holds it and nobody queues.
    pub(crate) fn try_enter(&mut self, settings: &Arc<Settings>) -> Result<Option<Grant>> {
        self.refuse_closed(settings)?;
        if self.possession.is_some() || self.cohorts.waiting() > 0 || self.anybody_queues()? {
            return Ok(None);
        }
        // The line has just been looked at.
        self.saw_line = false;
        self.fast_path(settings, &mut None)
    }

    /// Whether a live ticket stands in the directory; those of the dead are cleared away.
    fn anybody_queues(&mut self) -> Result<bool> {
        self.tidy();
        let line = self.disk.list_existing()?.to_vec();
        Ok(!self.living(line)?.is_empty())
    }

    /// Whether anybody holds the lock, whoever it is: asked of the operating system.
    pub(crate) fn is_locked(&mut self) -> Result<bool> {
        if self.possession.is_some() {
            return Ok(true);
        }
        let path = &self.disk.place().door;
        let at = |step, error| Error::io(step, path, error);
        let door = Door::open_existing(path).map_err(|e| at("open the lock file", e))?;
        let Some(door) = door else { return Ok(false) };
        let free = door.try_lock().map_err(|e| at("lock the lock file", e))?;
        if free {
            door.leave().map_err(|e| at("unlock the lock file", e))?;
        }
        Ok(!free)
    }

    /// Removes lock file and queue if nobody uses them.
    pub(crate) fn remove(&mut self) -> Result<Cleared> {
        self.disk.check_kind()?;
        if self.possession.is_some() || self.cohorts.waiting() > 0 || self.anybody_queues()? {
            return Ok(Cleared::InUse);
        }
        let place = self.disk.place().clone();
        let at = |step, error| Error::io(step, &place.door, error);
        let open = || Door::open_existing(&place.door).map_err(|e| at("open the lock file", e));
        let door = match open()? {
            Some(door) => door,
            None if !place.queue.exists() => return Ok(Cleared::Removed),
            None => Door::open(&place.door, None).map_err(|e| at("open the lock file", e))?,
        };
        if !door.try_lock().map_err(|e| at("lock the lock file", e))? {
            return Ok(Cleared::InUse);
        }
        let ready = door
            .is_current(&place.door)
            .map_err(|e| at("look at the lock file", e))
            .and_then(|current| Ok(current && self.disk.list(None)?.is_empty()));
        if let Ok(true) = ready {
            return self.disk.remove(door);
        }
        let left = door.leave().map_err(|e| at("unlock the lock file", e));
        ready.and(left).map(|()| Cleared::InUse)
    }

    /// Who holds, who waits.
    pub(crate) fn status(&mut self) -> Result<Status> {
        self.disk.check_kind()?;
        let record = self.disk.read_unlocked()?.unwrap_or_default();
        let (recorded, held) = match state::parse(&record) {
            Content::Ours(record) => (record.token, record.held),
            _ => (0, false),
        };
        let (holder, last_token) = match &self.possession {
            Some(possession) => {
                let since = SystemTime::now().checked_sub(possession.since.elapsed());
                let owner = identity().owner(possession.label.as_deref(), since);
                let holder = possession.is_claimed().then_some(owner);
                (holder, possession.token())
            }
            None => {
                let holder = state::holder(&record).filter(|it| held && !it.is_provably_gone());
                (holder.map(|it| it.owner), recorded)
            }
        };
        Ok(Status {
            holder,
            waiters: self.waiters()?,
            last_token,
            watch_failures: watch().failures(),
            polling: !self.events || self.contender.as_ref().is_some_and(Contender::is_polling),
        })
    }

    /// The line in order of service: first the tasks that get the lock in memory, then ticket by ticket.
    fn waiters(&self) -> Result<Vec<Waiter>> {
        let queue = Queue::open_existing(&self.disk.place().queue)?;
        let mut waiters = Vec::new();
        let in_possession = self.cohorts.iter().filter(|cohort| cohort.ticket.is_none());
        for cohort in in_possession {
            self.tasks_of(cohort.id, None, false, &mut waiters);
        }
        let Some(mut queue) = queue else {
            return Ok(waiters);
        };
        let line = queue.list()?.unwrap_or_default().to_vec();
        let locks = LockTable::read();
        for ticket in line {
            if self.leftovers.iter().any(|own| own.ticket == ticket) {
                continue;
            }
            let Some(found) = queue.find(ticket)? else {
                continue;
            };
            let own = |own: &super::super::ticket::queue::Own| own.ticket == ticket;
            let cohort = self
                .cohorts
                .iter()
                .find(|cohort| cohort.ticket.as_ref().is_some_and(own));
            match cohort {
                Some(cohort) => {
                    self.tasks_of(cohort.id, Some(ticket.number), found.marked, &mut waiters);
                }
                None => waiters.push(Waiter {
                    ticket: Some(ticket.number),
                    owner: Owner {
                        pid: host::lock_owner(found.id.device, found.id.inode, &locks),
                        since: arrival(ticket),
                        ..Owner::unknown()
                    },
                    passed_over: found.marked,
                    here: false,
                }),
            }
        }
        Ok(waiters)
    }

    fn tasks_of(
        &self,
        cohort: super::cohort::CohortId,
        ticket: Option<u64>,
        passed_over: bool,
        waiters: &mut Vec<Waiter>,
    ) {
        self.cohorts.for_each(cohort, |_, waiter| {
            let since = SystemTime::now().checked_sub(waiter.data.since.elapsed());
            waiters.push(Waiter {
                ticket,
                owner: identity().owner(waiter.data.settings.label.as_deref(), since),
                passed_over: passed_over || waiter.is_asleep(),
                here: true,
            });
        });
    }

    /// What a waiting task tells its caller.
    pub(crate) fn waiting(&mut self, key: Key) -> Option<Waiting> {
        let waiter = self.cohorts.get(key)?;
        let (cohort, waited) = (waiter.cohort, waiter.data.since.elapsed());
        let ticket = self
            .cohorts
            .cohort(cohort)
            .and_then(|it| it.ticket.as_ref())
            .map(|own| own.ticket);
        let earlier = self.cohorts.iter().take_while(|it| it.id != cohort);
        let here = earlier.map(|it| it.length).sum::<usize>() + self.cohorts.before(key);
        let holder = self.status().ok().and_then(|status| status.holder);
        Some(Waiting {
            place: 1 + here + self.foreign_before(ticket),
            holder,
            waited,
        })
    }

    /// Tickets of other processes before ours. Their cohorts count as one each.
    fn foreign_before(&self, ticket: Option<Ticket>) -> usize {
        let Some(ticket) = ticket else { return 0 };
        let Ok(Some(mut queue)) = Queue::open_existing(&self.disk.place().queue) else {
            return 0;
        };
        let line = queue.list().ok().flatten().unwrap_or_default();
        let ours = |it: &Ticket| {
            let standing = self.cohorts.iter().filter_map(|it| it.ticket.as_ref());
            standing.chain(&self.leftovers).any(|own| own.ticket == *it)
        };
        line.iter()
            .take_while(|it| **it < ticket)
            .filter(|it| !ours(it))
            .count()
    }
}

/// When a ticket was taken: its number is the monotonic clock then, unless others had pushed it up.
fn arrival(ticket: Ticket) -> Option<SystemTime> {
    let age = host::monotonic_ns().checked_sub(ticket.number)?;
    SystemTime::now().checked_sub(Duration::from_nanos(age))
}
