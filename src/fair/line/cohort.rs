//! The waiting tasks of this process, in order. Pure: no clock, no disk, no wakers called; driven
//! by [`super::core`].
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
//! # Frozen waiters
//!
//! If a waiter lets its offer lapse, it counts as frozen until it is polled. All other waiters of
//! its cohort are woken then. Those that are not polled before the next offer lapses count as
//! frozen too. So a cohort of a thousand futures that are never polled costs two or three claim
//! windows, not a thousand.
//!
//! # Invariants
//!
//! 1. Every waiter is in exactly one cohort. A cohort is removed by [`Cohorts::remove_cohort`], and
//!    only when it is empty.
//! 2. A cohort's `frozen` counts its frozen waiters. `offered` counts its waiters with an offer. No
//!    waiter is both.
//! 3. The key of a waiter that has left never names another one, because every waiter has a stamp
//!    of its own.

use std::collections::VecDeque;

use crate::fair::ticket::Mode;
use crate::fair::ticket::queue::Own;
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
pub(crate) struct CohortId(u64);

/// A waiting task.
pub(crate) struct Waiter<T> {
    pub(crate) waker: Option<SafeWaker>,
    pub(crate) data: T,
    pub(crate) cohort: CohortId,
    /// Whether it let an offer lapse and has not been polled since.
    frozen: bool,
    /// The number of its offer; 0 for none.
    offered: u64,
    /// Whether it was polled since its cohort was last woken.
    polled: bool,
    stamp: u64,
    previous: u32,
    next: u32,
}

struct Slot<T> {
    waiter: Option<Waiter<T>>,
    next_free: u32,
}

/// A run of tasks with one ticket.
pub(crate) struct Cohort {
    pub(crate) id: CohortId,
    /// The ticket. There is none while the process holds the lock and no other process queues.
    pub(crate) ticket: Option<Own>,
    /// The mode of its ticket.
    pub(crate) mode: Mode,
    first: u32,
    last: u32,
    pub(crate) length: usize,
    frozen: usize,
    offered: usize,
}

impl Cohort {
    /// Returns whether a waiter in it is awake and has no offer.
    fn has_awake(&self) -> bool {
        self.length > self.frozen + self.offered
    }

    /// Returns whether all its waiters are frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.length > 0 && self.length == self.frozen
    }

    /// Returns whether some of its waiters are frozen and all others have offers.
    pub(crate) fn has_only_frozen_left(&self) -> bool {
        self.frozen > 0 && !self.has_awake()
    }

    /// Returns whether a task with this wish may share the ticket. Later waiters see only what the
    /// ticket asks for.
    pub(crate) fn takes(&self, want: Mode) -> bool {
        self.mode == Mode::Exclusive || self.mode == want
    }
}

/// All cohorts of a process on one lock.
pub(crate) struct Cohorts<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    cohorts: VecDeque<Cohort>,
    next_id: u64,
    next_stamp: u64,
    waiting: usize,
    offered: usize,
}

impl<T> Waiter<T> {
    pub(crate) fn has_offer(&self) -> bool {
        self.offered > 0
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }
}

