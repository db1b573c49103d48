//! A directory of locks that have names instead of paths. How a name becomes that of a file stands in [`name`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::sys::host;
use crate::error::{Error, ErrorKind, Result};
use crate::options::setters;

mod fake;
mod lock;
pub(crate) mod name;
mod recorded;

pub use lock::NamedLock;
pub(crate) use lock::Place;
pub use name::LockName;

/// A directory of locks with names: any text, in a namespace or in none.
///
/// Equal names in two namespaces are two locks, and so are names that differ in case only, on every file system. The lock of the name `deploy` outside any namespace is
/// the file `deploy.lock`; `docs/protocol.md` tells how other names are written. Cheap to clone.
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

/// How the locks of a [`LockDir`] lock. All who use a directory must use the same method for the same names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// By a [`FifoLock`](crate::FifoLock): fair, with tokens. Excludes [`Os`](Method::Os) on the same name, and the other way round.
    #[default]
    Fifo,
    /// By a [`FileLock`](crate::FileLock): the plain lock of the operating system, without a line.
    Os,
    /// By a directory that moves from name to name. For places where the operating system's locks do not work: needs nothing of the file system
    /// but that a rename happens whole. Tokens, no line; a holder that died is passed at once if this process can tell, else after
    /// [`expire`](LockDirConfig::expire). Excludes [`CreateNew`](Method::CreateNew) on the same name.
    Mkdir,
    /// The same by a file.
    CreateNew,
    /// Not at all: every acquire is granted at once, whoever else has the lock, and nothing is written. For programs whose users may
    /// switch locking off. [`Capabilities::excludes`](crate::Capabilities::excludes) and [`Status::excludes`](crate::Status::excludes) say so.
    Fake,
}

/// The options of a [`LockDir`], with their defaults; [`LockDir::config`] reads them back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockDirConfig {
    /// How its locks lock; default [`Method::Fifo`].
    pub method: Method,
    /// Time limit of an acquire that sets none; `None`, the default, waits for ever.
    pub timeout: Option<Duration>,
    /// With [`Method::Mkdir`] and [`Method::CreateNew`]: how long a holder may be silent before others take the lock over; `None`, the default, for
    /// ever, save when its process is provably gone. A living holder renews its claim at a third of this, whatever its tasks do, so
    /// only one that was stopped, or whose host is gone, is ever passed; it [hears of that](crate::AnyGuard::lost), and the next one is told that it died inside. At least 100 ms, and far longer than any
    /// pause of a host or of a file system: a minute is not too much.
    pub expire: Option<Duration>,
    /// How often a waiter looks again although it was told nothing; `None`, the default, as often as the method does by itself, every second or
    /// less. [`Duration::MAX`] switches it off.
    pub poll_interval: Option<Duration>,
    /// What holders and waiters are called in a status; none by default. [`Method::Os`] does not tell it.
    pub label: Option<String>,
    /// Permission bits of lock files that have to be created, as [`FifoConfig::mode`](crate::FifoConfig::mode).
    pub mode: Option<u32>,
}

/// Builds a [`LockDir`]; made by [`LockDir::options`].
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a directory is opened with them"]
pub struct LockDirOptions {
    config: LockDirConfig,
}

impl LockDirOptions {
    setters! { LockDirConfig:
        method plain Method;
        timeout limit;
        expire limit;
        poll_interval limit;
        label text;
        mode some u32;
    }

    /// Opens the directory; see [`LockDir::open`].
    pub fn open(self, directory: impl AsRef<Path>) -> Result<LockDir> {
        let path = ensured(directory.as_ref())?;
        Ok(LockDir {
            path: path.into(),
            config: Arc::new(self.config),
        })
    }
}

/// The canonical path of a directory, which is made if it is missing.
fn ensured(directory: &Path) -> Result<PathBuf> {
    // Asked first: where making is not allowed the answer need not be that it exists.
    if !directory.is_dir() {
        match std::fs::create_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // Another process was faster, or it is something else.
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
    /// Opens a directory of locks, and makes it if it is missing; its parents must exist.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when it cannot be made or found; [`ErrorKind::InvalidInput`] when something else is there.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(directory)
    }

    /// Starts with the default options.
    pub fn options() -> LockDirOptions {
        LockDirOptions::default()
    }

    /// The lock of this name in a namespace, or in none (`None`).
    ///
    /// Nothing is created before the first acquire, save the record of a name that is too long for a file name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Incompatible`] when the name is in use for another kind of lock or by another method, as far as that shows on disk; else those
    /// of [`FifoLock::open`](crate::FifoLock::open). [`ErrorKind::InvalidInput`] also for a name above a million bytes, and for an
    /// [`expire`](LockDirConfig::expire) below 100 ms where the method has one.
    pub fn lock<'a>(&self, namespace: impl Into<Option<&'a str>>, name: &str) -> Result<NamedLock> {
        let name = LockName::new(namespace, name);
        let place = match self.config.method {
            Method::Fake => self.place(&name),
            _ => self.recorded_place(&name)?,
        };
        NamedLock::new(place, name, &self.config)
    }

    /// The names of all locks that have files here, in order: those that were acquired once and not removed since.
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

    /// The directory, with every link on the way resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The options it was opened with.
    pub fn config(&self) -> &LockDirConfig {
        &self.config
    }

    /// Whether waiters here are told of a release.
    pub(crate) fn has_events(&self) -> bool {
        host::tells_closes_in(&self.path)
    }

    fn place(&self, name: &LockName) -> Place {
        Place {
            stem: self.path.join(name.stem()),
            recorded: None,
        }
    }

    /// Where the files of this name are; one that is too long is put on record.
    pub(crate) fn recorded_place(&self, name: &LockName) -> Result<Place> {
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
