//! The operating system's lock on an open file. Only this module calls `fs2`.
//!
//! There are two kinds. The lock of the *whole* file is the one that other programs take too: on
//! lock files and slots. The lock of an *own* file is for files that only this crate uses: state
//! records, tickets, temporary files. On Unix both are one. On Windows the second leaves the
//! content free, so that other processes can read and write it. A lock of one kind excludes the
//! other.
//!
//! All calls are fully qualified, because `File::unlock` and `File::try_lock` of the standard
//! library would shadow the trait.

use std::fs::File;
use std::io;

#[cfg(windows)]
use windows_sys::Win32::Foundation::{ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED};

use super::{file, refusal};

#[cfg_attr(windows, path = "flock/windows.rs")]
#[cfg_attr(not(windows), path = "flock/whole.rs")]
mod arm;

/// The lock of an own file, which differs from platform to platform.
trait OwnLock {
    /// Locks the file, or fails at once.
    fn lock_own(&self, shared: bool) -> io::Result<()>;

    /// Waits until it has locked the file.
    fn wait_and_lock_own(&self, shared: bool) -> io::Result<()>;

    /// Unlocks what is locked, of either kind.
    fn unlock_any(&self) -> io::Result<()>;

    /// Ends the conversion of an exclusive lock into a shared one. Does nothing where the shared
    /// lock has replaced the exclusive one.
    fn drop_exclusive(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Acquires the shared or the exclusive lock. Returns `false` if another open file has one that
/// excludes it.
pub(crate) fn try_lock(file: &File, shared: bool) -> io::Result<bool> {
    #[allow(clippy::disallowed_methods)] // The one place.
    attempt(file, shared, || match shared {
        true => fs2::FileExt::try_lock_shared(file),
        false => fs2::FileExt::try_lock_exclusive(file),
    })
}

/// Acquires the lock of an own file. Returns `false` if another open file has one that excludes it.
pub(crate) fn try_lock_own(file: &File, shared: bool) -> io::Result<bool> {
    attempt(file, shared, || file.lock_own(shared))
}

/// Converts our exclusive lock into a shared one, without releasing it in between. Returns `false`
/// if the lock was lost.
///
/// `flock` converts in one step if it only gives up rights: Linux since 4.0 under one spin lock,
/// the BSDs and macOS in `lf_setlock`. Windows gives the same handle a second, shared lock, and the
/// first unlock releases the exclusive one.
pub(crate) fn share(file: &File) -> io::Result<bool> {
    converted(file, try_lock(file, true)?)
}

/// Does the same with the lock of an own file.
pub(crate) fn share_own(file: &File) -> io::Result<bool> {
    converted(file, try_lock_own(file, true)?)
}

fn converted(file: &File, shared: bool) -> io::Result<bool> {
    if shared {
        file.drop_exclusive()?;
    }
    Ok(shared)
}

/// Returns whether this file system grants the exclusive lock twice. `locked` has the lock, and
/// `other` was opened at its path. Another file at the path proves nothing.
pub(crate) fn is_granted_twice(locked: &File, other: &File) -> io::Result<bool> {
    let same = file::id_of(other).ok() == file::id_of(locked).ok();
    Ok(same && try_lock(other, false)?)
}

/// Waits for the lock in the kernel, without end. For threads that have nothing else to do.
pub(crate) fn wait_and_lock(file: &File, shared: bool) -> io::Result<()> {
    #[allow(clippy::disallowed_methods)] // The one place.
    let locked = attempt(file, shared, || match shared {
        true => fs2::FileExt::lock_shared(file),
        false => fs2::FileExt::lock_exclusive(file),
    });
    waited(locked?)
}

/// Does the same with the lock of an own file.
pub(crate) fn wait_and_lock_own(file: &File, shared: bool) -> io::Result<()> {
    waited(attempt(file, shared, || file.wait_and_lock_own(shared))?)
}

/// A wait that ends with "would block" did not wait.
fn waited(locked: bool) -> io::Result<()> {
    match locked {
        true => Ok(()),
        false => Err(fs2::lock_contended_error()),
    }
}

fn attempt(
    _file: &File,
    _shared: bool,
    mut call: impl FnMut() -> io::Result<()>,
) -> io::Result<bool> {
    #[cfg(stanchion_test)]
    if let Some(answer) = simulated(_file, _shared) {
        return answer.map_err(classify);
    }
    loop {
        match call() {
            Ok(()) => return Ok(true),
            Err(error) if is_contention(&error) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(classify(error)),
        }
    }
}

/// Returns the simulated answer. `STANCHION_FLOCK=yes` simulates a file system that grants every
/// lock, `STANCHION_FLOCK=37` one that returns this error number, and `STANCHION_FLOCK=nfs4` one
/// that demands the right to write for an exclusive lock.
#[cfg(stanchion_test)]
fn simulated(_file: &File, _shared: bool) -> Option<io::Result<bool>> {
    static ANSWER: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let answer = ANSWER.get_or_init(|| std::env::var("STANCHION_FLOCK").ok());
    let answer = answer.as_deref()?;
    #[cfg(unix)]
    if answer == "nfs4" {
        let access = rustix::fs::fcntl_getfl(_file).ok()? & rustix::fs::OFlags::ACCMODE;
        let refused = !_shared && access == rustix::fs::OFlags::RDONLY;
        return refused.then(|| Err(io::Error::from_raw_os_error(libc::EBADF)));
    }
    let number = answer.parse().ok().map(io::Error::from_raw_os_error);
    Some(number.map_or(Ok(true), Err))
}

/// Converts the error of a file system that cannot lock. It has several numbers.
fn classify(error: io::Error) -> io::Error {
    #[cfg(unix)]
    let lacking = [libc::ENOLCK, libc::ENOTSUP, libc::EOPNOTSUPP, libc::ENOSYS];
    #[cfg(windows)]
    let lacking = [ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED].map(u32::cast_signed);
    if error.raw_os_error().is_some_and(|it| lacking.contains(&it)) {
        return io::Error::new(io::ErrorKind::Unsupported, error);
    }
    // No other call creates a lock that the processes outside the sandbox see.
    refusal::unsupported("this system refuses file locks", error)
}

/// Releases the lock of this descriptor, of either kind. The waiters learn of it from the close
/// that must follow.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    loop {
        match file.unlock_any() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Decides by the error number, never by text or by a class of errors. Everything else is a
/// failure.
fn is_contention(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(number) => Some(number) == fs2::lock_contended_error().raw_os_error(),
        None => error.kind() == io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_system_without_locks_is_no_failure_of_this_lock() {
        let kind = |number| classify(io::Error::from_raw_os_error(number)).kind();
        for number in [libc::ENOLCK, libc::ENOTSUP, libc::EOPNOTSUPP, libc::ENOSYS] {
            assert_eq!(kind(number), io::ErrorKind::Unsupported, "{number}");
        }
        assert_ne!(kind(libc::EIO), io::ErrorKind::Unsupported);
    }

    /// Opens a new file twice.
    fn opened_twice() -> (tempfile::TempDir, [File; 2]) {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("file");
        let files = [(); 2].map(|()| file::open_lock_file(&path, None).expect("a file").0);
        (scratch, files)
    }

    #[test]
    fn both_kinds_of_locks_exclude_each_other() {
        let (_scratch, [one, other]) = opened_twice();
        for shared in [false, true] {
            assert!(try_lock_own(&one, shared).expect("no error"));
            assert!(!try_lock(&other, false).expect("no error"));
            assert_eq!(try_lock(&other, true).expect("no error"), shared);
            assert_eq!(try_lock_own(&other, true).expect("no error"), shared);
            // It may have a lock of each kind.
            let _ = (unlock(&other), unlock(&other));
            unlock(&one).expect("unlocked");
            assert!(try_lock(&one, false).expect("no error"));
            assert!(!try_lock_own(&other, true).expect("no error"));
            unlock(&one).expect("unlocked");
        }
    }

    #[test]
    fn an_exclusive_lock_becomes_a_shared_one() {
        let (_scratch, [one, other]) = opened_twice();
        type Call = fn(&File) -> io::Result<bool>;
        let whole: (Call, Call) = (|file| try_lock(file, false), share);
        let own: (Call, Call) = (|it| try_lock_own(it, false), share_own);
        for (lock, share) in [whole, own] {
            assert!(lock(&one).expect("no error") && share(&one).expect("no error"));
            assert!(!lock(&other).expect("no error"));
            assert!(try_lock(&other, true).expect("no error"));
            unlock(&other).expect("unlocked");
            unlock(&one).expect("unlocked");
            assert!(lock(&other).expect("no error"));
            unlock(&other).expect("unlocked");
        }
    }

    #[test]
    fn the_wait_for_an_own_file_ends_with_its_lock() {
        let (_scratch, [one, other]) = opened_twice();
        for shared in [false, true] {
            assert!(try_lock_own(&one, false).expect("no error"));
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| wait_and_lock_own(&other, shared));
                // It may wait already, or not yet.
                unlock(&one).expect("unlocked");
                waiter.join().expect("no panic").expect("locked");
            });
            #[cfg(windows)]
            assert!(arm::is_free(&one, 1 << 20), "shared: {shared}");
            assert!(!try_lock_own(&one, false).expect("no error"));
            assert_eq!(try_lock_own(&one, true).expect("no error"), shared);
            if shared {
                unlock(&one).expect("unlocked");
            }
            unlock(&other).expect("unlocked");
        }
    }

    /// Plays what a mandatory lock does: the content is in no locked range, so it can be read and
    /// written.
    #[cfg(windows)]
    #[test]
    fn the_lock_of_an_own_file_leaves_its_content_free() {
        let (_scratch, [one, other]) = opened_twice();
        for shared in [false, true] {
            assert!(try_lock_own(&one, shared).expect("no error"));
            assert!(arm::is_free(&other, 1 << 20), "shared: {shared}");
            unlock(&one).expect("unlocked");
        }
        assert!(try_lock(&one, false).expect("no error"));
        assert!(!arm::is_free(&other, 1 << 20));
    }
}
