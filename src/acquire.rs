//! The future that waits for a lock: deadline, progress and clean-up, the same for every backend.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Sleep;

use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::lock::Waiting;

/// How often a caller of [`Acquire::on_wait`] hears of the line.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// And how soon it is tried again while there is nothing to tell.
const TELL_SOON: Duration = Duration::from_millis(20);

/// What a backend gives to the future. Sealed: it may change with any release.
pub(crate) mod sealed {
    use super::*;

    /// One caller's place in a line.
    pub trait Attempt: Future<Output = Result<Self::Guard>> + Unpin + Send + 'static {
        type Guard;
        /// Refuse to wait when the line already has this many waiters.
        fn set_max_waiting(&mut self, most: usize);
        /// Whether there is a line whose waiters can be counted.
        fn counts_waiters(&self) -> bool {
            true
        }
        /// Make one attempt and no more. `false` where the first poll is that attempt already; `true` where the answer has to
        /// travel: then the attempt ends by itself, with the error of a limit that passed when the lock is not free.
        fn try_once(&mut self) -> bool {
            false
        }
        /// Leave the line now.
        fn cancel(&mut self);
        /// The state of the wait, for people.
        fn waiting(&self) -> Option<Waiting>;
        /// Which lock this waits for; `None` for a wait that can only fail.
        fn identity(&self) -> Option<Identity>;
        /// The error of a time limit that passed.
        fn timed_out(&self) -> Error;
    }

    /// Which lock it is, by whatever handle and spelling it was reached: two that exclude each other are equal.
    ///
    /// Ordered, and in the same way in every process: who takes several locks takes them in this order. So the order
    /// is part of the protocol.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Identity {
        backend: &'static str,
        /// The canonical path, or the address.
        place: PathBuf,
        /// Where one place has many locks.
        name: String,
    }

    impl Identity {
        /// Any lock on this file, whose path is canonical.
        pub(crate) fn of_file(path: &Path) -> Self {
            Self {
                backend: "file",
                place: path.to_path_buf(),
                name: String::new(),
            }
        }

        /// A lock of this process only: by what is shared and by its name in there.
        pub(crate) fn of_memory(world: &str, name: &str) -> Self {
            Self {
                backend: "mem",
                place: PathBuf::from(world),
                name: name.to_owned(),
            }
        }

        /// Something that stands in for a lock on this file, and excludes nobody.
        pub(crate) fn of_nothing(path: &Path) -> Self {
            Self {
                backend: "fake",
                ..Self::of_file(path)
            }
        }

        /// The canonical path of a lock on a file.
        pub(crate) fn file(&self) -> Option<&Path> {
            (self.backend == "file").then_some(&*self.place)
        }

        /// A lock with a name on a server.
        #[allow(dead_code)] // Each backend is a feature.
        pub(crate) fn of_server(
            backend: &'static str,
            address: impl Into<PathBuf>,
            name: impl Into<String>,
        ) -> Self {
            Self {
                backend,
                place: address.into(),
                name: name.into(),
            }
        }

        /// Where it is, for people.
        pub(crate) fn place(&self) -> PathBuf {
            match self.name.is_empty() {
                true => self.place.clone(),
                false => PathBuf::from(format!("{}/{}", self.place.display(), self.name)),
            }
        }
    }

    /// A path or a URL as it is; else place and name behind the backend.
    impl fmt::Display for Identity {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.file() {
                Some(path) => path.display().fmt(f),
                None => {
                    let place = self.place();
                    let place = place.display().to_string();
                    match place.starts_with(self.backend) {
                        true => f.write_str(&place),
                        false => write!(f, "{}:{place}", self.backend),
                    }
                }
            }
        }
    }

    /// Ties a guard to the way it is waited for.
    pub trait Granted: Sized {
        type Attempt: Attempt<Guard = Self>;
    }
}
use sealed::{Attempt, Identity};

type Teller = Box<dyn FnMut(&Waiting) + Send>;

