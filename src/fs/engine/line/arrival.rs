//! How a task comes: straight in when nobody is there, else to the cohort it belongs to.
//!
//! # The fast path
//!
//! Try-lock the door, see that it is the one the path means, *then* list: with an empty line the task enters without a ticket;
//! else the door is given back and the task queues. (List-then-lock would let a newcomer pass a live waiter.) When the
//! last look saw a line, it lists first as well, so as not to disturb those who knock.
//!
//! # Which cohort
//!
//! The last one, if its ticket is the last in the directory; the one in possession, if the directory is empty; else a new
//! one. From the second task on the queue directory is watched, and one question to the kernel tells that nobody has come
//! since the last look, which then still holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::super::disk::{Entered, TakePlace};
use super::super::door::Door;
use super::super::step::{self, Step};
use super::super::ticket::Ticket;
use super::super::watch::{Seen, watch};
use super::cohort::CohortId;
use super::contender::Cause;
use super::core::{Caller, Core, Entry};
use super::possession::{Occupant, Possession};
use super::{Grant, Settings};
use crate::error::{Error, ErrorKind, Result};

/// How a task comes.
pub(super) struct Arrival<'a> {
    /// Refuse when so many wait.
    pub(super) most: Option<usize>,
    pub(super) waker: &'a Waker,
    /// See [`Core::known_tail`].
    pub(super) quiet: bool,
    pub(super) now: Instant,
}

impl Core {
    /// A task arrives.
    pub(crate) fn enter(
        &mut self,
        settings: &Arc<Settings>,
        arrival: Arrival<'_>,
    ) -> Result<Entry> {
        let Arrival {
            most,
            waker,
            quiet,
            now,
        } = arrival;
        self.refuse_closed(settings)?;
        let mut spare = None;
        self.listed = false;
        if self.is_idle()
            && let Some(grant) = self.fast_path(settings, &mut spare)?
        {
            return Ok(Entry::Granted(grant));
        }
        if let Some(most) = most {
            let waiting = self.count_waiting(most, settings)?;
            // The dead have been cleared away by the count: the lock may be free after all.
            if waiting == 0
                && self.is_idle()
                && let Some(grant) = self.fast_path(settings, &mut spare)?
            {
                return Ok(Entry::Granted(grant));
            }
            if waiting >= most {
                let text = match most {
                    0 => "the lock is not free, and the caller does not wait".to_owned(),
                    _ => format!("{waiting} already wait, and at most {most} may"),
                };
                return Err(Error::at(ErrorKind::Busy, text, &self.disk.place().door));
            }
        }
        let cohort = self.cohort_to_join(settings, quiet)?;
        let caller = Caller {
            settings: settings.clone(),
            since: now,
        };
        let Some(key) = self.cohorts.join(cohort, caller) else {
            return Err(self.confused());
        };
        self.drive(Cause::Local, spare);
        match self.poll(key, waker, now) {
            Poll::Ready(result) => result.map(Entry::Granted),
            Poll::Pending => Ok(Entry::Waiting(key)),
        }
    }

    /// Asked under the mutex, so that no wait begins after `close` has ended them all.
    pub(super) fn refuse_closed(&self, settings: &Settings) -> Result<()> {
        if settings.closed.load(Ordering::Acquire) {
            let door = &self.disk.place().door;
            return Err(Error::at(ErrorKind::Closed, "the lock was closed", door));
        }
        Ok(())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.possession.is_none() && self.cohorts.is_empty()
    }

    pub(super) fn confused(&self) -> Error {
        let text = "a cohort of waiting tasks has disappeared";
        Error::at(ErrorKind::Corrupt, text, &self.disk.place().door)
    }

    /// Enters without a ticket if the door is free and nobody queues. A door that was opened and not locked is left in
    /// `spare`, since closing it would wake others.
    pub(crate) fn fast_path(
        &mut self,
        settings: &Arc<Settings>,
        spare: &mut Option<Door>,
    ) -> Result<Option<Grant>> {
        self.tidy();
        if self.saw_line && !self.disk.list_existing()?.is_empty() {
            self.listed = true;
            return Ok(None);
        }
        let Some(door) = self.lock_current_door(settings, spare)? else {
            self.saw_line = true;
            return Ok(None);
        };
        step::at(Step::FastList);
        let line = self.disk.list_if_changed(Some(door.mode()));
        let empty = line.map(<[_]>::is_empty);
        let entered = match empty {
            Ok(true) => self.disk.enter(&door, &settings.words),
            other => other.map(|_| None),
        };
        match entered {
            Ok(Some(entered)) => {
                self.saw_line = false;
                let grant = self.possess_at_once(door, entered, settings);
                Ok(Some(grant))
            }
            other => {
                self.saw_line = true;
                step::at(Step::GiveBack);
                let left = door.leave().map_err(|e| self.io("unlock the lock file", e));
                other.and(left).map(|()| None)
            }
        }
    }

