//! The waiting tasks of this process, in order. Pure: no clock, no disk, no waking; driven by [`super::core`].
//!
//! # What it is
//!
//! A *cohort* is a run of tasks that arrived one after the other with no other process between them: they share one
//! ticket on disk and hand the lock to each other in memory. The cohorts of a process stand in the order of their
//! tickets; inside, tasks stand in order of arrival.
//!
//! Waiters live in a slab and are linked by index, so that joining and leaving cost no allocation once it has grown,
//! and leaving from the middle costs the same as from the front.
//!
//! # Invariants
//!
//! 1. Every waiter is in exactly one cohort; a cohort is removed by [`Cohorts::remove_cohort`], and only when empty.
//! 2. `sleepers` counts the waiters of the cohort that let an offer lapse and have not been polled since, `offered` those with an
//!    offer that stands. Nobody is both.
//! 3. A key of a waiter that has gone never means another one: every waiter has a stamp of its own.

use std::collections::VecDeque;

use super::super::ticket::Mode;
use super::super::ticket::queue::Own;
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

/// One waiting task.
pub(crate) struct Waiter<T> {
    pub(crate) waker: Option<SafeWaker>,
    pub(crate) data: T,
    pub(crate) cohort: CohortId,
    /// It let an offer lapse: passed over until it is polled.
    asleep: bool,
    /// The number of the offer that it has; 0 for none.
    offered: u64,
    /// It was polled since the last roll call.
    answered: bool,
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
    /// The place on disk; none while its process holds the lock and nobody else queues.
    pub(crate) ticket: Option<Own>,
    /// What its ticket asks for.
    pub(crate) mode: Mode,
    first: u32,
    last: u32,
    pub(crate) length: usize,
    sleepers: usize,
    offered: usize,
}

impl Cohort {
    /// Whether anybody in it waits who is awake.
    fn has_awake(&self) -> bool {
        self.length > self.sleepers + self.offered
    }

    /// Whether all who are left in it sleep.
    pub(crate) fn sleeps(&self) -> bool {
        self.length > 0 && self.length == self.sleepers
    }

    /// Whether some sleep, and everybody else has an offer.
    pub(crate) fn has_only_sleepers_left(&self) -> bool {
        self.sleepers > 0 && !self.has_awake()
    }

    /// Whether somebody with this wish may stand behind its ticket: whoever comes later sees only what that one asks for.
    pub(crate) fn takes(&self, want: Mode) -> bool {
        self.mode == Mode::Exclusive || self.mode == want
    }
}

/// All cohorts of a process on one lock.
pub(crate) struct Cohorts<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    line: VecDeque<Cohort>,
    next_id: u64,
    next_stamp: u64,
    waiting: usize,
    offered: usize,
}

impl<T> Waiter<T> {
    pub(crate) fn has_offer(&self) -> bool {
        self.offered > 0
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep
    }
}

