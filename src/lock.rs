//! The traits of every lock and semaphore, and what a backend can do.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};

use crate::acquire::Acquire;
use crate::address::Address;
use crate::error::Result;
use crate::guard::{Guard, Permit, WriteGuard};
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status};

/// The methods that every lock and semaphore has, apart from those that acquire it. A handle is
/// cheap to clone. A clone is the same handle.
pub trait Handle: fmt::Debug + Send + Sync {
    /// Returns the holders, and the waiters in order. Changes nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    fn status(&self) -> impl Future<Output = Result<Status>> + Send;

    /// Deletes the files of the lock, or its keys on a server, if no caller holds it or waits for
    /// it. The lock stays usable: the next acquire creates them again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after its first poll, the lock may have been removed.
    fn remove(&self) -> impl Future<Output = Result<Removal>> + Send;

    /// Returns a stream of the status: now, and after each change. If the lock cannot report
    /// changes, the stream yields one
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    fn changes(&self) -> Changes;

    /// Returns the statistics of this process for this lock.
    fn stats(&self) -> Stats;

    /// Ends every wait through this handle and its clones with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and refuses new waits. Use it for a
    /// graceful shutdown. Guards stay valid. Other handles are not affected.
    fn close(&self);

    /// Returns what the lock can and cannot do.
    fn capabilities(&self) -> Capabilities;

    /// Returns the address of the lock, if the handle knows it. Otherwise only its waits know it.
    #[doc(hidden)]
    fn address(&self) -> Option<Address> {
        None
    }

    /// Returns what all clones of the handle have in common. `None` for handles of other crates.
    #[doc(hidden)]
    fn core(&self) -> Option<WeakCore> {
        None
    }
}

/// What all clones of a handle have in common. The clones, their waits and their guards keep it
/// alive; this value does not.
#[doc(hidden)]
pub struct WeakCore(Weak<dyn Local + Send + Sync>);

impl WeakCore {
    pub(crate) fn of<C: Local + Send + Sync + 'static>(core: &Arc<C>) -> Self {
        let weak = Arc::downgrade(core);
        Self(weak)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn close(&self) {
        if let Some(core) = self.0.upgrade() {
            core.close();
        }
    }
}

/// An exclusive lock of any backend: while its guard lives, no other caller holds the lock.
///
/// A semaphore is not a `Lock`; see [`Semaphore`]. Code that works with any lock takes `&impl
/// Lock`. This trait is not dyn-compatible. To keep locks of several kinds side by side, use
/// [`AnyLock`](crate::AnyLock), which has all of these methods.
///
/// ```
/// use stanchion::{Guard, Lock, Result};
///
/// async fn with_token<L: Lock>(lock: &L) -> Result<Option<u64>> {
///     let guard = lock.acquire().await?;
///     let token = guard.token();
///     guard.release().await?;
///     Ok(token)
/// }
/// # let lock = stanchion::FifoLock::open(tempfile::tempdir().unwrap().path().join("a.lock")).unwrap();
/// # assert!(futures::executor::block_on(with_token(&lock)).unwrap_err().path().is_some());
/// ```
///
/// The trait requires neither `Clone` nor `'static`. Every lock of this crate has both. A function
/// that spawns a task states what it needs:
///
/// ```
/// use stanchion::{Guard, Lock, Result};
/// use tokio::task::JoinHandle;
///
/// fn spawn_job<L: Lock + Clone + 'static>(lock: &L) -> JoinHandle<Result<()>> {
///     let lock = lock.clone();
///     tokio::spawn(async move { lock.acquire().await?.release().await })
/// }
/// ```
pub trait Lock: Handle {
    /// What a successful acquire returns.
    type Guard: Guard;

    /// Waits for the lock; see [`Acquire`].
    fn acquire(&self) -> Acquire<Self::Guard>;

    /// Acquires the lock if that needs no waiting. Returns `None` if it is held or a caller waits
    /// for it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after the lock was granted, the lock is released.
    fn try_acquire(&self) -> impl Future<Output = Result<Option<Self::Guard>>> + Send;
}

