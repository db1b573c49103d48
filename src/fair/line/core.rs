//! The state of one lock in one process. Everything happens under the mutex of its
//! [`Line`](super::Line), one call at a time, and no call waits.
//!
//! This file has the waiting tasks and the events. The other parts:
//!
//! - [`arrival`](super::arrival): how a task arrives
//! - [`turn`](super::turn): which cohort contends on disk, by its [`contender`](super::contender)
//! - [`possession`](super::possession): the lock in this process
//! - [`loss`](super::loss): how a holder learns of a loss
//! - [`look`](super::look): calls that do not wait
//! - [`report`](super::report): counters and notes
//!
//! # Algorithm
//!
//! The process is *out* (no task here holds the door) or *in possession* of it. While it is out,
//! the first cohort with an awake waiter has a [`Contender`] in the queue on disk. When the
//! contender has entered, the process is in possession, and the lock goes from task to task of the
//! cohort as an *offer*. The first task that is awake gets the offer. It claims the offer when it
//! is polled. If its future is dropped, or a claim window goes by, the offer goes to the next task.
//! When the cohort is empty, or all its waiters are frozen, the process leaves.
//!
//! A task that arrives joins the last cohort, if the ticket of that cohort is still the last in the
//! directory, or if the cohort is in possession and the directory is empty. Otherwise it takes a
//! new ticket and starts a new cohort. Looking and joining are one step under the mutex.
//!
//! # Invariants
//!
//! 1. `possession` is set exactly while a guard or an offer of this process has the lock.
//! 2. By guards and offers, one writer or any number of readers are inside. They share the door's
//!    descriptor.
//! 3. A cohort with waiters has a ticket, or is the cohort in possession.
//! 4. A ticket is removed only after its last waiter has its guard (`leftovers`) or has left.
//! 5. A crash that was found is reported to exactly one guard, or stays on disk.
//!
//! # Fairness
//!
//! First come, first served, over all tasks of all processes, except that frozen waiters are
//! bypassed until they wake.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Instant;

use super::agenda::Agenda;
use super::bypass::unmark;
use super::cohort::{CohortId, Cohorts, Key, Waiter};
use super::contender::{Cause, Contender};
use super::inside::Extent;
use super::possession::Possession;
use super::wakes::Wakes;
use super::{Caller, Grant, Settings, Visit};
use crate::error::{Error, Result};
use crate::fair::disk::Disk;
use crate::fair::ticket::Mode;
use crate::fair::ticket::queue::Own;
use crate::foreign::SafeWaker;
use crate::stats::{Counts, counts_of};
use crate::step::{self, Step};
use crate::trace::Notes;
use crate::watch::{Seen, WatchId, WatcherId, watch};

/// What a waiting task brings along.
pub(crate) struct Request {
    pub(crate) settings: Arc<Settings>,
    pub(crate) want: Mode,
    pub(crate) by: Caller,
    /// The token of its offer.
    pub(crate) token: u64,
    pub(crate) since: Instant,
}

/// The result of an arrival.
pub(crate) enum Arrived {
    Granted(Grant),
    Waiting(Key),
}

/// The last look at the queue, as far as it saves the next one.
#[derive(Default)]
pub(super) struct Tail {
    /// The cohort of this process that was last.
    pub(super) cohort: Option<CohortId>,
    pub(super) watch: Option<WatchId>,
    /// Which opening of the directory is watched.
    pub(super) opened: u64,
    /// The tickets of other processes.
    pub(super) others: Others,
}

/// Which tickets of other processes are in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Others {
    /// Tickets of any mode, or it is not known.
    #[default]
    Any,
    OnlyReaders,
    None,
}

