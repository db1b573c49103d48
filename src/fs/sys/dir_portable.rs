//! The queue directory where there is no kept descriptor: everything by path.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, FileId};
use super::flock;
use super::fork::Private;

/// A queue directory.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
}

/// What a look at a name finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) id: FileId,
    pub(crate) marked: bool,
}

/// A time at which a directory was changed for the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unchanged {}

impl Dir {
    /// Finds the directory; `None` when there is none.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Ok(Some(Self {
                path: path.to_path_buf(),
            })),
            Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the directory with exactly these permissions and, where that is allowed, this group, or leaves an existing one as it is.
    pub(crate) fn create(path: &Path, mode: u32, group: u32) -> io::Result<()> {
        match DirBuilder::new().create(path) {
            Ok(()) => file::open_to_group(path, mode, group),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Permission bits for the files in here: those of the directory without the right to enter.
    pub(crate) fn mode(&self) -> u32 {
        file::mode_of_path(&self.path).map_or(0o600, |mode| mode & 0o666)
    }

    /// Something to watch; there is nothing that could be watched here.
    pub(crate) fn descriptor(&self) -> Option<&File> {
        None
    }

    /// Since when the directory has been as it is: not known here.
    pub(crate) fn unchanged_since(&self) -> Option<Unchanged> {
        None
    }

    /// Calls `each` with name (and inode, not known here) of every regular file; `false` when the directory itself has been removed.
    pub(crate) fn list(&mut self, mut each: impl FnMut(&[u8], u64)) -> io::Result<bool> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type().is_ok_and(|it| it.is_file()) {
                each(entry.file_name().as_encoded_bytes(), 0);
            }
        }
        Ok(true)
    }

    /// Creates a ticket and locks it. A reaper may be faster than the lock; then the name or the lock is gone, and the
    /// caller takes another number.
    ///
    /// [`io::ErrorKind::AlreadyExists`]: the name is taken. [`io::ErrorKind::NotFound`]: the directory is gone.
    pub(crate) fn create_locked(&self, name: &str, mode: u32) -> io::Result<(Private, FileId)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = options.open(self.path.join(name))?;
        file::set_mode(&file, mode)?;
        let file = Private::new(file);
        let id = file::id_of(&file)?;
        let locked = flock::try_lock_exclusive(&file)?;
        if locked && self.find(name)?.is_some_and(|found| found.id == id) {
            return Ok((file, id));
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Gives an open file one more name; not to be had here.
    pub(crate) fn link(&self, _file: &File, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives a file of this directory another name, in place of what has it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    /// Opens a ticket of somebody else to try its lock; `None` when it is gone.
    pub(crate) fn open_ticket(&self, name: &str) -> io::Result<Option<File>> {
        Ok(file::open_existing(&self.path.join(name))?.map(|(file, _)| file))
    }

    /// Looks at a name.
    pub(crate) fn find(&self, name: &str) -> io::Result<Option<Found>> {
        let found = file::look_at(&self.path.join(name))?;
        Ok(found.map(|(id, marked)| Found { id, marked }))
    }

    /// Notes on a ticket's file whose it is: not done here.
    pub(crate) fn describe(_file: &File, _words: &str) {}

    /// Whose the file of this name is: not known here.
    pub(crate) fn description(&self, _name: &str) -> Option<String> {
        None
    }

    /// Removes a name; one that is gone already is no error.
    pub(crate) fn unlink(&self, name: &str) -> io::Result<()> {
        #[allow(clippy::disallowed_methods)] // the one place
        let removed = std::fs::remove_file(self.path.join(name));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
