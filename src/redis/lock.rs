//! The fair exclusive lock on a Redis server.

use std::sync::Arc;

use super::client::Line;
use super::face::{is_handle, remote_methods};
use super::hold::remote_guard;
use super::session::Mode;
use crate::acquire::Acquire;
use crate::error::Result;
use crate::lock::is_lock;

/// A fair lock with a name on a Redis server: one holder at a time among all hosts that reach the
/// server. Requests are served in the order in which they arrive there.
///
/// Created by [`RedisClient::lock`](super::RedisClient::lock). Cheap to clone.
///
/// ```no_run
/// # async fn example() -> stanchion::Result<()> {
/// use stanchion::redis::RedisClient;
///
/// let client = RedisClient::options().label("nightly backup").connect("redis://127.0.0.1/").await?;
/// let lock = client.lock("backup");
/// let guard = lock.acquire().on_wait(|line| eprintln!("{line}")).await?;
/// tokio::select! {
///     () = back_up(guard.token()) => {}
///     loss = guard.lost() => eprintln!("stopped: {loss}"),
/// }
/// guard.release().await
/// # }
/// # async fn back_up(_: u64) {}
/// ```
#[derive(Clone)]
pub struct RedisLock {
    line: Arc<Line>,
}

remote_guard! {
    /// Holds the lock as long as this value lives, or until the lock is [lost](RedisGuard::lost).
    RedisGuard,
    token: "Returns the fencing token. It is greater than the token of every earlier grant of this lock, also if the server has lost data. The exception: the server has lost data and its clock was set back as well. The token is the server's time in microseconds since the Unix epoch, or one more than the last token. Pass it to the resource, and let the resource refuse smaller tokens; see [`TokenGate`](crate::token::TokenGate)."
}

impl RedisLock {
    /// Waits in the queue for the lock.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point leaves the queue, in the background. If the lock was
    /// granted meanwhile, it goes to the next waiter.
    ///
    /// If the process dies, its queue entry is free after [`patience`](super::Config::patience) at
    /// the latest. It is free at once when its turn comes and its connection is gone.
    ///
    /// # Fairness
    ///
    /// First come, first served, by arrival at the server. When its turn comes, a waiter that is
    /// not polled within the [claim window](super::Config::claim_window) is bypassed. It is first
    /// again when it is polled.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) and
    ///   [`ErrorKind::Busy`](crate::ErrorKind::Busy) where the caller set a limit.
    /// - [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the server does not answer,
    ///   is a replica, or cannot be written to, for
    ///   [`unavailable_after`](super::Config::unavailable_after).
    /// - [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the name is in use with
    ///   another kind or version of lock, another limit, another lease, or keys of another type.
    /// - [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`close`](RedisLock::close).
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) with `PermissionDenied` when the user lacks the
    ///   rights.
    pub fn acquire(&self) -> Acquire<RedisGuard> {
        self.line.acquire(Mode::Exclusive, 1, None)
    }

    /// Acquires the lock if it is free and no waiter is queued. Otherwise returns `None` and
    /// changes nothing. Takes one round trip.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a lock that was granted meanwhile is released in the background.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](RedisLock::acquire), except time limits.
    pub async fn try_acquire(&self) -> Result<Option<RedisGuard>> {
        self.line.try_acquire(Mode::Exclusive, 1, None).await
    }

    remote_methods!();
}

crate::any::becomes_any!(RedisLock => crate::any::AnyLock);
is_handle!(RedisLock);
is_lock!(RedisLock: Lock<RedisGuard>, acquire, try_acquire, await);
