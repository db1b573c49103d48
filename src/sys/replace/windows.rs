//! Replacing a file as a whole on Windows, which has no nameless files and no permission bits.
//!
//! A file that is replaced has an access list. The new file gets that list before it gets the name,
//! so no user gets more rights than before. Until then it has the list that it inherits from its
//! directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;

use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GetKernelObjectSecurity, SetKernelObjectSecurity,
};
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_OPEN_REPARSE_POINT, READ_CONTROL};

use super::Draft;
use crate::sys::{file, if_there};

impl Draft for File {
    fn create_named(path: &Path, _mode: u32) -> io::Result<Self> {
        file::create_new(path)
    }

    fn open_named(path: &Path) -> io::Result<Option<Self>> {
        Ok(file::open_existing(path)?.map(|(file, _)| file))
    }

    fn dress(&self, look: Option<&Look>, _bits: Option<u32>) -> io::Result<()> {
        let Some(list) = look.and_then(|it| it.list.as_ref()) else {
            return Ok(());
        };
        let descriptor = list.as_ptr().cast_mut().cast();
        // SAFETY: the handle is open, with the right to set the list. The system has written the
        // descriptor, which points only into itself, and the call only reads it.
        let status = unsafe {
            SetKernelObjectSecurity(self.as_raw_handle(), DACL_SECURITY_INFORMATION, descriptor)
        };
        match status {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Gives a file of ours a second name, which must not exist.
pub(crate) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)
}

/// Who may use a file that is to be replaced.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The access list, in the system's own form. A file system may have none.
    list: Option<Vec<u8>>,
}

/// Returns the rights of the file at this path, or `None` if nothing is there. Fails if it cannot
/// be replaced as a file.
pub(crate) fn look_of(path: &Path) -> io::Result<Option<Look>> {
    let Some(found) = if_there(std::fs::symlink_metadata(path))? else {
        return Ok(None);
    };
    if !found.is_file() {
        let text = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut options = OpenOptions::new();
    options.access_mode(READ_CONTROL);
    options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    let opened = if_there(options.open(path))?;
    Ok(opened.map(|file| Look {
        list: list_of(&file),
    }))
}

/// Returns the access list of an open file, if the file system has such lists.
fn list_of(file: &File) -> Option<Vec<u8>> {
    let mut list = vec![0_u8; 1024];
    loop {
        let room = u32::try_from(list.len()).ok()?;
        let mut needed = 0;
        // SAFETY: the handle is open, with the right to read the list. The call writes at most
        // `room` bytes into `list`, which has as many, and one number.
        let status = unsafe {
            GetKernelObjectSecurity(
                file.as_raw_handle(),
                DACL_SECURITY_INFORMATION,
                list.as_mut_ptr().cast(),
                room,
                &raw mut needed,
            )
        };
        let needed = usize::try_from(needed).ok()?;
        match status {
            0 if needed > list.len() => list.resize(needed, 0),
            0 => return None,
            _ => return Some(list),
        }
    }
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

#[cfg(test)]
mod tests {
    use windows_sys::Win32::Foundation::LocalFree;
    use windows_sys::Win32::Security::Authorization::{
        ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
    };
    use windows_sys::w;

    use super::*;

    /// Gives a file a list that admits its owner and administrators only.
    fn close_to_others(file: &File) {
        let text = w!("D:P(A;;FA;;;OW)(A;;FA;;;BA)(A;;FA;;;SY)");
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: the text ends with a zero. The call allocates a descriptor, which is read and
        // then freed.
        unsafe {
            let made = ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text,
                SDDL_REVISION_1,
                &raw mut descriptor,
                std::ptr::null_mut(),
            );
            assert_ne!(made, 0);
            let handle = file.as_raw_handle();
            let set = SetKernelObjectSecurity(handle, DACL_SECURITY_INFORMATION, descriptor);
            assert_ne!(set, 0);
            LocalFree(descriptor.cast());
        }
    }

    #[test]
    fn a_new_file_admits_the_users_of_the_old_one() {
        let scratch = tempfile::tempdir().expect("a directory");
        let [old, new] = ["old", "new"].map(|it| scratch.path().join(it));
        close_to_others(&File::create_named(&old, 0).expect("a file"));
        let file = File::create_named(&new, 0).expect("a file");
        let list = |path: &Path| look_of(path).expect("readable").expect("there").list;
        assert_ne!(list(&new), list(&old));
        let look = look_of(&old).expect("readable").expect("there");
        file.dress(Some(&look), None).expect("its list");
        assert_eq!(list(&new), list(&old));
        sync_directory(scratch.path()).expect("synced");
    }
}
