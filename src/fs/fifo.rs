//! The fair lock: exclusive, first come first served, among all tasks of all processes of a host.
//!
//! This file is the face; the algorithm is in [`engine`](super::engine): the line of this process in `line`, the line on
//! disk in `ticket` and `line/contender.rs`, the protocol in `docs/protocol.md`.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{Either, select};

use super::engine::blocking;
use super::engine::disk::Cleared;
use super::engine::door::Door;
use super::engine::line::{Entered, Grant, Key, Line, Settings, Wait};
use super::engine::owner::identity;
use super::sys::file::{AsHandle, BorrowedHandle};
use crate::acquire::{Acquire, sealed};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Guard, Lost};
use crate::lock::{Capabilities, Lock, Status, Waiting};

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

/// The options of a [`FifoLock`], with their defaults; [`FifoLock::config`] reads them back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FifoConfig {
    /// Time limit of an [`acquire`](FifoLock::acquire) that sets none; `None`, the default, waits for ever.
    pub timeout: Option<Duration>,
    /// What holders and waiters are called in [`FifoLock::status`]; none by default. Cut after about 96 bytes.
    pub label: Option<String>,
    /// Permission bits of a lock file that has to be created, exactly, whatever the umask; `None`, the default, leaves
    /// them to the umask. The queue is always open to those who may use the lock file.
    pub mode: Option<u32>,
    /// How often a waiter looks again although it was told nothing: only a safety net. Default 1 s; [`Duration::MAX`]
    /// switches it off.
    pub poll_interval: Duration,
    /// How long a grant may stay unclaimed, and a free lock untouched, before the next in line passes a sleeper.
    /// Default 2 s; [`Duration::MAX`] switches passing off.
    pub claim_window: Duration,
    /// How the first in line waits for the lock file; default [`Wait::Watch`].
    pub wait: Wait,
    /// Whether the last handle, guard and future of this handle removes lock file and queue when nobody uses them; off
    /// by default.
    pub remove_when_idle: bool,
}

impl Default for FifoConfig {
    fn default() -> Self {
        Self {
            timeout: None,
            label: None,
            mode: None,
            poll_interval: Duration::from_secs(1),
            claim_window: Duration::from_secs(2),
            wait: Wait::Watch,
            remove_when_idle: false,
        }
    }
}

/// Builds a [`FifoLock`]; made by [`FifoLock::options`].
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a lock is opened with them"]
pub struct FifoOptions {
    config: FifoConfig,
}

impl FifoOptions {
    /// Sets [`FifoConfig::timeout`].
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.config.timeout = limit.into();
        self
    }

    /// Sets [`FifoConfig::label`].
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.config.label = Some(label.into());
        self
    }

    /// Sets [`FifoConfig::mode`].
    pub fn mode(mut self, bits: u32) -> Self {
        self.config.mode = Some(bits);
        self
    }

    /// Sets [`FifoConfig::poll_interval`].
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.config.poll_interval = interval;
        self
    }

    /// Sets [`FifoConfig::claim_window`].
    pub fn claim_window(mut self, window: Duration) -> Self {
        self.config.claim_window = window;
        self
    }

    /// Sets [`FifoConfig::wait`].
    pub fn wait(mut self, wait: Wait) -> Self {
        self.config.wait = wait;
        self
    }

    /// Sets [`FifoConfig::remove_when_idle`].
    pub fn remove_when_idle(mut self, remove: bool) -> Self {
        self.config.remove_when_idle = remove;
        self
    }

    /// Opens the lock; see [`FifoLock::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<FifoLock> {
        FifoLock::with_config(path.as_ref(), self.config)
    }
}

/// What [`FifoLock::remove`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Removal {
    /// Lock file and queue are gone, or there were none.
    Removed,
    /// Somebody holds the lock or waits for it, or the queue directory holds files that are not the lock's: nothing
    /// was changed.
    InUse,
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
            let _ = self.line.remove();
        }
    }
}

impl FifoLock {
    /// Opens the lock at `path`. A bare file name without any separator goes into the system's temporary directory.
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

    /// Starts with the default options.
    pub fn options() -> FifoOptions {
        FifoOptions::default()
    }

