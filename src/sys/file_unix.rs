//! Lock files on Unix: how they are opened, identified, marked, read and written.
//!
//! `rustix` replaces the standard library where it matters. On Linux it goes straight to the
//! kernel, which avoids the C library's cancellation points around open, read and write.

use std::fs::File;
use std::io;
use std::path::Path;

pub(crate) use std::os::fd::AsFd as AsOpen;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, lstat};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd, pread, pwrite};

use super::{Access, refusal};

/// Lets a guard lend its open lock file, which its method `file()` returns.
macro_rules! lend_file {
    ($guard:ty) => {
        impl std::os::fd::AsFd for $guard {
            /// Borrows the open, locked lock file.
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.file().as_fd()
            }
        }
    };
}
pub(crate) use lend_file;

/// Does the same for a guard with several files, which its method `files()` returns.
macro_rules! lend_files {
    ($guard:ty) => {
        impl $guard {
            /// Borrows the open, locked files, in the order of [`slot_paths`](Self::slot_paths).
            /// Not on Windows, which has `as_handles` instead.
            pub fn as_fds(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
                self.files().map(std::os::fd::AsFd::as_fd)
            }
        }
    };
}
pub(crate) use lend_files;

/// The identity of a file, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl From<&Stat> for FileId {
    // The fields have other widths and signs on other Unixes.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    fn from(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        }
    }
}

/// The result of `fstat` on an open lock file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) id: FileId,
}

/// Opens the lock file. Creates it if it is missing.
///
/// Never follows a symbolic link, never blocks on a FIFO, never truncates. A created file gets
/// exactly the bits `mode`, if given, whatever the umask. An existing file keeps its bits.
pub(crate) fn open_lock_file(path: &Path, mode: Option<u32>) -> io::Result<(File, Facts)> {
    open_or_create(path, OFlags::RDWR, mode).and_then(checked)
}

fn open_or_create(path: &Path, access: OFlags, mode: Option<u32>) -> io::Result<File> {
    loop {
        // First without O_CREAT: in a sticky directory the kernel refuses O_CREAT on another user's
        // file.
        match open(path, access, None) {
            Err(Errno::NOENT) => {}
            Ok(file) => return Ok(file),
            Err(error) => return Err(plain(error, path)),
        }
        match create(path, access, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A dangling symbolic link exists for O_EXCL and is missing for open. Without this
                // check the loop would not end.
                check_lock_path(path)?;
            }
            result => return result,
        }
    }
}

fn create(path: &Path, access: OFlags, mode: Option<u32>) -> io::Result<File> {
    let file = open(path, access | OFlags::CREATE | OFlags::EXCL, mode);
    let file = file.map_err(|error| plain(error, path))?;
    if let Some(mode) = mode {
        #[allow(clippy::unnecessary_cast)] // its width differs from Unix to Unix
        let present = mode_bits(fstat(&file)?.st_mode as u32);
        refusal::set_bits_or_narrower(&file, mode_bits(mode), present)?;
    }
    Ok(file)
}

/// Opens any file that is to be locked, with the same precautions. [`facts_of`] checks whether it
/// can be locked.
pub(crate) fn open_as(path: &Path, access: &Access) -> io::Result<File> {
    let mut flags = match (access.read, access.write || access.append) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    flags.set(OFlags::APPEND, access.append);
    match (access.create_new, access.create) {
        (true, _) => create(path, flags, access.mode),
        (false, true) => open_or_create(path, flags, access.mode),
        (false, false) => open(path, flags, None).map_err(|error| plain(error, path)),
    }
}

/// Returns what an open file is, and whether it has lost its last name. Fails if it cannot be
/// locked.
pub(crate) fn facts_of(file: &File, _path: &Path) -> io::Result<(Facts, bool)> {
    let stat = fstat(file)?;
    Ok((facts(&stat)?, stat.st_nlink == 0))
}

/// Returns another descriptor of the same open file.
pub(crate) fn duplicate(file: &impl AsOpen) -> io::Result<File> {
    Ok(File::from(file.as_fd().try_clone_to_owned()?))
}

