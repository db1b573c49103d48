//! The options of the pid file lock and their defaults.

use std::path::Path;
use std::time::Duration;

use super::PidLock;
use crate::error::Result;
use crate::options::setters;
use crate::watch::wait::Wait;

/// The options of a [`PidLock`], with their defaults. [`PidLock::config`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PidConfig {
    /// Time limit of an [`acquire`](PidLock::acquire) that sets none. Default `None`: waits
    /// forever.
    pub timeout: Option<Duration>,
    /// How to wait. Default [`Wait::Watch`]. [`Wait::Blocking`] is refused.
    pub wait: Wait,
    /// How often [`Wait::Watch`] looks again without an event. Default 1 s. [`Duration::MAX`]
    /// switches it off.
    pub poll_interval: Duration,
    /// A label for the holder, which other processes see in [`Owner::label`](crate::Owner::label).
    /// No label by default.
    pub label: Option<String>,
    /// Whether a file that contains only a pid is stale when this host has no such process. Off by
    /// default.
    ///
    /// Use it for files of `openlock`, `portalocker` and daemons, where no other host and no other
    /// pid namespace uses the file. A reused pid is then taken for the holder.
    pub bare_pids: bool,
}

impl Default for PidConfig {
    fn default() -> Self {
        Self {
            timeout: None,
            wait: Wait::Watch,
            poll_interval: Duration::from_secs(1),
            label: None,
            bare_pids: false,
        }
    }
}

/// Builds a [`PidLock`]; created by [`PidLock::options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a lock is opened with them"]
pub struct PidOptions {
    config: PidConfig,
}

impl PidOptions {
    pub(super) fn from_config(config: PidConfig) -> Self {
        Self { config }
    }

    pub(super) fn into_config(self) -> PidConfig {
        self.config
    }

    setters! { PidConfig:
        timeout limit;
        wait plain Wait;
        poll_interval pause;
        label text;
        bare_pids plain bool;
    }

    /// Opens the lock; see [`PidLock::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<PidLock> {
        PidLock::with_config(path.as_ref(), self.config)
    }
}
