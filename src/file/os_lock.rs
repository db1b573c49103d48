//! The plain OS lock on a file, as a [target](super::wait::Target) that can be tried and
//! waited for.
//!
//! # Invariants
//!
//! 1. The waiter opens the file, then watches it, then tries again. So no event is lost between an
//!    attempt and the watch.
//! 2. A lock counts only if the path still leads to the locked file. If the file was deleted or
//!    replaced, the process releases the lock and opens the path again. A waiter compares the path.
//!    A caller that did not wait checks only that the file was not deleted.
//! 3. A process that has locked the file, even for an instant, unlocks it and then closes it. Other
//!    waiters watch for the close.
//!
//! # Fairness
//!
//! None. The kernel serves the threads in the lock call in their order. A new caller may acquire
//! before them.
//!
//! # Cost
//!
//! A free lock: open, lock, `fstat`; unlock, close.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::wait::{EventSource, Outcome, Refusal, Target, WaitConfig, Wakes};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::file::{self, FileId};
use crate::sys::fork::Private;
use crate::sys::{Access, flock};
use crate::watch::lock_thread::LockThread;
use crate::watch::wait::Wait;
use crate::watch::{Seen, WatchId, WatcherId, watch};

/// The lock of the file at a path.
#[derive(Debug)]
pub(super) struct PathLock {
    path: PathBuf,
    access: Access,
    config: WaitConfig,
    /// Whether a second lock was seen to be refused on this file system.
    excludes: AtomicBool,
}

/// An open file, locked. It is not locked if the caller holds another lock instead.
#[derive(Debug)]
pub(super) struct Locked {
    file: Private,
    id: FileId,
}

impl Locked {
    pub(super) fn into_parts(self) -> (Private, FileId) {
        (self.file, self.id)
    }
}

/// The result of a first attempt.
pub(super) enum First {
    Locked(Locked),
    /// Another caller holds the lock. The file is open.
    Refused(Private),
}

impl PathLock {
    pub(super) fn new(path: PathBuf, access: Access, config: WaitConfig) -> Self {
        Self {
            path,
            access,
            config,
            excludes: AtomicBool::new(false),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn config(&self) -> &WaitConfig {
        &self.config
    }

    fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Error::io(step, &self.path, error)
    }

    fn open(&self) -> Result<Private> {
        let file = file::open_as(&self.path, &self.access);
        Ok(Private::new(file.map_err(|e| self.io("open the file", e))?))
    }

    /// Opens the file to which the path leads now, for a waiter whose file was deleted or replaced.
    /// `create_new` does not apply, because another process may have created the new file.
    fn open_again(&self) -> Result<Private> {
        let access = Access {
            create: self.access.create || self.access.create_new,
            create_new: false,
            ..self.access
        };
        let file = file::open_as(&self.path, &access);
        let file = Private::new(file.map_err(|e| self.io("open the file", e))?);
        file::facts_of(&file, &self.path).map_err(|e| self.io("look at the file", e))?;
        Ok(file)
    }

    /// Opens the file without locking it, for a caller that holds another lock instead.
    pub(super) fn open_unlocked(&self) -> Result<Locked> {
        let file = self.open()?;
        let facts = file::facts_of(&file, &self.path);
        let (id, _) = facts.map_err(|e| self.io("look at the file", e))?;
        Ok(Locked { file, id })
    }

    /// Opens the file and tries the lock once.
    pub(super) fn try_once(&self, shared: bool) -> Result<First> {
        loop {
            let file = self.open()?;
            let locked = flock::try_lock(&file, shared);
            let locked = locked.map_err(|e| self.io("lock the file", e))?;
            let facts = file::facts_of(&file, &self.path);
            let deleted = match facts.map_err(|e| self.io("look at the file", e)) {
                Ok((id, false)) if locked => {
                    return self.proven(Locked { file, id }).map(First::Locked);
                }
                Ok((_, deleted)) => deleted,
                Err(error) => {
                    give_back(file, locked);
                    return Err(error);
                }
            };
            if !deleted {
                return Ok(First::Refused(file));
            }
            give_back(file, locked);
        }
    }

    /// Returns an error on a file system that grants the lock twice. Checks this once for each
    /// handle.
    fn proven(&self, locked: Locked) -> Result<Locked> {
        if self.excludes.load(Ordering::Relaxed) {
            return Ok(locked);
        }
        let access = Access {
            create: false,
            create_new: false,
            ..self.access
        };
        let granted_twice = match file::open_as(&self.path, &access) {
            // The file was renamed, or may not be opened again. Neither proves that locks work.
            Err(_) => false,
            Ok(second) => flock::is_granted_twice(&locked.file, &second).unwrap_or(false),
        };
        if granted_twice {
            give_back(locked.file, true);
            let text = "this file system grants one lock to two holders";
            return Err(Error::at(ErrorKind::Unsupported, text, &self.path));
        }
        self.excludes.store(true, Ordering::Relaxed);
        Ok(locked)
    }

    /// Returns whether the path names this file.
    fn is_current(&self, id: FileId) -> Result<bool> {
        let found = file::id_at(&self.path).map_err(|e| self.io("look at the file", e))?;
        Ok(found == Some(id))
    }
}

/// An OS lock to wait for.
pub(super) enum OsLock {
    /// The lock of the file at a path. The path may lead to another file by the time of the grant.
    Path(Arc<PathLock>),
    /// The lock of a file that the caller has open. The file stays open, so its close wakes no
    /// waiter.
    Open(WaitConfig),
}

/// The open file, kept between two attempts.
#[derive(Default)]
pub(super) struct Tried {
    shared: bool,
    file: Option<Private>,
    /// The ID of the open file, once it is known.
    id: Option<FileId>,
    /// How often the path was opened.
    opened: u64,
    /// The thread in the lock call. It may get the lock at any time, so no other thread tries it.
    lock_thread: Option<LockThread>,
}

impl Tried {
    /// Returns the state after an attempt that was refused.
    pub(super) fn new(file: Private, shared: bool) -> Self {
        Self {
            shared,
            file: Some(file),
            ..Self::default()
        }
    }

