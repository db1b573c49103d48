//! The pid file as a lock: the face of [`engine::pidfile`](super::engine::pidfile).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::engine::contest::{Contest, Manner, Outcome};
use super::engine::path::canonical;
use super::engine::pidfile::{Memory, PidFile};
use super::engine::wait::Wait;
use super::engine::watch::watch;
use super::presence::PresencePending;
use super::sys::{file, host};
use crate::acquire::Acquire;
use crate::address::Address;
use crate::any::{AnyLock, becomes_any};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;
use crate::lock::{Capabilities, Local, is_lock, local_handle};
use crate::options::check_pause;
use crate::stats::Stats;
use crate::status::{Changes, Owner, Removal, Status};

mod guard;
mod options;

pub use guard::PidGuard;
pub use options::{PidConfig, PidOptions};

/// A lock that is a file with the holder's pid in it: it exists while somebody has the lock, and no operating system lock is asked.
///
/// For places where the system's locks do not work or must not be used, and where others want to
/// see who holds by looking at a file. The first line is the pid, the second the program
/// (`argv[0]`), then follow two of our own, from which everybody can tell whether the holder still
/// lives: process start, boot, pid namespace, machine. A holder that was killed frees the lock
/// within milliseconds, and the next one [hears of it](PidGuard::predecessor_crashed). A reused pid
/// is not taken for the holder.
///
/// Only a holder that is *provably* gone is passed. One on another host or in another pid namespace
/// counts as alive for as long as its file is there, and so does a file in which stands no more
/// than a pid ([`PidConfig::bare_pids`] changes that). A holder from before a reboot is passed only
/// on a local file system and with the same machine ID. An empty file counts as held too, for its
/// writer may be about to write; who waits passes it when it has not changed for five seconds.
///
/// A process that executes another program (`exec`) while it holds keeps the lock until it ends. It
/// cannot wait for the lock or give it back: its calls fail with [`ErrorKind::Deadlock`].
///
/// It needs hard links, or on Linux `renameat2` with `RENAME_NOREPLACE`, and processes that exclude
/// each other must see one file system; there is no queue. Programs that lock by `flock` are not
/// excluded, and `openlock` for Python respects only holders that are Python processes.
///
/// Each waiter has a descriptor open. A path without a directory means the working directory, as for any file.
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

/// What [`PidLock::set_defaults`] has set.
static DEFAULTS: Mutex<Option<PidConfig>> = Mutex::new(None);

impl PidLock {
    /// Opens the lock with the default options. Nothing is created before the first acquire.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the directory does not exist or cannot be read; [`ErrorKind::InvalidInput`] when something other than a
    /// regular file is at the path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Starts with the default options, [those of the process](PidLock::set_defaults) if there are any.
    pub fn options() -> PidOptions {
        PidOptions::from_config(Self::defaults())
    }

    /// The options that a lock is opened with which sets none.
    pub fn defaults() -> PidConfig {
        let set = DEFAULTS.lock().unwrap_or_else(PoisonError::into_inner);
        set.clone().unwrap_or_default()
    }

    /// Sets the options that every lock opened from now on in this process begins with.
    ///
    /// ```
    /// use std::time::Duration;
    /// use stanchion::PidLock;
    ///
    /// PidLock::set_defaults(PidLock::options().timeout(Duration::from_secs(5)));
    /// assert_eq!(PidLock::defaults().timeout, Some(Duration::from_secs(5)));
    /// ```
    pub fn set_defaults(options: PidOptions) {
        let mut set = DEFAULTS.lock().unwrap_or_else(PoisonError::into_inner);
        *set = Some(options.into_config());
    }

    /// The path that `openlock` takes when none is given: `openlock.lock` in the working directory.
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
            let text = "a pid file has no lock call to sit in: wait by Watch or Poll";
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        check_pause("poll_interval", config.poll_interval, &path)?;
        let events = host::tells_closes_of(&path);
        let manner = Manner {
            wait: config.wait.clone(),
            poll_interval: config.poll_interval,
            events,
        };
        let ledger = Ledger::new("pid", Address::of_file(&path));
        let file = PidFile {
            path,
            label: config.label.clone(),
            bare_pids: config.bare_pids,
            manner,
            swept: AtomicBool::new(false),
            ledger,
        };
        Ok(Self {
            file: Arc::new(file),
            config: Arc::new(config),
        })
    }

    /// Waits for the lock.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point gives up the wait and deletes what it had prepared. A lock that has come for a dropped future is given
    /// back at once; for a future that is kept and not polled it is kept two seconds, then it goes back, and the future tries again when it is
    /// polled.
    ///
    /// # Fairness
    ///
    /// None: of those who wait, any may be next.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] and [`ErrorKind::Busy`] where the caller asked for it;
    /// [`ErrorKind::Deadlock`] when this process took the lock before it executed another program;
    /// [`ErrorKind::Corrupt`] when what is at the path is no pid file, which is left alone;
    /// [`ErrorKind::Unsupported`] where the file system has neither hard links nor
    /// `RENAME_NOREPLACE`; [`ErrorKind::Io`] for everything the operating system refuses.
    /// [`max_waiting`](Acquire::max_waiting) above 0 is [`ErrorKind::Unsupported`] at the first poll:
    /// there is no line to count.
    ///
    /// # Platform notes
    ///
    /// On Linux a waiter sleeps until the file is deleted or the holder's process has ended.
    /// Elsewhere, and on network file systems, it looks again after 1 to 50 ms. Where the system
    /// does not tell for certain whether a process has ended (OpenBSD, NetBSD, a jail of FreeBSD, a
    /// container of Windows), the file of a dead holder has to be deleted by hand.
    pub fn acquire(&self) -> Acquire<PidGuard> {
        Acquire::new(PresencePending::new(&self.file), self.config.timeout)
    }

    /// Takes the lock if nobody has it; else `None`. One attempt, on this thread.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](PidLock::acquire), save time limits.
    pub fn try_acquire(&self) -> Result<Option<PidGuard>> {
        self.acquire().try_now()
    }

    /// Whether anybody has the lock: a look at the present.
    ///
    /// # Errors
    ///
    /// Those of [`holder`](PidLock::holder).
    pub fn is_locked(&self) -> Result<bool> {
        Ok(self.holder()?.is_some())
    }

    /// Who has the lock, if anybody has it who is not provably gone. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] when what is at the path is no pid file, [`ErrorKind::Io`] when it cannot be read.
    pub fn holder(&self) -> Result<Option<Owner>> {
        self.file.holder()
    }

    /// The file, with every directory on the way resolved.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The options this handle was opened with.
    pub fn config(&self) -> &PidConfig {
        &self.config
    }
}

impl Local for PidFile {
    fn status(&self) -> Result<Status> {
        Ok(Status {
            polling: !self.manner().is_told(),
            watch_failures: watch().failures(),
            ..Status::of_holder(self.holder()?)
        })
    }

    /// The file that a dead holder has left.
    fn remove(&self) -> Result<Removal> {
        match self.contend(&mut Memory::default())? {
            Outcome::Won(mut hold) => hold.give_back().map(|()| Removal::Removed),
            Outcome::Refused(_) => Ok(Removal::InUse),
        }
    }

    fn changes(&self) -> Changes {
        Changes::unsupported(&self.path)
    }

    fn stats(&self) -> Stats {
        self.ledger.stats()
    }

    fn close(&self) {
        self.ledger.close();
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            names_owners: true,
            ..Capabilities::of_plain_file_lock(self.manner().is_told())
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
