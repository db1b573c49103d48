//! [`Line`]: one lock in this process, shared by all its handles, futures and guards.
//!
//! A line is a mutex around a [`Core`]: the state, and everything that changes it. Its callers are
//! futures that are polled or dropped, guards that are released, and the watch thread. A step under
//! the mutex never waits. Wakers are called after the mutex is free.
//!
//! All handles on one path share one line. It is found by the canonical path of the directory and
//! the name of the file, so two spellings of one path lead to the same line.
//!
//! # Algorithm
//!
//! The process is *out* (it has nothing of the lock) or in [*possession*](possession) of it. While
//! it is out, the first [cohort](cohorts) with an awake waiter has a [contender](contender) in the
//! queue on disk. When the contender has entered, the process takes possession, and *serves* that
//! cohort: it offers the lock to the first task that is awake. The task claims the *offer* when it
//! is polled. If its future is dropped, or the offer lapses, the offer goes to the next task. When
//! no task is left that could get an offer, the process leaves.
//!
//! While the process has the whole lock there is no contender, because there is no more to acquire.
//! While it has a share, with readers inside, later cohorts queue as if they belonged to another
//! process. Readers that become first enter with the readers inside.
//!
//! # The parts
//!
//! - this file: the mutex, offers and grants, the ends of waits and holds, events, timers
//! - [`arrival`]: how a task acquires the lock at once, or begins to wait
//! - [`contend`]: which cohort waits on disk, and what comes of it
//! - [`readers`], [`permits`]: what differs for readers and for permits
//! - [`cohorts`]: the waiters of this process. [`contender`], [`bypass`]: its wait on disk
//! - [`possession`]: what this process has of the lock. [`loss`]: how it learns that it lost it
//! - [`effects`]: what a step leaves to do. [`agenda`]: the timers. [`tail`]: the last look at the
//!   queue. [`idle`]: lines with open files
//! - [`view`]: the status. [`observer`]: its changes. [`removal`]: removing the lock
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
//!
//! # After a fork
//!
//! A line belongs to the process that created it. In a forked child its files lead to `/dev/null`,
//! and its mutex may be locked by a thread that does not exist. So every call asks
//! [`Line::is_foreign`] first and touches nothing: handles fail, and guards do nothing.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Instant;

use self::agenda::Agenda;
pub(super) use self::cohorts::Key;
use self::cohorts::{Cohort, CohortId, Cohorts, Waiter};
use self::contender::{Cause, Contender};
use self::effects::Effects;
use self::observer::Observers;
use self::possession::{Extent, Possession};
use self::tail::{Flags, Tail};
use super::disk::Disk;
use super::queue_dir::OwnTicket;
use super::slots::{SlotFiles, Slots};
use super::ticket::{Mode, Ticket};
use super::{Caller, Entered, Grant, Place, Settings, Share, Site, Want, closed_error};
use crate::door::Door;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::SafeWaker;
use crate::kind::LockKind;
use crate::loss::Loss;
use crate::path::canonical;
use crate::stats::Counts;
use crate::step::{self, Step};
use crate::sys::file::{check_lock_path, duplicate_for_exec};
use crate::sys::filesystem::FileSystem;
use crate::sys::fork::{Origin, PerProcess};
use crate::trace::Note;
use crate::watch::{Seen, WatchId, Watcher, watch};

mod agenda;
mod arrival;
mod bypass;
mod cohorts;
mod contend;
mod contender;
mod effects;
mod idle;
mod loss;
mod observer;
mod permits;
mod possession;
mod readers;
mod removal;
mod tail;
mod view;

/// How often the record of a semaphore is tried while another process has it locked.
const TRIES: u32 = 64;

/// The lines of this process, by path.
static LINES: PerProcess<Mutex<HashMap<PathBuf, Weak<Line>>>> = PerProcess::new(Mutex::default);

fn lines() -> MutexGuard<'static, HashMap<PathBuf, Weak<Line>>> {
    LINES.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// One lock in this process.
pub(super) struct Line {
    this: Weak<Self>,
    place: Arc<Place>,
    kind: LockKind,
    origin: Origin,
    site: Site,
    flags: Arc<Flags>,
    shareable: Arc<AtomicBool>,
    /// The slot files, if this is a semaphore.
    slot_files: Option<Arc<SlotFiles>>,
    counts: Arc<Counts>,
    observers: Observers,
    core: Mutex<Core>,
}

/// The state of one lock in one process.
struct Core {
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
    /// Whether the line is in the list of those with [open files](idle).
    listed: bool,
    /// Whether it was used since it was asked to close its files.
    used: bool,
    site: Site,
    effects: Effects,
}

