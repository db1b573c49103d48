//! The arrival of a task: it acquires the lock at once, or joins a cohort and waits.
//!
//! A task that arrives first tries the lock of the door, checks that the door is current, and
//! *then* lists the queue. If no ticket is in its way, the task enters without one. Otherwise it
//! gives the door back and queues. In the other order, a newcomer could acquire the lock before a
//! live waiter. If the last look found a queue, the task also lists first, so that it does not
//! disturb the first waiter.
//!
//! A task that queues joins the last cohort of this process, if the ticket of that cohort is the
//! last in the directory and asks for all that the task wants. An exclusive ticket conflicts with
//! all others, so any task may share it. A shared ticket conflicts with writers only, so only
//! readers may share it. If the directory is empty, and the process has the whole lock, the task
//! joins the cohort that is served. Otherwise it takes a new ticket and starts a new cohort.
//! Looking and joining are one step under the mutex.
//!
//! [`Line::try_enter`] does not wait, and leaves nothing behind if it is refused. It lists the queue
//! before it touches the door, creates no queue, and removes only the tickets of dead owners.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::{Cause, Cohort, CohortId, Core, Fast, Line, Request};
use crate::backend;
use crate::door::Door;
use crate::error::{Error, ErrorKind, Result};
use crate::fair::disk::{Admission, TakePlace};
use crate::fair::queue_dir::Reaped;
use crate::fair::ticket::{Mode, Ticket};
use crate::fair::{Arrived, Caller, Grant, Settings, Want};
use crate::foreign::SafeWaker;
use crate::step::{self, Step};
use crate::trace::Note;

/// How often a locked door is tried while the record names no holder.
const TRIES: usize = 16;

impl Line {
    /// Acquires the lock at once, or begins to wait. The key of a wait must be polled or cancelled.
    pub(in crate::fair) fn enter(
        &self,
        settings: &Arc<Settings>,
        mode: Mode,
        asked: &backend::Request,
        waker: &Waker,
    ) -> Result<Arrived> {
        self.refuse_foreign()?;
        let mut waker = Some(SafeWaker::of(waker));
        let by = asked.thread.map_or_else(Caller::of_here, Caller::Thread);
        let request = Request {
            settings,
            want: Want { mode, by },
            most: asked.max_waiting,
            quiet: self.flags.are_quiet(),
            now: asked.now(),
        };
        let enter = |core: &mut Core| core.enter(&request, &mut waker);
        let (arrived, armed) = self.with_room(enter);
        match (arrived?, armed) {
            (Arrived::Waiting(key), Err(error)) => {
                self.cancel(key);
                Err(error)
            }
            (arrived, _) => Ok(arrived),
        }
    }

    /// Acquires the lock if that needs no wait.
    pub(in crate::fair) fn try_enter(
        &self,
        settings: &Arc<Settings>,
        mode: Mode,
    ) -> Result<Option<Grant>> {
        self.refuse_foreign()?;
        let by = Caller::of_here();
        let request = Request {
            settings,
            want: Want { mode, by },
            most: None,
            quiet: false,
            now: Instant::now(),
        };
        self.with_room(|core| core.try_enter(&request)).0
    }
}

