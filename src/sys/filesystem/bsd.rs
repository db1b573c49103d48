//! File systems of macOS and FreeBSD, known by their names.

use std::path::Path;

use rustix::fs::{StatFs, fstatfs, statfs};

use super::{FileSystem, KEEPS_NUMBERS, LOCAL, Platform};
use crate::sys::file::AsOpen;

const NAMES: [&[u8]; 5] = [b"apfs", b"hfs", b"ufs", b"zfs", b"tmpfs"];

impl Platform for FileSystem {
    fn traits_of(file: &impl AsOpen) -> u8 {
        fstatfs(file).map_or(0, |it| known(&it))
    }

    fn traits_at(path: &Path) -> u8 {
        statfs(path).map_or(0, |it| known(&it))
    }
}

/// Returns what is known about a file system. Those that are known to be local are those that keep
/// their numbers.
fn known(found: &StatFs) -> u8 {
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
