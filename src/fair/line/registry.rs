//! All lines of this process, by path.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, Weak};

use super::Line;
use crate::sys::fork::PerProcess;

/// The lines of this process.
#[derive(Default)]
pub(super) struct Registry {
    pub(super) lines: HashMap<PathBuf, Weak<Line>>,
}

static REGISTRY: PerProcess<Mutex<Registry>> = PerProcess::new(Mutex::default);

pub(super) fn registry() -> std::sync::MutexGuard<'static, Registry> {
    REGISTRY
        .get()
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Removes the lines that no longer exist.
    pub(super) fn remove_dead(&mut self) {
        self.lines.retain(|_, line| line.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair::state::Kind;

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