impl Core {
    /// Acquires the lock at once, or joins a cohort and waits. Takes the waker if it must be kept.
    fn enter(&mut self, request: &Request<'_>, waker: &mut Option<SafeWaker>) -> Result<Arrived> {
        let Request { settings, want, .. } = *request;
        self.refuse_closed(settings)?;
        self.refuse_impossible(want.mode)?;
        self.disk.prepare(settings.bits)?;
        let mut fast = self.acquire_at_once(request, request.quiet)?;
        if let (false, Some(most)) = (matches!(fast, Fast::Granted(_)), request.most) {
            let waiting = self.count_waiting(most, settings)?;
            // The count has reaped dead tickets, so the lock may be free after all.
            if waiting == 0 {
                fast = self.acquire_at_once(request, false)?;
            }
            if waiting >= most && !matches!(fast, Fast::Granted(_)) {
                let text = format!("{waiting} already wait, and at most {most} may");
                return Err(self.error(ErrorKind::Busy, text));
            }
        }
        let (spare, listed) = match fast {
            Fast::Granted(grant) => return Ok(Arrived::Granted(grant)),
            Fast::Locked(door) => (Some(door), false),
            Fast::Queued => (None, true),
            Fast::Elsewhere | Fast::Dying | Fast::Refused => (None, false),
        };
        self.refuse_deadlock(settings, want.by)?;
        let cohort = self.cohort_to_join(request, listed)?;
        let key = self.cohorts.join(cohort, want, settings, request.now);
        let key = key.ok_or_else(|| self.confused())?;
        self.drive(Cause::Local, spare);
        match self.poll(key, waker, request.now) {
            Poll::Ready(result) => result.map(Arrived::Granted),
            Poll::Pending => Ok(Arrived::Waiting(key)),
        }
    }

    /// Fails for more permits than the limit.
    fn refuse_impossible(&mut self, mode: Mode) -> Result<()> {
        let Mode::Permits(count) = mode else {
            return Ok(());
        };
        if self.disk.slots().is_none() || self.disk.check_count(count).is_ok() {
            return Ok(());
        }
        self.adopt_limit()?;
        self.disk.check_count(count)
    }

    /// Acquires the lock without waiting, if no waiter is in the way.
    fn acquire_at_once(&mut self, request: &Request<'_>, quiet: bool) -> Result<Fast> {
        match request.want.mode {
            Mode::Permits(count) => self.permits_at_once(request, count),
            _ if self.is_at_rest() => self.fast_path(request),
            Mode::Shared => self.join_readers_at_once(request, quiet),
            Mode::Exclusive => Ok(Fast::Refused),
        }
    }

    /// Enters without a ticket, if the door is free and no ticket is in the way.
    fn fast_path(&mut self, request: &Request<'_>) -> Result<Fast> {
        let Request { settings, want, .. } = *request;
        self.tidy();
        if self.saw_queue && is_in_the_way(self.disk.list_existing()?, want.mode) {
            return Ok(Fast::Queued);
        }
        self.saw_queue = true;
        let door = match self.lock_current_door(settings, want.mode)? {
            Ok(door) => door,
            Err(locked) => return Ok(Fast::Locked(locked)),
        };
        step::at(Step::FastList);
        let line = self.disk.list_if_changed(settings.bits);
        let admission = match line.map(|line| is_in_the_way(line, want.mode)) {
            Ok(false) if want.mode == Mode::Shared => self.disk.enter_shared(&door).map(Some),
            Ok(false) => self.disk.enter(&door, &settings.words).map(Some),
            other => other.map(|_| None),
        };
        if let Ok(Some(Admission::In(entered))) = admission {
            self.saw_queue = false;
            self.possess(Some(door), entered, want.mode);
            return Ok(self.grant_at_once(request, false));
        }
        step::at(Step::GiveBack);
        let left = self.disk.place().leave(door);
        let refused = match admission? {
            Some(Admission::Elsewhere) => Fast::Elsewhere,
            Some(Admission::Dying) => Fast::Dying,
            Some(Admission::In(_)) | None => Fast::Refused,
        };
        left.map(|()| refused)
    }

    /// Makes the grant of a newcomer that may enter.
    pub(super) fn grant_at_once(&mut self, request: &Request<'_>, in_memory: bool) -> Fast {
        let offer = self.admit(request.want.mode, in_memory);
        match self.grant(request.want, offer, request.settings) {
            Some(grant) => {
                self.reader_entered(&grant);
                Fast::Granted(grant)
            }
            None => Fast::Refused,
        }
    }

