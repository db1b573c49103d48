//! A directory of locks with names instead of paths. [`name`] turns the name of a lock into a file
//! name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Setting;
use crate::error::{Error, ErrorKind, Result};
use crate::existence::claim::{self, claim_directory};
use crate::fair::{Fair, FifoConfig, FifoKind, FifoRwLock, FifoSemaphore, SemaphoreOptions};
use crate::lock::Capabilities;
use crate::options::setters;
use crate::sys::filesystem::FileSystem;

mod check;
mod fake;
mod lock;
pub(crate) mod name;
pub(crate) mod open;
mod recorded;
mod sweep;

pub use lock::NamedLock;
pub use name::LockName;
pub use sweep::Sweep;

/// A directory of named locks. Any text is a name. A name is in a namespace or in none.
///
/// The same name in two namespaces is two locks. Names that differ only in case are two locks too,
/// on every file system.
///
/// The lock of the name `deploy` outside any namespace is the file `deploy.lock`.
/// `docs/protocol.md` describes how other names are written.
///
/// A handle is cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("locks");
/// use std::time::Duration;
/// use stanchion::LockDir;
///
/// let locks = LockDir::options().timeout(Duration::from_secs(5)).open(dir)?;
/// let guard = locks.lock("users", "Ann/7")?.acquire().await?;
/// let deploy = locks.lock(None, "deploy")?.acquire().await?;
/// for name in locks.list()? {
///     println!("{name}");
/// }
/// # drop((guard, deploy));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LockDir {
    path: Arc<Path>,
    config: Arc<LockDirConfig>,
}

/// How the locks of a [`LockDir`] exclude callers. All processes must use the same method for the
/// same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// A [`FifoLock`](crate::FifoLock): fair, with tokens. Two processes may use this method and
    /// [`Os`](Method::Os) on the same name: they exclude each other.
    #[default]
    Fifo,
    /// A [`FileLock`](crate::FileLock): the plain lock of the operating system, without a queue.
    Os,
    /// A directory that each grant and release renames. Use it where the locks of the operating
    /// system do not work: the file system only needs atomic renames. It has tokens and no queue.
    ///
    /// If the holder died and this process can prove it, the process takes the lock over at once;
    /// otherwise after [`expire`](LockDirConfig::expire). Two processes may use this method and
    /// [`CreateNew`](Method::CreateNew) on the same name: they exclude each other.
    Mkdir,
    /// Like [`Mkdir`](Method::Mkdir), but with a file instead of a directory.
    CreateNew,
    /// Does not lock: every acquire is granted at once, even if another caller holds the lock.
    /// Nothing is written. Use it in programs whose users may switch locking off.
    /// [`Capabilities::excludes`](crate::Capabilities::excludes) and
    /// [`Status::excludes`](crate::Status::excludes) are `false`.
    Fake,
}

/// The options of a [`LockDir`], with their defaults. [`LockDir::config`] returns them.
///
/// An option that the method does not use is an error when the directory is opened.
/// [`Method::Fake`] is the exception: it takes the options of every method and ignores them, so
/// that locking can be switched off by the method alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockDirConfig {
    /// The method of the locks. Default [`Method::Fifo`].
    pub method: Method,
    /// Time limit of an acquire that sets none. Default `None`: waits forever.
    pub timeout: Option<Duration>,
    /// With [`Method::Mkdir`] and [`Method::CreateNew`]: how long a holder may be silent before
    /// another process takes the lock over. With `None`, the default, another process takes it over
    /// only when the holder's process is provably gone.
    ///
    /// At least 100 ms. Choose a time far longer than any pause of a host or a file system, for
    /// example a minute.
    ///
    /// A living holder renews its claim after each third of this time, from a thread of its own. So
    /// a holder loses the lock only if it is stopped or cut off from the file system. Its guard
    /// [reports the loss](crate::AnyGuard::lost). To the next holder, this counts as the death of
    /// its predecessor.
    pub expire: Option<Duration>,
    /// How often a waiter looks again without an event. [`Duration::MAX`] means never. `None`, the
    /// default, stands for the method's own interval, 1 s or longer.
    pub poll_interval: Option<Duration>,
    /// With [`Method::Fifo`]: see [`FifoConfig::claim_window`](crate::FifoConfig::claim_window).
    /// [`Duration::MAX`] switches the bypass off. `None`, the default, stands for 2 s.
    pub claim_window: Option<Duration>,
    /// With every method but [`Method::Os`]: the label of holders and waiters in a status. No label
    /// by default.
    pub label: Option<String>,
    /// With [`Method::Fifo`] and [`Method::Os`]: permission bits of a lock file that is created;
    /// see [`FifoConfig::mode`](crate::FifoConfig::mode).
    pub mode: Option<u32>,
    /// With [`Method::Fifo`]: whether the last handle, guard and future of a lock removes its
    /// files; see [`FifoConfig::remove_when_idle`](crate::FifoConfig::remove_when_idle). For
    /// directories with many names that are used once. The record of a name that is too long for a
    /// file name stays. Off by default.
    pub remove_when_idle: bool,
}

