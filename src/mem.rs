//! Locks in the memory of one process, for the tests of programs that elsewhere use files or a server: the same contract, and nothing to
//! set up or to clean.
//!
//! # Algorithm
//!
//! One queue for each name, whatever is asked for: a lock has one part, a semaphore n, a reader-writer lock so many that there are
//! never more readers, and a request wants one, some, or all of them. One routine, `settle` in [`state`](self::state), gives parts to the first in
//! line as long as there are enough. Who gets some is made an *offer*, which is claimed when the future is polled.
//!
//! # Sleepers
//!
//! As in the locks on files: once per claim window a thread looks at the lines that have offers. An offer that it sees twice has lapsed: its
//! future counts as asleep until it is polled, and is first again then. All others in that line are woken, and who has not been polled a
//! window later sleeps too. So a line of futures that nobody polls costs three or four windows, however many they are. The thread ends
//! when no line has an offer.
//!
//! # Invariants
//!
//! 1. Free parts and the parts of all who are inside or have an offer are together as many as there are.
//! 2. Who is in line is in exactly one of three lists: awake, offered, asleep.
//! 3. Whenever the mutex is free, the first that is awake wants more than is free.
//! 4. No waker is called or dropped under the mutex: it is foreign code, and may own another future of the same line.
//! 5. While there is an offer a tick is due.
//!
//! # After a crash
//!
//! Nothing is left, and nobody is there to be told.
//!
//! # Fairness
//!
//! First come, first served, from the first poll, save sleepers. A request for much that is first in line is not passed by small ones.
//!
//! # Cost
//!
//! A short mutex and a map of the waiters, logarithmic in their number.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::acquire::Acquire;
use crate::any::{AnyLock, AnySemaphore, AnySharedLock, becomes_any};
use crate::error::Result;
use crate::ledger::Ledger;
use crate::lock::{Capabilities, Local, Reach, Tokens, is_lock, local_handle};
use crate::options::{CLAIM_WINDOW, check_permits};
use crate::stats::Stats;
use crate::status::{Changes, Held, Removal, Status};

mod guard;
mod line;
mod pending;
mod state;
mod tick;
mod world;

pub use guard::MemGuard;
use line::{Kind, Line, Want};
use pending::MemPending;
use world::World;

/// A world of named locks in the memory of this process: for tests, of the same contract as locks on files, in which nobody crashes and
/// nothing can be lost.
///
/// A name is one lock as long as a handle, a future or a guard of it lives. Within one world it has one kind.
/// Not for use on both sides of a `fork`.
///
/// [`Locks::connect`](crate::Locks::connect) gives the same locks behind `mem:` ([`Memory::new`]) and `mem:NAME` ([`Memory::named`]).
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
}

impl Memory {
    /// A world of its own. Clones are the same world.
    pub fn new() -> Self {
        Self::with_claim_window(CLAIM_WINDOW)
    }

    /// The same with another claim window than 2 s: a future that is not polled for one to two windows after its turn has come is passed, and
    /// is first again when it is polled. [`Duration::MAX`] switches passing off.
    pub fn with_claim_window(window: Duration) -> Self {
        Self {
            world: World::new(window),
        }
    }

    /// The world that everybody in this process has who says the same name, as long as anything of it lives.
    pub fn named(name: &str) -> Self {
        Self {
            world: World::named(name, CLAIM_WINDOW),
        }
    }

    /// The lock of this name. Any text is a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the name is in use for another kind.
    pub fn lock(&self, name: &str) -> Result<MemLock> {
        let line = self.world.line(name, Kind::Lock)?;
        Ok(MemLock {
            core: Core::new(line),
        })
    }

    /// The reader-writer lock of this name.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Memory::lock).
    pub fn rwlock(&self, name: &str) -> Result<MemRwLock> {
        let line = self.world.line(name, Kind::RwLock)?;
        Ok(MemRwLock {
            core: Core::new(line),
        })
    }

