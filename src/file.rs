//! The plain lock on a file: the operating system's own lock, shared or exclusive. The guard is the
//! open file.
//!
//! This file is the public API. [`os_lock`](crate::file::os_lock) locks, and
//! [`wait`](crate::file::wait) waits.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use self::os_lock::PathLock;
use self::wait::WaitConfig;
use crate::acquire::Acquire;
use crate::address::Address;
use crate::any::{AnyGuard, AnyLock, AnySharedLock, becomes_any};
use crate::door::{self, Probed};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;
use crate::lock::{Capabilities, Local, is_lock, local_handle};
use crate::options::check_pause;
use crate::owner::of_pid;
use crate::path::{canonical, canonical_behind_links};
use crate::stats::Stats;
use crate::status::{Changes, Held, Owner, Removal, Status};
use crate::sys::filesystem::FileSystem;
use crate::sys::lock_table::LockTable;
use crate::sys::{Access, file};
use crate::watch::watch;

pub(crate) mod atomic;
pub(crate) mod flags;
mod guard;
mod options;
mod os_lock;
mod pool;
pub(crate) mod wait;

pub use guard::FileGuard;
pub(crate) use guard::FilePending;
pub use options::{FileConfig, FileOptions};

/// A plain lock on a file, exclusive or shared, with the open file as its guard.
///
/// The lock is `flock` (`LockFileEx` on Windows). It excludes `flock(1)`, Python's `fcntl.flock`,
/// `portalocker`, and every other program that locks whole files in this way.
///
/// There is no queue: any waiter may be next. For a queue, use [`FifoLock`](crate::FifoLock). A
/// `FifoLock` and a `FileLock` on the same path exclude each other.
///
/// Do not lock a file that other processes replace, for instance with
/// [`AtomicFile`](crate::AtomicFile): each replacement loses the lock. Lock another file beside it.
///
/// A handle is a path with options. Each acquire opens the file anew. A path without a directory
/// means the working directory, as for any file.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("counter");
/// use stanchion::FileLock;
/// use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
///
/// let lock = FileLock::open(path)?;
/// let mut file = lock.acquire().await?;
/// let mut text = String::new();
/// file.read_to_string(&mut text).await?;
/// let next = text.parse().unwrap_or(0) + 1;
/// file.rewind().await?;
/// file.write_all(next.to_string().as_bytes()).await?;
/// file.release().await?; // or drop it: then a failed write is not reported
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FileLock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Arc<PathLock>,
    config: FileConfig,
    ledger: Arc<Ledger>,
}

impl FileLock {
    /// Opens the lock with the default options: for reading and writing, created if missing.
    ///
    /// Nothing is created or opened before the first acquire.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`] when the directory does not exist or cannot be read.
    /// - [`ErrorKind::InvalidInput`] when something other than a regular file is at the path, or
    ///   when the options contradict each other.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Returns the default options.
    pub fn options() -> FileOptions {
        FileOptions::default()
    }

