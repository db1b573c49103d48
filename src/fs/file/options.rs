//! The options of the plain file lock and their defaults.

use std::path::Path;
use std::time::Duration;

use super::FileLock;
use crate::error::Result;
use crate::fs::engine::wait::Wait;
use crate::options::setters;

/// The options of a [`FileLock`], with their defaults; [`FileLock::config`] reads them back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileConfig {
    /// Open for reading; on by default.
    pub read: bool,
    /// Open for writing; on by default.
    pub write: bool,
    /// Write at the end only; off by default.
    pub append: bool,
    /// Create the file if it is missing; on by default. Counts only with `write` or `append`.
    pub create: bool,
    /// Create the file, and fail if there is one; off by default.
    pub create_new: bool,
    /// Empty the file, *after* the lock is held; off by default.
    pub truncate: bool,
    /// Permission bits of a file that has to be created, exactly, whatever the umask; `None`, the default, leaves them to the
    /// umask.
    pub mode: Option<u32>,
    /// Time limit of an [`acquire`](FileLock::acquire) that sets none; `None`, the default, waits for ever.
    pub timeout: Option<Duration>,
    /// Do not wait: fail with [`ErrorKind::Busy`](crate::ErrorKind::Busy) when somebody has the lock; off by default.
    pub fail_when_locked: bool,
    /// Delete the file when the lock is released, still under the lock; off by default.
    pub remove_on_release: bool,
    /// Follow symbolic links at the path, once, when the lock is opened; off by default: a link is refused.
    pub follow_symlinks: bool,
    /// How to wait; default [`Wait::Watch`].
    pub wait: Wait,
    /// How often [`Wait::Watch`] looks again although it was told nothing. Finds those who unlock the file and keep it
    /// open, which announces nothing. Default 1 s; [`Duration::MAX`] switches it off.
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
    /// What cannot be meant.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let writes = self.write || self.append;
        let bad_mode = self.mode.is_some_and(|bits| bits & !0o777 != 0);
        match () {
            () if !self.read && !writes => Some("none of read, write and append is set"),
            () if self.truncate && !self.write => Some("truncate needs write"),
            () if self.truncate && self.append => Some("truncate and append contradict each other"),
            () if self.create_new && !writes => Some("create_new needs write or append"),
            () if bad_mode => Some("mode takes permission bits, at most 0o777"),
            () => None,
        }
    }
}

impl FileConfig {
    /// What a shared acquire cannot do.
    pub(super) fn refusal_to_share(&self) -> Option<&'static str> {
        match self {
            Self { truncate: true, .. } => {
                Some("truncate would take the content from other readers")
            }
            Self {
                remove_on_release: true,
                ..
            } => Some("remove_on_release would take the file from other readers"),
            _ => None,
        }
    }
}

/// Builds a [`FileLock`]; made by [`FileLock::options`].
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
        mode some u32;
        timeout limit;
        fail_when_locked plain bool;
        remove_on_release plain bool;
        follow_symlinks plain bool;
        wait plain Wait;
        poll_interval pause;
    }

    /// Opens the lock; see [`FileLock::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<FileLock> {
        FileLock::with_config(path.as_ref(), self.config)
    }
}
