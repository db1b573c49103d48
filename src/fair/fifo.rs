//! The fair exclusive lock: first come, first served, among all tasks of all processes on a host.
//!
//! This file is the public API. [`fair`](crate::fair) has what all fair locks share.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::ticket::Mode;
use super::{Fair, FifoConfig, FifoOptions, Shared, fair_guard, fair_methods, lends_its_file};
use crate::acquire::Acquire;
use crate::any::{AnyLock, becomes_any};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::kind::LockKind;
use crate::lock::{is_lock, local_handle};

/// A fair exclusive lock on a path: first come, first served, across tasks and processes.
///
/// The lock is the operating system's lock on the file at [`path`](FifoLock::path), so it also
/// excludes plain `flock(1)` on the same file. A queue in the directory beside the file decides
/// which waiter may try the lock. The file's content is never touched.
///
/// A handle is cheap to clone. All handles on one path in a process share one queue.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("deploy.lock");
/// use stanchion::FifoLock;
///
/// let lock = FifoLock::open(path)?;
/// let guard = lock.acquire().await?;
/// // … only one task of one process at a time is here …
/// guard.release().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FifoLock {
    shared: Arc<Shared>,
}

fair_guard! {
    /// Holds the lock as long as this value lives.
    FifoGuard,
    token: "Returns the fencing token. It is greater than the token of every earlier grant of this lock, also across processes and crashes. It is the time in microseconds since 1970, or the last token plus one, whichever is greater. If the record is deleted, tokens may go back only in two cases: the wall clock was set back, or there were more than a million grants a second."
}

lends_its_file!(FifoGuard);

impl FifoLock {
    /// Opens the lock at `path`. A relative path is resolved against the working directory at the
    /// time of this call.
    ///
    /// Nothing is created before the first acquire.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`] when the directory does not exist or cannot be read.
    /// - [`ErrorKind::InvalidInput`] when something other than a regular file is at the path
    ///   (symbolic links are not followed), or when an option is invalid.
    /// - [`ErrorKind::Incompatible`] when another kind or version of lock is in use at the path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Opens the lock with this name in the system's temporary directory: `$TMPDIR`, or `/tmp`
    /// where that variable is unset or empty.
    ///
    /// This directory can differ from process to process, because services may have private
    /// temporary directories. Every user can write to it. Use it for experiments, not in
    /// production.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`] when the name is not a plain file name, or when `TMPDIR` is a
    ///   relative path.
    /// - Those of [`open`](FifoLock::open).
    pub fn named(name: impl AsRef<str>) -> Result<Self> {
        Self::options().named(name)
    }

    /// Returns the default options.
    pub fn options() -> FifoOptions {
        FifoOptions::default()
    }

    /// Waits in the queue for the lock.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point leaves the queue: its ticket is removed and the next waiter
    /// moves up. If the lock had just been granted to the future, it goes to the next waiter.
    /// Nothing is leaked.
    ///
    /// # Fairness
    ///
    /// First come, first served, among all tasks of all processes, counted from the first poll.
    /// When its turn comes, a waiter has one [claim window](FifoConfig::claim_window) to claim the
    /// lock. A waiter that is not polled for that long, or whose process is stopped for that long,
    /// is bypassed. It keeps its place at the front of the queue.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::TimedOut`] and [`ErrorKind::Busy`] where a limit was set.
    /// - [`ErrorKind::Closed`] after [`close`](FifoLock::close).
    /// - [`ErrorKind::Replaced`] when the lock file was deleted or replaced while another caller
    ///   holds the old one.
    /// - [`ErrorKind::Incompatible`], as for [`open`](FifoLock::open).
    /// - [`ErrorKind::Unsupported`] where the file system does not exclude, and for a handle from
    ///   before a fork.
    /// - [`ErrorKind::Deadlock`] with [`deadlock_is_error`](FifoConfig::deadlock_is_error).
    /// - [`ErrorKind::Io`], with step and path, for everything that the operating system refuses.
    ///
    /// # Platform notes
    ///
    /// On Linux, file events wake the waiters. On other platforms, threads in blocking lock calls
    /// wake them. On network file systems, and where no thread is left, waiters look again after 1
    /// to 50 ms.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(lock: stanchion::FifoLock) -> stanchion::Result<()> {
    /// use std::time::Duration;
    ///
    /// let guard = lock.acquire().timeout(Duration::from_secs(5)).await?;
    /// println!("fencing token {}", guard.token());
    /// # Ok(()) }
    /// ```
    pub fn acquire(&self) -> Acquire<FifoGuard> {
        self.shared.acquire(Mode::Exclusive)
    }

    /// Acquires the lock if it is free and no waiter is queued. Otherwise returns `None` and
    /// changes nothing on disk.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](FifoLock::acquire), except time limits. After
    /// [`close`](FifoLock::close), [`ErrorKind::Closed`].
    pub fn try_acquire(&self) -> Result<Option<FifoGuard>> {
        self.shared.try_acquire(Mode::Exclusive)
    }

    /// Returns the options of this handle.
    pub fn config(&self) -> &FifoConfig {
        &self.shared.config
    }

    fair_methods!();
}

impl Fair for FifoLock {
    fn with_config(path: &Path, config: FifoConfig) -> Result<Self> {
        let shared = Shared::open(path, LockKind::Lock, config)?;
        Ok(Self { shared })
    }
}

becomes_any!(FifoLock => AnyLock);
local_handle!(FifoLock: shared);
is_lock!(FifoLock: Lock<FifoGuard>, acquire, try_acquire);

impl fmt::Debug for FifoLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FifoLock")
            .field("path", &self.path())
            .field("config", &self.shared.config)
            .finish()
    }
}
