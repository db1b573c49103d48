//! The guard of every lock.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::FusedFuture;

use crate::address::Address;
use crate::block;
use crate::error::{ErrorKind, Result};
use crate::loss::Lost;
use crate::metrics::{self, Meter};
use crate::trace;
use crate::wait::{Hold, Pending};

/// The hold of a guard, and the time that the caller waited for it. Every guard of every backend
/// contains one, so holds and losses are counted here.
pub(crate) struct Held<H> {
    // Fields drop in order: the time of the release belongs to the hold.
    pub(crate) hold: H,
    pub(crate) waited: Option<Duration>,
    metered: metrics::Holding,
    _span: trace::Hold,
}

/// The facts about a wait at its grant.
#[derive(Clone, Copy, Default)]
#[doc(hidden)]
pub struct Waited<'a> {
    /// How long it took, or `None` if it was granted at once.
    pub(crate) time: Option<Duration>,
    /// When it was granted, if the clock was read.
    pub(crate) now: Option<Instant>,
    /// Where the hold counts.
    pub(crate) meter: Meter,
    pub(crate) address: Option<&'a dyn Fn() -> Option<Address>>,
}

impl<H: Hold> Held<H> {
    pub(crate) fn new(hold: H, waited: Waited<'_>) -> Self {
        let time = waited.time.filter(|_| hold.has_queued());
        let address = || waited.address?();
        let metered = metrics::Holding::begin(waited.meter, waited.now);
        metered.listen(|listener| hold.on_loss(listener));
        Self {
            _span: trace::Hold::begin(hold.place(), hold.token(), time, address),
            hold,
            waited: time,
            metered,
        }
    }

    /// Ends the count of a hold that stays without a guard.
    pub(crate) fn uncount(&self) {
        self.metered.end();
    }
}

/// The hold itself. What it reports of a loss is counted.
impl<H: Hold> Hold for Held<H> {
    fn token(&self) -> Option<u64> {
        self.hold.token()
    }

    fn predecessor_crashed(&self) -> bool {
        self.hold.predecessor_crashed()
    }

    fn permits(&self) -> u32 {
        self.hold.permits()
    }

    fn split(&mut self, permits: u32) -> Result<Self> {
        let hold = self.hold.split(permits)?;
        let metered = self.metered.split();
        metered.listen(|listener| hold.on_loss(listener));
        Ok(Self {
            _span: trace::Hold::begin(hold.place(), hold.token(), self.waited, || None),
            hold,
            waited: self.waited,
            metered,
        })
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        self.hold.merge(other.hold)
    }

    fn poll_downgrade(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let downgraded = self.hold.poll_downgrade(cx);
        self.count_loss(&downgraded);
        downgraded
    }

    fn is_held(&self) -> bool {
        let is_held = self.hold.is_held();
        if !is_held {
            self.metered.is_over(|| self.hold.lost());
        }
        is_held
    }

    fn lost(&self) -> Lost {
        self.metered.watch(self.hold.lost())
    }

    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let released = self.hold.poll_release(cx);
        self.count_loss(&released);
        released
    }

    fn place(&self) -> &Path {
        self.hold.place()
    }

    fn has_queued(&self) -> bool {
        self.hold.has_queued()
    }
}

impl<H> Held<H> {
    fn count_loss(&self, ended: &Poll<Result<()>>) {
        if let Poll::Ready(Err(error)) = ended
            && error.kind() == ErrorKind::Lost
        {
            self.metered.lost(error.loss());
        }
    }
}

/// What a guard gives to the future. Sealed: it may change with any release.
pub(crate) mod sealed {
    use super::*;

    /// Ties a guard to the way it is waited for, and to what it holds.
    pub trait Granted: Sized + Send + Sync + Unpin + 'static {
        /// The wait.
        type Pending: Pending;

        /// What it becomes by a downgrade.
        type Reader: Guard;

        /// Makes the guard.
        fn granted(grant: <Self::Pending as Pending>::Grant, waited: Waited<'_>) -> Self;

        /// What it holds.
        fn hold(&self) -> &dyn Hold;

        /// What it holds, to be released.
        fn hold_mut(&mut self) -> &mut dyn Hold;

        /// How long the caller waited.
        fn wait_time(&self) -> Option<Duration>;

        /// The same hold, after it was downgraded.
        fn into_reader(self) -> Self::Reader;

        /// Takes permits out of it.
        fn split(&mut self, permits: u32) -> Result<Self>;

        /// Adds the permits of another one.
        fn merge(&mut self, other: Self) -> Result<()>;

        /// Ends its count in the metrics.
        fn uncount(&self);
    }
}