/// Returns another descriptor of the same open file, which stays open across `exec`.
pub(crate) fn duplicate_for_exec(file: &File) -> io::Result<File> {
    let duplicate = fcntl_dupfd_cloexec(file, FIRST_FREE)?;
    fcntl_setfd(&duplicate, FdFlags::empty())?;
    Ok(File::from(duplicate))
}

/// The lowest descriptor that is not stdin, stdout or stderr.
const FIRST_FREE: i32 = 3;

/// Moves a descriptor above stdin, stdout and stderr. If a program has closed one of these, the
/// next open gets its number, and the program's output would go into that file.
pub(crate) fn above_standard_streams(file: OwnedFd) -> rustix::io::Result<OwnedFd> {
    match file.as_raw_fd() < FIRST_FREE {
        true => fcntl_dupfd_cloexec(&file, FIRST_FREE),
        false => Ok(file),
    }
}

/// Wakes those that wait for a close of this file, although it stays open: opens and closes it once
/// more.
pub(crate) fn announce(file: &File) {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let careful = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    for access in [OFlags::RDONLY, OFlags::WRONLY] {
        if rustix::fs::open(&path, access | careful, Mode::empty()).is_ok() {
            return;
        }
    }
}

/// Opens a lock file, if there is one.
pub(crate) fn open_existing(path: &Path) -> io::Result<Option<(File, Facts)>> {
    found(open(path, OFlags::RDWR, None), path)
}

/// Does the same for a file in an open directory. `path` is its path, for the error message.
#[cfg(target_os = "linux")]
pub(crate) fn open_existing_in(
    directory: &File,
    name: &str,
    path: &Path,
) -> io::Result<Option<(File, Facts)>> {
    found(
        open_in(directory, Path::new(name), OFlags::RDWR, None),
        path,
    )
}

fn found(opened: rustix::io::Result<File>, path: &Path) -> io::Result<Option<(File, Facts)>> {
    match opened {
        Err(Errno::NOENT) => Ok(None),
        Ok(file) => checked(file).map(Some),
        Err(error) => Err(plain(error, path)),
    }
}

/// Opens a file to read it, if there is one. Takes the same precautions as for lock files.
pub(crate) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    match open(path, OFlags::RDONLY, None) {
        Err(Errno::NOENT) => Ok(None),
        Ok(file) => checked(file).map(|(file, _)| Some(file)),
        Err(error) => Err(plain(error, path)),
    }
}

/// Returns a descriptor to watch a file. It does not open the file, so neither this call nor its
/// close is an event.
#[cfg(target_os = "linux")]
pub(crate) fn open_to_watch(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()).and_then(above_standard_streams) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns `None`: nothing can be watched here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn open_to_watch(_path: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

/// Fails if this path can never be a lock file, before anything is created.
pub(crate) fn check_lock_path(path: &Path) -> io::Result<()> {
    match lstat(path) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(()),
            FileType::Symlink => Err(refused("it is a symbolic link")),
            _ => Err(refused("it is not a regular file")),
        },
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn open(path: &Path, access: OFlags, mode: Option<u32>) -> rustix::io::Result<File> {
    open_in(rustix::fs::CWD, path, access, mode)
}

fn open_in(
    directory: impl AsOpen + Copy,
    path: &Path,
    access: OFlags,
    mode: Option<u32>,
) -> rustix::io::Result<File> {
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mode = mode_bits(mode.unwrap_or(0o666));
    loop {
        match rustix::fs::openat(directory, path, access | careful, mode) {
            Err(Errno::INTR) => {}
            result => return result.and_then(above_standard_streams).map(File::from),
        }
    }
}

fn mode_bits(mode: u32) -> Mode {
    // Permission bits fit into every platform's type for them.
    Mode::from_bits_truncate((mode & 0o777) as _)
}

/// Returns an open file and what it is. Fails if it cannot be locked.
pub(crate) fn checked(file: File) -> io::Result<(File, Facts)> {
    let facts = facts(&fstat(&file)?)?;
    Ok((file, facts))
}

fn facts(stat: &Stat) -> io::Result<Facts> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused("it is not a regular file"));
    }
    Ok(Facts {
        id: FileId::from(stat),
    })
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Replaces the kernel's error for links, sockets and devices by a clear one.
fn plain(error: Errno, path: &Path) -> io::Error {
    match error {
        // Linux and macOS, FreeBSD, and NetBSD have three different numbers for the refusal of
        // O_NOFOLLOW.
        Errno::LOOP | Errno::MLINK => check_lock_path(path).err().unwrap_or(error.into()),
        Errno::NXIO | Errno::ISDIR => refused("it is not a regular file"),
        _ => error.into(),
    }
}

