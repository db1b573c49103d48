//! A reader-writer lock of any kind.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::AnyGuard;
use super::lock::{Forgotten, Later};
use super::place::Place;
use crate::acquire::Acquire;
use crate::error::Result;
use crate::lock::{Capabilities, Lock, SharedLock, Status};

/// A reader-writer lock of any kind: what [`Locks::rwlock`](crate::Locks::rwlock) hands out.
///
/// Cheap to clone; all clones are one lock. Made by `into()`, or by [`AnyRwLock::new`] from whatever implements [`SharedLock`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use stanchion::{AnyRwLock, FifoRwLock};
///
/// let lock = AnyRwLock::from(FifoRwLock::open(dir.path().join("catalogue.lock"))?);
/// let (one, two) = (lock.read().await?, lock.read().await?);
/// assert!(lock.try_write().await?.is_none(), "somebody reads");
/// drop((one, two));
/// lock.write().await?.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct AnyRwLock {
    inner: Arc<dyn ForgottenRwLock>,
    place: Place,
}

/// What every such lock can do, said without its type; writing is what [`Forgotten`] calls acquiring.
trait ForgottenRwLock: Forgotten {
    fn read(&self) -> Acquire<AnyGuard>;
    fn try_read(&self) -> Later<'_, Option<AnyGuard>>;
}

impl<L: SharedLock + 'static> ForgottenRwLock for L {
    fn read(&self) -> Acquire<AnyGuard> {
        self.acquire_shared().forget_kind()
    }

    fn try_read(&self) -> Later<'_, Option<AnyGuard>> {
        Box::pin(async { Ok(self.try_acquire_shared().await?.map(AnyGuard::new)) })
    }
}

impl AnyRwLock {
    /// Forgets which kind of lock it is.
    pub fn new<L: SharedLock + 'static>(lock: L) -> Self {
        Self {
            place: Place::of(&Lock::acquire(&lock)),
            inner: Arc::new(lock),
        }
    }

    /// Waits in line to read, with any number of others who read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the line, as with the lock inside.
    ///
    /// # Fairness
    ///
    /// That of the lock inside; [`capabilities`](AnyRwLock::capabilities) tells.
    ///
    /// # Errors
    ///
    /// Those of the lock inside.
    pub fn read(&self) -> Acquire<AnyGuard> {
        self.inner.read()
    }

    /// Waits in line to write, alone.
    ///
    /// # Cancel safety
    ///
    /// As [`read`](AnyRwLock::read).
    ///
    /// # Errors
    ///
    /// Those of the lock inside.
    pub fn write(&self) -> Acquire<AnyGuard> {
        self.inner.acquire()
    }

    /// Reads if that needs no waiting; else `None`.
    ///
    /// # Cancel safety
    ///
    /// A lock that had come is given back.
    ///
    /// # Errors
    ///
    /// Those of the lock inside, save time limits.
    pub async fn try_read(&self) -> Result<Option<AnyGuard>> {
        self.inner.try_read().await
    }

    /// Writes if that needs no waiting; else `None`.
    ///
    /// # Cancel safety
    ///
    /// As [`try_read`](AnyRwLock::try_read).
    ///
    /// # Errors
    ///
    /// Those of the lock inside, save time limits.
    pub async fn try_write(&self) -> Result<Option<AnyGuard>> {
        self.inner.try_acquire().await
    }

    /// Who is inside and who waits, as far as the lock inside knows.
    ///
    /// # Errors
    ///
    /// Those of the lock inside.
    pub async fn status(&self) -> Result<Status> {
        self.inner.status().await
    }

    /// What the lock inside can and cannot do.
    pub fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    /// The canonical path of a lock on a file; `None` for every other lock.
    pub fn path(&self) -> Option<&Path> {
        self.place.path()
    }
}

impl Lock for AnyRwLock {
    type Guard = AnyGuard;

    fn acquire(&self) -> Acquire<AnyGuard> {
        self.write()
    }

    async fn try_acquire(&self) -> Result<Option<AnyGuard>> {
        self.try_write().await
    }

    async fn status(&self) -> Result<Status> {
        AnyRwLock::status(self).await
    }

    fn capabilities(&self) -> Capabilities {
        AnyRwLock::capabilities(self)
    }
}

impl SharedLock for AnyRwLock {
    type SharedGuard = AnyGuard;

    fn acquire_shared(&self) -> Acquire<AnyGuard> {
        self.read()
    }

    async fn try_acquire_shared(&self) -> Result<Option<AnyGuard>> {
        self.try_read().await
    }
}

impl fmt::Display for AnyRwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl fmt::Debug for AnyRwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyRwLock")
            .field(&self.place.to_string())
            .finish()
    }
}
