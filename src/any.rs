//! Locks, guards and waits with their types forgotten: for code that has locks of several kinds side by side, or does not care which it has.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::acquire::Acquire;
use crate::acquire::sealed::{self, Attempt, Identity};
use crate::error::{Error, Result};
use crate::guard::{Guard, Lost};
use crate::lock::Waiting;

mod lock;
mod place;
mod rwlock;
mod semaphore;

pub use lock::AnyLock;
pub(crate) use lock::becomes_any;
pub use rwlock::AnyRwLock;
pub use semaphore::AnySemaphore;
pub(crate) use semaphore::Permits;

/// A guard of any lock, so that guards of several kinds stand in one list.
///
/// What only the guard inside can do, as reading the locked file, is reached by
/// [`downcast_ref`](AnyGuard::downcast_ref) and its like.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let lock = stanchion::FifoLock::open(dir.path().join("a.lock"))?;
/// # let file = stanchion::FileLock::open(dir.path().join("b"))?;
/// use stanchion::AnyGuard;
///
/// let mut kept = vec![AnyGuard::new(lock.acquire().await?)];
/// kept.push(AnyGuard::new(file.acquire().await?));
/// assert!(kept.iter().all(AnyGuard::is_held));
/// # Ok(()) }
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct AnyGuard {
    inner: Box<dyn Forgotten>,
}

/// What every guard can do, said without its type.
trait Forgotten: Any + Send + Sync {
    fn token(&self) -> Option<u64>;
    fn waited(&self) -> Option<Duration>;
    fn predecessor_crashed(&self) -> bool;
    fn is_held(&self) -> bool;
    fn lost(&self) -> Lost;
    fn release(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;
}

impl<G: Guard> Forgotten for G {
    fn token(&self) -> Option<u64> {
        Guard::token(self)
    }

    fn waited(&self) -> Option<Duration> {
        Guard::waited(self)
    }

    fn predecessor_crashed(&self) -> bool {
        Guard::predecessor_crashed(self)
    }

    fn is_held(&self) -> bool {
        Guard::is_held(self)
    }

    fn lost(&self) -> Lost {
        Guard::lost(self)
    }

    fn release(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
        Box::pin(Guard::release(*self))
    }
}

impl AnyGuard {
    /// Forgets which kind of guard it is. One that is forgotten already stays as it is.
    pub fn new<G: Guard>(guard: G) -> Self {
        let mut slot = Some(guard);
        let forgotten = (&mut slot as &mut dyn Any).downcast_mut::<Option<Self>>();
        match (forgotten.and_then(Option::take), slot) {
            (Some(guard), _) => guard,
            (None, Some(guard)) => Self {
                inner: Box::new(guard),
            },
            (None, None) => unreachable!("it is taken out as the one or stays as the other"),
        }
    }

    /// The guard inside, if it is of this kind.
    pub fn downcast_ref<G: Guard>(&self) -> Option<&G> {
        let inner: &dyn Any = &*self.inner;
        inner.downcast_ref()
    }

    /// The guard inside to be changed, if it is of this kind: a [`FileGuard`](crate::FileGuard) reads and writes so.
    pub fn downcast_mut<G: Guard>(&mut self) -> Option<&mut G> {
        let inner: &mut dyn Any = &mut *self.inner;
        inner.downcast_mut()
    }

    /// Takes the guard out if it is of this kind; else it comes back, held as before.
    ///
    /// # Errors
    ///
    /// The guard itself, when it is of another kind.
    pub fn downcast<G: Guard>(self) -> Result<G, Self> {
        if self.downcast_ref::<G>().is_none() {
            return Err(self);
        }
        let inner: Box<dyn Any> = self.inner;
        match inner.downcast() {
            Ok(guard) => Ok(*guard),
            Err(_) => unreachable!("it was looked at"),
        }
    }

    /// The fencing token; `None` where the lock gives none. See [`Guard::token`].
    pub fn token(&self) -> Option<u64> {
        self.inner.token()
    }

