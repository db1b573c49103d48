//! Guards whose open files a command can inherit.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use stanchion::{FifoGuard, FifoPermit, FifoReadGuard, FifoWriteGuard, Guard};

use crate::lock::AnyLock;

pub(super) trait Inherit: Guard {
    /// The locked files, open.
    fn open_files(&self) -> Vec<BorrowedFd<'_>>;

    /// The same files by name.
    fn paths(&self, lock: &AnyLock) -> Vec<PathBuf>;
}

/// For a guard that has one file.
macro_rules! inherit_one {
    ($($guard:ty),*) => {$(
        impl Inherit for $guard {
            fn open_files(&self) -> Vec<BorrowedFd<'_>> {
                vec![self.as_fd()]
            }

            fn paths(&self, lock: &AnyLock) -> Vec<PathBuf> {
                vec![lock.path().to_path_buf()]
            }
        }
    )*};
}

inherit_one!(FifoGuard, FifoReadGuard, FifoWriteGuard);

impl Inherit for FifoPermit {
    fn open_files(&self) -> Vec<BorrowedFd<'_>> {
        self.as_fds().collect()
    }

    fn paths(&self, _: &AnyLock) -> Vec<PathBuf> {
        self.slot_paths()
    }
}
