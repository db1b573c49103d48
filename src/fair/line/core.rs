//! The state of one lock in one process, and everything that changes it. Each call runs under the
//! mutex of the [`Line`](super::Line), and no call waits.
//!
//! # Algorithm
//!
//! The process is *out* (it has nothing of the lock) or in [*possession*](super::possession) of it.
//! While it is out, the first [cohort](super::cohorts) with an awake waiter has a
//! [contender](super::contender) in the queue on disk. When the contender has entered, the process
//! takes possession, and *serves* that cohort: it offers the lock to the first task that is awake.
//! The task claims the *offer* when it is polled. If its future is dropped, or the offer lapses,
//! the offer goes to the next task. When no task is left that could get an offer, the process
//! leaves.
//!
//! While the process has the whole lock there is no contender, because there is no more to acquire.
//! While it has a share, with readers inside, later cohorts queue as if they belonged to another
//! process. Readers that become first enter with the readers inside.
//!
//! # Where to read on
//!
//! - [`arrival`]: how a task acquires the lock at once, or begins to wait
//! - [`contend`]: which cohort waits on disk, and what comes of it
//! - this file: offers and grants, the ends of waits and holds, events, timers, losses
//! - [`readers`], [`permits`]: what differs for readers and for permits
//! - [`tries`]: the calls that do not wait
//! - [`view`]: the status
//!
//! # Invariants
//!
//! 1. Between two calls, `possession` is set exactly while a guard or an offer of this process has
//!    the lock.
//! 2. By guards and offers, one writer or any number of readers are inside. They share the door's
//!    descriptor.
//! 3. A cohort with waiters has a ticket, or is the cohort that is served.
//! 4. A ticket is removed only after its last waiter has its guard (`leftovers`) or has left.
//! 5. A crash that was found is reported to exactly one guard, or stays on disk.
//!
//! # Fairness
//!
//! First come, first served, over all tasks of all processes, except that frozen waiters are
//! bypassed until they wake.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Instant;

use super::Site;
use super::agenda::Agenda;
use super::cohorts::{Cohort, CohortId, Cohorts, Key};
use super::contender::{Cause, Contender, Entry, Outcome, Setup, StepInput};
use super::effects::{Deferred, Effects};
use super::possession::{Extent, Offer, Possession};
use super::request::{Caller, Grant, Request, Settings, Share, Want};
use super::tail::{Flags, Tail};
use crate::error::{Error, ErrorKind, Result};
use crate::fair::disk::{Disk, Entered, TakePlace};
use crate::fair::door::Door;
use crate::fair::queue_dir::OwnTicket;
use crate::fair::ticket::{Mode, Ticket};
use crate::foreign::SafeWaker;
use crate::loss::Loss;
use crate::stats::Counts;
use crate::step::{self, Step};
use crate::sys::file::duplicate_for_exec;
use crate::trace::Note;
use crate::watch::{Seen, WatchId};

mod arrival;
mod contend;
mod permits;
mod readers;
mod tries;
pub(super) mod view;

/// How often the record of a semaphore is tried while another process has it locked.
const TRIES: u32 = 64;

/// The state of one lock in one process.
pub(super) struct Core {
    disk: Disk,
    cohorts: Cohorts,
    possession: Option<Possession>,
    contender: Option<Contender>,
    /// Failed waits whose tasks have not been polled yet.
    failures: Vec<(Key, Error)>,
    /// Tickets that are no longer needed, and not removed yet.
    leftovers: Vec<OwnTicket>,
    tail: Tail,
    /// Whether the last attempt without a ticket met a queue or a locked door.
    saw_queue: bool,
    /// Whether readers of this process are inside under a whole lock. If another process queues,
    /// the lock must be shared at once. The watch thread reads this without the mutex.
    shareable: Arc<AtomicBool>,
    agenda: Agenda,
    /// Whether the line is in the list of those with [open files](super::idle).
    listed: bool,
    /// Whether it was used since it was asked to close its files.
    used: bool,
    site: Site,
    effects: Effects,
}

/// The result of an arrival.
pub(crate) enum Arrived {
    Granted(Grant),
    /// The key must be polled or cancelled.
    Waiting(Key),
}

impl Core {
    pub(super) fn new(disk: Disk, site: Site) -> Self {
        Self {
            disk,
            cohorts: Cohorts::new(),
            possession: None,
            contender: None,
            failures: Vec::new(),
            leftovers: Vec::new(),
            tail: Tail::new(),
            saw_queue: false,
            shareable: Arc::default(),
            agenda: Agenda::new(),
            listed: false,
            used: false,
            site,
            effects: Effects::new(),
        }
    }

