//! Locks in the memory of one process, for tests of programs that otherwise use locks on files or
//! on a server. They make the same promises, and need no setup or cleanup.
//!
//! # Algorithm
//!
//! There is one queue for each name. A lock has one *part*. A semaphore has one for each permit. A
//! reader-writer lock has more parts than there can be readers. A request wants one part, several,
//! or all. One routine, `settle` in [`line`](self::line), gives parts to the first waiter as long
//! as enough parts are free. It makes an *offer*, which the waiter's future claims when it is
//! polled.
//!
//! # Frozen waiters
//!
//! They are handled as in the locks on files. Once per claim window, a thread looks at the queues
//! that have offers: the *tick*. An offer that two ticks see has lapsed. Its waiter counts as
//! frozen until its future is polled. Then it is first again.
//!
//! When an offer lapses, all other waiters in that queue are woken. A waiter that is not polled
//! within one more window counts as frozen too. So a queue of futures that are never polled delays
//! others by three or four windows, however long it is. The thread ends when no queue has an offer.
//!
//! # Invariants
//!
//! 1. The number of parts is the sum of the free parts, the parts of all holders, and the parts of
//!    all offers.
//! 2. Each waiter is in exactly one of three lists: `awake`, `offered`, `asleep`. Or it is in
//!    `refused` and no longer in the queue: there are fewer parts now than it wants.
//! 3. Whenever the mutex is free, the first waiter in `awake` wants more parts than are free.
//! 4. No waker is called or dropped under the mutex. It is foreign code, and may own another future
//!    of the same queue.
//! 5. While there is an offer, the next tick is scheduled. Where no thread can be started, each
//!    call tries to schedule it.
//! 6. No waiter in the queue wants more parts than there are.
//! 7. A forked child touches no mutex and no list of its parent.
//!
//! # After a crash
//!
//! The locks end with their process, so nothing is left.
//!
//! # Fairness
//!
//! First come, first served, counted from the first poll. Frozen waiters are bypassed. Small
//! requests do not overtake a large request at the head of the queue.
//!
//! # Cost
//!
//! A short critical section. Its work is O(log n) in the number of waiters.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::acquire::Acquire;
use crate::any::{AnyLock, AnySemaphore, AnySharedLock, becomes_any};
use crate::backend::Mode;
use crate::error::Result;
use crate::ledger::Ledger;
use crate::lock::{Capabilities, Local, Reach, Tokens, is_lock, local_handle};
use crate::options::{CLAIM_WINDOW, check_permits, setters};
use crate::stats::Stats;
use crate::status::{Changes, Held, Removal, Status};

mod guard;
mod line;
mod tick;

pub use guard::MemGuard;
use guard::MemPending;
use line::{Kind, Line, World};

/// Named locks in the memory of this process, for tests. They make the same promises as locks on
/// files, but no holder can crash and no lock can be lost.
///
/// One value is a *world*: a separate set of names. A name means one lock, of one kind, as long as
/// a handle, a future or a guard of this lock lives.
///
/// A forked child has no part in the locks of its parent. There, each use of a lock of the parent
/// fails with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), and guards release
/// nothing. The child can create a `Memory` of its own, also with a name that the parent uses.
///
/// [`Locks::connect`](crate::Locks::connect) returns locks of the same kind for `mem:`
/// ([`Memory::new`]) and `mem:NAME` ([`Memory::named`]).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// use stanchion::Memory;
///
/// let memory = Memory::new();
/// let guard = memory.lock("deploy")?.acquire().await?;
/// assert!(memory.lock("deploy")?.try_acquire()?.is_none());
/// guard.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct Memory {
    world: Arc<World>,
    config: Arc<MemoryConfig>,
}

/// The options of a [`Memory`], with their defaults. [`Memory::config`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// When the turn of a future comes, it must be polled within one to two of these windows.
    /// Otherwise it is bypassed, and is first again when it is polled. Default 2 s.
    /// [`Duration::MAX`] disables the bypass. The window of a world is that of its first user.
    pub claim_window: Duration,
    /// Time limit of an acquire that sets none. Default `None`: waits forever.
    pub timeout: Option<Duration>,
    /// The label of holders and waiters in a [`Status`]. No label by default.
    pub label: Option<String>,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            claim_window: CLAIM_WINDOW,
            timeout: None,
            label: None,
        }
    }
}

/// Builds a [`Memory`]; created by [`Memory::options`].
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a Memory is built with them"]
pub struct MemoryOptions {
    config: MemoryConfig,
}

impl MemoryOptions {
    setters! { MemoryConfig, in a URL:
        claim_window pause;
        timeout limit;
        label text;
    }

    /// Creates a separate world; see [`Memory::new`].
    pub fn build(self) -> Memory {
        Memory {
            world: World::new(self.config.claim_window),
            config: Arc::new(self.config),
        }
    }

