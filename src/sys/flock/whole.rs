//! Locks on platforms where they are advisory, and only of whole files.

use std::fs::File;
use std::io;

use super::OwnLock;

impl OwnLock for File {
    fn lock_own(&self, shared: bool) -> io::Result<()> {
        #[allow(clippy::disallowed_methods)] // The one place, with its parent.
        match shared {
            true => fs2::FileExt::try_lock_shared(self),
            false => fs2::FileExt::try_lock_exclusive(self),
        }
    }

    fn wait_and_lock_own(&self, shared: bool) -> io::Result<()> {
        #[allow(clippy::disallowed_methods)] // The one place, with its parent.
        match shared {
            true => fs2::FileExt::lock_shared(self),
            false => fs2::FileExt::lock_exclusive(self),
        }
    }

    fn unlock_any(&self) -> io::Result<()> {
        #[allow(clippy::disallowed_methods)] // The one place, with its parent.
        fs2::FileExt::unlock(self)
    }
}
