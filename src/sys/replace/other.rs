//! Replacing a file as a whole, on platforms without nameless files, owners and permission bits.

use std::fs::File;
use std::io;
use std::path::Path;

use super::file;

pub(crate) fn open_nameless(_directory: &Path, _mode: u32) -> io::Result<Option<File>> {
    Ok(None)
}

pub(crate) fn create_named(path: &Path, _mode: u32) -> io::Result<File> {
    file::create_new(path)
}

pub(crate) fn open_named(path: &Path) -> io::Result<Option<File>> {
    Ok(file::open_existing(path)?.map(|(file, _)| file))
}

pub(crate) fn name(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Gives a file of ours a second name, which must not exist.
pub(crate) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Look;

pub(crate) fn look_of(path: &Path) -> io::Result<Option<Look>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(Look)),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn make_look(_file: &File, _look: &Look, _bits: Option<u32>) -> io::Result<()> {
    Ok(())
}

pub(crate) fn set_bits(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Ensures that changes of names in this directory survive a loss of power, if the system allows
/// this process to write to the directory.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let Ok(directory) = file::open_directory(path) else {
        return Ok(());
    };
    match directory.sync_all() {
        // Some file systems do not support it, and report that.
        Err(error) if is_refusal(&error) => Ok(()),
        synced => synced,
    }
}

fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let kinds = [
        Kind::PermissionDenied,
        Kind::Unsupported,
        Kind::InvalidInput,
    ];
    // `ERROR_INVALID_FUNCTION` has no kind.
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(1)
}