    /// Locks the file that the path means, if nobody holds it.
    pub(super) fn lock_current_door(
        &mut self,
        settings: &Settings,
        spare: &mut Option<Door>,
    ) -> Result<Option<Door>> {
        loop {
            step::at(Step::FastOpen);
            let path = &self.disk.place().door;
            let door =
                Door::open(path, settings.mode).map_err(|e| self.io("open the lock file", e))?;
            step::at(Step::FastTryDoor);
            if !door
                .try_lock()
                .map_err(|e| self.io("lock the lock file", e))?
            {
                self.disk.share_like(&door);
                *spare = Some(door);
                return Ok(None);
            }
            step::at(Step::FastCheck);
            let current = door.is_current(path);
            if current.as_ref().is_ok_and(|current| *current) {
                self.disk.share_like(&door);
                return Ok(Some(door));
            }
            let left = door.leave();
            current.map_err(|e| self.io("look at the lock file", e))?;
            left.map_err(|e| self.io("unlock the lock file", e))?;
        }
    }

    pub(super) fn possess_at_once(
        &mut self,
        door: Door,
        entered: Entered,
        settings: &Settings,
    ) -> Grant {
        self.counts.grants.add(1);
        self.note_crash(entered);
        let possession = Possession::new(&door, entered, None, settings);
        self.possession = Some(Possession {
            crashed: false,
            occupant: Occupant::Guard,
            ..possession
        });
        Grant {
            door,
            token: entered.token,
            waited: None,
            predecessor_crashed: entered.predecessor_crashed,
        }
    }

    /// The cohort a newcomer belongs to.
    pub(super) fn cohort_to_join(
        &mut self,
        settings: &Arc<Settings>,
        quiet: bool,
    ) -> Result<CohortId> {
        if !self.is_idle() {
            if let Some(cohort) = self.known_tail(quiet) {
                return Ok(cohort);
            }
            if let Some(cohort) = self.look_at_tail(settings)? {
                self.tail.cohort = Some(cohort);
                return Ok(cohort);
            }
        }
        let place = match std::mem::take(&mut self.listed) {
            true => TakePlace::EndAsListed,
            false => TakePlace::End,
        };
        let ticket = self
            .disk
            .take_ticket(settings.mode, Some(&settings.words), place)?;
        let cohort = self.cohorts.add_cohort(Some(ticket));
        // Only a look made after the watch was set can be relied on.
        self.tail.cohort = None;
        Ok(cohort)
    }

    /// Our cohort that was last at the last look, if nothing has been queued since.
    ///
    /// `quiet` is the kernel's word that no event was on its way when this call began. It comes before the flag, which is set before
    /// the kernel can say so again; and before the mutex, because whoever queues after this call has begun is not
    /// before it.
    pub(super) fn known_tail(&self, quiet: bool) -> Option<CohortId> {
        let cohort = self.tail.cohort?;
        let last = self.cohorts.last().filter(|last| last.id == cohort)?;
        // Without a ticket it stands before everybody, so it must not grow while a sleeper is first.
        let passing = self
            .possession
            .as_ref()
            .is_some_and(|it| !it.passed.is_empty());
        let first = last.ticket.is_some() || (self.cohorts.count() == 1 && !passing);
        let same = first
            && quiet
            && self.tail.watch.is_some()
            && self.tail.opened == self.disk.opened()
            && !self.queue_changed.load(Ordering::SeqCst);
        same.then_some(cohort)
    }

