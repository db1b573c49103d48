//! The thread that renews what is held with an expiry: one for all locks of the process, for as long as there are any.
//!
//! Not a task: a runtime whose workers are all busy, or that has been shut down, must not cost anybody his lock. Not the watch thread: on a
//! network file system a renewal may take as long as the server likes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::hold::Tenure;
use crate::foreign::surviving;
use crate::fs::sys::fork::PerProcess;
use crate::fs::sys::host;
use crate::fs::sys::refusal::unsupported;

/// How long the thread stays without work, so that a lock taken again and again does not begin it anew each time.
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
/// When there is no thread to be had.
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
    // It ends only when it says so: `running` must not outlive it.
    let started = thread.spawn(move || while surviving(|| renewals.run()).is_none() {});
    started.map_err(|error| unsupported("no thread may be started", error))?;
    book.running = true;
    Ok(())
}

impl Book {
    fn enter(&mut self, tenure: &Arc<Tenure>) {
        let due = tenure.pace().and_then(|it| Instant::now().checked_add(it));
        // A time that the clock does not reach is never.
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
            // Those that are over need no time of their own.
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
            // One that panics is not known to stand: it is renewed again, and its silence tells others in the end.
            let tenure = tenure.upgrade();
            let renewed = tenure.filter(|it| surviving(|| it.renew()) != Some(false));
            if let Some(tenure) = &renewed {
                self.book().enter(tenure);
            }
            // Perhaps the last reference, and with it go wakers: not under the mutex.
            surviving(|| drop(renewed));
            book = self.book();
        }
    }
}
