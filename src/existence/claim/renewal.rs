//! The threads that renew holds with an expiry.
//!
//! They are not tasks: a holder must not lose its lock because all workers of a runtime are busy or
//! the runtime was shut down. It is not the watch thread either: on a network file system a renewal
//! may take as long as the server likes. Therefore each file system has a thread of its own: a
//! server that does not answer must not stop the renewals elsewhere, whose holds would expire. One
//! more thread uses no file, and finds renewals that hang.
//!
//! A thread starts with the first hold that needs it, and ends a while after the last. With more
//! than [`MOST`] file systems, some share a thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::foreign::surviving;
use crate::sys::fork::PerProcess;
use crate::sys::host;
use crate::sys::refusal::unsupported;

/// How long a thread stays without work, so that frequent acquires do not start it anew each time.
const LINGER: Duration = Duration::from_secs(10);

/// How many file systems have a thread of their own.
const MOST: usize = 64;

/// The threads of this process.
#[derive(Default)]
struct Threads {
    checks: Arc<Lane>,
    /// By device.
    renewals: Mutex<BTreeMap<u64, Arc<Lane>>>,
}

/// The work of one thread.
#[derive(Default)]
struct Lane {
    schedule: Mutex<Schedule>,
    changed: Condvar,
}

#[derive(Default)]
struct Schedule {
    due: BTreeMap<(Instant, u64), Weak<dyn Renew>>,
    next: u64,
    running: bool,
}

static THREADS: PerProcess<Threads> = PerProcess::new(Threads::default);

/// A hold with an expiry.
pub(super) trait Renew: Send + Sync {
    /// Returns the time from one renewal to the next.
    fn pace(&self) -> Duration;

    /// Renews the hold. Returns `false` if it is over. May take as long as the file system likes.
    fn renew(&self) -> bool;

    /// Ends the hold if its renewal takes too long. Touches no file. Returns when it must be called
    /// again, or `None` if the hold is over.
    fn check(&self) -> Option<Instant>;
}

/// What a thread does for a hold. Returns when the next time is.
type Act = fn(&dyn Renew) -> Option<Instant>;

fn renew(hold: &dyn Renew) -> Option<Instant> {
    match hold.renew() {
        true => after_pace(hold),
        false => None,
    }
}

fn check(hold: &dyn Renew) -> Option<Instant> {
    hold.check()
}

/// A time beyond the range of the clock means never.
fn after_pace(hold: &dyn Renew) -> Option<Instant> {
    Instant::now().checked_add(hold.pace())
}

/// Renews this hold on this device from now on, until it is over.
///
/// # Errors
///
/// Fails if no thread can be started.
pub(super) fn begin(hold: &Arc<impl Renew + 'static>, device: u64) -> io::Result<()> {
    let hold: Arc<dyn Renew> = hold.clone();
    let threads = THREADS.get();
    threads
        .lane(device)
        .begin(&hold, after_pace(&*hold), renew)?;
    threads.checks.begin(&hold, hold.check(), check)
}

impl Threads {
    /// Returns the lane of the holds on this device.
    fn lane(&self, device: u64) -> Arc<Lane> {
        let renewals = self.renewals.lock();
        let mut renewals = renewals.unwrap_or_else(PoisonError::into_inner);
        if renewals.len() >= MOST && !renewals.contains_key(&device) {
            renewals.retain(|_, lane| lane.schedule().running);
        }
        if renewals.len() >= MOST && !renewals.contains_key(&device) {
            let shared = renewals.values().nth((device % MOST as u64) as usize);
            return shared.cloned().unwrap_or_default();
        }
        renewals.entry(device).or_default().clone()
    }
}

impl Schedule {
    fn add(&mut self, hold: &Arc<dyn Renew>, due: Option<Instant>) {
        if let Some(due) = due {
            self.next += 1;
            self.due.insert((due, self.next), Arc::downgrade(hold));
        }
    }
}

impl Lane {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts for this hold, first at this time. Starts the thread if there is none.
    fn begin(
        self: &Arc<Self>,
        hold: &Arc<dyn Renew>,
        first: Option<Instant>,
        act: Act,
    ) -> io::Result<()> {
        let mut schedule = self.schedule();
        schedule.add(hold, first);
        if schedule.running {
            drop(schedule);
            self.changed.notify_one();
            return Ok(());
        }
        let thread = std::thread::Builder::new().name("stanchion-renew".into());
        let lane = self.clone();
        // `run` returns only after it has cleared `running`. So a panic must not end the thread.
        let started = thread.spawn(move || while surviving(|| lane.run(act)).is_none() {});
        started.map_err(|error| unsupported("cannot start a thread", error))?;
        schedule.running = true;
        Ok(())
    }

    fn run(&self, act: Act) {
        host::prepare_helper_thread();
        while let Some(hold) = self.next() {
            let Some(hold) = hold.upgrade() else { continue };
            // If this panics, nothing is known about the hold, and it is tried again. If that never
            // succeeds, the missing beat frees the lock in the end.
            let due = surviving(|| act(&*hold)).unwrap_or_else(|| after_pace(&*hold));
            self.schedule().add(&hold, due);
            // This may drop the last reference, and wakers with it: not under the mutex.
            surviving(|| drop(hold));
        }
    }

    /// Waits for the next hold that is due. Returns `None` if there has been no hold for a while;
    /// then the thread must end.
    fn next(&self) -> Option<Weak<dyn Renew>> {
        let mut schedule = self.schedule();
        loop {
            // Holds that are over need nothing.
            schedule.due.retain(|_, hold| hold.strong_count() > 0);
            let first = schedule.due.first_key_value().map(|((at, _), _)| *at);
            let wait = first.map_or(LINGER, |at| at.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                return schedule.due.pop_first().map(|(_, hold)| hold);
            }
            let waited = self.changed.wait_timeout(schedule, wait);
            let (woken, limit) = waited.unwrap_or_else(PoisonError::into_inner);
            schedule = woken;
            if first.is_none() && limit.timed_out() && schedule.due.is_empty() {
                schedule.running = false;
                return None;
            }
        }
    }
}
