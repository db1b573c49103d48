//! Lock files on Unix.
//!
//! `rustix` replaces the standard library where it matters. On Linux it goes straight to the
//! kernel, which avoids the C library's cancellation points around open, read and write.
//!
//! On FUSE, a signal may interrupt every call that names a file or asks for its facts, whatever its
//! handler says about restarts. Such a call has done nothing. So it is repeated, here and in
//! [`dir`](crate::sys::dir).

use std::fs::File;
use std::io;
use std::path::Path;

pub(crate) use std::os::fd::AsFd as AsOpen;
use std::os::fd::AsRawFd as _;

use rustix::fs::{FileType, Mode, OFlags, Stat, chmod, fchmod, fstat, lstat};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd, pread, pwrite, retry_on_intr};

use super::{Facts, FileId, OpenFile, found, refused};
use crate::sys::fork::above_reserved;
use crate::sys::refusal::is_refusal;
use crate::sys::{Access, if_there, uninterrupted};

impl OpenFile for File {
    fn facts(&self) -> io::Result<Facts> {
        Ok(Facts::from(&retry_on_intr(|| fstat(self))?))
    }

    fn read_some_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(pread(self, buffer, offset)?)
    }

    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        Ok(pwrite(self, bytes, offset)?)
    }
}

impl From<&Stat> for Facts {
    fn from(stat: &Stat) -> Self {
        Self {
            id: FileId::from(stat),
            names: names_in(stat),
            regular: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            marked: stat.st_size > 0,
        }
    }
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
        let present = mode_of(&retry_on_intr(|| fstat(&file))?);
        set_bits_or_narrower(&file, mode & 0o777, present & 0o777)?;
    }
    Ok(file)
}

/// Opens any file that is to be locked, with the same precautions.
/// [`facts_of`](super::facts_of) checks whether it can be locked.
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

/// Deletes a file. Its name is free at once.
pub(crate) fn remove(path: &Path, _beside: &Path) -> io::Result<()> {
    #[allow(clippy::disallowed_methods)] // The one place on Unix, with `dir`.
    uninterrupted(|| std::fs::remove_file(path))
}

/// Ensures that the content survives a loss of power. The call of macOS, which is stronger than
/// `fsync`, is not supported by every file system.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        #[cfg(target_vendor = "apple")]
        Err(error) if is_refusal(&error) => Ok(rustix::fs::fsync(file)?),
        synced => synced,
    }
}

/// Renames a file in place of another one.
pub(crate) fn replace(from: &Path, to: &Path) -> io::Result<()> {
    uninterrupted(|| std::fs::rename(from, to))
}

/// The lowest descriptor that is not stdin, stdout or stderr.
const FIRST_FREE: i32 = 3;

/// Returns `/proc/self/fd/N`: a path that means an open file, whatever its name is by now. Not
/// every system has it.
pub(crate) fn proc_path<'a>(file: &File, buffer: &'a mut [u8; 32]) -> &'a str {
    use std::io::Write;
    let room = buffer.len();
    let mut rest = &mut buffer[..];
    // 14 bytes and at most 10 digits: it always fits.
    let _ = write!(rest, "/proc/self/fd/{}", file.as_raw_fd());
    let length = room - rest.len();
    std::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

/// Wakes those that wait for a close of this file, although it stays open: opens and closes it once
/// more.
pub(crate) fn announce(file: &File) {
    let mut buffer = [0; 32];
    let path = proc_path(file, &mut buffer);
    let careful = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    for access in [OFlags::RDONLY, OFlags::WRONLY] {
        if rustix::fs::open(path, access | careful, Mode::empty()).is_ok() {
            return;
        }
    }
}

/// Opens a lock file in an open directory, if there is one. `path` is its path, for the error
/// message.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(in crate::sys) fn open_existing_in(
    directory: &File,
    name: &str,
    path: &Path,
) -> io::Result<Option<(File, FileId)>> {
    let opened = open_in(directory, Path::new(name), OFlags::RDWR, None);
    found(opened.map_err(|error| plain(error, path)))
}

/// Opens a file to read it, if there is one. Takes the same precautions as for lock files.
pub(crate) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    let opened = open(path, OFlags::RDONLY, None).map_err(|error| plain(error, path));
    Ok(found(opened)?.map(|(file, _)| file))
}

/// Returns a descriptor to watch a file. It does not open the file, so neither this call nor its
/// close is an event.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn open_to_watch(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()));
    if_there(opened.and_then(above_reserved).map(File::from))
}

