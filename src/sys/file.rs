//! Lock files: how they are opened, identified, marked, read and written.
//!
//! Each platform has an arm. What is the same on all of them is here.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::{Access, if_there};

#[cfg_attr(unix, path = "file/unix.rs")]
#[cfg_attr(windows, path = "file/windows.rs")]
mod arm;

#[cfg(unix)]
pub(crate) use arm::proc_path;
pub(crate) use arm::{
    AsOpen, announce, check_lock_path, duplicate, duplicate_for_exec, open_as, open_to_read,
    remove, replace, set_mark, sync,
};
#[cfg(windows)]
pub(super) use arm::{create_new, open_directory};
#[cfg(unix)]
pub(super) use arm::{create_new_in, mode_of, refuse_irregular, set_bits, set_bits_or_narrower};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use arm::{named_at, open_to_watch};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use arm::{open_existing_in, open_nameless_in};

/// Lets a guard lend its open lock file, which its method `file()` returns.
macro_rules! lend_file {
    ($guard:ty) => {
        #[cfg(unix)]
        impl std::os::fd::AsFd for $guard {
            /// Borrows the open, locked lock file.
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.file().as_fd()
            }
        }

        #[cfg(windows)]
        impl std::os::windows::io::AsHandle for $guard {
            /// Borrows the open, locked lock file.
            fn as_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
                self.file().as_handle()
            }
        }
    };
}

/// Does the same for a guard with several files, which its method `files()` returns.
macro_rules! lend_files {
    ($guard:ty) => {
        impl $guard {
            /// Borrows the open, locked files, in the order of [`slot_paths`](Self::slot_paths).
            /// Not on Windows, which has `as_handles` instead.
            #[cfg(unix)]
            pub fn as_fds(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
                self.files().map(std::os::fd::AsFd::as_fd)
            }

            /// Borrows the open, locked files, in the order of [`slot_paths`](Self::slot_paths).
            #[cfg(windows)]
            pub fn as_handles(
                &self,
            ) -> impl Iterator<Item = std::os::windows::io::BorrowedHandle<'_>> {
                self.files().map(std::os::windows::io::AsHandle::as_handle)
            }
        }
    };
}

pub(crate) use {lend_file, lend_files};

/// The identity of a file, whatever its name: device and inode, or volume and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// What an arm tells of an open file, and how it reads and writes it.
trait OpenFile {
    /// Returns what the file is. Further names are not counted on Windows.
    fn facts(&self) -> io::Result<Facts>;

    /// Reads at `offset`. Returns how many bytes were read.
    fn read_some_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`. Returns how many bytes were written.
    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
}

/// What a file is.
struct Facts {
    id: FileId,
    names: u64,
    regular: bool,
    /// Whether it is a ticket that was marked as bypassed.
    marked: bool,
}

const READ_AND_WRITE: Access = Access {
    read: true,
    write: true,
    append: false,
    create: false,
    create_new: false,
    mode: None,
};

/// Opens the lock file. Creates it if it is missing.
///
/// Never follows a symbolic link, never blocks on a FIFO, never truncates. A created file gets
/// exactly the bits `mode`, if given, whatever the umask. An existing file keeps its bits.
pub(crate) fn open_lock_file(path: &Path, mode: Option<u32>) -> io::Result<(File, FileId)> {
    let access = Access {
        create: true,
        mode,
        ..READ_AND_WRITE
    };
    open_as(path, &access).and_then(checked)
}

/// Opens a lock file, if there is one.
pub(crate) fn open_existing(path: &Path) -> io::Result<Option<(File, FileId)>> {
    found(open_as(path, &READ_AND_WRITE))
}

/// Converts "not found" into `None`. Fails for a file that cannot be locked.
fn found(opened: io::Result<File>) -> io::Result<Option<(File, FileId)>> {
    if_there(opened)?.map(checked).transpose()
}

/// Returns an open file and its identity. Fails if it cannot be locked.
pub(super) fn checked(file: File) -> io::Result<(File, FileId)> {
    let facts = regular(&file)?;
    Ok((file, facts.id))
}

fn regular(file: &File) -> io::Result<Facts> {
    match file.facts()? {
        facts if facts.regular => Ok(facts),
        _ => Err(refused("it is not a regular file")),
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, why)
}

/// Returns the identity of an open file, and whether it was deleted from this path. Fails if it
/// cannot be locked.
pub(crate) fn facts_of(file: &File, path: &Path) -> io::Result<(FileId, bool)> {
    let facts = regular(file)?;
    // Windows counts no names.
    let deleted = facts.names == 0 || (cfg!(windows) && id_at(path)? != Some(facts.id));
    Ok((facts.id, deleted))
}

/// Returns the identity of an open file.
pub(crate) fn id_of(file: &File) -> io::Result<FileId> {
    Ok(file.facts()?.id)
}

/// Returns how many names an open file has.
pub(crate) fn names_of(file: &File) -> io::Result<u64> {
    Ok(file.facts()?.names)
}

/// Returns whether an open ticket has a mark.
pub(crate) fn is_marked(file: &File) -> io::Result<bool> {
    Ok(file.facts()?.marked)
}

/// Returns the identity of what is at this path, and how many names it has. Returns `None` if
/// nothing is there. Does not follow a final link.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn named_at(path: &Path) -> io::Result<Option<(FileId, u64)>> {
    Ok(arm::facts_at(path)?.map(|it| (it.id, it.names)))
}

/// Returns identity and mark of what is at this path.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn look_at(path: &Path) -> io::Result<Option<(FileId, bool)>> {
    Ok(arm::facts_at(path)?.map(|it| (it.id, it.marked)))
}

/// Returns `None`: nothing can be watched here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn open_to_watch(_path: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

/// Returns the identity of what is at this path, or `None` if nothing is. Does not follow a final
/// link.
pub(crate) fn id_at(path: &Path) -> io::Result<Option<FileId>> {
    Ok(named_at(path)?.map(|(id, _)| id))
}

/// Fills `buffer` from the start of the file. Returns how many bytes were read.
pub(crate) fn read_start(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_some_at(&mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes at `offset`, with one system call if the file system allows.
pub(crate) fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_some_at(bytes, offset) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
