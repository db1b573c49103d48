//! What is known about the file system of a file: which machines can reach it, and what it reports.

use std::path::Path;

use super::file::AsOpen;

#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "filesystem/linux.rs"
)]
#[cfg_attr(
    any(target_os = "macos", target_os = "freebsd"),
    path = "filesystem/bsd.rs"
)]
#[cfg_attr(windows, path = "filesystem/windows.rs")]
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd",
    windows
))]
mod arm;

/// A file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileSystem {
    /// The sum of the constants below. What is not known is not there.
    traits: u8,
}

/// On a disk or in memory of this machine.
const LOCAL: u8 = 1;
/// Of another machine, or a shared folder.
const NETWORK: u8 = 1 << 1;
/// A file keeps its number for as long as it exists. FAT renumbers files that have left the cache,
/// and a FUSE or SMB server may do so too.
const KEEPS_NUMBERS: u8 = 1 << 2;

/// Which machines can reach a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locality {
    /// Only this one, through a file system on its own disk or in its own memory.
    ThisMachine,
    /// Others may, or nothing proves that they cannot.
    Unknown,
}

/// What the platform tells of a file system. What it does not tell, it leaves to the methods here.
trait Platform {
    fn traits_of(_file: &impl AsOpen) -> u8 {
        0
    }

    fn traits_at(_path: &Path) -> u8 {
        0
    }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd",
    windows
)))]
impl Platform for FileSystem {}

impl FileSystem {
    /// Returns the file system of an open file.
    pub(crate) fn of(file: &impl AsOpen) -> Self {
        let traits = Self::traits_of(file);
        Self { traits }
    }

    /// Returns the file system of what is at this path.
    pub(crate) fn at(path: &Path) -> Self {
        let traits = Self::traits_at(path);
        Self { traits }
    }

    /// Returns the file system of the file at this path, which need not exist.
    pub(crate) fn around(path: &Path) -> Self {
        path.parent().map_or(Self { traits: 0 }, Self::at)
    }

    fn has(self, one: u8) -> bool {
        self.traits & one != 0
    }

    /// Returns which machines can reach its files.
    pub(crate) fn locality(self) -> Locality {
        match self.has(LOCAL) {
            true => Locality::ThisMachine,
            false => Locality::Unknown,
        }
    }

    /// Returns whether the close of a file is an event. It is none if another machine serves the
    /// file system. Only Linux has such events.
    pub(crate) fn reports_closes(self) -> bool {
        cfg!(any(target_os = "linux", target_os = "android")) && !self.has(NETWORK)
    }

    /// Returns whether the blocking lock call returns as soon as the lock is free. On a file system
    /// of another machine the client may ask once in a while, up to every 30 seconds (NFS), or may
    /// not block at all (FUSE).
    pub(crate) fn wakes_lock_calls(self) -> bool {
        !self.has(NETWORK)
    }

    /// Returns whether a file is known to keep its number for as long as it exists.
    pub(crate) fn keeps_numbers(self) -> bool {
        self.has(KEEPS_NUMBERS)
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn p31_proc_is_no_place_of_this_machine_alone() {
        for path in ["/proc", "/nowhere"] {
            let found = FileSystem::at(Path::new(path));
            assert_eq!(found.locality(), Locality::Unknown);
            assert!(!found.keeps_numbers() && found.reports_closes());
        }
    }
}