pub(crate) struct Core {
    pub(super) disk: Disk,
    pub(super) cohorts: Cohorts<Request>,
    pub(super) possession: Option<Possession>,
    pub(super) contender: Option<Contender>,
    /// Failed waits whose tasks have not been polled yet.
    pub(super) failures: Vec<(Key, Error)>,
    /// Tickets that are no longer needed.
    pub(super) leftovers: Vec<Own>,
    pub(super) agenda: Agenda,
    /// Counts offers. So a tick knows whether the offer that it saw is still unclaimed.
    pub(super) offers: u64,
    pub(super) lapsing: Option<u64>,
    pub(super) cohort_woken: bool,
    /// Whether the contender has locked the door and not entered yet.
    pub(super) door_locked: bool,
    pub(super) saw_queue: bool,
    /// Whether the queue was listed in this very call.
    pub(super) listed: bool,
    pub(super) tail: Tail,
    /// Set by the watch thread when the queue directory changes.
    pub(super) queue_changed: Arc<AtomicBool>,
    /// Whether the queue directory is watched. Only then it is worthwhile to ask the kernel for
    /// `quiet`.
    pub(super) tail_watched: Arc<AtomicBool>,
    /// Whether readers of this process are inside under a whole lock. If another process queues,
    /// the lock must be shared at once.
    pub(super) shareable: Arc<AtomicBool>,
    pub(super) lost_wakers: Vec<SafeWaker>,
    pub(super) watcher_id: WatcherId,
    /// Whether file events can be expected here.
    pub(super) events: bool,
    pub(super) wakes: Wakes,
    pub(super) counts: Arc<Counts>,
    /// Reported after the mutex is free.
    pub(super) notes: Notes,
}

impl Core {
    pub(crate) fn new(disk: Disk, watcher_id: WatcherId, events: bool) -> Self {
        Self {
            disk,
            cohorts: Cohorts::new(),
            possession: None,
            contender: None,
            failures: Vec::new(),
            leftovers: Vec::new(),
            agenda: Agenda::new(),
            offers: 0,
            lapsing: None,
            cohort_woken: false,
            door_locked: false,
            saw_queue: false,
            listed: false,
            tail: Tail::default(),
            queue_changed: Arc::default(),
            tail_watched: Arc::default(),
            shareable: Arc::default(),
            lost_wakers: Vec::new(),
            watcher_id,
            events,
            wakes: Wakes::default(),
            counts: counts_of(None),
            notes: Notes::default(),
        }
    }

