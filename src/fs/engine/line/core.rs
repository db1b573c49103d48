//! The state of one lock in one process. Everything happens under the mutex of its [`Line`](super::Line), one call at
//! a time, and no call waits.
//!
//! # Algorithm
//!
//! The process is *out* (nobody here holds the door) or *in possession* of it. Out, the first cohort with anybody awake
//! has a [`Contender`] that stands in the line on disk for it. When that one has the door the process is in possession, and
//! the door goes from task to task of the cohort as an *offer*: made to the first task that is awake, claimed when that
//! task is polled, passed on when its future is dropped or when a claim window goes by. When the cohort is exhausted, or
//! nobody in it is awake, the process leaves.
//!
//! A task that arrives joins the last cohort if that one's ticket is still the last in the directory, or if its process is in
//! possession and the directory is empty; else it takes a new ticket and starts a new cohort. Looking and joining are
//! one step under the mutex.
//!
//! # Invariants
//!
//! 1. `possession` is there exactly while this process has the door locked by a guard or an offer.
//! 2. At most one guard or one offer exists; the door's descriptor is inside it.
//! 3. A cohort with waiters has a ticket, or is the one in possession.
//! 4. A ticket is removed only after its last waiter has its guard (`leftovers`), or has left.
//! 5. A crash that was found is told to exactly one guard, or stays on disk.
//!
//! # Fairness
//!
//! Strict by arrival over all tasks of all processes, except that sleepers are passed until they wake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::super::disk::{Disk, Entered, Place};
use super::super::door::Door;
use super::super::step::{self, Step};
use super::super::ticket::Ticket;
use super::super::ticket::queue::Own;
use super::super::watch::{Seat, Seen, WatchId, watch};
use super::cohort::{CohortId, Cohorts, Key};
use super::contender::{Cause, Contender, Outcome};
use super::{Grant, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::sys::file::FileId;
use crate::guard::Loss;

/// How many tokens are reserved on disk at once for hand-overs in memory.
const BLOCK: u64 = 1024;
/// How long after a claim the ticket is removed: the holder has gone on by then, the next waiter is not yet impatient.
const TIDY_AFTER: Duration = Duration::from_micros(100);

/// What a waiting task brings along.
pub(crate) struct Caller {
    pub(crate) settings: Arc<Settings>,
    pub(crate) since: Instant,
}

/// The door in this process's hands.
pub(crate) struct Possession {
    cohort: Option<CohortId>,
    door: FileId,
    occupant: Occupant,
    token: u64,
    reserved: u64,
    /// The holder before us died inside and no guard here has been told yet.
    crashed: bool,
    loss: Option<Loss>,
    held_watch: Option<WatchId>,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) since: Instant,
}

enum Occupant {
    Guard,
    Offer { to: Key, door: Door },
}

/// What became of a newcomer.
pub(crate) enum Entry {
    Granted(Grant),
    Waiting(Key),
}

