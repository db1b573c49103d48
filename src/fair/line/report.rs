//! Counters, and notes for operators. Notes are reported after the mutex is free, because a
//! subscriber is foreign code.

use super::core::Core;
use crate::fair::disk::Entered;
use crate::trace::Note;

/// What a step of a contender found, to be counted.
#[derive(Debug, Default)]
pub(super) struct News {
    /// How many frozen waiters were bypassed with a mark.
    pub(super) bypassed: usize,
    /// Whether our own ticket was marked.
    pub(super) was_bypassed: bool,
    /// Whether a file could not be watched.
    pub(super) fell_back: bool,
}

impl Core {
    /// Counts and notes what a contender did.
    pub(super) fn note(&mut self, news: News) {
        if news.bypassed > 0 {
            self.counts.bypassed.add(news.bypassed as u64);
            self.notes.push(Note::Bypassed {
                tickets: news.bypassed,
            });
        }
        if news.was_bypassed {
            self.note_frozen();
        }
        if news.fell_back {
            self.counts.fallbacks.add(1);
            self.notes.push(Note::Fallback);
        }
    }

    pub(super) fn note_frozen(&mut self) {
        self.counts.frozen.add(1);
        self.notes.push(Note::Frozen);
    }

    pub(super) fn note_crash(&mut self, entered: Entered) {
        if entered.predecessor_crashed {
            self.counts.crashes.add(1);
            let token = entered.token;
            self.notes.push(Note::PredecessorCrashed { token });
        }
    }
}