/// Fails if this path can never be a lock file, before anything is created.
pub(crate) fn check_lock_path(path: &Path) -> io::Result<()> {
    if_there(retry_on_intr(|| lstat(path)))?.map_or(Ok(()), |stat| refuse_irregular(&stat))
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
    let mode = mode_bits(mode.unwrap_or(0o666) & 0o777);
    let opened = retry_on_intr(|| rustix::fs::openat(directory, path, access | careful, mode));
    opened.and_then(above_reserved).map(File::from)
}

/// Creates a file that must not exist.
pub(in crate::sys) fn create_new_in(
    directory: impl AsOpen + Copy,
    name: impl rustix::path::Arg + Copy,
    mode: u32,
) -> rustix::io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = retry_on_intr(|| rustix::fs::openat(directory, name, flags, mode_bits(mode)));
    file.and_then(above_reserved).map(File::from)
}

/// Creates a file without a name. It is gone at the latest when its process dies.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(in crate::sys) fn open_nameless_in(
    directory: impl AsOpen + Copy,
    name: impl rustix::path::Arg + Copy,
    mode: u32,
) -> rustix::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = retry_on_intr(|| rustix::fs::openat(directory, name, flags, mode_bits(mode)));
    file.and_then(above_reserved).map(File::from)
}

/// Converts permission bits into the platform's type for them, into which they fit everywhere.
fn mode_bits(mode: u32) -> Mode {
    Mode::from_bits_truncate((mode & 0o7777) as _)
}

/// Returns the permission bits of a file, with set-id and sticky bits.
#[allow(clippy::unnecessary_cast)] // its width differs from Unix to Unix
pub(in crate::sys) fn mode_of(stat: &Stat) -> u32 {
    stat.st_mode as u32 & 0o7777
}

/// Sets permission bits through the descriptor. If that is refused, through its name in `/proc`.
pub(in crate::sys) fn set_bits(file: &File, mode: u32) -> io::Result<()> {
    let mode = mode_bits(mode);
    let Err(error) = retry_on_intr(|| fchmod(file, mode)).map_err(io::Error::from) else {
        return Ok(());
    };
    let mut buffer = [0; 32];
    let path = proc_path(file, &mut buffer);
    match is_refusal(&error) && retry_on_intr(|| chmod(path, mode)).is_ok() {
        true => Ok(()),
        false => Err(error),
    }
}

/// Does the same for a file whose bits may be narrower than `mode`, but not wider. If it is
/// refused, the `present` bits stay if they are narrower.
pub(in crate::sys) fn set_bits_or_narrower(file: &File, mode: u32, present: u32) -> io::Result<()> {
    match set_bits(file, mode) {
        Err(error) if is_refusal(&error) && present & !mode == 0 => Ok(()),
        set => set,
    }
}

/// Fails for everything that is not a regular file.
pub(in crate::sys) fn refuse_irregular(stat: &Stat) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(refused("it is a symbolic link")),
        _ => Err(refused("it is not a regular file")),
    }
}

/// Replaces the kernel's error for links, sockets and devices by a clear one.
fn plain(error: Errno, path: &Path) -> io::Error {
    match error {
        // Linux and macOS, FreeBSD, and NetBSD have three different numbers for the refusal of
        // O_NOFOLLOW.
        Errno::LOOP | Errno::MLINK => check_lock_path(path).err().unwrap_or(error.into()),
        #[cfg(target_os = "netbsd")]
        Errno::FTYPE => check_lock_path(path).err().unwrap_or(error.into()),
        Errno::NXIO | Errno::ISDIR => refused("it is not a regular file"),
        _ => error.into(),
    }
}

/// Returns the identity of what is at this path, and how many names it has. Returns `None` if
/// nothing is there. Does not follow a final link.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn named_at(path: &Path) -> io::Result<Option<(FileId, u64)>> {
    if_there(retry_on_intr(|| look_up(path)))
}

/// Looks up identity and number of names only. A request for the times as well would make the next
/// write to the file more expensive: since Linux 6.13 it must then store a new time.
#[cfg(any(target_os = "linux", target_os = "android"))]
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
        Err(error) if is_refusal(&error.into()) => {
            lstat(path).map(|stat| (FileId::from(&stat), names_in(&stat)))
        }
        Err(error) => Err(error),
    }
}

// The field has other widths on other Unixes.
#[allow(clippy::unnecessary_cast)]
fn names_in(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

/// Returns what is at this path, or `None` if nothing is.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn facts_at(path: &Path) -> io::Result<Option<Facts>> {
    if_there(retry_on_intr(|| lstat(path)).map(|stat| Facts::from(&stat)))
}

/// Marks a ticket as bypassed, or removes the mark. A mark is one byte of content, so that `stat`
/// shows it.
pub(crate) fn set_mark(file: &File, marked: bool) -> io::Result<()> {
    if marked {
        super::write_at(file, 0, b"p")
    } else {
        file.set_len(0)
    }
}
