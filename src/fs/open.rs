//! Open a file and have it to oneself, in one call.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::time::Duration;

use super::file::{FileAttempt, FileGuard, FileLock};
use crate::acquire::Acquire;
use crate::error::Result;

/// Opens a file for reading and writing, creates it if it is missing, and locks it exclusively; resolves to the open file,
/// positioned at its start.
///
/// Await the result, after a time limit if there is to be one.
///
/// # Cancel safety
///
/// Dropping the future gives up the wait; a lock that had come is given back.
///
/// # Fairness
///
/// None: a [`FileLock`] waits for it.
///
/// # Errors
///
/// Those of [`FileLock::open`] and [`FileLock::acquire`].
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("notes.txt");
/// use std::time::Duration;
/// use stanchion::open_locked;
/// use tokio::io::AsyncWriteExt;
///
/// let mut file = open_locked(path).timeout(Duration::from_secs(5)).await?;
/// file.write_all(b"only we write here").await?;
/// file.release().await?;
/// # Ok(()) }
/// ```
pub fn open_locked(path: impl Into<PathBuf>) -> OpenLocked {
    OpenLocked {
        path: path.into(),
        limit: None,
    }
}

/// What [`open_locked`] is to do; await it.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened unless it is awaited"]
pub struct OpenLocked {
    path: PathBuf,
    limit: Option<Duration>,
}

impl OpenLocked {
    /// Gives up with [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) after `limit`, counted from the `await`; `None`, the default, waits
    /// for ever.
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = limit.into();
        self
    }
}

impl IntoFuture for OpenLocked {
    type Output = Result<FileGuard>;
    type IntoFuture = Acquire<FileGuard>;

    fn into_future(self) -> Acquire<FileGuard> {
        match FileLock::open(&self.path) {
            Ok(lock) => lock.acquire().timeout(self.limit),
            Err(error) => Acquire::new(FileAttempt::failed(error), None),
        }
    }
}
