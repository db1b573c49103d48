//! The options of the fair locks and their defaults.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use super::fifo::FifoLock;
use super::{Fair, in_temporary_directory};
use crate::error::Result;
use crate::options::{CLAIM_WINDOW, setters};
use crate::watch::wait::Wait;

/// The options of a [`FifoLock`] or [`FifoRwLock`](crate::FifoRwLock), with their defaults.
/// [`FifoLock::config`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FifoConfig {
    /// Time limit of an [`acquire`](FifoLock::acquire) that sets none. Default `None`: waits
    /// forever.
    pub timeout: Option<Duration>,
    /// The label of holders and waiters in [`FifoLock::status`]. No label by default. Cut after
    /// about 96 bytes.
    pub label: Option<String>,
    /// Permission bits of a lock file that has to be created, exactly, whatever the umask. The
    /// owner must be able to read and write. Default `None`: as the umask leaves them.
    ///
    /// Every user with access to the lock file can also use the queue.
    pub mode: Option<u32>,
    /// How often a waiter checks the lock without an event. Only a safety net, in addition to the
    /// checks of the claim window. Default 10 s. [`Duration::MAX`] disables these checks.
    pub poll_interval: Duration,
    /// How long a waiter may leave a grant unclaimed, or a free lock untouched, before the next
    /// waiter bypasses it as frozen. Default 2 s. [`Duration::MAX`] disables the bypass.
    pub claim_window: Duration,
    /// How the waiter at the head of the queue waits for the lock file. Default [`Wait::Watch`].
    pub wait: Wait,
    /// Whether a task gets [`ErrorKind::Deadlock`](crate::ErrorKind::Deadlock) when it waits for a
    /// lock that it acquired itself and has not released. Off by default, because the task may have
    /// moved its guard to another task, or may hold it in another branch of a `join!`.
    ///
    /// In any case [`Waiting::held_by_this_task`](crate::Waiting::held_by_this_task) and an event
    /// of the feature `tracing` report the wait.
    ///
    /// The check needs a Tokio task. Code that `block_on` runs, such as the body of an async `main`
    /// under `#[tokio::main]`, is not a task. It waits without the check.
    pub deadlock_is_error: bool,
    /// Whether the last handle, guard and future of this handle removes the lock file and the
    /// queue. Nothing is removed while they are in use, or while a crash is still to be reported. A
    /// lock file with content stays. Off by default.
    ///
    /// Do not use this option if a program locks the file without the queue, for example by
    /// `flock(1)`. A program that opened the file before its removal locks the deleted file, beside
    /// the holder of the new file.
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

/// Builds a fair lock; created by [`FifoLock::options`] and the like.
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
        mode bits;
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

    /// Opens the lock with this name in the system's temporary directory; see [`FifoLock::named`].
    ///
    /// # Errors
    ///
    /// Those of [`FifoLock::named`].
    pub fn named(self, name: impl AsRef<str>) -> Result<L> {
        L::with_config(&in_temporary_directory(name.as_ref())?, self.config)
    }
}
