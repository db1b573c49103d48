//! Locks by name behind a URL. The same program can use locks in files, in memory or on a server.
//!
//! A place of locks is an [`Engine`]. [`schemes`] finds the engine for a URL, and [`url`] parses
//! URLs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::any::{AnyLock, AnySemaphore, AnySharedLock, WeakHandle};
use crate::backend::{Engine, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Capabilities;
use crate::options::NEVER;
use crate::sys::fork::PerProcess;

mod file;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod schemes;
mod url;

pub use url::LockUrl;

/// Locks by name, at the place that a URL names.
///
/// | URL | where the locks are | reach |
/// |---|---|---|
/// | `file:///run/app` | in this directory, as with a [`LockDir`](crate::LockDir): `lock("deploy")` is `/run/app/deploy.lock` | the processes of this host |
/// | `mem:` | in memory, separate for each call of `connect` | this value and its clones |
/// | `mem:NAME` | in memory, shared by all callers that use the same name | this process |
/// | `redis://HOST`, `rediss://HOST`, `redis+unix:///SOCKET`, `redis+sentinel://HOST,HOST/SERVICE` | on a Redis server, with the feature `redis` (TLS: `redis-tls`); see `redis::RedisClient::connect` | all hosts that reach the server |
/// | `postgres://HOST/DATABASE`, `postgresql://HOST/DATABASE` | in a Postgres database, with the feature `postgres` (TLS: `postgres-tls`); see `postgres::PgClient::connect` | all hosts that reach the server |
///
/// Any text is a name. At any time a name belongs to only one kind: a lock, a reader-writer lock,
/// or a semaphore. Cheap to clone.
///
/// In a `file:` URL the path is absolute, and the host is empty or `localhost`. A byte that may not
/// stand in a URL is written `%xx`: a space is `%20`. The directory is created if it is missing,
/// but its parents are not.
///
/// # Options
///
/// The query of a URL sets options: `redis://HOST?lease=30s&label=web`. Each place has these
/// options:
///
/// | place | options |
/// |---|---|
/// | `file:` | `namespace`, and those of [`LockDirConfig`](crate::LockDirConfig): `timeout`, `label`, `mode`, `method`, `expire`, `poll_interval`, `claim_window`, `remove_when_idle` |
/// | `mem:` | those of [`MemoryConfig`](crate::MemoryConfig): `timeout`, `label`, `claim_window` |
/// | `redis:`, `rediss:`, `redis+sentinel:` | those of `redis::Config`, and `protocol` of the Redis client |
/// | `redis+unix:` | the same, and `db`, `user` and `pass` of the Redis client |
/// | `postgres:`, `postgresql:` | those of `postgres::Config`, and those of the crate `tokio-postgres`, such as `sslmode` and `application_name` |
///
/// - A duration has a unit: `250ms`, `10s`, `5m`, `1h`. A number without a unit is an error. No
///   limit is `never`.
/// - `mode` is octal: `660`.
/// - `method` is `fifo`, `os`, `mkdir`, `create_new` or `fake`; see [`Method`](crate::Method). The
///   spelling `create-new`, as in the program `stanchion`, means `create_new`.
/// - In a text, `&`, `#`, `%` and `@` are written `%26`, `%23`, `%25` and `%40`. A `+` is a plus.
/// - An option that the place does not have is an error, and so is an option that is given twice.
///   In a directory, each option also needs a [`method`](crate::LockDirConfig) that uses it:
///
///   | option | methods |
///   |---|---|
///   | `expire` | `mkdir`, `create_new` |
///   | `claim_window` | `fifo` |
///   | `label` | `fifo`, `mkdir`, `create_new` |
///   | `mode` | `fifo`, `os` |
///   | `remove_when_idle` | `fifo` |
///   | all others | all |
///
///   `fake` takes the options of every method and ignores them.
/// - `connect` refuses an invalid value, before it creates or connects to anything.
///
/// [`Locks::options`] sets options in the program. If the URL has the same option, the value in the
/// URL is used.
///
/// Only `namespace` and the database select other locks. All other options leave the lock the same:
/// two programs may use one lock with different labels or time limits. But all programs that use a
/// lock must set the same `method` and the same `lease`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// use stanchion::Locks;
///
/// let url = std::env::var("LOCKS").unwrap_or("mem:?timeout=30s".to_owned());
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
    place: Arc<Place>,
}

struct Place {
    engine: Box<dyn Engine>,
    url: String,
    /// Set under the mutex of `given`.
    closed: AtomicBool,
    given: PerProcess<Mutex<Given>>,
}

/// The handles that were returned, as long as they or their waits live.
type Given = Vec<WeakHandle>;

/// Connects to the engine of a URL; see [`Locks::register`].
type Connector = dyn Fn(&LockUrl, &mut Settings) -> Result<BoxFuture<'static, Result<Box<dyn Engine>>>>
    + Send
    + Sync;

