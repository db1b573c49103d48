//! The door: the lock file itself. The process that has the OS lock on it holds the lock. Nothing
//! else decides that.
//!
//! Every use opens the file anew, because its *close* wakes the next waiter. A process that has
//! locked the door, even for an instant, unlocks and then closes that descriptor ([`Door::leave`]).
//! The kernel announces a close before it drops the lock, so a close alone would wake the next
//! waiter too early.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::status::Removal;
use crate::step::{self, Step};
use crate::sys::dir::{Dir, Directory};
use crate::sys::file::{self, FileId};
use crate::sys::flock;
use crate::sys::fork::Private;

/// How often a refused lock is tried before it counts as held. Another probe may have it for an
/// instant.
const TRIES: usize = 16;

/// An open lock file, locked or not.
#[derive(Debug)]
pub(crate) struct Door {
    file: Private,
    id: FileId,
}

/// The result of probing a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    Free,
    /// Other processes share it.
    Shared,
    /// One process has it exclusively.
    Exclusive,
}

impl Door {
    /// Opens the lock file. Creates it if it is missing.
    pub(crate) fn open(path: &Path, bits: Option<u32>) -> io::Result<Self> {
        file::open_lock_file(path, bits).map(Self::new)
    }

    /// Opens the lock file, if there is one.
    pub(crate) fn open_existing(path: &Path) -> io::Result<Option<Self>> {
        Ok(file::open_existing(path)?.map(Self::new))
    }

    /// Opens a lock file. If it is missing, creates it for the same users as the `model` beside it,
    /// which is created with `bits` if it is missing too.
    pub(crate) fn open_like(path: &Path, model: &Path, bits: Option<u32>) -> io::Result<Self> {
        loop {
            if let Some(door) = Self::open_existing(path)? {
                return Ok(door);
            }
            if file::id_at(model)?.is_none() {
                drop(Self::open(model, bits)?);
            }
            match Dir::make_like(path, model) {
                Ok(Some(made)) => return Ok(Self::new(made)),
                Ok(None) => {}
                // A dangling symbolic link exists for one call and is missing for the other.
                // Without this check the loop would not end.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    file::check_lock_path(path)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Does the same for a process that may only read the file. This is enough to lock it, except
    /// on some servers.
    fn open_to_probe(path: &Path) -> io::Result<Option<Self>> {
        match Self::open_existing(path) {
            Err(error) if is_refusal_to_write(&error) => {}
            opened => return opened,
        }
        let Some(file) = file::open_to_read(path)? else {
            return Ok(None);
        };
        let (id, _) = file::facts_of(&file, path)?;
        Ok(Some(Self::new((file, id))))
    }

    fn new((file, id): (File, FileId)) -> Self {
        Self {
            file: Private::new(file),
            id,
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    pub(crate) fn try_lock(&self, shared: bool) -> io::Result<bool> {
        flock::try_lock(&self.file, shared)
    }

    /// Converts the exclusive lock into a shared one, without releasing it in between. Returns
    /// `false` if the lock was lost. The caller must call [`Door::ring`] afterwards.
    pub(crate) fn share(&self) -> io::Result<bool> {
        step::at(Step::ShareDoor);
        flock::share(&self.file)
    }

    /// Gives up a shared lock and tries to get the exclusive one. If this fails, the shared lock is
    /// lost, because no platform converts it in one step.
    pub(crate) fn try_alone(&self) -> io::Result<bool> {
        step::at(Step::AskDoor);
        flock::unlock(&self.file)?;
        self.try_lock(false)
    }

    /// Wakes those that wait at the door, without unlocking it. The only signal is a close, so this
    /// opens and closes the file.
    pub(crate) fn ring(&self, path: &Path) {
        step::at(Step::RingDoor);
        // A waiter that does not learn of it tries again at its next poll.
        let _ = file::open_existing(path);
    }

    /// Returns whether the path still means this file.
    pub(crate) fn is_current(&self, path: &Path) -> io::Result<bool> {
        Ok(file::id_at(path)? == Some(self.id))
    }

    /// Unlocks, then closes. If the unlock fails, the close releases the lock.
    pub(crate) fn leave(self) -> io::Result<()> {
        Self::leave_last(Arc::new(self))
    }

    /// Does the same for the last owner of a door that guards have shared.
    pub(crate) fn leave_last(door: Arc<Self>) -> io::Result<()> {
        debug_assert_eq!(Arc::strong_count(&door), 1, "a guard still has the door");
        step::at(Step::UnlockDoor);
        let result = flock::unlock(&door.file);
        step::at(Step::CloseDoor);
        drop(door);
        result
    }
}

fn is_refusal_to_write(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Tries the lock on the file at this path. This does not affect a holder; the first waiter tries
/// once more. A free lock is held for about a microsecond, and then unlocked and closed like any
/// door.
pub(crate) fn probe(path: &Path) -> Result<Probed> {
    let at = |step, error| Error::io(step, path, error);
    for _ in 0..TRIES {
        let opened = Door::open_to_probe(path).map_err(|e| at("open the lock file", e))?;
        let Some(door) = opened else {
            return Ok(Probed::Free);
        };
        let id = door.id();
        let found = try_briefly(&door).map_err(|e| at("lock the lock file", e))?;
        match found {
            Probed::Exclusive => drop(door),
            // Unlock before anything else, so that no process finds it locked.
            Probed::Free | Probed::Shared => {
                door.leave().map_err(|e| at("unlock the lock file", e))?;
            }
        }
        let now = file::id_at(path).map_err(|e| at("look at the lock file", e))?;
        if now == Some(id) {
            return Ok(found);
        }
    }
    let text = "the lock file is replaced whenever it is opened";
    Err(Error::at(ErrorKind::Corrupt, text, path))
}

/// Locks the door if it is free, or shared.
fn try_briefly(door: &Door) -> io::Result<Probed> {
    for _ in 0..TRIES {
        if door.try_lock(false)? {
            return Ok(Probed::Free);
        }
        std::hint::spin_loop();
    }
    Ok(match door.try_lock(true)? {
        true => Probed::Shared,
        false => Probed::Exclusive,
    })
}

/// Deletes a file that no process has locked, under its lock.
pub(crate) fn remove_if_free(path: &Path) -> Result<Removal> {
    let at = |step, error| Error::io(step, path, error);
    let Some(door) = Door::open_existing(path).map_err(|e| at("open the file", e))? else {
        return Ok(Removal::Removed);
    };
    if !door.try_lock(false).map_err(|e| at("lock the file", e))? {
        return Ok(Removal::InUse);
    }
    let removed = unlink_if_same(path, door.id());
    let left = door.leave().map_err(|e| at("unlock the file", e));
    removed.and(left).map(|()| Removal::Removed)
}

/// Deletes a file that this process has locked, unless its name means another file by now.
pub(crate) fn unlink_if_same(path: &Path, id: FileId) -> Result<()> {
    let found = file::id_at(path).map_err(|e| Error::io("look at the file", path, e))?;
    match found == Some(id) {
        true => remove_file(path, "remove the file"),
        false => Ok(()),
    }
}

/// Deletes a file. Succeeds if it is gone already.
pub(crate) fn remove_file(path: &Path, step: &'static str) -> Result<()> {
    remove_file_in(path, path, step)
}

/// Does the same for a file in a directory that may be removed next.
pub(crate) fn remove_file_in(directory: &Path, path: &Path, step: &'static str) -> Result<()> {
    match file::remove(path, directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(step, path, error))
        }
        _ => Ok(()),
    }
}
