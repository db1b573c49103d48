//! The kind of the fair lock at a path, for callers that do not know it.

use std::fmt;
use std::path::Path;

use super::Place;
use super::disk::recorded_kind;
use crate::error::Result;
use crate::kind::LockKind;
use crate::path::canonical;

/// The kind of a fair lock, as its state record names it. A lock has a kind from its first acquire
/// until it is removed. In this time, handles of other kinds are refused.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("catalogue.lock");
/// use stanchion::{FifoKind, FifoRwLock};
///
/// assert_eq!(FifoKind::at(&path)?, None);
/// FifoRwLock::open(&path)?.read().await?.release().await?;
/// assert_eq!(FifoKind::at(&path)?, Some(FifoKind::RwLock));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FifoKind {
    /// A [`FifoLock`](crate::FifoLock).
    Lock,
    /// A [`FifoRwLock`](crate::FifoRwLock).
    RwLock,
    /// A [`FifoSemaphore`](crate::FifoSemaphore). Its path is its directory and its name.
    #[non_exhaustive]
    Semaphore {
        /// The number of permits.
        limit: u32,
    },
}

impl FifoKind {
    /// Returns the kind of the lock at `path`. Returns `None` when none is recorded. The path is
    /// resolved as in [`FifoLock::open`](crate::FifoLock::open).
    ///
    /// Locks nothing and creates nothing. The answer may be outdated in the next instant.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the state record is of
    ///   another version.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) when the state record cannot be read, or the
    ///   directory does not exist.
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a path without a file
    ///   name.
    pub fn at(path: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = canonical(path.as_ref())?;
        let found = recorded_kind(Place::new(path))?;
        Ok(found.map(|(kind, limit)| match kind {
            LockKind::Lock => Self::Lock,
            LockKind::RwLock => Self::RwLock,
            LockKind::Semaphore => Self::Semaphore { limit },
        }))
    }
}

/// Shows the kind as in the state record, in one word: `lock`, `rwlock` or `semaphore`.
impl fmt::Display for FifoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => LockKind::Lock.word(),
            Self::RwLock => LockKind::RwLock.word(),
            Self::Semaphore { .. } => LockKind::Semaphore.word(),
        })
    }
}
