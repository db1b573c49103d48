//! Lock files on Windows.
//!
//! A lock is mandatory there: no other process can read or write a locked file. So a mark is not
//! content but the time of the last write, set close to the epoch, which every handle may change.
//! The record of a held lock cannot be read.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
pub(crate) use std::os::windows::io::AsHandle as AsOpen;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use winapi_util::file as facts;

use super::{FileId, open_existing};
use crate::sys::Access;

/// Lets a guard lend its open lock file, which its method `file()` returns.
macro_rules! lend_file {
    ($guard:ty) => {
        impl std::os::windows::io::AsHandle for $guard {
            /// Borrows the open, locked lock file.
            fn as_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
                self.file().as_handle()
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
            pub fn as_handles(
                &self,
            ) -> impl Iterator<Item = std::os::windows::io::BorrowedHandle<'_>> {
                self.files().map(std::os::windows::io::AsHandle::as_handle)
            }
        }
    };
}
pub(crate) use lend_files;

/// `FILE_FLAG_OPEN_REPARSE_POINT`: opens a link itself, not its target.
const OPEN_REPARSE_POINT: u32 = 0x0020_0000;
/// The error of reading or writing what another handle has locked.
const LOCK_VIOLATION: i32 = 33;

/// Opens a file to read it, if there is one.
pub(crate) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    Ok(open_existing(path)?.map(|(file, _)| file))
}

pub(crate) fn check_lock_path(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(refused()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens any file that is to be locked. [`facts_of`] checks whether it can be locked.
pub(crate) fn open_as(path: &Path, access: &Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(access.read).write(access.write);
    options.append(access.append);
    options.create(access.create).create_new(access.create_new);
    options.custom_flags(OPEN_REPARSE_POINT);
    // Permission bits mean nothing here.
    let _ = access.mode;
    options.open(path)
}

/// Returns the identity of an open file, and whether its name means another file by now. Fails if
/// it cannot be locked.
pub(crate) fn facts_of(file: &File, path: &Path) -> io::Result<(FileId, bool)> {
    let id = id_of_regular(file)?;
    Ok((id, super::id_at(path)? != Some(id)))
}

/// Returns the identity of an open file. Fails if it cannot be locked.
pub(super) fn id_of_regular(file: &File) -> io::Result<FileId> {
    match file.metadata()?.is_file() {
        true => id_of(file),
        false => Err(refused()),
    }
}

/// Returns another handle of the same open file.
pub(crate) fn duplicate(file: &impl AsOpen) -> io::Result<File> {
    Ok(File::from(file.as_handle().try_clone_to_owned()?))
}

/// Fails: a process cannot replace its program here.
pub(crate) fn duplicate_for_exec(_file: &File) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: there are no file events here.
pub(crate) fn announce(_file: &File) {}

/// Opens what is at this path, without the right to change its content. Returns `None` if nothing
/// is there.
fn open_to_look(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OPEN_REPARSE_POINT);
    match options.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

/// Returns `None`: nothing can be watched here.
pub(crate) fn open_to_watch(_path: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

pub(crate) fn id_of(file: &File) -> io::Result<FileId> {
    let found = facts::information(file)?;
    Ok(FileId {
        device: found.volume_serial_number(),
        inode: found.file_index(),
    })
}

/// Returns identity and mark of what is at this path.
pub(in crate::sys) fn look_at(path: &Path) -> io::Result<Option<(FileId, bool)>> {
    let look = |file| Ok((id_of(&file)?, is_marked(&file)?));
    open_to_look(path)?.map(look).transpose()
}

/// Reads at `offset`. A range that another handle has locked reads as empty, because a process that
/// needs the record has its lock.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match file.seek_read(buffer, offset) {
        Err(error) if error.raw_os_error() == Some(LOCK_VIOLATION) => Ok(0),
        read => read,
    }
}

/// Writes at `offset`. Returns how many bytes were written.
pub(super) fn write_some_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.seek_write(bytes, offset)
}

pub(crate) fn set_mark(file: &File, marked: bool) -> io::Result<()> {
    file.set_modified(if marked { mark() } else { SystemTime::now() })
}

pub(crate) fn is_marked(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.modified()? <= mark())
}

/// Returns a time of writing that no real ticket has. Not zero, which Windows reads as "leave it".
fn mark() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1)
}

/// Returns 1: files have one name here, because nothing is ever linked.
pub(crate) fn names_of(_file: &File) -> io::Result<u64> {
    Ok(1)
}

/// Returns the identity of what is at this path, and how many names it has.
pub(crate) fn named_at(path: &Path) -> io::Result<Option<(FileId, u64)>> {
    let id = open_to_look(path)?.map(|file| id_of(&file)).transpose()?;
    Ok(id.map(|id| (id, 1)))
}