/// A lock that any number of readers may share. [`Lock::acquire`] is for one writer,
/// [`acquire_shared`](SharedLock::acquire_shared) for readers. The writer's guard can
/// [`downgrade`](WriteGuard::downgrade).
pub trait SharedLock: Lock<Guard: WriteGuard<Shared = <Self as SharedLock>::SharedGuard>> {
    /// What a successful shared acquire returns.
    type SharedGuard: Guard;

    /// Waits for the lock as a reader; see [`Acquire`].
    fn acquire_shared(&self) -> Acquire<Self::SharedGuard>;

    /// Acquires the lock as a reader if that needs no waiting. Otherwise returns `None`.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::try_acquire`].
    fn try_acquire_shared(&self) -> impl Future<Output = Result<Option<Self::SharedGuard>>> + Send;
}

/// A semaphore of any backend: at most [`limit`](Semaphore::limit) permits are held at a time.
pub trait Semaphore: Handle {
    /// What a successful acquire returns: one permit or more.
    type Permit: Permit;

    /// Waits for this many permits at once; see [`Acquire`].
    fn acquire_many(&self, permits: u32) -> Acquire<Self::Permit>;

    /// Acquires this many permits if that needs no waiting. Otherwise returns `None`.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::try_acquire`].
    fn try_acquire_many(
        &self,
        permits: u32,
    ) -> impl Future<Output = Result<Option<Self::Permit>>> + Send;

    /// Returns how many permits there are, as far as this process knows.
    fn limit(&self) -> u32;

    /// Returns how many permits are free at this moment: the limit minus the permits that are held.
    ///
    /// A permit that is offered to a waiter counts as held. The number does not show whether
    /// callers wait. So a try may fail although the number is greater than 0: while a waiter for
    /// many permits is first in the queue, the callers behind it wait too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    fn available(&self) -> impl Future<Output = Result<u32>> + Send;

    /// Changes how many permits there are, for every process. A reduction waits in the queue until
    /// all permits are released.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits, nothing has changed.
    fn resize(&self, permits: u32) -> impl Future<Output = Result<()>> + Send;

    /// Waits for one permit; see [`Acquire`].
    fn acquire(&self) -> Acquire<Self::Permit> {
        self.acquire_many(1)
    }

    /// Acquires one permit if that needs no waiting. Otherwise returns `None`.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::try_acquire`].
    fn try_acquire(&self) -> impl Future<Output = Result<Option<Self::Permit>>> + Send {
        self.try_acquire_many(1)
    }
}

/// The methods of [`Handle`] without `async`, for a lock on this host. [`local_handle!`] adds them
/// to the handle.
pub(crate) trait Local {
    fn status(&self) -> Result<Status>;
    fn remove(&self) -> Result<Removal>;
    fn changes(&self) -> Changes;
    fn stats(&self) -> Stats;
    fn close(&self);
    fn capabilities(&self) -> Capabilities;

    /// See [`Handle::core`].
    fn core(self: &Arc<Self>) -> Option<WeakCore>
    where
        Self: Sized + Send + Sync + 'static,
    {
        Some(WeakCore::of(self))
    }
}

