//! File systems of Windows: whether their drive is in this machine.

use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;

use windows_sys::Win32::Storage::FileSystem::{
    FILE_NAME_NORMALIZED, GetDriveTypeW, GetFinalPathNameByHandleW, GetVolumePathNameW,
};
use windows_sys::Win32::System::WindowsProgramming::{DRIVE_FIXED, DRIVE_RAMDISK};

use super::{FileSystem, LOCAL, Platform};
use crate::sys::file::AsOpen;

/// The longest path, in units of 16 bits.
const LONGEST: usize = 32_768;

impl Platform for FileSystem {
    fn traits_of(file: &impl AsOpen) -> u8 {
        let mut path = vec![0_u16; LONGEST];
        let room = LONGEST as u32;
        // SAFETY: the handle is open. The call writes at most `room` units into `path`, which has
        // as many.
        let length = unsafe {
            GetFinalPathNameByHandleW(
                file.as_handle().as_raw_handle(),
                path.as_mut_ptr(),
                room,
                FILE_NAME_NORMALIZED,
            )
        };
        // If the room is too small, this is the room that is needed.
        match length > 0 && length < room {
            true => traits_of_path(&path[..=length as usize]),
            false => 0,
        }
    }

    fn traits_at(path: &Path) -> u8 {
        let path: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
        traits_of_path(&path)
    }
}

/// Returns what is known about the file system of a path that ends with a zero.
fn traits_of_path(path: &[u16]) -> u8 {
    let mut volume = vec![0_u16; LONGEST];
    // SAFETY: the path ends with a zero. The call writes at most as many units as `volume` has.
    let found = unsafe { GetVolumePathNameW(path.as_ptr(), volume.as_mut_ptr(), LONGEST as u32) };
    // SAFETY: the volume's path ends with a zero, as the call has written it, or is empty.
    let kind = unsafe { GetDriveTypeW(volume.as_ptr()) };
    let local = found != 0 && (kind == DRIVE_FIXED || kind == DRIVE_RAMDISK);
    if local { LOCAL } else { 0 }
}
