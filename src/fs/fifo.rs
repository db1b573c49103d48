//! The fair lock: exclusive, first come first served, among all tasks of all processes of a host.
//!
//! This file is the face; the algorithm is in [`engine`](super::engine): the line of this process in `line`, the line on
//! disk in `ticket` and `line/contender.rs`, the protocol in `docs/protocol.md`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::{Either, select};

use super::engine::blocking;
use super::engine::disk::Cleared;
use super::engine::line::{Line, Observer, Settings, stats_of_process};
use super::engine::owner::identity;
use super::engine::wait::Wait;
use crate::acquire::Acquire;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::{Capabilities, Changes, Lock, Removal, Status};
use crate::stats::Stats;
use crate::trace;

mod attempt;
mod guard;
mod options;

use attempt::Attempt;
pub use guard::FifoGuard;
pub use options::{FifoConfig, FifoOptions};

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

struct Shared {
    line: Arc<Line>,
    settings: Arc<Settings>,
    config: FifoConfig,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.config.remove_when_idle && !self.line.is_foreign() {
            // Nobody is left to hear of a failure; what stays is a lock file and an empty queue.
            if let Err(error) = self.line.remove(true) {
                trace::unheard(&self.line.place().door, &error);
            }
        }
    }
}

impl FifoLock {
    /// Opens the lock at `path`. A bare file name without any separator goes into the system's temporary directory, which
    /// may differ from process to process (`TMPDIR`, private directories of services) and lies open to every user: good for a try, not for production.
    ///
    /// Nothing is created before the first acquire.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the directory does not exist or cannot be read; [`ErrorKind::InvalidInput`] when something other
    /// than a regular file is at the path (symbolic links are not followed), an option makes no sense, or a bare name meets a
    /// relative `TMPDIR` (an empty one counts as none);
    /// [`ErrorKind::Incompatible`] when another kind or version of lock lives there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Starts with the default options.
    pub fn options() -> FifoOptions {
        FifoOptions::default()
    }

