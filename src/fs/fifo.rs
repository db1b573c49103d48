//! The fair lock: exclusive, first come first served, among all tasks of all processes of a host.
//!
//! This file is the face; what it has in common with the other fair locks is in [`fair`](super::fair).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::engine::state::Kind;
use super::engine::ticket::Mode;
use super::fair::hold::{fair_guard, lends_its_file};
use super::fair::{Fair, FifoConfig, FifoOptions, Shared, fair_methods};
use crate::acquire::Acquire;
use crate::any::{AnyLock, becomes_any};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::lock::{is_lock, local_handle};

/// A fair exclusive lock on a path: first come, first served, across tasks and processes.
///
/// The lock is the operating system's lock on the file at [`path`](FifoLock::path), so plain `flock(1)` on the same
/// file is excluded too; a queue in the directory beside it decides who may try. The file's content is never touched. A
/// handle is cheap to clone; all handles on one path in a process share one line.
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
    /// The lock is held as long as this value lives.
    FifoGuard,
    token: "The fencing token: strictly greater than that of every earlier grant of this lock, across processes and crashes, and across deleted state unless the wall clock was set back as well or more than a million grants a second went on before. Microseconds since the epoch, or one more than the last."
}

lends_its_file!(FifoGuard);

impl FifoLock {
    /// Opens the lock at `path`, which is relative to the working directory at the time of this call.
    ///
    /// Nothing is created before the first acquire.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the directory does not exist or cannot be read; [`ErrorKind::InvalidInput`] when something other
    /// than a regular file is at the path (symbolic links are not followed), or an option makes no sense;
    /// [`ErrorKind::Incompatible`] when another kind or version of lock lives there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Opens the lock of this name in the system's temporary directory: `$TMPDIR`, or `/tmp` where it is
    /// unset or empty.
    ///
    /// That directory may differ from process to process (private directories of services) and is open to
    /// every user: good for a try, not for production.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a name that is no plain file name, and where `TMPDIR` is a relative
    /// path; those of [`open`](FifoLock::open).
    pub fn named(name: impl AsRef<str>) -> Result<Self> {
        Self::options().named(name)
    }

    /// Starts with the default options.
    pub fn options() -> FifoOptions {
        FifoOptions::default()
    }

    /// Waits in line for the lock.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point leaves the line: its ticket is removed, the next waiter moves up, and a lock
    /// that had just been granted goes to the next one. Nothing is leaked.
    ///
    /// # Fairness
    ///
    /// First come, first served, among all tasks of all processes, counted from the first poll. A waiter that is not polled,
    /// or whose process is stopped, for a [claim window](FifoConfig::claim_window) when its turn comes is passed over and
    /// keeps its place at the front.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] and [`ErrorKind::Busy`] where a limit was set, [`ErrorKind::Closed`] after
    /// [`close`](FifoLock::close), [`ErrorKind::Replaced`] when the lock file was deleted or replaced while somebody holds the old one,
    /// [`ErrorKind::Incompatible`], [`ErrorKind::Unsupported`] where the file system does not exclude, and [`ErrorKind::Io`] with
    /// step and path for everything the operating system refuses.
    ///
    /// # Platform notes
    ///
    /// On Linux waiters are woken by file events; elsewhere, and on network file systems, they look again after 1 to
    /// 50 ms.
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

    /// Takes the lock if nobody holds it and nobody queues; else `None`, and nothing on disk has changed.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](FifoLock::acquire), save time limits: after [`close`](FifoLock::close) [`ErrorKind::Closed`].
    pub fn try_acquire(&self) -> Result<Option<FifoGuard>> {
        self.shared.try_acquire(Mode::Exclusive)
    }

    /// The options this handle was opened with.
    pub fn config(&self) -> &FifoConfig {
        &self.shared.config
    }

    fair_methods!();
}

impl Fair for FifoLock {
    fn with_config(path: &Path, config: FifoConfig) -> Result<Self> {
        let shared = Shared::open(path, Kind::Lock, config)?;
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
