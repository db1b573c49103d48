//! Which of the fair locks lives at a path, for whoever does not know.

use std::fmt;
use std::path::Path;

use super::engine::disk::{Place, recorded_kind};
use super::engine::path::canonical;
use super::engine::state::Kind;
use crate::error::Result;

/// The kind of a fair lock, as its record on disk names it. A lock has one from its first acquire until it is removed, and handles of other
/// kinds are refused meanwhile.
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
    /// A [`FifoSemaphore`](crate::FifoSemaphore), whose path is its directory and its name.
    Semaphore {
        /// How many permits there are.
        limit: u32,
    },
}

impl FifoKind {
    /// The kind of the lock at `path`, which is understood as by [`FifoLock::open`](crate::FifoLock::open); `None` when none is recorded. Locks
    /// nothing and creates nothing; the next instant may bring another answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the record is of another version,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when it cannot be read or the directory does not exist,
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a path without a file name.
    pub fn at(path: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = canonical(path.as_ref())?;
        let found = recorded_kind(Place::new(path))?;
        Ok(found.map(|(kind, limit)| match kind {
            Kind::Lock => Self::Lock,
            Kind::RwLock => Self::RwLock,
            Kind::Semaphore => Self::Semaphore {
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
            },
        }))
    }
}

/// In one word, that of the record: `lock`, `rwlock` or `semaphore`.
impl fmt::Display for FifoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => Kind::Lock.word(),
            Self::RwLock => Kind::RwLock.word(),
            Self::Semaphore { .. } => Kind::Semaphore.word(),
        })
    }
}