    fn with_config(path: &Path, config: FifoConfig) -> Result<Self> {
        if config.poll_interval.is_zero() || config.claim_window.is_zero() {
            let text = "poll_interval and claim_window must be longer than nothing";
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        if config
            .mode
            .is_some_and(|bits| bits & !0o777 != 0 || bits & 0o600 != 0o600)
        {
            let text = "mode takes permission bits, at most 0o777, with which the owner may read and write";
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        let line = Line::of(&full_path(path)?)?;
        line.check()?;
        let settings = Settings {
            words: identity().words(config.label.as_deref()).into(),
            label: config.label.as_deref().map(Arc::from),
            mode: config.mode,
            poll_interval: config.poll_interval,
            claim_window: config.claim_window,
            wait: config.wait.clone(),
            closed: Arc::new(AtomicBool::new(false)),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                line,
                settings: Arc::new(settings),
                config,
            }),
        })
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
        Acquire::new(self.attempt(), self.shared.config.timeout)
    }

    fn attempt(&self) -> Attempt {
        Attempt::new(self.shared.clone())
    }

    /// Takes the lock if nobody holds it and nobody queues; else `None`, and nothing on disk has changed.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](FifoLock::acquire), save time limits: after [`close`](FifoLock::close) [`ErrorKind::Closed`].
    pub fn try_acquire(&self) -> Result<Option<FifoGuard>> {
        let grant = self.shared.line.try_enter(&self.shared.settings)?;
        Ok(grant.map(|grant| FifoGuard::new(self.shared.clone(), grant)))
    }

    /// Waits in line for the lock on this thread, for callers without a runtime; `None` waits for ever.
    ///
    /// The default limit of the options does not count here. Works on any thread that may block, also in `tokio::task::spawn_blocking` and `block_in_place`.
    ///
    /// # Errors
    ///
    /// As [`acquire`](FifoLock::acquire); [`ErrorKind::Unsupported`] inside an async task, where it would block the runtime.
    pub fn blocking_acquire(&self, limit: Option<Duration>) -> Result<FifoGuard> {
        blocking::acquire(self.attempt(), self.path(), limit)
    }

    /// Runs `body` under the lock: acquires, runs, releases, and reports. When the lock is lost the body is dropped
    /// where it stands.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](FifoLock::acquire) while waiting; later the body is dropped and the lock released.
    ///
    /// # Errors
    ///
    /// Those of `acquire`; [`ErrorKind::Lost`] when the lock was lost; those of [`FifoGuard::release`] when the body ended
    /// but releasing failed.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(lock: stanchion::FifoLock) -> stanchion::Result<()> {
    /// let answer = lock.run(async |guard| guard.token() + 1).await?;
    /// # Ok(()) }
    /// ```
    pub async fn run<T>(&self, body: impl AsyncFnOnce(&FifoGuard) -> T) -> Result<T> {
        let guard = self.acquire().await?;
        let outcome = {
            let body = pin!(body(&guard));
            match select(body, guard.lost()).await {
                Either::Left((value, _)) => Ok(value),
                Either::Right((loss, _)) => {
                    Err(Error::at(ErrorKind::Lost, loss.to_string(), self.path()))
                }
            }
        };
        let released = guard.release().await;
        let value = outcome?;
        released.map(|()| value)
    }

    /// Whether anybody holds the lock now, by any program. Asks by trying: the lock is taken for a microsecond if it is free, and
    /// who tries without waiting in just that instant may find it held. To look again and again,
    /// [`status`](FifoLock::status) disturbs nobody; it knows the holders that are Stanchion's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the lock file cannot be opened or locked.
    pub fn is_locked(&self) -> Result<bool> {
        self.shared.line.is_locked()
    }

    /// Who holds the lock and who waits, in order. Locks nothing, opens no ticket, disturbs nobody.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Incompatible`] when another kind or version of lock lives here, [`ErrorKind::Io`] when record or queue cannot
    /// be read.
    pub fn status(&self) -> Result<Status> {
        self.shared.line.status()
    }

    /// The line as it moves: what [`status`](FifoLock::status) shows, again after each change. Told by file events; where there are none it
    /// looks ten times a second.
    ///
    /// ```no_run
    /// # async fn example(lock: stanchion::FifoLock) -> stanchion::Result<()> {
    /// let mut changes = lock.changes();
    /// while let Some(line) = changes.next().await {
    ///     println!("{} wait", line?.waiters.len());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn changes(&self) -> Changes {
        Changes::new(Observer::new(self.shared.line.clone()))
    }

    /// What all handles of this process on this path have done so far.
    pub fn stats(&self) -> Stats {
        self.shared.line.stats()
    }

    /// Deletes lock file and queue if nobody holds the lock or waits for it. The lock stays usable: the next acquire makes
    /// them anew. A lock file with content is somebody's data, and stays.
    ///
    /// With the record goes what it says of a holder that died inside: the next one is not told. (What
    /// [`remove_when_idle`](FifoConfig::remove_when_idle) does keeps the record then.)
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when a file or the directory cannot be deleted, for instance because it is another user's; the record is
    /// written back then. [`ErrorKind::Incompatible`] when another kind or version of lock lives here.
    pub fn remove(&self) -> Result<Removal> {
        self.shared.line.remove(false).map(|cleared| match cleared {
            Cleared::Removed => Removal::Removed,
            Cleared::InUse => Removal::InUse,
        })
    }

    /// Ends every wait through this handle and its clones with [`ErrorKind::Closed`], for a graceful shutdown. Later calls of
    /// `acquire` and `try_acquire` get the same, for ever; guards that are out stay valid, looking at the lock and removing it
    /// still work, and other handles, also on the same path, are not concerned.
    pub fn close(&self) {
        self.shared.line.close(&self.shared.settings.closed);
    }

    /// The lock file, with every directory on the way resolved.
    pub fn path(&self) -> &Path {
        &self.shared.line.place().door
    }

    /// The directory where the line stands: `<path>.queue`.
    pub fn queue_dir(&self) -> &Path {
        &self.shared.line.place().queue
    }

    /// The options this handle was opened with.
    pub fn config(&self) -> &FifoConfig {
        &self.shared.config
    }
}

impl Stats {
    /// What all locks of this process have done so far, those that are closed by now included. A forked child begins at zero.
    pub fn of_process() -> Self {
        stats_of_process()
    }
}

impl Lock for FifoLock {
    type Guard = FifoGuard;

    fn acquire(&self) -> Acquire<FifoGuard> {
        FifoLock::acquire(self)
    }

    async fn try_acquire(&self) -> Result<Option<FifoGuard>> {
        FifoLock::try_acquire(self)
    }

    async fn status(&self) -> Result<Status> {
        FifoLock::status(self)
    }

    fn capabilities(&self) -> Capabilities {
        let watches = self.shared.config.wait == Wait::Watch;
        Capabilities::of_fair_file_lock(watches && self.shared.line.has_events())
    }
}

impl fmt::Debug for FifoLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FifoLock")
            .field("path", &self.path())
            .field("config", &self.shared.config)
            .finish()
    }
}

/// A bare name means the temporary directory.
fn full_path(path: &Path) -> Result<PathBuf> {
    let bare = path.file_name() == Some(path.as_os_str());
    if !bare {
        return Ok(path.to_path_buf());
    }
    let directory = std::env::temp_dir();
    if directory.as_os_str().is_empty() {
        // An empty TMPDIR is none, and only Unix has that variable.
        return Ok(Path::new("/tmp").join(path));
    }
    if directory.is_relative() {
        // It would be another lock in each working directory.
        let text =
            format!("a bare name needs an absolute temporary directory, TMPDIR is {directory:?}");
        return Err(Error::at(ErrorKind::InvalidInput, text, path));
    }
    Ok(directory.join(path))
}
