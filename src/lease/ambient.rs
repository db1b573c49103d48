//! What the core takes from its surroundings: a clock, and random numbers. The simulation replaces
//! both, on its own thread.

use std::hash::{BuildHasher, RandomState};

use crate::sys::host;
use crate::sys::id::Id;

/// Returns nanoseconds of a clock that continues while the machine is suspended, if the platform
/// has such a clock.
pub(super) fn now_ns() -> u64 {
    #[cfg(test)]
    if let Some(now) = simulated::now_ns() {
        return now;
    }
    host::sleepless_ns()
}

/// Returns a new id: 128 random bits, as hexadecimal digits.
pub(super) fn fresh_id() -> String {
    #[cfg(test)]
    if let Some(random) = simulated::random() {
        return format!("{random:032x}");
    }
    Id::fresh().to_string()
}

/// Returns a number that spreads the retries of several clients.
pub(super) fn seed() -> u64 {
    #[cfg(test)]
    if let Some(random) = simulated::random() {
        return random;
    }
    RandomState::new().hash_one(0)
}

#[cfg(test)]
#[path = "../../tests/lease/simulated.rs"]
pub(super) mod simulated;
