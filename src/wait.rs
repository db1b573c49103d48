//! The wait for a lock, and the hold that it is granted. A backend implements both.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::ThreadId;
use std::time::Instant;

use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;
use crate::loss::{LossListener, Lost};
use crate::metrics::Meter;
use crate::options::{check_merge, check_split};
use crate::status::Waiting;

/// The text of the error for `split` and `merge`.
const UNMOVABLE: &str = "permits of this backend cannot be split or merged";

/// How a caller wants to hold a lock. This enum is exhaustive, so that a backend handles each mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Together with other readers.
    Shared,
    /// With this many permits of a semaphore, at least one.
    Permits(u32),
}

/// The conditions of a wait. What is public is the same for all polls of one wait.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Request {
    /// Fail with [`ErrorKind::Busy`] if this many callers already wait. At least 1.
    pub max_waiting: Option<usize>,
    /// Grant the lock only if it is free at once; do not queue.
    pub try_only: bool,
    /// The thread that blocks in this wait without a time limit.
    pub(crate) thread: Option<ThreadId>,
    /// When this poll began, so that each poll reads the clock once. `None` before the first poll.
    pub(crate) now: Option<Instant>,
}

impl Request {
    /// Returns when this poll began.
    pub(crate) fn now(&self) -> Instant {
        self.now.unwrap_or_else(Instant::now)
    }
}

/// One caller's wait in a backend.
///
/// The caller may drop it at any time. The drop leaves the queue. It also releases a lock that was
/// granted and not yet returned by [`poll`](Pending::poll).
pub trait Pending: Send + Unpin + 'static {
    /// The granted lock, from which the guard is made.
    type Grant;

    /// Sends the request at the first call, and checks the wait at each later call. Returns `None`
    /// if the lock is not free and the request [does not wait](Request::try_only).
    ///
    /// Must work without a runtime of the caller. It is not called again after it was ready.
    fn poll(
        &mut self,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Self::Grant>>>;

    /// Leaves the queue now, as the drop does. Does nothing after `poll` was ready.
    fn leave(&mut self);

    /// Returns the state of the wait, for progress reports and errors. After a refused try, returns
    /// the reason. The crate sets [`Waiting::waited`].
    fn waiting(&self) -> Option<Waiting> {
        None
    }

    /// Returns the address of the lock, or `None` for a wait that can only fail. For a
    /// [`Line`](crate::backend::Line), its own address is used.
    #[doc(hidden)]
    fn address(&self) -> Option<Address> {
        None
    }

    /// Returns whether there is a queue whose waiters can be counted. If not, no request sets
    /// [`Request::max_waiting`].
    fn counts_waiters(&self) -> bool {
        true
    }

    /// Returns the closed flag and the counts of the handle, if the backend itself does not keep
    /// them.
    #[doc(hidden)]
    fn ledger(&self) -> Option<&Arc<Ledger>> {
        None
    }

    /// Returns where the lock counts in the metrics.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn meter(&self) -> Meter {
        self.ledger()
            .map_or_else(Meter::default, |it| it.counts().meter(|| self.address()))
    }

    /// Returns whether this wait contains another one, which is counted and makes the `tracing`
    /// span.
    #[doc(hidden)]
    fn has_inner_wait(&self) -> bool {
        false
    }
}

/// A granted lock: the lock is held as long as this value lives. Dropping it releases the lock
/// without a report.
pub trait Hold: Boxed + Send + Sync + 'static {
    /// See [`Guard::token`](crate::Guard::token).
    fn token(&self) -> Option<u64> {
        None
    }

    /// See [`Guard::predecessor_crashed`](crate::Guard::predecessor_crashed).
    fn predecessor_crashed(&self) -> bool {
        false
    }

    /// See [`Permit::permits`](crate::Permit::permits). Returns 0 for a lock.
    fn permits(&self) -> u32 {
        0
    }

    /// See [`Permit::split`](crate::Permit::split). The crate calls it only if at least one permit
    /// goes and at least one stays. The default fails with [`ErrorKind::Unsupported`].
    fn split(&mut self, permits: u32) -> Result<Self>
    where
        Self: Sized,
    {
        check_split(permits, self.permits(), self.place())?;
        Err(not_here(UNMOVABLE, self.place()))
    }

    /// See [`Permit::merge`](crate::Permit::merge). The crate calls it only if both values have
    /// permits. They may be of different semaphores: refuse that with [`ErrorKind::InvalidInput`].
    /// The default fails with [`ErrorKind::Unsupported`].
    fn merge(&mut self, other: Self) -> Result<()>
    where
        Self: Sized,
    {
        check_merge(true, self.permits(), other.permits(), self.place())?;
        Err(not_here(UNMOVABLE, self.place()))
    }

    /// Turns a writer into a reader; see [`WriteGuard::downgrade`](crate::WriteGuard::downgrade).
    /// Ready when the result is known. The default fails with [`ErrorKind::Unsupported`]. After an
    /// error the caller drops this value.
    fn poll_downgrade(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        let text = "`downgrade` is not supported by this backend";
        Poll::Ready(Err(not_here(text, self.place())))
    }

    /// See [`Guard::is_held`](crate::Guard::is_held).
    fn is_held(&self) -> bool;

    /// See [`Guard::lost`](crate::Guard::lost).
    fn lost(&self) -> Lost;

    /// Begins to release at the first call. Ready when the result is known; after that the value
    /// holds nothing.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Calls what this makes, if the backend learns of a loss by itself. At most once, and not
    /// after a release.
    #[doc(hidden)]
    fn on_loss(&self, _listener: &dyn Fn() -> LossListener) {}

    /// Returns the path or address of the lock, for errors.
    fn place(&self) -> &Path;

    /// Returns whether the caller was in the queue. Override it only if the first poll of a wait is
    /// pending even when the lock is free; [`Guard::waited`](crate::Guard::waited) is `None` if it
    /// returns `false`.
    fn has_queued(&self) -> bool {
        true
    }
}

/// [`Hold::split`] and [`Hold::merge`] without the type of the value. Every hold has them.
#[doc(hidden)]
pub trait Boxed: Any {
    fn split_boxed(&mut self, permits: u32) -> Result<Box<dyn Hold>>;
    fn merge_boxed(&mut self, other: Box<dyn Hold>) -> Result<()>;
}

impl<H: Hold> Boxed for H {
    fn split_boxed(&mut self, permits: u32) -> Result<Box<dyn Hold>> {
        Ok(Box::new(self.split(permits)?))
    }

    fn merge_boxed(&mut self, other: Box<dyn Hold>) -> Result<()> {
        let other: Box<dyn Any> = other;
        match other.downcast::<H>() {
            Ok(other) => self.merge(*other),
            // Another kind of hold is not of the same semaphore.
            Err(_) => check_merge(false, 0, 0, self.place()).map(drop),
        }
    }
}

fn not_here(text: &str, place: &Path) -> Error {
    Error::at(ErrorKind::Unsupported, text, place)
}
