//! Rights on Unixes without access lists: given as far as bits can.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, lstat, open};
use rustix::process::geteuid;

use super::{Rights, set_mode};
use crate::sys::if_there;

impl Rights {
    /// Returns the rights of what is at this path, or `None` if nothing is.
    pub(in crate::sys) fn at_path(path: &Path) -> io::Result<Option<Self>> {
        if_there(lstat(path).map(|stat| Self::of_stat(&stat)))
    }

    /// Gives these rights to a file that this process has just created, as far as bits can.
    pub(in crate::sys) fn give(&self, file: &File) -> io::Result<()> {
        let stat = fstat(file)?;
        let bare = self.without_list(stat.st_uid, stat.st_gid);
        set_mode(file, &stat, bare.mode())
    }

    /// Does the same for a directory. The right to read becomes the right to enter.
    pub(in crate::sys) fn give_to_directory(&self, path: &Path) -> io::Result<()> {
        let careful = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = File::from(open(path, careful, Mode::empty())?);
        let stat = fstat(&directory)?;
        if stat.st_uid != geteuid().as_raw() {
            return Err(io::Error::other(
                "another user has put a directory in its place",
            ));
        }
        let bare = self.without_list(stat.st_uid, stat.st_gid);
        set_mode(&directory, &stat, bare.of_directory().mode())
    }
}
