//! Who may use a file, where permission bits mean nothing: every user that may use its directory.

use std::fs::File;
use std::io;
use std::path::Path;

/// Who may use a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights;

impl Rights {
    /// Returns the rights of what is at this path, or `None` if nothing is.
    pub(super) fn at_path(path: &Path) -> io::Result<Option<Self>> {
        Ok(super::file::id_at(path)?.map(|_| Self))
    }

    /// Converts the rights of a directory into those of a file in it.
    pub(super) fn of_files_in(self) -> Self {
        self
    }

    /// Does nothing: a new file has the rights of its directory.
    pub(super) fn give(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing, as [`give`](Rights::give).
    pub(super) fn give_to_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}
