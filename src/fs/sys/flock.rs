//! The operating system's lock on an open file. The only place that calls `fs2`.
//!
//! Always fully qualified: the standard library's own `File::unlock` and `File::try_lock` would shadow the trait.

use std::fs::File;
use std::io;

/// Takes the exclusive lock if nobody else has one on this file: `false` says that somebody has.
pub(crate) fn try_lock_exclusive(file: &File) -> io::Result<bool> {
    loop {
        #[allow(clippy::disallowed_methods)] // the one place
        let result = fs2::FileExt::try_lock_exclusive(file);
        match result {
            Ok(()) => return Ok(true),
            Err(error) if is_contention(&error) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Gives the lock of this descriptor back. Everybody who waits learns of it by the close that must follow.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    loop {
        #[allow(clippy::disallowed_methods)] // the one place
        let result = fs2::FileExt::unlock(file);
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// By error number, never by text or by a class of errors: everything else is a failure.
fn is_contention(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(number) => Some(number) == fs2::lock_contended_error().raw_os_error(),
        None => error.kind() == io::ErrorKind::WouldBlock,
    }
}
