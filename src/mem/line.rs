//! The queues of locks in memory by their names: which names mean the same lock ([`World`]), the
//! queue of one lock ([`Line`]), and the one routine that makes offers (`State::settle`); see
//! [`mem`](super).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use super::tick::{self, Ticks};
use crate::address::Address;
use crate::backend::Mode;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::SafeWaker;
use crate::kind::LockKind;
use crate::options::check_permits;
use crate::owner::identity;
use crate::status::{Changes, Held, Owner, Status, Waiter, Waiting};
use crate::sys::fork::{Origin, PerProcess};
use crate::trace::Note;

/// The worlds of this process that have a name.
static NAMED: PerProcess<Mutex<HashMap<String, Weak<World>>>> = PerProcess::new(Mutex::default);

/// The next number for a world without a name.
static NUMBER: AtomicU64 = AtomicU64::new(1);

pub(super) struct World {
    name: Option<String>,
    /// A label that differs from those of all other worlds.
    label: String,
    window: Duration,
    lines: Mutex<HashMap<String, Weak<Line>>>,
    /// The process that created it.
    origin: Origin,
}

impl World {
    pub(super) fn new(window: Duration) -> Arc<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::labelled(None, format!("#{number}"), window)
    }

    pub(super) fn named(name: &str, window: Duration) -> Arc<Self> {
        let mut named = lock(NAMED.get());
        if let Some(world) = named.get(name).and_then(Weak::upgrade) {
            return world;
        }
        // A name that begins like the label of a world without a name gets one more `#`.
        let sign = if name.starts_with('#') { "#" } else { "" };
        let world = Self::labelled(Some(name.to_owned()), format!("{sign}{name}"), window);
        named.insert(name.to_owned(), Arc::downgrade(&world));
        world
    }

    fn labelled(name: Option<String>, label: String, window: Duration) -> Arc<Self> {
        Arc::new(Self {
            name,
            label,
            window,
            lines: Mutex::default(),
            origin: Origin::here(),
        })
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Returns the queue of this name, which must be of this kind.
    pub(super) fn line(self: &Arc<Self>, name: &str, kind: Kind) -> Result<Arc<Line>> {
        if let Kind::Semaphore(permits) = kind {
            check_permits(permits, u32::MAX, format!("mem:{}/{name}", self.label))?;
        }
        self.refuse_copy()?;
        let mut lines = lock(&self.lines);
        let found = lines.get(name).and_then(Weak::upgrade);
        let line = found.unwrap_or_else(|| {
            let line = Arc::new_cyclic(|this| Line::new(this, self, name, kind));
            lines.insert(name.to_owned(), Arc::downgrade(&line));
            line
        });
        // Unlock before a found queue of another kind is dropped: its drop locks the map.
        drop(lines);
        if line.kind() != kind {
            let text = format!("mem:{}/{name} is {}, not {kind}", self.label, line.kind());
            return Err(Error::new(ErrorKind::Incompatible, text));
        }
        Ok(line)
    }

    fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    /// Refuses the copy of a world in a forked child. A thread that does not exist there may have
    /// any of its mutexes.
    fn refuse_copy(&self) -> Result<()> {
        match self.is_here() {
            true => Ok(()),
            false => {
                let text =
                    "this lock in memory is from before a fork; create another Memory in the child";
                Err(Error::at(
                    ErrorKind::Unsupported,
                    text,
                    format!("mem:{}", self.label),
                ))
            }
        }
    }

    /// Forgets a queue whose last handle, future and guard are gone.
    fn forget(&self, name: &str) {
        forget_dead(&mut lock(&self.lines), name);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(name) = self.name.as_ref().filter(|_| self.is_here()) {
            forget_dead(&mut lock(NAMED.get()), name);
        }
    }
}

