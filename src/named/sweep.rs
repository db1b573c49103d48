//! Removes the locks of a directory that no process uses.
//!
//! Other programs may keep lock files in the same directory. If the sweep deleted a file on which
//! they wait, their lock could get two holders. So the sweep touches only locks that have a record
//! of this crate:
//!
//! | entry in the directory | lock |
//! |---|---|
//! | `LOCK.queue` with a state record | the fair lock `LOCK` of the recorded kind |
//! | `LOCK.claim` with a token | a lock of [`Method::Mkdir`] or [`Method::CreateNew`] |
//!
//! Each lock is removed by its own `remove`, which holds the lock while it deletes the files.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lock::by_claim;
use super::{LockDir, LockDirConfig, LockName, Method};
use crate::door::remove_file;
use crate::error::{Error, Result};
use crate::fair::{FifoKind, FifoLock, FifoRwLock, FifoSemaphore};
use crate::lock::Local;
use crate::status::Removal;

/// The result of [`LockDir::sweep`]. A fair semaphore is shown as its directory joined with its
/// name, every other lock as the path of its lock file.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Sweep {
    /// The locks that are removed.
    pub removed: Vec<PathBuf>,
    /// The locks that are unchanged because `remove` returned [`Removal::InUse`], or because the
    /// next holder must learn of a death.
    pub in_use: Vec<PathBuf>,
    /// The locks that are unchanged because they were used recently.
    pub recent: Vec<PathBuf>,
    /// The errors of all other locks. Such a lock may be unchanged, or removed in part.
    pub failed: Vec<Error>,
}

impl LockDir {
    /// Removes the locks in this directory that no process holds or waits for. With `older_than`,
    /// keeps those that were used within that time.
    ///
    /// The sweep covers locks of every name, kind and method; the options of this handle do not
    /// matter. It does not find three kinds of locks, because other programs may use the same
    /// files: plain file locks ([`Method::Os`]), pid files, and semaphores whose slot files do not
    /// have the default names.
    ///
    /// A lock whose last holder died stays until the next holder has learned of it.
    ///
    /// Do not sweep a directory in which programs wait for lock files with plain `flock(2)`. A
    /// program that has opened a lock file before it is removed acquires the deleted file, beside
    /// the holder of the new one.
    ///
    /// A lock was last used when one of its files last changed, by the wall clock. A file changes
    /// whenever a process acquires or releases the lock. The exception is a reader that did not
    /// wait: it changes no file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the directory cannot be listed. Errors of
    /// single locks are in [`Sweep::failed`].
    pub fn sweep(&self, older_than: impl Into<Option<Duration>>) -> Result<Sweep> {
        let mut sweep = Sweep::default();
        for (lock, _, fate) in self.swept(older_than.into(), |_| true)? {
            match fate {
                Ok(Fate::Removed) => sweep.removed.push(lock),
                Ok(Fate::InUse) => sweep.in_use.push(lock),
                Ok(Fate::Recent) => sweep.recent.push(lock),
                Err(error) => sweep.failed.push(error),
            }
        }
        Ok(sweep)
    }

    /// Sweeps the locks of a namespace, or those in none, and returns their names. Sweeps all other
    /// locks before it returns an error.
    pub(crate) fn sweep_names(
        &self,
        namespace: Option<&str>,
        older_than: Duration,
    ) -> Result<Vec<String>> {
        let is_here = |name: Option<&LockName>| name.is_some_and(|it| it.namespace() == namespace);
        let swept = self.swept(Some(older_than), is_here)?.into_iter();
        let names = swept.filter_map(|(_, name, fate)| match fate {
            Ok(Fate::Removed) => name.map(|it| Ok(it.name().to_owned())),
            Ok(Fate::InUse | Fate::Recent) => None,
            Err(error) => Some(Err(error)),
        });
        names.collect()
    }

