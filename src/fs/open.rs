//! Open a file and have it to oneself, in one call.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{FileGuard, FileLock, FilePending};
use super::named::{LockDir, Method};
use crate::acquire::Acquire;
use crate::error::{Error, ErrorKind, Result};

/// Opens a file for reading and writing, creates it if it is missing, and locks it exclusively; resolves to the open file,
/// positioned at its start.
///
/// Await the result, after a time limit if there is to be one. The lock is on the file itself, unless it is to be [in a
/// directory](OpenLocked::lock_dir) or by a certain [method](OpenLocked::method).
///
/// # Cancel safety
///
/// Dropping the future gives up the wait; a lock that had come is given back.
///
/// # Fairness
///
/// None: a [`FileLock`] waits for it. With a directory or a method, that of the method.
///
/// # Errors
///
/// Those of [`FileLock::open`] and [`FileLock::acquire`]; with a directory or a method those of [`LockDir::lock`] too.
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

/// What [`open_locked`] is to do; await it.
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
    /// Gives up with [`ErrorKind::TimedOut`] after `limit`, counted from the `await`; `None`, the default, waits
    /// for ever.
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// Takes a lock of this [`LockDir`] first, and holds it as long as the file: with its method, by default a queue. Its name is the file's canonical
    /// path, or the file's name where the directory is the file's own.
    ///
    /// File and lock leave together. The file itself is locked as well (only with [`Method::Fifo`] and [`Method::Os`]), so whoever opens it without this
    /// directory is excluded too; and a write that is still running when the guard is dropped holds up the next one.
    pub fn lock_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// As [`lock_dir`](OpenLocked::lock_dir), by this method; without a directory in that of the file: beside `notes.txt` it is `notes.txt.lock`.
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// With [`Method::Mkdir`] and [`Method::CreateNew`]: how long the holder may be silent before others take the lock over, as
    /// [`LockDirConfig::expire`](crate::LockDirConfig::expire).
    pub fn expire(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.expire = silence.into();
        self
    }

    fn begin(self) -> Result<Acquire<FileGuard>> {
        let file = FileLock::open(&self.path)?;
        if self.directory.is_none() && self.method.is_none() {
            return Ok(file.acquire().timeout(self.limit));
        }
        let own = file.path().parent().unwrap_or(Path::new("/"));
        let method = self.method.unwrap_or_default();
        let directory = self.directory.as_deref().unwrap_or(own);
        let options = LockDir::options().method(method).expire(self.expire);
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

/// Whether the file is locked as well: not where the lock must not need the operating system's.
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
