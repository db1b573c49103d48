//! The arrival of a task: it acquires the lock at once, or joins a cohort and waits.
//!
//! # The fast path
//!
//! The task tries the lock of the door, checks that the door is current, and *then* lists the
//! queue. If the queue is empty, the task enters without a ticket. Otherwise it gives the door back
//! and queues. In the other order, a newcomer could acquire the lock before a live waiter. If the
//! last look found a queue, the task also lists first, so that it does not disturb the first
//! waiter.
//!
//! A reader tries the shared lock, and only exclusive tickets are in its way. If readers of this
//! process are inside and no waiter is in the way, the reader enters with them, without the door.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use super::at_slots::{give_part_back, too_many};
use super::contender::Cause;
use super::core::{Arrived, Core, Others, Request};
use super::inside::Extent;
use super::possession::Possession;
use super::{Caller, Grant, Settings, Visit};
use crate::error::{Error, ErrorKind, Result};
use crate::fair::disk::{Admission, Disk, Entered};
use crate::fair::door::Door;
use crate::fair::ticket::queue::Other;
use crate::fair::ticket::{Mode, Ticket};
use crate::foreign::SafeWaker;
use crate::step::{self, Step};
use crate::trace::Note;

/// The result of the fast path.
pub(super) enum Fast {
    Granted(Grant),
    /// The record names a holder that came through another door.
    Elsewhere,
    /// Only `state` was locked, by a process that is dying.
    Dying,
    /// The door is locked, or a ticket is in the way.
    Refused,
}

impl Fast {
    fn into_grant(self) -> Option<Grant> {
        match self {
            Self::Granted(grant) => Some(grant),
            Self::Elsewhere | Self::Dying | Self::Refused => None,
        }
    }
}

/// A task that arrives.
pub(super) struct Arrival<'a> {
    pub(super) visit: Visit,
    /// The arrival is refused if this many wait already.
    pub(super) most: Option<usize>,
    pub(super) waker: &'a mut Option<SafeWaker>,
    /// See [`Core::known_tail`].
    pub(super) quiet: bool,
    pub(super) now: Instant,
}

impl Core {
    /// Acquires the lock at once, or joins a cohort and waits.
    pub(crate) fn enter(
        &mut self,
        settings: &Arc<Settings>,
        arrival: Arrival<'_>,
    ) -> Result<Arrived> {
        let Arrival {
            visit,
            most,
            waker,
            quiet,
            now,
        } = arrival;
        self.refuse_closed(settings)?;
        let Visit { want, by } = visit;
        self.refuse_impossible(want)?;
        let mut spare = None;
        self.listed = false;
        if let Some(grant) = self.acquire_at_once(settings, visit, quiet, &mut spare)? {
            return Ok(Arrived::Granted(grant));
        }
        if let Some(most) = most {
            let waiting = self.count_waiting(most, settings)?;
            // The count has reaped dead tickets, so the lock may be free after all.
            if waiting == 0
                && let Some(grant) = self.acquire_at_once(settings, visit, false, &mut spare)?
            {
                return Ok(Arrived::Granted(grant));
            }
            if waiting >= most {
                let text = format!("{waiting} already wait, and at most {most} may");
                return Err(Error::at(ErrorKind::Busy, text, &self.disk.place().door));
            }
        }
        self.refuse_deadlock(settings, by)?;
        let cohort = self.cohort_to_join(settings, want, quiet)?;
        let request = Request {
            settings: settings.clone(),
            want,
            by,
            token: 0,
            since: now,
        };
        let Some(key) = self.cohorts.join(cohort, request) else {
            return Err(self.confused());
        };
        self.drive(Cause::Local, spare);
        match self.poll(key, waker, now) {
            Poll::Ready(result) => result.map(Arrived::Granted),
            Poll::Pending => Ok(Arrived::Waiting(key)),
        }
    }

