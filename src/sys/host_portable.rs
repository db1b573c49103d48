//! The host and what it reports about its files, on platforms that report little.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn host_name() -> Option<String> {
    std::env::var("COMPUTERNAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .ok()
}

/// Returns the nanoseconds of the wall clock, the only clock that all processes of the host share
/// here. If it is set back, ticket numbers still lie above all others in the queue.
pub(crate) fn monotonic_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}

/// Returns nanoseconds of a clock that never goes back. The platform decides whether it advances
/// while the machine sleeps.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) fn sleepless_ns() -> u64 {
    use std::sync::LazyLock;
    use std::time::Instant;
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGUN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn reports_closes_in(_directory: &Path) -> bool {
    false
}

pub(crate) fn reports_closes_of(_path: &Path) -> bool {
    false
}

pub(crate) fn reports_close(_file: &std::fs::File) -> bool {
    false
}

/// Returns `None`: the platform does not tell.
pub(crate) fn command_line(_pid: u32) -> Option<String> {
    None
}

/// The list of file locks, which only Linux has.
pub(crate) struct LockTable;

/// The processes that have a file locked: not known here.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    pub(crate) listed: Vec<(u32, bool)>,
    pub(crate) all: bool,
}

impl LockTable {
    pub(crate) fn read() -> Self {
        Self
    }

    pub(crate) fn owners(&self, _path: &Path) -> Owners {
        Owners::default()
    }
}

pub(crate) fn listed_pid() -> u32 {
    std::process::id()
}

pub(crate) fn prepare_helper_thread() {}

#[cfg(stanchion_test)]
pub(crate) fn end_or_stop_self(_stop: bool) {
    std::process::abort();
}
