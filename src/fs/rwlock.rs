//! The fair reader-writer lock: one writer or any number of readers, first come first served, among all tasks of all processes of a
//! host.
//!
//! This file is the face; what it has in common with the other fair locks is in [`fair`](super::fair). Who may be inside together is
//! decided in `engine/line/inside.rs`, whom a ticket waits for in `engine/ticket/policy.rs`, what a reader leaves on disk in
//! `engine/disk/share.rs`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::engine::state::Kind;
use super::engine::ticket::Mode;
use super::fair::hold::{fair_guard, lends_its_file};
use super::fair::{Fair, FifoConfig, FifoOptions, Shared, fair_methods};
use crate::acquire::Acquire;
use crate::acquire::sealed::Granted;
use crate::any::{AnySharedLock, becomes_any};
use crate::error::Result;
use crate::lock::{is_lock, local_handle};

/// A fair reader-writer lock on a path: any number of readers, or one writer, across tasks and processes.
///
/// Strictly by arrival: readers who come one after the other enter together; a writer who waits holds back the readers who come
/// after him, and waits for nobody but those who came before. So neither side can starve the other.
///
/// The lock is the operating system's lock on the file at [`path`](FifoRwLock::path), shared or exclusive, so `flock --shared` and
/// `flock` on the same file take part, without a place in line. Otherwise it is as [`FifoLock`](crate::FifoLock): the file's content is
/// never touched, a handle is cheap to clone, all handles on one path in a process share one line.
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
/// assert!(lock.try_write()?.is_none(), "somebody reads");
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
    /// One of the readers is inside as long as this value lives.
    FifoReadGuard,
    token: "The fencing token of the last writer, who had it before this reader came in: what is read is not older than that. Readers that are inside together have the same one."
}

fair_guard! {
    /// The writer is inside as long as this value lives.
    FifoWriteGuard,
    token: "The fencing token: strictly greater than that of every earlier writer of this lock, across processes and crashes, and across deleted state unless the wall clock was set back as well or more than a million grants a second went on before. Microseconds since the epoch, or one more than the last."
}

lends_its_file!(FifoReadGuard);
lends_its_file!(FifoWriteGuard);

impl FifoWriteGuard {
    /// Goes on as a reader. Readers who wait behind may come in at once; no writer gets in between.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the record cannot be written; the lock is given up then.
    pub fn downgrade(self) -> Result<FifoReadGuard> {
        let waited = self.held.waited;
        let hold = self.held.hold.downgrade()?;
        Ok(Granted::granted(hold, waited))
    }
}

impl FifoRwLock {
    /// Opens the lock at `path`; see [`FifoLock::open`](crate::FifoLock::open).
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::open`](crate::FifoLock::open). A [`FifoLock`](crate::FifoLock) at the same path is another kind:
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Opens the lock of this name in the system's temporary directory; see
    /// [`FifoLock::named`](crate::FifoLock::named).
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::named`](crate::FifoLock::named) and of [`open`](FifoRwLock::open).
    pub fn named(name: impl AsRef<str>) -> Result<Self> {
        Self::options().named(name)
    }

    /// Starts with the default options.
    pub fn options() -> FifoOptions<Self> {
        FifoOptions::default()
    }

    /// Waits in line to read, with any number of others who read.
    ///
    /// # Cancel safety
    ///
    /// As [`FifoLock::acquire`](crate::FifoLock::acquire): dropping the future at any point leaves the line.
    ///
    /// # Fairness
    ///
    /// Waits for every writer who came before, inside or in line, and for nobody else.
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::acquire`](crate::FifoLock::acquire).
    pub fn read(&self) -> Acquire<FifoReadGuard> {
        self.shared.acquire(Mode::Shared)
    }

    /// Waits in line to write, alone.
    ///
    /// # Cancel safety
    ///
    /// As [`FifoLock::acquire`](crate::FifoLock::acquire): dropping the future at any point leaves the line, and readers whom it held
    /// back go in.
    ///
    /// # Fairness
    ///
    /// Waits for everybody who came before, and for nobody else.
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::acquire`](crate::FifoLock::acquire).
    pub fn write(&self) -> Acquire<FifoWriteGuard> {
        self.shared.acquire(Mode::Exclusive)
    }

    /// Reads if no writer is inside or in line; else `None`, and nothing on disk has changed.
    ///
    /// # Errors
    ///
    /// Those of [`read`](FifoRwLock::read), save time limits.
    pub fn try_read(&self) -> Result<Option<FifoReadGuard>> {
        self.shared.try_acquire(Mode::Shared)
    }

    /// Writes if nobody is inside or in line; else `None`, and nothing on disk has changed.
    ///
    /// # Errors
    ///
    /// Those of [`write`](FifoRwLock::write), save time limits.
    pub fn try_write(&self) -> Result<Option<FifoWriteGuard>> {
        self.shared.try_acquire(Mode::Exclusive)
    }

    /// The options this handle was opened with.
    pub fn config(&self) -> &FifoConfig {
        &self.shared.config
    }

    fair_methods!();
}

impl Fair for FifoRwLock {
    fn with_config(path: &Path, config: FifoConfig) -> Result<Self> {
        let shared = Shared::open(path, Kind::RwLock, config)?;
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
