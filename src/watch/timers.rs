//! Timers where there are no file events: a condition variable, which needs no descriptor.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

#[derive(Default)]
pub(super) struct Timers {
    due: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Timers {
    pub(super) fn set(&self, at: Instant) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = Some(due.map_or(at, |set| set.min(at)));
        drop(due);
        self.changed.notify_one();
    }

    pub(super) fn sleep(&self, until: Option<Instant>) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            *due = Some(due.map_or(until, |set| set.min(until)));
        }
        loop {
            let now = Instant::now();
            due = match *due {
                Some(at) if at <= now => {
                    *due = None;
                    return;
                }
                Some(at) => {
                    let wait = self.changed.wait_timeout(due, at - now);
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .changed
                    .wait(due)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// The source of events on platforms that report no closes.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) enum NoEvents {}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl NoEvents {
    pub(super) fn open() -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(super) fn add(
        &self,
        _: &std::fs::File,
        _: super::Seen,
        _: super::Lasts,
    ) -> std::io::Result<(i32, Option<super::marks::Descriptor>)> {
        match *self {}
    }

    pub(super) fn narrow(&self, _: super::marks::Descriptor) -> std::io::Result<i32> {
        match *self {}
    }

    pub(super) fn add_process(&self, _: u32) -> std::io::Result<Option<i32>> {
        match *self {}
    }

    pub(super) fn remove(&self, _: i32) {
        match *self {}
    }

    pub(super) fn is_empty(&self) -> bool {
        match *self {}
    }

    pub(super) fn is_quiet(&self) -> bool {
        match *self {}
    }

    pub(super) fn set_timer(&self, _: Instant) -> std::io::Result<()> {
        match *self {}
    }

    pub(super) fn sleep(&self, _: Option<Instant>, _: bool) -> super::News {
        match *self {}
    }

    pub(super) fn take_ends(&self, _: &mut Vec<super::marks::Report>) {
        match *self {}
    }

    pub(super) fn take(&self, _: &mut Vec<super::marks::Report>) -> bool {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// A thread that sleeps without end, and one that sleeps until a late timer.
    #[test]
    #[allow(clippy::disallowed_methods)] // The test needs a thread.
    fn a_timer_that_is_set_meanwhile_ends_the_sleep() {
        for late in [None, Some(Instant::now() + Duration::from_secs(3600))] {
            let timers = Arc::new(Timers::default());
            let (to, from) = channel();
            let sleeper = timers.clone();
            std::thread::spawn(move || {
                sleeper.sleep(late);
                let _ = to.send(Instant::now());
            });
            let at = Instant::now() + Duration::from_millis(1);
            timers.set(at);
            // Only a hang takes longer.
            let woke = from.recv_timeout(Duration::from_secs(60));
            assert!(woke.expect("it wakes") >= at);
        }
    }
}
