//! When to look again, told or untold: the watch that tells, and the ladder of delays for what nobody tells.

use std::fs::File;
use std::time::{Duration, Instant};

use super::super::watch::{Seat, Seen, WatchId, watch};
use crate::backoff::Backoff;

/// The first rung after an event: the lock of a dead holder was free at most 62 µs after its close was announced.
pub(super) const FINE: Duration = Duration::from_micros(50);
/// The first rung after a new watch.
pub(super) const COARSE: Duration = Duration::from_millis(5);
/// With the slow poll switched off, the ladder ends here.
const LAST_RUNG: Duration = Duration::from_secs(1);

/// How a waiter learns that something happened.
pub(super) enum Eye {
    Watching(WatchId),
    /// Nothing is watched now: not yet, or the watch has fired.
    Open,
    Polling(Backoff),
}

impl Eye {
    /// Makes sure that something is watched; `true` when the watch is new, so that the caller must look again.
    pub(super) fn watch(&mut self, seat: Seat, file: &File, seen: Seen, events: bool) -> bool {
        if !matches!(self, Self::Open) {
            return false;
        }
        let added = if events {
            watch().add(seat, file, seen)
        } else {
            Err(std::io::ErrorKind::Unsupported.into())
        };
        let fresh = added.is_ok();
        *self = added.map_or_else(|_| Self::Polling(Backoff::default()), Self::Watching);
        fresh
    }

    pub(super) fn is_polling(&self) -> bool {
        matches!(self, Self::Polling(_))
    }

    /// Where nothing is watched, the next look comes after a jittered delay.
    pub(super) fn pace(&mut self, ladder: &mut Ladder) {
        if let Self::Polling(backoff) = self {
            ladder.at = after(backoff.next_delay());
        }
    }
}

/// When to try again although nothing was announced: doubling delays up to the slow poll.
pub(super) struct Ladder {
    pub(super) at: Option<Instant>,
    delay: Duration,
    slowest: Duration,
}

impl Ladder {
    pub(super) fn new(slowest: Duration) -> Self {
        Self {
            at: None,
            delay: slowest,
            slowest,
        }
    }

    /// Begins anew with this delay.
    pub(super) fn start(&mut self, first: Duration) {
        self.delay = first.min(self.slowest);
        self.at = after(self.delay);
    }

    /// Whether the present rung is as long as any: the slow poll.
    pub(super) fn is_slowest(&self) -> bool {
        self.delay >= self.slowest
    }

    /// The next rung; with the slow poll off there is a last one.
    pub(super) fn climb(&mut self) {
        if self.slowest == Duration::MAX && self.delay >= LAST_RUNG {
            self.at = None;
            return;
        }
        self.delay = self.delay.saturating_mul(2).min(self.slowest);
        self.at = after(self.delay);
    }
}

/// That long from now; never, when the clock does not reach so far.
pub(super) fn after(delay: Duration) -> Option<Instant> {
    Instant::now().checked_add(delay)
}
