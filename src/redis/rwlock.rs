//! The fair reader-writer lock on a Redis server.

use std::sync::Arc;

use super::client::{ALL, Line};
use super::face::{is_handle, remote_methods};
use super::hold::remote_guard;
use super::session::Mode;
use crate::acquire::Acquire;
use crate::error::Result;
use crate::guard::{Downgrade, WriteGuard};
use crate::lock::is_lock;

/// A fair reader-writer lock with a name on a Redis server: any number of readers, or one writer,
/// among all hosts that reach the server.
///
/// The order is strictly that of arrival. Consecutive readers acquire the lock together. A waiting
/// writer holds back the readers that arrive after it.
///
/// Created by [`RedisClient::rwlock`](super::RedisClient::rwlock). Cheap to clone.
///
/// ```no_run
/// # async fn example(client: stanchion::redis::RedisClient) -> stanchion::Result<()> {
/// let lock = client.rwlock("catalogue");
/// let (one, two) = (lock.read().await?, lock.read().await?);
/// assert!(lock.try_write().await?.is_none(), "readers hold it");
/// # drop((one, two));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisRwLock {
    line: Arc<Line>,
}

remote_guard! {
    /// Holds the lock as a reader as long as this value lives, or until the lock is
    /// [lost](RedisReadGuard::lost).
    RedisReadGuard,
    token: "Returns the fencing token of the last writer before this reader. If there was no writer, returns a number greater than 0. Readers that hold the lock together have the same token."
}

remote_guard! {
    /// Holds the lock as the writer as long as this value lives, or until the lock is
    /// [lost](RedisWriteGuard::lost).
    RedisWriteGuard,
    token: "Returns the fencing token. It is as [`RedisGuard::token`](super::RedisGuard::token), among writers.",
    reader: RedisReadGuard
}

impl RedisWriteGuard {
    /// Turns the writer into a reader, in one round trip. Waiting readers behind it may acquire the
    /// lock at once. No writer acquires the lock in between. The lease is renewed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the lock is released, as when the guard is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) when the lock is lost. While the server does not
    /// answer, the call waits, at most until the lease is over.
    pub fn downgrade(self) -> Downgrade<Self> {
        WriteGuard::downgrade(self)
    }
}

impl RedisRwLock {
    /// Waits in the queue to read, together with any number of other readers. Otherwise as
    /// [`RedisLock::acquire`](super::RedisLock::acquire).
    ///
    /// # Fairness
    ///
    /// Waits for every writer that arrived before it, whether it holds the lock or is queued, and
    /// for no other caller.
    ///
    /// # Errors
    ///
    /// Those of [`RedisLock::acquire`](super::RedisLock::acquire).
    pub fn read(&self) -> Acquire<RedisReadGuard> {
        self.line.acquire(Mode::Shared, 1, None)
    }

    /// Waits in the queue to write, alone. Otherwise as
    /// [`RedisLock::acquire`](super::RedisLock::acquire).
    ///
    /// # Fairness
    ///
    /// Waits for every caller that arrived before it, and for no other caller.
    ///
    /// # Errors
    ///
    /// Those of [`RedisLock::acquire`](super::RedisLock::acquire).
    pub fn write(&self) -> Acquire<RedisWriteGuard> {
        self.line.acquire(Mode::Exclusive, ALL, None)
    }

    /// Acquires the lock to read if no writer holds it or is queued. Otherwise returns `None`.
    ///
    /// # Cancel safety
    ///
    /// As for [`RedisLock::try_acquire`](super::RedisLock::try_acquire).
    ///
    /// # Errors
    ///
    /// Those of [`read`](RedisRwLock::read), except time limits.
    pub async fn try_read(&self) -> Result<Option<RedisReadGuard>> {
        self.line.try_acquire(Mode::Shared, 1, None).await
    }

    /// Acquires the lock to write if no caller holds it or is queued. Otherwise returns `None`.
    ///
    /// # Cancel safety
    ///
    /// As for [`RedisLock::try_acquire`](super::RedisLock::try_acquire).
    ///
    /// # Errors
    ///
    /// Those of [`write`](RedisRwLock::write), except time limits.
    pub async fn try_write(&self) -> Result<Option<RedisWriteGuard>> {
        self.line.try_acquire(Mode::Exclusive, ALL, None).await
    }

    remote_methods!();
}

crate::any::becomes_any!(RedisRwLock => crate::any::AnySharedLock);
is_handle!(RedisRwLock);
is_lock!(RedisRwLock: Lock<RedisWriteGuard>, write, try_write, await);
is_lock!(RedisRwLock: SharedLock<RedisReadGuard>, read, try_read, await);
