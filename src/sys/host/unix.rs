//! The host on platforms that tell little.

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

pub(crate) fn prepare_helper_thread() {}

#[cfg(stanchion_test)]
pub(crate) fn end_or_stop_self(_stop: bool) {
    std::process::abort();
}