    fn with_config(path: &Path, config: FifoConfig) -> Result<Self> {
        if config.poll_interval.is_zero() || config.claim_window.is_zero() {
            let text = "poll_interval and claim_window must be longer than nothing";
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        if config.mode.is_some_and(|bits| bits & !0o777 != 0) {
            let text = "mode takes permission bits, at most 0o777";
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        let line = Line::of(&full_path(path))?;
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
        Attempt {
            shared: self.shared.clone(),
            most: None,
            stage: Stage::New,
        }
    }

    /// Takes the lock if nobody holds it and nobody queues; else `None`, and nothing on disk has changed.
    pub fn try_acquire(&self) -> Result<Option<FifoGuard>> {
        let grant = self.shared.line.try_enter(&self.shared.settings)?;
        Ok(grant.map(|grant| FifoGuard::new(self.shared.clone(), grant)))
    }

    /// Waits in line for the lock on this thread, for callers without a runtime; `None` waits for ever.
    ///
    /// Works on any thread that may block, also in `tokio::task::spawn_blocking` and `block_in_place`.
    ///
    /// # Errors
    ///
    /// As [`acquire`](FifoLock::acquire); [`ErrorKind::Unsupported`] inside an async task, where it would block the runtime.
    pub fn blocking_acquire(&self, limit: Option<Duration>) -> Result<FifoGuard> {
        if blocking::in_async_context() {
            let text = "blocking_acquire was called from async code: use acquire().await there";
            return Err(Error::at(ErrorKind::Unsupported, text, self.path()));
        }
        let begun = Instant::now();
        let deadline = limit.and_then(|limit| begun.checked_add(limit));
        let outcome = blocking::block_on(self.attempt(), deadline);
        outcome.unwrap_or_else(|| Err(Error::timed_out(self.path(), begun.elapsed())))
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

    /// Whether anybody holds the lock now, by any program. Asks by trying: the lock is taken for an instant if it is free.
    pub fn is_locked(&self) -> Result<bool> {
        self.shared.line.is_locked()
    }

    /// Who holds the lock and who waits, in order. Locks nothing, opens no ticket, disturbs nobody.
    pub fn status(&self) -> Result<Status> {
        self.shared.line.status()
    }

    /// Deletes lock file and queue if nobody holds the lock or waits for it. The lock stays usable: the next acquire makes
    /// them anew.
    pub fn remove(&self) -> Result<Removal> {
        self.shared.line.remove().map(|cleared| match cleared {
            Cleared::Removed => Removal::Removed,
            Cleared::InUse => Removal::InUse,
        })
    }

    /// Ends every wait through this handle and its clones with [`ErrorKind::Closed`], now and later, for a graceful
    /// shutdown. Guards that are out stay valid; other handles, also on the same path, are not concerned.
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
        Capabilities::of_fair_file_lock(self.shared.line.has_events())
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
fn full_path(path: &Path) -> PathBuf {
    let bare = path.file_name() == Some(path.as_os_str());
    if bare {
        std::env::temp_dir().join(path)
    } else {
        path.to_path_buf()
    }
}

/// The lock is held as long as this value lives.
///
/// Dropping it releases: the lock goes to the next in line at once, also outside a runtime, also while unwinding. In a
/// forked child dropping it does nothing to the parent's lock.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct FifoGuard {
    /// There until the guard is released.
    door: Option<Door>,
    shared: Arc<Shared>,
    token: u64,
    waited: Option<Duration>,
    predecessor_crashed: bool,
}

impl FifoGuard {
    fn new(shared: Arc<Shared>, grant: Grant) -> Self {
        Self {
            door: Some(grant.door),
            shared,
            token: grant.token,
            waited: grant.waited,
            predecessor_crashed: grant.predecessor_crashed,
        }
    }

    /// The fencing token: strictly greater than that of every earlier grant of this lock, across processes and crashes, and
    /// across deleted state unless the wall clock was set back as well or more than a million grants a second went on
    /// before. Microseconds since the epoch, or one more than the last.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// How long the caller stood in line; `None` when it entered at once.
    pub fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// Whether the last holder died inside, so that what the lock protects may be half done.
    pub fn predecessor_crashed(&self) -> bool {
        self.predecessor_crashed
    }

    /// Whether the lock is still held: compares the lock file with its path, about a microsecond.
    pub fn is_held(&self) -> bool {
        self.shared.line.is_held(self.token)
    }

    /// Resolves when the lock file is deleted, renamed or replaced while this guard lives; see [`Lost`]. Nobody else can enter
    /// while the guard lives even then: newcomers get [`ErrorKind::Replaced`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing; a loss is told to every later call too.
    pub fn lost(&self) -> Lost {
        if let Some(door) = &self.door {
            self.shared.line.watch_for_loss(door);
        }
        let line = self.shared.line.clone();
        let (token, poll) = (self.token, self.shared.config.poll_interval);
        Lost::new(std::future::poll_fn(move |cx| {
            line.poll_lost(token, poll, cx.waker())
        }))
    }

    /// Releases the lock and says whether that went well.
    ///
    /// # Cancel safety
    ///
    /// Releases at the first poll, without waiting; dropped before it, the guard inside releases as any guard does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] when the lock had been lost; [`ErrorKind::Io`] when a step failed. The lock is given up in any case.
    pub async fn release(mut self) -> Result<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<()> {
        match self.door.take() {
            Some(door) => self.shared.line.release(door, self.token),
            None => Ok(()),
        }
    }
}

impl Drop for FifoGuard {
    /// Releases: a few short system calls, or none when a task of this process is next. Errors cannot be told from here; the
    /// closed descriptor frees the lock whatever happens.
    fn drop(&mut self) {
        let _ = self.give_back();
    }
}

impl Guard for FifoGuard {
    fn token(&self) -> u64 {
        FifoGuard::token(self)
    }

    fn waited(&self) -> Option<Duration> {
        FifoGuard::waited(self)
    }

    fn predecessor_crashed(&self) -> bool {
        FifoGuard::predecessor_crashed(self)
    }

    fn is_held(&self) -> bool {
        FifoGuard::is_held(self)
    }

    fn lost(&self) -> Lost {
        FifoGuard::lost(self)
    }

    async fn release(self) -> Result<()> {
        FifoGuard::release(self).await
    }
}

impl AsHandle for FifoGuard {
    /// The open, locked lock file.
    fn as_fd(&self) -> BorrowedHandle<'_> {
        match &self.door {
            Some(door) => door.file().as_fd(),
            None => unreachable!("a guard has its door until it is consumed"),
        }
    }
}

impl fmt::Debug for FifoGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FifoGuard")
            .field("path", &self.shared.line.place().door)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// One caller's place in the line.
#[doc(hidden)]
pub struct Attempt {
    shared: Arc<Shared>,
    most: Option<usize>,
    stage: Stage,
}

enum Stage {
    New,
    Waiting(Key, Instant),
    Over,
}

impl Future for Attempt {
    type Output = Result<FifoGuard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let grant = match this.stage {
            Stage::Over => return Poll::Pending,
            Stage::New => {
                this.stage = Stage::Over;
                let shared = &this.shared;
                match shared.line.enter(&shared.settings, this.most, cx.waker())? {
                    Entered::Granted(grant) => grant,
                    Entered::Waiting(key) => {
                        this.stage = Stage::Waiting(key, Instant::now());
                        return Poll::Pending;
                    }
                }
            }
            Stage::Waiting(key, _) => match this.shared.line.poll(key, cx.waker()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => {
                    this.stage = Stage::Over;
                    result?
                }
            },
        };
        Poll::Ready(Ok(FifoGuard::new(this.shared.clone(), grant)))
    }
}

impl Drop for Attempt {
    /// Leaves the line.
    fn drop(&mut self) {
        sealed::Attempt::cancel(self);
    }
}

impl sealed::Attempt for Attempt {
    type Guard = FifoGuard;

    fn set_max_waiting(&mut self, most: usize) {
        self.most = Some(most);
    }

    fn cancel(&mut self) {
        if let Stage::Waiting(key, _) = std::mem::replace(&mut self.stage, Stage::Over) {
            self.shared.line.cancel(key);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        match self.stage {
            Stage::Waiting(key, _) => self.shared.line.waiting(key),
            Stage::New | Stage::Over => None,
        }
    }

    fn timed_out(&self) -> Error {
        let waited = match self.stage {
            Stage::Waiting(_, since) => since.elapsed(),
            Stage::New | Stage::Over => Duration::ZERO,
        };
        Error::timed_out(&self.shared.line.place().door, waited)
    }
}

impl sealed::Granted for FifoGuard {
    type Attempt = Attempt;
}
