//! The host: its name and its clocks.

use std::time::{SystemTime, UNIX_EPOCH};

#[cfg_attr(unix, path = "host/unix.rs")]
#[cfg_attr(windows, path = "host/windows.rs")]
mod arm;

#[cfg(stanchion_test)]
pub(crate) use arm::end_or_stop_self;
#[cfg_attr(not(feature = "redis"), allow(unused_imports))]
pub(crate) use arm::{host_name, monotonic_ns, prepare_helper_thread, sleepless_ns};

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
