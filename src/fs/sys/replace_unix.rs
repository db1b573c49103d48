//! Replacing a file as a whole: files without a name, links, and the order in which things reach the disk.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fchmod, fstat, linkat, lstat};
use rustix::io::Errno;

use super::file::above_standard_streams;
use super::rights::Rights;

fn bits(mode: u32) -> Mode {
    Mode::from_bits_truncate((mode & 0o777) as _)
}

/// A file without a name in this directory, gone at the latest when its owner dies; `None` where there is no such thing.
#[cfg(target_os = "linux")]
pub(crate) fn open_nameless(directory: &Path, mode: u32) -> io::Result<Option<File>> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, bits(mode)).and_then(above_standard_streams) {
        Ok(file) => Ok(Some(File::from(file))),
        // Not on this file system, or not with this kernel.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn open_nameless(_directory: &Path, _mode: u32) -> io::Result<Option<File>> {
    Ok(None)
}

/// A new file under this name; it must not exist.
pub(crate) fn create_named(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, bits(mode)).and_then(above_standard_streams)?;
    Ok(File::from(file))
}

/// Opens what is under the name of a temporary file, if anything is.
pub(crate) fn open_named(path: &Path) -> io::Result<Option<File>> {
    let careful = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = |access| rustix::fs::open(path, access | careful, Mode::empty());
    // It has the look of its target, which may be for reading or for writing only.
    let opened = match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => open(OFlags::WRONLY),
        opened => opened,
    };
    match opened.and_then(above_standard_streams) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives a nameless file a name that nothing has.
pub(crate) fn name(file: &File, path: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, source, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// Who may use a file that is to be replaced.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    rights: Rights,
    /// Set-id and sticky bits.
    special: u32,
}

/// What is at the path now; refused if it cannot be replaced as a file. `None` when nothing is.
pub(crate) fn look_of(path: &Path) -> io::Result<Option<Look>> {
    let stat = match lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(refused("it is a symbolic link")),
        _ => return Err(refused("it is not a regular file")),
    }
    #[allow(clippy::unnecessary_cast)] // its width differs from Unix to Unix
    let special = stat.st_mode as u32 & 0o7000;
    let rights = Rights::at_path(path)?;
    Ok(rights.map(|rights| Look { rights, special }))
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Makes a file look like the one it replaces: the same users may use it, and no others. It gets
/// the owner and the group as far as this process may set them. With `bits` it has those instead of
/// the other's.
pub(crate) fn make_look(file: &File, look: &Look, bits: Option<u32>) -> io::Result<()> {
    look.rights.hand_over(file)?;
    if let Some(bits) = bits {
        return set_bits(file, bits);
    }
    look.rights.give(file)?;
    // Set-id bits mean another thing under another owner.
    if look.special == 0 || !look.rights.have_owner(file)? {
        return Ok(());
    }
    #[allow(clippy::unnecessary_cast)] // its width differs from Unix to Unix
    let mode = fstat(file)?.st_mode as u32 & 0o777 | look.special;
    Ok(fchmod(file, Mode::from_bits_truncate(mode as _))?)
}

pub(crate) fn set_bits(file: &File, mode: u32) -> io::Result<()> {
    Ok(fchmod(file, bits(mode))?)
}

/// Makes sure that what happened to names in this directory survives a loss of power.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => File::from(directory),
        // Who may write in a directory may still not read it, and then there is no way.
        Err(Errno::ACCESS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match directory.sync_all() {
        // Some file systems cannot, and say so.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}
