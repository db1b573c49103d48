//! The waiters and holders of a lock in memory, and the one routine that makes offers; see
//! [`mem`](super).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Instant, SystemTime};

use super::line::Grant;
use crate::backend::Mode;
use crate::foreign::SafeWaker;
use crate::owner::identity;
use crate::status::{Held, Owner, Status, Waiter, Waiting};

/// The last token granted by any lock of this process. Tokens grow even if a queue is dropped and
/// created again.
static TOKEN: AtomicU64 = AtomicU64::new(0);

/// A waiter's queue entry.
struct Place {
    mode: Mode,
    parts: u32,
    since: (Instant, SystemTime),
    by: By,
    /// Taken when it is called, so there is at most one wake-up for each poll.
    waker: Option<SafeWaker>,
    /// In `offered`: the last tick saw the offer. In `awake`: the waiter was woken by
    /// `call_the_roll`, and has not been polled since.
    marked: bool,
}

/// A holder's share.
struct Visit {
    mode: Mode,
    parts: u32,
    since: SystemTime,
    by: By,
}

/// A waiter or holder: the label of its handle, and its task.
#[derive(Clone)]
pub(super) struct By {
    label: Option<Arc<str>>,
    task: Option<tokio::task::Id>,
}

impl By {
    /// Returns the task that calls this, through a handle with this label.
    pub(super) fn this_task(label: Option<&Arc<str>>) -> Self {
        Self {
            label: label.cloned(),
            task: tokio::task::try_id(),
        }
    }

    /// Returns this process as an owner.
    fn owner(&self, since: SystemTime) -> Owner {
        identity().owner(self.label.as_deref(), Some(since))
    }
}

#[derive(Default)]
pub(super) struct State {
    free: u32,
    /// The last number given to a waiter or a holder, in order of arrival.
    last_number: u64,
    last_token: u64,
    awake: BTreeMap<u64, Place>,
    offered: BTreeMap<u64, Place>,
    asleep: BTreeMap<u64, Place>,
    inside: BTreeMap<u64, Visit>,
    pub(super) tick_is_due: bool,
    /// Whether `call_the_roll` has run since the last tick, so some waiters may not have been
    /// polled yet.
    roll_is_called: bool,
    /// Wakers to call when the mutex is free.
    pub(super) to_wake: Vec<SafeWaker>,
    /// Wakers to drop when the mutex is free.
    pub(super) to_drop: Vec<SafeWaker>,
    /// Wakers to call at the next change.
    pub(super) onlookers: Vec<SafeWaker>,
}

impl State {
    pub(super) fn with_parts(free: u32) -> Self {
        Self {
            free,
            ..Self::default()
        }
    }

    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Changes the number of parts. To reduce it, the caller must hold all `from` parts.
    pub(super) fn resize(&mut self, from: u32, to: u32) {
        match to.checked_sub(from) {
            Some(more) => self.free += more,
            None => {
                if let Some(all) = self.inside.values_mut().find(|it| it.parts == from) {
                    all.parts = to;
                }
            }
        }
        self.settle();
    }

    pub(super) fn waiting(&self) -> usize {
        self.awake.len() + self.offered.len() + self.asleep.len()
    }