/// The guard of a lock: while this value lives, no other caller holds the lock.
///
/// Dropping it releases the lock without a report; [`release`](Guard::release) reports. This trait
/// is sealed: new methods may be added.
pub trait Guard: sealed::Granted + fmt::Debug {
    /// Returns the fencing token of this grant. It is greater than the token of every earlier
    /// exclusive grant of the lock, also across crashes. Pass it to the resource that the lock
    /// protects, and let the resource refuse smaller tokens.
    ///
    /// Returns `None` if the lock has no [tokens](crate::Capabilities::tokens).
    fn token(&self) -> Option<u64> {
        self.hold().token()
    }

    /// Returns how long the caller waited, or `None` if the lock was free at once.
    fn waited(&self) -> Option<Duration> {
        self.wait_time()
    }

    /// Returns whether the last exclusive holder died while it held the lock. Then the data that
    /// the lock protects may be incomplete. For each death, exactly one guard returns `true`.
    fn predecessor_crashed(&self) -> bool {
        self.hold().predecessor_crashed()
    }

    /// Returns whether the lock is still held. The call is cheap. The lock may be lost right after
    /// the call.
    fn is_held(&self) -> bool {
        self.hold().is_held()
    }

    /// Resolves with the reason when the lock is lost while this guard lives. A call after the loss
    /// reports it too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    fn lost(&self) -> Lost {
        self.hold().lost()
    }

    /// Releases the lock and reports whether that succeeded.
    ///
    /// # Cancel safety
    ///
    /// The release begins at the first poll, and continues if the future is dropped after that. If
    /// the future is dropped before the first poll, the guard in it is dropped, which releases too.
    ///
    /// # Errors
    ///
    /// In each of these cases the guard no longer holds the lock:
    ///
    /// - [`ErrorKind::Lost`] if the lock was lost before.
    /// - [`ErrorKind::Io`] if a step failed.
    /// - [`ErrorKind::Unavailable`] if the release did not reach the server before the lease ended.
    fn release(self) -> Release<Self> {
        Release(Some(self))
    }
}

/// The guard of a lock that readers can share; see [`SharedLock`](crate::SharedLock).
pub trait WriteGuard: Guard + sealed::Granted<Reader = <Self as WriteGuard>::Shared> {
    /// The guard of a reader.
    type Shared: Guard;

    /// Turns the writer into a reader. The lock stays held, and no other writer acquires it in
    /// between. Readers at the head of the queue acquire it too.
    ///
    /// The reader keeps the token of the writer. If the reader dies, this does not count as a crash
    /// for the next holder.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the lock is released, as when the guard is
    /// dropped.
    ///
    /// # Errors
    ///
    /// In each of these cases the lock is released:
    ///
    /// - [`ErrorKind::InvalidInput`] if this is not the guard of a writer. Some types of guards are
    ///   for readers, permits or exclusive locks as well.
    /// - [`ErrorKind::Unsupported`] if the lock has no readers, or the backend cannot downgrade.
    /// - [`ErrorKind::Lost`] if the lock was lost.
    /// - [`ErrorKind::Io`] if a step failed.
    fn downgrade(self) -> Downgrade<Self> {
        Downgrade(Some(self))
    }
}

/// The guard of a semaphore: one permit or more.
pub trait Permit: Guard {
    /// Returns how many permits this guard holds.
    fn permits(&self) -> u32 {
        self.hold().permits()
    }

    /// Takes this many permits out of the guard, as a guard of their own. At least one stays. Both
    /// guards have the token of the grant.
    ///
    /// A future of [`lost`](Guard::lost) from before the split still covers all permits.
    ///
    /// # Errors
    ///
    /// In each of these cases nothing has changed:
    ///
    /// - [`ErrorKind::InvalidInput`] for 0 permits, and if no permit would stay.
    /// - [`ErrorKind::Unsupported`] if the backend cannot split permits, and in a forked child.
    fn split(&mut self, permits: u32) -> Result<Self> {
        sealed::Granted::split(self, permits)
    }

    /// Adds the permits of another guard of the same semaphore. The greater token stays.
    ///
    /// A future of [`lost`](Guard::lost) from before the merge covers the permits that its guard
    /// had then.
    ///
    /// # Errors
    ///
    /// In each of these cases the other guard is released:
    ///
    /// - [`ErrorKind::InvalidInput`] if the other guard is of another semaphore, or if one of the
    ///   guards has no permits.
    /// - [`ErrorKind::Unsupported`] if the backend cannot merge permits, and in a forked child.
    fn merge(&mut self, other: Self) -> Result<()> {
        sealed::Granted::merge(self, other)
    }

