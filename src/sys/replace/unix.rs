//! Replacing a file on Unix, which gives its rights to the new one.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, linkat, lstat};
use rustix::io::Errno;

use super::Draft;
use crate::sys::file::{self, create_new_in, mode_of, proc_path, refuse_irregular, sync};
use crate::sys::fork::above_reserved;
use crate::sys::rights::Rights;
use crate::sys::{if_there, refusal};

impl Draft for File {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn open_nameless(directory: &Path, mode: u32) -> io::Result<Option<Self>> {
        match file::open_nameless_in(CWD, directory, mode & 0o777) {
            Ok(file) => Ok(Some(file)),
            // Not on this file system, not with this kernel, or not in this sandbox.
            Err(error) if refusal::is_refusal(&error.into()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn name(&self, path: &Path) -> io::Result<bool> {
        let mut buffer = [0; 32];
        let source = proc_path(self, &mut buffer);
        match linkat(CWD, source, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from) {
            Ok(()) => Ok(true),
            Err(error) if refusal::is_refusal_by_proc(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create_named(path: &Path, mode: u32) -> io::Result<Self> {
        Ok(create_new_in(CWD, path, mode & 0o777)?)
    }

    fn open_named(path: &Path) -> io::Result<Option<Self>> {
        let careful = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = |access| rustix::fs::open(path, access | careful, Mode::empty());
        // It has the rights of its target, which may be for reading only or for writing only.
        let opened = match open(OFlags::RDONLY) {
            Err(Errno::ACCESS) => open(OFlags::WRONLY),
            opened => opened,
        };
        if_there(opened.and_then(above_reserved).map(File::from))
    }

    fn dress(&self, look: Option<&Look>, bits: Option<u32>) -> io::Result<()> {
        if let Some(look) = look {
            look.rights.hand_over(self)?;
        }
        match (look, bits) {
            (_, Some(bits)) => file::set_bits(self, bits & 0o777),
            (Some(look), None) => look.give(self),
            (None, None) => Ok(()),
        }
    }
}

impl Look {
    fn give(&self, file: &File) -> io::Result<()> {
        self.rights.give(file)?;
        // Set-id bits mean something else under another owner.
        if self.special == 0 || !self.rights.have_owner(file)? {
            return Ok(());
        }
        let mode = mode_of(&fstat(file)?) & 0o777 | self.special;
        file::set_bits(file, mode)
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
    let Some(stat) = if_there(lstat(path))? else {
        return Ok(None);
    };
    refuse_irregular(&stat)?;
    let rights = Rights::at_path(path)?;
    let special = mode_of(&stat) & 0o7000;
    Ok(rights.map(|rights| Look { rights, special }))
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