/// A request as it arrives.
struct Request<'a> {
    settings: &'a Arc<Settings>,
    want: Want,
    /// The request is refused if this many wait already.
    most: Option<usize>,
    /// Whether no event was under way when it arrived; see [`Tail`].
    quiet: bool,
    now: Instant,
}

/// The result of an attempt without a ticket.
enum Fast {
    Granted(Grant),
    /// `state` is locked, and the record names another door.
    Elsewhere,
    /// Only `state` is locked, by a process that is dying.
    Dying,
    /// The door is locked. It stays open, because closing it would wake other waiters.
    Locked(Door),
    /// A ticket is in the way, and the queue was listed last.
    Queued,
    /// A waiter is in the way, or nothing can be acquired now.
    Refused,
}

/// What a guard is made of.
#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    token: u64,
    /// Whether it came from another task of this process.
    in_memory: bool,
}

impl Line {
    /// Returns the line of the lock file at this path. All callers in this process share it.
    pub(super) fn of(path: &Path, kind: LockKind, slots: Option<Slots>) -> Result<Arc<Self>> {
        let door = canonical(path)?;
        let known = lines().get(&door).and_then(Weak::upgrade);
        let line = match known {
            Some(line) => line,
            None => {
                // The map is not locked meanwhile: a server that hangs delays no other lock.
                let file_system = FileSystem::around(&door);
                let mut lines = lines();
                // Another thread may have been faster.
                let Some(line) = lines.get(&door).and_then(Weak::upgrade) else {
                    let line = Self::new(door.clone(), kind, slots, file_system);
                    lines.insert(door, Arc::downgrade(&line));
                    return Ok(line);
                };
                line
            }
        };
        // The map is unlocked, because the drop of a line locks it.
        if line.kind == kind {
            line.check_slots(slots.as_ref())?;
            return Ok(line);
        }
        let (theirs, ours) = (line.kind.name(), kind.name());
        let text = format!("this process has a {theirs} open at this path, not a {ours}");
        Err(Error::at(ErrorKind::Incompatible, text, door))
    }

