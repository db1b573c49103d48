//! The order of arrivals and of grants.
//!
//! Order is guaranteed between calls that do not overlap. A request has *arrived* when its first
//! poll has returned. A grant overtakes only requests that had arrived before its own request
//! began.

use std::future::{Future, poll_fn};
use std::pin::pin;

use crate::clock::now;

/// One turn of a process.
pub(crate) struct Grant {
    /// Just before the first poll.
    asked: u64,
    /// Just after the first poll.
    arrived: u64,
    /// Just after the last poll.
    pub(crate) acquired: u64,
}

impl Grant {
    /// From the numbers of [`stamped`].
    pub(crate) fn from_row([asked, arrived, acquired]: [u64; 3]) -> Self {
        Self {
            asked,
            arrived,
            acquired,
        }
    }

    fn passed(&self, later: &Self) -> bool {
        self.acquired < later.acquired && later.arrived < self.asked
    }
}

/// Returns how many of the grants overtook a request that still waited.
pub(crate) fn passing(grants: &mut [Grant]) -> usize {
    grants.sort_by_key(|grant| grant.acquired);
    // From the last to the first: the earliest arrival among those that were granted later.
    let mut earliest = u64::MAX;
    let mut count = 0;
    for grant in grants.iter().rev() {
        count += usize::from(earliest < grant.asked);
        earliest = earliest.min(grant.arrived);
    }
    count
}

/// Returns how many requests were overtaken. One grant may overtake many.
pub(crate) fn passes(grants: &[Grant]) -> usize {
    let passed_by = |grant: &Grant| grants.iter().filter(|later| grant.passed(later)).count();
    grants.iter().map(passed_by).sum()
}

/// Runs an acquire to its end, and notes when it began, arrived and acquired.
pub(crate) async fn stamped<T>(acquire: impl Future<Output = T>) -> ([u64; 3], T) {
    let mut acquire = pin!(acquire);
    let asked = now();
    let mut arrived = None;
    let guard = poll_fn(|context| {
        let outcome = acquire.as_mut().poll(context);
        arrived.get_or_insert_with(now);
        outcome
    });
    let guard = guard.await;
    let acquired = now();
    ([asked, arrived.unwrap_or(acquired), acquired], guard)
}
