//! Locks, guards and waits of any kind, with their types erased. They serve code that has locks of
//! several kinds side by side, or that works with every kind.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::acquire::{Acquire, Attempt};
use crate::address::Address;
use crate::error::Result;
use crate::guard::sealed::Granted;
use crate::guard::{Downgrade, Guard, Release, Waited, WriteGuard, is_permit};
use crate::loss::Lost;
use crate::metrics::Meter;
use crate::options::check_merge;
use crate::status::Waiting;
use crate::wait::{Hold, Pending, Request};

mod erased;
mod locks;
mod place;

use erased::DynHandle;
pub(crate) use erased::WeakHandle;
pub(crate) use locks::becomes_any;
pub use locks::{AnyLock, AnySemaphore, AnySharedLock};

/// A guard of any lock, so that one list can have guards of several kinds.
///
/// Use [`downcast_ref`](AnyGuard::downcast_ref) and its like for what only the inner guard can do,
/// for example reading a locked file. If the inner guard is not that of a semaphore, it holds no
/// permits: [`split`](AnyGuard::split) and [`merge`](AnyGuard::merge) fail.
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
#[must_use = "dropping the guard releases the lock: bind it to a name, such as `_guard`, and not to `_`"]
pub struct AnyGuard {
    inner: Box<dyn Forgotten>,
}

/// A whole guard, without its type.
trait Forgotten: Any + Send + Sync {
    fn hold(&self) -> &dyn Hold;
    fn hold_mut(&mut self) -> &mut dyn Hold;
    fn wait_time(&self) -> Option<Duration>;
    fn into_reader(self: Box<Self>) -> AnyGuard;
    fn split(&mut self, permits: u32) -> Result<AnyGuard>;
    fn merge(&mut self, other: AnyGuard) -> Result<()>;
    fn uncount(&self);
}

impl<G: Guard> Forgotten for G {
    fn into_reader(self: Box<Self>) -> AnyGuard {
        AnyGuard::new(Granted::into_reader(*self))
    }

    fn split(&mut self, permits: u32) -> Result<AnyGuard> {
        Granted::split(self, permits).map(AnyGuard::new)
    }

    fn merge(&mut self, other: AnyGuard) -> Result<()> {
        match other.downcast::<G>() {
            Ok(other) => Granted::merge(self, other),
            Err(other) => check_merge(false, 0, 0, other.inner.hold().place()).map(drop),
        }
    }

    fn uncount(&self) {
        Granted::uncount(self);
    }

    fn hold(&self) -> &dyn Hold {
        Granted::hold(self)
    }

    fn hold_mut(&mut self) -> &mut dyn Hold {
        Granted::hold_mut(self)
    }

    fn wait_time(&self) -> Option<Duration> {
        Granted::wait_time(self)
    }
}

impl AnyGuard {
    /// Erases the kind of a guard. A guard that is already an `AnyGuard` stays as it is.
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

    /// Returns the inner guard if it is of this kind.
    pub fn downcast_ref<G: Guard>(&self) -> Option<&G> {
        let inner: &dyn Any = &*self.inner;
        inner.downcast_ref()
    }

    /// Returns the inner guard, mutably, if it is of this kind. A [`FileGuard`](crate::FileGuard)
    /// needs this to read and write.
    pub fn downcast_mut<G: Guard>(&mut self) -> Option<&mut G> {
        let inner: &mut dyn Any = &mut *self.inner;
        inner.downcast_mut()
    }

    /// Returns the inner guard by value if it is of this kind.
    ///
    /// # Errors
    ///
    /// This guard itself, still held, if the inner guard is of another kind.
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

    /// Returns the fencing token, or `None` if the lock has none. See [`Guard::token`].
    pub fn token(&self) -> Option<u64> {
        self.inner.hold().token()
    }

    /// Returns how long the caller waited for this lock, or `None` if the lock was free at once.
    pub fn waited(&self) -> Option<Duration> {
        self.inner.wait_time()
    }

    /// Returns whether the last holder died while it held the lock; see
    /// [`Guard::predecessor_crashed`].
    pub fn predecessor_crashed(&self) -> bool {
        self.inner.hold().predecessor_crashed()
    }

    /// Returns whether the lock is still held. This is a look at the present.
    pub fn is_held(&self) -> bool {
        self.inner.hold().is_held()
    }

