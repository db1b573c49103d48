//! The queue directory on platforms without a kept descriptor. Every call uses a path.

use std::fs::{DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, Facts, FileId};
use super::flock;
use super::fork::Private;
use super::replace;
use super::rights::Rights;

/// A queue directory.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
}

/// The result of a look at a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) id: FileId,
    pub(crate) marked: bool,
}

/// The result of opening another process's ticket.
#[derive(Debug)]
pub(crate) enum Opened {
    File {
        file: File,
        /// Whether it can be marked too.
        writable: bool,
    },
    Gone,
    /// This process may not open it, so it cannot learn whether the owner lives.
    Denied,
}

/// The time of the last change of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unchanged {}

impl Dir {
    /// Finds the directory. Returns `None` if there is none.
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

    /// Creates the directory for the same users as the file `door`, as far as bits can. An existing
    /// one stays as it is. Does nothing without that file.
    pub(crate) fn create(path: &Path, door: &Path) -> io::Result<()> {
        let Some(rights) = Rights::at_path(door)? else {
            return Ok(());
        };
        match DirBuilder::new().create(path) {
            Ok(()) => rights.give_to_directory(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns who may use the files in here: the users of the lock file, or those of the directory
    /// if there is none.
    pub(crate) fn rights(&self, door: &Path) -> io::Result<Rights> {
        if let Some(rights) = Rights::at_path(door)? {
            return Ok(rights);
        }
        let rights = Rights::at_path(&self.path)?.map(Rights::of_files_in);
        rights.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Returns `false`: files of other processes are not adopted here.
    pub(crate) fn is_for(_file: &File, _rights: &Rights) -> bool {
        false
    }

    /// Returns `None`: nothing can be watched here.
    pub(crate) fn descriptor(&self) -> Option<&File> {
        None
    }

    /// Returns `None`: not known here.
    pub(crate) fn unchanged_since(&self) -> Option<Unchanged> {
        None
    }

    /// Calls `each` with the name of every regular file. The inode is not known here. Returns
    /// `false` if the directory has been removed.
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

    /// Creates a ticket and locks it. Another process may reap it before the lock. Then the name or
    /// the lock is gone, and the caller takes another number.
    ///
    /// Fails with [`io::ErrorKind::AlreadyExists`] if the name exists, and with
    /// [`io::ErrorKind::NotFound`] if the directory is gone.
    pub(crate) fn create_locked(
        &self,
        name: &str,
        rights: &Rights,
    ) -> io::Result<(Private, FileId)> {
        let file = Private::new(create(&self.path.join(name), rights)?);
        let id = file::id_of(&file)?;
        let locked = flock::try_lock_exclusive(&file)?;
        if locked && self.find(name)?.is_some_and(|found| found.id == id) {
            return Ok((file, id));
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Opens a file that is no ticket, or creates it with these rights.
    pub(crate) fn open_or_make(
        &self,
        name: &str,
        rights: impl Fn() -> io::Result<Rights>,
    ) -> io::Result<(File, Facts)> {
        let path = self.path.join(name);
        loop {
            if let Some(found) = file::open_existing(&path)? {
                return Ok(found);
            }
            match create(&path, &rights()?) {
                // A dangling symbolic link exists for one call and is missing for the other.
                // Without this check the loop would not end.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    file::check_lock_path(&path)?;
                }
                made => return file::checked(made?),
            }
        }
    }

    /// Fails: links are not supported here.
    pub(crate) fn link(&self, _file: &File, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens another process's ticket to try its lock and to mark it.
    pub(crate) fn open_ticket(&self, name: &str) -> io::Result<Opened> {
        let path = self.path.join(name);
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let (opened, writable) = match file::open_existing(&path) {
            Err(error) if denied(&error) => (file::open_to_read(&path), false),
            opened => (opened.map(|it| it.map(|(file, _)| file)), true),
        };
        match opened {
            Ok(Some(file)) => Ok(Opened::File { file, writable }),
            Ok(None) => Ok(Opened::Gone),
            Err(error) if denied(&error) => Ok(Opened::Denied),
            Err(error) => Err(error),
        }
    }

    /// Renames a file of this directory, in place of the file that has the new name.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    /// Looks at a name.
    pub(crate) fn find(&self, name: &str) -> io::Result<Option<Found>> {
        let found = file::look_at(&self.path.join(name))?;
        Ok(found.map(|(id, marked)| Found { id, marked }))
    }

    /// Does nothing: notes are not supported here.
    pub(crate) fn describe(_file: &File, _words: &str) {}

    /// Fails: notes are not supported here.
    pub(crate) fn description(&self, _name: &str) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a name. Succeeds if it is gone already.
    pub(crate) fn unlink(&self, name: &str) -> io::Result<()> {
        #[allow(clippy::disallowed_methods)] // The one place.
        let removed = std::fs::remove_file(self.path.join(name));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Creates a file beside `model`, for the same users as far as bits can. Returns `None` without a
/// model. Fails with [`io::ErrorKind::AlreadyExists`] if the name exists.
pub(crate) fn make_like(path: &Path, model: &Path) -> io::Result<Option<(File, Facts)>> {
    let Some(rights) = Rights::at_path(model)? else {
        return Ok(None);
    };
    file::checked(create(path, &rights)?).map(Some)
}

fn create(path: &Path, rights: &Rights) -> io::Result<File> {
    let file = replace::create_named(path, 0o666)?;
    rights.give(&file)?;
    Ok(file)
}

/// Creates a record, with the rights that the umask allows.
pub(crate) fn make_record(path: &Path) -> io::Result<File> {
    replace::create_named(path, 0o666)
}

/// Creates a directory, with the rights that the umask allows. An existing one stays as it is.
pub(crate) fn make_shared(path: &Path) -> io::Result<()> {
    match DirBuilder::new().create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Creates a directory that must not exist.
pub(crate) fn make_shared_draft(path: &Path) -> io::Result<()> {
    DirBuilder::new().create(path)
}