/// Wakers to call once the mutex is free.
#[derive(Default)]
pub(crate) struct Wakes {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakes {
    fn push(&mut self, waker: Waker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    pub(crate) fn fire(self) {
        self.first
            .into_iter()
            .chain(self.more)
            .for_each(Waker::wake);
    }
}

/// The last look at the line, as far as it spares the next one.
#[derive(Default)]
struct Tail {
    /// Our cohort that stood last.
    cohort: Option<CohortId>,
    watch: Option<WatchId>,
}

pub(crate) struct Core {
    pub(crate) disk: Disk,
    pub(crate) cohorts: Cohorts<Caller>,
    pub(crate) possession: Option<Possession>,
    pub(crate) contender: Option<Contender>,
    /// Failed waits whose tasks have not been polled yet.
    failures: Vec<(Key, Error)>,
    /// Tickets whose work is done.
    pub(crate) leftovers: Vec<Own>,
    tidy_at: Option<Instant>,
    tick_at: Option<Instant>,
    /// Counts offers, so that a tick can tell whether the one it saw is still unclaimed.
    offers: u64,
    lapsing: Option<u64>,
    roll_call: bool,
    saw_line: bool,
    tail: Tail,
    /// Set from the watch thread when the queue directory changed.
    pub(crate) queue_changed: Arc<AtomicBool>,
    /// The lock that was lost last, for those who ask late.
    lost: Option<(u64, Loss)>,
    lost_wakers: Vec<(u64, Waker)>,
    lost_at: Option<Instant>,
    pub(crate) armed: Option<Instant>,
    pub(crate) seat: Seat,
    /// Whether file events can be expected here.
    pub(crate) events: bool,
    pub(crate) wakes: Wakes,
}

impl Core {
    pub(crate) fn new(place: Arc<Place>, seat: Seat, events: bool) -> Self {
        Self {
            disk: Disk::new(place),
            cohorts: Cohorts::new(),
            possession: None,
            contender: None,
            failures: Vec::new(),
            leftovers: Vec::new(),
            tidy_at: None,
            tick_at: None,
            offers: 0,
            lapsing: None,
            roll_call: false,
            saw_line: false,
            tail: Tail::default(),
            queue_changed: Arc::default(),
            lost: None,
            lost_wakers: Vec::new(),
            lost_at: None,
            armed: None,
            seat,
            events,
            wakes: Wakes::default(),
        }
    }

    fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Error::io(step, &self.disk.place().door, error)
    }

    // ---- coming -------------------------------------------------------------------------------------------------

    /// A task arrives.
    pub(crate) fn enter(
        &mut self,
        settings: &Arc<Settings>,
        most: Option<usize>,
        waker: &Waker,
    ) -> Result<Entry> {
        let mut spare = None;
        if self.is_idle() {
            if let Some(grant) = self.fast_path(settings, &mut spare)? {
                return Ok(Entry::Granted(grant));
            }
        }
        if let Some(most) = most {
            self.refuse_if_longer_than(most, settings)?;
        }
        let cohort = self.cohort_to_join(settings)?;
        let caller = Caller {
            settings: settings.clone(),
            since: Instant::now(),
        };
        let Some(key) = self.cohorts.join(cohort, caller) else {
            return Err(self.confused());
        };
        self.drive(Cause::Local, spare);
        match self.poll(key, waker) {
            Poll::Ready(result) => result.map(Entry::Granted),
            Poll::Pending => Ok(Entry::Waiting(key)),
        }
    }

    fn is_idle(&self) -> bool {
        self.possession.is_none() && self.cohorts.is_empty()
    }