    /// Tries the lock of the open file, or gets the result of the thread in the lock call.
    fn try_lock(&self, file: &Private) -> io::Result<bool> {
        match &self.lock_thread {
            Some(lock_thread) => lock_thread.outcome().unwrap_or(Ok(false)),
            None => flock::try_lock(file, self.shared),
        }
    }

    /// Decides what wakes the waiter.
    fn wakes(
        &mut self,
        file: &Private,
        config: &WaitConfig,
        watcher_id: Option<WatcherId>,
    ) -> Wakes {
        if *config.wait() != Wait::Blocking {
            return Wakes::Event(EventSource::Opened(self.opened));
        }
        let start = |watcher_id| LockThread::start(watcher_id, file, self.shared);
        self.lock_thread = self
            .lock_thread
            .take()
            .or_else(|| watcher_id.and_then(start));
        match self.lock_thread {
            Some(_) => Wakes::Thread,
            // The process has too many such threads already.
            None => Wakes::Nothing,
        }
    }
}

impl OsLock {
    fn open_again(&self, tried: &mut Tried) -> Result<Private> {
        tried.opened += 1;
        tried.id = None;
        match self {
            Self::Path(lock) => lock.open_again(),
            Self::Open(_) => Err(Error::new(
                ErrorKind::Closed,
                "the open file was given back",
            )),
        }
    }

    fn is_current(&self, id: FileId) -> Result<bool> {
        match self {
            Self::Path(lock) => lock.is_current(id),
            Self::Open(_) => Ok(true),
        }
    }
}

impl Target for OsLock {
    type Hold = Locked;
    type Memory = Tried;

    fn attempt(&self, tried: &mut Tried, watcher_id: Option<WatcherId>) -> Result<Outcome<Locked>> {
        loop {
            let file = match tried.file.take() {
                Some(file) => file,
                None => self.open_again(tried)?,
            };
            // Before the lock: an error after it would leave the lock of the open file held.
            let id = match tried.id {
                Some(id) => id,
                None => file::id_of(&file).map_err(|e| self.io("look at the file", e))?,
            };
            tried.id = Some(id);
            let locked = tried.try_lock(&file);
            if locked.map_err(|e| self.io("lock the file", e))? {
                tried.lock_thread = None;
                return Ok(Outcome::Granted(Locked { file, id }));
            }
            if self.is_current(id)? {
                let wakes = tried.wakes(&file, self.config(), watcher_id);
                tried.file = Some(file);
                return Ok(Outcome::Refused(Refusal {
                    owner: None,
                    wakes,
                    within: None,
                }));
            }
            tried.lock_thread = None;
        }
    }

    fn confirm(&self, locked: Locked) -> Result<Option<Locked>> {
        match self.is_current(locked.id) {
            Ok(true) => Ok(Some(locked)),
            other => {
                give_back(locked.file, true);
                other.map(|_| None)
            }
        }
    }

    fn give_back(&self, locked: Locked, tried: &mut Tried) {
        match self {
            Self::Path(_) => give_back(locked.file, true),
            Self::Open(_) => {
                let _ = flock::unlock(&locked.file);
                file::announce(&locked.file);
                tried.file = Some(locked.file);
            }
        }
    }

    fn watch(
        &self,
        tried: &Tried,
        watcher_id: WatcherId,
        _: &EventSource,
    ) -> io::Result<Option<WatchId>> {
        let file = tried.file.as_ref();
        file.map(|file| watch().add(watcher_id, file, Seen::Door))
            .transpose()
    }

    fn io(&self, step: &'static str, error: io::Error) -> Error {
        match self {
            Self::Path(lock) => lock.io(step, error),
            Self::Open(_) => Error::pathless_io(step, error),
        }
    }

    fn place(&self) -> Option<&Path> {
        match self {
            Self::Path(lock) => Some(&lock.path),
            Self::Open(_) => None,
        }
    }

    fn config(&self) -> &WaitConfig {
        match self {
            Self::Path(lock) => &lock.config,
            Self::Open(config) => config,
        }
    }
}

/// Unlocks if it is locked, then closes.
fn give_back(file: Private, locked: bool) {
    if locked {
        // If this fails, the close unlocks.
        let _ = flock::unlock(&file);
    }
    drop(file);
}
