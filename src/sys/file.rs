//! Lock files: how they are opened, identified, marked, read and written.
//!
//! Each platform has an arm. What is the same on all of them is here.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::Access;

#[cfg_attr(unix, path = "file/unix.rs")]
#[cfg_attr(windows, path = "file/windows.rs")]
mod arm;

#[cfg(unix)]
pub(crate) use arm::above_standard_streams;
#[cfg(not(target_os = "linux"))]
pub(super) use arm::look_at;
#[cfg(target_os = "linux")]
pub(super) use arm::open_existing_in;
pub(crate) use arm::{
    AsOpen, announce, check_lock_path, duplicate, duplicate_for_exec, facts_of, id_of, is_marked,
    lend_file, lend_files, named_at, names_of, open_as, open_to_read, open_to_watch, set_mark,
};
#[cfg(unix)]
pub(super) use arm::{create_new_in, mode_bits, mode_of, open_nameless_in, refuse_irregular};

/// The identity of a file, whatever its name: device and inode, or volume and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
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
    match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => checked(opened?).map(Some),
    }
}

/// Returns an open file and its identity. Fails if it cannot be locked.
pub(super) fn checked(file: File) -> io::Result<(File, FileId)> {
    let id = arm::id_of_regular(&file)?;
    Ok((file, id))
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
        match arm::read_at(file, &mut buffer[filled..], filled as u64) {
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
        match arm::write_some_at(file, bytes, offset) {
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
