//! A lock with a name in a directory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::fake::FakeLock;
use super::name::LockName;
use super::{LockDirConfig, Method, Place};
use crate::acquire::Acquire;
use crate::any::{AnyGuard, AnyLock, becomes_any};
use crate::door::remove_file;
use crate::error::Result;
use crate::existence::claim::{ClaimConfig, ClaimLock, Form};
use crate::fair::{Fair, FifoLock};
use crate::file::FileLock;
use crate::lock::{Capabilities, Handle, Local, Lock, WeakCore, is_lock, local_handle};
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status};

/// A lock with a name in a [`LockDir`](crate::LockDir), by any [`Method`]. Cheap to clone; all
/// clones are one lock.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("locks");
/// use stanchion::LockDir;
///
/// let lock = LockDir::open(dir)?.lock("users", "Ann/7")?;
/// let guard = lock.acquire().await?;
/// println!("{lock}, token {:?}", guard.token());
/// guard.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct NamedLock {
    shared: Arc<Shared>,
}

struct Shared {
    lock: AnyLock,
    /// The same lock as `lock`.
    local: Box<dyn Local + Send + Sync>,
    name: LockName,
    config: Arc<LockDirConfig>,
    path: PathBuf,
    /// Where the whole name is recorded, if the file name is a shortened one.
    recorded: Option<PathBuf>,
}

impl NamedLock {
    pub(super) fn new(place: Place, name: LockName, config: Arc<LockDirConfig>) -> Result<Self> {
        let path = place.lock();
        let (lock, local) = match config.method {
            Method::Fake => both(FakeLock::new(&path)),
            Method::Fifo | Method::Os => {
                place.refuse_others()?;
                by_os_lock(&path, &config)?
            }
            Method::Mkdir | Method::CreateNew => {
                place.refuse_semaphore()?;
                place.refuse_lock_file()?;
                both(by_claim(&path, &config)?)
            }
        };
        let shared = Shared {
            lock,
            local,
            name,
            config,
            path,
            recorded: place.recorded,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Waits for the lock.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point leaves the queue, or gives up the wait. A lock that was
    /// already granted is released.
    ///
    /// # Fairness
    ///
    /// That of the [method](Method): first come, first served, by default.
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::acquire`], or of [`FileLock::acquire`] with [`Method::Os`].
    ///
    /// [`Method::Mkdir`] and [`Method::CreateNew`] never return
    /// [`ErrorKind::Replaced`](crate::ErrorKind::Replaced). Without an expiry they return
    /// [`ErrorKind::Deadlock`](crate::ErrorKind::Deadlock) to a process that acquired the lock
    /// before it executed another program.
    pub fn acquire(&self) -> Acquire<AnyGuard> {
        self.shared.lock.acquire()
    }

    /// Acquires the lock if that needs no wait. Returns `None` when the lock is held or a waiter is
    /// queued.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](NamedLock::acquire), except time limits.
    pub fn try_acquire(&self) -> Result<Option<AnyGuard>> {
        self.acquire().try_now()
    }

    /// Returns the name.
    pub fn name(&self) -> &LockName {
        &self.shared.name
    }

    /// Returns the method by which it locks.
    pub fn method(&self) -> Method {
        self.shared.config.method
    }

    /// Returns the options of the directory.
    pub fn config(&self) -> &LockDirConfig {
        &self.shared.config
    }

    /// Returns the path of the lock file. For a fake lock: the file that a real one would have.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

impl Local for Shared {
    fn status(&self) -> Result<Status> {
        self.local.status()
    }

    /// Removes the record of a long name too. A name that is too long for a file name is listed
    /// again only after the next [`LockDir::lock`](crate::LockDir::lock).
    fn remove(&self) -> Result<Removal> {
        let removal = self.local.remove()?;
        if let (Removal::Removed, Some(recorded)) = (removal, &self.recorded) {
            remove_file(recorded, "remove the name of the lock in")?;
        }
        Ok(removal)
    }

    fn changes(&self) -> Changes {
        self.local.changes()
    }

    fn stats(&self) -> Stats {
        self.local.stats()
    }

    fn close(&self) {
        self.local.close();
    }

    fn capabilities(&self) -> Capabilities {
        self.local.capabilities()
    }

    /// That of the inner lock: its waits do not keep this value alive.
    fn core(self: &Arc<Self>) -> Option<WeakCore> {
        Handle::core(&self.lock)
    }
}

type Both = (AnyLock, Box<dyn Local + Send + Sync>);

/// Returns one lock twice: to acquire, and to inspect.
fn both<L: Lock + Local + Clone + 'static>(lock: L) -> Both {
    (AnyLock::new(lock.clone()), Box::new(lock))
}

fn by_os_lock(path: &Path, config: &LockDirConfig) -> Result<Both> {
    if config.method == Method::Os {
        let mut options = FileLock::options().timeout(config.timeout);
        if let Some(bits) = config.mode {
            options = options.mode(bits);
        }
        if let Some(interval) = config.poll_interval {
            options = options.poll_interval(interval);
        }
        return options.open(path).map(both);
    }
    FifoLock::with_config(path, config.fair()).map(both)
}

/// How often a waiter for a claim looks again without an event.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn by_claim(path: &Path, config: &LockDirConfig) -> Result<ClaimLock> {
    let form = match config.method {
        Method::Mkdir => Form::Directory,
        _ => Form::File,
    };
    let config = ClaimConfig {
        form,
        expire: config.expire,
        timeout: config.timeout,
        poll_interval: config.poll_interval.unwrap_or(POLL_INTERVAL),
        label: config.label.clone(),
    };
    ClaimLock::open(path, config)
}

becomes_any!(NamedLock => AnyLock);
becomes_any!(ClaimLock => AnyLock);
local_handle!(NamedLock: shared);
is_lock!(NamedLock: Lock<AnyGuard>, acquire, try_acquire);

impl fmt::Display for NamedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.name.fmt(f)
    }
}

impl fmt::Debug for NamedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedLock")
            .field("name", &self.shared.name)
            .field("method", &self.method())
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}
