//! The options of the fair locks and their defaults.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use super::{Fair, in_temporary_directory};
use crate::error::Result;
use crate::fs::engine::wait::Wait;
use crate::fs::fifo::FifoLock;
use crate::options::{CLAIM_WINDOW, setters};

/// The options of a [`FifoLock`] or [`FifoRwLock`](crate::FifoRwLock), with their defaults; [`FifoLock::config`] reads them back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FifoConfig {
    /// Time limit of an [`acquire`](FifoLock::acquire) that sets none; `None`, the default, waits for ever.
    pub timeout: Option<Duration>,
    /// What holders and waiters are called in [`FifoLock::status`]; none by default. Cut after about 96 bytes.
    pub label: Option<String>,
    /// Permission bits of a lock file that has to be created, exactly, whatever the umask; `None`, the default, leaves
    /// them to the umask. The owner must be able to read and write. The queue is always open to those who may use the lock file.
    pub mode: Option<u32>,
    /// How often a waiter looks again although it was told nothing: only a safety net. Default 10 s; [`Duration::MAX`]
    /// switches it off. The looks of the claim window come on top.
    pub poll_interval: Duration,
    /// How long a grant may stay unclaimed, and a free lock untouched, before the next in line passes a sleeper.
    /// Default 2 s; [`Duration::MAX`] switches passing off.
    pub claim_window: Duration,
    /// How the first in line waits for the lock file; default [`Wait::Watch`].
    pub wait: Wait,
    /// Whether a task that waits for a lock that it took itself, and has not given back, gets
    /// [`ErrorKind::Deadlock`](crate::ErrorKind::Deadlock); off by default, because it may have handed its guard to another task, or hold it in
    /// another branch of a `join!`. It is warned of in any case: [`Waiting::held_by_this_task`](crate::Waiting::held_by_this_task), and by
    /// an event of the feature `tracing`. All that goes by Tokio's tasks: what `block_on` runs is none, as the body of an async `main`
    /// under `#[tokio::main]`, and simply waits.
    pub deadlock_is_error: bool,
    /// Whether the last handle, guard and future of this handle removes lock file and queue when nobody uses them and no crash
    /// is still to be told; off by default. A lock file with content stays.
    pub remove_when_idle: bool,
}

impl Default for FifoConfig {
    fn default() -> Self {
        Self {
            timeout: None,
            label: None,
            mode: None,
            poll_interval: Duration::from_secs(10),
            claim_window: CLAIM_WINDOW,
            wait: Wait::Watch,
            deadlock_is_error: false,
            remove_when_idle: false,
        }
    }
}

/// Builds a fair lock; made by [`FifoLock::options`] and its like.
#[must_use = "options do nothing until a lock is opened with them"]
pub struct FifoOptions<L = FifoLock> {
    config: FifoConfig,
    lock: PhantomData<fn() -> L>,
}

impl<L> Default for FifoOptions<L> {
    fn default() -> Self {
        Self {
            config: FifoConfig::default(),
            lock: PhantomData,
        }
    }
}

impl<L> Clone for FifoOptions<L> {
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
            lock: PhantomData,
        }
    }
}

impl<L> fmt::Debug for FifoOptions<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("FifoOptions");
        text.field("config", &self.config).finish()
    }
}

#[allow(private_bounds)] // which locks these are is this crate's business
impl<L: Fair> FifoOptions<L> {
    setters! { FifoConfig:
        timeout limit;
        label text;
        mode some u32;
        poll_interval pause;
        claim_window pause;
        wait plain Wait;
        deadlock_is_error plain bool;
        remove_when_idle plain bool;
    }

    /// Opens the lock; see [`FifoLock::open`].
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<L> {
        L::with_config(path.as_ref(), self.config)
    }

    /// Opens the lock of this name in the system's temporary directory; see [`FifoLock::named`].
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::named`].
    pub fn named(self, name: impl AsRef<str>) -> Result<L> {
        L::with_config(&in_temporary_directory(name.as_ref())?, self.config)
    }
}