    fn with_config(path: &Path, config: FileConfig) -> Result<Self> {
        check_pause("poll_interval", config.poll_interval, path)?;
        let path = match config.follow_symlinks {
            true => canonical_behind_links(path)?,
            false => canonical(path)?,
        };
        file::check_lock_path(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                let hint = match path.is_symlink() {
                    true => "; follow_symlinks(true) follows it",
                    false => "",
                };
                let text = format!("no lock can be here: {error}{hint}");
                Error::at(ErrorKind::InvalidInput, text, &path)
            }
            _ => Error::io("look at the file", &path, error),
        })?;
        let system = FileSystem::around(&path);
        let waits = WaitConfig::new(config.wait.clone(), config.poll_interval, system);
        let access = Access {
            read: config.read,
            write: config.write,
            append: config.append,
            create: config.create && (config.write || config.append),
            create_new: config.create_new,
            mode: config.mode,
        };
        let ledger = Ledger::new("file", Address::of_file(&path));
        Ok(Self {
            shared: Arc::new(Shared {
                target: Arc::new(PathLock::new(path, access, waits)),
                config,
                ledger,
            }),
        })
    }

    /// Waits for the exclusive lock. Resolves to the open, locked file.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point gives up the wait. If the operating system grants the lock
    /// later, it is released at once. This applies to all three ways to [wait](crate::Wait).
    ///
    /// If the lock arrives for a future that is alive but not polled, it is kept for two seconds
    /// while the other waiters wait. Then it is released, and the future tries again when it is
    /// polled.
    ///
    /// # Fairness
    ///
    /// None: see the type.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::TimedOut`] and [`ErrorKind::Busy`] where a limit was set.
    /// - [`ErrorKind::Unsupported`] where the file system cannot lock, or grants every lock.
    /// - [`ErrorKind::Unsupported`] at the first poll when [`max_waiting`](Acquire::max_waiting) is
    ///   above 0: there is no queue to count.
    /// - [`ErrorKind::Io`], with step and path, for everything that the operating system refuses.
    ///
    /// # Platform notes
    ///
    /// [`Wait`](crate::Wait) describes which waiters are woken and which poll.
    pub fn acquire(&self) -> Acquire<FileGuard> {
        self.wait(FilePending::new(&self.shared, false))
    }

    /// Waits for the shared lock. Any number of holders share it while no holder has the exclusive
    /// lock.
    ///
    /// If this process may not write the file, open the lock with
    /// [`write(false)`](FileOptions::write). The file is not created then.
    ///
    /// # Cancel safety
    ///
    /// As for [`acquire`](FileLock::acquire).
    ///
    /// # Errors
    ///
    /// - Those of [`acquire`](FileLock::acquire).
    /// - [`ErrorKind::InvalidInput`] with [`truncate`](FileConfig::truncate) or
    ///   [`remove_on_release`](FileConfig::remove_on_release), which would take the file from other
    ///   readers.
    pub fn acquire_shared(&self) -> Acquire<FileGuard> {
        self.wait(match self.refusal_to_share() {
            Some(error) => FilePending::failed(error),
            None => FilePending::new(&self.shared, true),
        })
    }

    fn wait(&self, pending: FilePending) -> Acquire<FileGuard> {
        let wait = Acquire::new(pending, self.shared.config.timeout);
        match self.shared.config.fail_when_locked {
            true => wait.max_waiting(0),
            false => wait,
        }
    }

    fn refusal_to_share(&self) -> Option<Error> {
        let text = self.shared.config.refusal_to_share()?;
        let text = format!("this lock cannot be shared: {text}");
        Some(Error::at(ErrorKind::InvalidInput, text, self.path()))
    }

    /// Acquires the exclusive lock after the lock `over`. The guard holds `over` as long as the
    /// file. `locks` says whether the file itself is locked too.
    pub(crate) fn acquire_under(&self, over: Acquire<AnyGuard>, locks: bool) -> Acquire<FileGuard> {
        over.map(|over| FilePending::under(&self.shared, over, locks))
    }

    /// Acquires the exclusive lock if it is free. Otherwise returns `None`. Makes one attempt, on
    /// this thread.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](FileLock::acquire), except time limits.
    pub fn try_acquire(&self) -> Result<Option<FileGuard>> {
        self.acquire().try_now()
    }

    /// Acquires the shared lock if no holder has the exclusive one. Otherwise returns `None`.
    ///
    /// # Errors
    ///
    /// Those of [`acquire_shared`](FileLock::acquire_shared), except time limits.
    pub fn try_acquire_shared(&self) -> Result<Option<FileGuard>> {
        self.acquire_shared().try_now()
    }

    /// Waits for the shared lock. The same as [`acquire_shared`](FileLock::acquire_shared).
    pub fn read(&self) -> Acquire<FileGuard> {
        self.acquire_shared()
    }

    /// Waits for the exclusive lock. The same as [`acquire`](FileLock::acquire).
    pub fn write(&self) -> Acquire<FileGuard> {
        self.acquire()
    }

    /// Acquires the shared lock if no holder has the exclusive one. The same as
    /// [`try_acquire_shared`](FileLock::try_acquire_shared).
    ///
    /// # Errors
    ///
    /// Those of [`acquire_shared`](FileLock::acquire_shared), except time limits.
    pub fn try_read(&self) -> Result<Option<FileGuard>> {
        self.try_acquire_shared()
    }

    /// Acquires the exclusive lock if it is free. The same as
    /// [`try_acquire`](FileLock::try_acquire).
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](FileLock::acquire), except time limits.
    pub fn try_write(&self) -> Result<Option<FileGuard>> {
        self.try_acquire()
    }

    /// Returns the path of the file, with every directory in it resolved. Links at its end are
    /// resolved if the options follow links.
    pub fn path(&self) -> &Path {
        self.shared.target.path()
    }

    /// Returns the options of this handle.
    pub fn config(&self) -> &FileConfig {
        &self.shared.config
    }
}

impl Local for Shared {
    /// Reports the holder as an outsider, because a plain lock keeps no state record.
    ///
    /// The kernel's list of locks names the holder; reading it locks and opens nothing. When that
    /// list names no holder, and cannot name every holder, the lock is tried. A file that cannot be
    /// tried is [`Held::Unknown`].
    fn status(&self) -> Result<Status> {
        let path = self.target.path();
        let owners = LockTable::read().owners(path);
        let named = owners.listed.first().map(|(pid, _)| of_pid(*pid));
        let alone = matches!(owners.listed[..], [(_, false)]);
        let mut unknown = None;
        let (held, names_all) = match &named {
            Some(_) => (Held::Yes, alone || (owners.all && owners.listed.len() == 1)),
            None if owners.all => (Held::No, true),
            None => match door::probe(path) {
                Ok(Probed::Free) => (Held::No, true),
                Ok(Probed::Shared | Probed::Exclusive) => (Held::Yes, false),
                Err(error) => {
                    unknown = Some(error.to_string());
                    (Held::Unknown, false)
                }
            },
        };
        Ok(Status {
            held,
            unknown,
            names_all,
            outsider: named.or((held == Held::Yes).then(Owner::unlisted)),
            polling: !self.target.config().has_push(),
            watch_failures: watch().failures(),
            ..Status::free()
        })
    }

    /// Removes the file with its content. A process that waits on the deleted file moves to the new
    /// one.
    fn remove(&self) -> Result<Removal> {
        door::remove_if_free(self.target.path())
    }

    fn changes(&self) -> Changes {
        Changes::unsupported(self.target.path())
    }

    fn stats(&self) -> Stats {
        self.ledger.stats()
    }

    fn close(&self) {
        self.ledger.close();
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::of_plain_file_lock(self.target.config().has_push())
    }
}

becomes_any!(FileLock => AnyLock);
becomes_any!(FileLock => AnySharedLock);
local_handle!(FileLock: shared);
is_lock!(FileLock: Lock<FileGuard>, acquire, try_acquire);
is_lock!(FileLock: SharedLock<FileGuard>, acquire_shared, try_acquire_shared);

impl fmt::Debug for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLock")
            .field("path", &self.path())
            .field("config", &self.shared.config)
            .finish()
    }
}
