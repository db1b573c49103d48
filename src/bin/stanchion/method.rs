//! Locks without a queue that a command cannot inherit, and locks on a server.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use stanchion::{
    Acquire, AnyGuard, AnyLock, AnySemaphore, AnySharedLock, Changes, ErrorKind, LockDir,
    LockDirOptions, LockName, Locks, NamedLock, PidLock, Removal, Result, Status,
};

use crate::exit::Failure;

/// The beginning of the third line of a pid file, and the greatest size of the file; see
/// `docs/protocol.md`.
const PID_WORDS: &[u8] = b"stanchion pid ";
const PID_FILE: u64 = 8192;

/// How to acquire a lock that is not fair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// By a directory that is renamed; LOCK ends in .lock
    Mkdir,
    /// The same by a file
    // A URL of the library writes it with an underscore.
    #[value(alias = "create_new")]
    CreateNew,
    /// By a pid file at LOCK
    Pid,
}

/// The options of such a lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) expire: Option<Duration>,
    pub(crate) label: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Unlined {
    Named(NamedLock),
    Pid(PidLock),
    Far(Far),
}

/// A lock on a server.
#[derive(Clone, Debug)]
pub(crate) struct Far {
    kind: FarKind,
    /// Its URL, without a password and with its name.
    shown: PathBuf,
}

#[derive(Clone, Debug)]
enum FarKind {
    Lock(AnyLock),
    RwLock(AnySharedLock, bool),
    Semaphore(AnySemaphore, u32),
}

/// How to take a lock on a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Want {
    #[default]
    Alone,
    Shared,
    Exclusive,
    /// Some permits of a semaphore.
    Permits {
        some: u32,
        of: u32,
    },
}

impl Far {
    /// `place` is the URL with its password, `shown` the URL without it.
    pub(crate) async fn connect(
        place: &str,
        shown: String,
        name: &str,
        want: Want,
        label: Option<&str>,
    ) -> Result<Self> {
        let locks = match label {
            Some(label) => Locks::options().label(label).connect(place).await?,
            None => Locks::connect(place).await?,
        };
        let kind = match want {
            Want::Alone => FarKind::Lock(locks.lock(name)?),
            Want::Shared => FarKind::RwLock(locks.rwlock(name)?, false),
            Want::Exclusive => FarKind::RwLock(locks.rwlock(name)?, true),
            Want::Permits { some, of } => FarKind::Semaphore(locks.semaphore(name, of)?, some),
        };
        let shown = format!("{shown}#{name}").into();
        Ok(Self { kind, shown })
    }

    pub(crate) fn acquire(&self) -> Acquire<AnyGuard> {
        match &self.kind {
            FarKind::Lock(lock) => lock.acquire(),
            FarKind::RwLock(lock, false) => lock.acquire_shared(),
            FarKind::RwLock(lock, true) => lock.acquire(),
            FarKind::Semaphore(lock, permits) => lock.acquire_many(*permits),
        }
    }

    fn limit(&self) -> Option<u32> {
        match &self.kind {
            FarKind::Semaphore(lock, _) => Some(lock.limit()),
            FarKind::Lock(_) | FarKind::RwLock(..) => None,
        }
    }

    async fn status(&self) -> Result<Status> {
        match &self.kind {
            FarKind::Lock(lock) => lock.status().await,
            FarKind::RwLock(lock, _) => lock.status().await,
            FarKind::Semaphore(lock, _) => lock.status().await,
        }
    }

    fn changes(&self) -> Changes {
        match &self.kind {
            FarKind::Lock(lock) => lock.changes(),
            FarKind::RwLock(lock, _) => lock.changes(),
            FarKind::Semaphore(lock, _) => lock.changes(),
        }
    }
}

impl Unlined {
    pub(crate) fn open(path: &Path, method: Method, terms: Terms) -> Result<Self, Failure> {
        if method == Method::Pid {
            if terms.expire.is_some() {
                let text = "--expire is not possible for a pid file: it is taken over only from a process that is gone";
                return Err(Failure::usage(text));
            }
            let mut options = PidLock::options();
            if let Some(label) = terms.label {
                options = options.label(label);
            }
            return Ok(Self::Pid(options.open(path)?));
        }
        let mut options = LockDir::options()
            .method(named(method))
            .expire(terms.expire);
        if let Some(label) = terms.label {
            options = options.label(label);
        }
        Self::by_name(path, options).map(Self::Named)
    }

