//! The queue of one lock in memory; see [`mem`](super).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};

use super::state::{By, State};
use super::tick;
use super::world::World;
use crate::address::Address;
use crate::backend::Mode;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::SafeWaker;
use crate::options::check_permits;
use crate::status::{Changes, Status, Waiting};
use crate::trace::Note;

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
pub(super) struct Caller<'a> {
    pub(super) mode: Mode,
    pub(super) by: By,
    /// Fail if this many already wait.
    pub(super) most: Option<usize>,
    pub(super) waker: &'a Waker,
}

impl Line {
    pub(super) fn new(this: &Weak<Self>, world: &Arc<World>, name: &str, kind: Kind) -> Self {
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

    pub(super) fn kind(&self) -> Kind {
        match self.kind {
            Kind::Semaphore(_) => Kind::Semaphore(self.parts()),
            kind => kind,
        }
    }

    pub(super) fn parts(&self) -> u32 {
        self.parts.load(Ordering::SeqCst)
    }

    /// Returns how many parts are neither held nor on offer.
    pub(super) fn free(&self) -> u32 {
        self.locked_quietly(|state| state.free())
    }

    /// Changes the number of parts. To reduce it, the caller must hold all `from` parts. Returns
    /// `false` if there are no longer `from` parts.
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
        let (line, mut last) = (self.clone(), None);
        Changes::new(futures::stream::poll_fn(move |cx| {
            let waker = SafeWaker::of(cx.waker());
            let now = line.locked_quietly(|state| {
                let now = state.status();
                if last.as_ref() == Some(&now) {
                    state.onlookers.push(waker);
                } else {
                    state.to_drop.push(waker);
                }
                now
            });
            match last.as_ref() == Some(&now) {
                true => Poll::Pending,
                false => {
                    last = Some(now.clone());
                    Poll::Ready(Some(Ok(now)))
                }
            }
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn address(&self) -> Address {
        Address::of_memory(self.world.label(), &self.name)
    }

    /// Returns how many parts the caller wants.
    pub(super) fn parts_for(&self, mode: Mode) -> Result<u32> {
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
            state.to_wake.extend(onlookers);
            outcome
        })
    }

    /// Does something under the mutex, and afterwards what must not be done under it.
    fn locked_quietly<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
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
        to_wake.into_iter().for_each(SafeWaker::wake);
        drop(to_drop);
        outcome
    }

    /// Grants at once if the caller need not wait; otherwise queues it.
    pub(super) fn enter(&self, caller: Caller<'_>) -> Result<Entered> {
        let parts = self.parts_for(caller.mode)?;
        let waker = SafeWaker::of(caller.waker);
        let entered = self.locked(|state| {
            if let Some(grant) = state.enter_at_once(caller.mode, parts, &caller.by) {
                state.to_drop.push(waker);
                return Ok(Entered::Granted(grant));
            }
            let waiting = state.waiting();
            if caller.most.is_some_and(|most| waiting >= most) {
                state.to_drop.push(waker);
                return Err(waiting);
            }
            Ok(Entered::Waiting(state.queue(
                caller.mode,
                parts,
                caller.by,
                waker,
            )))
        });
        entered.map_err(|waiting| {
            let path = self.path.display();
            let most = caller.most.unwrap_or_default();
            let text = format!("{waiting} already wait, and at most {most} may: {path}");
            Error::new(ErrorKind::Busy, text)
        })
    }

    /// Grants at once if the caller need not wait.
    pub(super) fn try_enter(&self, mode: Mode, by: &By) -> Result<Option<Grant>> {
        let parts = self.parts_for(mode)?;
        Ok(self.locked(|state| state.enter_at_once(mode, parts, by)))
    }

    /// Claims the offer that was made to this queue entry, if there is one.
    pub(super) fn poll(&self, place: u64, waker: &Waker) -> Poll<Grant> {
        let waker = SafeWaker::of(waker);
        self.locked(|state| state.poll(place, waker))
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
        self.locked_quietly(|state| state.permits_of(visit))
    }

    /// Leaves this many permits to the visit, and returns another one with the rest.
    pub(super) fn split(&self, visit: u64, left: u32) -> Option<u64> {
        self.locked_quietly(|state| state.split(visit, left))
    }

    /// Adds the permits of another visit.
    pub(super) fn merge(&self, visit: u64, added: u64) {
        self.locked_quietly(|state| state.merge(visit, added));
    }

    /// Ends a claim window.
    pub(super) fn tick(&self) {
        let frozen = self.locked(|state| {
            state.tick_is_due = false;
            state.tick()
        });
        if frozen {
            Note::Frozen.tell_alone(&self.path);
        }
    }

    pub(super) fn status(&self) -> Status {
        self.locked_quietly(|state| state.status())
    }

    /// Returns the state of the wait of this queue entry.
    pub(super) fn waiting(&self, place: u64) -> Option<Waiting> {
        self.locked_quietly(|state| state.waiting_of(place))
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
