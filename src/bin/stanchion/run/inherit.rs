//! Guards whose open files a command can inherit.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use stanchion::{AnyGuard, FifoGuard, FifoPermit, FifoReadGuard, FifoWriteGuard, Guard, PidGuard};

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

/// For a guard that has none to give.
macro_rules! inherit_none {
    ($($guard:ty),*) => {$(
        impl Inherit for $guard {
            fn open_files(&self) -> Vec<BorrowedFd<'_>> {
                Vec::new()
            }

            fn paths(&self, _: &AnyLock) -> Vec<PathBuf> {
                Vec::new()
            }
        }
    )*};
}

inherit_none!(AnyGuard, PidGuard);

impl Inherit for FifoPermit {
    fn open_files(&self) -> Vec<BorrowedFd<'_>> {
        self.as_fds().collect()
    }

    fn paths(&self, _: &AnyLock) -> Vec<PathBuf> {
        self.slot_paths()
    }
}
