//! The host and what it tells of its files, on Linux.

use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

/// Whether the kernel tells of closed files.
pub(crate) const TELLS_CLOSES: bool = true;

/// The host's name.
pub(crate) fn host_name() -> Option<String> {
    let name = rustix::system::uname();
    name.nodename().to_str().ok().map(str::to_owned)
}

/// Nanoseconds on a clock that never goes back, and that goes on while the machine sleeps.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) fn sleepless_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Nanoseconds on a clock that never goes back and that all processes of the host share.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// From the kernel's `magic.h` and the file systems' own headers.
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

/// Whether the file system at this path is served by somebody who may be slow or gone, and tells no events.
pub(crate) fn is_on_network(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|it| is_of_network(&it))
}

/// The same of an open file.
pub(crate) fn is_file_on_network(file: &std::fs::File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|it| is_of_network(&it))
}

fn is_of_network(found: &rustix::fs::StatFs) -> bool {
    // The field is signed, unsigned, wide or narrow by architecture; the magic is its low 32 bits.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast
    )]
    let magic = found.f_type as u32;
    NETWORK.contains(&magic)
}

/// The processes that hold the lock of a file, as far as this pid namespace can see, and whether they share it.
pub(crate) fn lock_owners(device: u64, inode: u64, table: &LockTable) -> Vec<(u32, bool)> {
    let key = format!(
        "{:02x}:{:02x}:{inode}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let owner = |line: &str| {
        // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131083 0 EOF`; waiters have an arrow before the kind.
        let mut words = line.split_ascii_whitespace().skip(1);
        (words.next()? == "FLOCK").then_some(())?;
        let shared = words.nth(1)? == "READ";
        let pid = words.next()?.parse().ok()?;
        (words.next()? == key).then_some((pid, shared))
    };
    table.0.lines().filter_map(owner).collect()
}

/// The command line of a process that the kernel's list of locks names, its arguments separated by
/// spaces.
pub(crate) fn command_line(pid: u32) -> Option<String> {
    words_of(&std::fs::read(format!("/proc/{pid}/cmdline")).ok()?)
}

/// A command line as the kernel gives it: each argument ends with a zero.
pub(super) fn words_of(bytes: &[u8]) -> Option<String> {
    let words: Vec<_> = bytes
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The kernel's list of file locks at one instant.
pub(crate) struct LockTable(String);

impl LockTable {
    /// The kernel lets go of its list between two calls, and a lock that goes then hides another one from who reads on. So it is read with one
    /// call, and twice where one does not suffice.
    pub(crate) fn read() -> Self {
        let mut text = Vec::new();
        if read_locks(&mut text).is_ok_and(|calls| calls > 1) {
            let _ = read_locks(&mut text);
        }
        Self(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Appends the list, and tells how many calls brought a part of it: a call brings a page at most.
fn read_locks(text: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut file = std::fs::File::open("/proc/locks")?;
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

/// Keeps signals off the calling thread, so that the program's handlers run on its own threads, and lets its short
/// timers be on time.
pub(crate) fn prepare_helper_thread() {
    // SAFETY: changes a number that belongs to this thread alone. The kernel's default lets timers be 50 µs late.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
    // SAFETY: `set` is filled before it is read; the calls touch nothing but it and this thread's signal mask.
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
    // SAFETY: sends a signal to this very thread, and so to the process: sent to the process it might be another thread that stops at once, while
    // this one goes on for a while.
    unsafe { libc::raise(signal) };
}
