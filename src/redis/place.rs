//! One wait and what becomes of it, as its future, its guard and the actor see it together.
//!
//! The mutex guards single steps only; nothing is awaited or called under it, save wakers that are woken after it is free.
//!
//! | stage | who moves on from it |
//! |---|---|
//! | `Asking` | the actor: an answer is on its way |
//! | `Waiting` | the actor, by an offer or a heartbeat |
//! | `Granted` | the future takes it, or the actor takes it back when the claim window is over |
//! | `Passed` | the future: it is polled again and asks again |
//! | `Held` | the guard, by its end; the actor, by a loss |
//! | `Over` | nobody |

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::client::ALL;
use super::lease::Stamp;
use super::replies::Outlook;
use super::scripts::Keys;
use crate::error::Error;
use crate::foreign::SafeWaker;
use crate::fs::sys::id::Id;
use crate::loss::Loss;

/// One lock on the server.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) keys: Keys,
    /// How many shares there are. Who wants to be alone takes all.
    pub(super) limit: u32,
    /// What the lock is, as it stands in the state: protocol, kind, limit and lease.
    pub(super) card: String,
    /// Address and name, for people.
    pub(super) place: PathBuf,
}

/// How somebody wants to come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Exclusive,
    Shared,
    Permits,
}

impl Mode {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Exclusive => "x",
            Self::Shared => "s",
            Self::Permits => "p",
        }
    }
}

/// What somebody wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) mode: Mode,
    pub(super) cost: u32,
    /// Do not join a line that is as long.
    pub(super) most: Option<usize>,
    /// Do not join a line at all.
    pub(super) try_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) token: u64,
    pub(super) crashed: bool,
    /// Whether it had to stand in line.
    pub(super) queued: bool,
}

#[derive(Debug)]
pub(super) enum Stage {
    Asking,
    Waiting,
    Granted(Grant),
    Passed,
    Held(Grant),
    Over,
}

/// What the future comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    Granted(Grant),
    Refused,
    Failed(Error),
}

pub(super) struct Place {
    pub(super) id: String,
    pub(super) target: Arc<Target>,
    inner: Mutex<Inner>,
    /// Until when the hold may be believed in.
    valid_until: AtomicU64,
}

struct Inner {
    wish: Wish,
    stage: Stage,
    outcome: Option<Outcome>,
    waker: Option<SafeWaker>,
    /// Place in line, counted from 0, and what was told with it.
    rank: Option<usize>,
    outlook: Option<Outlook>,
    loss: Option<Loss>,
    listeners: Vec<SafeWaker>,
}

/// What a poll of the future found.
pub(super) enum Seen {
    Pending,
    /// The grant was given back because nobody took it: ask again.
    AskAgain,
    Outcome(Outcome),
}

