//! The kernel's list of file locks, and the processes in it.

use std::cell::OnceCell;
use std::fs::File;
use std::path::Path;

use super::Owners;
use crate::sys::filesystem::FileSystem;
use crate::sys::process::words_of;

/// Returns the command line of a process in the kernel's list of locks, its arguments separated by
/// spaces.
pub(crate) fn command_line(pid: u32) -> Option<String> {
    words_of(&std::fs::read(format!("/proc/{pid}/cmdline")).ok()?)
}

/// The kernel's list of file locks at one instant.
pub(crate) struct LockTable {
    text: String,
    /// Whether the list contains the locks of all processes of the host.
    whole: bool,
    mounts: OnceCell<String>,
}

impl LockTable {
    /// Reads the list. The kernel releases the list between two calls. If a lock before the
    /// position is released then, the next call skips another one. So the list is read with one
    /// call, and twice if one call is not enough.
    pub(crate) fn read() -> Self {
        let mut text = Vec::new();
        let read = read_locks(&mut text);
        if read.as_ref().is_ok_and(|calls| *calls > 1) {
            let _ = read_locks(&mut text);
        }
        Self {
            text: String::from_utf8_lossy(&text).into_owned(),
            whole: read.is_ok() && is_in_first_pid_namespace(),
            mounts: OnceCell::new(),
        }
    }

    /// Returns the processes that have locked the file at this path.
    pub(crate) fn owners(&self, path: &Path) -> Owners {
        let Ok(found) = crate::sys::file::open_to_watch(path) else {
            return Owners::default();
        };
        let Some(file) = found else {
            return Owners {
                listed: Vec::new(),
                all: true,
            };
        };
        let Some(key) = self.key_of(&file) else {
            return Owners::default();
        };
        Owners {
            listed: self.locked(&key),
            // The list omits the locks of a server, and of file systems in user space.
            all: self.whole && FileSystem::of(&file).reports_closes(),
        }
    }

    /// Returns how the list names a file: by the device of its file system and its inode in the
    /// kernel. On btrfs and on an overlay of several file systems `stat` may report other values.
    /// The kernel reports the inode since Linux 5.14. Without it a file counts as known only if its
    /// device is the same.
    fn key_of(&self, file: &File) -> Option<String> {
        use std::os::fd::AsRawFd;
        let stat = rustix::fs::fstat(file).ok()?;
        let (major, minor) = (
            rustix::fs::major(stat.st_dev),
            rustix::fs::minor(stat.st_dev),
        );
        if FileSystem::of(file).is_plain() {
            return Some(format!("{major:02x}:{minor:02x}:{}", stat.st_ino));
        }
        let reported = (major, minor);
        let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
        let facts = facts.ok()?;
        let fact = |name: &str| facts.lines().find_map(|it| it.strip_prefix(name));
        let (major, minor) = self.device_of_mount(fact("mnt_id:")?.trim())?;
        let inode = match fact("ino:") {
            Some(inode) => inode.trim().parse::<u64>().ok()?,
            None => (reported == (major, minor)).then_some(stat.st_ino)?,
        };
        Some(format!("{major:02x}:{minor:02x}:{inode}"))
    }

    fn device_of_mount(&self, id: &str) -> Option<(u32, u32)> {
        let read = || std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = self.mounts.get_or_init(read);
        // `36 35 98:0 /mnt1 /mnt2 rw,noatime …`
        let device = mounts.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next()? == id).then_some(words.nth(1)?)
        })?;
        let (major, minor) = device.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    fn locked(&self, key: &str) -> Vec<(u32, bool)> {
        let owner = |line: &str| {
            // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131083 0 EOF`; waiters have an arrow before the
            // kind.
            let mut words = line.split_ascii_whitespace().skip(1);
            (words.next()? == "FLOCK").then_some(())?;
            let shared = words.nth(1)? == "READ";
            let pid = words.next()?.parse().ok()?;
            (words.next()? == key).then_some((pid, shared))
        };
        // A lock that was read twice is listed twice.
        let mut owners = Vec::new();
        for owner in self.text.lines().filter_map(owner) {
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        owners
    }
}

/// Returns whether `/proc` is that of the first pid namespace. In every other one the list omits
/// the locks of the namespaces beside and above it, and those whose process has ended while its
/// children keep them. A process of the first one has no `/proc/self` in the `/proc` of another.
fn is_in_first_pid_namespace() -> bool {
    /// `PROC_PID_INIT_INO` of the kernel's `proc_ns.h`.
    const FIRST: &str = "pid:[4026531836]";
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|it| it == Path::new(FIRST))
}

/// Returns the pid of this process as `/proc` shows it. If that `/proc` is of another pid
/// namespace, it differs from our own pid.
pub(crate) fn listed_pid() -> u32 {
    let link = std::fs::read_link("/proc/self").ok();
    let listed = link.and_then(|it| it.to_str()?.parse().ok());
    listed.unwrap_or_else(std::process::id)
}

/// Appends the list. Returns how many calls returned a part of it: each returns a page at most.
fn read_locks(text: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut file = File::open("/proc/locks")?;
    // In a container an empty file may be mounted over the list.
    if !FileSystem::of(&file).is_proc() {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    let mut buffer = vec![0; 1 << 16];
    let mut calls = 0;
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer)?;
        if read == 0 {
            return Ok(calls);
        }
        text.extend_from_slice(&buffer[..read]);
        calls += 1;
    }
}