    /// Returns the lock that a claim beside the path, or a pid file at the path, belongs to.
    pub(crate) fn found(path: &Path) -> Result<Option<Self>, Failure> {
        let path = path.to_path_buf();
        if is_pid_file(&path) {
            return Ok(Some(Self::Pid(PidLock::open(path)?)));
        }
        let mut claim = path.clone().into_os_string();
        claim.push(".claim");
        if !Path::new(&claim).is_dir() {
            return Ok(None);
        }
        let options = LockDir::options().method(named(Method::Mkdir));
        Self::by_name(&path, options).map(|it| Some(Self::Named(it)))
    }

    fn by_name(path: &Path, options: LockDirOptions) -> Result<NamedLock, Failure> {
        let name = path.file_name().and_then(|it| it.to_str());
        let name = name.and_then(|it| LockName::from_stem(it.strip_suffix(".lock")?));
        let (Some(directory), Some(name)) = (path.parent(), name) else {
            let text = format!(
                "with this method {} must be NAME.lock in a directory, NAME as a lock's name is written there",
                path.display()
            );
            return Err(Failure::usage(text));
        };
        let directory = match directory.as_os_str().is_empty() {
            true => Path::new("."),
            false => directory,
        };
        let directory = options.open(directory);
        let lock = directory.and_then(|it| it.lock(name.namespace(), name.name()));
        lock.map_err(|error| match error.kind() {
            // Such as an expiry that is too short.
            ErrorKind::InvalidInput => Failure::usage(error.to_string()),
            _ => error.into(),
        })
    }

    /// Returns what holds such a lock, for an error message.
    pub(crate) fn methods(&self) -> &'static str {
        match self {
            Self::Named(_) => "--method mkdir or create-new",
            Self::Pid(_) => "--method pid",
            Self::Far(_) => "a server",
        }
    }

    pub(crate) fn limit(&self) -> Option<u32> {
        match self {
            Self::Far(lock) => lock.limit(),
            Self::Named(_) | Self::Pid(_) => None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Named(lock) => lock.path(),
            Self::Pid(lock) => lock.path(),
            Self::Far(lock) => &lock.shown,
        }
    }

    pub(crate) async fn status(&self) -> Result<Status> {
        match self {
            Self::Named(lock) => lock.status(),
            Self::Pid(lock) => lock.status(),
            Self::Far(lock) => lock.status().await,
        }
    }

    pub(crate) fn changes(&self) -> Result<Changes, Failure> {
        match self {
            Self::Far(lock) => Ok(lock.changes()),
            Self::Named(_) | Self::Pid(_) => {
                let text = "changes of a lock of this method cannot be watched; run status again instead of --watch";
                Err(Failure::usage(text))
            }
        }
    }

    pub(crate) fn remove(&self) -> Result<Removal, Failure> {
        Ok(match self {
            Self::Named(lock) => lock.remove()?,
            Self::Pid(lock) => lock.remove()?,
            Self::Far(_) => {
                let text = "a lock on a server cannot be removed; the server deletes an unused lock by itself";
                return Err(Failure::usage(text));
            }
        })
    }
}

/// Returns whether this is a pid file of the library. A file that cannot be read is reported when
/// it is opened.
fn is_pid_file(path: &Path) -> bool {
    let mut text = Vec::new();
    let is_file = path.symlink_metadata().is_ok_and(|it| it.is_file());
    let Some(file) = is_file.then(|| File::open(path).ok()).flatten() else {
        return false;
    };
    let read = file.take(PID_FILE).read_to_end(&mut text);
    let mut lines = text.split(|it| *it == b'\n');
    read.is_ok() && lines.nth(2).is_some_and(|it| it.starts_with(PID_WORDS))
}

fn named(method: Method) -> stanchion::Method {
    match method {
        Method::Mkdir => stanchion::Method::Mkdir,
        Method::CreateNew | Method::Pid => stanchion::Method::CreateNew,
    }
}
