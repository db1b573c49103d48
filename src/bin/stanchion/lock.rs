//! A lock of the recorded kind, or of a method that records no kind.

use std::path::{Path, PathBuf};

use stanchion::{
    Changes, FifoKind, FifoLock, FifoRwLock, FifoSemaphore, Removal, Result, SemaphoreOptions,
    Status,
};

use crate::exit::Failure;
use crate::method::{Method, Terms, Unlined, Want};
use crate::place::{self, FarAway, Purpose};

#[derive(Clone)]
pub(crate) enum AnyLock {
    Plain(FifoLock),
    RwLock(FifoRwLock),
    Semaphore(FifoSemaphore),
    Unlined(Unlined),
}

impl AnyLock {
    /// Returns the lock to look at, or to remove.
    pub(crate) async fn to_look_at(lock: PathBuf, method: Option<Method>) -> Result<Self, Failure> {
        if let Some(far) = FarAway::meant(&lock)? {
            if method.is_some() {
                let text = "--method is for locks on files, not on a server";
                return Err(Failure::usage(text));
            }
            let far = far.connect(Want::Alone, None).await?;
            return Ok(Self::Unlined(far));
        }
        let path = place::path(lock, Purpose::Look)?;
        let Some(method) = method else {
            return Self::open(&path, FifoKind::at(&path)?);
        };
        // `LockDir::open` would create the directory, and a look must create nothing.
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
        if let Some(directory) = directory {
            existing(directory)?;
        }
        Unlined::open(&path, method, Terms::default()).map(Self::Unlined)
    }

    /// Opens the lock of this kind, to look at it. If no kind is recorded, opens a plain lock.
    pub(crate) fn open(path: &Path, kind: Option<FifoKind>) -> Result<Self, Failure> {
        if kind.is_none()
            && let Some(found) = Unlined::found(path)?
        {
            return Ok(Self::Unlined(found));
        }
        Ok(match kind {
            Some(FifoKind::RwLock) => Self::RwLock(FifoRwLock::open(path)?),
            Some(FifoKind::Semaphore { limit, .. }) => {
                Self::Semaphore(semaphore(path, FifoSemaphore::options().limit(limit))?)
            }
            // For a kind that this program does not know, the library returns an error.
            _ => Self::Plain(FifoLock::open(path)?),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Plain(lock) => lock.path(),
            Self::RwLock(lock) => lock.path(),
            Self::Semaphore(lock) => lock.path(),
            Self::Unlined(lock) => lock.path(),
        }
    }

    pub(crate) async fn status(&self) -> Result<Status> {
        match self {
            Self::Plain(lock) => lock.status(),
            Self::RwLock(lock) => lock.status(),
            Self::Semaphore(lock) => lock.status(),
            Self::Unlined(lock) => lock.status().await,
        }
    }

    /// Returns the number of permits of a semaphore.
    pub(crate) fn limit(&self) -> Option<u32> {
        match self {
            Self::Plain(_) | Self::RwLock(_) => None,
            Self::Semaphore(lock) => Some(lock.limit()),
            Self::Unlined(lock) => lock.limit(),
        }
    }

    pub(crate) fn changes(&self) -> Result<Changes, Failure> {
        Ok(match self {
            Self::Plain(lock) => lock.changes(),
            Self::RwLock(lock) => lock.changes(),
            Self::Semaphore(lock) => lock.changes(),
            Self::Unlined(lock) => return lock.changes(),
        })
    }

    pub(crate) fn remove(&self) -> Result<Removal, Failure> {
        Ok(match self {
            Self::Plain(lock) => lock.remove()?,
            Self::RwLock(lock) => lock.remove()?,
            Self::Semaphore(lock) => lock.remove()?,
            Self::Unlined(lock) => lock.remove()?,
        })
    }

    /// Returns the files that carry the lock.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Semaphore(lock) => lock.slot_paths(),
            Self::Unlined(_) => Vec::new(),
            _ => vec![self.path().to_path_buf()],
        }
    }
}

/// Opens the semaphore of a path, which is its directory and its name.
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

/// Fails if the directory does not exist.
pub(crate) fn existing(directory: &Path) -> Result<(), Failure> {
    let found = directory.metadata().map(drop);
    found.map_err(|error| Failure::own(format!("cannot find the directory {directory:?}: {error}")))
}
