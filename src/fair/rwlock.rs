//! The fair reader-writer lock: one writer or any number of readers, first come, first served,
//! among all tasks of all processes on a host.
//!
//! This file is the public API. [`fair`](crate::fair) has what all fair locks share.
//!
//! - `line/possession.rs` decides which callers may hold the lock together.
//! - `line/readers.rs` has how readers enter, and how a process shares the lock.
//! - `ticket.rs` decides which tickets a ticket waits for.
//! - `disk/reader.rs` has what a reader does to the state record.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::ticket::Mode;
use super::{Fair, FifoConfig, FifoOptions, Shared, fair_guard, fair_methods, lends_its_file};
use crate::acquire::Acquire;
use crate::any::{AnySharedLock, becomes_any};
use crate::error::Result;
use crate::guard::sealed::Granted;
use crate::kind::LockKind;
use crate::lock::{is_lock, local_handle};

/// A fair reader-writer lock on a path: any number of readers, or one writer, across tasks and
/// processes.
///
/// The order is strictly that of arrival. Consecutive readers acquire the lock together. A waiting
/// writer blocks the readers that arrive after it, and waits only for callers that arrived before
/// it. So neither readers nor writers can starve.
///
/// The lock is the operating system's lock on the file at [`path`](FifoRwLock::path), shared or
/// exclusive. So `flock --shared` and `flock` on the same file take part, but have no place in the
/// queue. Everything else is as for [`FifoLock`](crate::FifoLock): the file's content is never
/// touched, a handle is cheap to clone, and all handles on one path in a process share one queue.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("catalogue.lock");
/// use stanchion::FifoRwLock;
///
/// let lock = FifoRwLock::open(path)?;
/// let (one, two) = (lock.read().await?, lock.read().await?);
/// assert!(lock.try_write()?.is_none(), "a reader holds it");
/// drop((one, two));
///
/// let writer = lock.write().await?;
/// let reader = writer.downgrade()?; // lets other readers in, and no writer in between
/// reader.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct FifoRwLock {
    shared: Arc<Shared>,
}

fair_guard! {
    /// Holds the lock as a reader as long as this value lives.
    FifoReadGuard,
    token: "Returns the fencing token of the last writer before this reader. What is read is not older than that writer. Readers that hold the lock together have the same token."
}

fair_guard! {
    /// Holds the lock as the writer as long as this value lives.
    FifoWriteGuard,
    token: "Returns the fencing token. It is greater than the token of every earlier writer of this lock, also across processes and crashes. It is the time in microseconds since 1970, or the last token plus one, whichever is greater. If the record is deleted, tokens may go back only in two cases: the wall clock was set back, or there were more than a million grants a second.",
    reader: FifoReadGuard
}

lends_its_file!(FifoReadGuard);
lends_its_file!(FifoWriteGuard);

impl FifoWriteGuard {
    /// Turns the writer into a reader. Waiting readers behind it may acquire the lock at once. No
    /// writer acquires the lock in between.
    ///
    /// # Errors
    ///
    /// In each of these cases the lock is released:
    ///
    /// - [`ErrorKind::Lost`](crate::ErrorKind::Lost) when the lock was lost.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) when the state record cannot be written.
    pub fn downgrade(mut self) -> Result<FifoReadGuard> {
        self.held.hold.downgrade()?;
        Ok(self.into_reader())
    }
}

impl FifoRwLock {
    /// Opens the lock at `path`; see [`FifoLock::open`](crate::FifoLock::open).
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::open`](crate::FifoLock::open). A [`FifoLock`](crate::FifoLock) at the
    /// same path is another kind of lock:
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Opens the lock with this name in the system's temporary directory; see
    /// [`FifoLock::named`](crate::FifoLock::named).
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::named`](crate::FifoLock::named) and of [`open`](FifoRwLock::open).
    pub fn named(name: impl AsRef<str>) -> Result<Self> {
        Self::options().named(name)
    }

    /// Returns the default options.
    pub fn options() -> FifoOptions<Self> {
        FifoOptions::default()
    }

    /// Waits in the queue to read, together with any number of other readers.
    ///
    /// # Cancel safety
    ///
    /// As for [`FifoLock::acquire`](crate::FifoLock::acquire): dropping the future at any point
    /// leaves the queue.
    ///
    /// # Fairness
    ///
    /// Waits for every writer that arrived before it, holding or queued, and for no other caller.
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::acquire`](crate::FifoLock::acquire).
    pub fn read(&self) -> Acquire<FifoReadGuard> {
        self.shared.acquire(Mode::Shared)
    }

    /// Waits in the queue to write, alone.
    ///
    /// # Cancel safety
    ///
    /// As for [`FifoLock::acquire`](crate::FifoLock::acquire): dropping the future at any point
    /// leaves the queue. Readers that it blocked then acquire the lock.
    ///
    /// # Fairness
    ///
    /// Waits for every caller that arrived before it, and for no other caller.
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::acquire`](crate::FifoLock::acquire).
    pub fn write(&self) -> Acquire<FifoWriteGuard> {
        self.shared.acquire(Mode::Exclusive)
    }

    /// Acquires the lock to read if no writer holds it or is queued. Otherwise returns `None` and
    /// changes nothing on disk.
    ///
    /// # Errors
    ///
    /// Those of [`read`](FifoRwLock::read), except time limits.
    pub fn try_read(&self) -> Result<Option<FifoReadGuard>> {
        self.shared.try_acquire(Mode::Shared)
    }

    /// Acquires the lock to write if no caller holds it or is queued. Otherwise returns `None` and
    /// changes nothing on disk.
    ///
    /// # Errors
    ///
    /// Those of [`write`](FifoRwLock::write), except time limits.
    pub fn try_write(&self) -> Result<Option<FifoWriteGuard>> {
        self.shared.try_acquire(Mode::Exclusive)
    }

    /// Returns the options of this handle.
    pub fn config(&self) -> &FifoConfig {
        &self.shared.config
    }

    fair_methods!();
}

impl Fair for FifoRwLock {
    fn with_config(path: &Path, config: FifoConfig) -> Result<Self> {
        let shared = Shared::open(path, LockKind::RwLock, config)?;
        Ok(Self { shared })
    }
}

becomes_any!(FifoRwLock => AnySharedLock);
local_handle!(FifoRwLock: shared);
is_lock!(FifoRwLock: Lock<FifoWriteGuard>, write, try_write);
is_lock!(FifoRwLock: SharedLock<FifoReadGuard>, read, try_read);

impl fmt::Debug for FifoRwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FifoRwLock")
            .field("path", &self.path())
            .field("config", &self.shared.config)
            .finish()
    }
}