impl Locks {
    /// Connects to the place that the URL names.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves at most an empty directory behind.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`] if the text is not a valid URL of locks, or has an option that
    ///   is unknown, has an invalid value, or is not used by the method.
    /// - [`ErrorKind::Unsupported`] if the scheme is unknown, or its feature is not compiled in.
    /// - For `file:`, those of [`LockDir::open`](crate::LockDir::open).
    /// - For a Redis server, those of `redis::RedisClient::connect`.
    /// - For a Postgres database, those of `postgres::PgClient::connect`.
    /// - For a scheme of [`register`](Locks::register), those of its connector.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::options().connect(url).await
    }

    /// Returns options of which none is set: every place uses its defaults.
    pub fn options() -> LocksOptions {
        LocksOptions::default()
    }

    /// Returns the locks of this engine.
    pub fn with_engine(engine: impl Engine) -> Self {
        Self::of(Box::new(engine))
    }

    fn of(engine: Box<dyn Engine>) -> Self {
        let place = Place {
            url: engine.url(),
            engine,
            closed: AtomicBool::new(false),
            given: PerProcess::new(Mutex::default),
        };
        Self {
            place: Arc::new(place),
        }
    }

    /// Adds a URL scheme for [`connect`](Locks::connect) and [`LockUrl`] in this process.
    ///
    /// `connector` reads the URL and [takes](Settings::take) the options that it knows. It returns
    /// a future that connects. The future runs only if every option was taken. The errors of both
    /// must not contain passwords.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> stanchion::Result<()> {
    /// use stanchion::backend::Engine;
    /// use stanchion::{Locks, Memory};
    ///
    /// Locks::register("test", |_url, settings| {
    ///     let label: Option<String> = settings.take("label")?;
    ///     Ok(Box::pin(async {
    ///         let memory = Memory::options().label(label.unwrap_or_default()).named("test");
    ///         Ok(Box::new(memory) as Box<dyn Engine>)
    ///     }))
    /// })?;
    /// let locks = Locks::connect("test:?label=me").await?;
    /// assert_eq!(locks.url(), "mem:test");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the scheme exists already, or if it is not valid. A valid
    /// scheme is a lower-case letter, followed by lower-case letters, digits, `+`, `-` and `.`.
    pub fn register(
        scheme: &str,
        connector: impl Fn(
            &LockUrl,
            &mut Settings,
        ) -> Result<BoxFuture<'static, Result<Box<dyn Engine>>>>
        + Send
        + Sync
        + 'static,
    ) -> Result<()> {
        schemes::register(scheme, Arc::new(connector))
    }

    /// Returns the lock of this name.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Incompatible`] if the name is in use for another kind. This call does not ask
    ///   a server: for a lock on a server, the first acquire returns this error.
    /// - [`ErrorKind::Closed`] after [`close`](Locks::close).
    /// - Those of the backend, for example of [`LockDir::lock`](crate::LockDir::lock).
    pub fn lock(&self, name: &str) -> Result<AnyLock> {
        let lock = self.place.engine.lock(name)?;
        self.give(lock.downgrade()).map(|()| lock)
    }

    /// Returns the reader-writer lock of this name.
    ///
    /// # Errors
    ///
    /// - Those of [`lock`](Locks::lock).
    /// - [`ErrorKind::Unsupported`] if the place has no reader-writer locks.
    pub fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        let lock = self.place.engine.rwlock(name)?;
        self.give(lock.downgrade()).map(|()| lock)
    }

    /// Returns the semaphore of this name, with this many permits.
    ///
    /// # Errors
    ///
    /// - Those of [`lock`](Locks::lock), also if the name is in use with another number of permits.
    /// - [`ErrorKind::InvalidInput`] for 0 permits.
    /// - [`ErrorKind::Unsupported`] if the place has no semaphores.
    pub fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        let semaphore = self.place.engine.semaphore(name, permits)?;
        self.give(semaphore.downgrade()).map(|()| semaphore)
    }

    /// Remembers a handle, so that `close` can close it.
    fn give(&self, handle: WeakHandle) -> Result<()> {
        let mut given = self.place.given();
        if self.place.closed.load(Ordering::Relaxed) {
            let text = "these locks were closed";
            return Err(Error::at(ErrorKind::Closed, text, self.url()));
        }
        if given.len() == given.capacity() {
            given.retain(WeakHandle::is_alive);
        }
        given.push(handle);
        Ok(())
    }

    /// Returns what these locks can and cannot do.
    pub fn capabilities(&self) -> Capabilities {
        self.place.engine.capabilities()
    }

    /// Returns the URL of the place, without a password. `Display` shows the same.
    pub fn url(&self) -> &str {
        &self.place.url
    }

    /// Ends every wait through this value, its clones and their handles with [`ErrorKind::Closed`],
    /// and refuses new waits. Use it for a graceful shutdown. Guards stay valid.
    ///
    /// A clone of an inner lock, from [`AnyLock::downcast_ref`], is closed too. If the type of the
    /// inner lock is from another crate, this is so only while an `AnyLock` around it, or a wait of
    /// that `AnyLock`, lives.
    ///
    /// On a server, this closes the client and all its clones: also a `RedisClient` or `PgClient`
    /// that was cloned before `Locks::from`, and every lock that was opened with it. To close only
    /// the locks of this value, connect a separate client for them.
    pub fn close(&self) {
        let given = {
            let mut given = self.place.given();
            self.place.closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *given)
        };
        given.iter().for_each(WeakHandle::close);
        self.place.engine.close();
    }

    /// Removes the locks here that no caller has used for this long, and returns their names. A
    /// lock stays if a caller holds it or waits for it.
    ///
    /// In a directory, these are the locks of the namespace, as
    /// [`LockDir::sweep`](crate::LockDir::sweep) finds them. In memory and on a server there is
    /// nothing to remove: unused locks vanish by themselves.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after its first poll, locks may have been removed.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unsupported`] if the place cannot list its locks.
    /// - Those of the `remove` of a lock. All other locks are swept.
    pub async fn sweep(&self, unused_for: Duration) -> Result<Vec<String>> {
        self.place.engine.sweep(unused_for).await
    }
}

