//! Which process this is, and whether another one still runs.
//!
//! Each platform has an arm. It provides what its system tells for certain. Everything else is
//! `None`, and proves nothing.

#[cfg_attr(
    any(target_os = "macos", target_os = "freebsd"),
    path = "process/bsd.rs"
)]
#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "process/linux.rs"
)]
#[cfg_attr(windows, path = "process/windows.rs")]
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd",
    windows
))]
mod arm;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use arm::open;

/// What the platform tells about processes. What it does not tell, it leaves to the methods here.
trait Platform {
    fn own() -> Facts {
        Facts::default()
    }

    fn look(_pid: u32) -> Life {
        Life::Runs(Birth::default())
    }

    fn command_line(_pid: u32) -> Option<String> {
        None
    }
}

struct ThisPlatform;

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd",
    windows
)))]
impl Platform for ThisPlatform {}

/// Returns what distinguishes this process.
pub(crate) fn own() -> Facts {
    ThisPlatform::own()
}

/// Returns what became of the process with a pid.
pub(crate) fn look(pid: u32) -> Life {
    ThisPlatform::look(pid)
}

/// Returns the command line of a process of this pid namespace, its arguments separated by spaces.
/// For status; only Linux tells.
pub(crate) fn command_line(pid: u32) -> Option<String> {
    ThisPlatform::command_line(pid)
}

/// What distinguishes a process from others with the same pid. A missing part is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) birth: Birth,
    /// No two boots share it, of this machine or of others.
    pub(crate) boot: Option<String>,
    /// The set of processes in which a pid means one of them.
    pub(crate) space: Option<u64>,
    /// The machine keeps it over boots.
    pub(crate) machine: Option<String>,
    /// It changes at each `exec`.
    pub(crate) image: Option<String>,
}

/// What distinguishes a process from a later one with the same pid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Birth {
    /// When it started, in the units of the platform.
    pub(crate) start: Option<u64>,
    /// A number that the kernel gives to one process only until the next boot.
    pub(crate) serial: Option<u64>,
}

impl Birth {
    /// Returns whether both are of one process, or `None` if there is nothing to compare.
    pub(crate) fn is_same(self, other: Self) -> Option<bool> {
        let same = |a: Option<u64>, b: Option<u64>| Some(a? == b?);
        match (
            same(self.start, other.start),
            same(self.serial, other.serial),
        ) {
            (Some(start), Some(serial)) => Some(start && serial),
            (start, serial) => start.or(serial),
        }
    }
}

/// What became of the process with a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// There is no such process, or all its threads have ended.
    Ended,
    /// A process has this pid, or nothing proves that none has.
    Runs(Birth),
}

/// Parses a command line as the kernel shows it: each argument ends with a zero.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn words_of(bytes: &[u8]) -> Option<String> {
    let words: Vec<_> = bytes
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Returns whether no process has this pid.
pub(crate) fn has_ended(pid: u32) -> bool {
    look(pid) == Life::Ended
}

/// Returns a value of the system as 16 hexadecimal digits that reveal nothing about it.
fn digest(purpose: &str, value: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(purpose);
    hash.update(value);
    let bytes = hash.finalize();
    bytes[..8].iter().map(|it| format!("{it:02x}")).collect()
}

/// Returns the digest of a machine ID. The ID itself must not be shown, and another program that
/// hashes it gets another value.
fn machine_digest(id: &[u8]) -> String {
    digest("stanchion machine\n", id)
}

/// Returns the digest of the bytes that the kernel gave to this image of the process. The bytes
/// themselves protect its stack.
#[cfg_attr(
    not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "macos",
        target_os = "freebsd"
    )),
    allow(dead_code)
)]
fn image_digest(value: &[u8]) -> String {
    digest("stanchion image\n", value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p31_births_differ_where_anything_differs() {
        let birth = |start, serial| Birth { start, serial };
        let full = birth(Some(1), Some(2));
        for (other, expected) in [
            (full, Some(true)),
            (birth(Some(1), Some(3)), Some(false)),
            (birth(Some(2), Some(2)), Some(false)),
            (birth(Some(1), None), Some(true)),
            (birth(None, Some(2)), Some(true)),
            (birth(None, Some(3)), Some(false)),
            (birth(None, None), None),
        ] {
            assert_eq!(full.is_same(other), expected, "{other:?}");
            assert_eq!(other.is_same(full), expected, "{other:?}");
        }
        assert_eq!(birth(Some(1), None).is_same(birth(None, Some(1))), None);
    }

    #[test]
    fn digests_tell_purposes_and_values_apart() {
        let all = [
            machine_digest(b"a"),
            machine_digest(b"b"),
            image_digest(b"a"),
        ];
        assert!(all.iter().all(|it| it.len() == 16), "{all:?}");
        assert!(all[0] != all[1] && all[0] != all[2], "{all:?}");
    }

    #[test]
    fn this_process_runs() {
        let Life::Runs(birth) = look(std::process::id()) else {
            panic!("it has not ended");
        };
        assert_ne!(birth.is_same(own().birth), Some(false));
        // No process has such a number. A platform that cannot tell says that one may.
        assert!(
            has_ended(i32::MAX as u32 - 3)
                || cfg!(not(any(target_os = "linux", target_os = "android")))
        );
        assert!(!has_ended(0) && !has_ended(u32::MAX), "these are no pids");
    }
}
