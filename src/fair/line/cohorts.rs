//! The waiting tasks of this process, in order. Pure: no clock, no disk, and no waker is called.
//!
//! # What it is
//!
//! A *cohort* is a run of tasks that arrived with no other process between them. They share one
//! ticket on disk and hand the lock to each other in memory. The cohorts of a process are in the
//! order of their tickets. The tasks of a cohort are in order of arrival.
//!
//! Waiters live in a slab and are linked by index. So joining and leaving allocate nothing once the
//! slab has grown, and leaving from the middle costs as much as leaving from the front.
//!
//! # Offers and frozen waiters
//!
//! The lock goes to a waiter as an *offer*, which it claims when it is polled. An offer that is
//! still there at the second [`tick`](Cohorts::tick) has lapsed, and its waiter counts as frozen
//! until it is polled. All other waiters of its cohort are woken then. Those that have not been
//! polled when the next offer lapses count as frozen too. So a cohort of a thousand futures that
//! are never polled costs two or three claim windows, not a thousand.
//!
//! # Invariants
//!
//! 1. Every waiter is in exactly one cohort. A cohort is removed only when it is empty.
//! 2. A cohort's `frozen` counts its frozen waiters. `offered` counts its waiters with an offer. No
//!    waiter is both.
//! 3. The key of a waiter that has left never names another one, because every waiter has a stamp
//!    of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Offer;
use crate::fair::queue_dir::OwnTicket;
use crate::fair::ticket::Mode;
use crate::fair::{Settings, Want};
use crate::foreign::SafeWaker;

const NONE: u32 = u32::MAX;

/// Names a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    stamp: u64,
}

/// Names a cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CohortId(u64);

/// A waiting task.
pub(super) struct Waiter {
    pub settings: Arc<Settings>,
    pub want: Want,
    pub since: Instant,
    waker: Option<SafeWaker>,
    cohort: CohortId,
    /// Whether it let an offer lapse and has not been polled since.
    frozen: bool,
    /// The number of its offer, and the offer.
    offer: Option<(u64, Offer)>,
    /// Whether it was polled since its cohort was last woken.
    polled: bool,
    stamp: u64,
    previous: u32,
    next: u32,
}

struct Slot {
    waiter: Option<Waiter>,
    next_free: u32,
}

/// A run of tasks with one ticket.
pub(super) struct Cohort {
    id: CohortId,
    /// The ticket. There is none while the process holds the lock and no other process queues.
    ticket: Option<OwnTicket>,
    /// The mode of its ticket.
    mode: Mode,
    first: u32,
    last: u32,
    length: usize,
    frozen: usize,
    offered: usize,
}

/// All cohorts of a process on one lock.
pub(super) struct Cohorts {
    slots: Vec<Slot>,
    free: u32,
    cohorts: VecDeque<Cohort>,
    next_id: u64,
    next_stamp: u64,
    waiting: usize,
    offered: usize,
    /// The number of the last offer.
    last_offer: u64,
    /// The last offer that the last tick has seen.
    seen_offer: Option<u64>,
}

impl Waiter {
    pub(super) fn cohort(&self) -> CohortId {
        self.cohort
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }

    pub(super) fn offer(&self) -> Option<Offer> {
        self.offer.map(|(_, offer)| offer)
    }

    /// Keeps a waker, and returns the one before.
    pub(super) fn set_waker(&mut self, waker: SafeWaker) -> Option<SafeWaker> {
        self.waker.replace(waker)
    }

    /// Takes the waker, so there is at most one wake-up for each poll.
    pub(super) fn take_waker(&mut self) -> Option<SafeWaker> {
        self.waker.take()
    }

    fn may_be_offered(&self) -> bool {
        !self.frozen && self.offer.is_none()
    }
}

impl Cohort {
    pub(super) fn id(&self) -> CohortId {
        self.id
    }

