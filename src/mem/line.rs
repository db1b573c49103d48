//! The line of one lock in memory; see [`mem`](super).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use super::tick;
use super::world::World;
use crate::acquire::sealed::Identity;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::engine::owner::identity;
use crate::lock::{Owner, Status, Waiter, Waiting};
use crate::trace::{Note, Notes};

/// More readers than this there are never.
const READERS: u32 = u32::MAX;

/// The last token that any lock of this process was given: so they grow although a line is forgotten and made anew.
static TOKEN: AtomicU64 = AtomicU64::new(0);

/// What a name is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lock,
    RwLock,
    Semaphore(u32),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => f.write_str("a lock"),
            Self::RwLock => f.write_str("a reader-writer lock"),
            Self::Semaphore(limit) => write!(f, "a semaphore of {limit}"),
        }
    }
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Alone,
    Shared,
    Permits(u32),
}

pub(super) struct Line {
    this: Weak<Line>,
    world: Arc<World>,
    name: String,
    kind: Kind,
    /// For people: world and name.
    path: PathBuf,
    state: Mutex<State>,
}

/// Who stands in line.
struct Place {
    want: Want,
    parts: u32,
    since: (Instant, SystemTime),
    /// Taken when it is called, so there is at most one wake-up for each poll.
    waker: Option<Waker>,
    by: Option<tokio::task::Id>,
    /// Of an offer: the last tick saw it. Of one awake: it was woken by a roll call and has not been polled since.
    marked: bool,
}

/// Who is inside.
struct Visit {
    want: Want,
    parts: u32,
    since: SystemTime,
    by: Option<tokio::task::Id>,
}

/// A grant on its way into a guard.
pub(super) struct Grant {
    pub(super) visit: u64,
    pub(super) token: u64,
    pub(super) waited: Option<Duration>,
}

/// What came of a first try.
pub(super) enum Entered {
    Granted(Grant),
    /// In line, under this number.
    Waiting(u64),
}

/// Who comes.
pub(super) struct Caller<'a> {
    pub(super) want: Want,
    /// Refuse when so many wait.
    pub(super) most: Option<usize>,
    pub(super) waker: &'a Waker,
}

#[derive(Default)]
struct State {
    free: u32,
    /// Numbers of places and visits, in order of arrival.
    last_number: u64,
    last_token: u64,
    awake: BTreeMap<u64, Place>,
    offered: BTreeMap<u64, Place>,
    asleep: BTreeMap<u64, Place>,
    inside: BTreeMap<u64, Visit>,
    tick_is_due: bool,
    /// Since the last tick somebody may not have answered.
    roll_is_called: bool,
    /// To be called when the mutex is free.
    to_wake: Vec<Waker>,
    /// To be dropped then.
    to_drop: Vec<Waker>,
}

