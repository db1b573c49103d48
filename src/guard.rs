//! What every guard can tell, and how a loss is told.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;

use crate::acquire::sealed;
use crate::error::Result;

/// A lock that is held: as long as the value lives, nobody else is inside.
///
/// Dropping it releases, best effort and without a word to the caller; [`release`](Guard::release) reports. This trait
/// is sealed: its methods may grow.
pub trait Guard: sealed::Granted + Send + Sync + Sized + 'static {
    /// The fencing token of this grant: strictly greater than the token of every earlier exclusive grant of the lock,
    /// also across crashes. Hand it to the resource the lock protects and let that refuse smaller ones. `None` where
    /// the lock [gives none](crate::Capabilities::tokens).
    fn token(&self) -> Option<u64>;

    /// How long the caller stood in line; `None` when the lock was entered at once.
    fn waited(&self) -> Option<Duration>;

    /// Whether the holder before this one died inside, so that what the lock protects may be half done. Told to
    /// exactly one guard.
    fn predecessor_crashed(&self) -> bool;

    /// Whether the lock is still held: a cheap look at the present, no promise about the next instant.
    fn is_held(&self) -> bool;

    /// Resolves when the lock is lost while this guard lives, with the reason, for every caller and every later one.
    fn lost(&self) -> Lost;

    /// Releases the lock and says whether that went well.
    ///
    /// # Cancel safety
    ///
    /// The lock is released at the first poll; dropped before it, the guard inside releases as any dropped guard does.
    fn release(self) -> impl Future<Output = Result<()>> + Send;
}

/// Why a lock that was held is held no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// The lock file was deleted or renamed away.
    Deleted,
    /// Another file stands where the lock file stood.
    Replaced,
    /// The operating system has taken the lock away where it was only to be shared with others.
    Unlocked,
    /// The lease ran out before it could be renewed: the server or the file system was not reached in time, or this process stood still. Others may
    /// have the lock by now.
    Expired,
    /// The server knows nothing of the hold any more, and has let in somebody else.
    Superseded,
    /// Somebody ended the hold by force.
    Revoked,
    /// The connection to the server broke, and the options say that this is a loss.
    Disconnected,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "the lock file was deleted or renamed while it was held",
            Self::Replaced => "the lock file was replaced while it was held",
            Self::Unlocked => "the operating system took the lock away while it was to be shared",
            Self::Expired => {
                "the lease ran out before it was renewed, so that others may have the lock by now"
            }
            Self::Superseded => "the server has forgotten the hold and let in somebody else",
            Self::Revoked => "the hold was ended by force",
            Self::Disconnected => "the connection to the server broke",
        })
    }
}

/// The future of [`Guard::lost`]: owned, `Send`, and latched.
///
/// It resolves only by a loss. Once the guard has been released without one it stays pending for ever: a released lock
/// was not lost. So put it into a `select!` beside the work it guards.
#[must_use = "futures do nothing unless awaited"]
pub struct Lost {
    inner: Option<Pin<Box<dyn Future<Output = Loss> + Send>>>,
}

impl Lost {
    pub(crate) fn new(inner: impl Future<Output = Loss> + Send + 'static) -> Self {
        Self {
            inner: Some(Box::pin(inner)),
        }
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