    pub(super) fn flags(&self) -> &Arc<Flags> {
        self.tail.flags()
    }

    pub(super) fn shareable(&self) -> &Arc<AtomicBool> {
        &self.shareable
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        self.effects.counts()
    }

    pub(super) fn disk(&mut self) -> &mut Disk {
        &mut self.disk
    }

    /// Takes out what must be done once the mutex is free.
    pub(super) fn take_effects(&mut self) -> Deferred {
        self.effects.take()
    }

    fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Error::io(step, &self.disk.place().door, error)
    }

    fn error(&self, kind: ErrorKind, text: impl Into<String>) -> Error {
        Error::at(kind, text, &self.disk.place().door)
    }

    // ---- What is known ----

    /// Returns the tickets of this process, also those that it no longer needs.
    fn own_tickets(&self) -> Vec<Ticket> {
        let leftovers = self.leftovers.iter().map(|own| own.ticket);
        self.cohorts.tickets().chain(leftovers).collect()
    }

    /// Fails if the handle is closed. It is called under the mutex, so that no wait begins after
    /// `close` has ended them all.
    fn refuse_closed(&self, settings: &Settings) -> Result<()> {
        match settings.closed.load(Ordering::Acquire) {
            true => Err(self.closed()),
            false => Ok(()),
        }
    }

    fn closed(&self) -> Error {
        self.error(ErrorKind::Closed, "the lock was closed")
    }

    fn confused(&self) -> Error {
        let text = "a cohort of waiting tasks has disappeared";
        self.error(ErrorKind::Corrupt, text)
    }

    /// Returns whether a guard of this task or thread is out. Always `false` for permits, because a
    /// holder may want more of them.
    fn is_held_by(&self, by: Caller) -> bool {
        let possession = self.possession.as_ref();
        let known = by != Caller::Unknown && self.disk.slots().is_none();
        known && possession.is_some_and(|it| it.is_held_by(by))
    }

    /// Returns how much of the lock this process has.
    fn extent(&self) -> Option<Extent> {
        let possession = self.possession.as_ref();
        possession.map(|it| it.extent(&self.disk))
    }

    /// Returns whether no other process can enter.
    fn has_whole(&self) -> bool {
        self.extent().is_some_and(Extent::is_whole)
    }

    /// Returns the files of the permits that this process does not have.
    pub(super) fn slots_of_others(&self) -> Vec<PathBuf> {
        let slots = self.disk.slots();
        let others = slots.into_iter().flat_map(|it| it.paths_of_others());
        others.collect()
    }

    /// Returns whether a task of this process is inside, with a guard or an offer.
    fn is_someone_inside(&self) -> bool {
        let possession = self.possession.as_ref();
        possession.is_some_and(|it| !it.inside().is_empty())
    }

    /// Returns the cohort to whose tasks this process offers the lock.
    fn cohort_served(&self) -> Option<CohortId> {
        self.possession.as_ref()?.cohort()
    }

    /// Returns whether no task of this process holds or waits.
    fn is_at_rest(&self) -> bool {
        self.possession.is_none() && self.cohorts.waiting() == 0
    }

    // ---- Grants ----

    /// Takes possession of the lock that was entered. Without a door, adds permits to the
    /// possession that there is.
    fn possess(&mut self, door: Option<Door>, entered: Entered, mode: Mode) -> &mut Possession {
        if entered.predecessor_crashed {
            let token = entered.token;
            self.effects.note(Note::PredecessorCrashed { token });
        }
        debug_assert!(door.is_none() || self.possession.is_none(), "a second door");
        let more = self.possession.take().filter(|_| door.is_none());
        let possession = match more {
            Some(mut possession) => {
                possession.entered_again(entered.token);
                possession
            }
            None => Possession::new(door, entered, mode),
        };
        self.possession.insert(possession)
    }

    /// Polls a waiting task. Takes its waker if the waker must be kept.
    pub(super) fn poll(
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
        let Some(waiter) = self.cohorts.get_mut(key) else {
            return Poll::Pending;
        };
        if let Some(offer) = waiter.offer() {
            let grant = self.claim(key, offer, now);
            return grant.map_or(Poll::Pending, |grant| Poll::Ready(Ok(grant)));
        }
        if let Some(waker) = waker.take() {
            let old = waiter.set_waker(waker);
            self.effects.discard(old);
        }
        Poll::Pending
    }

    /// Unmarks the ticket of a waiter that is awake again: its cohort is first from now on. This is
    /// needed also while the process has the lock for a later cohort. Otherwise the next process
    /// would still bypass the ticket when this one leaves.
    fn unmark_cohort_of(&mut self, key: Key) {
        let cohort = self.cohorts.get(key).map(|it| it.cohort());
        if let Some(own) = cohort.and_then(|it| self.cohorts.ticket(it)) {
            // The contender of this cohort looks at the mark again.
            let _ = self.disk.unmark(own);
        }
    }

    fn take_failure(&mut self, key: Key) -> Option<Error> {
        let mut failures = self.failures.iter();
        let index = failures.position(|(failed, _)| *failed == key)?;
        Some(self.failures.swap_remove(index).1)
    }

    /// Turns the offer into a grant. The claim of a writer does not touch the disk, so the ticket
    /// is removed later.
    fn claim(&mut self, key: Key, offer: Offer, now: Instant) -> Option<Grant> {
        let mut waiter = self.cohorts.leave(key)?;
        self.effects.discard(waiter.take_waker());
        step::at(Step::Grant);
        let possession = self.possession.as_mut()?;
        possession.claimed(now);
        let shared = possession.extent(&self.disk) == Extent::Share;
        let mut grant = self.grant(waiter.want, offer, &waiter.settings)?;
        let waited = now.saturating_duration_since(waiter.since);
        self.effects.counts().waited(waited);
        grant.waited = Some(waited);
        self.ticket_done(waiter.cohort(), shared, now);
        self.reader_entered(&grant);
        Some(grant)
    }

    /// Makes the grant of a caller that was admitted. Every grant is made here.
    fn grant(&mut self, want: Want, offer: Offer, settings: &Settings) -> Option<Grant> {
        let possession = self.possession.as_mut()?;
        let grant = possession.grant(want, offer, settings, &mut self.disk);
        let counts = self.effects.counts();
        counts.grants.add(1);
        counts.in_memory.add(u64::from(offer.in_memory));
        Some(grant)
    }

    /// Releases the ticket of a cohort that is empty. If the lock is `shared`, readers of other
    /// processes may wait behind the ticket, so it is removed at once.
    fn ticket_done(&mut self, id: CohortId, shared: bool, now: Instant) {
        if !self.cohorts.cohort(id).is_some_and(Cohort::is_empty) {
            return;
        }
        if let Some(ticket) = self.cohorts.take_ticket(id) {
            self.leftovers.push(ticket);
            self.agenda.claimed(now);
        }
        if self.cohort_served() != Some(id) {
            self.cohorts.remove(id);
        }
        if shared {
            self.tidy();
        }
    }

    /// Counts one more task as inside. Returns its offer.
    fn admit(&mut self, mode: Mode) -> Offer {
        let possession = self.possession.as_mut();
        Offer {
            token: possession.map_or(0, |it| it.admit(mode)),
            in_memory: false,
        }
    }

    /// Offers the lock to all waiters that are admitted now, in order.
    fn serve(&mut self) -> Result<()> {
        let mut tries = 0;
        while let Some((next, mode)) = self.next_in_memory() {
            match self.prepare_for(next, mode)? {
                true => {}
                // Another process has the record locked for a moment, or the permits were beyond a
                // new limit.
                false if tries < TRIES => {
                    tries += 1;
                    std::thread::yield_now();
                    continue;
                }
                // Its contender, or the next release of permits, tries again.
                false => break,
            }
            self.offer(next, mode, true);
            if mode == Mode::Exclusive {
                break;
            }
        }
        Ok(())
    }

    /// Returns the waiter that can get the next offer. There is none if a cohort is first that is
    /// not served, or if a bypassed waiter has woken.
    fn next_in_memory(&self) -> Option<(Key, Mode)> {
        let possession = self.possession.as_ref()?;
        let cohort = possession.cohort()?;
        let first = self.cohorts.first_awake()?;
        if first.id() != cohort {
            return None;
        }
        let (front, waiter) = self.cohorts.front(cohort)?;
        let (mode, bypassed) = (waiter.want.mode, possession.bypassed());
        // If the marks cannot be read, a bypassed waiter may have woken.
        let still_frozen = || self.disk.marks_gone(bypassed).is_ok_and(|gone| !gone);
        let admitted =
            possession.admits(mode, &self.disk) && (bypassed.is_empty() || still_frozen());
        admitted.then_some((front, mode))
    }

    /// Makes token and held flag right for the next holder in memory. Returns `false` if the caller
    /// must try again.
    fn prepare_for(&mut self, next: Key, mode: Mode) -> Result<bool> {
        let (Some(possession), disk) = (&mut self.possession, &mut self.disk) else {
            return Ok(true);
        };
        match mode {
            Mode::Shared => possession.set_flag(false, disk)?,
            Mode::Exclusive => {
                possession.next_token(disk)?;
                possession.set_flag(true, disk)?;
            }
            Mode::Permits(_) => {
                let Some(waiter) = self.cohorts.get(next) else {
                    return Ok(false);
                };
                return possession.next_permits_token(&waiter.settings.words, disk);
            }
        }
        Ok(true)
    }

    fn offer(&mut self, to: Key, mode: Mode, in_memory: bool) {
        let offer = Offer {
            in_memory,
            ..self.admit(mode)
        };
        if let Some(waiter) = self.cohorts.offer(to, offer) {
            self.agenda.offered(waiter.settings.claim_window);
            self.effects.wake(waiter.take_waker());
        }
    }

    // ---- Ends of waits and holds ----

    /// Ends a wait whose future is dropped.
    pub(super) fn cancel(&mut self, key: Key) {
        if self.take_failure(key).is_some() {
            return;
        }
        let Some(mut waiter) = self.cohorts.leave(key) else {
            return;
        };
        self.effects.discard(waiter.take_waker());
        self.effects.counts().abandoned.add(1);
        if waiter.offer().is_some()
            && let Some(possession) = &mut self.possession
        {
            possession.withdraw(waiter.want.mode);
        }
        self.drop_if_empty(waiter.cohort());
        self.settle();
        self.cohorts.shrink();
    }

    /// Removes a cohort that is empty. Of the cohort that is served it removes only the ticket.
    fn drop_if_empty(&mut self, id: CohortId) {
        if !self.cohorts.cohort(id).is_some_and(Cohort::is_empty) {
            return;
        }
        if self.cohort_served() == Some(id) {
            self.leftovers.extend(self.cohorts.take_ticket(id));
        } else {
            if self.contender.as_ref().is_some_and(|it| it.cohort() == id) {
                self.retire();
            }
            self.leftovers.extend(self.cohorts.remove(id));
        }
        self.tidy();
    }

    fn retire(&mut self) {
        if let Some(contender) = self.contender.take() {
            contender.retire();
        }
    }

    /// Ends the wait of a task with an error.
    fn fail(&mut self, key: Key, error: Error) {
        if let Some(mut waiter) = self.cohorts.leave(key) {
            self.effects.counts().abandoned.add(1);
            self.failures.push((key, error));
            self.effects.wake(waiter.take_waker());
            self.drop_if_empty(waiter.cohort());
        }
    }

    /// Ends the waits of one handle and its clones.
    pub(super) fn close(&mut self, closed: &Arc<AtomicBool>) {
        let cohorts = self.cohorts.iter().map(Cohort::id);
        let all = cohorts.flat_map(|id| self.cohorts.members(id));
        let ours = all.filter(|(_, it)| Arc::ptr_eq(&it.settings.closed, closed));
        let keys: Vec<_> = ours.map(|(key, _)| key).collect();
        for key in keys {
            let waiter = self.cohorts.get_mut(key);
            let waker = waiter.and_then(|it| it.take_waker());
            self.cancel(key);
            self.failures.push((key, self.closed()));
            self.effects.wake(waker);
        }
    }

    /// Takes a guard back. Fails with `Lost` if the lock was lost. Looks for a loss that was not
    /// noticed before only if the caller `listens`.
    pub(super) fn release(&mut self, share: Share, want: Want, listens: bool) -> Result<()> {
        match share {
            Share::Permits(permits) => return self.release_permits(permits, want),
            // The possession has a reference of its own.
            Share::Door(door) => drop(door),
        }
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
        possession.give_back(want);
        let lost = possession.loss.get();
        let alone = possession.inside().is_empty();
        if alone {
            possession.loss.end_grant(&mut self.effects);
        }
        let served = self.serve();
        if self.is_someone_inside() {
            if alone {
                self.share_if_wanted();
            }
            return lost.map_or(served, |loss| Err(self.lost(loss)));
        }
        let (left, seen) = self.leave(listens);
        match lost.or(seen) {
            Some(loss) => Err(self.lost(loss)),
            None => served.and(left),
        }
    }

    fn lost(&self, loss: Loss) -> Error {
        Error::lost(loss, &self.disk.place().door)
    }

    /// Turns the writer inside into a reader, and admits other readers. Fails if the lock was lost.
    pub(super) fn downgrade(&mut self) -> Result<()> {
        self.look_for_loss();
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
        possession.downgrade();
        if let Some(loss) = possession.loss.get() {
            return Err(self.lost(loss));
        }
        let flagged = possession.set_flag(false, &mut self.disk);
        let served = self.serve();
        self.settle();
        flagged.and(served)
    }

    /// Does all that this process would still do for its hold, except to unlock: `exec` is about to
    /// replace its program. Returns a duplicate of the state file, which carries a lock too.
    pub(super) fn prepare_exec(&mut self) -> Result<Option<File>> {
        if let Some(possession) = &mut self.possession {
            possession.set_flag(false, &mut self.disk)?;
        }
        self.tidy();
        self.disk.drop_spares();
        let door = self.possession.as_ref().and_then(Possession::door);
        let state = door.and_then(|_| self.disk.state_file());
        let duplicate = state.map(duplicate_for_exec).transpose();
        duplicate.map_err(|e| Error::io("duplicate the state file", self.disk.place().state(), e))
    }

    /// Moves on after an offer or a guard has gone: offers the lock to the next waiters, or leaves
    /// if no task is inside. If only readers are left, the lock may be shared.
    fn settle(&mut self) {
        // An error has no caller here. The remaining waiters contend on disk then.
        let _ = self.serve();
        if self.possession.is_none() {
            self.drive(Cause::Local, None);
        } else if self.is_someone_inside() {
            self.share_if_wanted();
            self.give_surplus();
            self.drive(Cause::Local, None);
        } else {
            let _ = self.leave(false);
        }
    }

    /// Leaves. First the waiters get their tickets, then the lock is released, then the next cohort
    /// contends on disk.
    ///
    /// With `look`, a loss that was not noticed before is found here, while the lock still protects
    /// the look.
    fn leave(&mut self, look: bool) -> (Result<()>, Option<Loss>) {
        let Some(mut possession) = self.possession.take() else {
            return (Ok(()), None);
        };
        self.shareable.store(false, Ordering::SeqCst);
        possession.give_watch_back(self.site);
        possession.loss.stop(self.site);
        possession.loss.end_grant(&mut self.effects);
        self.agenda.left();
        let cohort = possession.cohort();
        if let Some(cohort) = cohort {
            self.keep_ticket(cohort);
        }
        self.mark_frozen(cohort);
        let (left, loss) = if possession.door().is_some() {
            possession.leave_door(&mut self.disk, look)
        } else {
            let settled = possession.settle_tokens(&mut self.disk);
            (settled.and(self.give_back_surplus(0, cohort)), None)
        };
        if let Some(cohort) = cohort {
            self.drop_if_empty(cohort);
        }
        self.tidy();
        self.drive(Cause::Local, None);
        if self.saw_queue {
            self.effects.yield_to_others();
        }
        (left, loss)
    }

    /// Gives the watch back through which the process entered.
    pub(super) fn give_watch_back(&mut self) {
        if let Some(possession) = &mut self.possession {
            possession.give_watch_back(self.site);
        }
    }

    /// Does what a grant has put off: removes the tickets that are no longer needed, and gives the
    /// watch of the door back.
    fn tidy(&mut self) {
        self.give_watch_back();
        self.agenda.tidied(!self.leftovers.is_empty());
        while let Some(own) = self.leftovers.pop() {
            self.disk.give_up(own);
        }
    }

    // ---- Events and timers ----

    pub(super) fn on_event(&mut self, id: WatchId) {
        match id.seen {
            Seen::Predecessor | Seen::Door => {
                if self.contender.as_mut().is_some_and(|it| it.fired(id)) {
                    self.drive(Cause::Event, None);
                }
            }
            Seen::Held => {
                if let Some(possession) = &mut self.possession {
                    possession.loss.fired(id);
                }
                self.look_for_loss();
            }
            // Observers and other locks handle these; `Line::on_event` handles `Queue`.
            Seen::Queue | Seen::Line | Seen::Record => {}
            Seen::Claim | Seen::Baton | Seen::Process => {}
            Seen::Everything => {
                if let Some(possession) = &mut self.possession {
                    possession.renew_loss_watch(self.site);
                }
                self.look_for_loss();
                if let Some(contender) = &mut self.contender {
                    contender.forget_watches();
                }
                self.drive(Cause::Event, None);
            }
        }
    }

    pub(super) fn on_timer(&mut self) {
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
            self.look_for_loss();
        }
        if due.tick {
            self.tick();
        }
        let contender = self.contender.as_ref().and_then(Contender::due);
        if contender.is_some_and(|at| at <= now) {
            self.drive(Cause::Timer, None);
        }
    }

    /// Ends a claim window. Offers that were not claimed in it have lapsed.
    fn tick(&mut self) {
        let effects = &mut self.effects;
        let lapsed = self.cohorts.tick(|waker| effects.wake(Some(waker)));
        if !lapsed.is_empty() {
            if let Some(possession) = &mut self.possession {
                lapsed.into_iter().for_each(|it| possession.withdraw(it));
            }
            self.effects.note(Note::Frozen);
            self.settle();
        }
        if let Some(window) = self.cohorts.begin_window() {
            self.agenda.offered(window);
        }
    }

    /// Returns when [`on_timer`](Self::on_timer) must be called, if the watch thread does not know
    /// it yet.
    pub(super) fn must_arm(&mut self) -> Option<Instant> {
        if self.is_at_rest() {
            self.agenda.idle();
        }
        let contender = self.contender.as_ref().and_then(Contender::due);
        let due = [self.agenda.next(), contender].into_iter().flatten().min();
        due.filter(|due| self.agenda.must_arm(*due))
    }

    /// Notes that the watch thread knows this time.
    pub(super) fn armed(&mut self, due: Instant) {
        self.agenda.armed(due);
    }

    /// Returns whether the line has open files, and is not listed yet.
    pub(super) fn begins_to_keep(&mut self) -> bool {
        self.used = true;
        let begins = !self.listed && self.disk.is_open();
        self.listed |= begins;
        begins
    }

    /// Closes the files that only a later task needs: all files of an idle line, or the queue
    /// directory of one that is held. Returns `false` if there are none or, unless `all`, if the
    /// line was used since it was last asked.
    pub(super) fn close_files(&mut self, all: bool) -> bool {
        let used = std::mem::take(&mut self.used) && !all;
        if used || self.needs_queue() {
            return false;
        }
        if self.is_at_rest() {
            self.end();
            self.disk.reopen();
        } else {
            self.tidy();
            self.disk.close_queue();
        }
        self.listed = false;
        true
    }

    /// Returns whether a task that waits or holds needs the queue directory.
    fn needs_queue(&self) -> bool {
        let bypasses = |it: &Possession| !it.bypassed().is_empty();
        self.cohorts.waiting() > 0
            || self
                .possession
                .as_ref()
                .is_some_and(|it| bypasses(it) || self.tail.is_watched())
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
    pub(super) fn end(&mut self) {
        self.retire();
        self.tidy();
        self.disk.drop_spares();
        self.tail.stop(self.site);
    }

    // ---- Loss ----

    /// Returns whether the guard with this token still has the lock.
    pub(super) fn is_held(&mut self, token: u64) -> bool {
        self.look_for_loss();
        let possession = self.possession.as_ref();
        possession.is_some_and(|it| it.token() == token && it.loss.get().is_none())
    }

    /// Begins to watch for a loss of the present grant.
    pub(super) fn watch_for_loss(&mut self) -> Arc<OnceLock<Loss>> {
        self.look_for_loss();
        let Some(possession) = &mut self.possession else {
            return Arc::default();
        };
        let latch = possession.loss.latch();
        if let Some(door) = possession.door().cloned()
            && possession.loss.watch(&door, self.site)
        {
            self.look_for_loss();
        }
        latch
    }

    pub(super) fn poll_lost(
        &mut self,
        latch: &OnceLock<Loss>,
        token: u64,
        waker: &mut Option<SafeWaker>,
    ) -> Poll<Loss> {
        if let Some(loss) = latch.get() {
            return Poll::Ready(*loss);
        }
        let possession = self.possession.as_mut();
        if let Some(possession) = possession.filter(|it| it.token() == token) {
            possession.loss.wait(waker);
            self.agenda.compare_later();
        }
        Poll::Pending
    }

    /// Compares the door with its path.
    fn look_for_loss(&mut self) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        let Some(door) = possession.door().cloned() else {
            return;
        };
        let path = &self.disk.place().door;
        possession.loss.look(&door, path, &mut self.effects);
        if possession.loss.is_awaited() {
            self.agenda.compare_later();
        }
    }
}
