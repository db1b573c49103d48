//! What a step under the mutex leaves to do until the mutex is free.

use std::path::Path;
use std::sync::Arc;

use crate::foreign::SafeWaker;
use crate::stats::{Counts, counts_of};
use crate::trace::{Note, Notes};

/// The counters of a line, and what its steps have left to do.
pub(super) struct Effects {
    counts: Arc<Counts>,
    deferred: Deferred,
}

/// Wakers to call or to drop, and notes for operators. All of them are foreign code: a waker that
/// is dropped may drop the last reference to another future that waits for the same lock.
#[derive(Default)]
pub(super) struct Deferred {
    wakes: Wakers,
    discarded: Wakers,
    notes: Notes,
    yields: bool,
}

impl Effects {
    pub(super) fn new() -> Self {
        Self {
            counts: counts_of(None),
            deferred: Deferred::default(),
        }
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Calls this waker later.
    pub(super) fn wake(&mut self, waker: Option<SafeWaker>) {
        if let Some(waker) = waker {
            self.deferred.wakes.push(waker);
        }
    }

    /// Drops this waker later.
    pub(super) fn discard(&mut self, waker: Option<SafeWaker>) {
        if let Some(waker) = waker {
            self.deferred.discarded.push(waker);
        }
    }

    /// Counts an event, and keeps it for operators.
    pub(super) fn note(&mut self, note: Note) {
        let counts = &self.counts;
        match note {
            Note::Bypassed { tickets } => counts.bypassed.add(tickets as u64),
            Note::Frozen => counts.frozen.add(1),
            Note::Fallback => counts.fallbacks.add(1),
            Note::PredecessorCrashed { .. } => counts.crashes.add(1),
            Note::Lost(_) => counts.losses.add(1),
            Note::WaitsForItself | Note::Degraded(_) => {}
        }
        self.deferred.notes.push(note);
    }

    /// Lets another process run first when the step is over. The kernel mostly puts a process that a
    /// close has woken on the core of the process that closed.
    pub(super) fn yield_to_others(&mut self) {
        self.deferred.yields = true;
    }

    /// Takes out what is left to do.
    pub(super) fn take(&mut self) -> Deferred {
        std::mem::take(&mut self.deferred)
    }
}

impl Deferred {
    /// Calls the wakers, and reports the notes. The caller has no mutex locked.
    pub(super) fn perform(self, lock: &Path) {
        self.wakes.into_iter().for_each(SafeWaker::wake);
        drop(self.discarded);
        self.notes.tell(lock);
        if self.yields {
            std::thread::yield_now();
        }
    }
}

/// Some wakers. Mostly one, which needs no allocation.
#[derive(Default)]
struct Wakers {
    first: Option<SafeWaker>,
    more: Vec<SafeWaker>,
}

impl Wakers {
    fn push(&mut self, waker: SafeWaker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    fn into_iter(self) -> impl Iterator<Item = SafeWaker> {
        self.first.into_iter().chain(self.more)
    }
}
