//! Locks on Windows: of a whole file, and of one byte far beyond its end.
//!
//! A lock is mandatory there. While a range is locked exclusively, no other handle can read it.
//! While it is locked shared, no handle can write it, not even the one that has the lock. So a file
//! with content that others must read is locked at a byte that no content reaches. The byte lies
//! within the range of a lock on the whole file, so the two kinds exclude each other.

use std::fs::File;
use std::io;
use std::os::windows::io::AsRawHandle;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Storage::FileSystem::{
    LOCK_FILE_FLAGS, LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
};
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_0, OVERLAPPED_0_0};

use super::OwnLock;

/// The upper half of the offset of the byte, which is 2⁶². Some servers take no offset from 2⁶³ on.
const OFFSET_HIGH: u32 = 1 << 30;

fn offset() -> OVERLAPPED {
    OVERLAPPED {
        Internal: 0,
        InternalHigh: 0,
        Anonymous: OVERLAPPED_0 {
            Anonymous: OVERLAPPED_0_0 {
                Offset: 0,
                OffsetHigh: OFFSET_HIGH,
            },
        },
        hEvent: std::ptr::null_mut(),
    }
}

impl OwnLock for File {
    fn lock_own(&self, shared: bool) -> io::Result<()> {
        lock_byte(self, shared, LOCKFILE_FAIL_IMMEDIATELY)
    }

    fn wait_and_lock_own(&self, shared: bool) -> io::Result<()> {
        lock_byte(self, shared, 0)
    }

    /// Unlocks the whole file or the byte.
    fn unlock_any(&self) -> io::Result<()> {
        #[allow(clippy::disallowed_methods)] // The one place, with its parent.
        let whole = fs2::FileExt::unlock(self);
        whole.or_else(|error| unlock_own(self).map_err(|_| error))
    }

    /// The handle has both locks, and the first unlock releases the exclusive one.
    fn drop_exclusive(&self) -> io::Result<()> {
        self.unlock_any()
    }
}

/// Locks the byte.
fn lock_byte(file: &File, shared: bool, flags: LOCK_FILE_FLAGS) -> io::Result<()> {
    let kind = if shared { 0 } else { LOCKFILE_EXCLUSIVE_LOCK };
    let mut offset = offset();
    let handle: HANDLE = file.as_raw_handle();
    // SAFETY: the handle is open. The offset lives until the call returns, and the call does not
    // continue after it: the handle was opened for synchronous calls.
    let locked = unsafe { LockFileEx(handle, kind | flags, 0, 1, 0, &raw mut offset) };
    answer(locked)
}

/// Unlocks the byte.
fn unlock_own(file: &File) -> io::Result<()> {
    let mut offset = offset();
    let handle: HANDLE = file.as_raw_handle();
    // SAFETY: as for the lock.
    let unlocked = unsafe { UnlockFileEx(handle, 0, 1, 0, &raw mut offset) };
    answer(unlocked)
}

fn answer(result: i32) -> io::Result<()> {
    match result {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Returns whether no handle has locked any of the first bytes of a file.
#[cfg(test)]
pub(super) fn is_free(file: &File, bytes: u32) -> bool {
    let mut start = offset();
    start.Anonymous.Anonymous.OffsetHigh = 0;
    let handle: HANDLE = file.as_raw_handle();
    // SAFETY: as for the lock.
    unsafe {
        let flags = LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY;
        let locked = LockFileEx(handle, flags, 0, bytes, 0, &raw mut start) != 0;
        locked && UnlockFileEx(handle, 0, bytes, 0, &raw mut start) != 0
    }
}