    fn new(
        door: PathBuf,
        kind: LockKind,
        slots: Option<Slots>,
        file_system: FileSystem,
    ) -> Arc<Self> {
        let events = file_system.reports_closes();
        let threads = file_system.wakes_lock_calls();
        let slot_files = slots.as_ref().map(|it| it.files().clone());
        let place = Arc::new(Place::new(door));
        Arc::new_cyclic(|line: &Weak<Self>| {
            let watcher_id = watch().enroll(line.clone());
            let site = Site {
                watcher_id,
                events,
                threads,
            };
            let disk = Disk::new(place.clone(), kind, slots);
            let core = Core::new(disk, site);
            Self {
                this: line.clone(),
                place,
                kind,
                origin: Origin::here(),
                site,
                flags: core.tail.flags().clone(),
                shareable: core.shareable.clone(),
                slot_files,
                counts: core.effects.counts().clone(),
                observers: Observers::default(),
                core: Mutex::new(core),
            }
        })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns whether file events wake waiters here. Otherwise they poll.
    pub(super) fn has_events(&self) -> bool {
        self.site.events
    }

    /// Fails if there can be no lock of this kind at the path.
    pub(super) fn check(&self) -> Result<()> {
        let path = &self.place.door;
        if let Err(error) = check_lock_path(path) {
            if error.kind() != std::io::ErrorKind::InvalidInput {
                return Err(Error::io("look at the lock file", path, error));
            }
            let text = format!("no lock can be here: {error}");
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        self.run(|core| core.disk.check_kind())
    }

    /// Returns whether this line was created by the parent, before a fork.
    pub(super) fn is_foreign(&self) -> bool {
        !self.origin.is_here()
    }

    fn refuse_foreign(&self) -> Result<()> {
        if self.is_foreign() {
            let text = "this handle was opened before a fork; open the lock again in the child";
            return Err(Error::at(ErrorKind::Unsupported, text, &self.place.door));
        }
        Ok(())
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one step under the mutex, sets the timer, and does what the step leaves to do. If the
    /// timer cannot be set, the next step sets it. Fails in a forked child.
    fn run<R>(&self, step: impl FnOnce(&mut Core) -> Result<R>) -> Result<R> {
        self.refuse_foreign()?;
        self.run_unchecked(step)
    }

    /// Does the same, and nothing in a forked child.
    fn unless_foreign<R: Default>(&self, step: impl FnOnce(&mut Core) -> R) -> R {
        match self.is_foreign() {
            true => R::default(),
            false => self.run_unchecked(step),
        }
    }

    /// Does the same for a caller that has asked [`is_foreign`](Self::is_foreign).
    fn run_unchecked<R>(&self, step: impl FnOnce(&mut Core) -> R) -> R {
        self.with_timer(step).0
    }

    /// Does the same, and reports whether the timer could be set.
    fn with_timer<R>(&self, step: impl FnOnce(&mut Core) -> R) -> (R, Result<()>) {
        let mut core = self.core();
        let result = step(&mut core);
        let armed = self.arm(&mut core);
        let deferred = core.effects.take();
        let keeps = core.begins_to_keep();
        drop(core);
        if keeps {
            idle::add(&self.this);
        }
        if self.observers.any() {
            self.observers.notify();
        }
        deferred.perform(&self.place.door);
        (result, armed)
    }

    /// Runs a step, and once more if no descriptor was left and idle lines have given some back.
    fn with_room<R>(
        &self,
        mut step: impl FnMut(&mut Core) -> Result<R>,
    ) -> (Result<R>, Result<()>) {
        match self.with_timer(&mut step) {
            (Err(error), _) if idle::make_room(&error) => self.with_timer(step),
            other => other,
        }
    }

    fn arm(&self, core: &mut Core) -> Result<()> {
        if let Some(due) = core.must_arm() {
            watch()
                .arm(self.site.watcher_id, due)
                .map_err(|e| Error::io("set a timer for", &self.place.door, e))?;
            core.agenda.armed(due);
        }
        Ok(())
    }

    pub(super) fn poll(&self, key: Key, waker: &Waker, now: Instant) -> Poll<Result<Grant>> {
        self.refuse_foreign()?;
        // A task that was woken mostly has an offer, and then no waker is cloned.
        let result = self.run_unchecked(|core| core.poll(key, &mut None, now));
        if result.is_ready() {
            return result;
        }
        let mut waker = Some(SafeWaker::of(waker));
        self.run_unchecked(|core| core.poll(key, &mut waker, now))
    }

    pub(super) fn cancel(&self, key: Key) {
        self.unless_foreign(|core| core.cancel(key));
    }

    /// Releases the lock. In a forked child this only closes the descriptor. If the caller
    /// `listens`, a look at the path also finds a loss that was not noticed before.
    pub(super) fn release(&self, share: Share, want: Want, listens: bool) -> Result<()> {
        self.run(|core| core.release(share, want, listens))
    }

    /// Prepares a hold of this process to outlive its program.
    pub(super) fn prepare_exec(&self) -> Result<Option<File>> {
        self.run(Core::prepare_exec)
    }

    /// Deletes the spare files when the last handle goes. The drop of the line is too late for
    /// that: the watch thread may have the last reference, and the process may end before that
    /// thread is done.
    pub(super) fn rest(self: &Arc<Self>) {
        // The caller has one reference, and that thread may have another.
        if Arc::strong_count(self) <= 2 {
            self.unless_foreign(Core::rest);
        }
    }

    /// Ends the waits of one handle and its clones, and refuses new ones.
    pub(super) fn close(&self, closed: &Arc<AtomicBool>) {
        closed.store(true, Ordering::Release);
        self.unless_foreign(|core| core.close(closed));
    }
}

impl Watcher for Line {
    fn on_event(&self, id: WatchId) {
        match id.seen {
            // The flag is set without the mutex, which may be held during several system calls.
            Seen::Queue => {
                self.flags.queue_changed();
                if self.shareable.load(Ordering::SeqCst) {
                    self.unless_foreign(Core::share_if_wanted);
                }
                if self.kind == LockKind::Semaphore {
                    self.unless_foreign(Core::queue_changed);
                }
            }
            _ => {
                self.unless_foreign(|core| core.on_event(id));
                self.unless_foreign(Core::continue_entry);
            }
        }
    }

    fn on_timer(&self) {
        self.unless_foreign(Core::on_timer);
    }
}

impl Drop for Line {
    /// Gives back the watches and the descriptors, and removes the line from the map. No task holds
    /// or waits any more.
    fn drop(&mut self) {
        if !self.is_foreign() {
            let core = self.core.get_mut().unwrap_or_else(PoisonError::into_inner);
            core.end();
            watch().leave(self.site.watcher_id);
            // A new line may have the path by now.
            let mut lines = lines();
            if lines
                .get(&self.place.door)
                .is_some_and(|it| it.strong_count() == 0)
            {
                lines.remove(&self.place.door);
            }
        }
    }
}

impl Core {
    fn new(disk: Disk, site: Site) -> Self {
        Self {
            disk,
            cohorts: Cohorts::new(),
            possession: None,
            contender: None,
            failures: Vec::new(),
            leftovers: Vec::new(),
            tail: Tail::default(),
            saw_queue: false,
            shareable: Arc::default(),
            agenda: Agenda::new(),
            listed: false,
            used: false,
            site,
            effects: Effects::default(),
        }
    }

    fn error(&self, kind: ErrorKind, text: impl Into<String>) -> Error {
        Error::at(kind, text, &self.disk.place().door)
    }

    // ---- What is known ----

    /// Returns the tickets of this process, also those that it no longer needs.
    fn own_tickets(&self) -> Vec<Ticket> {
        let own = self.cohorts.iter().filter_map(Cohort::ticket);
        let own = own.chain(&self.leftovers);
        own.map(|own| own.ticket).collect()
    }

    /// Fails if the handle is closed. It is called under the mutex, so that no wait begins after
    /// `close` has ended them all.
    fn refuse_closed(&self, settings: &Settings) -> Result<()> {
        settings.refuse_closed(&self.disk.place().door)
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

    /// Returns whether a task of this process is inside, with a guard or an offer.
    fn is_someone_inside(&self) -> bool {
        let possession = self.possession.as_ref();
        possession.is_some_and(|it| it.count() > 0)
    }

    /// Returns the cohort to whose tasks this process offers the lock.
    fn cohort_served(&self) -> Option<CohortId> {
        self.possession.as_ref()?.cohort()
    }

    /// Returns whether no task of this process holds or waits.
    fn is_at_rest(&self) -> bool {
        self.possession.is_none() && self.cohorts.waiting() == 0
    }

    /// Returns whether no task of this process waits without an offer.
    fn all_waiters_have_offers(&self) -> bool {
        self.cohorts.waiting() == self.cohorts.offered()
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
    fn poll(
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
        let grant = self.grant(waiter.want, offer, &waiter.settings)?;
        let waited = now.saturating_duration_since(waiter.since);
        self.effects.counts().waited(waited);
        self.ticket_done(waiter.cohort(), shared, now);
        self.reader_entered(&grant);
        Some(grant)
    }

    /// Makes the grant of a caller that was admitted. Every grant is made here.
    fn grant(&mut self, want: Want, offer: Offer, settings: &Settings) -> Option<Grant> {
        let possession = self.possession.as_mut()?;
        let grant = possession.grant(want, offer.token, settings, &mut self.disk);
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
    fn admit(&mut self, mode: Mode, in_memory: bool) -> Offer {
        let possession = self.possession.as_mut();
        Offer {
            token: possession.map_or(0, |it| it.admit(mode)),
            in_memory,
        }
    }

    /// Offers the lock to all waiters that are admitted now, in order.
    fn serve(&mut self) -> Result<()> {
        let mut tries = 0;
        while let Some(next) = self.next_in_memory()
            && let (Some(possession), Some(waiter)) = (&mut self.possession, self.cohorts.get(next))
        {
            let (mode, words) = (waiter.want.mode, &waiter.settings.words);
            match possession.prepare(mode, words, &mut self.disk)? {
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
    fn next_in_memory(&self) -> Option<Key> {
        let possession = self.possession.as_ref()?;
        let cohort = possession.cohort()?;
        if self.cohorts.first_awake() != Some(cohort) {
            return None;
        }
        let (front, waiter) = self.cohorts.front(cohort)?;
        let (mode, bypassed) = (waiter.want.mode, possession.bypassed());
        // If the marks cannot be read, a bypassed waiter may have woken.
        let still_frozen = || self.disk.marks_gone(bypassed).is_ok_and(|gone| !gone);
        let admitted =
            possession.admits(mode, &self.disk) && (bypassed.is_empty() || still_frozen());
        admitted.then_some(front)
    }

    fn offer(&mut self, to: Key, mode: Mode, in_memory: bool) {
        let offer = self.admit(mode, in_memory);
        if let Some(waiter) = self.cohorts.offer(to, offer) {
            self.agenda.offered(waiter.settings.claim_window);
            self.effects.wake(waiter.take_waker());
        }
    }

    // ---- Ends of waits and holds ----

    /// Ends a wait. Takes its offer back; then the caller must [`settle`](Self::settle).
    fn end_wait(&mut self, key: Key) -> Option<Waiter> {
        let waiter = self.cohorts.leave(key)?;
        self.effects.counts().abandoned.add(1);
        if waiter.offer().is_some()
            && let Some(possession) = &mut self.possession
        {
            possession.withdraw(waiter.want.mode);
        }
        Some(waiter)
    }

    /// Ends a wait whose future is dropped.
    fn cancel(&mut self, key: Key) {
        if self.take_failure(key).is_some() {
            return;
        }
        if let Some(mut waiter) = self.end_wait(key) {
            self.effects.discard(waiter.take_waker());
            self.drop_if_empty(waiter.cohort());
            self.settle();
            self.cohorts.shrink();
        }
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

    /// Ends the wait of a task with an error. If the task had an offer, the caller must
    /// [`settle`](Self::settle).
    fn fail(&mut self, key: Key, error: Error) {
        if let Some(mut waiter) = self.end_wait(key) {
            self.failures.push((key, error));
            self.effects.wake(waiter.take_waker());
            self.drop_if_empty(waiter.cohort());
        }
    }

    /// Ends the waits of one handle and its clones.
    fn close(&mut self, closed: &Arc<AtomicBool>) {
        let cohorts = self.cohorts.iter().map(Cohort::id);
        let all = cohorts.flat_map(|id| self.cohorts.members(id));
        let ours = all.filter(|(_, it)| Arc::ptr_eq(&it.settings.closed, closed));
        let keys: Vec<_> = ours.map(|(key, _)| key).collect();
        for key in keys {
            let error = closed_error(&self.disk.place().door);
            self.fail(key, error);
        }
        self.settle();
        self.cohorts.shrink();
    }

    /// Takes a guard back. Fails with `Lost` if the lock was lost. Looks for a loss that was not
    /// noticed before only if the caller `listens`.
    fn release(&mut self, share: Share, want: Want, listens: bool) -> Result<()> {
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
        let alone = possession.count() == 0;
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

    /// Does all that this process would still do for its hold, except to unlock: `exec` is about to
    /// replace its program. Returns a duplicate of the state file, which carries a lock too.
    fn prepare_exec(&mut self) -> Result<Option<File>> {
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
            (
                settled.and(self.give_back_surplus(possession.served())),
                None,
            )
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
    fn give_watch_back(&mut self) {
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

    fn on_event(&mut self, id: WatchId) {
        match id.seen {
            Seen::Predecessor | Seen::Door => {
                if self.contender.as_mut().is_some_and(|it| it.fired(id)) {
                    self.drive(Cause::Event, None);
                }
            }
            Seen::Held => self.loss_watch_fired(id),
            // Observers and other locks handle these; `Line::on_event` handles `Queue`.
            Seen::Queue | Seen::Line | Seen::Record => {}
            Seen::Claim | Seen::Baton | Seen::Process => {}
            Seen::Everything => {
                self.renew_loss_watch();
                if let Some(contender) = &mut self.contender {
                    contender.forget_watches();
                }
                self.drive(Cause::Event, None);
            }
        }
    }

    fn on_timer(&mut self) {
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
        if due.recount {
            self.look_for_more();
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
    fn must_arm(&mut self) -> Option<Instant> {
        if self.is_at_rest() {
            self.agenda.idle();
        }
        if self.waits_for_more() && !self.tail.is_watched() {
            self.agenda.recount_later();
        }
        let contender = self.contender.as_ref().and_then(Contender::due);
        self.agenda.must_arm(contender)
    }

    /// Returns whether the line has open files, and is not listed yet.
    fn begins_to_keep(&mut self) -> bool {
        self.used = true;
        let begins = !self.listed && self.disk.is_open();
        self.listed |= begins;
        begins
    }

    /// Closes the files that only a later task needs: all files of an idle line, or the queue
    /// directory of one that is held. Returns `false` if there are none or, unless `all`, if the
    /// line was used since it was last asked.
    fn close_files(&mut self, all: bool) -> bool {
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
    fn rest(&mut self) {
        if self.is_at_rest() {
            self.tidy();
            self.disk.drop_spares();
        }
    }

    /// Releases what the kernel keeps for this lock.
    fn end(&mut self) {
        self.retire();
        self.tidy();
        self.disk.drop_spares();
        self.tail.stop(self.site);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p62_a_line_that_is_gone_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let line = Line::of(&directory.path().join("one"), LockKind::Lock, None);
        let line = line.expect("a line");
        let path = line.place().door.clone();
        assert!(lines().contains_key(&path));
        drop(line);
        assert!(!lines().contains_key(&path));
    }
}
