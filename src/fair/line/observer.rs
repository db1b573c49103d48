//! Reports the changes of a lock and its queue to observers.
//!
//! # Algorithm
//!
//! Three files are watched, once each: the queue directory (tickets come and go), the record (a
//! holder enters or leaves) and the lock file (a holder dies, which closes all its files). This
//! process announces itself what changes only in its memory. Each announcement causes a look. A
//! look that finds nothing new is not reported. The watches are set before the look, so nothing
//! happens unseen in between. The files are opened with `O_PATH`, which causes no events for
//! waiters.
//!
//! # Cost
//!
//! There is at most one look in [`PACE`], however many grants there are, and a look costs the
//! holders and waiters nothing. One look a second comes without an event: the death of the last
//! waiter in the queue causes none here.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use futures::Stream;

use super::Line;
use crate::door::Probed;
use crate::error::Result;
use crate::foreign::SafeWaker;
use crate::status::{Changes, Owner, Status, Waiter};
use crate::sys::file;
use crate::watch::{Seen, WatchId, Watcher, WatcherId, watch};

/// The shortest time between two looks.
const PACE: Duration = Duration::from_millis(20);
/// The longest time between two looks, with events and without.
const FALLBACK: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(100);

/// The observers of a lock in this process, which are notified of changes in memory.
#[derive(Default)]
pub(super) struct Observers {
    any: AtomicBool,
    signals: Mutex<Vec<Weak<Signal>>>,
}

impl Observers {
    /// Returns whether there are any. This is cheap, because every step asks.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Notifies the observers that something may have changed. The watch thread calls the wakers,
    /// so that no foreign code runs here.
    pub(super) fn notify(&self) {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<_> = signals.iter().filter_map(Weak::upgrade).collect();
        signals.retain(|signal| signal.strong_count() > 0);
        self.any.store(!signals.is_empty(), Ordering::Relaxed);
        drop(signals);
        // This may drop the last reference to a signal, and a waker with it. So it comes after the
        // mutex.
        live.iter().for_each(|signal| signal.request());
    }

    fn enroll(&self, signal: Weak<Signal>) {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.push(signal);
        self.any.store(true, Ordering::Relaxed);
    }
}

/// A stream of states of the lock, one for each change that was seen.
struct Observer {
    line: Arc<Line>,
    watcher_id: WatcherId,
    signal: Arc<Signal>,
    last: Option<Status>,
    /// The result of the last probe, and its time. The close of a probe is an event for this
    /// observer too, so there is at most one probe in [`FALLBACK`].
    probed: Option<(Instant, Probed)>,
    not_before: Option<Instant>,
}

/// What the watch thread leaves for the task.
struct Signal {
    watcher_id: OnceLock<WatcherId>,
    due: AtomicBool,
    waker: Mutex<Option<SafeWaker>>,
    watches: Mutex<Vec<WatchId>>,
}

impl Watcher for Signal {
    fn on_event(&self, id: WatchId) {
        if id.seen == Seen::Everything {
            // Events were lost, so each watch may be over or not.
            if let Some(watcher_id) = self.watcher_id.get() {
                for id in self.watches().drain(..) {
                    watch().forget(*watcher_id, id);
                }
            }
        }
        self.watches().retain(|it| *it != id);
        self.on_timer();
    }

    fn on_timer(&self) {
        self.due.store(true, Ordering::Release);
        let waker = self.waker().take();
        waker.into_iter().for_each(SafeWaker::wake);
    }
}

impl Signal {
    fn new() -> Self {
        Self {
            watcher_id: OnceLock::new(),
            due: AtomicBool::new(true),
            waker: Mutex::default(),
            watches: Mutex::default(),
        }
    }

    /// Requests a look after [`PACE`].
    fn request(&self) {
        if let Some(watcher_id) = self.watcher_id.get() {
            // If the timer cannot be set, the look after [`FALLBACK`] comes anyway.
            let _ = watch().arm(*watcher_id, Instant::now() + PACE);
        }
    }

    fn waker(&self) -> std::sync::MutexGuard<'_, Option<SafeWaker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watches(&self) -> std::sync::MutexGuard<'_, Vec<WatchId>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    pub(in crate::fair) fn changes(self: &Arc<Self>) -> Changes {
        Changes::new(Observer::new(self.clone()))
    }
}

impl Observer {
    fn new(line: Arc<Line>) -> Self {
        let signal = Arc::new(Signal::new());
        let weak: Weak<Signal> = Arc::downgrade(&signal);
        let watcher_id = watch().enroll(weak.clone());
        signal.watcher_id.get_or_init(|| watcher_id);
        // In a forked child, the first look fails.
        if !line.is_foreign() {
            line.observers.enroll(weak);
        }
        Self {
            line,
            watcher_id,
            signal,
            last: None,
            probed: None,
            not_before: None,
        }
    }