    /// Acquires the lock without waiting, if no waiter is in the way.
    fn acquire_at_once(
        &mut self,
        settings: &Arc<Settings>,
        visit: Visit,
        quiet: bool,
        spare: &mut Option<Door>,
    ) -> Result<Option<Grant>> {
        let want = visit.want;
        if let Mode::Permits(_) = want {
            return self.permits_at_once(settings, visit);
        }
        if self.is_idle() {
            return Ok(self.fast_path(settings, visit, spare)?.into_grant());
        }
        if want != Mode::Shared || !self.admits_readers() {
            return Ok(None);
        }
        if !self.knows_way_is_free(quiet) {
            self.look_for_others(settings.mode)?;
            // If readers of other processes queue, they may enter as well.
            self.share_if_wanted();
            if !self.others_admit_readers() {
                return Ok(None);
            }
        }
        Ok(self.join_at_once(settings, visit))
    }

    /// Returns whether readers are inside, or have offers, and no waiter of this process is in a
    /// reader's way.
    pub(super) fn admits_readers(&self) -> bool {
        self.all_waiters_have_offers() && self.admits(Mode::Shared)
    }

    /// Returns whether no task of this process waits without an offer.
    fn all_waiters_have_offers(&self) -> bool {
        self.cohorts.waiting() == self.cohorts.offered()
    }

    /// Takes permits, if enough are free and no process queues. As on the fast path of a door, it
    /// takes first and then lists.
    pub(super) fn permits_at_once(
        &mut self,
        settings: &Arc<Settings>,
        visit: Visit,
    ) -> Result<Option<Grant>> {
        self.tidy();
        let want = visit.want;
        let Mode::Permits(count) = want else {
            return Ok(None);
        };
        if !self.all_waiters_have_offers()
            || (self.saw_queue && is_in_the_way(self.disk.list_existing()?, want))
        {
            return Ok(None);
        }
        let reserved = self.reserved_permits();
        let taken = self.take_free_permits(settings, count, reserved);
        self.saw_queue = !matches!(taken, Ok(Some(_)));
        let Ok(Some(token)) = taken else {
            step::at(Step::GiveBack);
            let given = give_part_back(&mut self.disk, reserved);
            return taken.and(given.map(|()| None));
        };
        Ok(Some(self.possess_permits(token, visit, settings)))
    }

    /// Returns the token for the permits, which are in hand then. Returns `None` if too few are
    /// free or another process queues.
    fn take_free_permits(
        &mut self,
        settings: &Settings,
        count: u32,
        reserved: u32,
    ) -> Result<Option<u64>> {
        let wanted = reserved.saturating_add(count);
        let gather = |disk: &mut Disk| match disk.slots() {
            Some(slots) => slots.gather(wanted, settings.mode),
            None => Ok(false),
        };
        // The recorded limit may be higher by now.
        let gathered =
            gather(&mut self.disk)? || self.disk.adopt_limit()? && gather(&mut self.disk)?;
        if !gathered {
            return Ok(None);
        }
        step::at(Step::FastList);
        let own = self.own_tickets();
        let line = self.disk.list(settings.mode)?;
        if line.iter().any(|it| !own.contains(it)) {
            return Ok(None);
        }
        self.disk.mint(&settings.words, 0)
    }

    fn possess_permits(&mut self, token: u64, visit: Visit, settings: &Settings) -> Grant {
        self.counts.grants.add(1);
        let want = visit.want;
        let entered = Entered {
            token,
            predecessor_crashed: false,
        };
        let fresh = || Possession::new(None, entered, want, settings);
        let possession = self.possession.get_or_insert_with(fresh);
        possession.token = token;
        possession.reserved = token;
        possession.inside.add(want);
        possession.holders.push(visit.by);
        possession.label.clone_from(&settings.label);
        Grant {
            share: possession.share(want, &mut self.disk),
            visit,
            token,
            waited: None,
            predecessor_crashed: false,
        }
    }

    /// Returns whether the last look is still valid and found no ticket in a reader's way.
    fn knows_way_is_free(&self, quiet: bool) -> bool {
        quiet && self.last_look_holds() && self.others_admit_readers()
    }

    /// Returns whether the tickets of other processes leave the way free for a reader of this one.
    pub(super) fn others_admit_readers(&self) -> bool {
        match self.tail.others {
            Others::None => true,
            Others::OnlyReaders => self.extent() == Some(Extent::Share),
            Others::Any => false,
        }
    }

