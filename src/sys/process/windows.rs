//! Processes on Windows.
//!
//! The system has no boot ID. But a process is distinguished from all others by its pid and the
//! time of its creation, which does not change with the clock. So the machine's ID is enough, if no
//! other machine can reach the file.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{
    ERROR_INVALID_PARAMETER, ERROR_SUCCESS, FILETIME, HANDLE, WAIT_OBJECT_0,
};
use windows_sys::Win32::System::Registry::{
    HKEY_LOCAL_MACHINE, RRF_RT_REG_DWORD, RRF_RT_REG_SZ, RRF_SUBKEY_WOW6464KEY, RegGetValueW,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION,
    PROCESS_SYNCHRONIZE, WaitForSingleObject,
};
use windows_sys::w;

use super::{Birth, Facts, Life, Platform, ThisPlatform, machine_digest};

impl Platform for ThisPlatform {
    fn own() -> Facts {
        Facts {
            // SAFETY: takes nothing. The handle means this process and need not be closed.
            birth: birth_of(unsafe { GetCurrentProcess() }),
            boot: None,
            // All processes outside containers see each other's pids.
            space: Some(0),
            machine: machine_id(),
            // A process executes one image only.
            image: None,
        }
    }

    fn look(pid: u32) -> Life {
        // Pid 0 belongs to the system, and the call refuses it as if there were no such process.
        if pid == 0 || pid == u32::MAX {
            return Life::Runs(Birth::default());
        }
        let rights = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
        // SAFETY: takes numbers only.
        let handle = unsafe { OpenProcess(rights, 0, pid) };
        if handle.is_null() {
            let error = io::Error::last_os_error().raw_os_error();
            let absent = error == i32::try_from(ERROR_INVALID_PARAMETER).ok();
            return match absent {
                true => Life::Ended,
                // A process of another user.
                false => Life::Runs(Birth::default()),
            };
        }
        // SAFETY: the call has just created this handle, and nothing else knows it.
        let process = unsafe { OwnedHandle::from_raw_handle(handle) };
        // SAFETY: the handle is open, with the right to wait for it.
        match unsafe { WaitForSingleObject(process.as_raw_handle(), 0) } {
            // It has ended, and a handle of another process keeps its pid.
            WAIT_OBJECT_0 => Life::Ended,
            _ => Life::Runs(birth_of(process.as_raw_handle())),
        }
    }
}

/// Returns the ID made at installation. A container has the ID of its image, and sees no process
/// outside, so it has none here.
fn machine_id() -> Option<String> {
    let key = w!("SYSTEM\\CurrentControlSet\\Control");
    if registry(key, w!("ContainerType"), RRF_RT_REG_DWORD).is_some() {
        return None;
    }
    let key = w!("SOFTWARE\\Microsoft\\Cryptography");
    let id = registry(key, w!("MachineGuid"), RRF_RT_REG_SZ)?;
    (id.len() >= 32).then(|| machine_digest(&id))
}

/// Reads a value of the machine's registry, of at most 128 bytes.
fn registry(key: *const u16, name: *const u16, kind: u32) -> Option<Vec<u8>> {
    let mut value = vec![0_u8; 128];
    let mut length = 128_u32;
    // SAFETY: both names end with a zero. The call writes at most `length` bytes into `value`,
    // which has as many.
    let status = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            key,
            name,
            kind | RRF_SUBKEY_WOW6464KEY,
            std::ptr::null_mut(),
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    value.truncate(length as usize);
    (status == ERROR_SUCCESS).then_some(value)
}

fn birth_of(process: HANDLE) -> Birth {
    let none = FILETIME {
        dwLowDateTime: 0,
        dwHighDateTime: 0,
    };
    let [mut created, mut exited, mut kernel, mut user] = [none; 4];
    // SAFETY: the handle is open, and the call writes four times that live until it returns.
    let status = unsafe {
        GetProcessTimes(
            process,
            &raw mut created,
            &raw mut exited,
            &raw mut kernel,
            &raw mut user,
        )
    };
    let start = u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime);
    Birth {
        start: (status != 0).then_some(start),
        serial: None,
    }
}
