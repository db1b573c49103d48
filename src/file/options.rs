//! The options of the plain file lock and their defaults.

use std::path::Path;
use std::time::Duration;

use super::FileLock;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{check_mode, setters};
use crate::watch::wait::Wait;

/// The options of a [`FileLock`], with their defaults. [`FileLock::config`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileConfig {
    /// Whether the file is opened for reading. On by default.
    pub read: bool,
    /// Whether the file is opened for writing. On by default.
    pub write: bool,
    /// Whether every write goes to the end of the file. Off by default.
    pub append: bool,
    /// Whether the file is created if it is missing. Has an effect only with `write` or `append`.
    /// On by default.
    pub create: bool,
    /// Whether the acquire must create the file, and fails if the file exists. Off by default.
    pub create_new: bool,
    /// Whether the file is truncated, *after* the lock is held. Off by default.
    pub truncate: bool,
    /// Permission bits of a file that has to be created, exactly, whatever the umask. The owner
    /// must be able to read and write. Default `None`: as the umask leaves them.
    pub mode: Option<u32>,
    /// Time limit of an [`acquire`](FileLock::acquire) that sets none. Default `None`: waits
    /// forever.
    pub timeout: Option<Duration>,
    /// Whether an acquire fails with [`ErrorKind::Busy`](crate::ErrorKind::Busy) instead of waiting
    /// when another holder has the lock. The same as
    /// [`max_waiting(0)`](crate::Acquire::max_waiting) on each acquire. The name is portalocker's.
    /// Off by default.
    pub fail_when_locked: bool,
    /// Whether a release deletes the file, still under the lock. Off by default.
    pub remove_on_release: bool,
    /// Whether symbolic links at the path are followed, once, when the lock is opened. Off by
    /// default: a link is refused.
    pub follow_symlinks: bool,
    /// How to wait. Default [`Wait::Watch`].
    pub wait: Wait,
    /// How often [`Wait::Watch`] looks again without an event. This finds processes that unlock the
    /// file and keep it open, which causes no event. Default 1 s. [`Duration::MAX`] switches it
    /// off.
    pub poll_interval: Duration,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            read: true,
            write: true,
            append: false,
            create: true,
            create_new: false,
            truncate: false,
            mode: None,
            timeout: None,
            fail_when_locked: false,
            remove_on_release: false,
            follow_symlinks: false,
            wait: Wait::Watch,
            poll_interval: Duration::from_secs(1),
        }
    }
}

impl FileConfig {
    /// Returns why the options contradict each other, if they do.
    fn contradiction(&self) -> Option<&'static str> {
        let writes = self.write || self.append;
        match () {
            () if !self.read && !writes => Some("none of read, write and append is set"),
            () if self.truncate && !self.write => Some("truncate needs write"),
            () if self.truncate && self.append => Some("truncate and append contradict each other"),
            () if self.create_new && !writes => Some("create_new needs write or append"),
            () => None,
        }
    }
}

impl FileConfig {
    /// Returns why the options do not allow a shared acquire, if they do not.
    pub(super) fn refusal_to_share(&self) -> Option<&'static str> {
        match self {
            Self { truncate: true, .. } => {
                Some("truncate would take the content from other readers")
            }
            Self {
                remove_on_release: true,
                ..
            } => Some(REMOVES),
            _ => None,
        }
    }
}

/// Why a file that is removed at the release is not shared.
pub(super) const REMOVES: &str = "remove_on_release would take the file from other readers";

/// Builds a [`FileLock`]; created by [`FileLock::options`].
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a lock is opened with them"]
pub struct FileOptions {
    config: FileConfig,
}

impl FileOptions {
    setters! { FileConfig:
        read plain bool;
        write plain bool;
        append plain bool;
        create plain bool;
        create_new plain bool;
        truncate plain bool;
        mode bits;
        timeout limit;
        fail_when_locked plain bool;
        remove_on_release plain bool;
        follow_symlinks plain bool;
        wait plain Wait;
        poll_interval pause;
    }

    /// Opens the lock; see [`FileLock::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<FileLock> {
        let path = path.as_ref();
        check_mode(self.config.mode, path)?;
        match self.config.contradiction() {
            Some(text) => Err(Error::at(ErrorKind::InvalidInput, text, path)),
            None => FileLock::with_config(path, self.config),
        }
    }
}
