//! The acquire state: one future for every lock of every backend.
//!
//! A backend implements [`Pending`]: it asks for the lock and waits, and knows nothing of deadlines
//! or guards. [`Attempt`] drives it, measures the wait, counts it and makes the guard. [`Acquire`]
//! adds a time limit, progress reports, and the ways to wait: as a future, on a thread
//! ([`Acquire::block`]), and around a body ([`Acquire::run`]).
//!
//! # Invariants
//!
//! 1. The lock is looked at before the clock: a grant that came in time is delivered, however late
//!    the future is polled.
//! 2. After the result the backend has nothing of this caller any more, except the guard.
//! 3. A request that the lock cannot honour fails at the first poll, whether or not the lock is
//!    free.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::{Either, FusedFuture, select};
use tokio::task::coop;
use tokio::time::Sleep;

use crate::address::Address;
use crate::block;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Guard, Waited};
use crate::ledger::Enrolled;
use crate::metrics::{self, Meter};
use crate::status::Waiting;
use crate::trace;
use crate::wait::{Pending, Request};

/// A request that does not wait.
const TRY: Request = Request {
    max_waiting: None,
    try_only: true,
    thread: None,
    now: None,
};

/// How often [`Acquire::on_wait`] calls its closure.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How soon it is asked again while there is nothing to report.
const TELL_SOON: Duration = Duration::from_millis(20);

/// A wait without a clock: the backend's part, its span, and the guard that comes of it.
pub(crate) struct Attempt<G: Guard> {
    pending: G::Pending,
    /// When the first poll found that it has to wait.
    since: Option<Instant>,
    span: trace::Wait,
    metered: metrics::Wait,
    /// So that `close` of the handle wakes it.
    enrolled: Option<Enrolled>,
    over: bool,
}

impl<G: Guard> Attempt<G> {
    fn new(pending: G::Pending) -> Self {
        Self {
            pending,
            since: None,
            span: trace::Wait::default(),
            metered: metrics::Wait::default(),
            enrolled: None,
            over: false,
        }
    }

    /// As [`Pending::poll`]; stays pending after its result.
    pub(crate) fn poll(
        &mut self,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<G>>> {
        if self.over {
            return Poll::Pending;
        }
        let now = request.now();
        let request = &Request {
            now: Some(now),
            ..*request
        };
        let mut result = self.refuse_closed().map(|()| None);
        if result.is_ok() {
            let pending = &mut self.pending;
            match self.span.poll(|| pending.poll(request, cx)) {
                Poll::Ready(found) => result = found,
                Poll::Pending => {
                    self.wait(now, cx);
                    // It may have been closed before it could be woken by that.
                    match self.refuse_closed() {
                        Ok(()) => return Poll::Pending,
                        Err(error) => result = Err(error),
                    }
                }
            }
        }
        let guard = result.map(|grant| grant.map(|grant| self.guard(grant, now)));
        if let (Some(ledger), Ok(Some(guard))) = (self.pending.ledger(), &guard) {
            ledger.granted(guard.wait_time(), guard.hold().predecessor_crashed());
            self.since = None;
        }
        self.leave();
        Poll::Ready(guard)
    }

    fn guard(&self, grant: <G::Pending as Pending>::Grant, now: Instant) -> G {
        let time = self.since.map(|it| now.saturating_duration_since(it));
        let meter = self.own_meter();
        meter.granted(time);
        let waited = Waited {
            time,
            now: Some(now),
            meter,
            address: Some(&|| self.pending.address()),
        };
        G::granted(grant, waited)
    }

    /// Returns where this wait counts. A wait that contains another one counts nowhere.
    fn own_meter(&self) -> Meter {
        match self.pending.has_inner_wait() {
            true => Meter::default(),
            false => self.pending.meter(),
        }
    }

    fn refuse_closed(&self) -> Result<()> {
        match self.pending.ledger() {
            Some(ledger) => ledger.refuse_closed(|| self.place()),
            None => Ok(()),
        }
    }

    /// The backend waits.
    fn wait(&mut self, now: Instant, cx: &mut Context<'_>) {
        let pending = &self.pending;
        if self.since.is_none() {
            self.since = Some(now);
            if !pending.has_inner_wait() {
                self.span.begin(|| pending.address());
                self.metered.begin(pending.meter());
            }
        }
        match (&mut self.enrolled, pending.ledger()) {
            (Some(enrolled), _) => enrolled.renew(cx.waker()),
            (None, Some(ledger)) => self.enrolled = Some(ledger.enroll(cx.waker())),
            (None, None) => {}
        }
    }

    /// Leaves the queue. Does nothing after the result.
    pub(crate) fn leave(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.enrolled = None;
        self.pending.leave();
        if let (Some(ledger), Some(_)) = (self.pending.ledger(), self.since) {
            ledger.abandoned();
        }
        self.metered.end();
        self.span.end();
    }

    /// Returns where the inner wait counts.
    pub(crate) fn meter(&self) -> Meter {
        self.pending.meter()
    }

    pub(crate) fn waiting(&self) -> Option<Waiting> {
        let mut waiting = self.pending.waiting()?;
        waiting.waited = self.waited();
        Some(waiting)
    }

    pub(crate) fn address(&self) -> Option<Address> {
        self.pending.address()
    }

    pub(crate) fn counts_waiters(&self) -> bool {
        self.pending.counts_waiters()
    }

    fn waited(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |it| it.elapsed())
    }

