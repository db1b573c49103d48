//! Locks by name behind a URL. A program that uses them does not depend on where the locks are.
//!
//! A backend is a type that implements [`Backend`]. The module [`url`] lists the schemes.

use std::fmt;
use std::sync::Arc;

use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Capabilities;
use crate::locks_redis;
use crate::mem::Memory;

mod file;
mod memory;
mod url;

use file::FileLocks;
pub use url::LockUrl;
use url::Place;

/// Locks by name, at the place that a URL names.
///
/// | URL | where the locks are | reach |
/// |---|---|---|
/// | `file:///run/app` | in this directory, as those of a [`LockDir`](crate::LockDir): `lock("deploy")` is `/run/app/deploy.lock` | the processes of this host |
/// | `mem:` | in memory, separate for each connect | this value and its clones |
/// | `mem:NAME` | in memory, shared by all that use the same name | this process |
/// | `redis://HOST`, `rediss://HOST`, `redis+unix:///SOCKET` | on a Redis server, with the feature `redis` (TLS: `redis-tls`); see `redis::RedisClient::connect` | all hosts that reach it |
///
/// Any text is a name. At any time a name belongs to only one kind: a lock, a reader-writer lock,
/// or a semaphore. Cheap to clone.
///
/// In a `file:` URL the path is absolute, and the host is empty or `localhost`. Bytes are written
/// `%xx` where a URL needs it (a space is `%20`). The directory is created if it is missing, but
/// its parents are not.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// use stanchion::Locks;
///
/// let url = std::env::var("LOCKS").unwrap_or("mem:".to_owned());
/// let locks = Locks::connect(url).await?;
/// let guard = locks.lock("deploy")?.acquire().await?;
/// let permit = locks.semaphore("workers", 4)?.acquire().await?;
/// println!("{locks}: token {:?}", guard.token());
/// # drop(permit);
/// guard.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct Locks {
    backend: Arc<dyn Backend>,
    url: Arc<str>,
}

/// What a backend of named locks can do.
pub(crate) trait Backend: Send + Sync {
    fn lock(&self, name: &str) -> Result<AnyLock>;
    fn rwlock(&self, name: &str) -> Result<AnySharedLock>;
    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore>;
    fn capabilities(&self) -> Capabilities;
}

impl Locks {
    /// Connects to the place that the URL names.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves at most an empty directory behind.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`] if the text is not a valid URL of locks.
    /// - [`ErrorKind::Unsupported`] if the scheme is unknown, or its feature is not compiled in.
    /// - For `file:`, those of [`LockDir::open`](crate::LockDir::open).
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::open(url.as_ref(), None).await
    }

    /// Connects as [`connect`](Locks::connect) does, with a label. Other processes see it in
    /// [`Status`](crate::Status), and waiters see it in their progress reports. Locks in memory
    /// have no labels.
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Locks::connect).
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Locks::connect).
    pub async fn connect_as(url: impl AsRef<str>, label: impl Into<String>) -> Result<Self> {
        Self::open(url.as_ref(), Some(label.into())).await
    }

    async fn open(url: &str, label: Option<String>) -> Result<Self> {
        let url = LockUrl::parse(url)?;
        if url.name().is_some() {
            let text = "what follows the # names one lock: connect without it, and ask for the lock by its name";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let backend: Arc<dyn Backend> = match url.place() {
            Place::Directory(path) => Arc::new(FileLocks::open(path, label)?),
            Place::Memory(None) => Arc::new(Memory::new()),
            Place::Memory(Some(name)) => Arc::new(Memory::named(name)),
            Place::Redis(whole) => locks_redis::connect(&url, whole, label).await?,
        };
        let url = url.to_string().into();
        Ok(Self { backend, url })
    }

    /// Returns the lock of this name.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Incompatible`] if the name is in use for another kind.
    /// - Those of the backend.
    pub fn lock(&self, name: &str) -> Result<AnyLock> {
        self.backend.lock(name)
    }

    /// Returns the reader-writer lock of this name.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Locks::lock).
    pub fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        self.backend.rwlock(name)
    }

    /// Returns the semaphore of this name, with this many permits.
    ///
    /// # Errors
    ///
    /// - Those of [`lock`](Locks::lock), also if the name is in use with another number of permits.
    /// - [`ErrorKind::InvalidInput`] for 0 permits.
    pub fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        self.backend.semaphore(name, permits)
    }

    /// Returns what these locks can and cannot do.
    pub fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// Returns the URL of the locks without a password. `Display` shows the same.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Display for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locks").field(&self.url).finish()
    }
}
