//! Locks on platforms where they are advisory, and only of whole files.

use std::fs::File;
use std::io;

/// Locks the file, or fails at once.
pub(super) fn try_lock_own(file: &File, shared: bool) -> io::Result<()> {
    #[allow(clippy::disallowed_methods)] // The one place, with its parent.
    match shared {
        true => fs2::FileExt::try_lock_shared(file),
        false => fs2::FileExt::try_lock_exclusive(file),
    }
}

/// Unlocks the file.
pub(super) fn unlock(file: &File) -> io::Result<()> {
    #[allow(clippy::disallowed_methods)] // The one place, with its parent.
    fs2::FileExt::unlock(file)
}

/// Does nothing: the shared lock has replaced the exclusive one.
pub(super) fn drop_exclusive(_file: &File) -> io::Result<()> {
    Ok(())
}