    fn place(&self) -> PathBuf {
        self.address().map(|it| it.place()).unwrap_or_default()
    }
}

impl<G: Guard> Drop for Attempt<G> {
    fn drop(&mut self) {
        self.leave();
    }
}

type Teller = Box<dyn FnMut(&Waiting) + Send>;

/// Waits for a lock; resolves to the guard.
///
/// `await` it, wait on this thread with [`block`](Acquire::block), or [`run`](Acquire::run) a body
/// under the lock.
///
/// - The future joins the queue at its first poll. The limit of [`timeout`](Acquire::timeout)
///   counts from the call of `timeout`, as in Tokio.
/// - The future borrows nothing. So it can be stored, sent to another thread, and spawned.
///
/// # Cancel safety
///
/// Dropping the future at any point leaves the queue. If the lock was just granted to the future,
/// the lock passes to the next waiter at once. So `tokio::select!` and timeouts may drop it; only
/// the place in the queue is lost. To keep the place in a `select!` loop, poll one pinned future by
/// reference. It is a `FusedFuture`.
///
/// # Runtime
///
/// The wait itself needs no runtime. If the future has a time limit other than zero, or `on_wait`,
/// an `await` uses Tokio's timer:
///
/// - Outside a runtime, the first poll fails with [`ErrorKind::Unsupported`].
/// - In a runtime without `enable_time`, the first poll panics, as with Tokio's own timers.
///
/// Both happen whether or not the lock is free.
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire<G: Guard> {
    state: State<G>,
    // Both are rare, and thousands of these futures may wait.
    sleep: Option<Pin<Box<Sleep>>>,
    // A result that came while the task had to yield.
    kept: Option<Box<Result<G>>>,
}

/// Everything of an [`Acquire`] except the way it sleeps.
struct State<G: Guard> {
    attempt: Attempt<G>,
    request: Request,
    max_waiting: Option<usize>,
    limit: Limit,
    teller: Option<Teller>,
    tell_at: Option<Instant>,
    begun: bool,
    done: bool,
}

/// When to stop waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Never,
    At(Instant),
    /// A limit of zero: exactly one attempt, without a look at a clock.
    AtOnce,
}

impl Limit {
    /// A limit too far away for the clock is no limit.
    pub(crate) fn after(limit: Option<Duration>) -> Self {
        match limit {
            None => Self::Never,
            Some(Duration::ZERO) => Self::AtOnce,
            Some(limit) => now().checked_add(limit).map_or(Self::Never, Self::At),
        }
    }

    /// Returns the earlier limit.
    fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, limit) | (limit, Self::Never) => limit,
            (Self::At(one), Self::At(other)) => Self::At(one.min(other)),
            (Self::AtOnce, _) | (_, Self::AtOnce) => Self::AtOnce,
        }
    }

    fn earliest(self, other: Option<Instant>) -> Option<Instant> {
        match self {
            Self::At(when) => Some(other.map_or(when, |other| other.min(when))),
            Self::Never | Self::AtOnce => other,
        }
    }

    fn has_passed(self) -> bool {
        match self {
            Self::Never => false,
            Self::AtOnce => true,
            Self::At(when) => now() >= when,
        }
    }
}