    /// Returns the world of this name; see [`Memory::named`].
    pub fn named(self, name: &str) -> Memory {
        Memory {
            world: World::named(name, self.config.claim_window),
            config: Arc::new(self.config),
        }
    }
}

impl Memory {
    /// Creates a separate world. Clones are the same world.
    pub fn new() -> Self {
        Self::options().build()
    }

    /// Returns the world of this name. All callers in this process that use the same name share it,
    /// as long as a value, handle, future or guard of it lives.
    pub fn named(name: &str) -> Self {
        Self::options().named(name)
    }

    /// Returns the default options.
    pub fn options() -> MemoryOptions {
        MemoryOptions::default()
    }

    /// Returns the options of this handle.
    pub fn config(&self) -> &MemoryConfig {
        &self.config
    }

    /// Returns the URL of the world: `mem:NAME`, or `mem:` for a separate one.
    pub(crate) fn url(&self) -> String {
        format!("mem:{}", self.world.name().unwrap_or_default())
    }

    /// Returns the lock of this name. Any text is a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) if the name is in use for
    /// another kind.
    pub fn lock(&self, name: &str) -> Result<MemLock> {
        let core = Core::new(self, name, Kind::Lock)?;
        Ok(MemLock { core })
    }

    /// Returns the reader-writer lock of this name.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Memory::lock).
    pub fn rwlock(&self, name: &str) -> Result<MemRwLock> {
        let core = Core::new(self, name, Kind::RwLock)?;
        Ok(MemRwLock { core })
    }

    /// Returns the semaphore of this name, with this many permits.
    ///
    /// # Errors
    ///
    /// - Those of [`lock`](Memory::lock), also if the name is in use with another number of
    ///   permits.
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0 permits.
    pub fn semaphore(&self, name: &str, permits: u32) -> Result<MemSemaphore> {
        let core = Core::new(self, name, Kind::Semaphore(permits))?;
        Ok(MemSemaphore { core })
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.world.label()).finish()
    }
}

/// Returns what every lock in memory can do.
pub(crate) fn capabilities() -> Capabilities {
    Capabilities {
        tokens: Tokens::Strict,
        reach: Reach::Process,
        ..Capabilities::of_fair_file_lock(true)
    }
}

/// A fair exclusive lock in memory; see [`Memory::lock`].
#[derive(Clone)]
pub struct MemLock {
    core: Arc<Core>,
}

/// A fair reader-writer lock in memory; see [`Memory::rwlock`].
#[derive(Clone)]
pub struct MemRwLock {
    core: Arc<Core>,
}

/// A fair semaphore in memory; see [`Memory::semaphore`].
#[derive(Clone)]
pub struct MemSemaphore {
    core: Arc<Core>,
}

/// What a handle and all its clones share.
struct Core {
    line: Arc<Line>,
    config: Arc<MemoryConfig>,
    /// That of the config.
    label: Option<Arc<str>>,
    ledger: Arc<Ledger>,
}

impl Core {
    fn new(memory: &Memory, name: &str, kind: Kind) -> Result<Arc<Self>> {
        let line = memory.world.line(name, kind)?;
        Ok(Arc::new(Self {
            ledger: Ledger::new("mem", line.address()),
            line,
            config: memory.config.clone(),
            label: memory.config.label.as_deref().map(Arc::from),
        }))
    }

    fn acquire(self: &Arc<Self>, mode: Mode) -> Acquire<MemGuard> {
        Acquire::new(MemPending::new(self, mode), self.config.timeout)
    }

    fn try_acquire(self: &Arc<Self>, mode: Mode) -> Result<Option<MemGuard>> {
        self.acquire(mode).try_now()
    }
}

impl Local for Core {
    /// Lists a frozen waiter at the position that it has again when it is polled.
    fn status(&self) -> Result<Status> {
        self.line.status()
    }

    /// Deletes nothing, because a lock in memory leaves nothing behind.
    fn remove(&self) -> Result<Removal> {
        let status = self.line.status()?;
        Ok(match status.held == Held::No && status.waiters.is_empty() {
            true => Removal::Removed,
            false => Removal::InUse,
        })
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
        capabilities()
    }
}

/// Implements what all handles have in common.
macro_rules! in_memory {
    ($($lock:ident => $any:ident),*) => {$(
        local_handle!($lock: core);
        becomes_any!($lock => $any);

        impl $lock {
            /// Returns the options of the [`Memory`] that returned this handle.
            pub fn config(&self) -> &MemoryConfig {
                &self.core.config
            }
        }

        impl fmt::Debug for $lock {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($lock)).field(&self.core.line.path()).finish()
            }
        }
    )*};
}

in_memory!(MemLock => AnyLock, MemRwLock => AnySharedLock, MemSemaphore => AnySemaphore);
is_lock!(MemLock: Lock<MemGuard>, acquire, try_acquire);
is_lock!(MemRwLock: Lock<MemGuard>, write, try_write);
is_lock!(MemRwLock: SharedLock<MemGuard>, read, try_read);
is_lock!(MemSemaphore: Semaphore<MemGuard>);

