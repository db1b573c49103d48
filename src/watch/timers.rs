//! Timers where there are no file events: a condition variable, which needs no descriptor.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::{News, Source};

#[derive(Default)]
pub(super) struct Timers {
    due: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Source for Timers {
    fn sleep(&self, until: Option<Instant>, _listens: bool) -> News {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            *due = Some(due.map_or(until, |set| set.min(until)));
        }
        loop {
            let now = Instant::now();
            due = match *due {
                Some(at) if at <= now => {
                    *due = None;
                    return News {
                        alarm: true,
                        ..News::default()
                    };
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

    fn set_timer(&self, at: Instant) -> io::Result<()> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = Some(due.map_or(at, |set| set.min(at)));
        drop(due);
        self.changed.notify_one();
        Ok(())
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
                sleeper.sleep(late, true);
                let _ = to.send(Instant::now());
            });
            let at = Instant::now() + Duration::from_millis(1);
            timers.set_timer(at).expect("set");
            // Only a hang takes longer.
            let woke = from.recv_timeout(Duration::from_secs(60));
            assert!(woke.expect("it wakes") >= at);
        }
    }
}