/// Tokio's clock, so that a test's paused time is honoured.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl<G: Guard> State<G> {
    /// Before the first poll.
    fn begin(&mut self) -> Result<()> {
        self.begun = true;
        let most = self.max_waiting;
        if most.is_some_and(|most| most > 0) && !self.attempt.counts_waiters() {
            let text = "this lock has no queue whose waiters max_waiting could count";
            return Err(Error::at(
                ErrorKind::Unsupported,
                text,
                self.attempt.place(),
            ));
        }
        self.request.max_waiting = most.filter(|most| *most > 0);
        self.request.try_only = most == Some(0);
        if self.limit.has_passed() {
            // The one attempt ends by itself; from a server its answer has to travel.
            self.request.try_only = true;
            self.limit = Limit::Never;
        }
        Ok(())
    }

    /// Looks at the lock.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<G>> {
        self.attempt.poll(&self.request, cx).map(|result| {
            self.done = true;
            result?.ok_or_else(|| self.refused())
        })
    }

    /// Looks at the lock, then at the clock.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<G>> {
        let result = self.poll(cx);
        if result.is_pending() {
            if self.limit.has_passed() {
                let error = self.timed_out();
                return Poll::Ready(Err(self.fail(error)));
            }
            self.tell_when_due();
        }
        result
    }

    /// When to look again without a wake-up.
    fn look_at(&self) -> Option<Instant> {
        self.limit.earliest(self.tell_at)
    }

    /// Gives up with this error.
    fn fail(&mut self, error: Error) -> Error {
        self.done = true;
        self.attempt.leave();
        error
    }

    /// The lock is not free, and the request does not wait.
    fn refused(&self) -> Error {
        if self.max_waiting != Some(0) {
            return self.timed_out();
        }
        let holder = self.attempt.waiting().and_then(|it| it.holder);
        let text = match holder {
            Some(holder) => format!("the lock is held by {holder}, and the caller does not wait"),
            None => "the lock is not free, and the caller does not wait".to_owned(),
        };
        Error::at(ErrorKind::Busy, text, self.attempt.place())
    }

    fn timed_out(&self) -> Error {
        self.attempt.meter().timed_out();
        let why = self.attempt.waiting().and_then(|it| it.why());
        Error::timed_out(self.attempt.place(), self.attempt.waited(), why)
    }

    fn tell_when_due(&mut self) {
        let Some(tell) = &mut self.teller else {
            return;
        };
        let now = now();
        if self.tell_at.is_some_and(|due| now < due) {
            return;
        }
        let waiting = self.attempt.waiting();
        // Nothing is known yet: a server has not answered.
        let next = waiting.as_ref().map_or(TELL_SOON, |_| TELL_EVERY);
        self.tell_at = now.checked_add(next);
        if let Some(waiting) = waiting {
            tell(&waiting);
        }
    }
}

impl<G: Guard> Acquire<G> {
    pub(crate) fn new(pending: G::Pending, limit: Option<Duration>) -> Self {
        Self {
            state: State {
                attempt: Attempt::new(pending),
                request: Request::default(),
                max_waiting: None,
                limit: Limit::after(limit),
                teller: None,
                tell_at: None,
                begun: false,
                done: false,
            },
            sleep: None,
            kept: None,
        }
    }

    /// Another wait, with the limits and reports of this one, around the backend's part. This one
    /// has never been polled: a future that was is pinned, and can no longer be moved.
    pub(crate) fn map<H: Guard>(self, wrap: impl FnOnce(Attempt<G>) -> H::Pending) -> Acquire<H> {
        let State {
            attempt,
            max_waiting,
            limit,
            teller,
            ..
        } = self.state;
        let mut wrapped = Acquire::new(wrap(attempt), None);
        let state = &mut wrapped.state;
        (state.max_waiting, state.limit, state.teller) = (max_waiting, limit, teller);
        wrapped
    }

    /// The same wait, which gives up at `limit` if its own does not come first.
    pub(crate) fn within(mut self, limit: Limit) -> Self {
        self.state.limit = self.state.limit.stricter(limit);
        self
    }