    pub(super) fn ticket(&self) -> Option<&OwnTicket> {
        self.ticket.as_ref()
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns whether a waiter in it is awake and has no offer.
    fn has_awake(&self) -> bool {
        self.length > self.frozen + self.offered
    }

    /// Returns whether all its waiters are frozen.
    pub(super) fn is_frozen(&self) -> bool {
        self.length > 0 && self.length == self.frozen
    }

    /// Returns whether some of its waiters are frozen and all others have offers.
    pub(super) fn has_only_frozen_left(&self) -> bool {
        self.frozen > 0 && !self.has_awake()
    }

    /// Returns whether a task that wants this may share the ticket. Later waiters see only what the
    /// ticket asks for.
    pub(super) fn takes(&self, mode: Mode) -> bool {
        self.mode == Mode::Exclusive || self.mode == mode
    }
}

impl Cohorts {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            cohorts: VecDeque::new(),
            next_id: 0,
            next_stamp: 0,
            waiting: 0,
            offered: 0,
            last_offer: 0,
            seen_offer: None,
        }
    }

    /// Returns how many tasks wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns how many waiters have an offer.
    pub(super) fn offered(&self) -> usize {
        self.offered
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Cohort> {
        self.cohorts.iter()
    }

    pub(super) fn cohort(&self, id: CohortId) -> Option<&Cohort> {
        self.cohorts.iter().find(|cohort| cohort.id == id)
    }

    fn cohort_mut(&mut self, id: CohortId) -> Option<&mut Cohort> {
        // The cohort that holds or tries the door is at the front. Newcomers join at the back.
        let back = self.cohorts.len().wrapping_sub(1);
        if self.cohorts.get(back).is_some_and(|cohort| cohort.id == id) {
            return self.cohorts.get_mut(back);
        }
        self.cohorts.iter_mut().find(|cohort| cohort.id == id)
    }

    /// Returns the last cohort.
    pub(super) fn last(&self) -> Option<&Cohort> {
        self.cohorts.back()
    }

    /// Returns the first cohort with a waiter that is awake and has no offer.
    pub(super) fn first_awake(&self) -> Option<CohortId> {
        let mut cohorts = self.cohorts.iter();
        cohorts.find(|it| it.has_awake()).map(Cohort::id)
    }

    /// Returns the ticket of a cohort.
    pub(super) fn ticket(&self, id: CohortId) -> Option<&OwnTicket> {
        self.cohort(id)?.ticket()
    }

    /// Adds an empty cohort at the end.
    pub(super) fn add(&mut self, ticket: Option<OwnTicket>, mode: Mode) -> CohortId {
        self.next_id += 1;
        let id = CohortId(self.next_id);
        self.cohorts.push_back(Cohort {
            id,
            ticket,
            mode,
            first: NONE,
            last: NONE,
            length: 0,
            frozen: 0,
            offered: 0,
        });
        id
    }

    /// Removes an empty cohort, and returns its ticket if there still is one.
    pub(super) fn remove(&mut self, id: CohortId) -> Option<OwnTicket> {
        let index = self.cohorts.iter().position(|cohort| cohort.id == id)?;
        debug_assert!(self.cohorts[index].is_empty(), "a cohort with waiters");
        self.cohorts.remove(index)?.ticket
    }

    /// Gives a cohort a ticket, or another one.
    pub(super) fn set_ticket(&mut self, id: CohortId, ticket: OwnTicket) {
        if let Some(cohort) = self.cohort_mut(id) {
            cohort.mode = ticket.ticket.mode;
            cohort.ticket = Some(ticket);
        }
    }

    pub(super) fn take_ticket(&mut self, id: CohortId) -> Option<OwnTicket> {
        self.cohort_mut(id)?.ticket.take()
    }

    /// Moves a cohort to the end with a new ticket, because its old one has disappeared.
    pub(super) fn requeue(&mut self, id: CohortId, ticket: OwnTicket) {
        if let Some(index) = self.cohorts.iter().position(|cohort| cohort.id == id)
            && let Some(mut cohort) = self.cohorts.remove(index)
        {
            cohort.ticket = Some(ticket);
            self.cohorts.push_back(cohort);
        }
    }

    /// Adds a task at the end of a cohort.
    pub(super) fn join(
        &mut self,
        id: CohortId,
        want: Want,
        settings: &Arc<Settings>,
        since: Instant,
    ) -> Option<Key> {
        let previous = self.cohort(id)?.last;
        self.next_stamp += 1;
        let index = self.allocate(Waiter {
            settings: settings.clone(),
            want,
            since,
            waker: None,
            cohort: id,
            frozen: false,
            offer: None,
            polled: true,
            stamp: self.next_stamp,
            previous,
            next: NONE,
        });
        if let Some(last) = self.at_mut(previous) {
            last.next = index;
        }
        let cohort = self.cohort_mut(id)?;
        if cohort.first == NONE {
            cohort.first = index;
        }
        cohort.last = index;
        cohort.length += 1;
        self.waiting += 1;
        let stamp = self.next_stamp;
        Some(Key { index, stamp })
    }

    /// Removes a task, wherever it is.
    pub(super) fn leave(&mut self, key: Key) -> Option<Waiter> {
        self.get(key)?;
        let slot = self.slots.get_mut(key.index as usize)?;
        let waiter = slot.waiter.take()?;
        slot.next_free = self.free;
        self.free = key.index;
        if let Some(previous) = self.at_mut(waiter.previous) {
            previous.next = waiter.next;
        }
        if let Some(next) = self.at_mut(waiter.next) {
            next.previous = waiter.previous;
        }
        let offered = usize::from(waiter.offer.is_some());
        if let Some(cohort) = self.cohort_mut(waiter.cohort) {
            if cohort.first == key.index {
                cohort.first = waiter.next;
            }
            if cohort.last == key.index {
                cohort.last = waiter.previous;
            }
            cohort.length -= 1;
            cohort.frozen -= usize::from(waiter.frozen);
            cohort.offered -= offered;
        }
        self.waiting -= 1;
        self.offered -= offered;
        Some(waiter)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Waiter> {
        self.at(key.index)
            .filter(|waiter| waiter.stamp == key.stamp)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Waiter> {
        self.at_mut(key.index)
            .filter(|waiter| waiter.stamp == key.stamp)
    }

    /// Returns the tasks of a cohort, first to last.
    pub(super) fn members(&self, id: CohortId) -> impl Iterator<Item = (Key, &Waiter)> {
        let mut index = self.cohort(id).map_or(NONE, |cohort| cohort.first);
        std::iter::from_fn(move || {
            let waiter = self.at(index)?;
            let stamp = waiter.stamp;
            let key = Key { index, stamp };
            index = waiter.next;
            Some((key, waiter))
        })
    }

    /// Returns the first task of a cohort that is awake and has no offer.
    pub(super) fn front(&self, id: CohortId) -> Option<(Key, &Waiter)> {
        self.members(id).find(|(_, it)| it.may_be_offered())
    }

    /// Returns how many tasks of this process are before a task.
    pub(super) fn before(&self, key: Key) -> usize {
        let Some(own) = self.get(key).map(Waiter::cohort) else {
            return 0;
        };
        let earlier = self.cohorts.iter().take_while(|it| it.id != own);
        let within = self.members(own).take_while(|(it, _)| *it != key);
        earlier.map(|it| it.length).sum::<usize>() + within.count()
    }

    /// Notes that a task was polled. Returns `true` if it counted as frozen.
    pub(super) fn note_poll(&mut self, key: Key) -> bool {
        let Some(waiter) = self.get_mut(key) else {
            return false;
        };
        waiter.polled = true;
        let was_frozen = std::mem::take(&mut waiter.frozen);
        let cohort = waiter.cohort;
        if was_frozen && let Some(cohort) = self.cohort_mut(cohort) {
            cohort.frozen -= 1;
        }
        was_frozen
    }

    /// Gives a task an offer. Returns the task.
    pub(super) fn offer(&mut self, to: Key, offer: Offer) -> Option<&mut Waiter> {
        let cohort = self.get(to).filter(|it| it.offer.is_none())?.cohort;
        self.cohort_mut(cohort)?.offered += 1;
        self.offered += 1;
        self.last_offer += 1;
        let number = self.last_offer;
        let waiter = self.get_mut(to)?;
        waiter.offer = Some((number, offer));
        Some(waiter)
    }

    /// Ends a claim window. Takes back the offers that were already there at the last tick, and
    /// returns what each of them was for. `wake` gets the wakers of the other waiters.
    ///
    /// The next window begins with [`begin_window`](Self::begin_window).
    pub(super) fn tick(&mut self, mut wake: impl FnMut(SafeWaker)) -> Vec<Mode> {
        let mut lapsed = Vec::new();
        if let Some(seen) = self.seen_offer.take() {
            for index in 0..self.cohorts.len() {
                self.tick_cohort(index, seen, &mut lapsed, &mut wake);
            }
        }
        lapsed
    }

    fn tick_cohort(
        &mut self,
        index: usize,
        seen: u64,
        lapsed: &mut Vec<Mode>,
        wake: &mut impl FnMut(SafeWaker),
    ) {
        let has_lapsed = |it: &Waiter| it.offer.is_some_and(|(number, _)| number <= seen);
        let (cohort, before) = (&self.cohorts[index], lapsed.len());
        if cohort.offered == 0 || !self.members(cohort.id).any(|(_, it)| has_lapsed(it)) {
            return;
        }
        let (mut next, mut frozen) = (cohort.first, 0);
        while let Some(waiter) = self.at_mut(next) {
            next = waiter.next;
            if has_lapsed(waiter) {
                waiter.offer = None;
                lapsed.push(waiter.want.mode);
            } else if waiter.may_be_offered() && waiter.polled {
                waiter.polled = false;
                waiter.waker.take().into_iter().for_each(&mut *wake);
                continue;
            } else if !waiter.may_be_offered() {
                continue;
            }
            waiter.frozen = true;
            frozen += 1;
        }
        let withdrawn = lapsed.len() - before;
        self.offered -= withdrawn;
        self.cohorts[index].offered -= withdrawn;
        self.cohorts[index].frozen += frozen;
    }

    /// Begins a claim window. Returns its length, or `None` if there is no offer.
    pub(super) fn begin_window(&mut self) -> Option<Duration> {
        self.seen_offer = (self.offered > 0).then_some(self.last_offer);
        let cohorts = self.cohorts.iter().filter(|it| it.offered > 0);
        let waiters = cohorts.flat_map(|it| self.members(it.id));
        let offered = waiters.filter(|(_, it)| it.offer.is_some());
        offered.map(|(_, it)| it.settings.claim_window).min()
    }

    /// Frees the memory of many former waiters.
    pub(super) fn shrink(&mut self) {
        if self.waiting == 0 && self.slots.len() > 64 {
            self.slots = Vec::new();
            self.free = NONE;
        }
    }

    fn allocate(&mut self, waiter: Waiter) -> u32 {
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let index = self.free;
            self.free = slot.next_free;
            slot.waiter = Some(waiter);
            return index;
        }
        if self.slots.len() == self.slots.capacity() {
            // Not to the double size: thousands may wait, and each slot has more than 100 bytes.
            self.slots.reserve_exact(self.slots.len() / 4 + 8);
        }
        self.slots.push(Slot {
            waiter: Some(waiter),
            next_free: NONE,
        });
        // A u32 suffices: that many waiting tasks do not fit into memory.
        (self.slots.len() - 1) as u32
    }

    fn at(&self, index: u32) -> Option<&Waiter> {
        self.slots.get(index as usize)?.waiter.as_ref()
    }

    fn at_mut(&mut self, index: u32) -> Option<&mut Waiter> {
        self.slots.get_mut(index as usize)?.waiter.as_mut()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::task::Waker;

    use super::*;
    use crate::fair::Caller;

    pub(in crate::fair::line) fn settings() -> Arc<Settings> {
        Arc::new(Settings {
            words: "".into(),
            label: None,
            bits: None,
            poll_interval: Duration::MAX,
            claim_window: Duration::from_secs(2),
            wait: Default::default(),
            deadlock_is_error: false,
            closed: Arc::default(),
        })
    }

    /// Adds a cohort of this many waiters, each with a waker.
    fn add(cohorts: &mut Cohorts, count: usize) -> (CohortId, Vec<Key>) {
        let id = cohorts.add(None, Mode::Exclusive);
        let want = Want {
            mode: Mode::Exclusive,
            by: Caller::Unknown,
        };
        let join = |_| {
            let key = cohorts.join(id, want, &settings(), Instant::now());
            let key = key.expect("the cohort is there");
            let waiter = cohorts.get_mut(key).expect("it has joined");
            waiter.set_waker(SafeWaker::of(Waker::noop()));
            key
        };
        (id, (0..count).map(join).collect())
    }

    /// Ends a claim window. Returns how many offers have lapsed, and how many waiters were woken.
    fn tick(cohorts: &mut Cohorts) -> (usize, usize) {
        let mut woken = 0;
        let lapsed = cohorts.tick(|_| woken += 1).len();
        cohorts.begin_window();
        (lapsed, woken)
    }

    fn offer(cohorts: &mut Cohorts, to: Key) {
        let offered = cohorts.offer(to, Offer::default());
        assert!(offered.is_some());
    }

    #[test]
    fn an_offer_lapses_at_the_second_tick() {
        let mut cohorts = Cohorts::new();
        let (id, keys) = add(&mut cohorts, 3);
        offer(&mut cohorts, keys[0]);
        assert_eq!(tick(&mut cohorts), (0, 0));
        assert_eq!(tick(&mut cohorts), (1, 2), "the others are woken");
        assert_eq!(cohorts.front(id).map(|(key, _)| key), Some(keys[1]));
        assert!(cohorts.note_poll(keys[0]), "it was frozen");
        assert_eq!(
            cohorts.front(id).map(|(key, _)| key),
            Some(keys[0]),
            "and is first again"
        );
        assert_eq!(tick(&mut cohorts), (0, 0), "there is no offer");
    }

    #[test]
    fn p64_waiters_that_were_woken_and_not_polled_freeze_in_every_cohort() {
        let mut cohorts = Cohorts::new();
        let all = [add(&mut cohorts, 4), add(&mut cohorts, 4)];
        all.iter()
            .for_each(|(_, keys)| offer(&mut cohorts, keys[0]));
        tick(&mut cohorts);
        assert_eq!(tick(&mut cohorts), (2, 6));
        for (_, keys) in &all {
            cohorts.note_poll(keys[3]);
            offer(&mut cohorts, keys[1]);
        }
        tick(&mut cohorts);
        assert_eq!(
            tick(&mut cohorts),
            (2, 0),
            "the polled one has no waker any more"
        );
        for (id, keys) in all {
            assert_eq!(cohorts.front(id).map(|(key, _)| key), Some(keys[3]));
            assert!(cohorts.get(keys[2]).is_some_and(Waiter::is_frozen));
        }
    }

    #[test]
    fn a_waiter_that_leaves_from_the_middle_leaves_no_gap() {
        let mut cohorts = Cohorts::new();
        let (id, keys) = add(&mut cohorts, 4);
        offer(&mut cohorts, keys[1]);
        cohorts.leave(keys[1]).expect("it waits");
        assert!(cohorts.get(keys[1]).is_none(), "its key names no waiter");
        assert_eq!((cohorts.waiting(), cohorts.offered()), (3, 0));
        assert_eq!(cohorts.before(keys[3]), 2);
        let (_, more) = add(&mut cohorts, 1);
        assert!(
            cohorts.get(keys[1]).is_none(),
            "also when its slot is used again"
        );
        assert_eq!(cohorts.before(more[0]), 3);
        for key in [keys[0], keys[3], keys[2]] {
            cohorts.leave(key).expect("it waits");
        }
        assert!(cohorts.cohort(id).is_some_and(Cohort::is_empty));
        assert!(cohorts.remove(id).is_none(), "it had no ticket");
    }
}