impl Place {
    fn given(&self) -> MutexGuard<'_, Given> {
        let given = self.given.get().lock();
        given.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url())
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locks").field(&self.url()).finish()
    }
}

/// Options for [`Locks`]; created by [`Locks::options`].
///
/// They have the names and meanings of the options in a URL. If the place does not have an option,
/// or its method does not use it, `connect` returns an error.
#[derive(Clone, Default)]
#[must_use = "options do nothing until a place is connected with them"]
pub struct LocksOptions {
    given: BTreeMap<String, String>,
}

impl LocksOptions {
    /// Sets the label of holders and waiters in a [`Status`](crate::Status).
    pub fn label(self, label: impl Into<String>) -> Self {
        self.set("label", label)
    }

    /// Sets the namespace of the names. Locks in different namespaces are different locks.
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.set("namespace", namespace)
    }

    /// Sets the time limit of an acquire that sets none itself. `None` waits forever.
    pub fn timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        self.set_duration("timeout", limit.into())
    }

    /// Sets the claim window: how long a grant waits for its future to be polled. `None` waits
    /// forever. A server needs a time: with `None`, `connect` returns
    /// [`ErrorKind::InvalidInput`] there.
    pub fn claim_window(self, window: impl Into<Option<Duration>>) -> Self {
        self.set_duration("claim_window", window.into())
    }

    /// Sets the lease: how long a server keeps a hold that is not renewed.
    pub fn lease(self, lease: Duration) -> Self {
        self.set_duration("lease", Some(lease))
    }

    /// Sets how long a server keeps the queue entry of a waiter that it does not hear from.
    pub fn patience(self, patience: Duration) -> Self {
        self.set_duration("patience", Some(patience))
    }

    /// Sets whether a server grants nothing for one lease after it may have forgotten a holder.
    pub fn quarantine(self, quarantine: bool) -> Self {
        self.set("quarantine", quarantine.to_string())
    }

    /// Sets whether the last handle of a lock in a directory removes its files; see
    /// [`LockDirConfig::remove_when_idle`](crate::LockDirConfig::remove_when_idle). In memory and
    /// on a server unused locks vanish by themselves, so these places do not have the option.
    pub fn remove_when_idle(self, remove: bool) -> Self {
        self.set("remove_when_idle", remove.to_string())
    }

    /// Sets an option by its name in a URL.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.given.insert(name.into(), value.into());
        self
    }

    fn set_duration(self, name: &str, value: Option<Duration>) -> Self {
        let value = match value {
            Some(value) if value < Duration::MAX => humantime::format_duration(value).to_string(),
            _ => NEVER.to_owned(),
        };
        self.set(name, value)
    }

    /// Connects; see [`Locks::connect`]. If the URL has the same option, the value in the URL is
    /// used.
    ///
    /// # Cancel safety
    ///
    /// As for [`Locks::connect`].
    ///
    /// # Errors
    ///
    /// - Those of [`Locks::connect`].
    /// - [`ErrorKind::InvalidInput`] if the URL names a lock, after a `#`.
    pub async fn connect(self, url: impl AsRef<str>) -> Result<Locks> {
        let url = LockUrl::parse(url.as_ref())?;
        if url.name().is_some() {
            let text = "the URL names a lock after the #: connect without the #, and open the lock by its name";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let mut given = self.given;
        given.extend(url.query().clone());
        let mut settings = Settings::new(url.to_string(), given);
        let connector = schemes::connector(url.scheme())?;
        let connecting = connector(&url, &mut settings)?;
        settings.refuse_unknown()?;
        connecting.await.map(Locks::of)
    }
}

/// Shows the names of the options only, because a value may be a secret.
impl fmt::Debug for LocksOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocksOptions")
            .field(&self.given.keys())
            .finish()
    }
}
