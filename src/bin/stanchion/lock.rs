//! A lock of the kind that its record names.

use std::path::{Path, PathBuf};

use stanchion::{
    Changes, FifoKind, FifoLock, FifoRwLock, FifoSemaphore, Removal, Result, SemaphoreOptions,
    Status,
};

use crate::exit::Failure;

#[derive(Clone)]
pub(crate) enum AnyLock {
    Plain(FifoLock),
    RwLock(FifoRwLock),
    Semaphore(FifoSemaphore),
}

impl AnyLock {
    /// The lock of this kind; where none is recorded, a plain one, to look at.
    pub(crate) fn open(path: &Path, kind: Option<FifoKind>) -> Result<Self, Failure> {
        Ok(match kind {
            Some(FifoKind::RwLock) => Self::RwLock(FifoRwLock::open(path)?),
            Some(FifoKind::Semaphore { limit }) => {
                Self::Semaphore(semaphore(path, FifoSemaphore::options().limit(limit))?)
            }
            // What this program does not know the library refuses.
            _ => Self::Plain(FifoLock::open(path)?),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Plain(lock) => lock.path(),
            Self::RwLock(lock) => lock.path(),
            Self::Semaphore(lock) => lock.path(),
        }
    }

    pub(crate) fn status(&self) -> Result<Status> {
        match self {
            Self::Plain(lock) => lock.status(),
            Self::RwLock(lock) => lock.status(),
            Self::Semaphore(lock) => lock.status(),
        }
    }

    pub(crate) fn changes(&self) -> Changes {
        match self {
            Self::Plain(lock) => lock.changes(),
            Self::RwLock(lock) => lock.changes(),
            Self::Semaphore(lock) => lock.changes(),
        }
    }

    pub(crate) fn remove(&self) -> Result<Removal> {
        match self {
            Self::Plain(lock) => lock.remove(),
            Self::RwLock(lock) => lock.remove(),
            Self::Semaphore(lock) => lock.remove(),
        }
    }

    /// The files whose locks are the lock.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Semaphore(lock) => lock.slot_paths(),
            _ => vec![self.path().to_path_buf()],
        }
    }
}

/// The semaphore that a path means: its directory and its name.
pub(crate) fn semaphore(path: &Path, how: SemaphoreOptions) -> Result<FifoSemaphore, Failure> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default();
    let Some(name) = name.to_str() else {
        return Err(Failure::usage(format!(
            "the name of a semaphore must be UTF-8: {path:?}"
        )));
    };
    Ok(how.open(directory, name)?)
}
