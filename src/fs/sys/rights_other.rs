//! Who may use a file, where permission bits mean nothing: whoever the directory lets in.

use std::fs::File;
use std::io;
use std::path::Path;

/// Who may use a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights;

impl Rights {
    /// Those of what is at this path; `None` when nothing is.
    pub(super) fn at_path(path: &Path) -> io::Result<Option<Self>> {
        Ok(super::file::id_at(path)?.map(|_| Self))
    }

    /// The same for a file, where these are of a directory.
    pub(super) fn of_files_in(self) -> Self {
        self
    }

    /// A new file has those of its directory.
    pub(super) fn give(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    /// The same for a directory.
    pub(super) fn give_to_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}
