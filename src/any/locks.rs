//! Locks and semaphores of any kind.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::AnyGuard;
use super::erased::{DynLock, DynSemaphore, DynSharedLock, WeakHandle, any_handle};
use super::place::Place;
use crate::acquire::Acquire;
use crate::address::Address;
use crate::error::Result;
use crate::lock::{Capabilities, Lock, Semaphore, SharedLock, WeakCore, is_handle, is_lock};
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status};

/// An exclusive lock of any kind. [`Locks`](crate::Locks) returns it, and a list of mixed locks
/// contains it.
///
/// Cheap to clone; all clones are one lock. Any lock becomes one by `into()`, and any type that
/// implements [`Lock`] by [`AnyLock::new`]. Use [`downcast_ref`](AnyLock::downcast_ref) for what
/// only the inner lock can do. `Display` shows the place of the lock: its canonical path, or its
/// backend and its name.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let [queue, book] = ["queue.lock", "book"].map(|it| dir.path().join(it));
/// use stanchion::{AnyLock, FifoLock, FileLock, acquire_all};
///
/// let locks: [AnyLock; 2] = [FifoLock::open(queue)?.into(), FileLock::open(book)?.into()];
/// for lock in &locks {
///     let guard = lock.acquire().await?;
///     println!("{lock}: token {:?}", guard.token());
/// }
/// acquire_all(locks.iter().map(AnyLock::acquire)).await?.release().await
/// # }
/// ```
///
/// A semaphore is not exclusive, so it is not a lock:
///
/// ```compile_fail,E0277
/// # fn example(semaphore: stanchion::FifoSemaphore) {
/// stanchion::AnyLock::new(semaphore);
/// # }
/// ```
#[derive(Clone)]
pub struct AnyLock {
    inner: Arc<dyn DynLock>,
    place: Place,
}

/// A reader-writer lock of any kind. [`Locks::rwlock`](crate::Locks::rwlock) returns it.
///
/// Cheap to clone; all clones are one lock. Any reader-writer lock becomes one by `into()`, and any
/// type that implements [`SharedLock`] by [`AnySharedLock::new`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use stanchion::{AnySharedLock, FifoRwLock};
///
/// let lock = AnySharedLock::from(FifoRwLock::open(dir.path().join("catalogue.lock"))?);
/// let (one, two) = (lock.read().await?, lock.read().await?);
/// assert!(lock.try_write().await?.is_none(), "there are readers");
/// drop((one, two));
/// lock.write().await?.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct AnySharedLock {
    inner: Arc<dyn DynSharedLock>,
    place: Place,
}

/// A semaphore of any kind. [`Locks::semaphore`](crate::Locks::semaphore) returns it.
///
/// Cheap to clone; all clones are one semaphore. Any semaphore becomes one by `into()`, and any
/// type that implements [`Semaphore`] by [`AnySemaphore::new`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// use stanchion::{AnySemaphore, FifoSemaphore};
///
/// let workers = FifoSemaphore::options().limit(4).open(directory.path(), "workers")?;
/// let workers = AnySemaphore::from(workers);
/// let mut three = workers.acquire_many(3).await?;
/// let one = three.split(1)?;
/// assert_eq!((three.permits(), one.permits()), (2, 1));
/// three.merge(one)?;
/// assert!(workers.try_acquire_many(2).await?.is_none());
/// three.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct AnySemaphore {
    inner: Arc<dyn DynSemaphore>,
    place: Place,
}

any_handle!(AnyLock, AnySharedLock, AnySemaphore);

/// Returns a clone of the handle if it is already erased.
fn kept<H: 'static, A: Clone + 'static>(handle: &H) -> Option<A> {
    (handle as &dyn Any).downcast_ref::<A>().cloned()
}

impl AnyLock {
    /// Erases the kind of a lock. A lock that is already an `AnyLock` stays as it is.
    pub fn new<L: Lock + 'static>(lock: L) -> Self {
        kept(&lock).unwrap_or_else(|| Self {
            place: Place::of(&lock, || Lock::acquire(&lock)),
            inner: Arc::new(lock),
        })
    }

    /// Returns the inner lock if it is of this kind.
    pub fn downcast_ref<L: Lock + 'static>(&self) -> Option<&L> {
        let inner: &dyn Any = &*self.inner;
        inner.downcast_ref()
    }

    /// Waits for the lock; see [`Acquire`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue, as with the inner lock.
    ///
    /// # Fairness
    ///
    /// That of the inner lock; see [`capabilities`](AnyLock::capabilities).
    ///
    /// # Errors
    ///
    /// Those of the inner lock.
    pub fn acquire(&self) -> Acquire<AnyGuard> {
        self.inner.acquire().keeping(self.inner.clone())
    }

    /// Acquires the lock if that needs no waiting. Returns `None` if it is held or a caller waits
    /// for it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after the lock was granted, the lock is released.
    ///
    /// # Errors
    ///
    /// Those of the inner lock, except time limits.
    pub async fn try_acquire(&self) -> Result<Option<AnyGuard>> {
        self.inner.try_acquire().await
    }
}

