//! File systems of macOS and FreeBSD, known by their names.

use rustix::fs::StatFs;

use super::{KEEPS_NUMBERS, LOCAL};

const NAMES: [&[u8]; 5] = [b"apfs", b"hfs", b"ufs", b"zfs", b"tmpfs"];

/// Returns what is known about a file system. Those that are known to be local are those that keep
/// their numbers.
pub(super) fn traits_of(found: &StatFs) -> u8 {
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
