//! When to look again, told or untold: the three ways to wait, the eye that is told, and the ladder of delays for what nobody
//! tells.

use std::fs::File;
use std::time::{Duration, Instant};

use super::blocking::Sitter;
use super::step;
use super::watch::{Seat, Seen, WatchId, watch};
use crate::backoff::Backoff;

/// How somebody waits for the operating system's lock on a file: whoever waits for a
/// [`FileLock`](crate::FileLock), and the first in line for a [`FifoLock`](crate::FifoLock).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Sleep until the kernel tells that the file was closed, by whomever. Falls back to polling where the platform or the
    /// file system tells nothing.
    #[default]
    Watch,
    /// Look again after these delays.
    Poll(Backoff),
    /// A thread sits in the system's own blocking lock call. Wakes at every unlock, also where no close follows and where files
    /// tell no events (network file systems). At most 64 threads of a process do so; whoever comes
    /// then polls. A wait that is dropped leaves its thread there until the lock is free. The threads are not the runtime's: neither
    /// its pool nor its shutdown waits for them.
    Blocking,
}

/// The first rung after an event: the lock of a dead holder was free at most 62 µs after its close was announced.
pub(crate) const FINE: Duration = Duration::from_micros(50);
/// The first rung after a new watch.
pub(crate) const COARSE: Duration = Duration::from_millis(5);
/// With the slow poll switched off, the ladder ends here.
const LAST_RUNG: Duration = Duration::from_secs(1);

/// How a waiter learns that something happened.
pub(crate) enum Eye {
    Watching(WatchId),
    /// A thread sits in the lock call; nobody else may try this very descriptor meanwhile.
    Sitting(Sitter),
    /// Nothing is watched now: not yet, or the watch has fired.
    Open,
    Polling(Backoff),
}

impl Eye {
    /// Nothing is watched yet.
    pub(crate) fn new(wait: &Wait) -> Self {
        match wait {
            Wait::Watch | Wait::Blocking => Self::Open,
            Wait::Poll(backoff) => Self::Polling(backoff.clone()),
        }
    }

    /// Sends a thread to wait for the lock of this file, unless there are too many.
    pub(crate) fn sit(&mut self, seat: Seat, file: &File, shared: bool) {
        if matches!(self, Self::Open) {
            let sitter = Sitter::start(seat, file, shared);
            *self = sitter.map_or_else(|| Self::Polling(Backoff::default()), Self::Sitting);
        }
    }

    /// The thread that sits in the lock call, if that is the way.
    pub(crate) fn sitter(&self) -> Option<&Sitter> {
        match self {
            Self::Sitting(sitter) => Some(sitter),
            _ => None,
        }
    }

    /// Makes sure that something is watched; `true` when the watch is new, so that the caller must look again.
    pub(crate) fn watch(&mut self, seat: Seat, file: &File, seen: Seen, events: bool) -> bool {
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

    pub(crate) fn is_polling(&self) -> bool {
        matches!(self, Self::Polling(_))
    }

    /// Where nothing is watched, the next look comes after a jittered delay.
    pub(crate) fn pace(&mut self, ladder: &mut Ladder) {
        if let Self::Polling(backoff) = self {
            ladder.at = after(backoff.next_delay());
        }
    }
}

/// When to try again although nothing was announced: doubling delays up to the slow poll.
pub(crate) struct Ladder {
    pub(crate) at: Option<Instant>,
    delay: Duration,
    slowest: Duration,
}

impl Ladder {
    pub(crate) fn new(slowest: Duration) -> Self {
        Self {
            at: None,
            delay: slowest,
            slowest,
        }
    }

    /// Begins anew with this delay.
    pub(crate) fn start(&mut self, first: Duration) {
        self.hurry(first);
        if !step::has_rungs(first == FINE) {
            self.at = None;
        }
    }

    /// The same where a lock is in the way that nothing announces.
    pub(crate) fn hurry(&mut self, first: Duration) {
        self.delay = first.min(self.slowest);
        self.at = after(self.delay);
    }

    /// Whether the present rung is as long as any: the slow poll.
    pub(crate) fn is_slowest(&self) -> bool {
        self.delay >= self.slowest
    }

    /// The next rung; with the slow poll off there is a last one.
    pub(crate) fn climb(&mut self) {
        if self.slowest == Duration::MAX && self.delay >= LAST_RUNG {
            self.at = None;
            return;
        }
        self.delay = self.delay.saturating_mul(2).min(self.slowest);
        self.at = after(self.delay);
    }
}

/// That long from now; never, when the clock does not reach so far.
pub(crate) fn after(delay: Duration) -> Option<Instant> {
    Instant::now().checked_add(delay)
}
