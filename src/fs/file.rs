//! The plain lock on a file: the operating system's own, shared or exclusive, and the guard is the open file.
//!
//! This file is the face; how it waits stands in [`engine::knock`](super::engine::knock).

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::engine::door;
use super::engine::door::Probed;
use super::engine::knock::{Manner, Target};
use super::engine::owner::of_pid;
use super::engine::path::{canonical, canonical_behind_links};
use super::engine::wait::Wait;
use super::engine::watch::watch;
use super::sys::{Access, file, host};
use crate::acquire::Acquire;
use crate::address::Address;
use crate::any::{AnyGuard, AnyLock, becomes_any};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;
use crate::lock::{Capabilities, Local, is_lock, local_handle};
use crate::options::check_pause;
use crate::stats::Stats;
use crate::status::{Changes, Held, Owner, Removal, Status};

mod guard;
mod options;
mod pending;

pub use guard::FileGuard;
pub use options::{FileConfig, FileOptions};
pub(crate) use pending::FilePending;

/// A plain lock on a file, exclusive or shared, with the open file as its guard.
///
/// It is `flock` (on Windows `LockFileEx`), so it excludes `flock(1)`, Python's `fcntl.flock` and `portalocker`, and every
/// other program that locks whole files so. There is no queue: of those who wait, any may be next. For a queue take
/// [`FifoLock`](crate::FifoLock), which excludes this lock on the same path and the other way round.
///
/// Do not lock a file that others replace, for instance by [`AtomicFile`](crate::AtomicFile): with each replacement the lock is lost. Lock
/// another one beside it.
///
/// A handle is a path with options; each acquire opens the file anew. A path without a directory means the working
/// directory, as for any file.
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
/// file.release().await?; // or drop it; then nobody hears of a failed write
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FileLock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) target: Arc<Target>,
    pub(crate) config: FileConfig,
    ledger: Arc<Ledger>,
}

impl FileLock {
    /// Opens the lock with the default options: exclusive, for reading and writing, created if missing.
    ///
    /// Nothing is created or opened before the first acquire.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the directory does not exist or cannot be read; [`ErrorKind::InvalidInput`] when something other
    /// than a regular file is at the path, or the options contradict each other.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Starts with the default options.
    pub fn options() -> FileOptions {
        FileOptions::default()
    }