    /// Resolves when the lock is lost; see [`Lost`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn lost(&self) -> Lost {
        self.inner.hold().lost()
    }

    /// Turns the writer into a reader; see [`WriteGuard::downgrade`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before its end, it releases the lock.
    ///
    /// # Errors
    ///
    /// - Those of the inner guard.
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the inner guard is not that
    ///   of a writer. It is released then.
    pub fn downgrade(self) -> Downgrade<Self> {
        WriteGuard::downgrade(self)
    }

    /// Releases the lock and reports whether that succeeded.
    ///
    /// # Cancel safety
    ///
    /// That of the inner guard, which is consumed in any case.
    ///
    /// # Errors
    ///
    /// Those of the inner guard.
    pub fn release(self) -> Release<Self> {
        Guard::release(self)
    }
}

impl Guard for AnyGuard {}

/// A guard that is not the writer's of a lock that readers can share refuses `downgrade`.
impl WriteGuard for AnyGuard {
    type Shared = Self;
}

is_permit!(AnyGuard);

impl Granted for AnyGuard {
    type Pending = AnyPending;
    type Reader = Self;

    fn into_reader(self) -> Self {
        self.inner.into_reader()
    }

    /// The inner guard already has its wait time.
    fn granted(guard: Self, _: Waited<'_>) -> Self {
        guard
    }

    fn hold(&self) -> &dyn Hold {
        self.inner.hold()
    }

    fn hold_mut(&mut self) -> &mut dyn Hold {
        self.inner.hold_mut()
    }

    fn wait_time(&self) -> Option<Duration> {
        self.inner.wait_time()
    }

    fn split(&mut self, permits: u32) -> Result<Self> {
        self.inner.split(permits)
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        self.inner.merge(other)
    }

    fn uncount(&self) {
        self.inner.uncount();
    }
}

impl fmt::Debug for AnyGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyGuard")
            .field("place", &Granted::hold(self).place())
            .field("token", &self.token())
            .finish_non_exhaustive()
    }
}

/// The wait for a lock of any kind.
#[doc(hidden)]
pub struct AnyPending {
    inner: Box<dyn Pending<Grant = AnyGuard>>,
    /// The handle, so that it lives as long as its waits.
    handle: Option<Arc<dyn DynHandle>>,
}

/// A whole wait. The guard is erased when it is granted.
struct Forgetting<G: Guard>(Attempt<G>);

impl<G: Guard> Acquire<G> {
    /// Returns the same wait, for a guard whose kind is erased.
    pub(crate) fn forget_kind(self) -> Acquire<AnyGuard> {
        self.map(|attempt| AnyPending {
            inner: Box::new(Forgetting(attempt)),
            handle: None,
        })
    }
}

impl Acquire<AnyGuard> {
    /// Keeps the handle as long as the wait.
    fn keeping(mut self, handle: Arc<dyn DynHandle>) -> Self {
        self.pending_mut().handle = Some(handle);
        self
    }
}

impl<G: Guard> Pending for Forgetting<G> {
    type Grant = AnyGuard;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<AnyGuard>>> {
        let granted = self.0.poll(request, cx);
        granted.map_ok(|guard| guard.map(AnyGuard::new))
    }

    fn leave(&mut self) {
        self.0.leave();
    }

    fn waiting(&self) -> Option<Waiting> {
        self.0.waiting()
    }

    fn address(&self) -> Option<Address> {
        self.0.address()
    }

    fn counts_waiters(&self) -> bool {
        self.0.counts_waiters()
    }

    #[allow(private_interfaces)]
    fn meter(&self) -> Meter {
        self.0.meter()
    }

    fn has_inner_wait(&self) -> bool {
        true
    }
}

impl Pending for AnyPending {
    type Grant = AnyGuard;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<AnyGuard>>> {
        self.inner.poll(request, cx)
    }

    fn leave(&mut self) {
        self.inner.leave();
    }

    fn waiting(&self) -> Option<Waiting> {
        self.inner.waiting()
    }

    fn address(&self) -> Option<Address> {
        self.inner.address()
    }

    fn counts_waiters(&self) -> bool {
        self.inner.counts_waiters()
    }

    #[allow(private_interfaces)]
    fn meter(&self) -> Meter {
        self.inner.meter()
    }

    fn has_inner_wait(&self) -> bool {
        true
    }
}
