//! The fair semaphore: n permits, first come, first served, among all tasks of all processes on a
//! host.
//!
//! This file is the public API. [`fair`](crate::fair) has what all fair locks share. The slot files
//! are in `slots.rs`, the wait for them is in `line/contender.rs`, and permits pass from task to
//! task in `line/permits.rs`.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::Resized;
use super::kind::FifoKind;
use super::line::Line;
use super::slots::{Names, Slots};
use super::ticket::Mode;
use super::{FifoConfig, Shared, check_options, fair_guard, fair_methods, in_temporary_directory};
use crate::acquire::Acquire;
use crate::any::{AnySemaphore, becomes_any};
use crate::error::{Error, ErrorKind, Result};
use crate::kind::LockKind;
use crate::lock::{is_lock, local_handle};
use crate::options::{check_permits, setters};
use crate::path::canonical;
use crate::sys::file::lend_files;

/// More files than any process can have open.
const MOST: u32 = 65_535;

/// How many times a state record that is locked for an instant is tried.
const TRIES: usize = 10_000;

/// A fair semaphore: at most n permits are held at a time, across tasks and processes.
///
/// The order is strictly that of arrival: small requests do not overtake a request for many permits
/// at the head of the queue. The permits of a process that dies are free at once.
///
/// Each permit is a *slot file* in a directory, with the operating system's lock on it. The name of
/// a slot file follows a pattern with its number. By default, names and locks are those of
/// portalocker's `BoundedSemaphore`, so permits of both count together. Callers that use
/// portalocker have no place in the queue.
///
/// The number of permits is recorded. A handle with another number is refused.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// use stanchion::FifoSemaphore;
///
/// let workers = FifoSemaphore::options().limit(4).open(directory.path(), "workers")?;
/// let one = workers.acquire().await?;
/// let three = workers.acquire_many(3).await?;
/// assert!(workers.try_acquire()?.is_none());
/// drop(one);
/// three.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct FifoSemaphore {
    shared: Arc<Shared>,
    config: Arc<SemaphoreConfig>,
}

fair_guard! {
    /// Holds one or more permits as long as this value lives.
    FifoPermit,
    token: "Returns a number that no other grant of this semaphore has. Of two grants that do not overlap in time, the later one has the greater number. There are two exceptions: the record was deleted and the wall clock was set back; or the process of the earlier grant held all permits while another process changed their number."
}

crate::guard::is_permit!(FifoPermit);

impl FifoPermit {
    /// Returns the paths of the slot files of these permits.
    pub fn slot_paths(&self) -> Vec<PathBuf> {
        self.held.hold.slot_paths()
    }

    fn files(&self) -> impl Iterator<Item = &File> {
        self.held.hold.slot_files()
    }
}

lend_files!(FifoPermit);

/// The options of a [`FifoSemaphore`], with their defaults. [`FifoSemaphore::config`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemaphoreConfig {
    /// The number of permits, 1 to 65,535. Default `None`: the recorded number.
    pub limit: Option<u32>,
    /// How slot files are named: a pattern with `{name}` and `{number}`. A width can be given, as
    /// in `{number:02}`. Numbers start at 0. Default `{name}.{number:02}.lock`.
    pub pattern: String,
    /// Time limit of an acquire that sets none. Default `None`: waits forever.
    pub timeout: Option<Duration>,
    /// The label of holders and waiters in [`FifoSemaphore::status`]. No label by default.
    pub label: Option<String>,
    /// Permission bits of slot files that have to be created, as [`FifoConfig::mode`].
    ///
    /// A slot file is created when it is first tried. So every user of the semaphore must be able
    /// to create files in the directory, unless one caller has already held all permits at the same
    /// time.
    pub mode: Option<u32>,
    /// See [`FifoConfig::poll_interval`]. Default 10 s.
    pub poll_interval: Duration,
    /// See [`FifoConfig::claim_window`]. Default 2 s.
    pub claim_window: Duration,
    /// Whether the last handle, guard and future of this handle removes the slot files and the
    /// queue; see [`FifoConfig::remove_when_idle`]. This opens and locks each slot file. Afterwards
    /// the semaphore may be opened with another number of permits. Off by default.
    pub remove_when_idle: bool,
}

impl Default for SemaphoreConfig {
    fn default() -> Self {
        Self::of_fair(FifoConfig::default())
    }
}

impl SemaphoreConfig {
    /// Returns the defaults, with what is common to all fair locks as it is there.
    fn of_fair(fair: FifoConfig) -> Self {
        Self {
            limit: None,
            pattern: "{name}.{number:02}.lock".to_owned(),
            timeout: fair.timeout,
            label: fair.label,
            mode: fair.mode,
            poll_interval: fair.poll_interval,
            claim_window: fair.claim_window,
            remove_when_idle: fair.remove_when_idle,
        }
    }
}