    /// One attempt; `None` when the lock is not free. For locks whose answer has to travel.
    #[allow(dead_code)] // Each server is a feature.
    pub(crate) async fn try_once(mut self) -> Result<Option<G>> {
        std::future::poll_fn(|cx| self.state.attempt.poll(&TRY, cx)).await
    }

    /// One attempt, for locks that answer at once.
    pub(crate) fn try_now(mut self) -> Result<Option<G>> {
        let mut context = Context::from_waker(Waker::noop());
        match self.state.attempt.poll(&TRY, &mut context) {
            Poll::Ready(result) => result,
            // Dropped, it takes nothing.
            Poll::Pending => Ok(None),
        }
    }

    /// The backend's part.
    pub(crate) fn pending_mut(&mut self) -> &mut G::Pending {
        &mut self.state.attempt.pending
    }

    /// Which lock this waits for.
    pub(crate) fn address(&self) -> Option<Address> {
        self.state.attempt.address()
    }

    /// Fails with [`ErrorKind::TimedOut`] after `limit`, counted from this call.
    ///
    /// Zero means exactly one attempt. `None` means no limit, even if the options of the lock set
    /// one. A limit that the clock cannot represent is no limit.
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.state.limit = Limit::after(limit.into());
        self
    }

    /// Fails with [`ErrorKind::TimedOut`] at this instant of the monotonic clock.
    pub fn deadline(mut self, when: Instant) -> Self {
        self.state.limit = Limit::At(when);
        self
    }

    /// Calls `report` when the wait begins, and then once a second. It gets the place in the queue
    /// and the holder. If the lock is acquired at once, `report` is not called.
    ///
    /// ```no_run
    /// # async fn example(lock: stanchion::FifoLock) -> stanchion::Result<()> {
    /// let guard = lock.acquire().on_wait(|line| eprintln!("{line}")).await?;
    /// # Ok(()) }
    /// ```
    pub fn on_wait(mut self, report: impl FnMut(&Waiting) + Send + 'static) -> Self {
        self.state.teller = Some(Box::new(report));
        self
    }

    /// Fails with [`ErrorKind::Busy`] instead of waiting if `most` or more callers already wait.
    /// Use it to shed load. With 0 the caller never waits. A group of tasks that waits in another
    /// process counts as one waiter.
    ///
    /// A lock without a queue cannot count its waiters. There, every number but 0 fails with
    /// [`ErrorKind::Unsupported`] at the first poll, even if the lock is free.
    pub fn max_waiting(mut self, most: usize) -> Self {
        self.state.max_waiting = Some(most);
        self
    }

    /// Waits on this thread, for callers without a runtime. Time limits, `on_wait` and
    /// `max_waiting` work as with an `await`, and need no runtime either.
    ///
    /// Works on any thread that may block, also in `tokio::task::spawn_blocking` and
    /// `block_in_place`.
    ///
    /// Do not call this in an async task. There it returns an error, with two exceptions: it cannot
    /// detect a future in `tokio::task::unconstrained`, nor a task of a runtime other than Tokio.
    /// In these, it blocks the thread, perhaps forever: the holder may be a task that needs the
    /// same thread.
    ///
    /// # Errors
    ///
    /// - Those of the future.
    /// - [`ErrorKind::Unsupported`] inside an async task, because other tasks need its thread.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// use stanchion::FifoLock;
    ///
    /// let lock = FifoLock::open(dir.path().join("deploy.lock"))?;
    /// let guard = lock.acquire().timeout(Duration::from_secs(5)).block()?;
    /// # drop(guard);
    /// # Ok::<_, stanchion::Error>(())
    /// ```
    pub fn block(self) -> Result<G> {
        let mut state = self.state;
        block::refuse_async(&state.attempt.place())?;
        state.begin()?;
        if state.limit == Limit::Never && !state.request.try_only {
            state.request.thread = Some(std::thread::current().id());
        }
        let waker = block::unparker();
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(result) = state.step(&mut context) {
                return result;
            }
            match state.look_at() {
                None => std::thread::park(),
                Some(at) => std::thread::park_timeout(at.saturating_duration_since(now())),
            }
        }
    }

    /// Acquires the lock, runs `body`, and releases the lock. If the lock is lost, drops the body
    /// before its end.
    ///
    /// Returns what the body returns, in a `Result`. If that is a `Result` itself, use `??`:
    ///
    /// ```no_run
    /// # async fn example(lock: stanchion::FifoLock) -> Result<(), Box<dyn std::error::Error>> {
    /// let text = lock.acquire().run(async |_| tokio::fs::read_to_string("job.txt").await).await??;
    /// # drop(text);
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits, it leaves the queue. If it is dropped later, the
    /// body is dropped and the lock is released.
    ///
    /// # Errors
    ///
    /// - Those of the future.
    /// - [`ErrorKind::Lost`] if the lock was lost.
    /// - Those of the guard's `release`, if the body has ended and the release fails.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(lock: stanchion::FifoLock) -> stanchion::Result<()> {
    /// let answer = lock.acquire().run(async |guard| guard.token() + 1).await?;
    /// # Ok(()) }
    /// ```
    pub async fn run<T>(self, body: impl AsyncFnOnce(&G) -> T) -> Result<T> {
        let guard = self.await?;
        let outcome = {
            let body = pin!(body(&guard));
            match select(body, guard.lost()).await {
                Either::Left((value, _)) => Ok(value),
                Either::Right((loss, _)) => Err(Error::lost(loss, guard.hold().place())),
            }
        };
        let released = guard.release().await;
        let value = outcome?;
        released.map(|()| value)
    }
}

