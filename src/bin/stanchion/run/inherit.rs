//! Guards whose open files a command can inherit.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use stanchion::{AnyGuard, FifoGuard, FifoPermit, FifoReadGuard, FifoWriteGuard, Guard, PidGuard};

use crate::exit::Failure;
use crate::lock::AnyLock;

pub(super) trait Inherit: Guard {
    /// The locked files, open.
    fn open_files(&self) -> Vec<BorrowedFd<'_>>;

    /// The same files by name.
    fn paths(&self, lock: &AnyLock) -> Vec<PathBuf>;

    /// Keeps the lock held when `exec` replaces this program.
    fn keep_across_exec(&self) -> Result<Vec<File>, Failure>;
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

            fn keep_across_exec(&self) -> Result<Vec<File>, Failure> {
                Ok(<$guard>::keep_across_exec(self)?)
            }
        }
    )*};
}

inherit_one!(FifoGuard, FifoReadGuard, FifoWriteGuard);

/// For a guard without a file that can be inherited.
macro_rules! inherit_none {
    ($($guard:ty),*) => {$(
        impl Inherit for $guard {
            fn open_files(&self) -> Vec<BorrowedFd<'_>> {
                Vec::new()
            }

            fn paths(&self, _: &AnyLock) -> Vec<PathBuf> {
                Vec::new()
            }

            fn keep_across_exec(&self) -> Result<Vec<File>, Failure> {
                let text = "--no-fork needs a lock that the command can inherit";
                Err(Failure::usage(text))
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

    fn keep_across_exec(&self) -> Result<Vec<File>, Failure> {
        Ok(FifoPermit::keep_across_exec(self)?)
    }
}
