//! A lock of any kind.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use super::AnyGuard;
use super::place::Place;
use crate::acquire::Acquire;
use crate::error::Result;
use crate::lock::{Capabilities, Lock, Status};

/// A lock of any kind, so that code need not know which it has: what [`Locks`](crate::Locks) hands out, and what a list of mixed locks holds.
///
/// Cheap to clone; all clones are one lock. Made from any lock by `into()`, or by [`AnyLock::new`] from whatever implements [`Lock`].
/// What only the lock inside can do, as [`FifoLock::close`](crate::FifoLock::close), is reached by [`downcast_ref`](AnyLock::downcast_ref).
///
/// It shows (`Display`) as the place of the lock: its canonical path, or its name behind that of its backend.
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
#[derive(Clone)]
pub struct AnyLock {
    inner: Arc<dyn Forgotten>,
    place: Place,
}

/// A future whose type is forgotten.
pub(super) type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// What every lock can do, said without its type.
pub(super) trait Forgotten: Any + Send + Sync {
    fn acquire(&self) -> Acquire<AnyGuard>;
    fn try_acquire(&self) -> Later<'_, Option<AnyGuard>>;
    fn status(&self) -> Later<'_, Status>;
    fn capabilities(&self) -> Capabilities;
}

impl<L: Lock + 'static> Forgotten for L {
    fn acquire(&self) -> Acquire<AnyGuard> {
        Lock::acquire(self).forget_kind()
    }

    fn try_acquire(&self) -> Later<'_, Option<AnyGuard>> {
        Box::pin(async { Ok(Lock::try_acquire(self).await?.map(AnyGuard::new)) })
    }

    fn status(&self) -> Later<'_, Status> {
        Box::pin(Lock::status(self))
    }

    fn capabilities(&self) -> Capabilities {
        Lock::capabilities(self)
    }
}

impl AnyLock {
    /// Forgets which kind of lock it is. One that is forgotten already stays as it is.
    pub fn new<L: Lock + 'static>(lock: L) -> Self {
        if let Some(forgotten) = (&lock as &dyn Any).downcast_ref::<Self>() {
            return forgotten.clone();
        }
        Self {
            place: Place::of(&Lock::acquire(&lock)),
            inner: Arc::new(lock),
        }
    }

    /// The lock inside, if it is of this kind.
    pub fn downcast_ref<L: Lock + 'static>(&self) -> Option<&L> {
        let inner: &dyn Any = &*self.inner;
        inner.downcast_ref()
    }

    /// Waits for the lock; see [`Acquire`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the line, as with the lock inside.
    ///
    /// # Fairness
    ///
    /// That of the lock inside; [`capabilities`](AnyLock::capabilities) tells.
    ///
    /// # Errors
    ///
    /// Those of the lock inside.
    pub fn acquire(&self) -> Acquire<AnyGuard> {
        self.inner.acquire()
    }

    /// Takes the lock if that needs no waiting: `None` when it is held or when anyone queues.
    ///
    /// # Cancel safety
    ///
    /// A lock that had come is given back.
    ///
    /// # Errors
    ///
    /// Those of the lock inside, save time limits.
    pub async fn try_acquire(&self) -> Result<Option<AnyGuard>> {
        self.inner.try_acquire().await
    }

    /// Who holds the lock and who waits for it, as far as the lock inside knows.
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

impl Lock for AnyLock {
    type Guard = AnyGuard;

    fn acquire(&self) -> Acquire<AnyGuard> {
        AnyLock::acquire(self)
    }

    async fn try_acquire(&self) -> Result<Option<AnyGuard>> {
        AnyLock::try_acquire(self).await
    }

    async fn status(&self) -> Result<Status> {
        AnyLock::status(self).await
    }

    fn capabilities(&self) -> Capabilities {
        AnyLock::capabilities(self)
    }
}

impl fmt::Display for AnyLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl fmt::Debug for AnyLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyLock")
            .field(&self.place.to_string())
            .finish()
    }
}

/// Lets a lock become one of any kind by `into()`: one line for each.
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