    fn confused(&self) -> Error {
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
        if self.saw_line && !self.disk.list(settings.mode)?.is_empty() {
            return Ok(None);
        }
        let Some(door) = self.lock_current_door(settings, spare)? else {
            self.saw_line = true;
            return Ok(None);
        };
        step::at(Step::FastList);
        let empty = self.disk.list(Some(door.mode())).map(<[_]>::is_empty);
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
    fn lock_current_door(
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

    fn possess_at_once(&mut self, door: Door, entered: Entered, settings: &Settings) -> Grant {
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
    fn cohort_to_join(&mut self, settings: &Arc<Settings>) -> Result<CohortId> {
        if !self.is_idle() {
            if let Some(cohort) = self.known_tail() {
                return Ok(cohort);
            }
            if let Some(cohort) = self.look_at_tail(settings)? {
                self.tail.cohort = Some(cohort);
                return Ok(cohort);
            }
        }
        let ticket = self.disk.take_ticket(settings.mode, false)?;
        let cohort = self.cohorts.add_cohort(Some(ticket));
        // Only a look made after the watch was set can be relied on.
        self.tail.cohort = None;
        Ok(cohort)
    }

    /// Our cohort that was last at the last look, if nothing has been queued since.
    fn known_tail(&self) -> Option<CohortId> {
        let cohort = self.tail.cohort?;
        let same = self.tail.watch.is_some()
            && self.cohorts.last().is_some_and(|last| last.id == cohort)
            && !self.queue_changed.load(Ordering::SeqCst)
            && watch().is_quiet();
        same.then_some(cohort)
    }

    /// Looks who stands last: one of our cohorts, or the one in possession when nobody stands at all.
    fn look_at_tail(&mut self, settings: &Arc<Settings>) -> Result<Option<CohortId>> {
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
        Ok(self
            .cohorts
            .last()
            .filter(|cohort| cohort.ticket.as_ref().is_some_and(|own| own.ticket == last))
            .map(|cohort| cohort.id))
    }

    /// The cohort that holds the door; made when the first task joins it. None if another one of ours stands behind it.
    fn cohort_in_possession(&mut self) -> Option<CohortId> {
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
    fn watch_queue(&mut self, settings: &Settings) -> Result<()> {
        if self.queue_changed.swap(false, Ordering::SeqCst) {
            self.tail.watch = None;
        }
        if self.tail.watch.is_some() || !self.events {
            return Ok(());
        }
        // Opens the directory if it is not open yet.
        self.disk.list(settings.mode)?;
        if let Some(queue) = self.disk.open_queue() {
            let directory = queue.dir().descriptor();
            self.tail.watch = watch().add(self.seat, directory, Seen::Queue).ok();
        }
        Ok(())
    }

    fn refuse_if_longer_than(&mut self, most: usize, settings: &Settings) -> Result<()> {
        let own: Vec<Ticket> = self.own_tickets();
        let line = self.disk.list(settings.mode)?;
        let others = line.iter().filter(|it| !own.contains(it)).count();
        let waiting = others + self.cohorts.waiting();
        if waiting < most {
            return Ok(());
        }
        let text = format!("{waiting} already wait, and at most {most} may");
        Err(Error::at(ErrorKind::Busy, text, &self.disk.place().door))
    }

    fn own_tickets(&self) -> Vec<Ticket> {
        let standing = self.cohorts.iter().filter_map(|it| it.ticket.as_ref());
        standing
            .chain(&self.leftovers)
            .map(|own| own.ticket)
            .collect()
    }

    // ---- waiting ------------------------------------------------------------------------------------------------

    /// A waiting task is polled.
    pub(crate) fn poll(&mut self, key: Key, waker: &Waker) -> Poll<Result<Grant>> {
        if let Some(error) = self.take_failure(key) {
            return Poll::Ready(Err(error));
        }
        if self.cohorts.wake_up(key) {
            self.drive(Cause::Local, None);
        }
        if self.is_offered_to(key) {
            return self
                .claim(key)
                .map_or(Poll::Pending, |grant| Poll::Ready(Ok(grant)));
        }
        if let Some(waiter) = self.cohorts.get_mut(key)
            && !waiter.waker.as_ref().is_some_and(|it| it.will_wake(waker))
        {
            waiter.waker = Some(waker.clone());
        }
        Poll::Pending
    }

    fn take_failure(&mut self, key: Key) -> Option<Error> {
        let index = self
            .failures
            .iter()
            .position(|(failed, _)| *failed == key)?;
        Some(self.failures.swap_remove(index).1)
    }

    fn is_offered_to(&self, key: Key) -> bool {
        self.possession
            .as_ref()
            .is_some_and(|it| matches!(&it.occupant, Occupant::Offer { to, .. } if *to == key))
    }

    /// Turns the offer into a guard. Nothing here may touch the disk: the ticket goes later.
    fn claim(&mut self, key: Key) -> Option<Grant> {
        let waiter = self.cohorts.leave(key)?;
        let possession = self.possession.as_mut()?;
        let Occupant::Offer { door, .. } =
            std::mem::replace(&mut possession.occupant, Occupant::Guard)
        else {
            return None;
        };
        step::at(Step::Grant);
        let now = Instant::now();
        possession.since = now;
        possession.label.clone_from(&waiter.data.settings.label);
        let grant = Grant {
            door,
            token: possession.token,
            waited: Some(now.saturating_duration_since(waiter.data.since)),
            predecessor_crashed: std::mem::take(&mut possession.crashed),
        };
        self.roll_call = false;
        if let Some(cohort) = self.cohorts.cohort_mut(waiter.cohort)
            && cohort.length == 0
            && let Some(ticket) = cohort.ticket.take()
        {
            self.leftovers.push(ticket);
            self.tidy_at = now.checked_add(TIDY_AFTER);
        }
        Some(grant)
    }

    /// A waiting task's future is dropped.
    pub(crate) fn cancel(&mut self, key: Key) {
        if self.take_failure(key).is_some() {
            return;
        }
        let offered = self.is_offered_to(key);
        let Some(waiter) = self.cohorts.leave(key) else {
            return;
        };
        if offered {
            self.pass_on();
        } else {
            self.drop_if_empty(waiter.cohort);
            self.drive(Cause::Local, None);
        }
        self.cohorts.shrink();
    }

    /// Removes a cohort that nobody is left in, unless it is the one in possession.
    fn drop_if_empty(&mut self, id: CohortId) {
        let holds = self
            .possession
            .as_ref()
            .is_some_and(|it| it.cohort == Some(id));
        if holds
            || self
                .cohorts
                .cohort(id)
                .is_none_or(|cohort| cohort.length > 0)
        {
            return;
        }
        if self.contender.as_ref().is_some_and(|it| it.cohort == id) {
            self.retire();
        }
        self.leftovers.extend(self.cohorts.remove_cohort(id));
        self.tidy();
    }

    fn retire(&mut self) {
        if let Some(contender) = self.contender.take() {
            contender.retire();
        }
    }

    /// A task's wait ends with an error.
    fn fail(&mut self, key: Key, error: Error) {
        if let Some(waiter) = self.cohorts.leave(key) {
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

    // ---- possession ---------------------------------------------------------------------------------------------

    /// A guard is given back. `Lost` when there was nothing left to give back.
    pub(crate) fn release(&mut self, door: Door, token: u64) -> Result<()> {
        let Some(possession) = self.possession.as_mut() else {
            return door.leave().map_err(|e| self.io("unlock the lock file", e));
        };
        let lost = possession.loss;
        debug_assert_eq!(possession.token, token, "a guard that is not the holder's");
        self.lost_wakers.retain(|(watched, _)| *watched != token);
        let next = possession.cohort.and_then(|it| self.cohorts.front(it));
        if let (Some(next), None) = (next, lost) {
            match self.next_token() {
                Ok(()) => {
                    self.offer(next, door);
                    return Ok(());
                }
                Err(error) => {
                    self.leave(door).and(Err(error))?;
                }
            }
            return Ok(());
        }
        let left = self.leave(door);
        match lost {
            Some(loss) => Err(Error::at(
                ErrorKind::Lost,
                loss.to_string(),
                &self.disk.place().door,
            )),
            None => left,
        }
    }

    /// The token for a hand-over in memory: from the block reserved on disk, or from a new block.
    fn next_token(&mut self) -> Result<()> {
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
        if possession.token >= possession.reserved {
            let end = possession.token.saturating_add(BLOCK);
            self.disk.reserve_to(end)?;
            possession.reserved = end;
        }
        possession.token += 1;
        Ok(())
    }

    fn offer(&mut self, to: Key, door: Door) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        self.offers += 1;
        possession.occupant = Occupant::Offer { to, door };
        if let Some(waiter) = self.cohorts.get_mut(to) {
            if self.tick_at.is_none() {
                self.tick_at = Instant::now().checked_add(waiter.data.settings.claim_window);
            }
            waiter
                .waker
                .take()
                .into_iter()
                .for_each(|it| self.wakes.push(it));
        }
    }

    /// The offer that stands was not wanted: to the next one awake, or out.
    fn pass_on(&mut self) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        let Occupant::Offer { door, .. } =
            std::mem::replace(&mut possession.occupant, Occupant::Guard)
        else {
            return;
        };
        match possession.cohort.and_then(|it| self.cohorts.front(it)) {
            Some(next) => self.offer(next, door),
            None => {
                // Nobody is there to hear of a failure; the door is closed whatever happens.
                let _ = self.leave(door);
            }
        }
    }

    /// Out: the queue first, then the lock, then whoever waits here behind others.
    fn leave(&mut self, door: Door) -> Result<()> {
        let Some(mut possession) = self.possession.take() else {
            return door.leave().map_err(|e| self.io("unlock the lock file", e));
        };
        if let Some(id) = possession.held_watch.take() {
            watch().forget(self.seat, id);
        }
        if let Some(cohort) = possession.cohort {
            self.keep_place(cohort);
        }
        let result = self.disk.leave(door, possession.crashed);
        if let Some(cohort) = possession.cohort {
            self.drop_if_empty(cohort);
        }
        self.tidy();
        self.drive(Cause::Local, None);
        result
    }

    /// Whoever is left in a cohort that leaves the door keeps its place on disk; if all are asleep, with a mark, so that
    /// others pass.
    fn keep_place(&mut self, id: CohortId) {
        let Some(cohort) = self.cohorts.cohort(id).filter(|it| it.length > 0) else {
            return;
        };
        let settings = self.settings_of(id);
        let asleep = self.cohorts.front(id).is_none();
        let mut result = Ok(());
        if cohort.ticket.is_none() {
            let mode = settings.as_ref().and_then(|it| it.mode);
            match self.disk.take_ticket(mode, true) {
                Ok(ticket) => {
                    if let Some(cohort) = self.cohorts.cohort_mut(id) {
                        cohort.ticket = Some(ticket);
                    }
                }
                Err(error) => result = Err(error),
            }
        }
        if asleep
            && let Some(own) = self.cohorts.cohort(id).and_then(|it| it.ticket.as_ref())
            && let Err(error) = own.set_mark(true)
        {
            result = Err(self.io("mark the own ticket", error));
        }
        if let Err(error) = result {
            self.fail_all(id, error);
        }
    }

    /// Nobody in this cohort can be served. The first one hears the cause, the others that it was not theirs.
    fn fail_all(&mut self, id: CohortId, error: Error) {
        let mut keys = Vec::new();
        self.cohorts.for_each(id, |key, _| keys.push(key));
        let mut error = Some(error);
        for key in keys {
            let again = || {
                let text = "the place in line could not be kept";
                Error::at(ErrorKind::Io, text, &self.disk.place().queue)
            };
            let error = error.take().unwrap_or_else(again);
            self.fail(key, error);
        }
    }

    fn settings_of(&self, id: CohortId) -> Option<Arc<Settings>> {
        let front = self.cohorts.front(id)?;
        Some(self.cohorts.get(front)?.data.settings.clone())
    }

    // ---- the line on disk ---------------------------------------------------------------------------------------

    /// Brings the first cohort that is awake as far as it gets without waiting.
    pub(crate) fn drive(&mut self, cause: Cause, mut spare: Option<Door>) {
        while self.possession.is_none() {
            let Some(cohort) = self.cohorts.first_awake().map(|cohort| cohort.id) else {
                self.retire();
                return;
            };
            if self.contender.as_ref().is_none_or(|it| it.cohort != cohort) {
                self.retire();
                let Some(settings) = self.settings_of(cohort) else {
                    return;
                };
                let fresh = Contender::new(cohort, settings, self.seat, self.events, spare.take());
                self.contender = Some(fresh);
            }
            match self.step(cohort, cause) {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    self.retire();
                    match self.cohorts.front(cohort) {
                        Some(front) => self.fail(front, error),
                        None => return,
                    }
                }
            }
        }
    }

    /// `true` when there is nothing more to do now.
    fn step(&mut self, cohort: CohortId, cause: Cause) -> Result<bool> {
        let (Some(contender), Some(own)) = (
            self.contender.as_mut(),
            self.cohorts
                .cohort(cohort)
                .and_then(|it| it.ticket.as_ref()),
        ) else {
            return Err(self.confused());
        };
        match contender.step(own, &mut self.disk, cause)? {
            Outcome::Sleep => Ok(true),
            Outcome::Entered(door, entered) => {
                self.retire();
                self.possess(cohort, door, entered);
                Ok(true)
            }
            Outcome::TicketGone => {
                let mode = self.settings_of(cohort).and_then(|it| it.mode);
                let ticket = self.disk.take_ticket(mode, false)?;
                self.retire();
                self.tail.cohort = None;
                self.cohorts.requeue(cohort, ticket);
                Ok(false)
            }
        }
    }

    fn possess(&mut self, cohort: CohortId, door: Door, entered: Entered) {
        let (Some(front), Some(settings)) = (self.cohorts.front(cohort), self.settings_of(cohort))
        else {
            let _ = self.disk.leave(door, entered.predecessor_crashed);
            return;
        };
        let possession = Possession::new(&door, entered, Some(cohort), &settings);
        self.possession = Some(possession);
        self.roll_call = false;
        self.lapsing = None;
        self.offer(front, door);
    }

    /// Removes the tickets whose holders have their guards.
    pub(crate) fn tidy(&mut self) {
        self.tidy_at = None;
        while let Some(own) = self.leftovers.pop() {
            if let Some(queue) = self.disk.open_queue() {
                // What cannot be removed loses its lock with this descriptor, and the next one reaps it.
                let _ = queue.give_up(own);
            }
        }
    }

    // ---- events and timers --------------------------------------------------------------------------------------

    pub(crate) fn on_event(&mut self, id: WatchId) {
        match id.seen {
            Seen::Predecessor | Seen::Door => {
                if self.contender.as_mut().is_some_and(|it| it.fired(id)) {
                    self.drive(Cause::Event, None);
                }
            }
            Seen::Held => self.look_for_loss(true),
            Seen::Queue => {}
            Seen::Everything => {
                self.look_for_loss(false);
                if let Some(contender) = &mut self.contender {
                    contender.look_again();
                }
                self.drive(Cause::Event, None);
            }
        }
    }

    pub(crate) fn on_timer(&mut self) {
        self.armed = None;
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.tidy_at) {
            self.tidy();
        }
        if due(self.lost_at) {
            self.lost_at = None;
            self.look_for_loss(false);
        }
        if due(self.tick_at) {
            self.tick_at = None;
            self.tick();
        }
        if due(self.contender.as_ref().and_then(Contender::due)) {
            self.drive(Cause::Timer, None);
        }
    }

    /// When to be called again.
    pub(crate) fn due(&self) -> Option<Instant> {
        let contender = self.contender.as_ref().and_then(Contender::due);
        [self.tidy_at, self.lost_at, self.tick_at, contender]
            .into_iter()
            .flatten()
            .min()
    }

    /// Once per claim window while offers are made: an offer that has not been claimed since the last tick lapses.
    fn tick(&mut self) {
        let Some(Possession {
            occupant: Occupant::Offer { to, .. },
            cohort: Some(cohort),
            ..
        }) = &self.possession
        else {
            self.lapsing = None;
            return;
        };
        let (to, cohort) = (*to, *cohort);
        let window = self.cohorts.get(to).map(|it| it.data.settings.claim_window);
        let window = window.unwrap_or_default();
        if self.lapsing.replace(self.offers) == Some(self.offers) {
            if self.roll_call {
                self.cohorts.end_roll_call(cohort);
            }
            let wakes = &mut self.wakes;
            self.cohorts
                .begin_roll_call(to, |waker| wakes.push(waker.clone()));
            self.roll_call = true;
            self.pass_on();
            self.lapsing = Some(self.offers);
        }
        if self.possession.is_some() && self.tick_at.is_none() {
            self.tick_at = Instant::now().checked_add(window);
        }
    }

    // ---- loss ---------------------------------------------------------------------------------------------------

    /// Whether the guard with this token still has the lock.
    pub(crate) fn is_held(&mut self, token: u64) -> bool {
        self.look_for_loss(false);
        self.possession
            .as_ref()
            .is_some_and(|it| it.token == token && it.loss.is_none())
    }

    /// Asks to hear of a loss; `door` is the guard's, for the watch.
    pub(crate) fn watch_for_loss(&mut self, door: &Door) {
        self.look_for_loss(false);
        if let Some(possession) = &mut self.possession
            && possession.loss.is_none()
            && possession.held_watch.is_none()
            && self.events
        {
            possession.held_watch = watch().add(self.seat, door.file(), Seen::Held).ok();
            // It may have gone before the watch was there.
            self.look_for_loss(false);
        }
    }

    pub(crate) fn poll_lost(&mut self, token: u64, poll: Duration, waker: &Waker) -> Poll<Loss> {
        if let Some((lost, loss)) = self.lost
            && lost == token
        {
            return Poll::Ready(loss);
        }
        let held = self.possession.as_ref().is_some_and(|it| it.token == token);
        if held {
            self.lost_wakers
                .retain(|(watched, it)| *watched != token || !it.will_wake(waker));
            self.lost_wakers.push((token, waker.clone()));
            if self.lost_at.is_none() {
                self.lost_at = Instant::now().checked_add(poll.min(Duration::from_secs(1)));
            }
        }
        Poll::Pending
    }

    /// Compares the door with its path. What cannot be looked at is not taken for lost.
    fn look_for_loss(&mut self, watch_fired: bool) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        if watch_fired {
            possession.held_watch = None;
        }
        if possession.loss.is_some() {
            return;
        }
        let path = &self.disk.place().door;
        let loss = match crate::fs::sys::file::id_at(path) {
            Ok(Some(id)) if id == possession.door => None,
            Ok(Some(_)) => Some(Loss::Replaced),
            Ok(None) => Some(Loss::Deleted),
            Err(_) => None,
        };
        if let Some(loss) = loss {
            possession.loss = Some(loss);
            let token = possession.token;
            self.lost = Some((token, loss));
            for (watched, waker) in std::mem::take(&mut self.lost_wakers) {
                if watched == token {
                    self.wakes.push(waker);
                }
            }
        } else if !self.lost_wakers.is_empty() {
            self.lost_at = Instant::now().checked_add(Duration::from_secs(1));
        }
    }

    /// Lets go of what the kernel keeps for this line.
    pub(crate) fn end(&mut self) {
        self.retire();
        self.tidy();
        if let Some(id) = self.tail.watch.take() {
            watch().forget(self.seat, id);
        }
    }
}

impl Possession {
    /// With an occupant still to be set.
    fn new(door: &Door, entered: Entered, cohort: Option<CohortId>, settings: &Settings) -> Self {
        Self {
            cohort,
            door: door.id(),
            occupant: Occupant::Guard,
            token: entered.token,
            reserved: entered.token,
            crashed: entered.predecessor_crashed,
            loss: None,
            held_watch: None,
            label: settings.label.clone(),
            since: Instant::now(),
        }
    }

    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// Whether a guard is out, or the lock is still on its way to one.
    pub(crate) fn is_claimed(&self) -> bool {
        matches!(self.occupant, Occupant::Guard)
    }
}