impl Setting for Method {
    const TAKES: &'static str = "fifo, os, mkdir, create_new or fake";

    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "fifo" => Self::Fifo,
            "os" => Self::Os,
            "mkdir" => Self::Mkdir,
            // The program `stanchion` writes it with a hyphen.
            "create_new" | "create-new" => Self::CreateNew,
            "fake" => Self::Fake,
            _ => return None,
        })
    }
}

/// Builds a [`LockDir`]; created by [`LockDir::options`].
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a directory is opened with them"]
pub struct LockDirOptions {
    config: LockDirConfig,
}

impl LockDirOptions {
    setters! { LockDirConfig, in a URL:
        method plain Method;
        timeout limit;
        expire limit;
        poll_interval interval;
        claim_window interval;
        label text;
        mode bits;
        remove_when_idle plain bool;
    }

    /// Opens the directory with these options; see [`LockDir::open`].
    ///
    /// # Errors
    ///
    /// - Those of [`LockDir::open`].
    /// - [`ErrorKind::InvalidInput`] for an option that the method does not use, and for an invalid
    ///   value. Nothing is created then.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<LockDir> {
        self.check(directory.as_ref())?;
        let path = ensured(directory.as_ref())?;
        Ok(LockDir {
            path: path.into(),
            config: Arc::new(self.config),
        })
    }

    /// Refuses options that have no effect, and values that no lock could use; see
    /// [`open`](LockDirOptions::open).
    fn check(&self, place: &Path) -> Result<()> {
        self.config.check(place)
    }
}

impl LockDirConfig {
    /// Returns the options for the fair locks.
    fn fair(&self) -> FifoConfig {
        let default = FifoConfig::default();
        FifoConfig {
            timeout: self.timeout,
            label: self.label.clone(),
            mode: self.mode,
            remove_when_idle: self.remove_when_idle,
            poll_interval: self.poll_interval.unwrap_or(default.poll_interval),
            claim_window: self.claim_window.unwrap_or(default.claim_window),
            ..default
        }
    }
}

/// Returns the canonical path of a directory. Creates the directory if it is missing.
fn ensured(directory: &Path) -> Result<PathBuf> {
    // Checked first: without the right to create, the error may be another than `AlreadyExists`.
    if !directory.is_dir() {
        match std::fs::create_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // Another process created it first, or it is something else.
                if !directory.is_dir() {
                    let text = "the place of the locks is not a directory";
                    return Err(Error::at(ErrorKind::InvalidInput, text, directory));
                }
            }
            made => made.map_err(|e| Error::io("create the directory", directory, e))?,
        }
    }
    let found = directory.canonicalize();
    found.map_err(|e| Error::io("find the directory", directory, e))
}