/// Builds a [`FifoSemaphore`]; created by [`FifoSemaphore::options`].
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a semaphore is opened with them"]
pub struct SemaphoreOptions {
    config: SemaphoreConfig,
}

impl SemaphoreOptions {
    pub(crate) fn of_fair(fair: FifoConfig) -> Self {
        let config = SemaphoreConfig::of_fair(fair);
        Self { config }
    }

    setters! { SemaphoreConfig:
        limit some u32;
        pattern word;
        timeout limit;
        label text;
        mode bits;
        poll_interval pause;
        claim_window pause;
        remove_when_idle plain bool;
    }

    /// Opens the semaphore; see [`FifoSemaphore::open`].
    ///
    /// # Errors
    ///
    /// Those of [`FifoSemaphore::open`]. Also [`ErrorKind::InvalidInput`] when the pattern does not
    /// have exactly one `{number}`, or when no limit is given and none is recorded.
    pub fn open(self, directory: impl AsRef<Path>, name: impl AsRef<str>) -> Result<FifoSemaphore> {
        FifoSemaphore::with_config(directory.as_ref(), name.as_ref(), self.config)
    }
}

impl FifoSemaphore {
    /// The name that portalocker uses for a semaphore without a name.
    pub const DEFAULT_NAME: &str = "bounded_semaphore";

    /// Returns the directory that portalocker uses for a semaphore without a directory: the
    /// system's temporary directory, `$TMPDIR` or `/tmp`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when that is a relative path, because it would be another
    /// directory in each working directory.
    pub fn default_directory() -> Result<PathBuf> {
        let path = in_temporary_directory(Self::DEFAULT_NAME)?;
        Ok(path.parent().unwrap_or(Path::new("/")).to_path_buf())
    }

    /// Opens a semaphore with `limit` permits in a directory.
    ///
    /// An empty `directory` means the working directory, as in portalocker. When portalocker gets
    /// no directory, it uses [`default_directory`](FifoSemaphore::default_directory).
    ///
    /// Nothing is created before the first acquire.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Incompatible`] when another number of permits is recorded, or another kind or
    ///   version of lock is in use here.
    /// - [`ErrorKind::InvalidInput`] when the name is not a file name, or when the limit is 0 or
    ///   above 65,535.
    /// - [`ErrorKind::Io`] when the directory does not exist or cannot be read.
    pub fn open(directory: impl AsRef<Path>, name: impl AsRef<str>, limit: u32) -> Result<Self> {
        Self::options().limit(limit).open(directory, name)
    }

    /// Returns the default options.
    pub fn options() -> SemaphoreOptions {
        SemaphoreOptions::default()
    }

