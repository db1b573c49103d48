//! The state of one wait and its hold, shared by the future, the guard and the actor.
//!
//! The mutex is held for single steps only. Nothing is awaited and no foreign code is called under
//! it: wakers are called after it is free.
//!
//! | stage | what ends it |
//! |---|---|
//! | `Asking` | the actor, by an answer |
//! | `Waiting` | the actor, by an offer or a heartbeat |
//! | `Granted` | the future takes it, or the actor takes it back when the claim window is over |
//! | `Bypassed` | the future, which asks again when it is polled |
//! | `Held` | the guard, by a release or its drop |
//! | `Over` | nothing |

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use super::ambient;
use super::clock::Stamp;
use super::store::{Grant, Kind, LockState, Target};
use crate::backend::Mode;
use crate::error::Error;
use crate::foreign::SafeWaker;
use crate::loss::{Loss, LossListener, LossWaiters, WaiterId};
use crate::status::Waiting;
use crate::sys::fork::Origin;

/// The request of a caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) mode: Mode,
    /// Do not queue if this many callers wait.
    pub(super) max_waiting: Option<usize>,
    /// Do not queue at all.
    pub(super) try_only: bool,
}

#[derive(Debug)]
pub(super) enum Stage {
    Asking,
    Waiting,
    Granted(Grant),
    Bypassed,
    Held(Grant),
    Over,
}

/// The result of the wait.
#[derive(Debug)]
pub(super) enum Outcome {
    Granted(Grant),
    Refused,
    Failed(Error),
}

pub(super) struct Session {
    /// The process that waits. In a forked child, the mutex may stay locked forever.
    origin: Origin,
    pub(super) id: String,
    pub(super) target: Arc<Target>,
    inner: Mutex<Inner>,
    /// The time until which the hold is valid.
    valid_until: AtomicU64,
}

struct Inner {
    wish: Wish,
    stage: Stage,
    outcome: Option<Outcome>,
    waker: Option<SafeWaker>,
    /// The last answer that said "you wait", and until when the server grants nothing.
    waiting: Option<(Waiting, Stamp)>,
    loss: Option<Loss>,
    waiters: LossWaiters,
    /// Called on a loss.
    counter: Option<LossListener>,
}

/// The result of a poll of the future.
pub(super) enum Seen {
    Pending,
    /// The grant went back, because the future was not polled in time. Ask again.
    AskAgain,
    Outcome(Outcome),
}

