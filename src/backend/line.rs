//! One lock of an engine, and the handle around it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

use super::unsupported_later;
use crate::acquire::Acquire;
use crate::address::Address;
use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::error::{Error, Result};
use crate::guard::{Permit, guard};
use crate::ledger::Ledger;
use crate::lock::{Capabilities, Handle, Lock, Semaphore, SharedLock};
use crate::loss::{LossListener, Lost};
use crate::options::{check_merge, check_permits, check_split};
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status, Waiting};
use crate::wait::{Hold, Mode, Pending, Request};

/// One lock of an [`Engine`](super::Engine): an exclusive lock, a reader-writer lock or a
/// semaphore.
///
/// [`AnyLock::of_line`], [`AnySharedLock::of_line`] and [`AnySemaphore::of_line`] make handles from
/// it. The handles add time limits, progress reports, guards, counts and `close`.
///
/// A method whose default "fails" returns
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
pub trait Line: Send + Sync + 'static {
    /// Returns the address of the lock: backend, place and name.
    fn address(&self) -> Address;

    /// Returns what it can and cannot do.
    fn capabilities(&self) -> Capabilities;

    /// Makes the wait of one caller. The wait sends no request before its first poll.
    fn enqueue(&self, mode: Mode) -> BoxPending;

    /// Returns the holder and the waiters. The default fails.
    fn status(&self) -> BoxFuture<'_, Result<Status>> {
        unsupported_later("a status is", self.address().place())
    }

    /// Deletes the stored state of the lock, if no caller holds it or waits for it. The default
    /// fails.
    fn remove(&self) -> BoxFuture<'_, Result<Removal>> {
        unsupported_later("`remove` is", self.address().place())
    }

    /// Returns the status after each change. The default yields one error.
    fn changes(&self) -> Changes {
        Changes::unsupported(self.address().place())
    }

    /// Returns how many permits the semaphore has. Called for semaphores only.
    fn limit(&self) -> u32 {
        1
    }

    /// Returns how many permits of the semaphore are free at this moment; see
    /// [`Semaphore::available`]. The default fails.
    fn available(&self) -> BoxFuture<'_, Result<u32>> {
        unsupported_later("`available` is", self.address().place())
    }

    /// Changes how many permits the semaphore has. The default fails.
    fn resize(&self, _permits: u32) -> BoxFuture<'_, Result<()>> {
        unsupported_later("`resize` is", self.address().place())
    }
}

/// A wait of a [`Line`].
pub type BoxPending = Box<dyn Pending<Grant = Box<dyn Hold>>>;

impl AnyLock {
    /// Returns a handle on a lock of a backend.
    pub fn of_line(line: impl Line) -> Self {
        Self::new(LineLock::new(line))
    }
}

impl AnySharedLock {
    /// Returns a handle on a reader-writer lock of a backend.
    pub fn of_line(line: impl Line) -> Self {
        Self::new(LineLock::new(line))
    }
}

impl AnySemaphore {
    /// Returns a handle on a semaphore of a backend.
    pub fn of_line(line: impl Line) -> Self {
        Self::new(LineLock::new(line))
    }
}

/// A handle on a line of any kind. The public handle around it shows only the methods of its kind.
#[derive(Clone)]
struct LineLock {
    line: Arc<dyn Line>,
    ledger: Arc<Ledger>,
}

impl LineLock {
    fn new(line: impl Line) -> Self {
        Self {
            ledger: Ledger::new("line", line.address()),
            line: Arc::new(line),
        }
    }

    fn enqueue(&self, mode: Mode) -> Acquire<LineGuard> {
        let inner = match mode {
            Mode::Permits(permits) => {
                let place = self.line.address().place();
                check_permits(permits, self.line.limit(), place).map_err(Some)
            }
            Mode::Exclusive | Mode::Shared => Ok(()),
        };
        let pending = LinePending {
            inner: inner.map(|()| self.line.enqueue(mode)),
            lock: self.clone(),
        };
        Acquire::new(pending, None)
    }
}

impl Handle for LineLock {
    async fn status(&self) -> Result<Status> {
        self.line.status().await
    }

    async fn remove(&self) -> Result<Removal> {
        self.line.remove().await
    }

