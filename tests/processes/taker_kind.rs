//! The kinds of lock that the child program takes, behind one type: `TAKER_KIND=lock`, which is the
//! default, or `rwlock`.
//!
//! A kind joins with a variant of [`AnyLock`] and the meaning of its [`Wish`]es.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use futures::{FutureExt, TryFutureExt};
use stanchion::{
    FifoGuard, FifoLock, FifoReadGuard, FifoRwLock, FifoWriteGuard, Removal, Result, Status,
};

/// A lock of any kind.
#[derive(Clone)]
pub(super) enum AnyLock {
    Lock(FifoLock),
    RwLock(FifoRwLock),
}

/// A request for a lock, and what its guard then has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// All of it, for any kind.
    Alone,
    Write,
    Read,
}

/// A guard of any kind.
pub(super) enum AnyGuard {
    Alone(FifoGuard),
    Writer(FifoWriteGuard),
    Reader(FifoReadGuard),
}

/// A wait in the queue.
pub(super) type Waits = Pin<Box<dyn Future<Output = Result<AnyGuard>> + Send>>;

/// Sets the options of the environment. The bound of the options' methods cannot be named here.
macro_rules! configured {
    ($options:expr) => {{
        let mut options = crate::crew::child::paced!($options.label("taker"));
        if let Ok(label) = std::env::var("TAKER_LABEL") {
            options = options.label(label);
        }
        if std::env::var_os("TAKER_REMOVES").is_some() {
            options = options.remove_when_idle(true);
        }
        if let Ok(mode) = std::env::var("TAKER_MODE") {
            options = options.mode(u32::from_str_radix(&mode, 8).expect("an octal number"));
        }
        options
    }};
}

/// Calls the same method of a lock of any kind.
macro_rules! of_any {
    ($any:expr, $lock:ident => $call:expr) => {
        match $any {
            AnyLock::Lock($lock) => $call,
            AnyLock::RwLock($lock) => $call,
        }
    };
}

impl AnyLock {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let kind = std::env::var("TAKER_KIND");
        match kind.as_deref().unwrap_or("lock") {
            "lock" => configured!(FifoLock::options()).open(path).map(Self::Lock),
            "rwlock" => configured!(FifoRwLock::options())
                .open(path)
                .map(Self::RwLock),
            kind => panic!("no such kind: {kind}"),
        }
    }

    /// For commands of the plain fair lock only.
    pub(super) fn plain(&self) -> &FifoLock {
        match self {
            Self::Lock(lock) => lock,
            Self::RwLock(_) => panic!("not with TAKER_KIND"),
        }
    }

    pub(super) fn acquire(&self, wish: Wish, limit: Option<Duration>) -> Waits {
        match (self, wish) {
            (Self::Lock(lock), Wish::Alone) => {
                let waits = lock.acquire().timeout(limit);
                waits.map_ok(AnyGuard::Alone).boxed()
            }
            (Self::RwLock(lock), Wish::Alone | Wish::Write) => {
                let waits = lock.write().timeout(limit);
                waits.map_ok(AnyGuard::Writer).boxed()
            }
            (Self::RwLock(lock), Wish::Read) => {
                let waits = lock.read().timeout(limit);
                waits.map_ok(AnyGuard::Reader).boxed()
            }
            (Self::Lock(_), _) => panic!("no {wish:?} without TAKER_KIND"),
        }
    }

    pub(super) fn acquire_at_most(&self, most: usize) -> Waits {
        match self {
            Self::Lock(lock) => {
                let waits = lock.acquire().max_waiting(most);
                waits.map_ok(AnyGuard::Alone).boxed()
            }
            Self::RwLock(lock) => {
                let waits = lock.write().max_waiting(most);
                waits.map_ok(AnyGuard::Writer).boxed()
            }
        }
    }

    pub(super) fn try_acquire(&self, wish: Wish) -> Result<Option<AnyGuard>> {
        match (self, wish) {
            (Self::Lock(lock), Wish::Alone) => Ok(lock.try_acquire()?.map(AnyGuard::Alone)),
            (Self::RwLock(lock), Wish::Alone | Wish::Write) => {
                Ok(lock.try_write()?.map(AnyGuard::Writer))
            }
            (Self::RwLock(lock), Wish::Read) => Ok(lock.try_read()?.map(AnyGuard::Reader)),
            (Self::Lock(_), _) => panic!("no {wish:?} without TAKER_KIND"),
        }
    }

    pub(super) fn path(&self) -> &Path {
        of_any!(self, lock => lock.path())
    }

    pub(super) fn is_locked(&self) -> Result<bool> {
        of_any!(self, lock => lock.is_locked())
    }

    pub(super) fn status(&self) -> Result<Status> {
        of_any!(self, lock => lock.status())
    }

    pub(super) fn remove(&self) -> Result<Removal> {
        of_any!(self, lock => lock.remove())
    }
}

/// Calls the same method of a guard of any kind.
macro_rules! of_guard {
    ($any:expr, $guard:ident => $call:expr) => {
        match $any {
            AnyGuard::Alone($guard) => $call,
            AnyGuard::Writer($guard) => $call,
            AnyGuard::Reader($guard) => $call,
        }
    };
}

impl AnyGuard {
    /// Its mode, as a word of the protocol between child and parent.
    pub(super) fn mode(&self) -> &'static str {
        match self {
            Self::Alone(_) | Self::Writer(_) => "alone",
            Self::Reader(_) => "read",
        }
    }

    pub(super) fn token(&self) -> u64 {
        of_guard!(self, guard => guard.token())
    }

    pub(super) fn waited(&self) -> Option<Duration> {
        of_guard!(self, guard => guard.waited())
    }

    pub(super) fn predecessor_crashed(&self) -> bool {
        of_guard!(self, guard => guard.predecessor_crashed())
    }

    pub(super) fn is_held(&self) -> bool {
        of_guard!(self, guard => guard.is_held())
    }

    pub(super) async fn release(self) -> Result<()> {
        of_guard!(self, guard => guard.release().await)
    }

    pub(super) fn downgrade(self) -> Result<Self> {
        match self {
            Self::Writer(guard) => guard.downgrade().map(Self::Reader),
            Self::Alone(_) | Self::Reader(_) => panic!("only a writer can become a reader"),
        }
    }
}