/// Defines the methods of [`Handle`] on a handle without `async`, and implements [`Handle`] with
/// them. `$core` is the field that implements [`Local`].
macro_rules! local_handle {
    ($($handle:ident: $core:ident),+) => {$(
        impl $handle {
            /// Returns the holders, and the waiters in order. Changes nothing.
            ///
            /// # Errors
            ///
            /// Those of a lock on files:
            ///
            /// - [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) if another kind or
            ///   version of lock is here.
            /// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the files here are not those
            ///   of a lock.
            /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if they cannot be read.
            ///
            /// # Platform notes
            ///
            /// For a lock on files: in the initial pid namespace of a Linux host, the call locks no
            /// file. Elsewhere it locks the lock file for a microsecond if neither the record nor
            /// the kernel's list of locks names a living holder.
            pub fn status(&self) -> $crate::error::Result<$crate::status::Status> {
                $crate::lock::Local::status(&*self.$core)
            }

            /// Deletes the files of the lock if no caller holds it or waits for it. The lock stays
            /// usable: the next acquire creates them again. A lock in memory has no files.
            ///
            /// # Errors
            ///
            /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if a file or directory cannot be deleted,
            ///   for example because it belongs to another user. The lock stays as it was.
            /// - Those of [`status`](Self::status).
            pub fn remove(&self) -> $crate::error::Result<$crate::status::Removal> {
                $crate::lock::Local::remove(&*self.$core)
            }

            /// Returns a stream of the [`status`](Self::status): now, and after each change. If the
            /// lock cannot report changes, the stream yields one
            /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
            ///
            /// ```no_run
            /// # async fn example(lock: stanchion::FifoLock) -> stanchion::Result<()> {
            /// let mut changes = lock.changes();
            /// while let Some(status) = changes.next().await {
            ///     println!("{} wait", status?.waiters.len());
            /// }
            /// # Ok(()) }
            /// ```
            pub fn changes(&self) -> $crate::status::Changes {
                $crate::lock::Local::changes(&*self.$core)
            }

            /// Returns the statistics of all handles of this process on this lock.
            pub fn stats(&self) -> $crate::stats::Stats {
                $crate::lock::Local::stats(&*self.$core)
            }

            /// Ends every wait through this handle and its clones with
            /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and refuses new waits. Use it for a
            /// graceful shutdown. Guards stay valid, and `status` and `remove` still work. Other
            /// handles are not affected, even those on the same path.
            pub fn close(&self) {
                $crate::lock::Local::close(&*self.$core)
            }

            /// Returns what the lock can and cannot do.
            pub fn capabilities(&self) -> $crate::lock::Capabilities {
                $crate::lock::Local::capabilities(&*self.$core)
            }
        }

        impl $crate::lock::Local for $handle {
            fn status(&self) -> $crate::error::Result<$crate::status::Status> {
                $handle::status(self)
            }

            fn remove(&self) -> $crate::error::Result<$crate::status::Removal> {
                $handle::remove(self)
            }

            fn changes(&self) -> $crate::status::Changes {
                $handle::changes(self)
            }

            fn stats(&self) -> $crate::stats::Stats {
                $handle::stats(self)
            }

            fn close(&self) {
                $handle::close(self);
            }

            fn capabilities(&self) -> $crate::lock::Capabilities {
                $handle::capabilities(self)
            }
        }

        $crate::lock::is_handle! { $handle;
            fn core(&self) -> Option<$crate::lock::WeakCore> {
                $crate::lock::Local::core(&self.$core)
            }
        }
    )+};
}

/// Implements [`Handle`] with the methods that the handle itself has, and with those that are given
/// here. Pass `await` if `status` and `remove` are asynchronous.
macro_rules! is_handle {
    ($handle:ident $(, $await:tt)?; $($more:tt)*) => {
        impl $crate::lock::Handle for $handle {
            async fn status(&self) -> $crate::error::Result<$crate::status::Status> {
                $handle::status(self)$(.$await)?
            }

            async fn remove(&self) -> $crate::error::Result<$crate::status::Removal> {
                $handle::remove(self)$(.$await)?
            }

            fn changes(&self) -> $crate::status::Changes {
                $handle::changes(self)
            }

            fn stats(&self) -> $crate::stats::Stats {
                $handle::stats(self)
            }

            fn close(&self) {
                $handle::close(self);
            }

            fn capabilities(&self) -> $crate::lock::Capabilities {
                $handle::capabilities(self)
            }

            $($more)*
        }
    };
}