    /// How long the caller waited for this lock; `None` when it was entered at once.
    pub fn waited(&self) -> Option<Duration> {
        self.inner.waited()
    }

    /// Whether the holder before this one died inside; see [`Guard::predecessor_crashed`].
    pub fn predecessor_crashed(&self) -> bool {
        self.inner.predecessor_crashed()
    }

    /// Whether the lock is still held: a look at the present.
    pub fn is_held(&self) -> bool {
        self.inner.is_held()
    }

    /// Resolves when the lock is lost; see [`Lost`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub fn lost(&self) -> Lost {
        self.inner.lost()
    }

    /// Releases the lock and says whether that went well.
    ///
    /// # Cancel safety
    ///
    /// That of the guard inside, which is gone in any case.
    ///
    /// # Errors
    ///
    /// Those of the guard inside.
    pub async fn release(self) -> Result<()> {
        self.inner.release().await
    }
}

impl Guard for AnyGuard {
    fn token(&self) -> Option<u64> {
        AnyGuard::token(self)
    }

    fn waited(&self) -> Option<Duration> {
        AnyGuard::waited(self)
    }

    fn predecessor_crashed(&self) -> bool {
        AnyGuard::predecessor_crashed(self)
    }

    fn is_held(&self) -> bool {
        AnyGuard::is_held(self)
    }

    fn lost(&self) -> Lost {
        AnyGuard::lost(self)
    }

    async fn release(self) -> Result<()> {
        AnyGuard::release(self).await
    }
}

impl fmt::Debug for AnyGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyGuard")
            .field("token", &self.token())
            .finish_non_exhaustive()
    }
}

/// The wait for a lock of any kind: what [`Acquire`] drives.
#[doc(hidden)]
pub struct AnyAttempt {
    inner: Box<dyn Attempt<Guard = AnyGuard, Output = Result<AnyGuard>>>,
}

/// A wait whose guard is forgotten when it comes.
struct Forgetting<A>(A);

impl<G: Guard> Acquire<G> {
    /// The same wait, for a guard whose kind is forgotten.
    pub(crate) fn forget_kind(self) -> Acquire<AnyGuard> {
        self.map_attempt(|attempt| AnyAttempt {
            inner: Box::new(Forgetting(attempt)),
        })
    }
}

impl<A: Attempt<Guard: Guard>> Future for Forgetting<A> {
    type Output = Result<AnyGuard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let granted = Pin::new(&mut self.0).poll(cx);
        granted.map(|granted| granted.map(AnyGuard::new))
    }
}

impl Future for AnyAttempt {
    type Output = Result<AnyGuard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

impl<A: Attempt<Guard: Guard>> Attempt for Forgetting<A> {
    type Guard = AnyGuard;

    fn set_max_waiting(&mut self, most: usize) {
        self.0.set_max_waiting(most);
    }

    fn counts_waiters(&self) -> bool {
        self.0.counts_waiters()
    }

    fn try_once(&mut self) -> bool {
        self.0.try_once()
    }

    fn cancel(&mut self) {
        self.0.cancel();
    }

    fn waiting(&self) -> Option<Waiting> {
        self.0.waiting()
    }

    fn identity(&self) -> Option<Identity> {
        self.0.identity()
    }

    fn timed_out(&self) -> Error {
        self.0.timed_out()
    }
}

impl Attempt for AnyAttempt {
    type Guard = AnyGuard;

    fn set_max_waiting(&mut self, most: usize) {
        self.inner.set_max_waiting(most);
    }

    fn counts_waiters(&self) -> bool {
        self.inner.counts_waiters()
    }

    fn try_once(&mut self) -> bool {
        self.inner.try_once()
    }

    fn cancel(&mut self) {
        self.inner.cancel();
    }

    fn waiting(&self) -> Option<Waiting> {
        self.inner.waiting()
    }

    fn identity(&self) -> Option<Identity> {
        self.inner.identity()
    }

    fn timed_out(&self) -> Error {
        self.inner.timed_out()
    }
}

impl sealed::Granted for AnyGuard {
    type Attempt = AnyAttempt;
}
