//! The fair reader-writer lock on a Redis server.

use std::sync::Arc;

use super::client::{ALL, Line};
use super::face::{is_handle, remote_methods};
use super::hold::remote_guard;
use super::place::Mode;
use crate::acquire::Acquire;
use crate::error::Result;
use crate::lock::is_lock;

/// A fair reader-writer lock with a name on a Redis server: any number of readers, or one writer, among all hosts that reach it.
///
/// Strictly by arrival: readers who come one after the other enter together; a writer who waits holds back the readers who come after
/// him. Made by [`RedisClient::rwlock`](super::RedisClient::rwlock); cheap to clone.
///
/// ```no_run
/// # async fn example(client: stanchion::redis::RedisClient) -> stanchion::Result<()> {
/// let lock = client.rwlock("catalogue");
/// let (one, two) = (lock.read().await?, lock.read().await?);
/// assert!(lock.try_write().await?.is_none(), "somebody reads");
/// # drop((one, two));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisRwLock {
    line: Arc<Line>,
}

remote_guard! {
    /// One of the readers is inside as long as this value lives, or until it is [lost](RedisReadGuard::lost).
    RedisReadGuard,
    token: "The fencing token of the last writer, who had it before this reader came in; a number greater than nothing when there was none. Readers that are inside together have the same one."
}

remote_guard! {
    /// The writer is inside as long as this value lives, or until it is [lost](RedisWriteGuard::lost).
    RedisWriteGuard,
    token: "The fencing token: as [`RedisGuard::token`](super::RedisGuard::token), among writers."
}

impl RedisRwLock {
    /// Waits in line to read, with any number of others who read. As [`RedisLock::acquire`](super::RedisLock::acquire).
    ///
    /// # Fairness
    ///
    /// Waits for every writer who came before, inside or in line, and for nobody else.
    ///
    /// # Errors
    ///
    /// Those of [`RedisLock::acquire`](super::RedisLock::acquire).
    pub fn read(&self) -> Acquire<RedisReadGuard> {
        self.line.acquire(Mode::Shared, 1, None)
    }

    /// Waits in line to write, alone. As [`RedisLock::acquire`](super::RedisLock::acquire).
    ///
    /// # Fairness
    ///
    /// Waits for everybody who came before, and for nobody else.
    ///
    /// # Errors
    ///
    /// Those of [`RedisLock::acquire`](super::RedisLock::acquire).
    pub fn write(&self) -> Acquire<RedisWriteGuard> {
        self.line.acquire(Mode::Exclusive, ALL, None)
    }

    /// Reads if no writer is inside or in line; else `None`.
    ///
    /// # Errors
    ///
    /// Those of [`read`](RedisRwLock::read), save time limits.
    pub async fn try_read(&self) -> Result<Option<RedisReadGuard>> {
        self.line.try_acquire(Mode::Shared, 1, None).await
    }

    /// Writes if nobody is inside or in line; else `None`.
    ///
    /// # Errors
    ///
    /// Those of [`write`](RedisRwLock::write), save time limits.
    pub async fn try_write(&self) -> Result<Option<RedisWriteGuard>> {
        self.line.try_acquire(Mode::Exclusive, ALL, None).await
    }

    remote_methods!();
}

crate::any::becomes_any!(RedisRwLock => crate::any::AnySharedLock);
is_handle!(RedisRwLock);
is_lock!(RedisRwLock: Lock<RedisWriteGuard>, write, try_write, await);
is_lock!(RedisRwLock: SharedLock<RedisReadGuard>, read, try_read, await);