impl LockDir {
    /// Opens a directory of locks. Creates the directory if it is missing; its parents must exist.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`] when the directory cannot be created or found.
    /// - [`ErrorKind::InvalidInput`] when something else is at the path.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(directory)
    }

    /// Returns the default options.
    pub fn options() -> LockDirOptions {
        LockDirOptions::default()
    }

    /// Opens the lock with this name in a namespace, or in none (`None`).
    ///
    /// Nothing is created before the first acquire, except the record of a name that is too long
    /// for a file name.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Incompatible`] when the name is in use for another kind of lock or by another
    ///   method, as far as the disk shows it.
    /// - [`ErrorKind::InvalidInput`] for a name of more than about a million bytes.
    /// - Those of [`FifoLock::open`](crate::FifoLock::open).
    pub fn lock<'a>(&self, namespace: impl Into<Option<&'a str>>, name: &str) -> Result<NamedLock> {
        let name = LockName::new(namespace, name);
        let place = match self.config.method {
            Method::Fake => self.place(&name),
            _ => self.recorded_place(&name)?,
        };
        NamedLock::new(place, name, self.config.clone())
    }

    /// Opens the reader-writer lock with this name in a namespace, or in none.
    ///
    /// # Errors
    ///
    /// - Those of [`lock`](LockDir::lock).
    /// - [`ErrorKind::Unsupported`] unless the method is [`Method::Fifo`].
    pub fn rwlock<'a>(
        &self,
        namespace: impl Into<Option<&'a str>>,
        name: &str,
    ) -> Result<FifoRwLock> {
        self.refuse_other_methods("a reader-writer lock")?;
        let place = self.recorded_place(&LockName::new(namespace, name))?;
        place.refuse_others()?;
        FifoRwLock::with_config(&place.lock(), self.config.fair())
    }

    /// Opens the semaphore with this name in a namespace, or in none.
    ///
    /// # Errors
    ///
    /// - Those of [`rwlock`](LockDir::rwlock).
    /// - Those of [`FifoSemaphore::open`].
    pub fn semaphore<'a>(
        &self,
        namespace: impl Into<Option<&'a str>>,
        name: &str,
        permits: u32,
    ) -> Result<FifoSemaphore> {
        self.refuse_other_methods("a semaphore")?;
        let name = LockName::new(namespace, name);
        self.recorded_place(&name)?.refuse_lock()?;
        let options = SemaphoreOptions::of_fair(self.config.fair()).limit(permits);
        options.open(&self.path, name.stem())
    }

    fn refuse_other_methods(&self, what: &str) -> Result<()> {
        if self.config.method == Method::Fifo {
            return Ok(());
        }
        let text = format!(
            "{what} needs Method::Fifo, and these locks use {:?}",
            self.config.method
        );
        Err(Error::at(ErrorKind::Unsupported, text, &*self.path))
    }

    /// Returns what the locks here can and cannot do.
    pub fn capabilities(&self) -> Capabilities {
        let events = FileSystem::at(&self.path).reports_closes();
        match self.config.method {
            Method::Fifo => Capabilities::of_fair_file_lock(events),
            Method::Os => Capabilities::of_plain_file_lock(events),
            Method::Mkdir | Method::CreateNew => claim::capabilities(events),
            Method::Fake => fake::capabilities(),
        }
    }

    /// Returns the names of all locks that have files here, sorted. These are the locks that were
    /// acquired before and not removed since.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when the directory, or the record of a long name, cannot be read.
    pub fn list(&self) -> Result<Vec<LockName>> {
        let at = |error| Error::io("list the directory", &*self.path, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(at)? {
            let file = entry.map_err(at)?.file_name();
            let file = file.to_str();
            let file = file.map(|it| it.strip_suffix(".claim").unwrap_or(it));
            if let Some(stem) = file.and_then(|it| it.strip_suffix(".lock")) {
                names.extend(self.name_of(stem)?);
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn name_of(&self, stem: &str) -> Result<Option<LockName>> {
        if !LockName::is_shortened(stem) {
            return Ok(LockName::parse(stem));
        }
        let recorded = recorded::read(&self.path.join(format!("{stem}.name")))?;
        Ok(recorded.filter(|it| it.stem() == stem))
    }

    /// Returns the path of the directory, with all symbolic links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the options of this handle.
    pub fn config(&self) -> &LockDirConfig {
        &self.config
    }

    fn place(&self, name: &LockName) -> Place {
        Place {
            stem: self.path.join(name.stem()),
            recorded: None,
        }
    }

    /// Returns the place of the files of this name. Writes the record of a name that is too long
    /// for a file name.
    fn recorded_place(&self, name: &LockName) -> Result<Place> {
        let mut place = self.place(name);
        let stem = name.stem();
        if LockName::is_shortened(&stem) {
            let path = self.path.join(format!("{stem}.name"));
            recorded::record(&path, name, self.config.mode)?;
            place.recorded = Some(path);
        }
        Ok(place)
    }
}

/// Where the files of a name are.
struct Place {
    /// Without an extension.
    stem: PathBuf,
    recorded: Option<PathBuf>,
}

impl Place {
    /// Returns the path of the lock file.
    fn lock(&self) -> PathBuf {
        let mut path = self.stem.clone().into_os_string();
        path.push(".lock");
        path.into()
    }

    /// Refuses a name that a semaphore uses.
    fn refuse_semaphore(&self) -> Result<()> {
        match FifoKind::at(&self.stem)? {
            Some(kind @ FifoKind::Semaphore { limit }) => {
                let text = format!("this name is in use for a {kind} of {limit} permits");
                Err(Error::at(ErrorKind::Incompatible, text, &self.stem))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a name that a semaphore uses, or a lock by another method.
    fn refuse_others(&self) -> Result<()> {
        self.refuse_semaphore()?;
        let path = self.lock();
        let claim = claim_directory(&path);
        let exists = claim.try_exists();
        if exists.map_err(|e| Error::io("look for the claims in", &claim, e))? {
            let text = "this name is in use for a lock of another method, Method::Mkdir or Method::CreateNew";
            return Err(Error::at(ErrorKind::Incompatible, text, claim));
        }
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {
                let text = "a directory is at the path of the lock file: this name is in use for another method";
                Err(Error::at(ErrorKind::Incompatible, text, &path))
            }
            // Any other problem appears when the file is opened.
            _ => Ok(()),
        }
    }

    /// Refuses a name whose lock file, or the queue beside it, exists already.
    fn refuse_lock_file(&self) -> Result<()> {
        let path = self.lock();
        let text = match FifoKind::at(&path)? {
            Some(kind) => {
                format!("this name is in use for a {kind} of another method, Method::Fifo")
            }
            // Any other problem appears when the claim is made.
            None if path.symlink_metadata().is_err() => return Ok(()),
            None => {
                "this name is in use for a lock of another method: its lock file exists".to_owned()
            }
        };
        Err(Error::at(ErrorKind::Incompatible, text, path))
    }

    /// Refuses a name that a lock uses.
    fn refuse_lock(&self) -> Result<()> {
        let path = self.lock();
        match FifoKind::at(&path)? {
            Some(kind) => {
                let text = format!("this name is in use for a {kind}, not for a semaphore");
                Err(Error::at(ErrorKind::Incompatible, text, &path))
            }
            None => Ok(()),
        }
    }
}
