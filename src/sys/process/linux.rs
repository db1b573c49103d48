//! Processes on Linux.
//!
//! `/proc` may be hidden, mounted in part, not mounted, or that of another pid namespace. So the
//! kernel's own calls come first (`pidfd_open`, the file system of a pidfd, and its `ioctl`). Of
//! `/proc` only what certainly describes this pid namespace is used.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::{Birth, Facts, Life, Platform, ThisPlatform, image_digest, machine_digest, words_of};
use crate::sys::filesystem::FileSystem;
use crate::sys::fork::above_reserved;

/// `PIDFD_GET_PID_NAMESPACE`, since Linux 6.11.
const GET_PID_NAMESPACE: libc::Ioctl = 0xff05;

/// `/proc/self/ns/time` in the initial time namespace.
const INITIAL_TIME: &str = "time:[4026531834]";

impl Platform for ThisPlatform {
    fn own() -> Facts {
        let birth = match Self::look(std::process::id()) {
            Life::Runs(birth) => birth,
            Life::Ended => Birth::default(),
        };
        Facts {
            birth,
            boot: boot_id(),
            space: pid_space(),
            machine: machine_id(),
            image: image_id(),
        }
    }

    fn look(pid: u32) -> Life {
        let start = || Proc::of_this_namespace()?.start_of(pid);
        let Some(number) = number(pid) else {
            return Life::Runs(Birth::default());
        };
        match open_pidfd(pid) {
            Ok(Some(process)) => {
                let start = start();
                // Checked last: as long as it runs, no other process has its pid.
                match has_ended(&process) {
                    true => Life::Ended,
                    false => Life::Runs(Birth {
                        start,
                        serial: serial_of(&process),
                    }),
                }
            }
            Ok(None) => Life::Ended,
            // No descriptor is left, or a filter refuses the call.
            Err(_) if test_kill_process(number) == Err(Errno::SRCH) => Life::Ended,
            Err(_) => Life::Runs(Birth {
                start: start(),
                serial: None,
            }),
        }
    }

    fn command_line(pid: u32) -> Option<String> {
        let bytes = Proc::of_this_namespace()?.read(&format!("{pid}/cmdline"))?;
        words_of(&bytes)
    }
}

fn boot_id() -> Option<String> {
    let text = Proc::open()?.read("sys/kernel/random/boot_id")?;
    let text = String::from_utf8(text).ok()?;
    Some(text.trim().to_owned()).filter(|it| !it.is_empty())
}

/// Returns the ID of systemd or D-Bus. A container has one of its own, or that of its image.
fn machine_id() -> Option<String> {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .find_map(|path| machine_id_in(&std::fs::read(path).ok()?))
}

/// Parses a machine ID. While a system is installed, the file contains `uninitialized`. Zeros are
/// no ID.
fn machine_id_in(text: &[u8]) -> Option<String> {
    let id = text.trim_ascii().to_ascii_lowercase();
    let whole = id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit);
    (whole && id.iter().any(|it| *it != b'0')).then(|| machine_digest(&id))
}

/// Returns the number of the pid namespace.
fn pid_space() -> Option<u64> {
    let own = open_pidfd(std::process::id()).ok().flatten();
    own.and_then(|it| namespace_of(&it)).or_else(|| {
        // Whatever namespace this `/proc` is of, `self` is this process.
        let link = Proc::open()?.link("self/ns/pid")?;
        link.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
    })
}

fn namespace_of(process: &OwnedFd) -> Option<u64> {
    use std::os::fd::{AsRawFd, FromRawFd};
    // SAFETY: `process` is open for the whole call, which takes no pointer. A kernel that does not
    // know the request refuses it.
    let found = unsafe { libc::ioctl(process.as_raw_fd(), GET_PID_NAMESPACE, 0) };
    if found < 0 {
        return None;
    }
    // SAFETY: the call has just created this descriptor, and nothing else knows its number.
    let namespace = unsafe { OwnedFd::from_raw_fd(found) };
    fstat(&namespace).ok().map(|it| it.st_ino)
}

/// Returns a digest of the 16 random bytes that the kernel gives to each image that it executes.
fn image_id() -> Option<String> {
    // SAFETY: takes a number and returns one.
    let address = unsafe { libc::getauxval(libc::AT_RANDOM) } as *const [u8; 16];
    if address.is_null() {
        return None;
    }
    // SAFETY: the kernel has put 16 bytes at this address, on the first stack of the process, where
    // they stay until it ends.
    let bytes = unsafe { address.read_unaligned() };
    Some(image_digest(&bytes))
}

/// Returns a file that becomes readable when the process ends, or `None` if there is no such
/// process. Only Linux has such files.
pub(crate) fn open(pid: u32) -> std::io::Result<Option<File>> {
    Ok(open_pidfd(pid)?.map(File::from))
}

