//! Locks by name behind a URL, so that a program does not care where they are.
//!
//! A backend is whatever implements [`Backend`]; which schemes there are stands in [`url`].

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

/// Locks by name, wherever a URL says.
///
/// | URL | the locks are | reach |
/// |---|---|---|
/// | `file:///run/app` | files in this directory, as those of a [`LockDir`](crate::LockDir): `lock("deploy")` is `/run/app/deploy.lock` | the processes of this host |
/// | `mem:` | in memory, each time another world | this value and its clones |
/// | `mem:NAME` | in memory, shared by all who say the same name | this process |
/// | `redis://HOST`, `rediss://HOST`, `redis+unix:///SOCKET` | on a Redis server, with the feature `redis` (TLS: `redis-tls`); see `redis::RedisClient::connect` | all hosts that reach it |
///
/// Any text is a name. A lock, a reader-writer lock and a semaphore cannot have the same one at a time. Cheap to clone.
///
/// In a `file:` URL the path is absolute, the host is empty or `localhost`, and bytes are written `%xx` where a URL demands it (a space is `%20`). The
/// directory is made if it is missing, its parents are not.
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

/// What a place of locks can do.
pub(crate) trait Backend: Send + Sync {
    fn lock(&self, name: &str) -> Result<AnyLock>;
    fn rwlock(&self, name: &str) -> Result<AnySharedLock>;
    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore>;
    fn capabilities(&self) -> Capabilities;
}

impl Locks {
    /// Goes to where the URL says.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves at most an empty directory behind.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for what is no URL, or cannot be meant; [`ErrorKind::Unsupported`] for a scheme that is not known, or whose
    /// feature is not compiled in; for `file:` those of [`LockDir::open`](crate::LockDir::open).
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::open(url.as_ref(), None).await
    }

    /// The same, for one whom others see under this label in [`Status`](crate::Status) and in what waiters are told. In memory there are no labels.
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

    /// The lock of this name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Incompatible`] when the name is in use for another kind; those of the backend.
    pub fn lock(&self, name: &str) -> Result<AnyLock> {
        self.backend.lock(name)
    }

    /// The reader-writer lock of this name.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Locks::lock).
    pub fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        self.backend.rwlock(name)
    }

    /// The semaphore of this name, with so many permits.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Locks::lock), also when the name is in use with another number of permits; [`ErrorKind::InvalidInput`] for 0.
    pub fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        self.backend.semaphore(name, permits)
    }

    /// What the locks here can and cannot do.
    pub fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// Where the locks are, without a password; also what this shows as (`Display`).
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
