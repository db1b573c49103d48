//! File systems of Linux, known by their numbers.

use std::path::Path;

use rustix::fs::{StatFs, fstatfs, statfs};
use rustix::io::retry_on_intr;

use super::{FileSystem, KEEPS_NUMBERS, LOCAL, NETWORK, Platform};
use crate::sys::file::AsOpen;

/// `stat` reports device and inode as the kernel itself knows them.
const PLAIN: u8 = 1 << 3;
/// Every change of a directory sets its time of change. No standard requires that.
const SHOWS_CHANGES: u8 = 1 << 4;
/// The file system of `/proc`.
const PROC: u8 = 1 << 5;
/// The file system of pidfds.
const PIDFS: u8 = 1 << 6;

/// From the kernel's `magic.h`, and from the headers of the file systems. A stacked one, such as
/// overlayfs, may lie on any other.
const KNOWN: [(u32, u8); 44] = [
    (0xEF53, LOCAL | KEEPS_NUMBERS | PLAIN | SHOWS_CHANGES), // ext2, ext3, ext4
    (0x0102_1994, LOCAL | KEEPS_NUMBERS | PLAIN | SHOWS_CHANGES), // tmpfs
    (0x5846_5342, LOCAL | KEEPS_NUMBERS | PLAIN),            // XFS
    (0x9123_683E, LOCAL | KEEPS_NUMBERS),                    // btrfs
    (0xF2F5_2010, LOCAL | KEEPS_NUMBERS),                    // F2FS
    (0x2FC1_2FC1, LOCAL | KEEPS_NUMBERS),                    // ZFS
    (0xCA45_1A4E, LOCAL | KEEPS_NUMBERS),                    // bcachefs
    (0x8584_58F6, LOCAL),                                    // ramfs
    (0x3153_464A, LOCAL),                                    // JFS
    (0x5265_4973, LOCAL),                                    // ReiserFS
    (0x3434, LOCAL),                                         // NILFS2
    (0x4D44, LOCAL),                                         // FAT
    (0x2011_BAB0, LOCAL),                                    // exFAT
    (0x7366_746E, LOCAL),                                    // NTFS, ntfs3
    (0x5346_544E, LOCAL),                                    // NTFS, the older driver
    (0x2405_1905, LOCAL),                                    // UBIFS
    (0x72B6, LOCAL),                                         // JFFS2
    (0x482B, LOCAL),                                         // HFS+
    (0x137F, LOCAL),                                         // MINIX
    (0x794C_7630, KEEPS_NUMBERS),                            // overlayfs
    (0x6969, NETWORK | KEEPS_NUMBERS),                       // NFS
    (0x517B, NETWORK),                                       // SMB
    (0xFF53_4D42, NETWORK),                                  // CIFS
    (0xFE53_4D42, NETWORK),                                  // SMB2
    (0x0102_1997, NETWORK),                                  // 9P
    (0x6573_5546, NETWORK), // FUSE: sshfs, GlusterFS and others; virtiofs
    (0x5346_414F, NETWORK), // AFS
    (0x6B41_4653, NETWORK), // kAFS
    (0x7375_7245, NETWORK), // Coda
    (0x00C3_6400, NETWORK), // Ceph
    (0x0BD0_0BD0, NETWORK), // Lustre
    (0x7461_636F, NETWORK), // OCFS2
    (0x0116_1970, NETWORK), // GFS2
    (0x564C, NETWORK),      // NCP
    (0x2003_0528, NETWORK), // OrangeFS
    (0x1983_0326, NETWORK), // BeeGFS
    (0x4750_4653, NETWORK), // GPFS
    (0xAAD7_AAEA, NETWORK), // PanFS
    (0x786F_4256, NETWORK), // shared folders of VirtualBox
    (0xBACB_ACBC, NETWORK), // of VMware
    (0x7C7C_6673, NETWORK), // of Parallels
    (0x00C0_FFEE, NETWORK), // of User Mode Linux
    (0x9FA0, PROC),
    (0x5049_4446, PIDFS),
];

impl Platform for FileSystem {
    fn traits_of(file: &impl AsOpen) -> u8 {
        retry_on_intr(|| fstatfs(file)).map_or(0, |it| known(&it))
    }

    fn traits_at(path: &Path) -> u8 {
        retry_on_intr(|| statfs(path)).map_or(0, |it| known(&it))
    }
}

/// Returns what is known about a file system. The field for its number is signed, unsigned, wide or
/// narrow by architecture; the number is its low 32 bits.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast
)]
fn known(found: &StatFs) -> u8 {
    let number = found.f_type as u32;
    let known = KNOWN.iter().find(|(it, _)| *it == number);
    known.map_or(0, |(_, traits)| *traits)
}

impl FileSystem {
    /// Returns whether `stat` reports device and inode as the kernel itself knows them.
    pub(in crate::sys) fn is_plain(self) -> bool {
        self.has(PLAIN)
    }

    /// Returns whether every change of a directory sets its time of change.
    pub(in crate::sys) fn shows_changes(self) -> bool {
        self.has(SHOWS_CHANGES)
    }

    /// Returns whether this is `/proc`. Another file system may be mounted over it, or over a file
    /// in it.
    pub(in crate::sys) fn is_proc(self) -> bool {
        self.has(PROC)
    }

    /// Returns whether pidfds have a file system of their own.
    pub(in crate::sys) fn is_pidfs(self) -> bool {
        self.has(PIDFS)
    }
}
