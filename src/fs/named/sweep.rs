//! Removes the locks of a directory that no process uses.
//!
//! Other programs keep lock files in such directories, too, and to unlink a file that they wait on
//! would give their lock two holders. So only a lock with a record of this crate is touched:
//!
//! | in the directory | is |
//! |---|---|
//! | `LOCK.queue` with a state record | the fair lock `LOCK` of the recorded kind |
//! | `LOCK.claim` with a token | a lock by [`Method::Mkdir`] or [`Method::CreateNew`] |
//!
//! Each lock is removed by its own `remove`, which holds the lock while it deletes the files.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lock::by_claim;
use super::{LockDir, LockDirConfig, LockName, Method};
use crate::error::{Error, Result};
use crate::fs::engine::door::remove_file;
use crate::fs::fifo::FifoLock;
use crate::fs::kind::FifoKind;
use crate::fs::rwlock::FifoRwLock;
use crate::fs::semaphore::FifoSemaphore;
use crate::lock::Local;
use crate::status::Removal;

/// What [`LockDir::sweep`] did. A fair semaphore is named by the path of its directory and its
/// name, every other lock by the path of its lock file.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Sweep {
    /// The locks that are removed.
    pub removed: Vec<PathBuf>,
    /// The locks that are unchanged because `remove` returned [`Removal::InUse`].
    pub in_use: Vec<PathBuf>,
    /// The locks that are unchanged because they were used recently.
    pub recent: Vec<PathBuf>,
    /// What went wrong with other locks. These may be unchanged or removed in part.
    pub failed: Vec<Error>,
}

impl LockDir {
    /// Removes the locks in this directory that no process holds or waits for. With `older_than`,
    /// only those that were not used for that time.
    ///
    /// The locks may have any name, kind and method, whatever the options of this handle. Three
    /// kinds of lock are not found, because other programs may use the same files: plain file locks
    /// ([`Method::Os`]), pid files, and semaphores whose slot files have names of another pattern
    /// than the default one.
    ///
    /// The time of the last use is the time at which the files of the lock changed last, by the
    /// wall clock. It is that of the last grant or release, at least. The grant of a reader that
    /// did not wait changes no file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the directory cannot be listed. Errors of
    /// single locks are in [`Sweep::failed`].
    pub fn sweep(&self, older_than: impl Into<Option<Duration>>) -> Result<Sweep> {
        let at = |error| Error::io("list the directory", self.path(), error);
        let entries = std::fs::read_dir(self.path()).map_err(at)?;
        let entries = entries.map(|it| it.map(|it| it.path()));
        let mut entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(at)?;
        entries.sort();
        let older_than = older_than.into();
        let mut sweep = Sweep::default();
        for entry in entries {
            let lock = entry.with_extension("");
            let done = found(&entry, &lock).and_then(|found| match found {
                None => Ok(None),
                Some(_) if is_recent(&entry, &lock, older_than) => Ok(Some(&mut sweep.recent)),
                Some(found) => match found.remove()? {
                    Removal::InUse => Ok(Some(&mut sweep.in_use)),
                    Removal::Removed => self.forget_name(&lock).map(|()| Some(&mut sweep.removed)),
                },
            });
            match done {
                Ok(None) => {}
                Ok(Some(list)) => list.push(lock),
                Err(error) => sweep.failed.push(error),
            }
        }
        Ok(sweep)
    }

    /// Removes the record of a long name, as `remove` of a named lock does.
    fn forget_name(&self, lock: &Path) -> Result<()> {
        let file = lock.file_name().and_then(|it| it.to_str());
        let stem = file.map(|it| it.strip_suffix(".lock").unwrap_or(it));
        match stem.filter(|it| LockName::is_shortened(it)) {
            Some(stem) if self.name_of(stem)?.is_some() => {
                let record = self.path().join(format!("{stem}.name"));
                remove_file(&record, "remove the name of the lock in")
            }
            _ => Ok(()),
        }
    }
}

/// Returns the lock whose queue or claim this entry is.
fn found(entry: &Path, lock: &Path) -> Result<Option<Box<dyn Local>>> {
    let extension = entry.extension().and_then(|it| it.to_str());
    let is_directory = entry.symlink_metadata().is_ok_and(|it| it.is_dir());
    match extension.filter(|_| is_directory) {
        Some("queue") => fair(lock),
        Some("claim") => claim(lock),
        _ => Ok(None),
    }
}

fn fair(lock: &Path) -> Result<Option<Box<dyn Local>>> {
    Ok(match FifoKind::at(lock)? {
        None => None,
        Some(FifoKind::Lock) => Some(Box::new(FifoLock::open(lock)?)),
        Some(FifoKind::RwLock) => Some(Box::new(FifoRwLock::open(lock)?)),
        Some(FifoKind::Semaphore { limit }) => semaphore(lock, limit)?,
    })
}

/// With another pattern, the slot files of the holders have other names, and this handle would not
/// see that they are locked.
fn semaphore(lock: &Path, limit: u32) -> Result<Option<Box<dyn Local>>> {
    let name = lock.file_name().and_then(|it| it.to_str());
    let (Some(directory), Some(name)) = (lock.parent(), name) else {
        return Ok(None);
    };
    let semaphore = FifoSemaphore::open(directory, name, limit)?;
    let known = semaphore.slot_paths().iter().any(|it| it.exists());
    Ok(known.then(|| Box::new(semaphore) as _))
}

fn claim(lock: &Path) -> Result<Option<Box<dyn Local>>> {
    let config = LockDirConfig {
        method: Method::Mkdir,
        ..LockDirConfig::default()
    };
    let claim = by_claim(lock, &config)?;
    let is_ours = Local::status(&claim)?.last_token > 0;
    Ok(is_ours.then(|| Box::new(claim) as _))
}

/// Returns whether a file of the lock changed within this time. A time in the future is recent.
fn is_recent(entry: &Path, lock: &Path, limit: Option<Duration>) -> bool {
    let Some(limit) = limit else { return false };
    let old = |path: &Path| {
        let changed = path.symlink_metadata().and_then(|it| it.modified()).ok()?;
        let age = SystemTime::now().duration_since(changed);
        Some(age.is_ok_and(|age| age >= limit))
    };
    let files = [entry, lock, &entry.join("state"), &entry.join("baton")];
    files.into_iter().any(|it| old(it) == Some(false))
}
