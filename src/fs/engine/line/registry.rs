//! All lines of this process, by path, and the sum of what they have done.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Line;
use crate::fs::sys::fork::PerProcess;
use crate::stats::{Counts, Stats};

/// The lines of this process, and what they have done.
#[derive(Default)]
pub(super) struct Registry {
    pub(super) lines: HashMap<PathBuf, Weak<Line>>,
    pub(super) counts: Vec<Arc<Counts>>,
    /// Of lines that are gone.
    past: Stats,
}

static REGISTRY: PerProcess<Mutex<Registry>> = PerProcess::new(Mutex::default);

pub(super) fn registry() -> std::sync::MutexGuard<'static, Registry> {
    REGISTRY
        .get()
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Keeps of the lines that are gone only their sums.
    pub(super) fn bury(&mut self) {
        self.lines.retain(|_, line| line.strong_count() > 0);
        let past = &mut self.past;
        self.counts.retain(|counts| {
            let alive = Arc::strong_count(counts) > 1;
            if !alive {
                past.add(&counts.snapshot());
            }
            alive
        });
    }
}

/// What all lines of this process have done.
pub(crate) fn stats_of_process() -> Stats {
    let mut registry = registry();
    registry.bury();
    let mut sum = registry.past.clone();
    registry
        .counts
        .iter()
        .for_each(|counts| sum.add(&counts.snapshot()));
    sum
}

#[cfg(test)]
mod tests {
    use super::super::super::state::Kind;
    use super::*;

    #[test]
    fn p62_a_line_that_is_gone_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = |name| Line::of(&directory.path().join(name), Kind::Lock, None);
        let line = open("one").expect("a line");
        let path = line.place().door.clone();
        assert!(registry().lines.contains_key(&path));
        drop(line);
        let _other = open("two").expect("a line");
        assert!(!registry().lines.contains_key(&path));
    }
}