    /// Grants the lock to one more reader beside those that are inside.
    pub(super) fn join_at_once(&mut self, settings: &Settings, visit: Visit) -> Option<Grant> {
        let possession = self.possession.as_mut()?;
        possession.inside.add(visit.want);
        possession.holders.push(visit.by);
        possession.label.clone_from(&settings.label);
        let grant = Grant {
            share: possession.share(visit.want, &mut self.disk),
            visit,
            token: possession.token,
            waited: None,
            predecessor_crashed: std::mem::take(&mut possession.crashed),
        };
        self.counts.grants.add(1);
        self.counts.in_memory.add(1);
        self.reader_entered(grant.predecessor_crashed);
        Some(grant)
    }

    /// Fails if the handle is closed. It is called under the mutex, so that no wait begins after
    /// `close` has ended them all.
    pub(super) fn refuse_closed(&self, settings: &Settings) -> Result<()> {
        if settings.closed.load(Ordering::Acquire) {
            let door = &self.disk.place().door;
            return Err(Error::at(ErrorKind::Closed, "the lock was closed", door));
        }
        Ok(())
    }

    /// Returns whether a guard of this task or thread is out. Always `false` for permits, because a
    /// holder may want more of them.
    pub(super) fn is_held_by(&self, by: Caller) -> bool {
        let possession = self.possession.as_ref();
        let known = by != Caller::Unknown && self.disk.slots_seen().is_none();
        known && possession.is_some_and(|it| it.holders.contains(&by))
    }

    /// Reports a task or thread that holds the lock and is about to wait for it. Fails if the
    /// settings ask for that, and on a thread that blocks, because its wait could not end.
    fn refuse_deadlock(&mut self, settings: &Settings, by: Caller) -> Result<()> {
        if !self.is_held_by(by) {
            return Ok(());
        }
        self.notes.push(Note::WaitsForItself);
        if settings.deadlock_is_error || matches!(by, Caller::Thread(_)) {
            let text = "the caller holds this lock and would wait for itself";
            let path = &self.disk.place().door;
            return Err(Error::at(ErrorKind::Deadlock, text, path));
        }
        Ok(())
    }

    /// Fails for more permits than the limit, because that wait could not end.
    pub(super) fn refuse_impossible(&mut self, want: Mode) -> Result<()> {
        let (Mode::Permits(count), Some(slots)) = (want, self.disk.slots_seen()) else {
            return Ok(());
        };
        if (1..=slots.limit()).contains(&count) {
            return Ok(());
        }
        self.disk.adopt_limit()?;
        let limit = self.disk.slots_seen().map_or(0, |it| it.limit());
        if (1..=limit).contains(&count) {
            return Ok(());
        }
        Err(too_many(count, limit, &self.disk.place().door))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.possession.is_none() && self.cohorts.is_empty()
    }

    pub(super) fn confused(&self) -> Error {
        let text = "a cohort of waiting tasks has disappeared";
        Error::at(ErrorKind::Corrupt, text, &self.disk.place().door)
    }

    /// Enters without a ticket, if the door is free and no ticket is in the way. A door that was
    /// opened and not locked is left in `spare`: closing it would wake other waiters.
    pub(crate) fn fast_path(
        &mut self,
        settings: &Arc<Settings>,
        visit: Visit,
        spare: &mut Option<Door>,
    ) -> Result<Fast> {
        self.tidy();
        let want = visit.want;
        if self.saw_queue && is_in_the_way(self.disk.list_existing()?, want) {
            self.listed = true;
            return Ok(Fast::Refused);
        }
        let Some(door) = self.lock_current_door(settings, want, spare)? else {
            self.saw_queue = true;
            return Ok(Fast::Refused);
        };
        step::at(Step::FastList);
        let line = self.disk.list_if_changed(settings.mode);
        let admission = match line.map(|line| is_in_the_way(line, want)) {
            Ok(false) if want == Mode::Shared => self.disk.enter_shared(&door).map(Some),
            Ok(false) => self.disk.enter(&door, &settings.words).map(Some),
            other => other.map(|_| None),
        };
        match admission {
            Ok(Some(Admission::In(entered))) => {
                self.saw_queue = false;
                let grant = self.possess_at_once(door, visit, entered, settings);
                Ok(Fast::Granted(grant))
            }
            other => {
                self.saw_queue = true;
                step::at(Step::GiveBack);
                let left = door.leave().map_err(|e| self.io("unlock the lock file", e));
                let refused = match other? {
                    Some(Admission::Elsewhere) => Fast::Elsewhere,
                    Some(Admission::Dying) => Fast::Dying,
                    Some(Admission::In(_)) | None => Fast::Refused,
                };
                left.map(|()| refused)
            }
        }
    }