fn open_pidfd(pid: u32) -> std::io::Result<Option<OwnedFd>> {
    let number = number(pid).ok_or(std::io::ErrorKind::InvalidInput)?;
    match pidfd_open(number).and_then(above_reserved) {
        Ok(process) => Ok(Some(process)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(target_os = "linux")]
fn pidfd_open(pid: Pid) -> rustix::io::Result<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
}

/// `rustix` has no such call for Android. It is as new as Linux 5.3, and sandboxes refuse it.
#[cfg(target_os = "android")]
fn pidfd_open(_: Pid) -> rustix::io::Result<OwnedFd> {
    Err(Errno::NOSYS)
}

fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Returns whether all threads of the process have ended, even if its parent has not waited for it
/// yet.
fn has_ended(process: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    poll(&mut ended, Some(&rustix::time::Timespec::default())).is_ok_and(|count| count > 0)
}

/// Returns the inode of the process. Since Linux 6.9 each process has one, which the kernel does
/// not use again before the next boot. Not if inode numbers have 32 bits.
fn serial_of(process: &OwnedFd) -> Option<u64> {
    let wide = cfg!(target_pointer_width = "64");
    let own = wide && FileSystem::of(process).is_pidfs();
    own.then(|| fstat(process).ok().map(|it| it.st_ino))?
}

/// `/proc`, held open, so that everything is read from one mount.
struct Proc(OwnedFd);

impl Proc {
    fn open() -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open("/proc", flags, Mode::empty()).ok()?;
        let real = FileSystem::of(&directory).is_proc();
        real.then_some(Self(directory))
    }

    /// Opens `/proc` if it is that of this process's pid namespace. In another one a pid means
    /// another process.
    fn of_this_namespace() -> Option<Self> {
        let proc = Self::open()?;
        let status = String::from_utf8_lossy(&proc.read("self/status")?).into_owned();
        // One pid for each namespace, from that of this `/proc` inwards.
        let line = status.lines().find_map(|it| it.strip_prefix("NStgid:"))?;
        let mut pids = line.split_ascii_whitespace();
        let own = pids.next()?.parse() == Ok(std::process::id()) && pids.next().is_none();
        own.then_some(proc)
    }

    /// Returns whether times read here are those that other processes read. A time namespace shifts
    /// them.
    fn has_plain_times(&self) -> bool {
        match rustix::fs::readlinkat(&self.0, "self/ns/time", Vec::new()) {
            Ok(link) => link.as_bytes() == INITIAL_TIME.as_bytes(),
            // A kernel without time namespaces.
            Err(error) => error == Errno::NOENT,
        }
    }

    /// Returns the start of a process, in clock ticks since boot. A hidden process has no start.
    fn start_of(&self, pid: u32) -> Option<u64> {
        self.has_plain_times().then_some(())?;
        let stat = self.read(&format!("{pid}/stat"))?;
        // The name is in parentheses and may contain anything, so count from the last one: field 22
        // is the 20th behind it.
        let behind = stat.iter().rposition(|&byte| byte == b')')? + 1;
        let text = std::str::from_utf8(&stat[behind..]).ok()?;
        text.split_ascii_whitespace().nth(19)?.parse().ok()
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, name, flags, Mode::empty()).ok()?;
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut File::from(file), &mut text).ok()?;
        Some(text)
    }

    fn link(&self, name: &str) -> Option<String> {
        let link = rustix::fs::readlinkat(&self.0, name, Vec::new()).ok()?;
        link.into_string().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p31_only_a_whole_machine_id_is_one() {
        let id = "3d1219c7c4c5404aaa1f6d2a48adfda4";
        let found = machine_id_in(format!("{id}\n").as_bytes()).expect("an id");
        assert_eq!(found.len(), 16);
        assert!(!id.contains(&found), "it is not shown");
        assert_eq!(machine_id_in(id.to_uppercase().as_bytes()), Some(found));
        for none in [
            &b""[..],
            b"uninitialized\n",
            &[b'0'; 32],
            &id.as_bytes()[1..],
            b"3d1219c7-c4c5-404a-aa1f-6d2a48adfda4",
        ] {
            assert_eq!(machine_id_in(none), None);
        }
    }

    #[test]
    fn p31_the_kernel_and_proc_tell_one_namespace() {
        let proc = Proc::of_this_namespace();
        let proc = need!(proc.or_else(|| crate::skip::skip("/proc is of another pid namespace")));
        let link = proc.link("self/ns/pid").expect("a link");
        assert_eq!(
            Some(link),
            pid_space().map(|it| format!("pid:[{it}]")),
            "one number"
        );
        assert!(ThisPlatform::own().birth.start.is_some());
    }
}