impl Place {
    pub(super) fn new(target: Arc<Target>, wish: Wish) -> Self {
        let inner = Inner {
            wish,
            stage: Stage::Asking,
            outcome: None,
            waker: None,
            rank: None,
            outlook: None,
            loss: None,
            listeners: Vec::new(),
        };
        Self {
            id: Id::fresh().to_string(),
            target,
            inner: Mutex::new(inner),
            valid_until: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wish(&self) -> Wish {
        self.lock().wish
    }

    /// Whether a writer holds it, or waits for it, whose lock readers can share.
    pub(super) fn writes(&self) -> bool {
        let wish = self.wish();
        wish.mode == Mode::Exclusive && wish.cost == ALL
    }

    // What the future does.

    pub(super) fn look(&self, context: &Context<'_>) -> Seen {
        // Declared before the mutex is taken, so that what it replaces is dropped after it is free.
        let mut waker = Some(SafeWaker::of(context.waker()));
        let mut inner = self.lock();
        if let Some(outcome) = inner.outcome.take() {
            inner.stage = Stage::Over;
            return Seen::Outcome(outcome);
        }
        match inner.stage {
            Stage::Granted(grant) if self.is_valid() => {
                inner.stage = Stage::Held(grant);
                return Seen::Outcome(Outcome::Granted(grant));
            }
            Stage::Passed => {
                inner.stage = Stage::Asking;
                std::mem::swap(&mut inner.waker, &mut waker);
                return Seen::AskAgain;
            }
            // A grant whose lease is nearly over: the actor will see to it.
            _ => std::mem::swap(&mut inner.waker, &mut waker),
        }
        Seen::Pending
    }

    /// Place in line, counted from 0, and what was told with it.
    pub(super) fn outlook(&self) -> Option<(usize, Outlook)> {
        let inner = self.lock();
        Some((inner.rank?, inner.outlook.clone()?))
    }

    // What the actor does.

    pub(super) fn with_stage<T>(&self, look: impl FnOnce(&Stage) -> T) -> T {
        look(&self.lock().stage)
    }

    /// Whether its grant was taken back.
    pub(super) fn is_passed(&self) -> bool {
        self.with_stage(|stage| matches!(stage, Stage::Passed))
    }

    /// Whether it is for the actor to move on.
    pub(super) fn is_asking(&self) -> bool {
        self.with_stage(|stage| matches!(stage, Stage::Asking))
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.with_stage(|stage| matches!(stage, Stage::Waiting))
    }

    /// It stands in line.
    pub(super) fn queue(&self, rank: usize, outlook: Outlook) {
        let mut inner = self.lock();
        if matches!(inner.stage, Stage::Asking | Stage::Waiting) {
            inner.stage = Stage::Waiting;
            inner.rank = Some(rank);
            inner.outlook = Some(outlook);
        }
    }

    /// It has to ask, for the first time or again.
    pub(super) fn ask(&self) {
        let mut inner = self.lock();
        if matches!(inner.stage, Stage::Waiting) {
            inner.stage = Stage::Asking;
        }
    }

    pub(super) fn grant(&self, grant: Grant, until: Stamp) {
        let mut inner = self.lock();
        if matches!(inner.stage, Stage::Asking | Stage::Waiting) {
            self.valid_until.store(until.nanos(), Ordering::Release);
            inner.stage = Stage::Granted(grant);
            Self::wake(inner);
        }
    }

    /// Takes back a grant that nobody took. `false` when somebody did.
    pub(super) fn pass(&self) -> bool {
        let mut inner = self.lock();
        let unclaimed = matches!(inner.stage, Stage::Granted(_));
        if unclaimed {
            inner.stage = Stage::Passed;
        }
        unclaimed
    }

    /// The wait ends without a grant.
    pub(super) fn end(&self, outcome: Outcome) {
        let mut inner = self.lock();
        inner.outcome = Some(outcome);
        inner.stage = Stage::Over;
        Self::wake(inner);
    }

    /// Wakes the future, if it waits.
    pub(super) fn nudge(&self) {
        Self::wake(self.lock());
    }

    /// Foreign code, so not under the mutex.
    fn wake(mut inner: MutexGuard<'_, Inner>) {
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A writer goes on as a reader: that is what it asks for from now on.
    pub(super) fn share(&self) {
        let mut inner = self.lock();
        (inner.wish.mode, inner.wish.cost) = (Mode::Shared, 1);
    }

    pub(super) fn extend(&self, until: Stamp) {
        self.valid_until.fetch_max(until.nanos(), Ordering::AcqRel);
    }

    /// A hold is lost, once and for all: `true`. A grant that nobody has taken yet has to be asked for anew.
    pub(super) fn lose(&self, loss: Loss) -> bool {
        let mut inner = self.lock();
        if matches!(inner.stage, Stage::Granted(_)) {
            inner.stage = Stage::Asking;
        }
        if inner.loss.is_some() || !matches!(inner.stage, Stage::Held(_)) {
            return false;
        }
        inner.loss = Some(loss);
        self.valid_until.store(0, Ordering::Release);
        let listeners = std::mem::take(&mut inner.listeners);
        drop(inner);
        listeners.into_iter().for_each(SafeWaker::wake);
        true
    }

    // What the guard does.

    pub(super) fn is_valid(&self) -> bool {
        Stamp::now() < self.valid_until()
    }

    pub(super) fn valid_until(&self) -> Stamp {
        Stamp::of_nanos(self.valid_until.load(Ordering::Acquire))
    }

    pub(super) fn loss(&self) -> Option<Loss> {
        self.lock().loss
    }

    pub(super) fn poll_lost(&self, context: &Context<'_>) -> Poll<Loss> {
        // Declared before the mutex is taken, so that one that is not needed is dropped after it is free.
        let mut waker = Some(SafeWaker::of(context.waker()));
        let mut inner = self.lock();
        if let Some(loss) = inner.loss {
            return Poll::Ready(loss);
        }
        let known = |it: &SafeWaker| inner.listeners.iter().any(|kept| kept.will_wake(it));
        let fresh = waker.take_if(|it| !known(it));
        inner.listeners.extend(fresh);
        Poll::Pending
    }

    /// The guard is given back, and nothing is lost from here on; or the future is dropped. Says whether there was a guard, and what had befallen it.
    pub(super) fn give_back(&self) -> (bool, Option<Loss>) {
        let mut inner = self.lock();
        let held = matches!(inner.stage, Stage::Held(_));
        inner.stage = Stage::Over;
        let (listeners, loss) = (std::mem::take(&mut inner.listeners), inner.loss);
        drop(inner);
        drop(listeners);
        (held, loss)
    }
}