    /// The semaphore of this name, which has so many permits.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Memory::lock), also when the name is in use with another number of permits;
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0.
    pub fn semaphore(&self, name: &str, permits: u32) -> Result<MemSemaphore> {
        let line = self.world.line(name, Kind::Semaphore(permits))?;
        Ok(MemSemaphore {
            core: Core::new(line),
        })
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

/// What every lock in memory can do.
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

/// A handle and all its clones.
struct Core {
    line: Arc<Line>,
    ledger: Arc<Ledger>,
}

impl Core {
    fn new(line: Arc<Line>) -> Arc<Self> {
        let ledger = Ledger::new("mem", line.address());
        Arc::new(Self { line, ledger })
    }

    fn acquire(self: &Arc<Self>, want: Want) -> Acquire<MemGuard> {
        Acquire::new(MemPending::new(self, want), None)
    }

    fn try_acquire(self: &Arc<Self>, want: Want) -> Result<Option<MemGuard>> {
        self.acquire(want).try_now()
    }
}

impl Local for Core {
    /// Waiters whose offer lapsed stand where they will be when they are polled.
    fn status(&self) -> Result<Status> {
        Ok(self.line.status())
    }

    /// Nothing is left of a lock in memory.
    fn remove(&self) -> Result<Removal> {
        let status = self.line.status();
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

/// What the handles have in common.
macro_rules! in_memory {
    ($($lock:ident => $any:ident),*) => {$(
        local_handle!($lock: core);
        becomes_any!($lock => $any);

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
    /// Waits in line for the lock. Needs no runtime, save for a time limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point leaves the line, and what it had been offered goes to the next one.
    ///
    /// # Fairness
    ///
    /// First come, first served, counted from the first poll; sleepers are passed, see [`Memory::with_claim_window`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) and [`ErrorKind::Busy`](crate::ErrorKind::Busy) where a limit was set.
    pub fn acquire(&self) -> Acquire<MemGuard> {
        self.core.acquire(Want::Alone)
    }

    /// Takes the lock if nobody has it and nobody queues; else `None`.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn try_acquire(&self) -> Result<Option<MemGuard>> {
        self.core.try_acquire(Want::Alone)
    }
}

impl MemRwLock {
    /// Waits in line to read, with any number of others who read; as [`MemLock::acquire`].
    ///
    /// # Errors
    ///
    /// Those of [`MemLock::acquire`].
    pub fn read(&self) -> Acquire<MemGuard> {
        self.core.acquire(Want::Shared)
    }

    /// Waits in line to write, alone; as [`MemLock::acquire`].
    ///
    /// # Errors
    ///
    /// Those of [`MemLock::acquire`].
    pub fn write(&self) -> Acquire<MemGuard> {
        self.core.acquire(Want::Alone)
    }

    /// Reads if no writer is inside and nobody queues; else `None`.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn try_read(&self) -> Result<Option<MemGuard>> {
        self.core.try_acquire(Want::Shared)
    }

    /// Writes if nobody is inside or queues; else `None`.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn try_write(&self) -> Result<Option<MemGuard>> {
        self.core.try_acquire(Want::Alone)
    }
}

impl MemSemaphore {
    /// Waits in line for one permit; as [`MemLock::acquire`].
    ///
    /// # Errors
    ///
    /// Those of [`MemLock::acquire`].
    pub fn acquire(&self) -> Acquire<MemGuard> {
        self.acquire_many(1)
    }

    /// Waits in line for so many permits at once.
    ///
    /// # Errors
    ///
    /// Those of [`MemLock::acquire`]; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0, and for more than there are.
    pub fn acquire_many(&self, permits: u32) -> Acquire<MemGuard> {
        self.core.acquire(Want::Permits(permits))
    }

    /// Takes a permit if one is free and nobody queues; else `None`.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn try_acquire(&self) -> Result<Option<MemGuard>> {
        self.try_acquire_many(1)
    }

    /// Takes so many permits if they are free and nobody queues; else `None`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0, and for more than there are.
    pub fn try_acquire_many(&self, permits: u32) -> Result<Option<MemGuard>> {
        self.core.try_acquire(Want::Permits(permits))
    }

    /// How many permits there are.
    pub fn limit(&self) -> u32 {
        self.core.line.parts()
    }

    /// Changes how many permits there are, for every handle on this name. Fewer permits wait in the queue
    /// until all are back.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it has changed nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0; those of
    /// [`acquire`](MemSemaphore::acquire).
    pub async fn resize(&self, permits: u32) -> Result<()> {
        let line = &self.core.line;
        check_permits(permits, u32::MAX, line.path())?;
        self.core
            .ledger
            .refuse_closed(|| line.path().to_path_buf())?;
        loop {
            let limit = self.limit();
            let all = match permits < limit {
                true => self.acquire_many(limit).await.map(Some),
                false => Ok(None),
            };
            match all {
                Ok(_all) if line.resize(limit, permits) => return Ok(()),
                // Another task has changed it meanwhile.
                Ok(_) => {}
                Err(_) if self.limit() < limit => {}
                Err(error) => return Err(error),
            }
        }
    }
}
