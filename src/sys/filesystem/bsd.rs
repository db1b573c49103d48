//! File systems of macOS and FreeBSD, known by their names.

use std::fs::File;
use std::path::Path;

use rustix::fs::{StatFs, fstatfs, statfs};

use super::{FileSystem, KEEPS_NUMBERS, LOCAL};

const NAMES: [&[u8]; 5] = [b"apfs", b"hfs", b"ufs", b"zfs", b"tmpfs"];

impl FileSystem {
    /// Returns the file system of an open file.
    pub(crate) fn of(file: &File) -> Self {
        Self::found(fstatfs(file))
    }

    /// Returns the file system of what is at this path.
    pub(crate) fn at(path: &Path) -> Self {
        Self::found(statfs(path))
    }

    fn found(found: rustix::io::Result<StatFs>) -> Self {
        let traits = found.map_or(0, |it| traits_of(&it));
        Self { traits }
    }
}

/// Returns what is known about a file system. Those that are known to be local are those that keep
/// their numbers.
fn traits_of(found: &StatFs) -> u8 {
    let flags = u64::from(found.f_flags);
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)] // Its type differs.
    let marked = flags & libc::MNT_LOCAL as u64 != 0;
    let name = found.f_fstypename.map(|it| it.to_ne_bytes()[0]);
    let name = name.split(|it| *it == 0).next().unwrap_or_default();
    match marked && NAMES.contains(&name) {
        true => LOCAL | KEEPS_NUMBERS,
        false => 0,
    }
}