    /// Locks the door if it is free, and makes sure that it is current. The inner result is the
    /// locked door, or as `Err` the open door that another process has locked.
    fn lock_current_door(
        &mut self,
        settings: &Settings,
        mode: Mode,
    ) -> Result<std::result::Result<Door, Door>> {
        loop {
            step::at(Step::FastOpen);
            let place = self.disk.place();
            let door = place.open_door(settings.bits)?;
            step::at(Step::FastTryDoor);
            if !place.try_lock(&door, mode == Mode::Shared)? {
                return Ok(Err(door));
            }
            step::at(Step::FastCheck);
            let current = place.is_current(&door);
            if let Ok(true) = current {
                return Ok(Ok(door));
            }
            let left = place.leave(door);
            current.and(left)?;
        }
    }

    /// Returns the cohort for a newcomer. Creates it if necessary. `listed` says that the queue has
    /// just been listed.
    fn cohort_to_join(&mut self, request: &Request<'_>, listed: bool) -> Result<CohortId> {
        let Request { settings, want, .. } = *request;
        let mode = want.mode;
        if !self.is_at_rest() {
            if let Some(cohort) = self.known_tail(request.quiet)
                && self.cohorts.cohort(cohort).is_some_and(|it| it.takes(mode))
            {
                return Ok(cohort);
            }
            if let Some(cohort) = self.look_at_tail(settings, mode)? {
                self.tail.ends_with(Some(cohort));
                return Ok(cohort);
            }
        }
        let place = match listed {
            true => TakePlace::EndAsListed,
            false => TakePlace::End,
        };
        let ticket = self.disk.take_ticket(mode, Some(settings), place)?;
        self.tail.ends_with(None);
        Ok(self.cohorts.add(Some(ticket), mode))
    }

    /// Returns the cohort of this process that was last at the last look, if no ticket has come
    /// since.
    fn known_tail(&self, quiet: bool) -> Option<CohortId> {
        let cohort = self.tail.cohort(quiet, &self.disk)?;
        let last = self.cohorts.last().filter(|last| last.id() == cohort)?;
        // A cohort without a ticket is before all others. So it must not grow while a bypassed
        // waiter is first.
        let possession = self.possession.as_ref();
        let bypasses = possession.is_some_and(|it| !it.bypassed().is_empty());
        let alone = self.cohorts.iter().nth(1).is_none();
        (last.ticket().is_some() || (alone && !bypasses)).then_some(cohort)
    }

    /// Looks at the queue. Returns the cohort whose ticket is the last, or the one that is served
    /// if there is no ticket. Returns `None` if a newcomer with this mode must not join it.
    fn look_at_tail(&mut self, settings: &Settings, mode: Mode) -> Result<Option<CohortId>> {
        self.watch_tail(settings.bits)?;
        let leftovers = &self.leftovers;
        let line = self.disk.list(settings.bits)?;
        let stands = |ticket: &&Ticket| leftovers.iter().all(|own| own.ticket != **ticket);
        let Some(last) = line.iter().rfind(stands).copied() else {
            return Ok(self.cohort_served_alone());
        };
        let ours = self
            .cohorts
            .last()
            .filter(|it| it.takes(mode) && it.ticket().is_some_and(|own| own.ticket == last));
        match ours.map(Cohort::id) {
            Some(ours) if self.a_ticket_came_late(ours)? => Ok(None),
            ours => Ok(ours),
        }
    }

