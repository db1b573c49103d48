//! The pid file as a lock: the public API of [`pidfile`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::pidfile::{Memory, PidFile, PidHold};
use super::{Presence, PresencePending};
use crate::acquire::Acquire;
use crate::any::{AnyLock, becomes_any};
use crate::error::{Error, ErrorKind, Result};
use crate::file::wait::{Outcome, Target};
use crate::guard::guard;
use crate::lock::{Capabilities, Local, is_lock, local_handle};
use crate::options::check_pause;
use crate::path::canonical;
use crate::stats::Stats;
use crate::status::{Changes, Owner, Removal, Status};
use crate::sys::file;
use crate::sys::fork::Inherited;
use crate::watch::wait::Wait;
use crate::watch::watch;

mod options;
mod pidfile;

pub use options::{PidConfig, PidOptions};

/// A lock that is a file with the holder's pid in it. The file exists while the lock is held. No
/// operating system lock is used.
///
/// Use it where the system's locks do not work or must not be used, and where people or programs
/// read the holder from a file.
///
/// The first line of the file is the pid. The second is the program (`argv[0]`). Two lines of this
/// crate follow: process start, boot, pid namespace and machine. From these, every process can tell
/// whether the holder is still alive.
///
/// A holder that was killed frees the lock within milliseconds, and the next holder [learns of
/// it](PidGuard::predecessor_crashed). A reused pid is not taken for the holder.
///
/// Another process takes the lock over only if the holder is *provably* gone:
///
/// - A holder on another host or in another pid namespace counts as alive as long as its file
///   exists.
/// - The holder in a file that contains only a pid also counts as alive.
///   [`PidConfig::bare_pids`] changes that.
/// - A file that this process may not read counts as held.
/// - A holder from before a reboot counts as gone only on a local file system and with the same
///   machine ID.
/// - An empty file counts as held, because its writer may be about to write. A waiter takes it over
///   when it has not changed for five seconds.
///
/// A process that executes another program (`exec`) while it holds the lock keeps the lock until
/// the process ends. The new program can neither wait for the lock nor release it: its calls fail
/// with [`ErrorKind::Deadlock`].
///
/// The lock needs hard links, or `renameat2` with `RENAME_NOREPLACE` on Linux. Processes that
/// exclude each other must see one file system. There is no queue. Programs that lock with `flock`
/// are not excluded. `openlock` for Python respects only holders that are Python processes.
///
/// However many tasks of a process wait, they use a few descriptors. A path without a directory
/// means the working directory, as for any file.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("deploy.pid");
/// use stanchion::PidLock;
///
/// let lock = PidLock::open(&path)?;
/// let guard = lock.acquire().await?;
/// let text = std::fs::read_to_string(&path).unwrap();
/// assert_eq!(text.lines().next(), Some(&*std::process::id().to_string()));
/// assert_eq!(lock.holder()?.and_then(|it| it.pid), Some(std::process::id()));
/// guard.release().await?;
/// assert!(!path.exists());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PidLock {
    file: Arc<PidFile>,
    config: Arc<PidConfig>,
}

/// The options that [`PidLock::set_defaults`] has set.
static DEFAULTS: Inherited<PidConfig> = Inherited::new();

impl PidLock {
    /// Opens the lock with the default options. Nothing is created before the first acquire.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`] when the directory does not exist or cannot be read.
    /// - [`ErrorKind::InvalidInput`] when something other than a regular file is at the path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Returns the default options: [those of the process](PidLock::set_defaults) if they are set.
    pub fn options() -> PidOptions {
        PidOptions::from_config(Self::defaults())
    }

    /// Returns the options of a lock that is opened with none.
    pub fn defaults() -> PidConfig {
        DEFAULTS.get().cloned().unwrap_or_default()
    }

    /// Sets the default options of every lock that this process opens from now on, and of every
    /// lock that its forked children open. Each call uses some memory until the process ends.
    ///
    /// ```
    /// use std::time::Duration;
    /// use stanchion::PidLock;
    ///
    /// PidLock::set_defaults(PidLock::options().timeout(Duration::from_secs(5)));
    /// assert_eq!(PidLock::defaults().timeout, Some(Duration::from_secs(5)));
    /// ```
    pub fn set_defaults(options: PidOptions) {
        let config = options.into_config();
        DEFAULTS.update(|_| Some(config.clone()));
    }

    /// Returns the path that `openlock` uses when none is given: `openlock.lock` in the working
    /// directory.
    pub fn default_path() -> PathBuf {
        PathBuf::from("openlock.lock")
    }