    /// Keeps the permits until this process ends.
    ///
    /// On a server, the client renews them until then, also after it is closed, and its background
    /// thread and connections last as long. Afterwards the permits are free when their lease is
    /// over. The option `max_hold` and `force_release` end them earlier.
    fn forget(self) {
        sealed::Granted::uncount(&self);
        std::mem::forget(self);
    }
}

/// The future of [`WriteGuard::downgrade`]. If it is dropped before it is ready, the lock is
/// released.
#[must_use = "futures do nothing unless awaited"]
pub struct Downgrade<G: WriteGuard>(Option<G>);

impl<G: WriteGuard> Future for Downgrade<G> {
    type Output = Result<G::Shared>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut guard) = self.0.take() else {
            return Poll::Pending;
        };
        match guard.hold_mut().poll_downgrade(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map(|()| guard.into_reader())),
            Poll::Pending => {
                self.0 = Some(guard);
                Poll::Pending
            }
        }
    }
}

impl<G: WriteGuard> FusedFuture for Downgrade<G> {
    fn is_terminated(&self) -> bool {
        self.0.is_none()
    }
}

impl<G: WriteGuard> fmt::Debug for Downgrade<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downgrade").finish_non_exhaustive()
    }
}

/// The future of [`Guard::release`]. If it is dropped before it is ready, the lock is released all
/// the same.
#[must_use = "futures do nothing unless awaited"]
pub struct Release<G: Guard>(Option<G>);

impl<G: Guard> Release<G> {
    /// Releases and blocks this thread until the release has ended, for callers without a runtime.
    /// Do not call it in an async task; see [`Acquire::block`](crate::Acquire::block).
    ///
    /// # Errors
    ///
    /// - Those of the future.
    /// - [`ErrorKind::Unsupported`] inside an async task. Then the guard is dropped, which releases
    ///   the lock without a report.
    pub fn block(self) -> Result<()> {
        if let Some(guard) = &self.0 {
            block::refuse_async(guard.hold().place())?;
        }
        block::block_on(self)
    }
}

impl<G: Guard> Future for Release<G> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(guard) = &mut self.0 else {
            return Poll::Pending;
        };
        let released = guard.hold_mut().poll_release(cx);
        if released.is_ready() {
            self.0 = None;
        }
        released
    }
}

impl<G: Guard> FusedFuture for Release<G> {
    fn is_terminated(&self) -> bool {
        self.0.is_none()
    }
}

impl<G: Guard> fmt::Debug for Release<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release").finish_non_exhaustive()
    }
}