    fn with_config(directory: &Path, name: &str, config: SemaphoreConfig) -> Result<Self> {
        let path = directory.join(name);
        let wrong = |text: &str| Error::at(ErrorKind::InvalidInput, text, &path);
        if name.is_empty() || Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(wrong("the name of a semaphore must be a plain file name"));
        }
        let fair = FifoConfig {
            timeout: config.timeout,
            label: config.label.clone(),
            mode: config.mode,
            poll_interval: config.poll_interval,
            claim_window: config.claim_window,
            remove_when_idle: config.remove_when_idle,
            ..FifoConfig::default()
        };
        check_options(&path, &fair)?;
        let Some(names) = Names::parse(&config.pattern, name) else {
            let text =
                "a pattern needs one {number}, no other braces but {name}, and no path separator";
            return Err(wrong(&format!("{text}, unlike {:?}", config.pattern)));
        };
        let path = canonical(&path)?;
        let limit = match config.limit {
            Some(limit) => limit,
            None => match FifoKind::at(&path)? {
                Some(FifoKind::Semaphore { limit }) => limit,
                _ => return Err(wrong("no limit is given, and none is recorded")),
            },
        };
        check_permits(limit, MOST, &path)?;
        let directory = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let slots = Slots::new(directory, names, limit);
        let line = Line::of(&path, LockKind::Semaphore, Some(slots))?;
        let shared = Shared::on(line, fair)?;
        shared.line.check_limit(limit)?;
        let config = Arc::new(config);
        Ok(Self { shared, config })
    }

    /// Waits in the queue for one permit.
    ///
    /// # Cancel safety
    ///
    /// As for [`FifoLock::acquire`](crate::FifoLock::acquire): dropping the future at any point
    /// leaves the queue and releases the permits that it already has.
    ///
    /// # Fairness
    ///
    /// First come, first served, whatever number of permits each caller requests.
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::acquire`](crate::FifoLock::acquire). Also [`ErrorKind::Incompatible`]
    /// when no number was recorded when this handle was opened, and another process has recorded a
    /// different one since.
    ///
    /// New callers do not notice deleted slot files. [`FifoPermit::lost`] reports the loss to the
    /// holder of such a permit.
    pub fn acquire(&self) -> Acquire<FifoPermit> {
        self.acquire_many(1)
    }

    /// Waits in the queue for this many permits at once. At the head of the queue it keeps each
    /// permit that it gets.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](FifoSemaphore::acquire). Also [`ErrorKind::InvalidInput`] for 0
    /// permits, and for more than there are.
    pub fn acquire_many(&self, permits: u32) -> Acquire<FifoPermit> {
        self.shared.acquire(Mode::Permits(permits))
    }

    /// Acquires a permit if one is free and no waiter is queued. Otherwise returns `None`.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](FifoSemaphore::acquire), except time limits.
    pub fn try_acquire(&self) -> Result<Option<FifoPermit>> {
        self.try_acquire_many(1)
    }

    /// Acquires this many permits if they are free and no waiter is queued. Otherwise returns
    /// `None`.
    ///
    /// # Errors
    ///
    /// Those of [`acquire_many`](FifoSemaphore::acquire_many), except time limits.
    pub fn try_acquire_many(&self, permits: u32) -> Result<Option<FifoPermit>> {
        self.shared.try_acquire(Mode::Permits(permits))
    }

    /// Returns the number of permits, as far as this process knows.
    pub fn limit(&self) -> u32 {
        self.shared.line.limit()
    }

    /// Returns how many permits are free at this moment; see
    /// [`Semaphore::available`](crate::Semaphore::available). Permits of programs that use
    /// portalocker count as held.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`] when a file cannot be looked at.
    /// - [`ErrorKind::Incompatible`] as for [`acquire`](FifoSemaphore::acquire).
    ///
    /// # Platform notes
    ///
    /// Where the kernel's list of locks is incomplete, the call locks each slot file that this
    /// process does not hold, for a microsecond.
    pub fn available(&self) -> Result<u32> {
        self.shared.line.available()
    }

    /// Changes the number of permits for all processes.
    ///
    /// Open handles follow the change. New handles must name the new number. Added permits can be
    /// acquired at once. To remove permits, the call waits in the queue until all permits are
    /// released. So the holders never have more permits than the limit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits, nothing has changed.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`] for 0 permits and for more than 65,535.
    /// - Those of [`acquire`](FifoSemaphore::acquire).
    ///
    /// The change can make other calls fail:
    ///
    /// - A waiter that requests more permits than are left gets [`ErrorKind::InvalidInput`] when
    ///   its turn comes.
    /// - A handle that was opened before the first acquire of the semaphore, and was not used
    ///   since, is refused with [`ErrorKind::Incompatible`].
    pub async fn resize(&self, permits: u32) -> Result<()> {
        check_permits(permits, MOST, self.path())?;
        loop {
            self.shared.refuse_closed()?;
            let limit = self.shared.line.current_limit()?;
            let all = match permits < limit {
                true => self.acquire_many(limit).timeout(None).await.map(Some),
                false => Ok(None),
            };
            let all = match all {
                Ok(all) => all,
                // Another process has changed it while this call waited.
                Err(_) if self.limit() < limit => continue,
                Err(error) => return Err(error),
            };
            let held = all.as_ref().map_or(0, |_| limit);
            let resized = self.record_limit(permits, held)?;
            if let Some(all) = all {
                all.release().await?;
            }
            if resized == Resized::Done {
                return Ok(());
            }
        }
    }

    fn record_limit(&self, permits: u32, held: u32) -> Result<Resized> {
        for _ in 0..TRIES {
            match self.shared.line.resize(permits, held)? {
                // Another process reads or writes the state record in this instant.
                Resized::Later => std::thread::yield_now(),
                resized => return Ok(resized),
            }
        }
        let text = "the record of the semaphore stays locked";
        Err(Error::at(ErrorKind::Busy, text, self.path()))
    }

    /// Returns the paths of the slot files of all permits, in order of their numbers. Slot files
    /// that were never used need not exist.
    pub fn slot_paths(&self) -> Vec<PathBuf> {
        let line = &self.shared.line;
        (0..self.limit()).map(|it| line.slot_path(it)).collect()
    }

    /// Returns the options of this handle.
    pub fn config(&self) -> &SemaphoreConfig {
        &self.config
    }

    fair_methods!();
}

becomes_any!(FifoSemaphore => AnySemaphore);
local_handle!(FifoSemaphore: shared);
is_lock!(FifoSemaphore: Semaphore<FifoPermit>);

impl fmt::Debug for FifoSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FifoSemaphore")
            .field("path", &self.path())
            .field("config", &self.config)
            .finish()
    }
}