    fn with_config(path: &Path, config: FileConfig) -> Result<Self> {
        if let Some(text) = config.contradiction() {
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        check_pause("poll_interval", config.poll_interval, path)?;
        let path = match config.follow_symlinks {
            true => canonical_behind_links(path)?,
            false => canonical(path)?,
        };
        file::check_lock_path(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                let text = format!("no lock can be here (see follow_symlinks for links): {error}");
                Error::at(ErrorKind::InvalidInput, text, &path)
            }
            _ => Error::io("look at the file", &path, error),
        })?;
        let events = host::tells_closes_of(&path);
        let manner = Manner {
            wait: config.wait.clone(),
            poll_interval: config.poll_interval,
            events,
        };
        let access = Access {
            read: config.read,
            write: config.write,
            append: config.append,
            create: config.create && (config.write || config.append),
            create_new: config.create_new,
            mode: config.mode,
        };
        let ledger = Ledger::new("file", Address::of_file(&path));
        let target = Target {
            path,
            access,
            manner,
            excludes: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                target: Arc::new(target),
                config,
                ledger,
            }),
        })
    }

    /// Waits for the exclusive lock; resolves to the open, locked file.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point gives up the wait. A lock that has come or comes for a dropped
    /// future is given back at once, in all three ways to wait. For a future that is kept and not
    /// polled it is kept for two seconds, while the others wait; then it is given back, and the future
    /// tries again when it is polled.
    ///
    /// # Fairness
    ///
    /// None: see the type.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] and [`ErrorKind::Busy`] where a limit was set,
    /// [`ErrorKind::Unsupported`] where the file system cannot lock or grants every lock, and
    /// [`ErrorKind::Io`] with step and path for everything the operating system refuses.
    /// [`max_waiting`](Acquire::max_waiting) above 0 is [`ErrorKind::Unsupported`] at the first poll:
    /// there is no queue to count.
    ///
    /// # Platform notes
    ///
    /// See [`Wait`] for who is woken and who polls.
    pub fn acquire(&self) -> Acquire<FileGuard> {
        self.wait(FilePending::new(&self.shared, false))
    }

    /// Waits for the shared lock, which any number of holders have while none has the exclusive one.
    /// For a file that this process may not write, open the lock with
    /// [`write(false)`](FileOptions::write); the file is not created then.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](FileLock::acquire).
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](FileLock::acquire); [`ErrorKind::InvalidInput`] with
    /// [`truncate`](FileConfig::truncate) or [`remove_on_release`](FileConfig::remove_on_release),
    /// which would take the file from other readers.
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

    /// The exclusive lock after another lock, which the guard holds as long as the file. `locks` tells
    /// whether the file itself is locked too.
    pub(crate) fn acquire_under(&self, over: Acquire<AnyGuard>, locks: bool) -> Acquire<FileGuard> {
        over.map(|over| FilePending::under(&self.shared, over, locks))
    }

    /// Takes the exclusive lock if it is free; `None` otherwise. One attempt, on this thread.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](FileLock::acquire), except time limits.
    pub fn try_acquire(&self) -> Result<Option<FileGuard>> {
        self.acquire().try_now()
    }

    /// Takes the shared lock if no holder has the exclusive one; `None` otherwise.
    ///
    /// # Errors
    ///
    /// Those of [`acquire_shared`](FileLock::acquire_shared), except time limits.
    pub fn try_acquire_shared(&self) -> Result<Option<FileGuard>> {
        self.acquire_shared().try_now()
    }

    /// The file, with every directory on the way resolved, and links at its end if those are followed.
    pub fn path(&self) -> &Path {
        &self.shared.target.path
    }

    /// The options this handle was opened with.
    pub fn config(&self) -> &FileConfig {
        &self.shared.config
    }
}

impl Shared {
    fn pushes(&self) -> bool {
        match self.config.wait {
            Wait::Watch => self.target.manner.events,
            Wait::Poll(_) => false,
            Wait::Blocking => true,
        }
    }
}

impl Local for Shared {
    /// The holder is an outsider, because a plain lock keeps no record. The kernel's list of locks names
    /// it, which locks and opens nothing. Where that list cannot name every holder and names none, the
    /// lock is tried. A file that cannot be tried is [`Held::Unknown`].
    fn status(&self) -> Result<Status> {
        let path = &self.target.path;
        let owners = host::LockTable::read().owners(path);
        let named = owners.listed.first().map(|(pid, _)| of_pid(*pid));
        let alone = matches!(owners.listed[..], [(_, false)]);
        let (held, names_all) = match &named {
            Some(_) => (Held::Yes, alone || (owners.all && owners.listed.len() == 1)),
            None if owners.all => (Held::No, true),
            None => match door::probe(path) {
                Ok(Probed::Free) => (Held::No, true),
                Ok(Probed::Shared | Probed::Exclusive) => (Held::Yes, false),
                Err(_) => (Held::Unknown, false),
            },
        };
        Ok(Status {
            held,
            names_all,
            outsider: named.or((held == Held::Yes).then(Owner::unknown)),
            polling: !self.pushes(),
            watch_failures: watch().failures(),
            ..Status::of_nobody()
        })
    }

    /// With what is in the file. A process that waits on the deleted file moves to the new one.
    fn remove(&self) -> Result<Removal> {
        door::remove_if_free(&self.target.path)
    }

    fn changes(&self) -> Changes {
        Changes::unsupported(&self.target.path)
    }

    fn stats(&self) -> Stats {
        self.ledger.stats()
    }

    fn close(&self) {
        self.ledger.close();
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::of_plain_file_lock(self.pushes())
    }
}

becomes_any!(FileLock => AnyLock);
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
