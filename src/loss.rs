//! How a holder learns that it has lost its lock.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::future::FusedFuture;

use crate::foreign::SafeWaker;

/// Why a lock that was held is no longer held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// The lock file was deleted or renamed.
    Deleted,
    /// Another file replaced the lock file.
    Replaced,
    /// The operating system took the lock away when the process changed it from exclusive to
    /// shared.
    Unlocked,
    /// The lease ended before it was renewed: the server or the file system was not reached in
    /// time, or this process stood still. Another caller may hold the lock by now.
    Expired,
    /// The server has forgotten the hold, and has granted the lock to another caller.
    Superseded,
    /// The hold was ended by force.
    Revoked,
    /// The connection to the server broke, and the options make that a loss.
    Disconnected,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "the lock file was deleted or renamed while it was held",
            Self::Replaced => "the lock file was replaced while it was held",
            Self::Unlocked => "the operating system took the lock away while it was made shared",
            Self::Expired => {
                "the lease ended before it was renewed; another caller may hold the lock"
            }
            Self::Superseded => {
                "the server has forgotten the hold and granted the lock to another caller"
            }
            Self::Revoked => "the hold was ended by force",
            Self::Disconnected => "the connection to the server broke",
        })
    }
}

/// What is called on a loss.
pub(crate) type LossListener = Box<dyn FnOnce(Loss) + Send>;

/// One of the futures that wait for the loss of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaiterId(u64);

impl WaiterId {
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The wakers of the futures that wait for the loss of a hold. A future must leave when it is
/// dropped, because a hold may last for days, and many futures may ask for its loss.
///
/// The caller drops or wakes what is returned when no mutex is held.
#[derive(Default)]
pub(crate) struct LossWaiters(BTreeMap<WaiterId, SafeWaker>);

impl LossWaiters {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the waker of this future. Returns that of its last poll.
    pub(crate) fn wait(&mut self, id: WaiterId, waker: SafeWaker) -> Option<SafeWaker> {
        self.0.insert(id, waker)
    }

    /// Returns the waker of this future, which has been dropped.
    pub(crate) fn leave(&mut self, id: WaiterId) -> Option<SafeWaker> {
        self.0.remove(&id)
    }

    pub(crate) fn take(&mut self) -> impl Iterator<Item = SafeWaker> + use<> {
        std::mem::take(&mut self.0).into_values()
    }
}

/// The future of [`Guard::lost`](crate::Guard::lost). It borrows nothing and is `Send`. If the lock
/// is already lost, it is ready at once.
///
/// It resolves only when the lock is lost. If the guard is released without a loss, it stays
/// pending forever: a released lock is not a lost one. So use it in a `select!` beside the work
/// that the lock protects.
#[must_use = "futures do nothing unless awaited"]
pub struct Lost {
    inner: Option<Pin<Box<dyn Future<Output = Loss> + Send>>>,
}

impl Lost {
    /// Makes it from a future that ends when the lock is lost, for a backend. The future must end
    /// for every call, also after the loss.
    pub fn new(inner: impl Future<Output = Loss> + Send + 'static) -> Self {
        Self {
            inner: Some(Box::pin(inner)),
        }
    }

    /// Never resolves: the loss of a lock that cannot be lost.
    pub fn never() -> Self {
        Self { inner: None }
    }
}

impl Future for Lost {
    type Output = Loss;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Loss> {
        let Some(inner) = &mut self.inner else {
            return Poll::Pending;
        };
        let result = inner.as_mut().poll(cx);
        if result.is_ready() {
            self.inner = None;
        }
        result
    }
}

impl FusedFuture for Lost {
    fn is_terminated(&self) -> bool {
        self.inner.is_none()
    }
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lost").finish_non_exhaustive()
    }
}
