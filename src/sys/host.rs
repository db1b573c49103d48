//! The host: its name and its clocks.

use std::time::{SystemTime, UNIX_EPOCH};

#[cfg_attr(unix, path = "host/unix.rs")]
#[cfg_attr(windows, path = "host/windows.rs")]
mod arm;

/// What the platform tells of the host.
trait Platform {
    fn name() -> Option<String>;

    fn monotonic_ns() -> u64;

    fn sleepless_ns() -> u64;

    fn prepare_helper_thread() {}

    #[cfg(stanchion_test)]
    fn end_or_stop_self(stop: bool);
}

struct ThisPlatform;

/// Returns the host's name.
pub(crate) fn host_name() -> Option<String> {
    ThisPlatform::name()
}

/// Returns nanoseconds of a clock that never goes back and that all processes of the host share.
pub(crate) fn monotonic_ns() -> u64 {
    ThisPlatform::monotonic_ns()
}

/// Returns nanoseconds of a clock that never goes back. On Linux and Windows it advances while the
/// machine sleeps; elsewhere the platform decides.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) fn sleepless_ns() -> u64 {
    ThisPlatform::sleepless_ns()
}

/// Blocks all signals on the calling thread, so that the program's handlers run on its own threads.
/// Lets its short timers be on time.
pub(crate) fn prepare_helper_thread() {
    ThisPlatform::prepare_helper_thread();
}

/// Ends this process as `kill -9` would, or stops it as SIGSTOP would.
#[cfg(stanchion_test)]
pub(crate) fn end_or_stop_self(stop: bool) {
    ThisPlatform::end_or_stop_self(stop);
}

/// Returns the microseconds since the epoch, by the wall clock.
pub(crate) fn wall_clock_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_counts_microseconds() {
        assert!(wall_clock_us() > 1_700_000_000_000_000);
    }
}
