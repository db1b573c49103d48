//! Delays between attempts: exponential and jittered, without a clock or a sleep.

use std::time::Duration;

/// Delays between attempts, for loops that no event wakes.
///
/// The delay doubles from `first` to `longest`. Each returned delay is drawn evenly from the upper
/// half of the current step, so that callers that started together spread out. Pure: it neither
/// sleeps nor reads a clock. Two values with the same [`seed`](Backoff::seed) give the same delays.
///
/// ```
/// use stanchion::Backoff;
/// use std::time::Duration;
///
/// let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
/// let delay = backoff.next_delay();
/// assert!(delay >= Duration::from_micros(500) && delay <= Duration::from_millis(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    current: Duration,
    random: u64,
}

impl Backoff {
    /// Creates delays from `first` up to `longest`. A `first` of zero counts as one microsecond. A
    /// `longest` below `first` counts as `first`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let first = first.max(Duration::from_micros(1));
        Self {
            first,
            longest: longest.max(first),
            current: first,
            random: 0,
        }
    }

    /// Draws the jitter from `seed`. Without a seed each value draws its own on first use.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = seed | 1;
        self
    }

    /// Returns the next delay. The step after it is up to twice as long.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.current;
        self.current = self
            .current
            .checked_mul(2)
            .map_or(self.longest, |doubled| doubled.min(self.longest));
        let half = step / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.draw() % span.saturating_add(1))
    }

    /// Starts again with the shortest delay.
    pub fn reset(&mut self) {
        self.current = self.first;
    }

    /// Draws a number by xorshift64*: enough to spread retries, but not for secrets.
    fn draw(&mut self) -> u64 {
        if self.random == 0 {
            use std::hash::{BuildHasher, RandomState};
            self.random = RandomState::new().hash_one(self.first) | 1;
        }
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

impl Default for Backoff {
    /// Creates delays from 1 ms up to 50 ms.
    fn default() -> Self {
        Self::new(Duration::from_millis(1), Duration::from_millis(50))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p22_simultaneous_starters_spread() {
        let delays: std::collections::BTreeSet<_> = (1..100)
            .map(|seed| Backoff::default().seed(seed * 7919).next_delay())
            .collect();
        assert!(delays.len() > 90, "only {} distinct delays", delays.len());
    }

    #[test]
    fn delays_double_and_stay_within_their_bounds() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5)).seed(42);
        for step in [1, 2, 4, 5, 5, 5] {
            let delay = backoff.next_delay();
            let step = Duration::from_millis(step);
            assert!(delay >= step / 2 && delay <= step, "{delay:?} of {step:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(1));
    }

    #[test]
    fn p18_extreme_durations_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::MAX).seed(1);
        for _ in 0..300 {
            backoff.next_delay();
        }
        let mut backoff = Backoff::new(Duration::MAX, Duration::ZERO).seed(1);
        assert!(backoff.next_delay() >= Duration::MAX / 2);
    }
}