    /// Locks the door if it is free, and makes sure that it is current.
    pub(super) fn lock_current_door(
        &mut self,
        settings: &Settings,
        want: Mode,
        spare: &mut Option<Door>,
    ) -> Result<Option<Door>> {
        loop {
            step::at(Step::FastOpen);
            let path = &self.disk.place().door;
            let door =
                Door::open(path, settings.mode).map_err(|e| self.io("open the lock file", e))?;
            step::at(Step::FastTryDoor);
            if !door
                .try_lock(want == Mode::Shared)
                .map_err(|e| self.io("lock the lock file", e))?
            {
                *spare = Some(door);
                return Ok(None);
            }
            step::at(Step::FastCheck);
            let current = door.is_current(path);
            if current.as_ref().is_ok_and(|current| *current) {
                return Ok(Some(door));
            }
            let left = door.leave();
            current.map_err(|e| self.io("look at the lock file", e))?;
            left.map_err(|e| self.io("unlock the lock file", e))?;
        }
    }

    fn possess_at_once(
        &mut self,
        door: Door,
        visit: Visit,
        entered: Entered,
        settings: &Settings,
    ) -> Grant {
        self.counts.grants.add(1);
        self.note_crash(entered);
        let want = visit.want;
        let mut possession = Possession::new(Some(door), entered, want, settings);
        possession.inside.add(want);
        possession.holders.push(visit.by);
        possession.crashed = false;
        let grant = Grant {
            share: possession.share(want, &mut self.disk),
            visit,
            token: entered.token,
            waited: None,
            predecessor_crashed: entered.predecessor_crashed,
        };
        self.possession = Some(possession);
        if want == Mode::Shared {
            self.reader_entered(grant.predecessor_crashed);
        }
        grant
    }

    /// Returns how many wait: the tasks of this process, and the tickets of others. The owners of
    /// those tickets are checked only if the count reaches `most`, because that wakes the waiters
    /// behind them.
    pub(super) fn count_waiting(&mut self, most: usize, settings: &Settings) -> Result<usize> {
        let own: Vec<Ticket> = self.own_tickets();
        let line = self.disk.list(settings.mode)?;
        let others = line.iter().filter(|it| !own.contains(it));
        let others: Vec<_> = others.copied().collect();
        let mut count = others.len();
        if count + self.cohorts.waiting() >= most {
            let living = self.living(others)?;
            count = living.known + living.unknown.len();
        }
        Ok(count + self.cohorts.waiting())
    }

    /// Reaps the tickets of dead owners, and returns how many of the others remain.
    pub(super) fn living(&self, tickets: Vec<Ticket>) -> Result<Living> {
        let mut found = Living::default();
        for ticket in tickets {
            let Some(queue) = self.disk.open_queue() else {
                continue;
            };
            match queue.open_other(ticket)? {
                Other::Open(file) if queue.reap_if_dead(ticket, &file)? => {}
                Other::Open(_) => found.known += 1,
                Other::Gone => {}
                Other::Denied => found.unknown.push(queue.denied(ticket)),
            }
        }
        Ok(found)
    }

    pub(super) fn own_tickets(&self) -> Vec<Ticket> {
        let standing = self.cohorts.iter().filter_map(|it| it.ticket.as_ref());
        standing
            .chain(&self.leftovers)
            .map(|own| own.ticket)
            .collect()
    }
}

/// Returns whether a newcomer with this wish must wait for one of these tickets.
pub(super) fn is_in_the_way(line: &[Ticket], want: Mode) -> bool {
    line.iter().any(|it| it.mode.conflicts(want))
}

/// Tickets whose owners are not known to be dead.
#[derive(Default)]
pub(super) struct Living {
    pub(super) known: usize,
    /// For each ticket that this process may not open, the error that says so.
    pub(super) unknown: Vec<Error>,
}