    /// Returns whether a ticket of another process is before this cohort although the cohort was
    /// first: it has the lock or tries it. The other process chose its number before we queued,
    /// and linked the ticket after we looked. The cohort may still enter first, but newcomers must
    /// come after that ticket.
    fn a_ticket_came_late(&self, ours: CohortId) -> Result<bool> {
        let contender = self.contender.as_ref();
        let tries = contender.is_some_and(|it| it.cohort() == ours && it.is_first());
        let was_first = tries || self.cohort_served() == Some(ours);
        let Some(queue) = self.disk.open_queue().filter(|_| was_first) else {
            return Ok(false);
        };
        let own = self.own_tickets();
        let mine = self.cohorts.ticket(ours).map(|own| own.ticket);
        let earlier =
            |it: &&Ticket| mine.is_none_or(|own| **it < own && it.mode.conflicts(own.mode));
        let before = queue.tickets().iter().filter(earlier);
        for ticket in before.filter(|it| !own.contains(it)) {
            if queue.is_unmarked(*ticket)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the cohort that is served, if this process has the whole lock. Creates it when the
    /// first task joins. Returns `None` if another cohort of this process is behind it.
    fn cohort_served_alone(&mut self) -> Option<CohortId> {
        // Where others can enter, the cohort needs a ticket.
        let whole = self.has_whole();
        let possession = self.possession.as_mut().filter(|_| whole)?;
        match (possession.cohort(), self.cohorts.last()) {
            (Some(known), Some(last)) => (last.id() == known).then_some(known),
            (None, None) => {
                let fresh = self.cohorts.add(None, Mode::Exclusive);
                possession.serve(Some(fresh));
                Some(fresh)
            }
            _ => None,
        }
    }

    /// Returns how many wait: the tasks of this process, and the tickets of others. The owners of
    /// those tickets are checked only if the count reaches `most`, because that wakes the waiters
    /// behind them.
    fn count_waiting(&mut self, most: usize, settings: &Settings) -> Result<usize> {
        let own = self.own_tickets();
        let line = self.disk.list(settings.bits)?;
        let others = line.iter().filter(|it| !own.contains(it));
        let others: Vec<_> = others.copied().collect();
        let mut count = others.len();
        if count + self.cohorts.waiting() >= most {
            let (known, unknown) = self.living(others)?;
            count = known + unknown.len();
        }
        Ok(count + self.cohorts.waiting())
    }

    /// Reaps the tickets of dead owners. Returns how many owners live, and for each ticket that
    /// this process may not open, the error that says so.
    fn living(&self, tickets: Vec<Ticket>) -> Result<(usize, Vec<Error>)> {
        let (mut known, mut unknown) = (0, Vec::new());
        let Some(queue) = self.disk.open_queue() else {
            return Ok((known, unknown));
        };
        for ticket in tickets {
            match queue.reap_dead(ticket)? {
                Reaped::Gone => {}
                Reaped::Alive => known += 1,
                Reaped::Denied(error) => unknown.push(error),
            }
        }
        Ok((known, unknown))
    }

    /// Reports a task or thread that holds the lock and is about to wait for it. Fails if the
    /// settings ask for that, and on a thread that blocks, because its wait could not end.
    fn refuse_deadlock(&mut self, settings: &Settings, by: Caller) -> Result<()> {
        if !self.is_held_by(by) {
            return Ok(());
        }
        self.effects.note(Note::WaitsForItself);
        if settings.deadlock_is_error || matches!(by, Caller::Thread(_)) {
            let text = "the caller holds this lock and would wait for itself";
            return Err(self.error(ErrorKind::Deadlock, text));
        }
        Ok(())
    }

    /// Acquires the lock if it is free and no waiter is in the way.
    fn try_enter(&mut self, request: &Request<'_>) -> Result<Option<Grant>> {
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
        let left = self.disk.place().leave(door);
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
        Ok(self.grant_at_once(request, true))
    }

    /// Returns whether a ticket of another process is in the way. Tickets of dead owners are
    /// reaped. Fails if the answer depends on a ticket that this process may not open.
    pub(super) fn others_queue(&mut self, want: Mode) -> Result<bool> {
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
}

/// Returns whether a newcomer with this mode must wait for one of these tickets.
pub(super) fn is_in_the_way(line: &[Ticket], mode: Mode) -> bool {
    line.iter().any(|it| it.mode.conflicts(mode))
}