/// Returns the identity of what is at this path, or `None` if nothing is. Does not follow a final
/// link.
pub(crate) fn id_at(path: &Path) -> io::Result<Option<FileId>> {
    Ok(named_at(path)?.map(|(id, _)| id))
}

/// Does the same, and returns how many names the file has.
pub(crate) fn named_at(path: &Path) -> io::Result<Option<(FileId, u64)>> {
    match look_up(path) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Looks up identity and number of names only. A request for the times as well would make the next
/// write to the file more expensive: since Linux 6.13 it must then store a new time.
#[cfg(target_os = "linux")]
fn look_up(path: &Path) -> rustix::io::Result<(FileId, u64)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    let flags = StatxFlags::INO | StatxFlags::NLINK;
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, flags) {
        Ok(found) => {
            let id = FileId {
                device: makedev(found.stx_dev_major, found.stx_dev_minor),
                inode: found.stx_ino,
            };
            Ok((id, found.stx_nlink.into()))
        }
        // Before 4.11, and in a sandbox.
        Err(error) if refusal::is_refusal(&error.into()) => {
            lstat(path).map(|stat| (FileId::from(&stat), names_in(&stat)))
        }
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn look_up(path: &Path) -> rustix::io::Result<(FileId, u64)> {
    lstat(path).map(|stat| (FileId::from(&stat), names_in(&stat)))
}

// The field has other widths on other Unixes.
#[allow(clippy::unnecessary_cast)]
fn names_in(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

/// Returns whether a file is known to keep its number for as long as it exists. FAT renumbers files
/// that have left the cache, and a FUSE or SMB server may do so too.
#[cfg(target_os = "linux")]
pub(crate) fn keeps_numbers(file: &File) -> bool {
    const KNOWN: [u32; 9] = [
        0xEF53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683E, // btrfs
        0x0102_1994, // tmpfs
        0x2FC1_2FC1, // ZFS
        0xF2F5_2010, // F2FS
        0xCA45_1A4E, // bcachefs
        0x794C_7630, // overlayfs
        0x6969,      // NFS
    ];
    rustix::fs::fstatfs(file).is_ok_and(|it| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::unnecessary_cast
        )]
        let magic = it.f_type as u32;
        KNOWN.contains(&magic)
    })
}

/// Does the same. The file systems that are known to be local are those that keep their numbers.
#[cfg(not(target_os = "linux"))]
pub(crate) fn keeps_numbers(file: &File) -> bool {
    use super::process::{Locality, locality_of};
    locality_of(file) == Locality::ThisMachine
}

/// Returns identity and mark of what is at this path.
#[cfg(not(target_os = "linux"))]
pub(crate) fn look_at(path: &Path) -> io::Result<Option<(FileId, bool)>> {
    match lstat(path) {
        Ok(stat) => Ok(Some((FileId::from(&stat), stat.st_size > 0))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns how many names an open file has.
pub(crate) fn names_of(file: &File) -> io::Result<u64> {
    Ok(names_in(&fstat(file)?))
}

/// Returns the identity of an open file.
pub(crate) fn id_of(file: &File) -> io::Result<FileId> {
    Ok(FileId::from(&fstat(file)?))
}

/// Fills `buffer` from the start of the file. Returns how many bytes were read.
pub(crate) fn read_start(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match pread(file, &mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// Writes at `offset`, with one system call if the file system allows.
pub(crate) fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Marks a ticket as bypassed, or removes the mark. A mark is one byte of content, so that `stat`
/// shows it.
pub(crate) fn set_mark(file: &File, marked: bool) -> io::Result<()> {
    if marked {
        write_at(file, 0, b"p")
    } else {
        file.set_len(0)
    }
}

/// Returns whether an open ticket has a mark.
pub(crate) fn is_marked(file: &File) -> io::Result<bool> {
    Ok(fstat(file)?.st_size > 0)
}