impl MemLock {
    /// Waits in the queue for the lock. Needs no runtime, except for a time limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point leaves the queue. Its offer, if it has one, goes to the
    /// next waiter.
    ///
    /// # Fairness
    ///
    /// First come, first served, counted from the first poll. Frozen waiters are bypassed; see
    /// [`MemoryConfig::claim_window`].
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) and
    ///   [`ErrorKind::Busy`](crate::ErrorKind::Busy) if the caller or the options set a limit.
    /// - [`ErrorKind::Closed`](crate::ErrorKind::Closed) after `close`.
    pub fn acquire(&self) -> Acquire<MemGuard> {
        self.core.acquire(Mode::Exclusive)
    }

    /// Acquires the lock if no caller holds it or waits for it. Otherwise returns `None`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after `close`.
    pub fn try_acquire(&self) -> Result<Option<MemGuard>> {
        self.core.try_acquire(Mode::Exclusive)
    }
}

impl MemRwLock {
    /// Waits in the queue to read, together with any number of other readers. Otherwise as
    /// [`MemLock::acquire`].
    ///
    /// # Errors
    ///
    /// Those of [`MemLock::acquire`].
    pub fn read(&self) -> Acquire<MemGuard> {
        self.core.acquire(Mode::Shared)
    }

    /// Waits in the queue to write, alone. Otherwise as [`MemLock::acquire`].
    ///
    /// # Errors
    ///
    /// Those of [`MemLock::acquire`].
    pub fn write(&self) -> Acquire<MemGuard> {
        self.core.acquire(Mode::Exclusive)
    }

    /// Acquires the lock as a reader if no writer holds it and no caller waits. Otherwise returns
    /// `None`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after `close`.
    pub fn try_read(&self) -> Result<Option<MemGuard>> {
        self.core.try_acquire(Mode::Shared)
    }

    /// Acquires the lock as a writer if no caller holds it or waits for it. Otherwise returns
    /// `None`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after `close`.
    pub fn try_write(&self) -> Result<Option<MemGuard>> {
        self.core.try_acquire(Mode::Exclusive)
    }
}

impl MemSemaphore {
    /// Waits in the queue for one permit. Otherwise as [`MemLock::acquire`].
    ///
    /// # Errors
    ///
    /// Those of [`MemLock::acquire`].
    pub fn acquire(&self) -> Acquire<MemGuard> {
        self.acquire_many(1)
    }

    /// Waits in the queue for this many permits at once. Otherwise as [`MemLock::acquire`].
    ///
    /// # Errors
    ///
    /// - Those of [`MemLock::acquire`].
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0 permits, and for more
    ///   than there are.
    pub fn acquire_many(&self, permits: u32) -> Acquire<MemGuard> {
        self.core.acquire(Mode::Permits(permits))
    }

    /// Acquires a permit if one is free and no caller waits. Otherwise returns `None`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after `close`.
    pub fn try_acquire(&self) -> Result<Option<MemGuard>> {
        self.try_acquire_many(1)
    }

    /// Acquires this many permits if they are free and no caller waits. Otherwise returns `None`.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0 permits, and for more
    ///   than there are.
    /// - [`ErrorKind::Closed`](crate::ErrorKind::Closed) after `close`.
    pub fn try_acquire_many(&self, permits: u32) -> Result<Option<MemGuard>> {
        self.core.try_acquire(Mode::Permits(permits))
    }

    /// Returns how many permits there are.
    pub fn limit(&self) -> u32 {
        self.core.line.parts()
    }

    /// Returns how many permits are free at this moment; see
    /// [`Semaphore::available`](crate::Semaphore::available).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) in a forked child of the process
    /// that created the [`Memory`].
    pub fn available(&self) -> Result<u32> {
        self.core.line.free()
    }

    /// Changes how many permits there are, for every handle on this name. A reduction waits in the
    /// queue until all permits are released. Then waiters that request more permits than are left
    /// get [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits, nothing has changed.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0 permits.
    /// - Those of [`acquire`](MemSemaphore::acquire).
    pub async fn resize(&self, permits: u32) -> Result<()> {
        let line = &self.core.line;
        check_permits(permits, u32::MAX, line.path())?;
        line.refuse_copy()?;
        self.core
            .ledger
            .refuse_closed(|| line.path().to_path_buf())?;
        loop {
            let limit = self.limit();
            let all = match permits < limit {
                true => self.acquire_many(limit).timeout(None).await.map(Some),
                false => Ok(None),
            };
            match all {
                Ok(_all) if line.resize(limit, permits) => return Ok(()),
                // Another task has changed the limit meanwhile.
                Ok(_) => {}
                Err(_) if self.limit() < limit => {}
                Err(error) => return Err(error),
            }
        }
    }
}