pin_project! {
    /// Waits in line for a lock; resolves to the guard.
    ///
    /// Lazy: the place in line counts from the first poll. The limit of [`timeout`](Acquire::timeout) counts from its
    /// call, as in Tokio. Owned: it borrows nothing, so it can be stored, spawned and sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping it at any point leaves the line: the ticket goes, the next waiter moves up, and a lock that had just
    /// been granted is passed on at once. So `tokio::select!` and timeouts may drop it freely; only the place in line
    /// is lost. In a `select!` loop that should keep its place, poll one pinned future by reference; it is a
    /// `FusedFuture`.
    ///
    /// # Runtime
    ///
    /// The wait itself needs no runtime. A time limit (other than zero) or `on_wait` uses Tokio's timer: without a runtime the first poll fails
    /// with [`ErrorKind::Unsupported`], and in a runtime without `enable_time` it panics, as Tokio's own timers do, whether or not
    /// the lock is free.
    #[must_use = "futures do nothing unless awaited"]
    pub struct Acquire<G: Guard> {
        attempt: G::Attempt,
        #[pin]
        sleep: Option<Sleep>,
        limit: Limit,
        most: Option<usize>,
        teller: Option<Teller>,
        tell_at: Option<Instant>,
        polled: bool,
        kept: Option<Result<G>>,
        done: bool,
    }
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

    /// The one of both that ends first.
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

impl<G: Guard> Acquire<G> {
    pub(crate) fn new(attempt: G::Attempt, limit: Option<Duration>) -> Self {
        Self {
            attempt,
            sleep: None,
            limit: Limit::after(limit),
            most: None,
            teller: None,
            tell_at: None,
            polled: false,
            kept: None,
            done: false,
        }
    }

    /// The same wait with another attempt around its own, before anything else was asked of it.
    pub(crate) fn map_attempt<H: Guard>(
        self,
        wrap: impl FnOnce(G::Attempt) -> H::Attempt,
    ) -> Acquire<H> {
        Acquire {
            attempt: wrap(self.attempt),
            sleep: self.sleep,
            limit: self.limit,
            most: self.most,
            teller: self.teller,
            tell_at: self.tell_at,
            polled: self.polled,
            kept: None,
            done: self.done,
        }
    }

    /// The same wait, which gives up at `limit` if its own does not come first.
    pub(crate) fn within(mut self, limit: Limit) -> Self {
        self.limit = self.limit.stricter(limit);
        self
    }

    /// Which lock this waits for.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.attempt.identity()
    }

    /// Gives up with [`ErrorKind::TimedOut`] after `limit`, counted from this call. `None` waits for ever, also where
    /// the lock has a default limit. Zero means exactly one attempt. Limits beyond the reach of the clock are no limit.
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = Limit::after(limit.into());
        self
    }

    /// Gives up with [`ErrorKind::TimedOut`] at this instant of the monotonic clock.
    pub fn deadline(mut self, when: Instant) -> Self {
        self.limit = Limit::At(when);
        self
    }

    /// Calls `tell` when the wait begins and then once a second, with the place in line and the holder; never when
    /// the lock is entered at once.
    ///
    /// ```no_run
    /// # async fn example(lock: stanchion::FifoLock) -> stanchion::Result<()> {
    /// let guard = lock.acquire().on_wait(|line| eprintln!("{line}")).await?;
    /// # Ok(()) }
    /// ```
    pub fn on_wait(mut self, tell: impl FnMut(&Waiting) + Send + 'static) -> Self {
        self.teller = Some(Box::new(tell));
        self
    }

    /// Fails with [`ErrorKind::Busy`] instead of waiting when `most` or more already wait, to shed load. With 0 the
    /// caller never waits. A group of tasks that waits in another process counts as one.
    ///
    /// A lock without a line cannot count its waiters: with it every number but 0 fails with [`ErrorKind::Unsupported`] at the first poll, also
    /// when the lock is free.
    pub fn max_waiting(mut self, most: usize) -> Self {
        self.most = Some(most);
        self.attempt.set_max_waiting(most);
        self
    }

    /// Why nothing is attempted, where a limit was asked for that this lock cannot keep.
    fn refusal(most: Option<usize>, attempt: &G::Attempt) -> Option<Error> {
        let countless = most.is_some_and(|most| most > 0) && !attempt.counts_waiters();
        let text = "this lock has no line whose waiters max_waiting could count";
        let place = attempt.identity().map(|it| it.place()).unwrap_or_default();
        countless.then(|| Error::at(ErrorKind::Unsupported, text, place))
    }
}

