//! Opens a file and locks it, in one call.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::acquire::Acquire;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{FileGuard, FileLock, FilePending};
use crate::named::{LockDir, Method};

/// Opens a file for reading and writing, creates it if it is missing, and locks it exclusively.
/// Resolves to the open file, positioned at its start.
///
/// Set options such as [`timeout`](OpenLocked::timeout) on the result, then await it. The lock is
/// on the file itself, unless the options name a [directory](OpenLocked::lock_dir) or a
/// [method](OpenLocked::method).
///
/// # Cancel safety
///
/// Dropping the future gives up the wait. A lock that was already granted is released.
///
/// # Fairness
///
/// None: the wait is that of a [`FileLock`]. With a directory or a method: that of the method.
///
/// # Errors
///
/// Those of [`FileLock::open`] and [`FileLock::acquire`]. With a directory or a method, also those
/// of [`LockDir::open`], [`LockDir::lock`] and [`NamedLock::acquire`](crate::NamedLock::acquire),
/// and [`ErrorKind::InvalidInput`] for a path that is not UTF-8.
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
        directory: None,
        method: None,
        expire: None,
    }
}

/// A call of [`open_locked`] with its options; await it.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened unless it is awaited"]
pub struct OpenLocked {
    path: PathBuf,
    limit: Option<Duration>,
    directory: Option<PathBuf>,
    method: Option<Method>,
    expire: Option<Duration>,
}

impl OpenLocked {
    /// Sets the time limit, counted from the `await`. After it the future fails with
    /// [`ErrorKind::TimedOut`]. Default `None`: waits forever.
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// Acquires a lock of this [`LockDir`] first, and holds it as long as the file. The lock uses
    /// the [method](OpenLocked::method), by default a queue. Its name is the file's canonical path,
    /// or only the file name if the directory is the file's own.
    ///
    /// The file and the lock are released together. With [`Method::Fifo`] and [`Method::Os`] (and
    /// only with these) the file itself is locked too. This has two effects:
    ///
    /// - Callers that open the file without this directory are excluded too.
    /// - If a write still runs when the guard is dropped, the next holder waits for it.
    pub fn lock_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Locks as [`lock_dir`](OpenLocked::lock_dir) does, by this method. Without a directory, the
    /// lock is in the file's own directory: for `notes.txt` it is `notes.txt.lock` beside it.
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Sets how long a holder may be silent before other processes take the lock over, with
    /// [`Method::Mkdir`] and [`Method::CreateNew`]; see
    /// [`LockDirConfig::expire`](crate::LockDirConfig::expire). With any other method that locks,
    /// and without a method, the future fails with [`ErrorKind::InvalidInput`].
    pub fn expire(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.expire = silence.into();
        self
    }

    fn begin(self) -> Result<Acquire<FileGuard>> {
        if self.directory.is_none() && self.method.is_none() {
            if self.expire.is_some() {
                let text = "expire needs Method::Mkdir or Method::CreateNew";
                return Err(Error::at(ErrorKind::InvalidInput, text, self.path));
            }
            return Ok(FileLock::open(&self.path)?.acquire().timeout(self.limit));
        }
        let method = self.method.unwrap_or_default();
        let options = LockDir::options().method(method).expire(self.expire);
        options.check(&self.path)?;
        let file = FileLock::open(&self.path)?;
        let own = file.path().parent().unwrap_or(Path::new("/"));
        let directory = self.directory.as_deref().unwrap_or(own);
        let directory = options.open(directory)?;
        let name = match directory.path() == own {
            true => file.path().file_name().and_then(|it| it.to_str()),
            false => file.path().to_str(),
        };
        let Some(name) = name else {
            let text = "a file with a lock in a directory needs a path in UTF-8";
            return Err(Error::at(ErrorKind::InvalidInput, text, file.path()));
        };
        let over = directory.lock(None, name)?.acquire();
        Ok(file
            .acquire_under(over, locks_file(method))
            .timeout(self.limit))
    }
}

/// Returns whether the file itself is locked too. It is not where the method must do without the
/// operating system's locks.
fn locks_file(method: Method) -> bool {
    match method {
        Method::Fifo | Method::Os => true,
        Method::Mkdir | Method::CreateNew | Method::Fake => false,
    }
}

impl IntoFuture for OpenLocked {
    type Output = Result<FileGuard>;
    type IntoFuture = Acquire<FileGuard>;

    fn into_future(self) -> Acquire<FileGuard> {
        match self.begin() {
            Ok(wait) => wait,
            Err(error) => Acquire::new(FilePending::failed(error), None),
        }
    }
}
