//! What is counted, and told to operators: after the mutex is free, because who listens is foreign code.

use super::super::disk::Entered;
use super::core::Core;
use crate::trace::Note;

/// What is worth counting of a step.
#[derive(Debug, Default)]
pub(super) struct News {
    /// So many sleepers were marked.
    pub(super) passed: usize,
    /// Our own ticket bore a mark.
    pub(super) overslept: bool,
    /// Something could not be watched.
    pub(super) fell_back: bool,
}

impl Core {
    /// What a contender saw on its way.
    pub(super) fn note(&mut self, news: News) {
        if news.passed > 0 {
            self.counts.passed.add(news.passed as u64);
            self.notes.push(Note::Passed {
                tickets: news.passed,
            });
        }
        if news.overslept {
            self.note_overslept();
        }
        if news.fell_back {
            self.counts.fallbacks.add(1);
            self.notes.push(Note::Fallback);
        }
    }

    pub(super) fn note_overslept(&mut self) {
        self.counts.overslept.add(1);
        self.notes.push(Note::Overslept);
    }

    pub(super) fn note_crash(&mut self, entered: Entered) {
        if entered.predecessor_crashed {
            self.counts.crashes.add(1);
            let token = entered.token;
            self.notes.push(Note::PredecessorCrashed { token });
        }
    }
}
