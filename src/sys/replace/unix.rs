//! Replacing a file as a whole: files without a name, links, and the order in which changes reach
//! the disk.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, linkat, lstat};
use rustix::io::Errno;

use super::file::{
    self, above_standard_streams, create_new_in, mode_of, proc_path, refuse_irregular, sync,
};
use super::refusal;
use super::rights::Rights;

/// Opens a file without a name in this directory. It is gone at the latest when its process dies.
/// Returns `None` if there are no such files.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn open_nameless(directory: &Path, mode: u32) -> io::Result<Option<File>> {
    match file::open_nameless_in(CWD, directory, mode & 0o777) {
        Ok(file) => Ok(Some(file)),
        // Not on this file system, not with this kernel, or not in this sandbox.
        Err(error) if refusal::is_refusal(&error.into()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn open_nameless(_directory: &Path, _mode: u32) -> io::Result<Option<File>> {
    Ok(None)
}

/// Creates a file under this name, which must not exist.
pub(crate) fn create_named(path: &Path, mode: u32) -> io::Result<File> {
    Ok(create_new_in(CWD, path, mode & 0o777)?)
}

/// Opens the temporary file of this name, if there is one.
pub(crate) fn open_named(path: &Path) -> io::Result<Option<File>> {
    let careful = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = |access| rustix::fs::open(path, access | careful, Mode::empty());
    // It has the rights of its target, which may be for reading only or for writing only.
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

/// Gives a nameless file a name, which must not exist. Returns `false` if that is refused, so that
/// a file must be created under a name.
pub(crate) fn name(file: &File, path: &Path) -> io::Result<bool> {
    let mut buffer = [0; 32];
    let source = proc_path(file, &mut buffer);
    match linkat(CWD, source, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from) {
        Ok(()) => Ok(true),
        Err(error) if refusal::is_refusal_by_proc(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a file of ours a second name, or only that name if there are no links. Fails with
/// [`io::ErrorKind::AlreadyExists`] if the name exists.
pub(crate) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    let ways = [link_at, link, move_unless_there];
    let mut last = io::ErrorKind::Unsupported.into();
    for way in ways {
        match way(from, to).map_err(io::Error::from) {
            Err(error) if refusal::is_refusal(&error) => last = error,
            result => return result,
        }
    }
    Err(refusal::unsupported("cannot give a file a name", last))
}

fn link_at(from: &Path, to: &Path) -> rustix::io::Result<()> {
    linkat(CWD, from, CWD, to, AtFlags::empty())
}

/// Uses another system call, if the platform has one.
fn link(from: &Path, to: &Path) -> rustix::io::Result<()> {
    rustix::fs::link(from, to)
}

/// Renames, if there are no links at all. This is one step too, and never replaces a file.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn move_unless_there(from: &Path, to: &Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, rustix::fs::RenameFlags::NOREPLACE)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn move_unless_there(_from: &Path, _to: &Path) -> rustix::io::Result<()> {
    Err(Errno::OPNOTSUPP)
}

/// Who may use a file that is to be replaced.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    rights: Rights,
    /// Set-id and sticky bits.
    special: u32,
}

/// Returns the rights of the file at this path, or `None` if nothing is there. Fails if it cannot
/// be replaced as a file.
pub(crate) fn look_of(path: &Path) -> io::Result<Option<Look>> {
    let stat = match lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    refuse_irregular(&stat)?;
    let rights = Rights::at_path(path)?;
    let special = mode_of(&stat) & 0o7000;
    Ok(rights.map(|rights| Look { rights, special }))
}

/// Gives a file the rights of the one that it replaces: the same users may use it, and no others.
/// It gets the owner and the group as far as this process may set them. With `bits` it has these
/// bits instead.
pub(crate) fn make_look(file: &File, look: &Look, bits: Option<u32>) -> io::Result<()> {
    look.rights.hand_over(file)?;
    if let Some(bits) = bits {
        return set_bits(file, bits);
    }
    look.rights.give(file)?;
    // Set-id bits mean something else under another owner.
    if look.special == 0 || !look.rights.have_owner(file)? {
        return Ok(());
    }
    let mode = mode_of(&fstat(file)?) & 0o777 | look.special;
    file::set_bits(file, mode)
}

pub(crate) fn set_bits(file: &File, mode: u32) -> io::Result<()> {
    file::set_bits(file, mode & 0o777)
}

/// Ensures that changes of names in this directory survive a loss of power.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => File::from(directory),
        // A process that may write in a directory may not be allowed to read it. Then there is no
        // way.
        Err(error) if refusal::is_refusal(&error.into()) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match sync(&directory) {
        // Some file systems do not support it, and report that.
        Err(error) if refusal::is_refusal(&error) => Ok(()),
        result => result,
    }
}