impl AnySharedLock {
    /// Erases the kind of a lock. A lock that is already an `AnySharedLock` stays as it is.
    pub fn new<L: SharedLock + 'static>(lock: L) -> Self {
        kept(&lock).unwrap_or_else(|| Self {
            place: Place::of(&lock, || Lock::acquire(&lock)),
            inner: Arc::new(lock),
        })
    }

    /// Waits for the lock as a reader. The same as [`acquire_shared`](Self::acquire_shared).
    pub fn read(&self) -> Acquire<AnyGuard> {
        self.acquire_shared()
    }

    /// Waits for the lock as the writer. The same as [`acquire`](Self::acquire).
    pub fn write(&self) -> Acquire<AnyGuard> {
        self.acquire()
    }

    /// Acquires the lock as a reader if that needs no waiting. The same as
    /// [`try_acquire_shared`](Self::try_acquire_shared).
    ///
    /// # Cancel safety
    ///
    /// As for [`AnyLock::try_acquire`].
    ///
    /// # Errors
    ///
    /// Those of the inner lock, except time limits.
    pub async fn try_read(&self) -> Result<Option<AnyGuard>> {
        self.try_acquire_shared().await
    }

    /// Acquires the lock as the writer if that needs no waiting. The same as
    /// [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    ///
    /// As for [`AnyLock::try_acquire`].
    ///
    /// # Errors
    ///
    /// Those of the inner lock, except time limits.
    pub async fn try_write(&self) -> Result<Option<AnyGuard>> {
        self.try_acquire().await
    }

    /// Waits for the lock as the writer; otherwise as [`AnyLock::acquire`].
    pub fn acquire(&self) -> Acquire<AnyGuard> {
        self.inner.acquire().keeping(self.inner.clone())
    }

    /// Waits for the lock as a reader; otherwise as [`AnyLock::acquire`].
    pub fn acquire_shared(&self) -> Acquire<AnyGuard> {
        self.inner.acquire_shared().keeping(self.inner.clone())
    }

    /// Acquires the lock as the writer if that needs no waiting; otherwise as
    /// [`AnyLock::try_acquire`].
    ///
    /// # Cancel safety
    ///
    /// As for [`AnyLock::try_acquire`].
    ///
    /// # Errors
    ///
    /// Those of the inner lock, except time limits.
    pub async fn try_acquire(&self) -> Result<Option<AnyGuard>> {
        self.inner.try_acquire().await
    }

    /// Acquires the lock as a reader if that needs no waiting; otherwise as
    /// [`AnyLock::try_acquire`].
    ///
    /// # Cancel safety
    ///
    /// As for [`AnyLock::try_acquire`].
    ///
    /// # Errors
    ///
    /// Those of the inner lock, except time limits.
    pub async fn try_acquire_shared(&self) -> Result<Option<AnyGuard>> {
        self.inner.try_acquire_shared().await
    }
}

impl AnySemaphore {
    /// Erases the kind of a semaphore. A semaphore that is already an `AnySemaphore` stays as it
    /// is.
    pub fn new<S: Semaphore + 'static>(semaphore: S) -> Self {
        kept(&semaphore).unwrap_or_else(|| Self {
            place: Place::of(&semaphore, || Semaphore::acquire(&semaphore)),
            inner: Arc::new(semaphore),
        })
    }

    /// Waits for one permit; otherwise as [`AnyLock::acquire`].
    pub fn acquire(&self) -> Acquire<AnyGuard> {
        self.acquire_many(1)
    }

    /// Waits for this many permits at once; otherwise as [`AnyLock::acquire`].
    ///
    /// # Errors
    ///
    /// - Those of the inner semaphore.
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0 permits, and for more
    ///   than there are.
    pub fn acquire_many(&self, permits: u32) -> Acquire<AnyGuard> {
        let wait = self.inner.acquire_many(permits);
        wait.keeping(self.inner.clone())
    }

    /// Acquires one permit if that needs no waiting; otherwise as [`AnyLock::try_acquire`].
    ///
    /// # Cancel safety
    ///
    /// As for [`AnyLock::try_acquire`].
    ///
    /// # Errors
    ///
    /// Those of the inner semaphore, except time limits.
    pub async fn try_acquire(&self) -> Result<Option<AnyGuard>> {
        self.try_acquire_many(1).await
    }

    /// Acquires this many permits if that needs no waiting; otherwise as [`AnyLock::try_acquire`].
    ///
    /// # Cancel safety
    ///
    /// As for [`AnyLock::try_acquire`].
    ///
    /// # Errors
    ///
    /// Those of the inner semaphore, except time limits.
    pub async fn try_acquire_many(&self, permits: u32) -> Result<Option<AnyGuard>> {
        self.inner.try_acquire_many(permits).await
    }

    /// Returns how many permits there are, as far as this process knows.
    pub fn limit(&self) -> u32 {
        self.inner.limit()
    }

    /// Returns how many permits are free at this moment; see [`Semaphore::available`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// Those of the inner semaphore.
    pub async fn available(&self) -> Result<u32> {
        self.inner.available().await
    }

    /// Changes how many permits there are, for every process.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits, nothing has changed.
    ///
    /// # Errors
    ///
    /// - Those of the inner semaphore.
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the semaphore cannot be
    ///   resized.
    pub async fn resize(&self, permits: u32) -> Result<()> {
        self.inner.resize(permits).await
    }
}

is_lock!(AnyLock: Lock<AnyGuard>, acquire, try_acquire, await);
is_lock!(AnySharedLock: Lock<AnyGuard>, acquire, try_acquire, await);
is_lock!(AnySharedLock: SharedLock<AnyGuard>, acquire_shared, try_acquire_shared, await);
is_lock!(AnySemaphore: Semaphore<AnyGuard>, await);

/// Lets a handle become one of any kind by `into()`.
macro_rules! becomes_any {
    ($lock:ty => $any:ty $(, for $kind:ident: $bound:path)?) => {
        impl$(<$kind: $bound + 'static>)? From<$lock> for $any {
            fn from(lock: $lock) -> Self {
                Self::new(lock)
            }
        }
    };
}
pub(crate) use becomes_any;
