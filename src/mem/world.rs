//! The names of locks in memory, and which of them mean the same lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::line::{Kind, Line};
use crate::error::{Error, ErrorKind, Result};
use crate::options::check_permits;

/// The worlds that have a name.
static NAMED: LazyLock<Mutex<HashMap<String, Weak<World>>>> = LazyLock::new(Mutex::default);

/// The next number for a world without a name.
static NUMBER: AtomicU64 = AtomicU64::new(1);

pub(super) struct World {
    name: Option<String>,
    /// A label that differs from those of all other worlds.
    label: String,
    window: Duration,
    lines: Mutex<HashMap<String, Weak<Line>>>,
}

impl World {
    pub(super) fn new(window: Duration) -> Arc<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::labelled(None, format!("#{number}"), window)
    }

    pub(super) fn named(name: &str, window: Duration) -> Arc<Self> {
        let mut named = lock(&NAMED);
        if let Some(world) = named.get(name).and_then(Weak::upgrade) {
            return world;
        }
        // A name that begins like the label of a world without a name gets one more `#`.
        let sign = if name.starts_with('#') { "#" } else { "" };
        let world = Self::labelled(Some(name.to_owned()), format!("{sign}{name}"), window);
        named.insert(name.to_owned(), Arc::downgrade(&world));
        world
    }

    fn labelled(name: Option<String>, label: String, window: Duration) -> Arc<Self> {
        Arc::new(Self {
            name,
            label,
            window,
            lines: Mutex::default(),
        })
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Returns the queue of this name, which must be of this kind.
    pub(super) fn line(self: &Arc<Self>, name: &str, kind: Kind) -> Result<Arc<Line>> {
        if let Kind::Semaphore(permits) = kind {
            check_permits(permits, u32::MAX, format!("mem:{}/{name}", self.label))?;
        }
        let mut lines = lock(&self.lines);
        let found = lines.get(name).and_then(Weak::upgrade);
        let line = found.unwrap_or_else(|| {
            let line = Arc::new_cyclic(|this| Line::new(this, self, name, kind));
            lines.insert(name.to_owned(), Arc::downgrade(&line));
            line
        });
        // Unlock before a found queue of another kind is dropped: its drop locks the map.
        drop(lines);
        if line.kind() != kind {
            let text = format!("mem:{}/{name} is {}, not {kind}", self.label, line.kind());
            return Err(Error::new(ErrorKind::Incompatible, text));
        }
        Ok(line)
    }

    /// Forgets a queue whose last handle, future and guard are gone.
    pub(super) fn forget(&self, name: &str) {
        forget_dead(&mut lock(&self.lines), name);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            forget_dead(&mut lock(&NAMED), name);
        }
    }
}

/// Removes a dead entry. A new entry may have taken the same name meanwhile; it stays.
fn forget_dead<T>(entries: &mut HashMap<String, Weak<T>>, name: &str) {
    if entries.get(name).is_some_and(|it| it.strong_count() == 0) {
        entries.remove(name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_forgotten() {
        let window = Duration::from_secs(2);
        let world = World::named("what_is_gone", window);
        assert!(Arc::ptr_eq(&world, &World::named("what_is_gone", window)));
        let line = world.line("a", Kind::Lock).expect("a line");
        assert_eq!(lock(&world.lines).len(), 1);
        drop(line);
        assert_eq!(lock(&world.lines).len(), 0);
        drop(world);
        assert!(!lock(&NAMED).contains_key("what_is_gone"));
    }

    #[test]
    fn labels_are_unlike_each_other() {
        let window = Duration::from_secs(2);
        let private = World::new(window);
        let named = World::named(private.label(), window);
        assert_ne!(private.label(), named.label());
    }
}
