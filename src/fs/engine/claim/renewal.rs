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

use super::hold::Tenure;
use crate::foreign::surviving;
use crate::fs::sys::fork::PerProcess;
use crate::fs::sys::host;
use crate::fs::sys::refusal::unsupported;

/// How long the thread stays without work, so that frequent acquires do not start it anew each
/// time.
const LINGER: Duration = Duration::from_secs(10);

struct Renewals {
    book: Mutex<Book>,
    changed: Condvar,
}

#[derive(Default)]
struct Book {
    due: BTreeMap<(Instant, u64), Weak<Tenure>>,
    next: u64,
    running: bool,
}

static RENEWALS: PerProcess<Renewals> = PerProcess::new(|| Renewals {
    book: Mutex::default(),
    changed: Condvar::new(),
});

/// Renews this hold from now on, until it is over.
///
/// # Errors
///
/// Fails if no thread can be started.
pub(super) fn begin(tenure: &Arc<Tenure>) -> io::Result<()> {
    let renewals = RENEWALS.get();
    let mut book = renewals.book();
    book.enter(tenure);
    if book.running {
        drop(book);
        renewals.changed.notify_one();
        return Ok(());
    }
    let thread = std::thread::Builder::new().name("stanchion-renew".into());
    // `run` returns only after it has cleared `running`. So a panic must not end the thread.
    let started = thread.spawn(move || while surviving(|| renewals.run()).is_none() {});
    started.map_err(|error| unsupported("cannot start a thread", error))?;
    book.running = true;
    Ok(())
}

impl Book {
    fn enter(&mut self, tenure: &Arc<Tenure>) {
        let due = tenure.pace().and_then(|it| Instant::now().checked_add(it));
        // A time beyond the range of the clock means never.
        if let Some(due) = due {
            self.next += 1;
            self.due.insert((due, self.next), Arc::downgrade(tenure));
        }
    }
}

impl Renewals {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        host::prepare_helper_thread();
        let mut book = self.book();
        loop {
            // Holds that are over need no renewal.
            book.due.retain(|_, tenure| tenure.strong_count() > 0);
            let first = book.due.first_key_value().map(|((at, _), _)| *at);
            let wait = first.map_or(LINGER, |at| at.saturating_duration_since(Instant::now()));
            if !wait.is_zero() {
                let waited = self.changed.wait_timeout(book, wait);
                let (woken, limit) = waited.unwrap_or_else(PoisonError::into_inner);
                book = woken;
                if first.is_none() && limit.timed_out() && book.due.is_empty() {
                    book.running = false;
                    return;
                }
                continue;
            }
            let Some((_, tenure)) = book.due.pop_first() else {
                continue;
            };
            drop(book);
            // If a renewal panics, nothing is known about the hold. It is renewed again. If that
            // never succeeds, the missing beat frees the lock in the end.
            let tenure = tenure.upgrade();
            let renewed = tenure.filter(|it| surviving(|| it.renew()) != Some(false));
            if let Some(tenure) = &renewed {
                self.book().enter(tenure);
            }
            // This may drop the last reference, and wakers with it: not under the mutex.
            surviving(|| drop(renewed));
            book = self.book();
        }
    }
}
