//! How long something was seen not to change.

use std::time::{Duration, Instant};

/// How long a file was seen not to change. The time between two looks counts as at most one step.
/// While the whole machine is suspended, the other process cannot change the file either.
#[derive(Debug)]
pub(super) struct Stillness {
    looked: Instant,
    seen: Duration,
}

impl Stillness {
    /// Takes the first look.
    pub(super) fn begin() -> Self {
        Self {
            looked: Instant::now(),
            seen: Duration::ZERO,
        }
    }

    /// Takes another look. Returns how long the file has not changed.
    pub(super) fn look(&mut self, step: Duration) -> Duration {
        let now = Instant::now();
        self.seen += now.saturating_duration_since(self.looked).min(step);
        self.looked = now;
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p19_a_pause_between_two_looks_counts_one_step() {
        let step = Duration::from_secs(1);
        let mut still = Stillness::begin();
        for looks in 1..=3 {
            // As if the clock had gone on while the process stood still.
            let before = still.looked.checked_sub(Duration::from_secs(60));
            still.looked = before.expect("the machine has been up for a minute");
            assert_eq!(still.look(step), step * looks);
        }
    }
}