    fn changes(&self) -> Changes {
        self.line.changes()
    }

    fn stats(&self) -> Stats {
        self.ledger.stats()
    }

    fn close(&self) {
        self.ledger.close();
    }

    fn capabilities(&self) -> Capabilities {
        self.line.capabilities()
    }

    fn address(&self) -> Option<Address> {
        Some(self.line.address())
    }
}

impl Lock for LineLock {
    type Guard = LineGuard;

    fn acquire(&self) -> Acquire<LineGuard> {
        self.enqueue(Mode::Exclusive)
    }

    async fn try_acquire(&self) -> Result<Option<LineGuard>> {
        Lock::acquire(self).try_once().await
    }
}

impl SharedLock for LineLock {
    type SharedGuard = LineGuard;

    fn acquire_shared(&self) -> Acquire<LineGuard> {
        self.enqueue(Mode::Shared)
    }

    async fn try_acquire_shared(&self) -> Result<Option<LineGuard>> {
        self.acquire_shared().try_once().await
    }
}

impl Semaphore for LineLock {
    type Permit = LineGuard;

    fn acquire_many(&self, permits: u32) -> Acquire<LineGuard> {
        self.enqueue(Mode::Permits(permits))
    }

    async fn try_acquire_many(&self, permits: u32) -> Result<Option<LineGuard>> {
        self.acquire_many(permits).try_once().await
    }

    fn limit(&self) -> u32 {
        self.line.limit()
    }

    async fn available(&self) -> Result<u32> {
        self.line.available().await
    }

    async fn resize(&self, permits: u32) -> Result<()> {
        check_permits(permits, u32::MAX, self.line.address().place())?;
        self.line.resize(permits).await
    }
}

impl fmt::Debug for LineLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LineLock")
            .field(&self.line.address().to_string())
            .finish()
    }
}

guard! {
    /// The guard of a line.
    LineGuard holds Box<dyn Hold>, by LinePending, reader: LineGuard
}

impl Permit for LineGuard {}

/// A wait of a line, or the error of a request that is invalid.
#[allow(unreachable_pub)] // Its guard is visible as AnyGuard only.
pub struct LinePending {
    inner: Result<BoxPending, Option<Error>>,
    lock: LineLock,
}

impl Pending for LinePending {
    type Grant = Box<dyn Hold>;

    fn poll(
        &mut self,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Box<dyn Hold>>>> {
        match &mut self.inner {
            Ok(inner) => inner.poll(request, cx),
            Err(error) => Poll::Ready(error.take().map_or(Ok(None), Err)),
        }
    }

    fn leave(&mut self) {
        if let Ok(inner) = &mut self.inner {
            inner.leave();
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        self.inner.as_ref().ok()?.waiting()
    }

    fn address(&self) -> Option<Address> {
        self.inner.as_ref().ok().map(|_| self.lock.line.address())
    }

    fn counts_waiters(&self) -> bool {
        self.inner.as_ref().is_ok_and(|it| it.counts_waiters())
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        Some(&self.lock.ledger)
    }
}

impl Hold for Box<dyn Hold> {
    fn token(&self) -> Option<u64> {
        (**self).token()
    }

    fn predecessor_crashed(&self) -> bool {
        (**self).predecessor_crashed()
    }

    fn permits(&self) -> u32 {
        (**self).permits()
    }

    fn split(&mut self, permits: u32) -> Result<Self> {
        check_split(permits, self.permits(), self.place())?;
        (**self).split_boxed(permits)
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        check_merge(true, self.permits(), other.permits(), self.place())?;
        (**self).merge_boxed(other)
    }

    fn poll_downgrade(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        (**self).poll_downgrade(cx)
    }

    fn is_held(&self) -> bool {
        (**self).is_held()
    }

    fn lost(&self) -> Lost {
        (**self).lost()
    }

    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        (**self).poll_release(cx)
    }

    fn on_loss(&self, listener: &dyn Fn() -> LossListener) {
        (**self).on_loss(listener);
    }

    fn place(&self) -> &Path {
        (**self).place()
    }

    fn has_queued(&self) -> bool {
        (**self).has_queued()
    }
}
