//! Lock files on Unix: how they are opened, told apart, marked, read and written.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

pub(crate) use std::os::fd::{AsFd as AsHandle, BorrowedFd as BorrowedHandle};

/// Which file this is, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// What one `fstat` tells of an open lock file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) id: FileId,
    /// Permission bits: who may use the lock, so that the queue can be opened to the same people.
    pub(crate) mode: u32,
}

/// Opens the lock file, creating it if it is missing; the flag says whether this call created it.
///
/// Never follows a symbolic link, never blocks on a FIFO, never truncates. `mode`, when given, is set exactly by the
/// creator, whatever the umask; files that exist keep theirs.
pub(crate) fn open_lock_file(path: &Path, mode: Option<u32>) -> io::Result<(File, Facts)> {
    loop {
        // Without O_CREAT first: in a sticky directory the kernel refuses O_CREAT on another user's file.
        match options(mode).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(file) => return checked(file),
            Err(error) => return Err(plain(error, path)),
        }
        match options(mode).create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A dangling symbolic link exists for O_EXCL and is missing for open: without this, a loop for ever.
                if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
                    return Err(refused("it is a symbolic link"));
                }
            }
            Ok(file) => {
                if let Some(mode) = mode {
                    file.set_permissions(PermissionsExt::from_mode(mode))?;
                }
                return checked(file);
            }
            Err(error) => return Err(plain(error, path)),
        }
    }
}

/// Opens an existing lock file, or says that there is none.
pub(crate) fn open_existing(path: &Path) -> io::Result<Option<(File, Facts)>> {
    match options(None).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(file) => checked(file).map(Some),
        Err(error) => Err(plain(error, path)),
    }
}

/// Opens a file to look at its content, or says that there is none. Same precautions as for lock files.
pub(crate) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    match options(None).write(false).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(file) => checked(file).map(|(file, _)| Some(file)),
        Err(error) => Err(plain(error, path)),
    }
}

/// The permission bits of an open file.
pub(crate) fn mode_of(file: &File) -> io::Result<u32> {
    Ok(file.metadata()?.mode() & 0o777)
}

/// Refuses what can never be a lock file, before anything is created.
pub(crate) fn check_lock_path(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(refused("it is a symbolic link")),
        Ok(found) if !found.is_file() => Err(refused("it is not a regular file")),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn options(mode: Option<u32>) -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(mode.unwrap_or(0o666))
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
    options
}

fn checked(file: File) -> io::Result<(File, Facts)> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(refused("it is not a regular file"));
    }
    let facts = Facts {
        id: FileId::from(&metadata),
        mode: metadata.mode() & 0o777,
    };
    Ok((file, facts))
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Puts what the kernel says of links, sockets and devices into words.
fn plain(error: io::Error, path: &Path) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ELOOP) if std::fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink()) => {
            refused("it is a symbolic link")
        }
        Some(libc::ENXIO) => refused("it is not a regular file"),
        _ => error,
    }
}

/// The identity of what is at this path now, not following a final link; `None` when nothing is.
pub(crate) fn id_at(path: &Path) -> io::Result<Option<FileId>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(FileId::from(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The identity of an open file.
pub(crate) fn id_of(file: &File) -> io::Result<FileId> {
    file.metadata().map(|metadata| FileId::from(&metadata))
}

/// Fills `buffer` from the start of the file; returns how much there was.
pub(crate) fn read_start(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes at `offset` with one system call where the file system allows.
pub(crate) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Marks a ticket as passed over, or takes the mark away. A mark is one byte of content, so that `stat` sees it.
pub(crate) fn set_mark(file: &File, marked: bool) -> io::Result<()> {
    if marked {
        file.write_all_at(b"p", 0)
    } else {
        file.set_len(0)
    }
}

/// Whether an open ticket bears a mark.
pub(crate) fn is_marked(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.len() > 0)
}