/// Defines a guard around a [`Held`], with the methods that every guard has.
///
/// `token: "…"` is the documentation of `token()`, which then returns a plain number. Without it
/// `token()` returns an `Option`. `reader: …` makes it a [`WriteGuard`] that becomes this guard.
macro_rules! guard {
    (
        $(#[$about:meta])*
        $name:ident $(<$inner:ident: $bound:ident>)? holds $hold:ty, by $pending:ty
        $(, token: $token:literal)? $(, reader: $reader:ident)?
    ) => {
        $(#[$about])*
        #[must_use = "dropping the guard releases the lock: bind it to a name, such as `_guard`, and not to `_`"]
        #[allow(unreachable_pub)]
        pub struct $name$(<$inner: $bound>)? {
            held: $crate::guard::Held<$hold>,
        }

        #[allow(dead_code, unreachable_pub)] // Some guards are visible as AnyGuard only.
        impl$(<$inner: $bound>)? $name$(<$inner>)? {
            $crate::guard::token!($($token)?);

            /// Returns how long the caller waited, or `None` if the lock was free at once.
            pub fn waited(&self) -> Option<std::time::Duration> {
                self.held.waited
            }

            /// Returns whether the last exclusive holder died while it held the lock. Then the data
            /// that the lock protects may be incomplete. A panic that unwinds releases the lock and
            /// does not count as a death. For permits this is always `false`, because they are not
            /// exclusive.
            pub fn predecessor_crashed(&self) -> bool {
                $crate::wait::Hold::predecessor_crashed(&self.held.hold)
            }

            /// Returns whether the lock is still held. Takes about a microsecond. The lock may be
            /// lost right after the call.
            pub fn is_held(&self) -> bool {
                $crate::wait::Hold::is_held(&self.held)
            }

            /// Resolves when the lock is lost while this guard lives; see [`Loss`](crate::Loss) for
            /// the reasons.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future changes nothing. A call after the loss reports it too.
            pub fn lost(&self) -> $crate::loss::Lost {
                $crate::wait::Hold::lost(&self.held)
            }

            /// Releases the lock and reports whether that succeeded.
            ///
            /// # Cancel safety
            ///
            /// The release begins at the first poll, and continues if the future is dropped after
            /// that. If the future is dropped before the first poll, the guard in it is dropped,
            /// which releases too.
            ///
            /// # Errors
            ///
            /// In each of these cases the guard no longer holds the lock:
            ///
            /// - [`ErrorKind::Lost`](crate::ErrorKind::Lost) if the lock was lost before.
            /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if a step failed.
            /// - [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the release did not
            ///   reach the server before the lease ended.
            pub fn release(self) -> $crate::guard::Release<Self> {
                $crate::guard::Guard::release(self)
            }
        }

        impl$(<$inner: $bound>)? $crate::guard::sealed::Granted for $name$(<$inner>)? {
            type Pending = $pending;
            $crate::guard::reader!($($reader)?);

            fn granted(hold: $hold, waited: $crate::guard::Waited<'_>) -> Self {
                Self {
                    held: $crate::guard::Held::new(hold, waited),
                }
            }

            fn hold(&self) -> &dyn $crate::wait::Hold {
                &self.held
            }

            fn hold_mut(&mut self) -> &mut dyn $crate::wait::Hold {
                &mut self.held
            }

            fn wait_time(&self) -> Option<std::time::Duration> {
                self.held.waited
            }

            fn split(&mut self, permits: u32) -> $crate::error::Result<Self> {
                let held = $crate::wait::Hold::split(&mut self.held, permits)?;
                Ok(Self { held })
            }

            fn merge(&mut self, other: Self) -> $crate::error::Result<()> {
                $crate::wait::Hold::merge(&mut self.held, other.held)
            }

            fn uncount(&self) {
                self.held.uncount();
            }
        }

        impl$(<$inner: $bound>)? $crate::guard::Guard for $name$(<$inner>)? {}

        $(impl $crate::guard::WriteGuard for $name {
            type Shared = $reader;
        })?

        impl$(<$inner: $bound>)? std::fmt::Debug for $name$(<$inner>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::guard::describe(stringify!($name), &self.held.hold, f)
            }
        }
    };
}

/// Makes a guard a [`Permit`], with the methods of the trait on itself.
macro_rules! is_permit {
    ($name:ident) => {
        impl $crate::guard::Permit for $name {}

        impl $name {
            /// Returns how many permits this guard holds.
            pub fn permits(&self) -> u32 {
                $crate::guard::Permit::permits(self)
            }

            /// Takes this many permits out of the guard, as a guard of their own. At least one
            /// stays. Both guards have the token of the grant.
            ///
            /// A future of `lost` from before the split still covers all permits.
            ///
            /// # Errors
            ///
            /// Those of [`Permit::split`](crate::Permit::split).
            pub fn split(&mut self, permits: u32) -> $crate::error::Result<Self> {
                $crate::guard::Permit::split(self, permits)
            }

            /// Adds the permits of another guard of the same semaphore. The greater token stays.
            ///
            /// # Errors
            ///
            /// Those of [`Permit::merge`](crate::Permit::merge). In each case the other guard is
            /// released.
            pub fn merge(&mut self, other: Self) -> $crate::error::Result<()> {
                $crate::guard::Permit::merge(self, other)
            }

            /// Keeps the permits until this process ends; see
            /// [`Permit::forget`](crate::Permit::forget).
            pub fn forget(self) {
                $crate::guard::Permit::forget(self);
            }
        }
    };
}

/// Defines the type that a guard becomes by a downgrade. Without a reader, it is the guard itself.
macro_rules! reader {
    ($reader:ident) => {
        type Reader = $reader;

        fn into_reader(self) -> $reader {
            $reader { held: self.held }
        }
    };
    () => {
        type Reader = Self;

        fn into_reader(self) -> Self {
            self
        }
    };
}

/// Defines `token()` of a guard: a plain number if the lock always has one.
macro_rules! token {
    ($about:literal) => {
        #[doc = $about]
        pub fn token(&self) -> u64 {
            $crate::wait::Hold::token(&self.held.hold).unwrap_or_default()
        }
    };
    () => {
        /// Returns the fencing token, or `None` if the lock has none.
        pub fn token(&self) -> Option<u64> {
            $crate::wait::Hold::token(&self.held.hold)
        }
    };
}

pub(crate) use {guard, is_permit, reader, token};

/// Writes the `Debug` text of every guard.
pub(crate) fn describe(name: &str, hold: &dyn Hold, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct(name)
        .field("path", &hold.place())
        .field("token", &hold.token())
        .finish_non_exhaustive()
}