impl<T> Cohorts<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            cohorts: VecDeque::new(),
            next_id: 0,
            next_stamp: 0,
            waiting: 0,
            offered: 0,
        }
    }

    /// Returns how many waiters have an offer.
    pub(crate) fn offered(&self) -> usize {
        self.offered
    }

    /// Returns how many tasks wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Cohort> {
        self.cohorts.iter()
    }

    pub(crate) fn count(&self) -> usize {
        self.cohorts.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cohorts.is_empty()
    }

    /// Adds an empty cohort at the end.
    pub(crate) fn add_cohort(&mut self, ticket: Option<Own>, mode: Mode) -> CohortId {
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

    pub(crate) fn cohort(&self, id: CohortId) -> Option<&Cohort> {
        self.cohorts.iter().find(|cohort| cohort.id == id)
    }

    pub(crate) fn cohort_mut(&mut self, id: CohortId) -> Option<&mut Cohort> {
        // The cohort that holds or tries the door is at the front. Newcomers join at the back.
        let back = self.cohorts.len().wrapping_sub(1);
        if self.cohorts.get(back).is_some_and(|cohort| cohort.id == id) {
            return self.cohorts.get_mut(back);
        }
        self.cohorts.iter_mut().find(|cohort| cohort.id == id)
    }

    pub(crate) fn last(&self) -> Option<&Cohort> {
        self.cohorts.back()
    }

    /// Removes an empty cohort, and returns its ticket if there still is one.
    pub(crate) fn remove_cohort(&mut self, id: CohortId) -> Option<Own> {
        let index = self.cohorts.iter().position(|cohort| cohort.id == id)?;
        debug_assert_eq!(
            self.cohorts[index].length, 0,
            "a cohort with waiters removed"
        );
        self.cohorts.remove(index)?.ticket
    }

    /// Moves a cohort to the end with a new ticket, because its old one has disappeared.
    pub(crate) fn requeue(&mut self, id: CohortId, ticket: Own) {
        if let Some(index) = self.cohorts.iter().position(|cohort| cohort.id == id)
            && let Some(mut cohort) = self.cohorts.remove(index)
        {
            cohort.ticket = Some(ticket);
            self.cohorts.push_back(cohort);
        }
    }

    /// Returns the first cohort with a waiter that is awake and has no offer.
    pub(crate) fn first_awake(&self) -> Option<&Cohort> {
        self.cohorts.iter().find(|cohort| cohort.has_awake())
    }

    /// Adds a task at the end of a cohort.
    pub(crate) fn join(&mut self, id: CohortId, data: T) -> Option<Key> {
        let previous = self.cohort(id)?.last;
        self.next_stamp += 1;
        let index = self.allocate(Waiter {
            waker: None,
            data,
            cohort: id,
            frozen: false,
            offered: 0,
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
        Some(self.key(index))
    }

    /// Removes a task, wherever it is.
    pub(crate) fn leave(&mut self, key: Key) -> Option<Waiter<T>> {
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
        if let Some(cohort) = self.cohort_mut(waiter.cohort) {
            if cohort.first == key.index {
                cohort.first = waiter.next;
            }
            if cohort.last == key.index {
                cohort.last = waiter.previous;
            }
            cohort.length -= 1;
            cohort.frozen -= usize::from(waiter.frozen);
            cohort.offered -= usize::from(waiter.has_offer());
        }
        self.waiting -= 1;
        self.offered -= usize::from(waiter.has_offer());
        Some(waiter)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Waiter<T>> {
        self.at(key.index)
            .filter(|waiter| waiter.stamp == key.stamp)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Waiter<T>> {
        self.at_mut(key.index)
            .filter(|waiter| waiter.stamp == key.stamp)
    }

    /// Returns the first task of a cohort that is awake and has no offer.
    pub(crate) fn front(&self, id: CohortId) -> Option<Key> {
        let mut index = self.cohort(id)?.first;
        while let Some(waiter) = self.at(index) {
            if !waiter.frozen && !waiter.has_offer() {
                return Some(self.key(index));
            }
            index = waiter.next;
        }
        None
    }

    /// Gives a task an offer, with a number above 0.
    pub(crate) fn offer(&mut self, to: Key, number: u64) -> Option<&mut Waiter<T>> {
        let cohort = self.get(to).filter(|it| !it.has_offer())?.cohort;
        self.cohort_mut(cohort)?.offered += 1;
        self.offered += 1;
        let waiter = self.get_mut(to)?;
        waiter.offered = number;
        Some(waiter)
    }

    /// Takes an offer back. Returns `false` if there was none.
    fn withdraw(&mut self, key: Key) -> bool {
        let Some(waiter) = self.get_mut(key).filter(|it| it.has_offer()) else {
            return false;
        };
        waiter.offered = 0;
        let cohort = waiter.cohort;
        if let Some(cohort) = self.cohort_mut(cohort) {
            cohort.offered -= 1;
        }
        self.offered -= 1;
        true
    }

    /// Returns the tasks whose offers have this number or a smaller one.
    pub(crate) fn offered_up_to(&self, number: u64) -> Vec<Key> {
        let mut found = Vec::new();
        for cohort in &self.cohorts {
            self.for_each(cohort.id, |key, waiter| {
                if waiter.has_offer() && waiter.offered <= number {
                    found.push(key);
                }
            });
        }
        found
    }

    /// Notes that a task was polled. Returns `true` if it counted as frozen.
    pub(crate) fn note_poll(&mut self, key: Key) -> bool {
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

    /// Takes back an offer that has lapsed. Its waiter is frozen from now on. Hands the wakers of
    /// the other waiters of the cohort to `wake`.
    pub(crate) fn lapse(&mut self, lapsed: Key, mut wake: impl FnMut(SafeWaker)) {
        self.withdraw(lapsed);
        self.freeze(lapsed);
        let Some(cohort) = self.get(lapsed).map(|waiter| waiter.cohort) else {
            return;
        };
        let mut index = self.cohort(cohort).map_or(NONE, |cohort| cohort.first);
        while let Some(waiter) = self.at_mut(index) {
            if !waiter.frozen && !waiter.has_offer() {
                waiter.polled = false;
                waiter.waker.take().into_iter().for_each(&mut wake);
            }
            index = waiter.next;
        }
    }

    /// Makes those waiters of a cohort frozen that have not been polled since it was last woken.
    pub(crate) fn freeze_unpolled(&mut self, id: CohortId) {
        let mut index = self.cohort(id).map_or(NONE, |cohort| cohort.first);
        while let Some(waiter) = self.at(index) {
            let (next, absent) = (waiter.next, !waiter.polled && !waiter.has_offer());
            if absent {
                self.freeze(self.key(index));
            }
            index = next;
        }
    }

    fn freeze(&mut self, key: Key) {
        let Some(waiter) = self.get_mut(key) else {
            return;
        };
        let cohort = waiter.cohort;
        if !std::mem::replace(&mut waiter.frozen, true)
            && let Some(cohort) = self.cohort_mut(cohort)
        {
            cohort.frozen += 1;
        }
    }

    /// Calls `each` for the tasks of a cohort, first to last.
    pub(crate) fn for_each(&self, id: CohortId, mut each: impl FnMut(Key, &Waiter<T>)) {
        let mut index = self.cohort(id).map_or(NONE, |cohort| cohort.first);
        while let Some(waiter) = self.at(index) {
            each(self.key(index), waiter);
            index = waiter.next;
        }
    }

    /// Returns how many tasks of the same cohort are before a task.
    pub(crate) fn before(&self, key: Key) -> usize {
        let mut count = 0;
        let mut index = self.get(key).map_or(NONE, |waiter| waiter.previous);
        while let Some(waiter) = self.at(index) {
            count += 1;
            index = waiter.previous;
        }
        count
    }

    /// Frees the memory of many former waiters.
    pub(crate) fn shrink(&mut self) {
        if self.waiting == 0 && self.slots.len() > 64 {
            self.slots = Vec::new();
            self.free = NONE;
        }
    }

    fn allocate(&mut self, waiter: Waiter<T>) -> u32 {
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let index = self.free;
            self.free = slot.next_free;
            slot.waiter = Some(waiter);
            return index;
        }
        self.slots.push(Slot {
            waiter: Some(waiter),
            next_free: NONE,
        });
        // A u32 suffices: that many waiting tasks do not fit into memory.
        (self.slots.len() - 1) as u32
    }

    fn key(&self, index: u32) -> Key {
        let stamp = self.at(index).map_or(0, |waiter| waiter.stamp);
        Key { index, stamp }
    }

    fn at(&self, index: u32) -> Option<&Waiter<T>> {
        self.slots.get(index as usize)?.waiter.as_ref()
    }

    fn at_mut(&mut self, index: u32) -> Option<&mut Waiter<T>> {
        self.slots.get_mut(index as usize)?.waiter.as_mut()
    }
}
