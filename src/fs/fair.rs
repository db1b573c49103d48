//! What the fair locks have in common: how they are opened, waited for, and looked at. The algorithm is in
//! [`engine`](super::engine): the line of this process in `line`, the line on disk in `ticket` and `line/contender.rs`, the protocol in
//! `docs/protocol.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::engine::disk::Cleared;
use super::engine::line::{Line, Observer, Settings, stats_of_process};
use super::engine::owner::identity;
use super::engine::state::Kind;
use super::engine::ticket::Mode;
use super::engine::wait::Wait;
use crate::acquire::Acquire;
use crate::acquire::sealed::Granted;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::lock::{Capabilities, Changes, Removal};
use crate::stats::Stats;
use crate::trace;

pub(crate) mod hold;
pub(crate) mod options;
pub(crate) mod pending;

use hold::FairHold;
pub use options::{FifoConfig, FifoOptions};
use pending::FairPending;

/// A lock that is opened with [`FifoOptions`].
pub(crate) trait Fair: Sized {
    fn with_config(path: &Path, config: FifoConfig) -> Result<Self>;
}

/// A handle and all its clones, futures and guards.
pub(crate) struct Shared {
    pub(crate) line: Arc<Line>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) config: FifoConfig,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.config.remove_when_idle && !self.line.is_foreign() {
            // Nobody is left to hear of a failure; what stays is a lock file and an empty queue.
            if let Err(error) = self.line.remove(true) {
                trace::unheard(&self.line.place().door, &error);
            }
        }
        self.line.rest();
    }
}

impl Shared {
    pub(crate) fn open(path: &Path, kind: Kind, config: FifoConfig) -> Result<Arc<Self>> {
        check_options(path, &config)?;
        let path = full_path(path)?;
        Self::on(Line::of(&path, kind, None)?, config)
    }

    /// On a line that has been found; its options have been looked at.
    pub(crate) fn on(line: Arc<Line>, config: FifoConfig) -> Result<Arc<Self>> {
        line.check()?;
        let settings = Settings {
            words: identity().words(config.label.as_deref()).into(),
            label: config.label.as_deref().map(Arc::from),
            mode: config.mode,
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
        Ok(grant.map(|grant| G::granted(FairHold::new(self.clone(), grant), None)))
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes::new(Observer::new(self.line.clone()))
    }

    pub(crate) fn remove(&self) -> Result<Removal> {
        self.line.remove(false).map(|cleared| match cleared {
            Cleared::Removed => Removal::Removed,
            Cleared::InUse => Removal::InUse,
        })
    }

    pub(crate) fn close(&self) {
        self.line.close(&self.settings.closed);
    }

    /// For calls that may do their work without a wait.
    pub(crate) fn refuse_closed(&self) -> Result<()> {
        match self.settings.closed.load(Ordering::Acquire) {
            true => Err(self.line.closed()),
            false => Ok(()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.line.place().door
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let watches = self.config.wait == Wait::Watch;
        Capabilities::of_fair_file_lock(watches && self.line.has_events())
    }
}

impl Stats {
    /// What all locks of this process have done so far, those that are closed by now included. A forked child begins at zero.
    pub fn of_process() -> Self {
        stats_of_process()
    }
}

/// The methods that every fair lock has, for a type with a field `shared`.
macro_rules! fair_methods {
    () => {
        /// Returns whether any program holds the lock now; of a semaphore, whether no permit is free. Asks by trying: the lock is taken for a microsecond if it is free, and
        /// a try without waiting in that instant may find it held. [`status`](Self::status) tries it only where nothing else can tell.
        ///
        /// # Errors
        ///
        /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the lock file cannot be opened or locked.
        pub fn is_locked(&self) -> crate::error::Result<bool> {
            self.shared.line.is_locked()
        }

        /// Returns whether the lock is held, by whom, and who waits, in order. Opens no ticket.
        ///
        /// # Errors
        ///
        /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when another kind or version of lock lives here,
        /// [`ErrorKind::Io`](crate::ErrorKind::Io) when record or queue cannot be read.
        ///
        /// # Platform notes
        ///
        /// In the first pid namespace of a Linux host a look locks nothing. Elsewhere, where neither the record nor the kernel's list of locks names a
        /// living holder, it tries the lock as [`is_locked`](Self::is_locked) does.
        pub fn status(&self) -> crate::error::Result<crate::lock::Status> {
            self.shared.line.status()
        }

        /// The line as it moves: what [`status`](Self::status) shows, again after each change. Told by file events; where there are none it
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
        pub fn changes(&self) -> crate::lock::Changes {
            self.shared.changes()
        }

        /// What all handles of this process on this path have done so far.
        pub fn stats(&self) -> crate::stats::Stats {
            self.shared.line.stats()
        }

        /// Deletes lock file, or slot files, and queue if nobody is inside and nobody waits. The lock stays usable: the next acquire makes
        /// them anew. A file with content is somebody's data, and stays.
        ///
        /// With the record goes what it says of a holder that died inside: the next one is not told. (What
        /// [`remove_when_idle`](crate::FifoConfig::remove_when_idle) does keeps the record then.)
        ///
        /// # Errors
        ///
        /// [`ErrorKind::Io`](crate::ErrorKind::Io) when a file or the directory cannot be deleted, for instance because it is another
        /// user's; the record is written back then. [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when another kind or
        /// version of lock lives here.
        pub fn remove(&self) -> crate::error::Result<crate::lock::Removal> {
            self.shared.remove()
        }

        /// Ends every wait through this handle and its clones with [`ErrorKind::Closed`](crate::ErrorKind::Closed), for a graceful
        /// shutdown. Later attempts get the same, for ever; guards that are out stay valid, looking at the lock and removing it
        /// still work, and other handles, also on the same path, are not concerned.
        pub fn close(&self) {
            self.shared.close();
        }

        /// Where the lock is, with every directory on the way resolved; of a semaphore directory and name, where no file is.
        pub fn path(&self) -> &std::path::Path {
            self.shared.path()
        }

        /// The directory where the line stands: `<path>.queue`.
        pub fn queue_dir(&self) -> &std::path::Path {
            &self.shared.line.place().queue
        }
    };
}
pub(crate) use fair_methods;

/// Refuses options that make no sense.
pub(crate) fn check_options(path: &Path, config: &FifoConfig) -> Result<()> {
    if config.poll_interval.is_zero() || config.claim_window.is_zero() {
        let text = "poll_interval and claim_window must be longer than nothing";
        return Err(Error::at(ErrorKind::InvalidInput, text, path));
    }
    if config
        .mode
        .is_some_and(|bits| bits & !0o777 != 0 || bits & 0o600 != 0o600)
    {
        let text =
            "mode takes permission bits, at most 0o777, with which the owner may read and write";
        return Err(Error::at(ErrorKind::InvalidInput, text, path));
    }
    Ok(())
}

/// A bare name means the temporary directory.
pub(crate) fn full_path(path: &Path) -> Result<PathBuf> {
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