impl Session {
    pub(super) fn new(target: Arc<Target>, wish: Wish) -> Self {
        let inner = Inner {
            wish,
            stage: Stage::Asking,
            outcome: None,
            waker: None,
            waiting: None,
            loss: None,
            waiters: LossWaiters::default(),
            counter: None,
        };
        Self {
            origin: Origin::here(),
            id: ambient::fresh_id(),
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

    /// Returns whether this is a writer of a lock that readers can share.
    pub(super) fn writes(&self) -> bool {
        let wish = self.wish();
        wish.mode == Mode::Exclusive && self.target.kind == Kind::RwLock
    }

    // For the future.

    pub(super) fn poll(&self, context: &Context<'_>) -> Seen {
        // Declared before the mutex is locked, so that the old waker is dropped after it is free.
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
            Stage::Bypassed => {
                inner.stage = Stage::Asking;
                std::mem::swap(&mut inner.waker, &mut waker);
                return Seen::AskAgain;
            }
            // The lease of the grant is nearly over. The actor handles that.
            _ => std::mem::swap(&mut inner.waker, &mut waker),
        }
        Seen::Pending
    }

    /// Returns the state of the wait, if it has been queued.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        if self.is_foreign() {
            return None;
        }
        let (mut waiting, closed_until) = self.lock().waiting.clone()?;
        let closed = closed_until.since(Stamp::now());
        waiting.quarantine = (!closed.is_zero()).then_some(closed);
        Some(waiting)
    }

    // For the actor.

    pub(super) fn with_stage<T>(&self, look: impl FnOnce(&Stage) -> T) -> T {
        look(&self.lock().stage)
    }

    /// Returns whether the grant went back.
    pub(super) fn is_bypassed(&self) -> bool {
        self.with_stage(|stage| matches!(stage, Stage::Bypassed))
    }

    /// Returns whether the wait needs an answer of the server.
    pub(super) fn is_asking(&self) -> bool {
        self.with_stage(|stage| matches!(stage, Stage::Asking))
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.with_stage(|stage| matches!(stage, Stage::Waiting))
    }

    /// Records that the wait is in the queue, at this position from 0.
    pub(super) fn queue(&self, position: usize, lock_state: LockState) {
        let closed_until = Stamp::now() + lock_state.closed;
        let holder = lock_state.holder.map(|it| it.owner(SystemTime::now()));
        let mut waiting = Waiting::behind(holder);
        waiting.position = Some(position + 1);
        let mut inner = self.lock();
        if matches!(inner.stage, Stage::Asking | Stage::Waiting) {
            inner.stage = Stage::Waiting;
            inner.waiting = Some((waiting, closed_until));
        }
    }

    /// Records that the wait must ask again.
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

    /// Takes back a grant. Returns `false` if the future has taken it.
    pub(super) fn pass(&self) -> bool {
        let mut inner = self.lock();
        let unclaimed = matches!(inner.stage, Stage::Granted(_));
        if unclaimed {
            inner.stage = Stage::Bypassed;
            // The future was polled if the lease ended before the claim window.
            Self::wake(inner);
        }
        unclaimed
    }

    /// Ends the wait without a grant.
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

    /// Wakes the future after the mutex is free, because a waker is foreign code.
    fn wake(mut inner: MutexGuard<'_, Inner>) {
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Turns the request of a writer into that of a reader.
    pub(super) fn share(&self) {
        let mut inner = self.lock();
        inner.wish.mode = Mode::Shared;
    }

    pub(super) fn extend(&self, until: Stamp) {
        self.valid_until.fetch_max(until.nanos(), Ordering::AcqRel);
    }

    /// Marks a hold as lost. Returns `true` if it was held until now. A grant that the future has
    /// not taken must be requested again.
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
        let wakers = inner.waiters.take();
        let counter = inner.counter.take();
        drop(inner);
        counter.into_iter().for_each(|count| count(loss));
        wakers.for_each(SafeWaker::wake);
        true
    }

    // For the guard.

    pub(super) fn is_valid(&self) -> bool {
        Stamp::now() < self.valid_until()
    }

    pub(super) fn valid_until(&self) -> Stamp {
        Stamp::of_nanos(self.valid_until.load(Ordering::Acquire))
    }

    pub(super) fn loss(&self) -> Option<Loss> {
        self.lock().loss
    }

    fn is_foreign(&self) -> bool {
        !self.origin.is_here()
    }

    /// Calls this on a loss, or now if the hold is lost already.
    pub(super) fn on_loss(&self, listener: LossListener) {
        let mut inner = self.lock();
        match inner.loss {
            None => inner.counter = Some(listener),
            Some(loss) => {
                drop(inner);
                listener(loss);
            }
        }
    }

    /// Returns a future that waits for a loss. It stays pending in a forked child. Dropping it
    /// drops its waker.
    pub(super) fn lost(self: &Arc<Self>) -> LostHold {
        LostHold {
            session: self.clone(),
            id: WaiterId::fresh(),
        }
    }

    /// Ends the hold or the wait. Returns whether there was a guard, and how its lock was lost.
    /// From now on no loss is reported.
    pub(super) fn give_back(&self) -> (bool, Option<Loss>) {
        let mut inner = self.lock();
        let held = matches!(inner.stage, Stage::Held(_));
        inner.stage = Stage::Over;
        let (wakers, loss) = (inner.waiters.take(), inner.loss);
        let counter = inner.counter.take();
        drop(inner);
        drop((wakers, counter));
        (held, loss)
    }
}

/// Resolves when the hold of a session is lost.
pub(super) struct LostHold {
    session: Arc<Session>,
    id: WaiterId,
}

impl Future for LostHold {
    type Output = Loss;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Loss> {
        if self.session.is_foreign() {
            return Poll::Pending;
        }
        let waker = SafeWaker::of(context.waker());
        let mut inner = self.session.lock();
        let (loss, unused) = match inner.loss {
            Some(loss) => (Poll::Ready(loss), Some(waker)),
            // After the release no loss is reported.
            None if matches!(inner.stage, Stage::Over) => (Poll::Pending, Some(waker)),
            None => (Poll::Pending, inner.waiters.wait(self.id, waker)),
        };
        drop(inner);
        drop(unused);
        loss
    }
}

impl Drop for LostHold {
    fn drop(&mut self) {
        if !self.session.is_foreign() {
            let waker = self.session.lock().waiters.leave(self.id);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn session() -> Session {
        let target = Target {
            name: "a".to_owned(),
            kind: Kind::Lock,
            limit: 1,
            address: "a".to_owned(),
        };
        let wish = Wish {
            mode: Mode::Exclusive,
            max_waiting: None,
            try_only: false,
        };
        Session::new(Arc::new(target), wish)
    }

    #[test]
    fn a_future_that_saw_a_grant_too_late_is_woken_when_the_grant_goes_back() {
        let (session, bell) = (session(), Arc::new(Bell::default()));
        let waker = Waker::from(bell.clone());
        let grant = Grant {
            turn: 1,
            token: 1,
            crashed: false,
        };
        session.grant(grant, Stamp::now());
        let seen = session.poll(&Context::from_waker(&waker));
        assert!(matches!(seen, Seen::Pending), "the lease is over");
        assert!(session.pass());
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        let seen = session.poll(&Context::from_waker(&waker));
        assert!(matches!(seen, Seen::AskAgain));
    }
}