    pub(super) fn needs_tick(&self) -> bool {
        !self.offered.is_empty() || self.roll_is_called
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Grants the parts if they are free and no waiter is awake. The parts of an offer are not
    /// free, so a waiter with an offer is never bypassed. A frozen waiter is.
    pub(super) fn enter_at_once(&mut self, mode: Mode, parts: u32, by: &By) -> Option<Grant> {
        (self.awake.is_empty() && parts <= self.free).then(|| {
            self.free -= parts;
            self.grant(mode, parts, by.clone())
        })
    }

    pub(super) fn queue(&mut self, mode: Mode, parts: u32, by: By, waker: SafeWaker) -> u64 {
        let number = self.number();
        let place = Place {
            mode,
            parts,
            since: (Instant::now(), SystemTime::now()),
            by,
            waker: Some(waker),
            marked: false,
        };
        self.awake.insert(number, place);
        number
    }

    /// Grants parts that have been set aside for the caller.
    fn grant(&mut self, mode: Mode, parts: u32, by: By) -> Grant {
        // Readers have the token of the writer before them.
        if mode != Mode::Shared || self.last_token == 0 {
            self.last_token = TOKEN.fetch_add(1, Ordering::Relaxed) + 1;
        }
        let visit = self.number();
        let since = SystemTime::now();
        let inside = Visit {
            mode,
            parts,
            since,
            by,
        };
        self.inside.insert(visit, inside);
        Grant {
            visit,
            token: self.last_token,
        }
    }

    /// Makes offers to the first waiters, as long as there are enough parts.
    fn settle(&mut self) {
        while let Some(first) = self.awake.first_entry() {
            if first.get().parts > self.free {
                return;
            }
            let (number, mut place) = first.remove_entry();
            self.free -= place.parts;
            place.marked = false;
            self.to_wake.extend(place.waker.take());
            self.offered.insert(number, place);
        }
    }

    pub(super) fn poll(&mut self, number: u64, waker: SafeWaker) -> Poll<Grant> {
        if let Some(mut place) = self.asleep.remove(&number) {
            // It is first again: its number is lower than those of all later waiters.
            place.marked = false;
            self.awake.insert(number, place);
            self.settle();
        }
        if let Some(place) = self.offered.remove(&number) {
            self.to_drop.push(waker);
            self.to_drop.extend(place.waker);
            return Poll::Ready(self.grant(place.mode, place.parts, place.by));
        }
        match self.awake.get_mut(&number) {
            Some(place) => {
                place.marked = false;
                self.to_drop.extend(place.waker.replace(waker));
            }
            None => self.to_drop.push(waker),
        }
        Poll::Pending
    }

    /// Releases the parts of a guard.
    pub(super) fn leave(&mut self, visit: u64) {
        if let Some(visit) = self.inside.remove(&visit) {
            self.free += visit.parts;
        }
        self.settle();
    }

    /// Leaves one part to a writer, which is a reader from now on. Returns `false` if it is none.
    pub(super) fn downgrade(&mut self, visit: u64) -> bool {
        let Some(visit) = self.inside.get_mut(&visit) else {
            return false;
        };
        let writes = visit.mode == Mode::Exclusive;
        if writes {
            self.free += visit.parts - 1;
            (visit.mode, visit.parts) = (Mode::Shared, 1);
            self.settle();
        }
        writes
    }

    pub(super) fn permits_of(&self, visit: u64) -> u32 {
        let visit = self.inside.get(&visit);
        let permits = visit.filter(|it| matches!(it.mode, Mode::Permits(_)));
        permits.map_or(0, |it| it.parts)
    }

    /// Leaves this many parts to the visit, and returns another one with the rest.
    pub(super) fn split(&mut self, visit: u64, left: u32) -> Option<u64> {
        let number = self.number();
        let all = self.inside.get_mut(&visit)?;
        let part = Visit {
            parts: all.parts - left,
            by: all.by.clone(),
            ..*all
        };
        all.parts = left;
        self.inside.insert(number, part);
        Some(number)
    }

    /// Adds the parts of another visit.
    pub(super) fn merge(&mut self, visit: u64, added: u64) {
        let added = self.inside.remove(&added);
        if let (Some(all), Some(added)) = (self.inside.get_mut(&visit), added) {
            all.parts += added.parts;
        }
    }

    pub(super) fn cancel(&mut self, number: u64) {
        let offer = self.offered.remove(&number);
        if let Some(place) = &offer {
            self.free += place.parts;
        }
        let waiting = || self.awake.remove(&number);
        let place = offer
            .or_else(waiting)
            .or_else(|| self.asleep.remove(&number));
        self.to_drop.extend(place.and_then(|it| it.waker));
        self.settle();
    }

    /// Ends a claim window. Returns whether an offer has lapsed.
    pub(super) fn tick(&mut self) -> bool {
        let lapsed = self.offered.extract_marked();
        let absent = match std::mem::take(&mut self.roll_is_called) {
            true => self.awake.extract_marked(),
            false => Vec::new(),
        };
        for (_, place) in &lapsed {
            self.free += place.parts;
        }
        for place in self.offered.values_mut() {
            place.marked = true;
        }
        let frozen = !lapsed.is_empty();
        self.asleep.extend(lapsed);
        self.asleep.extend(absent);
        if frozen {
            self.call_the_roll();
        }
        self.settle();
        frozen
    }

    /// Wakes all waiters. A waiter that is not polled before the next tick counts as frozen.
    fn call_the_roll(&mut self) {
        self.roll_is_called = !self.awake.is_empty();
        for place in self.awake.values_mut() {
            place.marked = true;
            self.to_wake.extend(place.waker.take());
        }
    }

    pub(super) fn status(&self) -> Status {
        let alone = self.inside.values().find(|it| it.mode == Mode::Exclusive);
        let together = self.inside.values().find(|it| it.mode != Mode::Exclusive);
        let all = self.awake.iter().chain(&self.offered).chain(&self.asleep);
        let mut waiters: Vec<_> = all
            .map(|(number, place)| Waiter {
                ticket: Some(*number),
                owner: place.by.owner(place.since.1),
                bypassed: self.asleep.contains_key(number),
                here: true,
            })
            .collect();
        waiters.sort_by_key(|it| it.ticket);
        Status {
            held: Held::of(!self.inside.is_empty()),
            holder: alone.map(|it| it.by.owner(it.since)),
            shared_by: together
                .map(|it| it.by.owner(it.since))
                .into_iter()
                .collect(),
            waiters,
            last_token: self.last_token,
            ..Status::free()
        }
    }

    pub(super) fn waiting_of(&self, number: u64) -> Option<Waiting> {
        let lists = [&self.awake, &self.offered, &self.asleep];
        let place = lists.iter().find_map(|it| it.get(&number))?;
        let before = lists.iter().map(|it| it.range(..number).count());
        let task = place.by.task;
        let mut holders = self.inside.values().map(|it| it.by.task);
        let first = self.inside.values().next();
        Some(Waiting {
            position: Some(before.sum::<usize>() + 1),
            holder: first.map(|it| it.by.owner(it.since)),
            waited: place.since.0.elapsed(),
            quarantine: None,
            held_by_this_task: task.is_some() && holders.any(|it| it == task),
        })
    }
}

/// Removes marked entries.
trait ExtractMarked {
    fn extract_marked(&mut self) -> Vec<(u64, Place)>;
}

impl ExtractMarked for BTreeMap<u64, Place> {
    fn extract_marked(&mut self) -> Vec<(u64, Place)> {
        let marked = self.iter().filter(|(_, place)| place.marked);
        let numbers: Vec<_> = marked.map(|(number, _)| *number).collect();
        let taken = numbers.into_iter().filter_map(|it| self.remove_entry(&it));
        taken.collect()
    }
}
