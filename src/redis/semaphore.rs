//! The fair semaphore on a Redis server.

use std::sync::Arc;

use super::client::Line;
use super::face::{is_handle, remote_methods};
use super::hold::remote_guard;
use super::session::Mode;
use crate::acquire::Acquire;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::is_lock;
use crate::options::check_permits;

/// A fair semaphore with a name on a Redis server: at most n permits are held at a time, among all
/// hosts that reach the server.
///
/// The order is strictly that of arrival: small requests do not overtake a request for many permits
/// at the head of the queue.
///
/// The number of permits is recorded. A handle with another number is refused until
/// [`remove`](RedisSemaphore::remove), or a day without use, has cleared the record.
///
/// Created by [`RedisClient::semaphore`](super::RedisClient::semaphore). Cheap to clone.
///
/// ```no_run
/// # async fn example(client: stanchion::redis::RedisClient) -> stanchion::Result<()> {
/// let workers = client.semaphore("workers", 4)?;
/// let one = workers.acquire().await?;
/// let three = workers.acquire_many(3).await?;
/// assert!(workers.try_acquire().await?.is_none());
/// # drop((one, three));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisSemaphore {
    line: Arc<Line>,
}

remote_guard! {
    /// Holds one or more permits as long as this value lives, or until they are
    /// [lost](RedisPermit::lost).
    RedisPermit,
    token: "Returns the token of the grant. It is greater than the token of every earlier grant of this semaphore; see [`RedisGuard::token`](super::RedisGuard::token)."
}

crate::guard::is_permit!(RedisPermit);

impl RedisSemaphore {
    /// Waits in the queue for one permit. Otherwise as
    /// [`RedisLock::acquire`](super::RedisLock::acquire).
    ///
    /// # Errors
    ///
    /// Those of [`RedisLock::acquire`](super::RedisLock::acquire).
    pub fn acquire(&self) -> Acquire<RedisPermit> {
        self.acquire_many(1)
    }

    /// Waits in the queue for this many permits at once.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](RedisSemaphore::acquire). Also [`ErrorKind::InvalidInput`] for 0
    /// permits, and for more than there are.
    pub fn acquire_many(&self, permits: u32) -> Acquire<RedisPermit> {
        self.line
            .acquire(Mode::Permits, permits, self.refusal(permits))
    }

    /// Acquires a permit if one is free and no waiter is queued. Otherwise returns `None`.
    ///
    /// # Cancel safety
    ///
    /// As for [`RedisLock::try_acquire`](super::RedisLock::try_acquire).
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](RedisSemaphore::acquire), except time limits.
    pub async fn try_acquire(&self) -> Result<Option<RedisPermit>> {
        self.try_acquire_many(1).await
    }

    /// Acquires this many permits if they are free and no waiter is queued. Otherwise returns
    /// `None`.
    ///
    /// # Cancel safety
    ///
    /// As for [`RedisLock::try_acquire`](super::RedisLock::try_acquire).
    ///
    /// # Errors
    ///
    /// Those of [`acquire_many`](RedisSemaphore::acquire_many), except time limits.
    pub async fn try_acquire_many(&self, permits: u32) -> Result<Option<RedisPermit>> {
        let wrong = self.refusal(permits);
        self.line.try_acquire(Mode::Permits, permits, wrong).await
    }

    fn refusal(&self, permits: u32) -> Option<Error> {
        check_permits(permits, self.limit(), self.path()).err()
    }

    /// Returns the number of permits.
    pub fn limit(&self) -> u32 {
        self.line.target.limit
    }

    /// Returns how many permits are free at this moment; see
    /// [`Semaphore::available`](crate::Semaphore::available). Takes one round trip.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unavailable`] when the server does not answer, and for a lease after a
    ///   restart or a flush, because the server may have forgotten holders.
    /// - [`ErrorKind::Incompatible`] when another limit is recorded.
    pub async fn available(&self) -> Result<u32> {
        self.line.available().await
    }

    /// Always fails. For another number of permits, release all of them, call
    /// [`remove`](RedisSemaphore::remove), and open the semaphore with the new number.
    ///
    /// # Cancel safety
    ///
    /// The future is ready at its first poll.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`].
    pub async fn resize(&self, _: u32) -> Result<()> {
        let text = "the number of permits on a server cannot be changed; release them all, remove \
                    the semaphore, and open it with the new number";
        Err(Error::at(ErrorKind::Unsupported, text, self.path()))
    }

    remote_methods!();
}

crate::any::becomes_any!(RedisSemaphore => crate::any::AnySemaphore);
is_handle!(RedisSemaphore);
is_lock!(RedisSemaphore: Semaphore<RedisPermit>, await);
