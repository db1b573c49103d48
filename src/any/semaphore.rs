//! A semaphore of any kind.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::AnyGuard;
use super::lock::{Forgotten, Later};
use super::place::Place;
use crate::acquire::Acquire;
use crate::error::Result;
use crate::lock::{Capabilities, Lock, Status};

/// A lock of which several parts can be had.
pub(crate) trait Permits: Lock {
    fn acquire_many(&self, permits: u32) -> Acquire<Self::Guard>;
    fn try_acquire_many(
        &self,
        permits: u32,
    ) -> impl Future<Output = Result<Option<Self::Guard>>> + Send;
    fn limit(&self) -> u32;
}

/// A semaphore of any kind: what [`Locks::semaphore`](crate::Locks::semaphore) hands out.
///
/// Cheap to clone; all clones are one semaphore. Made from a semaphore by `into()`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// use stanchion::{AnySemaphore, FifoSemaphore};
///
/// let workers = FifoSemaphore::options().limit(4).open(directory.path(), "workers")?;
/// let workers = AnySemaphore::from(workers);
/// let three = workers.acquire_many(3).await?;
/// assert!(workers.try_acquire_many(2).await?.is_none());
/// three.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct AnySemaphore {
    inner: Arc<dyn ForgottenPermits>,
    place: Place,
}

/// What every semaphore can do, said without its type.
trait ForgottenPermits: Forgotten {
    fn acquire_many(&self, permits: u32) -> Acquire<AnyGuard>;
    fn try_acquire_many(&self, permits: u32) -> Later<'_, Option<AnyGuard>>;
    fn limit(&self) -> u32;
}

impl<S: Permits + 'static> ForgottenPermits for S {
    fn acquire_many(&self, permits: u32) -> Acquire<AnyGuard> {
        Permits::acquire_many(self, permits).forget_kind()
    }

    fn try_acquire_many(&self, permits: u32) -> Later<'_, Option<AnyGuard>> {
        Box::pin(async move {
            let permit = Permits::try_acquire_many(self, permits).await?;
            Ok(permit.map(AnyGuard::new))
        })
    }

    fn limit(&self) -> u32 {
        Permits::limit(self)
    }
}

impl AnySemaphore {
    pub(crate) fn new<S: Permits + 'static>(semaphore: S) -> Self {
        Self {
            place: Place::of(&Lock::acquire(&semaphore)),
            inner: Arc::new(semaphore),
        }
    }

    /// Waits in line for one permit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the line and gives back what it had got.
    ///
    /// # Fairness
    ///
    /// That of the semaphore inside; [`capabilities`](AnySemaphore::capabilities) tells.
    ///
    /// # Errors
    ///
    /// Those of the semaphore inside.
    pub fn acquire(&self) -> Acquire<AnyGuard> {
        self.inner.acquire()
    }

    /// Waits in line for so many permits at once.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](AnySemaphore::acquire).
    ///
    /// # Errors
    ///
    /// Those of the semaphore inside; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0, and for more than there are.
    pub fn acquire_many(&self, permits: u32) -> Acquire<AnyGuard> {
        self.inner.acquire_many(permits)
    }

    /// Takes a permit if one is free and nobody queues; else `None`.
    ///
    /// # Cancel safety
    ///
    /// A permit that had come is given back.
    ///
    /// # Errors
    ///
    /// Those of the semaphore inside, save time limits.
    pub async fn try_acquire(&self) -> Result<Option<AnyGuard>> {
        self.inner.try_acquire().await
    }

    /// Takes so many permits if they are free and nobody queues; else `None`.
    ///
    /// # Cancel safety
    ///
    /// As [`try_acquire`](AnySemaphore::try_acquire).
    ///
    /// # Errors
    ///
    /// Those of [`acquire_many`](AnySemaphore::acquire_many), save time limits.
    pub async fn try_acquire_many(&self, permits: u32) -> Result<Option<AnyGuard>> {
        self.inner.try_acquire_many(permits).await
    }

    /// How many permits there are, as far as this process knows.
    pub fn limit(&self) -> u32 {
        self.inner.limit()
    }

    /// Who has permits and who waits, as far as the semaphore inside knows.
    ///
    /// # Errors
    ///
    /// Those of the semaphore inside.
    pub async fn status(&self) -> Result<Status> {
        self.inner.status().await
    }

    /// What the semaphore inside can and cannot do.
    pub fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

/// One permit.
impl Lock for AnySemaphore {
    type Guard = AnyGuard;

    fn acquire(&self) -> Acquire<AnyGuard> {
        AnySemaphore::acquire(self)
    }

    async fn try_acquire(&self) -> Result<Option<AnyGuard>> {
        AnySemaphore::try_acquire(self).await
    }

    async fn status(&self) -> Result<Status> {
        AnySemaphore::status(self).await
    }

    fn capabilities(&self) -> Capabilities {
        AnySemaphore::capabilities(self)
    }
}

impl fmt::Display for AnySemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl fmt::Debug for AnySemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnySemaphore")
            .field("place", &self.place.to_string())
            .field("limit", &self.limit())
            .finish()
    }
}
