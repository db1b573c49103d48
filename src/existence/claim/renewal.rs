//! The thread that renews holds with an expiry. There is one for all locks of the process, as long
//! as there are such holds.
//!
//! It is not a task: a holder must not lose its lock because all workers of a runtime are busy or
//! the runtime was shut down. It is not the watch thread either: on a network file system a renewal
//! may take as long as the server likes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::foreign::surviving;
use crate::sys::fork::PerProcess;
use crate::sys::host;
use crate::sys::refusal::unsupported;

/// How long the thread stays without work, so that frequent acquires do not start it anew each
/// time.
const LINGER: Duration = Duration::from_secs(10);

struct Renewals {
    schedule: Mutex<Schedule>,
    changed: Condvar,
}

#[derive(Default)]
struct Schedule {
    due: BTreeMap<(Instant, u64), Weak<dyn Renew>>,
    next: u64,
    running: bool,
}

static RENEWALS: PerProcess<Renewals> = PerProcess::new(|| Renewals {
    schedule: Mutex::default(),
    changed: Condvar::new(),
});

/// A hold with an expiry.
pub(super) trait Renew: Send + Sync {
    /// Returns the time from one renewal to the next.
    fn pace(&self) -> Duration;

    /// Renews the hold. Returns `false` if it is over.
    fn renew(&self) -> bool;
}

/// Renews this hold from now on, until it is over.
///
/// # Errors
///
/// Fails if no thread can be started.
pub(super) fn begin(shared: &Arc<impl Renew + 'static>) -> io::Result<()> {
    let shared: Arc<dyn Renew> = shared.clone();
    let renewals = RENEWALS.get();
    let mut schedule = renewals.schedule();
    schedule.add(&shared);
    if schedule.running {
        drop(schedule);
        renewals.changed.notify_one();
        return Ok(());
    }
    let thread = std::thread::Builder::new().name("stanchion-renew".into());
    // `run` returns only after it has cleared `running`. So a panic must not end the thread.
    let started = thread.spawn(move || while surviving(|| renewals.run()).is_none() {});
    started.map_err(|error| unsupported("cannot start a thread", error))?;
    schedule.running = true;
    Ok(())
}

impl Schedule {
    fn add(&mut self, shared: &Arc<dyn Renew>) {
        let due = Instant::now().checked_add(shared.pace());
        // A time beyond the range of the clock means never.
        if let Some(due) = due {
            self.next += 1;
            self.due.insert((due, self.next), Arc::downgrade(shared));
        }
    }
}

impl Renewals {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        host::prepare_helper_thread();
        let mut schedule = self.schedule();
        loop {
            // Holds that are over need no renewal.
            schedule.due.retain(|_, shared| shared.strong_count() > 0);
            let first = schedule.due.first_key_value().map(|((at, _), _)| *at);
            let wait = first.map_or(LINGER, |at| at.saturating_duration_since(Instant::now()));
            if !wait.is_zero() {
                let waited = self.changed.wait_timeout(schedule, wait);
                let (woken, limit) = waited.unwrap_or_else(PoisonError::into_inner);
                schedule = woken;
                if first.is_none() && limit.timed_out() && schedule.due.is_empty() {
                    schedule.running = false;
                    return;
                }
                continue;
            }
            let Some((_, shared)) = schedule.due.pop_first() else {
                continue;
            };
            drop(schedule);
            // If a renewal panics, nothing is known about the hold. It is renewed again. If that
            // never succeeds, the missing beat frees the lock in the end.
            let shared = shared.upgrade();
            let renewed = shared.filter(|it| surviving(|| it.renew()) != Some(false));
            if let Some(shared) = &renewed {
                self.schedule().add(shared);
            }
            // This may drop the last reference, and wakers with it: not under the mutex.
            surviving(|| drop(renewed));
            schedule = self.schedule();
        }
    }
}
