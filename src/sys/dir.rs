//! The queue directory, and what a lock makes beside its lock file.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::file::{self, FileId};
use super::flock;
use super::fork::Private;
use super::rights::Rights;

#[cfg_attr(any(target_os = "linux", target_os = "android"), path = "dir/linux.rs")]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    path = "dir/portable.rs"
)]
mod arm;

pub(crate) use arm::Dir;

/// The time of the last change of a directory.
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unchanged(i64, u32);

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

/// What a queue directory does, and what is made beside a lock file. What a platform does not
/// support, it leaves to the methods here.
pub(crate) trait Directory: Sized {
    /// Creates a file beside `model`, for the same users as far as the platform can. Returns `None`
    /// without a model. Fails with [`ErrorKind::AlreadyExists`] if the name exists.
    fn make_like(path: &Path, model: &Path) -> io::Result<Option<(File, FileId)>>;

    /// Creates a record. All users that may create files in its directory may read it, whatever the
    /// umask, if the platform can do that. Fails with [`ErrorKind::AlreadyExists`] if the name
    /// exists.
    fn make_record(path: &Path) -> io::Result<File>;

    /// Creates a directory in which all users may work that may work in its parent, if the platform
    /// can do that. An existing one stays as it is.
    fn make_shared(path: &Path) -> io::Result<()>;

    /// Does the same for a directory that is renamed before it is used. It has this name from the
    /// beginning, and must not exist.
    fn make_shared_draft(path: &Path) -> io::Result<()>;

    /// Opens the directory. Returns `None` if there is none.
    fn open(path: &Path) -> io::Result<Option<Self>>;

    /// Creates the directory for the same users as the file `door`, which is in the same directory.
    /// An existing one stays as it is. Does nothing without that file.
    fn create(path: &Path, door: &Path) -> io::Result<()>;

    fn path(&self) -> &Path;

    /// Returns who may use the files in here: the users of the lock file, or those of the directory
    /// if there is none.
    fn rights(&self, door: &Path) -> io::Result<Rights>;

    /// Returns whether a file that another process has created has these rights, and belongs to a
    /// user that may have created it.
    fn is_for(_file: &File, _rights: &Rights) -> bool {
        false
    }

    /// Returns a descriptor to watch, if the directory can be watched.
    fn descriptor(&self) -> Option<&File> {
        None
    }

    /// Returns since when the directory is unchanged, if that can be determined. Two equal answers
    /// mean that no file was created or removed in between. Much cheaper than a listing.
    fn unchanged_since(&self) -> Option<Unchanged> {
        None
    }

    /// Calls `each` with the name and the inode of every regular file. Returns `false` if the
    /// directory has been removed.
    fn list(&mut self, each: impl FnMut(&[u8], u64)) -> io::Result<bool>;

    /// Opens a lock file in here, if there is one.
    fn open_existing(&self, name: &str) -> io::Result<Option<(File, FileId)>>;

    /// Creates a file that has its rights when it appears, or soon after where that is not
    /// supported.
    fn make(&self, name: &str, rights: &Rights) -> io::Result<File>;

    /// Opens a file that is no ticket, or creates it with these rights.
    fn open_or_make(
        &self,
        name: &str,
        rights: impl Fn() -> io::Result<Rights>,
    ) -> io::Result<(File, FileId)> {
        loop {
            if let Some(found) = self.open_existing(name)? {
                return Ok(found);
            }
            match self.make(name, &rights()?) {
                // A dangling symbolic link exists for one call and is missing for the other.
                // Without this check the loop would not end.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    file::check_lock_path(&self.path().join(name))?;
                }
                made => return file::checked(made?),
            }
        }
    }

    /// Creates a ticket. It is locked before any process can see it, if the file system supports
    /// files without a name.
    ///
    /// Fails with [`ErrorKind::AlreadyExists`] if the name exists, and with
    /// [`ErrorKind::NotFound`] if the directory is gone.
    fn create_locked(&self, name: &str, rights: &Rights) -> io::Result<(Private, FileId)> {
        self.create_then_lock(name, rights)
    }

    /// Creates a ticket and locks it. Another process may reap it before the lock. Then the name or
    /// the lock is gone, and the caller takes another number.
    fn create_then_lock(&self, name: &str, rights: &Rights) -> io::Result<(Private, FileId)> {
        let file = Private::new(self.make_visible(name, rights)?);
        let id = file::id_of(&file)?;
        let locked = flock::try_lock_own(&file, false)?;
        if locked && self.find(name)?.is_some_and(|found| found.id == id) {
            return Ok((file, id));
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Creates a file that may appear before it has its rights.
    fn make_visible(&self, name: &str, rights: &Rights) -> io::Result<File>;

    /// Gives an open file of this directory one more name, which must not exist.
    fn link(&self, _file: &File, _name: &str) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Renames a file of this directory, in place of the file that has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Opens another process's ticket to watch it, to try its lock and to mark it.
    fn open_ticket(&self, name: &str) -> io::Result<Opened>;

    /// Looks at a name, without an event for the watchers of the file.
    fn find(&self, name: &str) -> io::Result<Option<Found>>;

    /// Writes a note on a ticket's file, for status, if notes are supported.
    fn describe(_file: &File, _words: &str) {}

    /// Returns the note on the file of this name, without opening it.
    fn description(&self, _name: &str) -> io::Result<String> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Removes a name. Succeeds if it is gone already.
    fn unlink(&self, name: &str) -> io::Result<()>;
}