impl<T> Cohorts<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            line: VecDeque::new(),
            next_id: 0,
            next_stamp: 0,
            waiting: 0,
            offered: 0,
        }
    }

    /// How many offers stand.
    pub(crate) fn offered(&self) -> usize {
        self.offered
    }

    /// How many tasks wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Cohort> {
        self.line.iter()
    }

    pub(crate) fn count(&self) -> usize {
        self.line.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// A new, empty cohort at the end.
    pub(crate) fn add_cohort(&mut self, ticket: Option<Own>, mode: Mode) -> CohortId {
        self.next_id += 1;
        let id = CohortId(self.next_id);
        self.line.push_back(Cohort {
            id,
            ticket,
            mode,
            first: NONE,
            last: NONE,
            length: 0,
            sleepers: 0,
            offered: 0,
        });
        id
    }

    pub(crate) fn cohort(&self, id: CohortId) -> Option<&Cohort> {
        self.line.iter().find(|cohort| cohort.id == id)
    }

    pub(crate) fn cohort_mut(&mut self, id: CohortId) -> Option<&mut Cohort> {
        // The one that holds or knocks is at the front, the one that is joined at the back.
        let back = self.line.len().wrapping_sub(1);
        if self.line.get(back).is_some_and(|cohort| cohort.id == id) {
            return self.line.get_mut(back);
        }
        self.line.iter_mut().find(|cohort| cohort.id == id)
    }

    pub(crate) fn last(&self) -> Option<&Cohort> {
        self.line.back()
    }

    /// Takes an empty cohort out of the line; its ticket, if it still stands, comes back.
    pub(crate) fn remove_cohort(&mut self, id: CohortId) -> Option<Own> {
        let index = self.line.iter().position(|cohort| cohort.id == id)?;
        debug_assert_eq!(self.line[index].length, 0, "a cohort with waiters removed");
        self.line.remove(index)?.ticket
    }

    /// Moves a cohort to the end, with a new ticket: its old one has disappeared.
    pub(crate) fn requeue(&mut self, id: CohortId, ticket: Own) {
        if let Some(index) = self.line.iter().position(|cohort| cohort.id == id)
            && let Some(mut cohort) = self.line.remove(index)
        {
            cohort.ticket = Some(ticket);
            self.line.push_back(cohort);
        }
    }

    /// The first cohort in which anybody waits who is awake.
    pub(crate) fn first_awake(&self) -> Option<&Cohort> {
        self.line.iter().find(|cohort| cohort.has_awake())
    }

    /// A task joins a cohort at its end.
    pub(crate) fn join(&mut self, id: CohortId, data: T) -> Option<Key> {
        let previous = self.cohort(id)?.last;
        self.next_stamp += 1;
        let index = self.allocate(Waiter {
            waker: None,
            data,
            cohort: id,
            asleep: false,
            offered: 0,
            answered: true,
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

    /// A task leaves, from wherever it stands.
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
            cohort.sleepers -= usize::from(waiter.asleep);
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

    /// The first task of a cohort that waits and is awake.
    pub(crate) fn front(&self, id: CohortId) -> Option<Key> {
        let mut index = self.cohort(id)?.first;
        while let Some(waiter) = self.at(index) {
            if !waiter.asleep && !waiter.has_offer() {
                return Some(self.key(index));
            }
            index = waiter.next;
        }
        None
    }

    /// A task gets an offer, with a number above 0.
    pub(crate) fn offer(&mut self, to: Key, number: u64) -> Option<&mut Waiter<T>> {
        let cohort = self.get(to).filter(|it| !it.has_offer())?.cohort;
        self.cohort_mut(cohort)?.offered += 1;
        self.offered += 1;
        let waiter = self.get_mut(to)?;
        waiter.offered = number;
        Some(waiter)
    }

    /// Takes an offer back; `false` when there was none.
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

    /// Whose offers are no newer than this one.
    pub(crate) fn offered_up_to(&self, number: u64) -> Vec<Key> {
        let mut found = Vec::new();
        for cohort in &self.line {
            self.for_each(cohort.id, |key, waiter| {
                if waiter.has_offer() && waiter.offered <= number {
                    found.push(key);
                }
            });
        }
        found
    }

    /// A task was polled: it is awake. `true` when it had been taken for asleep.
    pub(crate) fn wake_up(&mut self, key: Key) -> bool {
        let Some(waiter) = self.get_mut(key) else {
            return false;
        };
        waiter.answered = true;
        let was_asleep = std::mem::take(&mut waiter.asleep);
        let cohort = waiter.cohort;
        if was_asleep && let Some(cohort) = self.cohort_mut(cohort) {
            cohort.sleepers -= 1;
        }
        was_asleep
    }

    /// A task let its offer lapse, and has it no more. Everybody else in its cohort must answer before the next window ends:
    /// [`Cohorts::end_roll_call`]. So a cohort of a thousand futures that nobody polls costs two windows, not a thousand.
    pub(crate) fn begin_roll_call(&mut self, lapsed: Key, mut call: impl FnMut(SafeWaker)) {
        self.withdraw(lapsed);
        self.set_asleep(lapsed);
        let Some(cohort) = self.get(lapsed).map(|waiter| waiter.cohort) else {
            return;
        };
        let mut index = self.cohort(cohort).map_or(NONE, |cohort| cohort.first);
        while let Some(waiter) = self.at_mut(index) {
            if !waiter.asleep && !waiter.has_offer() {
                waiter.answered = false;
                waiter.waker.take().into_iter().for_each(&mut call);
            }
            index = waiter.next;
        }
    }

    /// Everybody in the cohort who has not been polled since the roll call is asleep.
    pub(crate) fn end_roll_call(&mut self, id: CohortId) {
        let mut index = self.cohort(id).map_or(NONE, |cohort| cohort.first);
        while let Some(waiter) = self.at(index) {
            let (next, absent) = (waiter.next, !waiter.answered && !waiter.has_offer());
            if absent {
                self.set_asleep(self.key(index));
            }
            index = next;
        }
    }

    fn set_asleep(&mut self, key: Key) {
        let Some(waiter) = self.get_mut(key) else {
            return;
        };
        let cohort = waiter.cohort;
        if !std::mem::replace(&mut waiter.asleep, true)
            && let Some(cohort) = self.cohort_mut(cohort)
        {
            cohort.sleepers += 1;
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

    /// How many tasks of its own cohort stand before a task.
    pub(crate) fn before(&self, key: Key) -> usize {
        let mut count = 0;
        let mut index = self.get(key).map_or(NONE, |waiter| waiter.previous);
        while let Some(waiter) = self.at(index) {
            count += 1;
            index = waiter.previous;
        }
        count
    }

    /// Gives back memory that a crowd left behind.
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
        // Four thousand million waiting tasks do not fit into memory.
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
