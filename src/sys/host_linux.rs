//! The host and what it reports about its files, on Linux.

use std::cell::OnceCell;
use std::fs::File;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

/// Returns the host's name.
pub(crate) fn host_name() -> Option<String> {
    let name = rustix::system::uname();
    name.nodename().to_str().ok().map(str::to_owned)
}

/// Returns nanoseconds of a clock that never goes back, and that advances while the machine sleeps.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) fn sleepless_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Returns nanoseconds of a clock that never goes back and that all processes of the host share.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// File systems of other machines, and shared folders, from the kernel's `magic.h` and their own
/// headers.
const NETWORK: [u32; 22] = [
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x0102_1997, // 9P
    0x6573_5546, // FUSE: sshfs, GlusterFS and others; virtiofs
    0x5346_414F, // AFS
    0x6B41_4653, // kAFS
    0x7375_7245, // Coda
    0x00C3_6400, // Ceph
    0x0BD0_0BD0, // Lustre
    0x7461_636F, // OCFS2
    0x0116_1970, // GFS2
    0x564C,      // NCP
    0x2003_0528, // OrangeFS
    0x1983_0326, // BeeGFS
    0x4750_4653, // GPFS
    0xAAD7_AAEA, // PanFS
    0x786F_4256, // shared folders of VirtualBox
    0xBACB_ACBC, // of VMware
    0x7C7C_6673, // of Parallels
    0x00C0_FFEE, // of User Mode Linux
];

/// Returns whether the close of a file in this directory is an event. It is none if another machine
/// serves the file system.
pub(crate) fn reports_closes_in(directory: &Path) -> bool {
    !rustix::fs::statfs(directory).is_ok_and(|it| is_of_network(&it))
}

/// Does the same for the file at this path, which need not exist.
pub(crate) fn reports_closes_of(path: &Path) -> bool {
    path.parent().is_none_or(reports_closes_in)
}

/// Does the same for an open file.
pub(crate) fn reports_close(file: &std::fs::File) -> bool {
    !rustix::fs::fstatfs(file).is_ok_and(|it| is_of_network(&it))
}

fn is_of_network(found: &rustix::fs::StatFs) -> bool {
    NETWORK.contains(&magic(found))
}

/// Returns the number of the file system.
fn magic(found: &rustix::fs::StatFs) -> u32 {
    // The field is signed, unsigned, wide or narrow by architecture; the number is its low 32 bits.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast
    )]
    let magic = found.f_type as u32;
    magic
}

/// Returns the command line of a process in the kernel's list of locks, its arguments separated by
/// spaces.
pub(crate) fn command_line(pid: u32) -> Option<String> {
    words_of(&std::fs::read(format!("/proc/{pid}/cmdline")).ok()?)
}

/// Parses a command line as the kernel shows it: each argument ends with a zero.
pub(super) fn words_of(bytes: &[u8]) -> Option<String> {
    let words: Vec<_> = bytes
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The kernel's list of file locks at one instant.
pub(crate) struct LockTable {
    text: String,
    /// Whether the list contains the locks of all processes of the host.
    whole: bool,
    mounts: OnceCell<String>,
}

/// The processes that have a file locked.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// Their pids as `/proc` shows them, and whether they share the lock.
    pub(crate) listed: Vec<(u32, bool)>,
    /// Whether there are no others.
    pub(crate) all: bool,
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
        let Ok(found) = super::file::open_to_watch(path) else {
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
            all: self.whole && reports_close(&file),
        }
    }

    /// Returns how the list names a file: by the device of its file system and its inode in the
    /// kernel. On btrfs and on an overlay of several file systems `stat` may report other values.
    /// The kernel reports the inode since Linux 5.14. Without it a file counts as known only if its
    /// device is the same.
    fn key_of(&self, file: &File) -> Option<String> {
        use std::os::fd::AsRawFd;
        /// ext2 to ext4, tmpfs, XFS: there `stat` reports the same.
        const PLAIN: [u32; 3] = [0xEF53, 0x0102_1994, 0x5846_5342];
        let stat = rustix::fs::fstat(file).ok()?;
        let (major, minor) = (
            rustix::fs::major(stat.st_dev),
            rustix::fs::minor(stat.st_dev),
        );
        if PLAIN.contains(&magic(&rustix::fs::fstatfs(file).ok()?)) {
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
    /// `PROC_SUPER_MAGIC`: in a container an empty file may be mounted over the list.
    const PROC: u32 = 0x9FA0;
    let mut file = File::open("/proc/locks")?;
    if magic(&rustix::fs::fstatfs(&file)?) != PROC {
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

/// Blocks all signals on the calling thread, so that the program's handlers run on its own threads.
/// Lets its short timers be on time.
pub(crate) fn prepare_helper_thread() {
    // SAFETY: changes a number that belongs to this thread alone. By default the kernel lets timers
    // be 50 µs late.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
    // SAFETY: `set` is filled before it is read. The calls touch only it and this thread's signal
    // mask.
    unsafe {
        let mut set = std::mem::MaybeUninit::uninit();
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Ends this process as `kill -9` would, or stops it as SIGSTOP would.
#[cfg(stanchion_test)]
pub(crate) fn end_or_stop_self(stop: bool) {
    let signal = if stop { libc::SIGSTOP } else { libc::SIGKILL };
    // SAFETY: sends a signal to this thread, and so to the process. If it were sent to the process,
    // another thread might stop at once while this one continues for a while.
    unsafe { libc::raise(signal) };
}