/// Implements [`Lock`], [`SharedLock`] or [`Semaphore`] with the methods that the handle itself
/// has. Pass `await` if these methods are asynchronous.
macro_rules! is_lock {
    ($lock:ident: Lock<$guard:ty>, $acquire:ident, $try:ident $(, $await:tt)?) => {
        impl $crate::lock::Lock for $lock {
            type Guard = $guard;

            fn acquire(&self) -> $crate::acquire::Acquire<$guard> {
                $lock::$acquire(self)
            }

            async fn try_acquire(&self) -> $crate::error::Result<Option<$guard>> {
                $lock::$try(self)$(.$await)?
            }
        }
    };
    ($lock:ident: SharedLock<$guard:ty>, $acquire:ident, $try:ident $(, $await:tt)?) => {
        impl $crate::lock::SharedLock for $lock {
            type SharedGuard = $guard;

            fn acquire_shared(&self) -> $crate::acquire::Acquire<$guard> {
                $lock::$acquire(self)
            }

            async fn try_acquire_shared(&self) -> $crate::error::Result<Option<$guard>> {
                $lock::$try(self)$(.$await)?
            }
        }
    };
    ($lock:ident: Semaphore<$permit:ty> $(, $await:tt)?) => {
        impl $crate::lock::Semaphore for $lock {
            type Permit = $permit;

            fn acquire_many(&self, permits: u32) -> $crate::acquire::Acquire<$permit> {
                $lock::acquire_many(self, permits)
            }

            async fn try_acquire_many(
                &self,
                permits: u32,
            ) -> $crate::error::Result<Option<$permit>> {
                $lock::try_acquire_many(self, permits)$(.$await)?
            }

            fn limit(&self) -> u32 {
                $lock::limit(self)
            }

            async fn available(&self) -> $crate::error::Result<u32> {
                $lock::available(self)$(.$await)?
            }

            async fn resize(&self, permits: u32) -> $crate::error::Result<()> {
                $lock::resize(self, permits).await
            }
        }
    };
}

pub(crate) use {is_handle, is_lock, local_handle};

/// What the locks of a backend can and cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The lock excludes: only a caller that may share the lock can acquire it while it is held.
    /// This is `false` only for [`Method::Fake`](crate::Method::Fake), which grants every acquire.
    pub excludes: bool,
    /// Callers acquire in order of arrival.
    pub fair: bool,
    /// A release wakes the next waiter. Otherwise waiters poll.
    pub push: bool,
    /// The guard reports a loss. Also `true` if the lock cannot be lost.
    pub detects_loss: bool,
    /// How far the tokens of exclusive grants can be trusted to increase.
    pub tokens: Tokens,
    /// The [`status`](Handle::status) shows the holders with their labels. It also shows the
    /// waiters if the lock is [fair](Capabilities::fair). If this is `false`, the status shows at
    /// most what the operating system knows.
    pub names_owners: bool,
    /// How far the lock reaches.
    pub reach: Reach,
}

impl Capabilities {
    /// Returns the capabilities of a lock that only excludes: no order, no wake-ups, no tokens, no
    /// names, and no report of a loss. A backend adds what its locks can do.
    pub fn minimal(reach: Reach) -> Self {
        Self {
            excludes: true,
            fair: false,
            push: false,
            detects_loss: false,
            tokens: Tokens::None,
            names_owners: false,
            reach,
        }
    }

    pub(crate) fn of_fair_file_lock(push: bool) -> Self {
        Self {
            excludes: true,
            fair: true,
            push,
            detects_loss: true,
            tokens: Tokens::StrictUnlessReset,
            names_owners: true,
            reach: Reach::Host,
        }
    }

    pub(crate) fn of_plain_file_lock(push: bool) -> Self {
        Self {
            fair: false,
            tokens: Tokens::None,
            names_owners: false,
            ..Self::of_fair_file_lock(push)
        }
    }
}

/// How strong the fencing tokens of a lock are. A stronger guarantee compares as greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Tokens {
    /// There are no tokens.
    None,
    /// Each token is greater than all before. The exception: the state of the lock was deleted and
    /// the wall clock was set back as well.
    StrictUnlessReset,
    /// Each token is greater than all before, in every case.
    Strict,
}

/// Which callers a lock excludes from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// The tasks and threads of one process.
    Process,
    /// All processes of one host.
    Host,
    /// All hosts that reach the same backend.
    Network,
}