/// Removes a dead entry. A new entry may have taken the same name meanwhile; it stays.
fn forget_dead<T>(entries: &mut HashMap<String, Weak<T>>, name: &str) {
    if entries.get(name).is_some_and(|it| it.strong_count() == 0) {
        entries.remove(name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The parts of a reader-writer lock. There are never more readers than this.
const READERS: u32 = u32::MAX;

/// The kind of lock that a name is used for.
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

pub(super) struct Line {
    this: Weak<Line>,
    world: Arc<World>,
    name: String,
    kind: Kind,
    /// How many parts there are. For a semaphore this may change.
    parts: AtomicU32,
    /// World and name, for people.
    path: PathBuf,
    state: Mutex<State>,
}

/// A grant that becomes a guard.
pub(super) struct Grant {
    pub(super) visit: u64,
    pub(super) token: u64,
}

/// The result of the first attempt.
pub(super) enum Entered {
    Granted(Grant),
    /// In the queue, under this number.
    Waiting(u64),
}

/// A caller that may queue.
pub(super) struct Caller {
    pub(super) mode: Mode,
    pub(super) by: By,
}

impl Line {
    fn new(this: &Weak<Self>, world: &Arc<World>, name: &str, kind: Kind) -> Self {
        let parts = parts_of(kind);
        Self {
            parts: AtomicU32::new(parts),
            this: this.clone(),
            world: world.clone(),
            name: name.to_owned(),
            kind,
            path: PathBuf::from(format!("mem:{}/{name}", world.label())),
            state: Mutex::new(State::with_parts(parts)),
        }
    }

    fn kind(&self) -> Kind {
        match self.kind {
            Kind::Semaphore(_) => Kind::Semaphore(self.parts()),
            kind => kind,
        }
    }

    pub(super) fn parts(&self) -> u32 {
        self.parts.load(Ordering::SeqCst)
    }

    /// Returns whether this process created it. A forked child must not touch the mutex.
    pub(super) fn is_here(&self) -> bool {
        self.world.is_here()
    }

    /// Refuses the copy of a queue in a forked child.
    pub(super) fn refuse_copy(&self) -> Result<()> {
        self.world.refuse_copy()
    }

    /// Returns how many parts are neither held nor on offer.
    pub(super) fn free(&self) -> Result<u32> {
        self.refuse_copy()?;
        Ok(self.locked_quietly(|state| state.free()))
    }

    /// Changes the number of parts. To reduce it, the caller must hold all `from` parts. Waiters
    /// that want more than are left are refused. Returns `false` if there are no longer `from`
    /// parts.
    pub(super) fn resize(&self, from: u32, to: u32) -> bool {
        self.locked(|state| {
            let found = self
                .parts
                .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
            if found.is_ok() {
                state.resize(from, to);
            }
            found.is_ok()
        })
    }

    /// Returns the status as it changes.
    pub(super) fn changes(self: &Arc<Self>) -> Changes {
        if let Err(error) = self.refuse_copy() {
            return Changes::new(futures::stream::iter([Err(error)]));
        }
        let mut observer = Observer::new(self);
        Changes::new(futures::stream::poll_fn(move |cx| {
            observer.poll(cx.waker())
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn address(&self) -> Address {
        Address::of_memory(self.world.label(), &self.name)
    }

    /// Returns how many parts the caller wants. Called under the mutex, so that the number of parts
    /// does not change before the caller has its queue entry.
    fn parts_for(&self, mode: Mode) -> Result<u32> {
        let all = self.parts();
        match mode {
            Mode::Exclusive => Ok(all),
            Mode::Shared => Ok(1),
            Mode::Permits(wanted) => check_permits(wanted, all, &self.path).map(|()| wanted),
        }
    }

    /// Changes something under the mutex, and wakes the streams of changes.
    fn locked<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        self.locked_quietly(|state| {
            let outcome = act(state);
            let onlookers = std::mem::take(&mut state.onlookers);
            state.to_wake.extend(onlookers.into_values());
            outcome
        })
    }

    /// Does something under the mutex, and afterwards what must not be done under it.
    fn locked_quietly<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let outcome = act(&mut state);
        let to_wake = std::mem::take(&mut state.to_wake);
        let to_drop = std::mem::take(&mut state.to_drop);
        let starts = !state.tick_is_due && state.needs_tick();
        state.tick_is_due |= starts;
        drop(state);
        if starts && !tick::after(self.world.window, self.this.clone()) {
            // The next call asks again.
            lock(&self.state).tick_is_due = false;
        }
        to_wake.into_iter().for_each(SafeWaker::wake);
        drop(to_drop);
        outcome
    }

    /// Grants at once if the caller need not wait; otherwise queues it. Fails if `most` already
    /// wait.
    pub(super) fn enter(
        &self,
        caller: Caller,
        most: Option<usize>,
        waker: &Waker,
    ) -> Result<Entered> {
        self.refuse_copy()?;
        let waker = SafeWaker::of(waker);
        self.locked(|state| {
            let parts = match self.parts_for(caller.mode) {
                Ok(parts) => parts,
                Err(error) => {
                    state.to_drop.push(waker);
                    return Err(error);
                }
            };
            if let Some(grant) = state.enter_at_once(caller.mode, parts, &caller.by) {
                state.to_drop.push(waker);
                return Ok(Entered::Granted(grant));
            }
            let waiting = state.waiting();
            if let Some(most) = most.filter(|most| waiting >= *most) {
                state.to_drop.push(waker);
                return Err(self.too_many_wait(waiting, most));
            }
            let number = state.queue(caller.mode, parts, caller.by, waker);
            Ok(Entered::Waiting(number))
        })
    }

    fn too_many_wait(&self, waiting: usize, most: usize) -> Error {
        let path = self.path.display();
        let text = format!("{waiting} already wait, and at most {most} may: {path}");
        Error::new(ErrorKind::Busy, text)
    }

    /// Grants at once if the caller need not wait.
    pub(super) fn try_enter(&self, mode: Mode, by: &By) -> Result<Option<Grant>> {
        self.refuse_copy()?;
        self.locked(|state| {
            let parts = self.parts_for(mode)?;
            Ok(state.enter_at_once(mode, parts, by))
        })
    }

    /// Claims the offer that was made to this queue entry, if there is one. Fails if the entry
    /// wants more parts than are left.
    pub(super) fn poll(&self, place: u64, waker: &Waker) -> Poll<Result<Grant>> {
        self.refuse_copy()?;
        let waker = SafeWaker::of(waker);
        let polled = self.locked(|state| state.poll(place, waker));
        polled.map_err(|refused| self.refusal(refused))
    }

    fn refusal(&self, refused: Refused) -> Error {
        let Refused { wanted, limit } = refused;
        let path = self.path.display();
        let text = format!("{wanted} permits were requested, and {limit} are left: {path}");
        Error::new(ErrorKind::InvalidInput, text)
    }

    /// Leaves the queue.
    pub(super) fn cancel(&self, place: u64) {
        self.locked(|state| state.cancel(place));
    }

    /// Releases the parts of a guard.
    pub(super) fn leave(&self, visit: u64) {
        self.locked(|state| state.leave(visit));
    }

    /// Makes the writer of a reader-writer lock a reader. Returns `false` for any other visit.
    pub(super) fn downgrade(&self, visit: u64) -> bool {
        self.kind == Kind::RwLock && self.locked(|state| state.downgrade(visit))
    }

    /// Returns how many permits this visit has; 0 for a lock.
    pub(super) fn permits_of(&self, visit: u64) -> u32 {
        match self.is_here() {
            true => self.locked_quietly(|state| state.permits_of(visit)),
            false => 0,
        }
    }

    /// Leaves this many permits to the visit, and returns another one with the rest.
    pub(super) fn split(&self, visit: u64, left: u32) -> Option<u64> {
        self.locked_quietly(|state| state.split(visit, left))
    }

    /// Adds the permits of another visit.
    pub(super) fn merge(&self, visit: u64, added: u64) {
        self.locked_quietly(|state| state.merge(visit, added));
    }

    pub(super) fn status(&self) -> Result<Status> {
        self.refuse_copy()?;
        Ok(self.locked_quietly(|state| self.status_of(state)))
    }

    fn status_of(&self, state: &State) -> Status {
        let status = state.status();
        let (kind, limit) = match self.kind() {
            Kind::Lock => (LockKind::Lock, None),
            Kind::RwLock => (LockKind::RwLock, None),
            Kind::Semaphore(limit) => (LockKind::Semaphore, Some(limit)),
        };
        Status {
            kind: Some(kind),
            limit,
            available: status.available.filter(|_| limit.is_some()),
            ..status
        }
    }

    /// Returns the state of the wait of this queue entry.
    pub(super) fn waiting(&self, place: u64) -> Option<Waiting> {
        self.refuse_copy().ok()?;
        self.locked_quietly(|state| state.waiting_of(place))
    }
}

impl Ticks for Line {
    fn tick(&self) {
        let frozen = self.locked(|state| {
            state.tick_is_due = false;
            state.tick()
        });
        if frozen {
            Note::Frozen.tell(&self.path);
        }
    }
}

impl Drop for Line {
    /// Leaks the lists in a forked child: they may be in the middle of a change.
    fn drop(&mut self) {
        if self.is_here() {
            self.world.forget(&self.name);
        } else {
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(std::mem::take(state));
        }
    }
}

/// A stream of changes. While it waits for the next one, its waker is in the list of the queue.
struct Observer {
    line: Arc<Line>,
    /// Its key in that list.
    number: u64,
    last: Option<Status>,
}

impl Observer {
    fn new(line: &Arc<Line>) -> Self {
        Self {
            number: line.locked_quietly(State::number),
            line: line.clone(),
            last: None,
        }
    }

    fn poll(&mut self, waker: &Waker) -> Poll<Option<Result<Status>>> {
        self.line.refuse_copy()?;
        let waker = SafeWaker::of(waker);
        let now = self.line.locked_quietly(|state| {
            let now = self.line.status_of(state);
            let old = match self.last.as_ref() == Some(&now) {
                true => state.onlookers.insert(self.number, waker),
                false => Some(waker),
            };
            state.to_drop.extend(old);
            now
        });
        if self.last.as_ref() == Some(&now) {
            return Poll::Pending;
        }
        self.last = Some(now.clone());
        Poll::Ready(Some(Ok(now)))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if self.line.is_here() {
            self.line.locked_quietly(|state| {
                let waker = state.onlookers.remove(&self.number);
                state.to_drop.extend(waker);
            });
        }
    }
}

fn parts_of(kind: Kind) -> u32 {
    match kind {
        Kind::Lock => 1,
        Kind::RwLock => READERS,
        Kind::Semaphore(limit) => limit,
    }
}

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
    /// In `offered`: whether a tick has seen the offer.
    offer_seen: bool,
    /// In `awake`: whether the waiter was woken by `call_the_roll`, and has not been polled since.
    called: bool,
}

/// Why a waiter gets an error: it wants more parts than are left.
#[derive(Debug)]
struct Refused {
    wanted: u32,
    limit: u32,
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
struct State {
    free: u32,
    /// The last number given to a waiter or a holder, in order of arrival.
    last_number: u64,
    last_token: u64,
    awake: BTreeMap<u64, Place>,
    offered: BTreeMap<u64, Place>,
    asleep: BTreeMap<u64, Place>,
    /// Waiters that are no longer in the queue, and get an error at their next poll.
    refused: BTreeMap<u64, Refused>,
    inside: BTreeMap<u64, Visit>,
    tick_is_due: bool,
    /// Whether `call_the_roll` has run since the last tick, so some waiters may not have been
    /// polled yet.
    roll_is_called: bool,
    /// Wakers to call when the mutex is free.
    to_wake: Vec<SafeWaker>,
    /// Wakers to drop when the mutex is free.
    to_drop: Vec<SafeWaker>,
    /// Wakers to call at the next change, each with the number of its stream.
    onlookers: BTreeMap<u64, SafeWaker>,
}

impl State {
    fn with_parts(free: u32) -> Self {
        Self {
            free,
            ..Self::default()
        }
    }

    fn free(&self) -> u32 {
        self.free
    }

    /// Changes the number of parts. To reduce it, the caller must hold all `from` parts.
    fn resize(&mut self, from: u32, to: u32) {
        match to.checked_sub(from) {
            Some(more) => self.free += more,
            None => {
                if let Some(all) = self.inside.values_mut().find(|it| it.parts == from) {
                    all.parts = to;
                }
                self.refuse_more_than(to);
            }
        }
        self.settle();
    }

    /// Takes waiters that want more parts than there are out of the queue. They would never get an
    /// offer, and neither would the waiters behind them.
    fn refuse_more_than(&mut self, limit: u32) {
        for list in [&mut self.awake, &mut self.asleep] {
            for (number, place) in extract(list, |it| it.parts > limit) {
                let wanted = place.parts;
                self.refused.insert(number, Refused { wanted, limit });
                self.to_wake.extend(place.waker);
            }
        }
    }

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

    /// Grants the parts if they are free and no waiter is awake. The parts of an offer are not
    /// free, so a waiter with an offer is never bypassed. A frozen waiter is.
    fn enter_at_once(&mut self, mode: Mode, parts: u32, by: &By) -> Option<Grant> {
        (self.awake.is_empty() && parts <= self.free).then(|| {
            self.free -= parts;
            self.grant(mode, parts, by.clone())
        })
    }

    fn queue(&mut self, mode: Mode, parts: u32, by: By, waker: SafeWaker) -> u64 {
        let number = self.number();
        let place = Place {
            mode,
            parts,
            since: (Instant::now(), SystemTime::now()),
            by,
            waker: Some(waker),
            offer_seen: false,
            called: false,
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
            place.offer_seen = false;
            self.to_wake.extend(place.waker.take());
            self.offered.insert(number, place);
        }
    }

    fn poll(&mut self, number: u64, waker: SafeWaker) -> Poll<Result<Grant, Refused>> {
        if let Some(refused) = self.refused.remove(&number) {
            self.to_drop.push(waker);
            return Poll::Ready(Err(refused));
        }
        if let Some(mut place) = self.asleep.remove(&number) {
            // It is first again: its number is lower than those of all later waiters.
            place.called = false;
            self.awake.insert(number, place);
            self.settle();
        }
        if let Some(place) = self.offered.remove(&number) {
            self.to_drop.push(waker);
            self.to_drop.extend(place.waker);
            return Poll::Ready(Ok(self.grant(place.mode, place.parts, place.by)));
        }
        match self.awake.get_mut(&number) {
            Some(place) => {
                place.called = false;
                self.to_drop.extend(place.waker.replace(waker));
            }
            None => self.to_drop.push(waker),
        }
        Poll::Pending
    }

    /// Releases the parts of a guard.
    fn leave(&mut self, visit: u64) {
        if let Some(visit) = self.inside.remove(&visit) {
            self.free += visit.parts;
        }
        self.settle();
    }

    /// Leaves one part to a writer, which is a reader from now on. Returns `false` if it is none.
    fn downgrade(&mut self, visit: u64) -> bool {
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

    fn permits_of(&self, visit: u64) -> u32 {
        let visit = self.inside.get(&visit);
        let permits = visit.filter(|it| matches!(it.mode, Mode::Permits(_)));
        permits.map_or(0, |it| it.parts)
    }

    /// Leaves this many parts to the visit, and returns another one with the rest.
    fn split(&mut self, visit: u64, left: u32) -> Option<u64> {
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
    fn merge(&mut self, visit: u64, added: u64) {
        let added = self.inside.remove(&added);
        if let (Some(all), Some(added)) = (self.inside.get_mut(&visit), added) {
            all.parts += added.parts;
        }
    }

    fn cancel(&mut self, number: u64) {
        self.refused.remove(&number);
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
    fn tick(&mut self) -> bool {
        let lapsed = extract(&mut self.offered, |it| it.offer_seen);
        let absent = match std::mem::take(&mut self.roll_is_called) {
            true => extract(&mut self.awake, |it| it.called),
            false => Vec::new(),
        };
        for (_, place) in &lapsed {
            self.free += place.parts;
        }
        for place in self.offered.values_mut() {
            place.offer_seen = true;
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
            place.called = true;
            self.to_wake.extend(place.waker.take());
        }
    }

    fn status(&self) -> Status {
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
            available: Some(self.free),
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

    fn waiting_of(&self, number: u64) -> Option<Waiting> {
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

/// Removes the entries that fit.
fn extract(list: &mut BTreeMap<u64, Place>, fits: impl Fn(&Place) -> bool) -> Vec<(u64, Place)> {
    let fitting = list.iter().filter(|(_, place)| fits(place));
    let numbers: Vec<_> = fitting.map(|(number, _)| *number).collect();
    let taken = numbers.into_iter().filter_map(|it| list.remove_entry(&it));
    taken.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_forgotten() {
        let window = Duration::from_secs(2);
        let world = World::named("what_is_gone", window);
        assert!(Arc::ptr_eq(&world, &World::named("what_is_gone", window)));
        let line = world.line("a", Kind::Lock).expect("a line");
        assert_eq!(lock(&world.lines).len(), 1);
        drop(line);
        assert_eq!(lock(&world.lines).len(), 0);
        drop(world);
        assert!(!lock(NAMED.get()).contains_key("what_is_gone"));
    }

    #[test]
    fn labels_are_unlike_each_other() {
        let window = Duration::from_secs(2);
        let private = World::new(window);
        let named = World::named(private.label(), window);
        assert_ne!(private.label(), named.label());
    }
}
