//! What the fair locks have in common: opening, waiting and status.
//!
//! [`line`](mod@line) is one lock in this process: its waiters in memory, and their wait on disk.
//! [`disk`] is the same lock on disk: the lock file ([`door`], [`slots`]), the state record
//! ([`record`]) and the queue ([`queue_dir`], [`ticket`]). The protocol is in `docs/protocol.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::disk::Cleared;
use self::line::{Line, Observer, Settings};
use self::record::Kind;
use self::ticket::Mode;
use crate::acquire::Acquire;
use crate::acquire::sealed::Granted;
use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Guard, Waited};
use crate::lock::{Capabilities, Local};
use crate::metrics::Meter;
use crate::options::{check_mode, check_pause};
use crate::owner::identity;
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status};
use crate::trace;
use crate::watch::wait::Wait;

pub(crate) mod disk;
pub(crate) mod door;
pub(crate) mod fifo;
pub(crate) mod guard;
pub(crate) mod kind;
pub(crate) mod line;
pub(crate) mod options;
pub(crate) mod pending;
pub(crate) mod queue_dir;
pub(crate) mod record;
pub(crate) mod rwlock;
pub(crate) mod semaphore;
pub(crate) mod slots;
mod spare;
pub(crate) mod ticket;

use guard::FairHold;
pub use options::{FifoConfig, FifoOptions};
use pending::FairPending;

/// A lock that is opened with [`FifoOptions`].
pub(crate) trait Fair: Sized {
    fn with_config(path: &Path, config: FifoConfig) -> Result<Self>;
}

/// A handle with all its clones, futures and guards.
pub(crate) struct Shared {
    pub(crate) line: Arc<Line>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) config: FifoConfig,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.config.remove_when_idle && !self.line.is_foreign() {
            // No caller is left to receive the error. What stays is a lock file and an empty queue.
            if let Err(error) = self.line.remove(true) {
                trace::unheard(&self.line.place().door, &error);
            }
        }
        self.line.rest();
    }
}

impl Shared {
    /// Removes the lock if it is not in use. With `keep_crash`, a crash that no holder has learned
    /// of counts as use.
    pub(crate) fn clear(&self, keep_crash: bool) -> Result<Removal> {
        self.line.remove(keep_crash).map(|cleared| match cleared {
            Cleared::Removed => Removal::Removed,
            Cleared::InUse => Removal::InUse,
        })
    }

    pub(crate) fn open(path: &Path, kind: Kind, config: FifoConfig) -> Result<Arc<Self>> {
        check_options(path, &config)?;
        Self::on(Line::of(path, kind, None)?, config)
    }

    /// Creates a handle on a queue that is already open. The options are already checked.
    pub(crate) fn on(line: Arc<Line>, config: FifoConfig) -> Result<Arc<Self>> {
        line.check()?;
        let settings = Settings {
            words: identity().words(config.label.as_deref()).into(),
            label: config.label.as_deref().map(Arc::from),
            bits: config.mode,
            poll_interval: config.poll_interval,
            claim_window: config.claim_window,
            wait: config.wait.clone(),
            deadlock_is_error: config.deadlock_is_error,
            closed: Arc::new(AtomicBool::new(false)),
        };
        Ok(Arc::new(Self {
            line,
            settings: Arc::new(settings),
            config,
        }))
    }

    pub(crate) fn acquire<G>(self: &Arc<Self>, want: Mode) -> Acquire<G>
    where
        G: Guard + Granted<Pending = FairPending>,
    {
        Acquire::new(FairPending::new(self.clone(), want), self.config.timeout)
    }

    pub(crate) fn try_acquire<G>(self: &Arc<Self>, want: Mode) -> Result<Option<G>>
    where
        G: Guard + Granted<Pending = FairPending>,
    {
        let grant = self.line.try_enter(&self.settings, want)?;
        let waited = Waited {
            meter: self.meter(),
            address: Some(&|| Some(Address::of_file(self.path()))),
            ..Waited::default()
        };
        Ok(grant.map(|grant| {
            waited.meter.granted(None);
            G::granted(FairHold::new(self.clone(), grant), waited)
        }))
    }

