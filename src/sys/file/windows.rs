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

use super::{Facts, FileId, open_existing, refused};
use crate::sys::Access;

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
        Ok(found) if !found.is_file() => Err(refused("it is not a regular file")),
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

/// Returns what is at this path, or `None` if nothing is.
pub(super) fn facts_at(path: &Path) -> io::Result<Option<Facts>> {
    let open = open_to_look(path)?;
    open.map(|file| facts_of(&file)).transpose()
}

/// Returns what an open file is. It has one name, because nothing is ever linked.
pub(super) fn facts_of(file: &File) -> io::Result<Facts> {
    let found = facts::information(file)?;
    let metadata = file.metadata()?;
    Ok(Facts {
        id: FileId {
            device: found.volume_serial_number(),
            inode: found.file_index(),
        },
        names: 1,
        regular: metadata.is_file(),
        marked: metadata.modified()? <= mark(),
    })
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

/// Returns a time of writing that no real ticket has. Not zero, which Windows reads as "leave it".
fn mark() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1)
}