    fn with_config(path: &Path, config: PidConfig) -> Result<Self> {
        let path = canonical(path)?;
        file::check_lock_path(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                let text = format!("no pid file can be here: {error}");
                Error::at(ErrorKind::InvalidInput, text, &path)
            }
            _ => Error::io("look at the pid file", &path, error),
        })?;
        if config.wait == Wait::Blocking {
            let text = "a pid file has no lock call to wait in; use Wait::Watch or Wait::Poll";
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        check_pause("poll_interval", config.poll_interval, &path)?;
        Ok(Self {
            file: Arc::new(PidFile::new(path, &config)),
            config: Arc::new(config),
        })
    }

    /// Waits for the lock.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point gives up the wait and deletes the files that it had
    /// prepared. If the lock arrives for a dropped future, it is released at once.
    ///
    /// If the lock arrives for a future that is alive but not polled, it is kept for two seconds.
    /// Then it is released, and the future tries again when it is polled.
    ///
    /// # Fairness
    ///
    /// None: any waiter may be next.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::TimedOut`] and [`ErrorKind::Busy`] where the caller set a limit.
    /// - [`ErrorKind::Deadlock`] when this process acquired the lock before it executed another
    ///   program.
    /// - [`ErrorKind::Corrupt`] when the file at the path is not a pid file. The file is left
    ///   alone.
    /// - [`ErrorKind::Unsupported`] where the file system has neither hard links nor
    ///   `RENAME_NOREPLACE`.
    /// - [`ErrorKind::Unsupported`] at the first poll when [`max_waiting`](Acquire::max_waiting) is
    ///   above 0: there is no queue to count.
    /// - [`ErrorKind::Io`] for everything that the operating system refuses.
    ///
    /// # Platform notes
    ///
    /// On Linux a waiter sleeps until the file is deleted or the holder's process has ended.
    /// Elsewhere, and on network file systems, it looks again after 1 to 50 ms.
    ///
    /// Some systems do not say for certain whether a process has ended: OpenBSD, NetBSD, a jail of
    /// FreeBSD, a container of Windows. There the file of a dead holder has to be deleted by hand.
    pub fn acquire(&self) -> Acquire<PidGuard> {
        Acquire::new(PresencePending::new(&self.file), self.config.timeout)
    }

    /// Acquires the lock if it is free. Otherwise returns `None`. Makes one attempt, on this
    /// thread.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](PidLock::acquire), except time limits.
    pub fn try_acquire(&self) -> Result<Option<PidGuard>> {
        self.acquire().try_now()
    }

    /// Returns whether the lock is held at this moment.
    ///
    /// # Errors
    ///
    /// Those of [`holder`](PidLock::holder).
    pub fn is_locked(&self) -> Result<bool> {
        Ok(self.holder()?.is_some())
    }

    /// Returns the holder. Returns `None` when there is none, or when it is provably gone. Changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Corrupt`] when the file at the path is not a pid file.
    /// - [`ErrorKind::Io`] when the file cannot be read.
    pub fn holder(&self) -> Result<Option<Owner>> {
        self.file.holder()
    }

    /// Returns the path of the file, with every directory in it resolved.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns the options of this handle.
    pub fn config(&self) -> &PidConfig {
        &self.config
    }
}

guard! {
    /// A pid file that this process holds.
    ///
    /// Dropping it releases the lock: the file is deleted if it is still the same file. In a forked
    /// child, dropping it does nothing to the parent's lock.
    ///
    /// The lock is lost when the file is deleted, renamed or replaced. Other callers can acquire
    /// the lock then, and a release deletes nothing.
    PidGuard holds PidHold, by PresencePending<PidFile>
}

impl Local for PidFile {
    fn status(&self) -> Result<Status> {
        Ok(Status {
            polling: !self.config().has_push(),
            watch_failures: watch().failures(),
            ..Status::of_holder(self.holder()?)
        })
    }

    /// Removes the file that a dead holder has left.
    fn remove(&self) -> Result<Removal> {
        match self.attempt(&mut Memory::default(), None)? {
            Outcome::Granted(mut hold) => hold.give_back().map(|()| Removal::Removed),
            Outcome::Refused(_) => Ok(Removal::InUse),
        }
    }

    fn changes(&self) -> Changes {
        Changes::unsupported(self.path())
    }

    fn stats(&self) -> Stats {
        self.ledger().stats()
    }

    fn close(&self) {
        self.ledger().close();
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            names_owners: true,
            ..Capabilities::of_plain_file_lock(self.config().has_push())
        }
    }
}

becomes_any!(PidLock => AnyLock);
local_handle!(PidLock: file);
is_lock!(PidLock: Lock<PidGuard>, acquire, try_acquire);

impl fmt::Debug for PidLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PidLock")
            .field("path", &self.path())
            .field("config", &self.config)
            .finish()
    }
}
