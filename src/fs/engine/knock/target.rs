//! The file that is to be locked: how it is opened, tried once, and given back.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::wait::Wait;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::sys::file::{self, FileId};
use crate::fs::sys::fork::Private;
use crate::fs::sys::{Access, flock};

/// Which file is to be locked, and how.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) access: Access,
    pub(crate) manner: Manner,
    /// Whether this file system was seen to exclude.
    pub(crate) excludes: AtomicBool,
}

/// How the lock is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) wait: Wait,
    pub(crate) poll_interval: Duration,
    /// Whether file events can be expected.
    pub(crate) events: bool,
}

/// An open file with the lock on it, save where another lock stands for it.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) file: Private,
    pub(crate) id: FileId,
}

/// What came of a first try.
pub(crate) enum First {
    Locked(Locked),
    /// Somebody else has it; the file is open.
    Refused(Private),
}

impl Target {
    pub(super) fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Error::io(step, &self.path, error)
    }

    fn open(&self) -> Result<Private> {
        let file = file::open_as(&self.path, &self.access);
        Ok(Private::new(file.map_err(|e| self.io("open the file", e))?))
    }

    /// Opens what the path means by now, for a wait that had another file: it may have been made meanwhile, by us too.
    pub(super) fn open_again(&self) -> Result<Private> {
        let access = Access {
            create: self.access.create || self.access.create_new,
            create_new: false,
            ..self.access
        };
        let file = file::open_as(&self.path, &access);
        let file = Private::new(file.map_err(|e| self.io("open the file", e))?);
        file::facts_of(&file, &self.path).map_err(|e| self.io("look at the file", e))?;
        Ok(file)
    }

    /// Opens the file without locking it, for who has another lock.
    pub(crate) fn open_unlocked(&self) -> Result<Locked> {
        let file = self.open()?;
        let facts = file::facts_of(&file, &self.path);
        let (facts, _) = facts.map_err(|e| self.io("look at the file", e))?;
        Ok(Locked { file, id: facts.id })
    }

    /// Opens the file and tries the lock once.
    pub(crate) fn try_once(&self, shared: bool) -> Result<First> {
        loop {
            let file = self.open()?;
            let locked = flock::try_lock(&file, shared);
            let locked = locked.map_err(|e| self.io("lock the file", e))?;
            let facts = file::facts_of(&file, &self.path);
            let deleted = match facts.map_err(|e| self.io("look at the file", e)) {
                Ok((facts, false)) if locked => {
                    let locked = Locked { file, id: facts.id };
                    return self.proven(locked).map(First::Locked);
                }
                Ok((_, deleted)) => deleted,
                Err(error) => {
                    give_back(file, locked);
                    return Err(error);
                }
            };
            if !deleted {
                return Ok(First::Refused(file));
            }
            give_back(file, locked);
        }
    }

    /// Some file systems answer every lock with yes. Asks once whether a second one is refused.
    fn proven(&self, locked: Locked) -> Result<Locked> {
        if self.excludes.load(Ordering::Relaxed) {
            return Ok(locked);
        }
        let access = Access {
            create: false,
            create_new: false,
            ..self.access
        };
        let granted_twice = match file::open_as(&self.path, &access) {
            // It has another name by now, or may not be opened again: that proves nothing.
            Err(_) => false,
            Ok(second) => {
                file::id_of(&second).ok() == Some(locked.id)
                    && flock::try_lock_exclusive(&second).unwrap_or(false)
            }
        };
        if granted_twice {
            give_back(locked.file, true);
            let text = "this file system grants one lock to two holders";
            return Err(Error::at(ErrorKind::Unsupported, text, &self.path));
        }
        self.excludes.store(true, Ordering::Relaxed);
        Ok(locked)
    }

    /// Whether the open file is the one that the path means.
    pub(super) fn is_current(&self, file: &Private) -> Result<Option<FileId>> {
        let id = file::id_of(file).map_err(|e| self.io("look at the file", e))?;
        let found = file::id_at(&self.path).map_err(|e| self.io("look at the file", e))?;
        Ok((found == Some(id)).then_some(id))
    }
}

/// Unlocks if need be, then closes.
pub(super) fn give_back(file: Private, locked: bool) {
    if locked {
        // If it fails the close does it.
        let _ = flock::unlock(&file);
    }
    drop(file);
}