impl Line {
    pub(super) fn new(this: &Weak<Self>, world: &Arc<World>, name: &str, kind: Kind) -> Self {
        let parts = parts_of(kind);
        Self {
            this: this.clone(),
            world: world.clone(),
            name: name.to_owned(),
            kind,
            path: PathBuf::from(format!("mem:{}/{name}", world.label())),
            state: Mutex::new(State {
                free: parts,
                ..State::default()
            }),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn parts(&self) -> u32 {
        parts_of(self.kind)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn identity(&self) -> Identity {
        Identity::of_memory(self.world.label(), &self.name)
    }

    /// How many parts somebody wants.
    pub(super) fn parts_for(&self, want: Want) -> Result<u32> {
        let all = self.parts();
        match want {
            Want::Alone => Ok(all),
            Want::Shared => Ok(1),
            Want::Permits(wanted) if (1..=all).contains(&wanted) => Ok(wanted),
            Want::Permits(wanted) => {
                let path = self.path.display();
                let text = format!("{path} has {all} permits, {wanted} cannot be had");
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
        }
    }

    /// Does something under the mutex, and afterwards what must not be done there.
    fn locked<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = act(&mut state);
        let to_wake = std::mem::take(&mut state.to_wake);
        let to_drop = std::mem::take(&mut state.to_drop);
        let starts = !state.tick_is_due && state.needs_tick();
        state.tick_is_due |= starts;
        drop(state);
        if starts {
            tick::after(self.world.window(), &self.this);
        }
        to_wake.into_iter().for_each(Waker::wake);
        drop(to_drop);
        outcome
    }

    /// Enters if nobody is before, else stands in line.
    pub(super) fn enter(&self, caller: Caller<'_>) -> Result<Entered> {
        let parts = self.parts_for(caller.want)?;
        let waker = caller.waker.clone();
        let entered = self.locked(|state| {
            if let Some(grant) = state.enter_at_once(caller.want, parts) {
                state.to_drop.push(waker);
                return Ok(Entered::Granted(grant));
            }
            let waiting = state.waiting();
            if caller.most.is_some_and(|most| waiting >= most) {
                state.to_drop.push(waker);
                return Err(waiting);
            }
            Ok(Entered::Waiting(state.queue(caller.want, parts, waker)))
        });
        entered.map_err(|waiting| {
            let path = self.path.display();
            let text = match caller.most {
                Some(most @ 1..) => {
                    format!("{waiting} already wait, and at most {most} may: {path}")
                }
                _ => format!("the lock is not free, and the caller does not wait: {path}"),
            };
            Error::new(ErrorKind::Busy, text)
        })
    }

    /// Enters if nobody is before.
    pub(super) fn try_enter(&self, want: Want) -> Result<Option<Grant>> {
        let parts = self.parts_for(want)?;
        Ok(self.locked(|state| state.enter_at_once(want, parts)))
    }

    /// Claims the offer that was made to this place.
    pub(super) fn poll(&self, place: u64, waker: &Waker) -> Poll<Grant> {
        let waker = waker.clone();
        self.locked(|state| state.poll(place, waker))
    }

    /// Leaves the line.
    pub(super) fn cancel(&self, place: u64) {
        self.locked(|state| state.cancel(place));
    }

    /// Gives back what a guard has.
    pub(super) fn leave(&self, visit: u64) {
        self.locked(|state| {
            if let Some(visit) = state.inside.remove(&visit) {
                state.free += visit.parts;
            }
            state.settle();
        });
    }

    /// A claim window has gone by.
    pub(super) fn tick(&self) {
        let overslept = self.locked(|state| {
            state.tick_is_due = false;
            state.tick()
        });
        if overslept {
            let mut notes = Notes::default();
            notes.push(Note::Overslept);
            notes.tell(&self.path);
        }
    }

    pub(super) fn status(&self) -> Status {
        self.locked(|state| state.status())
    }

    /// Where a place stands.
    pub(super) fn waiting(&self, place: u64) -> Option<Waiting> {
        self.locked(|state| state.waiting_of(place))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.world.forget(&self.name);
    }
}

fn parts_of(kind: Kind) -> u32 {
    match kind {
        Kind::Lock => 1,
        Kind::RwLock => READERS,
        Kind::Semaphore(limit) => limit,
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.awake.len() + self.offered.len() + self.asleep.len()
    }

    fn needs_tick(&self) -> bool {
        !self.offered.is_empty() || self.roll_is_called
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Offers are taken from what is free, so nobody who has one is passed; who sleeps is.
    fn enter_at_once(&mut self, want: Want, parts: u32) -> Option<Grant> {
        (self.awake.is_empty() && parts <= self.free).then(|| {
            self.free -= parts;
            let by = tokio::task::try_id();
            self.grant(want, parts, by, None)
        })
    }

    fn queue(&mut self, want: Want, parts: u32, waker: Waker) -> u64 {
        let number = self.number();
        let place = Place {
            want,
            parts,
            since: (Instant::now(), SystemTime::now()),
            waker: Some(waker),
            by: tokio::task::try_id(),
            marked: false,
        };
        self.awake.insert(number, place);
        number
    }

    /// Lets somebody in for whom the parts have been set aside.
    fn grant(
        &mut self,
        want: Want,
        parts: u32,
        by: Option<tokio::task::Id>,
        waited: Option<Duration>,
    ) -> Grant {
        // Readers have the token of the writer before them.
        if want != Want::Shared || self.last_token == 0 {
            self.last_token = TOKEN.fetch_add(1, Ordering::Relaxed) + 1;
        }
        let visit = self.number();
        let since = SystemTime::now();
        let inside = Visit {
            want,
            parts,
            since,
            by,
        };
        self.inside.insert(visit, inside);
        Grant {
            visit,
            token: self.last_token,
            waited,
        }
    }

    /// Makes offers to the first in line as long as there is enough.
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

    fn poll(&mut self, number: u64, waker: Waker) -> Poll<Grant> {
        if let Some(mut place) = self.asleep.remove(&number) {
            // First again, since its number is lower than all who came later.
            place.marked = false;
            self.awake.insert(number, place);
            self.settle();
        }
        if let Some(place) = self.offered.remove(&number) {
            self.to_drop.push(waker);
            self.to_drop.extend(place.waker);
            let waited = place.since.0.elapsed();
            return Poll::Ready(self.grant(place.want, place.parts, place.by, Some(waited)));
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

    fn cancel(&mut self, number: u64) {
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

    /// Whether an offer has lapsed.
    fn tick(&mut self) -> bool {
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
        let overslept = !lapsed.is_empty();
        self.asleep.extend(lapsed);
        self.asleep.extend(absent);
        if overslept {
            self.call_the_roll();
        }
        self.settle();
        overslept
    }

    /// Wakes everybody: who is not polled until the next tick sleeps.
    fn call_the_roll(&mut self) {
        self.roll_is_called = !self.awake.is_empty();
        for place in self.awake.values_mut() {
            place.marked = true;
            self.to_wake.extend(place.waker.take());
        }
    }

    fn status(&self) -> Status {
        let alone = self.inside.values().find(|it| it.want == Want::Alone);
        let together = self.inside.values().find(|it| it.want != Want::Alone);
        let all = self.awake.iter().chain(&self.offered).chain(&self.asleep);
        let mut waiters: Vec<_> = all
            .map(|(number, place)| Waiter {
                ticket: Some(*number),
                owner: owner(place.since.1),
                passed_over: self.asleep.contains_key(number),
                here: true,
            })
            .collect();
        waiters.sort_by_key(|it| it.ticket);
        Status {
            holder: alone.map(|it| owner(it.since)),
            shared_by: together.map(|it| owner(it.since)).into_iter().collect(),
            waiters,
            last_token: self.last_token,
            ..Status::of_nobody()
        }
    }

    fn waiting_of(&self, number: u64) -> Option<Waiting> {
        let lists = [&self.awake, &self.offered, &self.asleep];
        let place = lists.iter().find_map(|it| it.get(&number))?;
        let before = lists.iter().map(|it| it.range(..number).count());
        let mut by = self.inside.values().map(|it| it.by);
        let first = self.inside.values().next();
        Some(Waiting {
            place: Some(before.sum::<usize>() + 1),
            holder: first.map(|it| owner(it.since)),
            waited: place.since.0.elapsed(),
            held_by_this_task: place.by.is_some() && by.any(|it| it == place.by),
        })
    }
}

/// This process.
fn owner(since: SystemTime) -> Owner {
    identity().owner(None, Some(since))
}

/// Takes out what bears a mark.
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