    fn swept(
        &self,
        older_than: Option<Duration>,
        is_meant: impl Fn(Option<&LockName>) -> bool,
    ) -> Result<Vec<Swept>> {
        let at = |error| Error::io("list the directory", self.path(), error);
        let entries = std::fs::read_dir(self.path()).map_err(at)?;
        let entries = entries.map(|it| it.map(|it| it.path()));
        let mut entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(at)?;
        entries.sort();
        let mut swept = Vec::new();
        for entry in entries {
            let lock = entry.with_extension("");
            let stem = stem(&lock).unwrap_or_default();
            let name = self.name_of(stem).unwrap_or_default();
            if !is_meant(name.as_ref()) {
                continue;
            }
            let found = match found(&entry, &lock) {
                Ok(None) => continue,
                Ok(Some(found)) => Ok(found),
                Err(error) => Err(error),
            };
            let fate = found.and_then(|found| {
                if is_recent(&entry, &lock, older_than) {
                    return Ok(Fate::Recent);
                }
                if found()? == Removal::InUse {
                    return Ok(Fate::InUse);
                }
                // The record of a long name goes too, as with `remove` of a named lock.
                if name.is_some() && LockName::is_shortened(stem) {
                    let record = self.path().join(format!("{stem}.name"));
                    remove_file(&record, "remove the name of the lock in")?;
                }
                Ok(Fate::Removed)
            });
            swept.push((lock, name, fate));
        }
        Ok(swept)
    }
}

/// A lock, its name in a [`LockDir`] if it has one, and its result.
type Swept = (PathBuf, Option<LockName>, Result<Fate>);

enum Fate {
    Removed,
    InUse,
    Recent,
}

/// Returns the stem that a name in a [`LockDir`] would have for this path.
fn stem(lock: &Path) -> Option<&str> {
    let file = lock.file_name()?.to_str()?;
    Some(file.strip_suffix(".lock").unwrap_or(file))
}

/// Removes a lock if it is not in use.
type Remove = Box<dyn FnOnce() -> Result<Removal>>;

/// Returns what removes the lock whose queue or claim this entry is.
fn found(entry: &Path, lock: &Path) -> Result<Option<Remove>> {
    let extension = entry.extension().and_then(|it| it.to_str());
    let is_directory = entry.symlink_metadata().is_ok_and(|it| it.is_dir());
    match extension.filter(|_| is_directory) {
        Some("queue") => fair(lock),
        Some("claim") => claim(lock),
        _ => Ok(None),
    }
}

fn fair(lock: &Path) -> Result<Option<Remove>> {
    Ok(match FifoKind::at(lock)? {
        None => None,
        Some(FifoKind::Lock) => {
            let lock = FifoLock::open(lock)?;
            Some(Box::new(move || lock.remove_unless_crashed()))
        }
        Some(FifoKind::RwLock) => {
            let lock = FifoRwLock::open(lock)?;
            Some(Box::new(move || lock.remove_unless_crashed()))
        }
        Some(FifoKind::Semaphore { limit }) => semaphore(lock, limit)?,
    })
}

/// Returns a semaphore with the default names of slot files. With other names, this handle would
/// not see that the slot files are locked.
fn semaphore(lock: &Path, limit: u32) -> Result<Option<Remove>> {
    let name = lock.file_name().and_then(|it| it.to_str());
    let (Some(directory), Some(name)) = (lock.parent(), name) else {
        return Ok(None);
    };
    let semaphore = FifoSemaphore::open(directory, name, limit)?;
    let known = semaphore.slot_paths().iter().any(|it| it.exists());
    Ok(known.then(|| Box::new(move || semaphore.remove_unless_crashed()) as _))
}

fn claim(lock: &Path) -> Result<Option<Remove>> {
    let config = LockDirConfig {
        method: Method::Mkdir,
        ..LockDirConfig::default()
    };
    let claim = by_claim(lock, &config)?;
    let is_ours = Local::status(&claim)?.last_token > 0;
    Ok(is_ours.then(|| Box::new(move || claim.remove_unless_crashed()) as _))
}

/// Returns whether a file of the lock changed within this time, or in the future.
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
