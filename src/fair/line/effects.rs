//! What a step under the mutex leaves to do until the mutex is free.

use std::path::Path;
use std::sync::Arc;

use crate::foreign::SafeWaker;
use crate::stats::{Counts, counts_of};
use crate::trace::Note;

/// The counters of a line, and what its steps have left to do.
pub(super) struct Effects {
    counts: Arc<Counts>,
    deferred: Deferred,
}

/// Wakers to call or to drop, and notes for operators. All of them are foreign code: a waker that
/// is dropped may drop the last reference to another future that waits for the same lock.
///
/// Most steps leave nothing or one waker. So a `Deferred` is small, and the rest is in a box.
#[derive(Default)]
pub(super) struct Deferred {
    wake: Option<SafeWaker>,
    more: Option<Box<More>>,
    yields: bool,
}

#[derive(Default)]
struct More {
    wakes: Vec<SafeWaker>,
    discarded: Vec<SafeWaker>,
    notes: Vec<Note>,
}

impl Default for Effects {
    fn default() -> Self {
        Self {
            counts: counts_of(None),
            deferred: Deferred::default(),
        }
    }
}

impl Effects {
    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Calls this waker later.
    pub(super) fn wake(&mut self, waker: Option<SafeWaker>) {
        match waker {
            Some(waker) if self.deferred.wake.is_none() => self.deferred.wake = Some(waker),
            Some(waker) => self.more().wakes.push(waker),
            None => {}
        }
    }

    /// Drops this waker later.
    pub(super) fn discard(&mut self, waker: Option<SafeWaker>) {
        if let Some(waker) = waker {
            self.more().discarded.push(waker);
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
        self.more().notes.push(note);
    }

    fn more(&mut self) -> &mut More {
        self.deferred.more.get_or_insert_default()
    }

    /// Lets another process run first when the step is over. The kernel mostly puts a process that
    /// a close has woken on the core of the process that closed.
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
        self.wake.into_iter().for_each(SafeWaker::wake);
        if let Some(more) = self.more {
            more.wakes.into_iter().for_each(SafeWaker::wake);
            drop(more.discarded);
            more.notes.into_iter().for_each(|it| it.tell(lock));
        }
        if self.yields {
            std::thread::yield_now();
        }
    }
}