    /// Returns where this lock counts in the metrics.
    fn meter(&self) -> Meter {
        let counts = self.line.counts();
        counts.meter(|| Some(Address::of_file(self.path())))
    }

    /// Fails when the handle is closed. For calls that may finish without a wait.
    pub(crate) fn refuse_closed(&self) -> Result<()> {
        match self.settings.closed.load(Ordering::Acquire) {
            true => Err(self.line.closed()),
            false => Ok(()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.line.place().door
    }
}

impl Local for Shared {
    fn status(&self) -> Result<Status> {
        self.line.status()
    }

    /// Keeps a file with content, because the content is a user's data.
    ///
    /// Removes the state record too, even when it reports a holder that died. `remove_when_idle`
    /// keeps the record in that case.
    fn remove(&self) -> Result<Removal> {
        self.clear(false)
    }

    fn changes(&self) -> Changes {
        Changes::new(Observer::new(self.line.clone()))
    }

    fn stats(&self) -> Stats {
        self.line.stats()
    }

    fn close(&self) {
        self.line.close(&self.settings.closed);
    }

    fn capabilities(&self) -> Capabilities {
        let watches = self.config.wait == Wait::Watch;
        Capabilities::of_fair_file_lock(watches && self.line.has_events())
    }
}

/// Defines the methods that every fair lock has, for a type with a field `shared`.
macro_rules! fair_methods {
    () => {
        /// Removes the lock, unless it is in use or its next holder is to learn of a crash.
        pub(crate) fn remove_unless_crashed(
            &self,
        ) -> $crate::error::Result<$crate::status::Removal> {
            self.shared.clear(true)
        }

        /// Returns whether any program holds the lock now. For a semaphore: whether no permit is
        /// free.
        ///
        /// Tries the lock to find out. A free lock is taken for a microsecond, so another caller
        /// that tries without waiting may find it held in that instant. [`status`](Self::status)
        /// tries the lock only where nothing else can tell.
        ///
        /// # Errors
        ///
        /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the lock file cannot be opened or locked.
        pub fn is_locked(&self) -> crate::error::Result<bool> {
            self.shared.line.is_locked()
        }

        /// Returns the path of the lock, with every directory in it resolved. For a semaphore: its
        /// directory and its name, where no file exists.
        pub fn path(&self) -> &std::path::Path {
            self.shared.path()
        }

        /// Returns the directory of the queue: `<path>.queue`.
        pub fn queue_dir(&self) -> &std::path::Path {
            &self.shared.line.place().queue
        }
    };
}
pub(crate) use fair_methods;

/// Refuses invalid options.
pub(crate) fn check_options(path: &Path, config: &FifoConfig) -> Result<()> {
    check_pause("poll_interval", config.poll_interval, path)?;
    check_pause("claim_window", config.claim_window, path)?;
    check_mode(config.mode, path)
}

/// Returns the path of a bare name: in the system's temporary directory.
pub(crate) fn in_temporary_directory(name: &str) -> Result<PathBuf> {
    if name.is_empty() || Path::new(name).file_name() != Some(name.as_ref()) {
        let text = "a name must be a plain file name; open a path with `open`";
        return Err(Error::at(ErrorKind::InvalidInput, text, name));
    }
    let directory = std::env::temp_dir();
    if directory.as_os_str().is_empty() {
        // An empty TMPDIR counts as unset. Only Unix has this variable.
        return Ok(Path::new("/tmp").join(name));
    }
    if directory.is_relative() {
        // A relative path means another lock in each working directory.
        let text =
            format!("the temporary directory must be an absolute path, TMPDIR is {directory:?}");
        return Err(Error::at(ErrorKind::InvalidInput, text, name));
    }
    Ok(directory.join(name))
}
