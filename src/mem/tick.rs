//! The clock of the claim windows: one thread for all queues that have offers, and none if no queue
//! has an offer.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::foreign::surviving;
use crate::sys::fork::PerProcess;
use crate::sys::host;

static CLOCK: PerProcess<Clock> = PerProcess::new(Clock::default);

#[derive(Default)]
struct Clock {
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Default)]
struct Due {
    /// Ordered by time, and by number if the time is the same.
    lines: BTreeMap<(Instant, u64), Weak<dyn Ticks>>,
    number: u64,
    runs: bool,
}

/// A queue that has offers.
pub(super) trait Ticks: Send + Sync {
    /// Ends a claim window.
    fn tick(&self);
}

/// Calls [`Ticks::tick`] after this window. Never calls it if the clock cannot reach that time.
/// Returns `false` if no thread can be started; then the caller must ask again.
pub(super) fn after(window: Duration, line: Weak<dyn Ticks>) -> bool {
    match Instant::now().checked_add(window) {
        Some(at) => CLOCK.get().add(at, line),
        None => true,
    }
}

impl Clock {
    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a queue. Returns `false` if there is no thread and none can be started.
    fn add(&'static self, at: Instant, line: Weak<dyn Ticks>) -> bool {
        let mut due = self.due();
        due.number += 1;
        let key = (at, due.number);
        due.lines.insert(key, line);
        if !due.runs {
            let thread = std::thread::Builder::new().name("stanchion-mem".into());
            // The thread ends only when it has cleared `runs`: `runs` must not outlive it.
            let clock = move || while surviving(|| self.run()).is_none() {};
            due.runs = thread.spawn(clock).is_ok();
        }
        let runs = due.runs;
        if !runs {
            due.lines.remove(&key);
        }
        drop(due);
        self.changed.notify_one();
        runs
    }

    /// Waits for the next queue that is due. Returns `None` if there is none; then the thread must
    /// end.
    fn next(&self) -> Option<Weak<dyn Ticks>> {
        let mut due = self.due();
        loop {
            let Some(first) = due.lines.first_entry() else {
                due.runs = false;
                return None;
            };
            let left = first.key().0.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(first.remove());
            }
            let woken = self.changed.wait_timeout(due, left);
            due = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn run(&self) {
        host::prepare_helper_thread();
        while let Some(line) = self.next() {
            if let Some(line) = line.upgrade() {
                // A queue that panics must not stop the clock of all the others.
                surviving(|| line.tick());
                surviving(|| drop(line));
            }
        }
    }
}
