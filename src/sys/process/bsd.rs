//! Processes on macOS and FreeBSD.
//!
//! FreeBSD computes the start of a process from the wall clock, so it changes when the clock is
//! set. There only the absence of a process proves its end. A FreeBSD process in a jail sees no
//! process outside, and records no pid space.

use std::ffi::CStr;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::{Birth, Facts, Life, Platform, ThisPlatform, image_digest, machine_digest};

impl Platform for ThisPlatform {
    fn own() -> Facts {
        Facts {
            birth: birth_of(std::process::id()),
            boot: boot_id(),
            space: pid_space(),
            machine: machine_id(),
            image: image_id(),
        }
    }

    fn look(pid: u32) -> Life {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let absent = number.is_some_and(|it| test_kill_process(it) == Err(Errno::SRCH));
        match absent && hides_nobody() {
            true => Life::Ended,
            false => Life::Runs(birth_of(pid)),
        }
    }
}

#[cfg(target_os = "macos")]
fn boot_id() -> Option<String> {
    let id = sysctl(c"kern.bootsessionuuid")?;
    let id = String::from_utf8(id).ok()?;
    Some(id.trim_end_matches('\0').to_owned()).filter(|it| !it.is_empty())
}

#[cfg(target_os = "freebsd")]
fn boot_id() -> Option<String> {
    let id = sysctl(c"kern.boot_id")?;
    let random = id.len() == 16 && id.iter().any(|it| *it != 0);
    random.then(|| id.iter().map(|it| format!("{it:02x}")).collect())
}

#[cfg(target_os = "macos")]
fn machine_id() -> Option<String> {
    let mut id = [0_u8; 16];
    let at_once = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the 16 bytes of a UUID, and reads the time limit. Both live until it
    // returns.
    let status = unsafe { libc::gethostuuid(id.as_mut_ptr(), &raw const at_once) };
    (status == 0 && id != [0; 16]).then(|| machine_digest(&id))
}

#[cfg(target_os = "freebsd")]
fn machine_id() -> Option<String> {
    let id = sysctl(c"kern.hostuuid")?;
    let id = id.strip_suffix(b"\0").unwrap_or(&id);
    let set = id.len() == 36 && id.iter().any(|it| !matches!(it, b'0' | b'-'));
    set.then(|| machine_digest(id))
}

/// All processes see each other's pids.
#[cfg(target_os = "macos")]
fn pid_space() -> Option<u64> {
    Some(0)
}

#[cfg(target_os = "freebsd")]
fn pid_space() -> Option<u64> {
    (number(c"security.jail.jailed")? == 0).then_some(0)
}

/// Returns the version of the pid, which the kernel raises at each `exec`.
#[cfg(target_os = "macos")]
fn image_id() -> Option<String> {
    /// `TASK_AUDIT_TOKEN` of `mach/task_info.h`, and the index of the version in a token.
    const FLAVOR: libc::task_flavor_t = 15;
    const VERSION: usize = 7;
    let mut token = [0_i32; 8];
    let mut length = 8;
    // SAFETY: the call writes at most `length` numbers into `token`, which has as many. The port is
    // this task's own.
    #[allow(deprecated)] // The crate that is recommended for it has this one function for us.
    let status = unsafe {
        libc::task_info(
            libc::mach_task_self(),
            FLAVOR,
            token.as_mut_ptr(),
            &raw mut length,
        )
    };
    (status == 0 && length == 8).then(|| image_digest(&token[VERSION].to_ne_bytes()))
}

/// Returns the random bytes that the kernel gives to each image that it executes.
#[cfg(target_os = "freebsd")]
fn image_id() -> Option<String> {
    let mut bytes = [0_u8; 64];
    // SAFETY: the call writes at most 64 bytes into `bytes`.
    let status = unsafe { libc::elf_aux_info(libc::AT_CANARY, bytes.as_mut_ptr().cast(), 64) };
    (status == 0 && bytes != [0; 64]).then(|| image_digest(&bytes))
}

fn birth_of(pid: u32) -> Birth {
    Birth {
        start: start_of(pid),
        serial: None,
    }
}

/// Returns the start in microseconds since the epoch, as the clock was then.
#[cfg(target_os = "macos")]
fn start_of(pid: u32) -> Option<u64> {
    let pid = i32::try_from(pid).ok()?;
    let mut facts = std::mem::MaybeUninit::<libc::proc_bsdinfo>::zeroed();
    let size = i32::try_from(size_of::<libc::proc_bsdinfo>()).ok()?;
    // SAFETY: the call writes at most `size` bytes into `facts`, which has as many.
    let written = unsafe {
        libc::proc_pidinfo(
            pid,
            libc::PROC_PIDTBSDINFO,
            0,
            facts.as_mut_ptr().cast(),
            size,
        )
    };
    // SAFETY: all of it is zeros, or has been written; every value of its fields is valid.
    let facts = unsafe { facts.assume_init() };
    (written == size).then(|| facts.pbi_start_tvsec * 1_000_000 + facts.pbi_start_tvusec)
}

#[cfg(target_os = "freebsd")]
fn start_of(_pid: u32) -> Option<u64> {
    None
}

#[cfg(target_os = "macos")]
fn hides_nobody() -> bool {
    true
}

/// Returns whether this user can see the processes of all users. Otherwise they seem not to exist.
#[cfg(target_os = "freebsd")]
fn hides_nobody() -> bool {
    let shown = [
        c"security.bsd.see_other_uids",
        c"security.bsd.see_other_gids",
    ];
    let modules = [
        c"security.mac.seeotheruids.enabled",
        c"security.mac.partition.enabled",
    ];
    shown.iter().all(|it| number(it) == Some(1))
        && modules.iter().all(|it| number(it).is_none_or(|on| on == 0))
}

#[cfg(target_os = "freebsd")]
fn number(name: &CStr) -> Option<i32> {
    sysctl(name)?.try_into().ok().map(i32::from_ne_bytes)
}

/// Reads a short value of the kernel's table.
fn sysctl(name: &CStr) -> Option<Vec<u8>> {
    let mut value = vec![0_u8; 64];
    let mut length = value.len();
    let none = std::ptr::null_mut();
    // SAFETY: the name ends with a zero. The call writes at most `length` bytes into `value`, which
    // has as many, and sets nothing.
    let status = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            &raw mut length,
            none,
            0,
        )
    };
    value.truncate(length);
    (status == 0 && !value.is_empty()).then_some(value)
}
