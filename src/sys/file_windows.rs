//! Lock files on Windows: how they are opened, identified, marked, read and written.
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

use super::Access;

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

/// The identity of a file, whatever its name: volume and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) id: FileId,
}

pub(crate) fn open_lock_file(path: &Path, _mode: Option<u32>) -> io::Result<(File, Facts)> {
    checked(options().create(true).open(path)?)
}

pub(crate) fn open_existing(path: &Path) -> io::Result<Option<(File, Facts)>> {
    match options().open(path) {
        Ok(file) => checked(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

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

/// Returns what an open file is, and whether its name means another file by now. Fails if it cannot
/// be locked.
pub(crate) fn facts_of(file: &File, path: &Path) -> io::Result<(Facts, bool)> {
    let (_, facts) = checked(file.try_clone()?)?;
    Ok((facts, id_at(path)? != Some(facts.id)))
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

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(OPEN_REPARSE_POINT);
    options
}

/// Returns an open file and what it is. Fails if it cannot be locked.
pub(crate) fn checked(file: File) -> io::Result<(File, Facts)> {
    if !file.metadata()?.is_file() {
        return Err(refused());
    }
    let facts = Facts { id: id_of(&file)? };
    Ok((file, facts))
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

/// Returns `None`: nothing can be watched here.
pub(crate) fn open_to_watch(_path: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

pub(crate) fn id_at(path: &Path) -> io::Result<Option<FileId>> {
    Ok(look_at(path)?.map(|(id, _)| id))
}

pub(crate) fn id_of(file: &File) -> io::Result<FileId> {
    let found = facts::information(file)?;
    Ok(FileId {
        device: found.volume_serial_number(),
        inode: found.file_index(),
    })
}

/// Returns identity and mark of what is at this path.
pub(crate) fn look_at(path: &Path) -> io::Result<Option<(FileId, bool)>> {
    match options().write(false).open(path) {
        Ok(file) => Ok(Some((id_of(&file)?, is_marked(&file)?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fills `buffer` from the start of the file. A range that another handle has locked reads as
/// empty, because a process that needs the record has its lock.
pub(crate) fn read_start(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.seek_read(&mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.raw_os_error() == Some(LOCK_VIOLATION) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

pub(crate) fn write_at(file: &File, offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    let mut at = offset;
    while !bytes.is_empty() {
        let written = file.seek_write(bytes, at)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
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

/// Does the same for what is at a path, with its identity.
pub(crate) fn named_at(path: &Path) -> io::Result<Option<(FileId, u64)>> {
    Ok(id_at(path)?.map(|id| (id, 1)))
}

/// Returns whether a file is known to keep its number for as long as it exists. FAT renumbers files
/// that move.
pub(crate) fn keeps_numbers(_file: &File) -> bool {
    false
}