    /// Looks who stands last: one of our cohorts, or the one in possession when nobody stands at all.
    pub(super) fn look_at_tail(&mut self, settings: &Arc<Settings>) -> Result<Option<CohortId>> {
        self.watch_queue(settings)?;
        let leftovers = &self.leftovers;
        let line = self.disk.list(settings.mode)?;
        let last = line
            .iter()
            .rfind(|ticket| leftovers.iter().all(|own| own.ticket != **ticket))
            .copied();
        let Some(last) = last else {
            return Ok(self.cohort_in_possession());
        };
        let ours = self.cohorts.last();
        let ours = ours.filter(|it| it.ticket.as_ref().is_some_and(|own| own.ticket == last));
        match ours.map(|it| it.id) {
            Some(ours) if self.somebody_came_late(ours)? => Ok(None),
            ours => Ok(ours),
        }
    }

    /// Whether a foreign ticket stands before this cohort although the cohort was first: it holds the door, or knocks. The other one had
    /// chosen his number before we came, and linked it after we had looked. We may go in before him, but who comes from
    /// now on comes after him.
    fn somebody_came_late(&self, ours: CohortId) -> Result<bool> {
        let holds = self.possession.as_ref().map(|it| it.cohort == Some(ours));
        let knocks = self
            .contender
            .as_ref()
            .map(|it| it.cohort == ours && it.is_first());
        let was_first = holds.unwrap_or(false) || knocks.unwrap_or(false);
        let Some(queue) = self.disk.open_queue().filter(|_| was_first) else {
            return Ok(false);
        };
        let own = self.own_tickets();
        let mine = self.cohorts.cohort(ours).and_then(|it| it.ticket.as_ref());
        let before = queue
            .line()
            .iter()
            .take_while(|it| mine.is_none_or(|own| **it < own.ticket));
        for ticket in before.filter(|it| !own.contains(it)) {
            if queue.is_unmarked(*ticket)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The cohort that holds the door; made when the first task joins it. None if another one of ours stands behind it.
    pub(super) fn cohort_in_possession(&mut self) -> Option<CohortId> {
        let possession = self.possession.as_mut()?;
        let known = possession.cohort;
        match (known, self.cohorts.last()) {
            (Some(known), Some(last)) => (last.id == known).then_some(known),
            (None, None) => {
                let fresh = self.cohorts.add_cohort(None);
                possession.cohort = Some(fresh);
                Some(fresh)
            }
            _ => None,
        }
    }

    /// From the second task of a process on, the queue directory is watched, so that most joins need no look.
    pub(super) fn watch_queue(&mut self, settings: &Settings) -> Result<()> {
        if self.queue_changed.swap(false, Ordering::SeqCst) {
            self.tail.watch = None;
        }
        // A removed directory announces nothing as long as anybody has it open.
        if self.tail.opened != self.disk.opened()
            && let Some(id) = self.tail.watch.take()
        {
            watch().forget(self.seat, id);
        }
        if self.tail.watch.is_some() || !self.events {
            return Ok(());
        }
        // Opens the directory if it is not open yet.
        self.disk.list(settings.mode)?;
        self.tail.opened = self.disk.opened();
        let directory = self.disk.open_queue().and_then(|it| it.dir().descriptor());
        if let Some(directory) = directory {
            self.tail.watch = watch().add(self.seat, directory, Seen::Queue).ok();
            self.tail_watched
                .store(self.tail.watch.is_some(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many wait: the tasks of this process, and the tickets of others. Those are counted as living unless that makes too
    /// many, because to ask them wakes whoever stands behind.
    pub(super) fn count_waiting(&mut self, most: usize, settings: &Settings) -> Result<usize> {
        let own: Vec<Ticket> = self.own_tickets();
        let line = self.disk.list(settings.mode)?;
        let others = line.iter().filter(|it| !own.contains(it));
        let mut others: Vec<_> = others.copied().collect();
        if others.len() + self.cohorts.waiting() >= most {
            others = self.living(others)?;
        }
        Ok(others.len() + self.cohorts.waiting())
    }

    /// Those of these tickets whose owners live; the others are cleared away.
    pub(super) fn living(&self, tickets: Vec<Ticket>) -> Result<Vec<Ticket>> {
        let mut living = Vec::new();
        for ticket in tickets {
            if let Some(queue) = self.disk.open_queue()
                && let Some(file) = queue.open_other(ticket)?
                && !queue.reap_if_dead(ticket, &file)?
            {
                living.push(ticket);
            }
        }
        Ok(living)
    }

    pub(super) fn own_tickets(&self) -> Vec<Ticket> {
        let standing = self.cohorts.iter().filter_map(|it| it.ticket.as_ref());
        standing
            .chain(&self.leftovers)
            .map(|own| own.ticket)
            .collect()
    }
}
