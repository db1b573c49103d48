//! Platforms with neither flock nor LockFileEx. Every function returns `Unsupported`.

use std::fs::File;
use std::io;
use std::path::Path;

/// Does nothing: there is no type to lend a file as.
macro_rules! lend_file {
    ($guard:ty) => {};
}
pub(crate) use lend_file;

/// Defines no method to lend files, for the same reason.
macro_rules! lend_files {
    ($guard:ty) => {
        impl $guard {
            #[allow(dead_code)]
            fn lends(&self) -> usize {
                self.files().count()
            }
        }
    };
}
pub(crate) use lend_files;

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

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is no type to lend a file as.
pub(crate) trait AsOpen {}

pub(crate) fn open_as(_path: &Path, _access: &super::Access) -> io::Result<File> {
    unsupported()
}

pub(crate) fn facts_of(_file: &File, _path: &Path) -> io::Result<(Facts, bool)> {
    unsupported()
}

pub(crate) fn duplicate(_file: &impl AsOpen) -> io::Result<File> {
    unsupported()
}

pub(crate) fn duplicate_for_exec(_file: &File) -> io::Result<File> {
    unsupported()
}

pub(crate) fn announce(_file: &File) {}

pub(crate) fn open_lock_file(_path: &Path, _mode: Option<u32>) -> io::Result<(File, Facts)> {
    unsupported()
}

pub(crate) fn open_existing(_path: &Path) -> io::Result<Option<(File, Facts)>> {
    unsupported()
}

pub(crate) fn checked(_file: File) -> io::Result<(File, Facts)> {
    unsupported()
}

pub(crate) fn open_to_read(_path: &Path) -> io::Result<Option<File>> {
    unsupported()
}

pub(crate) fn check_lock_path(_path: &Path) -> io::Result<()> {
    unsupported()
}

/// Returns `None`: nothing can be watched here.
pub(crate) fn open_to_watch(_path: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

pub(crate) fn id_at(_path: &Path) -> io::Result<Option<FileId>> {
    unsupported()
}

pub(crate) fn id_of(_file: &File) -> io::Result<FileId> {
    unsupported()
}

pub(crate) fn look_at(_path: &Path) -> io::Result<Option<(FileId, bool)>> {
    unsupported()
}

pub(crate) fn read_start(_file: &File, _buffer: &mut [u8]) -> io::Result<usize> {
    unsupported()
}

pub(crate) fn write_at(_file: &File, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
    unsupported()
}

pub(crate) fn set_mark(_file: &File, _marked: bool) -> io::Result<()> {
    unsupported()
}

pub(crate) fn is_marked(_file: &File) -> io::Result<bool> {
    unsupported()
}

/// Returns 1: files have one name here, because nothing is ever linked.
pub(crate) fn names_of(_file: &File) -> io::Result<u64> {
    Ok(1)
}

pub(crate) fn named_at(_path: &Path) -> io::Result<Option<(FileId, u64)>> {
    unsupported()
}

/// Returns whether a file keeps its number for as long as it exists.
pub(crate) fn keeps_numbers(_file: &File) -> bool {
    false
}
