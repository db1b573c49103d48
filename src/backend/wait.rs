//! A wait for a lock and what it is granted, as a backend makes them.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::ThreadId;

use super::unsupported;
use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
#[cfg(doc)]
use crate::guard::{Guard, Permit, WriteGuard};
use crate::ledger::Ledger;
use crate::loss::Lost;
use crate::options::{check_merge, check_split};
use crate::status::Waiting;

/// How a caller wants to hold a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Together with other readers.
    Shared,
    /// With this many permits of a semaphore, at least one.
    Permits(u32),
}

/// What a caller asks for beside the lock itself. It is the same for all polls of one wait.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Request {
    /// Fail with [`ErrorKind::Busy`] if this many callers already wait. At least 1.
    pub max_waiting: Option<usize>,
    /// Grant the lock if that needs no waiting, and do not queue.
    pub try_only: bool,
    /// The thread that blocks until it has the lock, without a limit.
    pub(crate) thread: Option<ThreadId>,
}

/// One caller's wait in a backend.
///
/// The caller may drop it at any time. The drop leaves the queue, and gives back a lock that was
/// granted but not yet returned by [`poll`](Pending::poll).
pub trait Pending: Send + Unpin + 'static {
    /// What becomes the guard.
    type Grant;

    /// Asks for the lock at the first call, and looks after it at each later one. Returns `None` if
    /// the lock is not free and the request [does not wait](Request::try_only).
    ///
    /// Needs no runtime of the caller. Not called again after it was ready.
    fn poll(
        &mut self,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Self::Grant>>>;

    /// Leaves the queue now, as the drop does. Does nothing after the result.
    fn leave(&mut self);

    /// Returns the state of the wait, or of the refusal, for people. The caller fills in how long.
    fn waiting(&self) -> Option<Waiting> {
        None
    }

    /// Returns which lock this is, or `None` for a wait that can only fail.
    fn address(&self) -> Option<Address>;

    /// Returns whether there is a queue whose waiters can be counted. Otherwise no request has
    /// [`Request::max_waiting`].
    fn counts_waiters(&self) -> bool {
        true
    }

    /// Returns what the handle keeps, if the backend has no queue that can be closed and counted.
    #[doc(hidden)]
    fn ledger(&self) -> Option<&Arc<Ledger>> {
        None
    }

    /// Returns whether another wait inside this one has the span of the wait.
    #[doc(hidden)]
    fn has_inner_wait(&self) -> bool {
        false
    }
}

/// What a backend grants: the lock is held as long as this value lives. Dropping it releases the
/// lock without a report.
pub trait Hold: Send + Sync + 'static {
    /// See [`Guard::token`].
    fn token(&self) -> Option<u64> {
        None
    }

    /// See [`Guard::predecessor_crashed`].
    fn predecessor_crashed(&self) -> bool {
        false
    }

    /// See [`Permit::permits`]. 0 for a lock.
    fn permits(&self) -> u32 {
        0
    }

    /// See [`Permit::split`].
    fn split(&mut self, permits: u32) -> Result<Self>
    where
        Self: Sized,
    {
        check_split(permits, self.permits(), self.place())?;
        Err(not_here(self.place()))
    }

    /// See [`Permit::merge`].
    fn merge(&mut self, other: Self) -> Result<()>
    where
        Self: Sized,
    {
        check_merge(true, self.permits(), other.permits(), self.place())?;
        Err(not_here(self.place()))
    }

    /// Makes a writer a reader; see [`WriteGuard::downgrade`]. Ready when the outcome is known. By
    /// default it cannot. After an error the caller drops this value.
    fn poll_downgrade(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(unsupported("`downgrade` is", self.place()))
    }

    /// See [`Guard::is_held`].
    fn is_held(&self) -> bool;

    /// See [`Guard::lost`].
    fn lost(&self) -> Lost;

    /// Begins to release at the first call. Ready when the outcome is known; after that the value
    /// holds nothing.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Returns the place of the lock, for errors.
    fn place(&self) -> &Path;

    /// Returns whether the caller was in the queue. This matters only for a backend whose first
    /// poll is pending even if the lock is free.
    fn has_queued(&self) -> bool {
        true
    }
}

fn not_here(place: &Path) -> Error {
    let text = "permits of this backend cannot be split or merged";
    Error::at(ErrorKind::Unsupported, text, place)
}