impl<G: Guard> Future for Acquire<G> {
    type Output = Result<G>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<G>> {
        let this = &mut *self;
        let state = &mut this.state;
        if let Some(result) = this.kept.take() {
            return Poll::Ready(*result);
        }
        if state.done {
            return Poll::Pending;
        }
        let first = !state.begun;
        if first {
            let begun = state.begin().and_then(|()| {
                // Before the first attempt, so that a missing timer is noticed whether or not the
                // lock is free.
                let at = state.limit.earliest(state.teller.as_ref().map(|_| now()));
                at.map_or(Ok(()), |at| set_alarm(&mut this.sleep, at))
            });
            if let Err(error) = begun {
                return Poll::Ready(Err(state.fail(error)));
            }
        }
        // A loop of acquires that never wait must still let others run. The place in the queue
        // counts from the first poll all the same: its result is kept until the task has yielded.
        let budget = match coop::poll_proceed(cx) {
            Poll::Ready(budget) => budget,
            Poll::Pending => {
                if first && let Poll::Ready(result) = state.poll(cx) {
                    this.kept = Some(Box::new(result));
                }
                return Poll::Pending;
            }
        };
        loop {
            let result = state.step(cx);
            if result.is_ready() {
                budget.made_progress();
                return result;
            }
            let Some(at) = state.look_at() else {
                return Poll::Pending;
            };
            if let Err(error) = set_alarm(&mut this.sleep, at) {
                return Poll::Ready(Err(state.fail(error)));
            }
            let sleep = this.sleep.as_mut();
            let ringing = sleep.is_some_and(|it| it.as_mut().poll(cx).is_ready());
            if !ringing {
                return Poll::Pending;
            }
        }
    }
}

impl<G: Guard> FusedFuture for Acquire<G> {
    fn is_terminated(&self) -> bool {
        self.state.done && self.kept.is_none()
    }
}

impl<G: Guard> fmt::Debug for Acquire<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("limit", &self.state.limit)
            .field("done", &self.is_terminated())
            .finish_non_exhaustive()
    }
}

/// Sets the timer, and makes it at the first use. Tokio panics where a timer is made outside a
/// runtime, so ask first.
fn set_alarm(sleep: &mut Option<Pin<Box<Sleep>>>, at: Instant) -> Result<()> {
    let at = tokio::time::Instant::from_std(at);
    match sleep {
        Some(sleep) if sleep.deadline() == at => {}
        Some(sleep) => sleep.as_mut().reset(at),
        None if tokio::runtime::Handle::try_current().is_err() => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "awaiting with a time limit or on_wait needs a Tokio runtime; `block` needs none",
            ));
        }
        None => *sleep = Some(Box::pin(tokio::time::sleep_until(at))),
    }
    Ok(())
}