    /// Sets the watches that are missing. Returns `false` if one of them cannot be set.
    fn watch(&self) -> bool {
        if !self.line.has_events() {
            return false;
        }
        let place = self.line.place();
        let state = place.state();
        let files = [
            (&place.queue, Seen::Line),
            (&state, Seen::Record),
            (&place.door, Seen::Door),
        ];
        files.into_iter().all(|(path, seen)| {
            if self.signal.watches().iter().any(|it| it.seen == seen) {
                return true;
            }
            let Ok(Some(file)) = file::open_to_watch(path) else {
                return false;
            };
            // The mutex is locked before the watch is set, because its event may come before `add`
            // returns.
            let mut watches = self.signal.watches();
            let added = watch().add(self.watcher_id, &file, seen);
            added.map(|id| watches.push(id)).is_ok()
        })
    }

    fn arm(&self, at: Instant) -> Result<()> {
        watch()
            .arm(self.watcher_id, at)
            .map_err(|e| crate::error::Error::io("set a timer for", &self.line.place().door, e))
    }

    /// Looks, if it is time to. Returns a state that is new.
    fn look(&mut self) -> Result<Option<Status>> {
        let now = Instant::now();
        if let Some(at) = self.not_before.filter(|at| now < *at) {
            self.arm(at)?;
            return Ok(None);
        }
        let watched = self.watch();
        let last_token = self.last.as_ref().map(|it| it.last_token);
        let (line, probed) = (self.line.clone(), &mut self.probed);
        let status = line.look_at(last_token, || {
            let recent = probed.filter(|(at, _)| now.saturating_duration_since(*at) < FALLBACK);
            if let Some((_, found)) = recent {
                return Ok(found);
            }
            let found = line.probe()?;
            *probed = Some((now, found));
            Ok(found)
        })?;
        self.not_before = now.checked_add(PACE);
        self.arm(now + if watched { FALLBACK } else { POLL })?;
        if self.last.as_ref().is_some_and(|last| same(last, &status)) {
            return Ok(None);
        }
        self.last = Some(status.clone());
        Ok(Some(status))
    }
}

impl Stream for Observer {
    type Item = Result<Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Before the mutexes of the signal, one of which may stay locked forever in a forked child.
        self.line.refuse_foreign()?;
        // The waker is stored before the flag is read, so that no event is missed in between.
        let waker = SafeWaker::of(cx.waker());
        let old = self.signal.waker().replace(waker);
        drop(old);
        while self.signal.due.swap(false, Ordering::AcqRel) {
            if let Some(status) = self.look()? {
                return Poll::Ready(Some(Ok(status)));
            }
        }
        Poll::Pending
    }
}

impl Drop for Observer {
    /// Gives the watches back. In a forked child they belong to the parent.
    fn drop(&mut self) {
        if self.line.is_foreign() {
            return;
        }
        for id in self.signal.watches().drain(..) {
            watch().forget(self.watcher_id, id);
        }
        watch().leave(self.watcher_id);
    }
}

/// Returns whether two states are the same, except for small differences of the times.
fn same(a: &Status, b: &Status) -> bool {
    let facts = |it: &Status| {
        let owners = (
            it.holder.is_some(),
            it.outsider.is_some(),
            it.shared_by.len(),
        );
        let counts = (it.last_token, it.polling, it.watch_failures);
        let what = (it.kind, it.limit, it.available);
        (it.held, it.names_all, what, owners, counts)
    };
    let waiter = |it: &Waiter| (it.ticket, it.bypassed, it.here);
    let waiters = |it: &Status| it.waiters.iter().map(waiter).collect::<Vec<_>>();
    let same_owner = |(a, b): (&Owner, &Owner)| {
        (&a.pid, &a.host, &a.label) == (&b.pid, &b.host, &b.label) && close(a.since, b.since)
    };
    facts(a) == facts(b) && waiters(a) == waiters(b) && owners(a).zip(owners(b)).all(same_owner)
}

fn owners(status: &Status) -> impl Iterator<Item = &Owner> {
    let holders = status.holder.iter().chain(&status.outsider);
    let waiters = status.waiters.iter().map(|it| &it.owner);
    holders.chain(&status.shared_by).chain(waiters)
}

fn close(a: Option<SystemTime>, b: Option<SystemTime>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            let apart = a.duration_since(b).or_else(|_| b.duration_since(a));
            apart.is_ok_and(|apart| apart < Duration::from_secs(1))
        }
        (a, b) => a.is_none() && b.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::LockKind;

    #[test]
    fn an_observer_that_is_gone_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let line = Line::of(&directory.path().join("one"), LockKind::Lock, None);
        let line = line.expect("a line");
        assert!(!line.observers.any());
        let [first, second] = [(); 2].map(|()| Observer::new(line.clone()));
        drop(first);
        line.observers.notify();
        assert!(line.observers.any(), "the other one is there");
        drop(second);
        line.observers.notify();
        assert!(!line.observers.any());
    }
}