impl<G: Guard> Future for Acquire<G> {
    type Output = Result<G>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<G>> {
        let mut this = self.project();
        if *this.done {
            return Poll::Pending;
        }
        if let Some(result) = this.kept.take() {
            *this.done = true;
            return Poll::Ready(result);
        }
        if !*this.polled
            && let Some(error) = Self::refusal(*this.most, this.attempt)
        {
            *this.done = true;
            this.attempt.cancel();
            return Poll::Ready(Err(error));
        }
        // Made before the first attempt, so that what a limit needs is missed at once and not only when the lock is held.
        if !*this.polled && this.limit.has_passed() && this.attempt.try_once() {
            *this.limit = Limit::Never;
        }
        if !*this.polled
            && let Some(at) = this.limit.earliest(this.teller.as_ref().map(|_| now()))
            && let Err(error) = set_alarm(this.sleep.as_mut(), at)
        {
            *this.done = true;
            return Poll::Ready(Err(error));
        }
        // A loop of acquires that never wait must still let others run. The place in line counts from the first poll all
        // the same: what it brings is kept until the task has yielded.
        let first = !std::mem::replace(this.polled, true);
        let budget = match coop::poll_proceed(cx) {
            Poll::Ready(budget) => budget,
            Poll::Pending => {
                if first && let Poll::Ready(result) = Pin::new(&mut *this.attempt).poll(cx) {
                    *this.kept = Some(result);
                }
                return Poll::Pending;
            }
        };
        // The lock first, then the clock: who has been granted the lock in time gets it however late he is polled.
        if let Poll::Ready(result) = Pin::new(&mut *this.attempt).poll(cx) {
            budget.made_progress();
            *this.done = true;
            return Poll::Ready(result);
        }
        loop {
            if this.limit.has_passed() {
                *this.done = true;
                let error = this.attempt.timed_out();
                this.attempt.cancel();
                return Poll::Ready(Err(error));
            }
            if let Some(tell) = this.teller {
                tell_when_due(tell, this.tell_at, this.attempt);
            }
            let Some(wake_at) = this.limit.earliest(*this.tell_at) else {
                return Poll::Pending;
            };
            if let Err(error) = set_alarm(this.sleep.as_mut(), wake_at) {
                *this.done = true;
                this.attempt.cancel();
                return Poll::Ready(Err(error));
            }
            let ringing = match this.sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.poll(cx).is_ready(),
                None => false,
            };
            if !ringing {
                return Poll::Pending;
            }
        }
    }
}

impl<G: Guard> FusedFuture for Acquire<G> {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl<G: Guard> fmt::Debug for Acquire<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("limit", &self.limit)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

fn tell_when_due(tell: &mut Teller, due: &mut Option<Instant>, attempt: &mut impl Attempt) {
    let now = now();
    if due.is_some_and(|due| now < due) {
        return;
    }
    let waiting = attempt.waiting();
    // Nothing is known yet: a server has not answered.
    let next = waiting.as_ref().map_or(TELL_SOON, |_| TELL_EVERY);
    *due = now.checked_add(next);
    if let Some(waiting) = waiting {
        tell(&waiting);
    }
}

/// Sets the timer, at the first use by making it: Tokio panics where a timer is made outside a runtime, so ask first.
fn set_alarm(mut sleep: Pin<&mut Option<Sleep>>, at: Instant) -> Result<()> {
    let at = tokio::time::Instant::from_std(at);
    match sleep.as_mut().as_pin_mut() {
        Some(sleep) if sleep.deadline() == at => {}
        Some(sleep) => sleep.reset(at),
        None if tokio::runtime::Handle::try_current().is_err() => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a time limit or on_wait needs a Tokio runtime; blocking_acquire takes a limit without one",
            ));
        }
        None => sleep.set(Some(tokio::time::sleep_until(at))),
    }
    Ok(())
}