    pub(super) fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Error::io(step, &self.disk.place().door, error)
    }

    /// Polls a waiting task. Takes its waker if the waker must be kept.
    pub(crate) fn poll(
        &mut self,
        key: Key,
        waker: &mut Option<SafeWaker>,
        now: Instant,
    ) -> Poll<Result<Grant>> {
        self.continue_entry();
        if self.cohorts.note_poll(key) {
            self.unmark_cohort_of(key);
            self.settle();
        }
        // This comes after the drives, which may end this very wait.
        if let Some(error) = self.take_failure(key) {
            return Poll::Ready(Err(error));
        }
        if self.cohorts.get(key).is_some_and(Waiter::has_offer) {
            return self
                .claim(key, now)
                .map_or(Poll::Pending, |grant| Poll::Ready(Ok(grant)));
        }
        if let Some(waiter) = self.cohorts.get_mut(key)
            && let Some(waker) = waker.take()
        {
            let old = waiter.waker.replace(waker);
            self.wakes.discard(old);
        }
        Poll::Pending
    }

    /// Unmarks the ticket of a waiter that is awake again: its cohort is first from now on. This is
    /// needed also while the process has the lock for a later cohort. Otherwise the next process
    /// would still bypass the ticket when this one leaves.
    fn unmark_cohort_of(&mut self, key: Key) {
        let cohort = self.cohorts.get(key).map(|it| it.cohort);
        let cohort = cohort.and_then(|it| self.cohorts.cohort(it));
        if let Some(own) = cohort.and_then(|it| it.ticket.as_ref()) {
            // The contender of this cohort looks at the mark again.
            let _ = unmark(own, &self.disk);
        }
    }

    pub(super) fn take_failure(&mut self, key: Key) -> Option<Error> {
        let index = self
            .failures
            .iter()
            .position(|(failed, _)| *failed == key)?;
        Some(self.failures.swap_remove(index).1)
    }

    /// Turns the offer into a guard. It must not touch the disk, so the ticket is removed later.
    fn claim(&mut self, key: Key, now: Instant) -> Option<Grant> {
        let waiter = self.cohorts.leave(key)?;
        self.wakes.discard(waiter.waker);
        let possession = self.possession.as_mut()?;
        step::at(Step::Grant);
        if possession.inside.count() == 1 {
            possession.since = now;
        }
        possession.label.clone_from(&waiter.data.settings.label);
        let want = waiter.data.want;
        let by = waiter.data.by;
        possession.holders.push(by);
        let grant = Grant {
            share: possession.share(want, &mut self.disk),
            visit: Visit { want, by },
            token: waiter.data.token,
            waited: Some(now.saturating_duration_since(waiter.data.since)),
            predecessor_crashed: std::mem::take(&mut possession.crashed),
        };
        self.counts.grants.add(1);
        self.counts.in_memory.add(u64::from(possession.in_memory));
        if let Some(waited) = grant.waited {
            self.counts.waited(waited);
        }
        self.cohort_woken = false;
        let shared = possession.hold.extent() == Some(Extent::Share);
        self.ticket_done(waiter.cohort, shared, now);
        if want == Mode::Shared {
            self.reader_entered(grant.predecessor_crashed);
        }
        Some(grant)
    }

    /// Releases the ticket of a cohort that is empty. If the lock is `shared`, readers of other
    /// processes may wait behind the ticket, so it is removed at once.
    fn ticket_done(&mut self, id: CohortId, shared: bool, now: Instant) {
        let holds = self.holds_for(id);
        let Some(cohort) = self.cohorts.cohort_mut(id).filter(|it| it.length == 0) else {
            return;
        };
        if let Some(ticket) = cohort.ticket.take() {
            self.leftovers.push(ticket);
            self.agenda.claimed(now);
        }
        if !holds {
            self.cohorts.remove_cohort(id);
        }
        if shared {
            self.tidy();
        }
    }

    /// Notes that a reader has its guard. If the guard has `reported` a crash, the flag on disk is
    /// cleared. If that fails, the crash is reported again.
    pub(super) fn reader_entered(&mut self, reported: bool) {
        if reported {
            let _ = self.set_flag(false);
        }
        self.share_if_wanted();
    }

    /// Returns whether this is the cohort in possession.
    fn holds_for(&self, id: CohortId) -> bool {
        let possession = self.possession.as_ref();
        possession.is_some_and(|it| it.cohort == Some(id))
    }

    /// Ends a wait whose future is dropped.
    pub(crate) fn cancel(&mut self, key: Key) {
        if self.take_failure(key).is_some() {
            return;
        }
        let Some(mut waiter) = self.cohorts.leave(key) else {
            return;
        };
        self.wakes.discard(waiter.waker.take());
        self.counts.abandoned.add(1);
        if waiter.has_offer()
            && let Some(possession) = &mut self.possession
        {
            possession.inside.remove(waiter.data.want);
        }
        self.drop_if_empty(waiter.cohort);
        self.settle();
        self.cohorts.shrink();
    }

    /// Removes a cohort that is empty. Of the cohort in possession it removes only the ticket.
    pub(super) fn drop_if_empty(&mut self, id: CohortId) {
        let holds = self.holds_for(id);
        let Some(cohort) = self.cohorts.cohort_mut(id).filter(|it| it.length == 0) else {
            return;
        };
        if holds {
            self.leftovers.extend(cohort.ticket.take());
            self.tidy();
            return;
        }
        if self.contender.as_ref().is_some_and(|it| it.cohort == id) {
            self.retire();
        }
        self.leftovers.extend(self.cohorts.remove_cohort(id));
        self.tidy();
    }

    pub(super) fn retire(&mut self) {
        if let Some(contender) = self.contender.take() {
            contender.retire();
        }
    }

    /// Ends the wait of a task with an error.
    pub(super) fn fail(&mut self, key: Key, error: Error) {
        if let Some(waiter) = self.cohorts.leave(key) {
            self.counts.abandoned.add(1);
            self.failures.push((key, error));
            waiter.waker.into_iter().for_each(|it| self.wakes.push(it));
            self.drop_if_empty(waiter.cohort);
        }
    }

    /// Ends the waits of one handle and its clones.
    pub(crate) fn close(&mut self, closed: &Arc<AtomicBool>, error: impl Fn() -> Error) {
        let mut keys = Vec::new();
        let cohorts: Vec<_> = self.cohorts.iter().map(|cohort| cohort.id).collect();
        for cohort in cohorts {
            self.cohorts.for_each(cohort, |key, waiter| {
                if Arc::ptr_eq(&waiter.data.settings.closed, closed) {
                    keys.push(key);
                }
            });
        }
        for key in keys {
            let waker = self.cohorts.get_mut(key).and_then(|it| it.waker.take());
            self.cancel(key);
            self.failures.push((key, error()));
            waker.into_iter().for_each(|it| self.wakes.push(it));
        }
    }

    /// Removes the tickets whose tasks have their guards.
    pub(crate) fn tidy(&mut self) {
        self.agenda.tidied(!self.leftovers.is_empty());
        while let Some(own) = self.leftovers.pop() {
            self.disk.give_up(own);
        }
    }

    pub(crate) fn on_event(&mut self, id: WatchId) {
        match id.seen {
            Seen::Predecessor | Seen::Door => {
                if self.contender.as_mut().is_some_and(|it| it.fired(id)) {
                    self.drive(Cause::Event, None);
                }
            }
            Seen::Held => self.look_for_loss(true),
            // Observers and other locks handle these; `Line::on_event` handles `Queue`.
            Seen::Queue | Seen::Line | Seen::Record => {}
            Seen::Claim | Seen::Baton | Seen::Process => {}
            Seen::Everything => {
                self.look_for_loss(false);
                if let Some(contender) = &mut self.contender {
                    contender.forget_watches();
                }
                self.drive(Cause::Event, None);
            }
        }
    }

    pub(crate) fn on_timer(&mut self) {
        let now = Instant::now();
        let due = self.agenda.take(now);
        if due.tidy {
            self.tidy();
        }
        if due.rest {
            match self.is_at_rest() {
                true => self.disk.drop_spares(),
                false => self.agenda.rest_when_idle(),
            }
        }
        if due.compare {
            self.look_for_loss(false);
        }
        if due.tick {
            self.tick();
        }
        let contender = self.contender.as_ref().and_then(Contender::due);
        if contender.is_some_and(|at| at <= now) {
            self.drive(Cause::Timer, None);
        }
    }

    /// Returns when to be called again.
    pub(crate) fn due(&mut self) -> Option<Instant> {
        if self.is_at_rest() {
            self.agenda.idle();
        }
        let contender = self.contender.as_ref().and_then(Contender::due);
        [self.agenda.next(), contender].into_iter().flatten().min()
    }

    /// Returns whether no task of this process holds or waits.
    fn is_at_rest(&self) -> bool {
        self.possession.is_none() && self.cohorts.waiting() == 0
    }

    /// Removes the tickets that are no longer needed and the spare files, unless a task holds or
    /// waits.
    pub(super) fn rest(&mut self) {
        if self.is_at_rest() {
            self.tidy();
            self.disk.drop_spares();
        }
    }

    /// Releases what the kernel keeps for this lock.
    pub(crate) fn end(&mut self) {
        self.retire();
        self.tidy();
        self.disk.drop_spares();
        if let Some(id) = self.tail.watch.take() {
            watch().forget(self.watcher_id, id);
        }
    }
}
