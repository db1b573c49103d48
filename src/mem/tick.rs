//! The clock of the claim windows: one thread for all queues that have offers, and none if no queue
//! has an offer.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::foreign::surviving;
use crate::sys::host;

static CLOCK: Clock = Clock {
    due: Mutex::new(Due {
        lines: BTreeMap::new(),
        number: 0,
        runs: false,
    }),
    changed: Condvar::new(),
};

struct Clock {
    due: Mutex<Due>,
    changed: Condvar,
}

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
///
/// If no thread can be started, frozen waiters are bypassed later, after another tick is requested.
pub(super) fn after(window: Duration, line: Weak<dyn Ticks>) {
    let Some(at) = Instant::now().checked_add(window) else {
        return;
    };
    let mut due = CLOCK.due();
    due.number += 1;
    let key = (at, due.number);
    due.lines.insert(key, line);
    if !due.runs {
        let thread = std::thread::Builder::new().name("stanchion-mem".into());
        // The thread ends only when it has cleared `runs`: `runs` must not outlive it.
        let clock = || while surviving(run).is_none() {};
        due.runs = thread.spawn(clock).is_ok();
    }
    drop(due);
    CLOCK.changed.notify_one();
}

impl Clock {
    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
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
}

fn run() {
    host::prepare_helper_thread();
    while let Some(line) = CLOCK.next() {
        if let Some(line) = line.upgrade() {
            // A queue that panics must not stop the clock of all the others.
            surviving(|| line.tick());
            surviving(|| drop(line));
        }
    }
}
