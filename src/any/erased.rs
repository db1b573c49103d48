//! The erased handle: what every lock and semaphore can do, without its type.

use std::any::Any;
use std::sync::{Arc, Weak};

use futures::future::BoxFuture;

use crate::acquire::Acquire;
use crate::any::AnyGuard;
use crate::error::Result;
use crate::lock::{Capabilities, Handle, Lock, Semaphore, SharedLock, WeakCore};
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status};

/// The result of a method of a trait without types.
type Later<'a, T> = BoxFuture<'a, Result<T>>;

/// [`Handle`] without a type.
pub(crate) trait DynHandle: Any + Send + Sync {
    fn status(&self) -> Later<'_, Status>;
    fn remove(&self) -> Later<'_, Removal>;
    fn changes(&self) -> Changes;
    fn stats(&self) -> Stats;
    fn close(&self);
    fn capabilities(&self) -> Capabilities;
    fn core(&self) -> Option<WeakCore>;
}

impl<H: Handle + 'static> DynHandle for H {
    fn status(&self) -> Later<'_, Status> {
        Box::pin(Handle::status(self))
    }

    fn remove(&self) -> Later<'_, Removal> {
        Box::pin(Handle::remove(self))
    }

    fn changes(&self) -> Changes {
        Handle::changes(self)
    }

    fn stats(&self) -> Stats {
        Handle::stats(self)
    }

    fn close(&self) {
        Handle::close(self);
    }

    fn capabilities(&self) -> Capabilities {
        Handle::capabilities(self)
    }

    fn core(&self) -> Option<WeakCore> {
        Handle::core(self)
    }
}

/// A handle that may be gone by now.
pub(crate) enum WeakHandle {
    /// What it has in common with its clones, also with those of the inner lock.
    Core(WeakCore),
    /// A handle of another crate.
    Whole(Weak<dyn DynHandle>),
}

impl WeakHandle {
    pub(super) fn of(handle: Arc<dyn DynHandle>) -> Self {
        match handle.core() {
            Some(core) => Self::Core(core),
            None => Self::Whole(Arc::downgrade(&handle)),
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Core(core) => core.is_alive(),
            Self::Whole(handle) => handle.strong_count() > 0,
        }
    }

    pub(crate) fn close(&self) {
        match self {
            Self::Core(core) => core.close(),
            Self::Whole(handle) => handle.upgrade().into_iter().for_each(|it| it.close()),
        }
    }
}

/// [`Lock`] without a type.
pub(super) trait DynLock: DynHandle {
    fn acquire(&self) -> Acquire<AnyGuard>;
    fn try_acquire(&self) -> Later<'_, Option<AnyGuard>>;
}

impl<L: Lock + 'static> DynLock for L {
    fn acquire(&self) -> Acquire<AnyGuard> {
        Lock::acquire(self).forget_kind()
    }

    fn try_acquire(&self) -> Later<'_, Option<AnyGuard>> {
        Box::pin(async { Ok(Lock::try_acquire(self).await?.map(AnyGuard::new)) })
    }
}

/// [`SharedLock`] without a type.
pub(super) trait DynSharedLock: DynLock {
    fn acquire_shared(&self) -> Acquire<AnyGuard>;
    fn try_acquire_shared(&self) -> Later<'_, Option<AnyGuard>>;
}

impl<L: SharedLock + 'static> DynSharedLock for L {
    fn acquire_shared(&self) -> Acquire<AnyGuard> {
        SharedLock::acquire_shared(self).forget_kind()
    }

    fn try_acquire_shared(&self) -> Later<'_, Option<AnyGuard>> {
        Box::pin(async {
            Ok(SharedLock::try_acquire_shared(self)
                .await?
                .map(AnyGuard::new))
        })
    }
}

/// [`Semaphore`] without a type.
pub(super) trait DynSemaphore: DynHandle {
    fn acquire_many(&self, permits: u32) -> Acquire<AnyGuard>;
    fn try_acquire_many(&self, permits: u32) -> Later<'_, Option<AnyGuard>>;
    fn limit(&self) -> u32;
    fn available(&self) -> Later<'_, u32>;
    fn resize(&self, permits: u32) -> Later<'_, ()>;
}

impl<S: Semaphore + 'static> DynSemaphore for S {
    fn acquire_many(&self, permits: u32) -> Acquire<AnyGuard> {
        Semaphore::acquire_many(self, permits).forget_kind()
    }

    fn try_acquire_many(&self, permits: u32) -> Later<'_, Option<AnyGuard>> {
        Box::pin(async move {
            let permit = Semaphore::try_acquire_many(self, permits).await?;
            Ok(permit.map(AnyGuard::new))
        })
    }

    fn limit(&self) -> u32 {
        Semaphore::limit(self)
    }

    fn available(&self) -> Later<'_, u32> {
        Box::pin(Semaphore::available(self))
    }

    fn resize(&self, permits: u32) -> Later<'_, ()> {
        Box::pin(Semaphore::resize(self, permits))
    }
}

/// Gives an erased handle the methods of [`Handle`]. `inner` is the field with the handle.
macro_rules! any_handle {
    ($($any:ident),+) => {$(
        impl $any {
            /// Returns the holders, and the waiters in order, as far as the inner handle knows
            /// them.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future changes nothing.
            ///
            /// # Errors
            ///
            /// Those of the inner handle, as for every method here.
            pub async fn status(&self) -> Result<Status> {
                self.inner.status().await
            }

            /// Deletes the files of the lock, or its keys on a server, if no caller holds it or
            /// waits for it.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped after its first poll, the lock may have been removed.
            pub async fn remove(&self) -> Result<Removal> {
                self.inner.remove().await
            }

            /// Returns the status as it changes. A lock that cannot report changes yields one
            /// error.
            pub fn changes(&self) -> Changes {
                self.inner.changes()
            }

            /// Returns counts of what this process has done with it so far.
            pub fn stats(&self) -> Stats {
                self.inner.stats()
            }

            /// Ends every wait through this handle and its clones, and refuses new ones.
            pub fn close(&self) {
                self.inner.close();
            }

            /// Returns what it can and cannot do.
            pub fn capabilities(&self) -> Capabilities {
                self.inner.capabilities()
            }

            /// Returns the canonical path of a lock on a file, or `None` for any other lock. The
            /// `Display` of this handle shows the place of every lock.
            pub fn path(&self) -> Option<&Path> {
                self.place.path()
            }
        }

        impl $any {
            /// Returns the handle without keeping it.
            pub(crate) fn downgrade(&self) -> WeakHandle {
                WeakHandle::of(self.inner.clone())
            }
        }

        is_handle! { $any, await;
            fn address(&self) -> Option<Address> {
                self.place.address().cloned()
            }

            fn core(&self) -> Option<WeakCore> {
                self.inner.core()
            }
        }

        impl fmt::Display for $any {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.place.fmt(f)
            }
        }

        impl fmt::Debug for $any {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($any)).field(&self.place.to_string()).finish()
            }
        }
    )+};
}
pub(super) use any_handle;
