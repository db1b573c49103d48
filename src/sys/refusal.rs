//! Decides when a refused call is replaced by a simpler one. No other module decides that.
//!
//! Kernels, security modules and sandboxes refuse a call with any error number: `ENOSYS` if it is
//! unknown, `EPERM` and `EACCES` if a rule forbids it, `EOPNOTSUPP`, `EINVAL` or `EISDIR` if the
//! file system lacks it. No list of refusals is complete. So the rule is inverted: *every* error of
//! the better call is a refusal, except those that the simpler call would meet too.

use std::io;

/// Returns whether the simpler call is worth a try after this error of the better one.
///
/// An error that may be either, such as `EACCES` of a directory, falls back too. The simpler call
/// then reports it.
#[cfg(unix)]
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let met_again = matches!(
        error.kind(),
        Kind::AlreadyExists
            | Kind::NotFound
            | Kind::NotADirectory
            | Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::ReadOnlyFilesystem
            | Kind::StaleNetworkFileHandle
            | Kind::InvalidFilename
            | Kind::Interrupted
            | Kind::OutOfMemory
    );
    !met_again && !is_shortage(error)
}

/// Returns whether no descriptor is left, of this process or of the system. Not known on Windows.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    #[cfg(unix)]
    let numbers = [libc::EMFILE, libc::ENFILE];
    #[cfg(not(unix))]
    let numbers: [i32; 0] = [];
    error.raw_os_error().is_some_and(|it| numbers.contains(&it))
}

/// Returns whether no descriptor is left, of this process or of the system, or the disk fails.
#[cfg(unix)]
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [libc::EMFILE, libc::ENFILE, libc::EIO, libc::ELOOP];
    error
        .raw_os_error()
        .is_some_and(|it| shortages.contains(&it))
}

/// Does the same for a better call through `/proc/self/fd`, where "not found" may also mean that
/// there is no `/proc`.
#[cfg(unix)]
pub(super) fn is_refusal_by_proc(error: &io::Error) -> bool {
    let missing = error.kind() == io::ErrorKind::NotFound;
    is_refusal(error) || (missing && !std::path::Path::new("/proc/self/fd").exists())
}

/// Converts the error of a call that no simpler one can replace. If a rule refuses the call, this
/// system does not support it.
pub(crate) fn unsupported(what: &str, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
            io::Error::new(io::ErrorKind::Unsupported, format!("{what}: {error}"))
        }
        _ => error,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_falls_back_and_what_is_met_again_does_not() {
        let of = |number| io::Error::from_raw_os_error(number);
        for number in [
            libc::EPERM,
            libc::EACCES,
            libc::ENOSYS,
            libc::EOPNOTSUPP,
            libc::EINVAL,
            libc::EISDIR,
            libc::EXDEV,
            libc::EMLINK,
            libc::ENOTTY,
            libc::EBADF,
            9999,
        ] {
            assert!(is_refusal(&of(number)), "{number}");
        }
        for number in [
            libc::EEXIST,
            libc::ENOENT,
            libc::ENOTDIR,
            libc::ENOSPC,
            libc::EDQUOT,
            libc::EROFS,
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOMEM,
            libc::EIO,
            libc::EINTR,
            libc::ENAMETOOLONG,
        ] {
            assert!(!is_refusal(&of(number)), "{number}");
            assert!(!is_refusal_by_proc(&of(number)), "{number}");
        }
    }
}
