//! How long a hold counts as valid: pure arithmetic over a clock that continues while the machine
//! is suspended.
//!
//! # Invariants
//!
//! 1. A lease counts from before its request was sent. So it ends here before it ends on the
//!    server.
//! 2. It counts as lost after three quarters. The last quarter covers clocks of different speed,
//!    and the time to report the loss.
//! 3. A renewal never shortens a lease, and never revives one that was lost.

use std::ops::Add;
use std::time::{Duration, Instant};

use super::ambient;

/// A point in time on this host, in nanoseconds. The clock continues while the machine is
/// suspended, if the platform has such a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u64);

impl Stamp {
    pub(super) const ZERO: Self = Self(0);

    pub(super) fn now() -> Self {
        Self(ambient::now_ns())
    }

    pub(super) fn of_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(super) fn nanos(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to this one, or zero if `earlier` is later.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns the same point in time as an `Instant`.
    pub(super) fn instant(self) -> Instant {
        let now = Instant::now();
        let here = Self::now();
        match self >= here {
            true => now + self.since(here),
            false => now.checked_sub(here.since(self)).unwrap_or(now),
        }
    }
}

impl Add<Duration> for Stamp {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        let more = u64::try_from(more.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(more))
    }
}

/// The lease of a hold, as its holder counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    length: Duration,
    begun: Stamp,
}

impl Lease {
    /// Makes the lease of a request that was sent at `sent`.
    pub(super) fn new(length: Duration, sent: Stamp) -> Self {
        Self {
            length,
            begun: sent,
        }
    }

    /// Applies a renewal for `length` that was sent at `sent` and confirmed at `now`.
    pub(super) fn renew(&mut self, length: Duration, sent: Stamp, now: Stamp) {
        let renewed = Self::new(length, sent);
        if self.is_valid(now) && renewed.lost_at() > self.lost_at() {
            *self = renewed;
        }
    }

    pub(super) fn renew_at(&self) -> Stamp {
        self.begun + self.length / 3
    }

    /// Returns the time from which it counts as lost.
    pub(super) fn lost_at(&self) -> Stamp {
        self.begun + self.length / 4 * 3
    }

    pub(super) fn is_valid(&self, now: Stamp) -> bool {
        now < self.lost_at()
    }

    /// Returns whether there is time to renew it before it counts as lost.
    pub(super) fn is_fresh(&self, now: Stamp) -> bool {
        now < self.begun + self.length / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const LENGTH: Duration = Duration::from_secs(12);

    fn at(seconds: u64) -> Stamp {
        Stamp(seconds * SECOND)
    }

    fn lease() -> Lease {
        Lease::new(LENGTH, at(100))
    }

    #[test]
    fn p47_it_is_renewed_at_a_third_and_lost_at_three_quarters() {
        let lease = lease();
        assert_eq!(lease.renew_at(), at(104));
        assert_eq!(lease.lost_at(), at(109));
        assert!(lease.is_valid(at(108)) && !lease.is_valid(at(109)));
        assert!(lease.is_fresh(at(105)) && !lease.is_fresh(at(106)));
    }

    #[test]
    fn p48_what_is_lost_is_not_revived() {
        let mut lost = lease();
        lost.renew(LENGTH, at(108), at(109));
        assert_eq!(lost, lease());
    }

    #[test]
    fn a_renewal_counts_from_its_sending_and_never_shortens() {
        let mut renewed = lease();
        renewed.renew(LENGTH, at(104), at(106));
        assert_eq!(renewed.lost_at(), at(113));
        renewed.renew(LENGTH, at(101), at(107));
        assert_eq!(renewed.lost_at(), at(113), "an answer that came late");
    }

    #[test]
    fn an_offer_that_was_claimed_lasts_as_long_as_any_hold() {
        let mut offer = Lease::new(Duration::from_secs(2), at(100));
        offer.renew(LENGTH, at(101), at(101));
        assert_eq!(offer, Lease::new(LENGTH, at(101)));
    }

    #[test]
    fn p18_extreme_lengths_do_not_overflow() {
        let lease = Lease::new(Duration::MAX, Stamp(u64::MAX - 1));
        assert!(lease.lost_at() >= lease.renew_at());
        assert_eq!(at(1).since(at(2)), Duration::ZERO);
    }

    #[test]
    fn the_clock_continues() {
        let begun = Stamp::now();
        assert!(Stamp::now() >= begun);
        let later = begun + Duration::from_secs(5);
        assert!(later.instant() > Instant::now());
    }
}
