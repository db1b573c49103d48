//! The three ways to wait for the OS lock, and the ladder of retries for releases that no event
//! announces.

use std::fs::File;
use std::time::{Duration, Instant};

use super::lock_thread::LockThread;
use super::{Seen, WatchId, WatcherId, ticket_thread, watch};
use crate::backoff::Backoff;
use crate::step;

/// How to wait for the operating system's lock on a file. This applies to every waiter for a
/// [`FileLock`](crate::FileLock), and to the first waiter in the queue of a
/// [`FifoLock`](crate::FifoLock).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Sleeps until the kernel reports that a process closed the file. If it reports no closes, a
    /// [`FifoLock`](crate::FifoLock) falls back to a thread as with [`Wait::Blocking`], and other
    /// waits to polling.
    #[default]
    Watch,
    /// Tries again after these delays.
    Poll(Backoff),
    /// Waits in the system's blocking lock call, on a thread. This notices every unlock, even
    /// without a close, and works where files report no events (network file systems).
    ///
    /// A process has at most 64 such threads. Further waiters poll. If a wait is dropped, its
    /// thread stays in the call until the lock is free. The threads are not the runtime's: neither
    /// its pool nor its shutdown waits for them.
    Blocking,
}

/// The first rung after an event. The lock of a dead holder was free at most 62 µs after its close
/// was announced.
pub(crate) const FINE: Duration = Duration::from_micros(50);
/// The first rung after a new watch.
pub(crate) const COARSE: Duration = Duration::from_millis(5);
/// The first rung beside a thread that waits for the lock of a ticket. It serves older processes
/// only, which keep the file locked for their next ticket.
pub(crate) const BESIDE_THREAD: Duration = Duration::from_secs(1);
/// The last rung if the slow poll is disabled.
const LAST_RUNG: Duration = Duration::from_secs(1);

/// What wakes a waiter for the lock of one open file.
pub(crate) enum WakeSource {
    Watch(WatchId),
    /// A thread waits in the lock call. Nothing else may try the lock of this descriptor meanwhile.
    Thread(LockThread),
    /// A thread waits in the lock call of the ticket. The file is the thread's.
    TicketThread,
    /// The watch has fired, and was not given back yet.
    Fired(WatchId),
    /// No watch was added yet.
    Nothing,
    Poll(Backoff),
}

impl WakeSource {
    /// Returns the initial state: nothing is watched yet.
    pub(crate) fn new(wait: &Wait) -> Self {
        match wait {
            Wait::Watch | Wait::Blocking => Self::Nothing,
            Wait::Poll(backoff) => Self::Poll(backoff.clone()),
        }
    }

    /// Starts a thread that waits for the lock of this file. Polls if there are too many threads.
    pub(crate) fn start_thread(&mut self, watcher_id: WatcherId, file: &File, shared: bool) {
        if matches!(self, Self::Nothing) && !self.become_thread(watcher_id, file, shared) {
            *self = Self::Poll(Backoff::default());
        }
    }

    /// Starts a thread that waits for the lock of this file. Returns `false` if there are too many.
    fn become_thread(&mut self, watcher_id: WatcherId, file: &File, shared: bool) -> bool {
        let lock_thread = LockThread::start(watcher_id, file, shared);
        lock_thread.map(|it| *self = Self::Thread(it)).is_some()
    }

    /// Returns the thread that waits in the lock call, if there is one.
    pub(crate) fn lock_thread(&self) -> Option<&LockThread> {
        match self {
            Self::Thread(lock_thread) => Some(lock_thread),
            _ => None,
        }
    }

    /// Ensures that the file is watched. Returns whether the watch is new; then the caller must try
    /// again. The caller keeps the file open until the watch was given back.
    pub(crate) fn watch(
        &mut self,
        watcher_id: WatcherId,
        file: &File,
        seen: Seen,
        events: bool,
    ) -> bool {
        if !matches!(self, Self::Nothing | Self::Fired(_)) {
            return false;
        }
        let added = if events {
            watch().add_kept(watcher_id, file, seen)
        } else {
            Err(std::io::ErrorKind::Unsupported.into())
        };
        let fresh = added.is_ok();
        // The old watch is given back after that, so that the mark is not narrowed in between.
        self.stop_watching(watcher_id);
        *self = added.map_or_else(|_| Self::Poll(Backoff::default()), Self::Watch);
        fresh
    }

    /// Notes that a watch has fired. Returns `false` if it is not this one.
    pub(crate) fn fired(&mut self, id: WatchId) -> bool {
        match self {
            Self::Watch(own) if *own == id => {
                *self = Self::Fired(id);
                true
            }
            Self::Thread(lock_thread) => lock_thread.id() == id,
            Self::TicketThread => ticket_thread::event() == id,
            _ => false,
        }
    }

    /// Gives the watch back. A thread in the lock call stays there: a second thread or an attempt
    /// would use the same open file.
    pub(crate) fn stop_watching(&mut self, watcher_id: WatcherId) {
        if let Some(id) = self.watch_id() {
            *self = Self::Nothing;
            watch().forget(watcher_id, id);
        }
    }

    /// Returns the watch that must be given back.
    pub(crate) fn watch_id(&self) -> Option<WatchId> {
        match self {
            Self::Watch(id) | Self::Fired(id) => Some(*id),
            _ => None,
        }
    }

    pub(crate) fn is_polling(&self) -> bool {
        matches!(self, Self::Poll(_))
    }

    /// Starts a thread that waits for the lock of this file, if it could not be watched. If there
    /// are too many threads, the waiter still polls.
    pub(crate) fn thread_instead(&mut self, watcher_id: WatcherId, file: &File, shared: bool) {
        if self.is_polling() {
            self.become_thread(watcher_id, file, shared);
        }
    }

    /// Sets the next attempt to a jittered delay, if nothing is watched.
    pub(crate) fn pace(&mut self, ladder: &mut Ladder) {
        if let Self::Poll(backoff) = self {
            ladder.at = after(backoff.next_delay());
        }
    }
}

/// When to try again although no event has arrived: delays that double, up to the slow poll.
pub(crate) struct Ladder {
    pub(crate) at: Option<Instant>,
    delay: Duration,
    slowest: Duration,
}

impl Ladder {
    pub(crate) fn new(slowest: Duration) -> Self {
        Self {
            at: None,
            delay: slowest,
            slowest,
        }
    }

    /// Begins anew with this delay.
    pub(crate) fn start(&mut self, first: Duration) {
        self.hurry(first);
        if !step::has_rungs(first == FINE) {
            self.at = None;
        }
    }

    /// Does the same for a lock whose release no event announces. Not affected by
    /// `STANCHION_LADDER`.
    pub(crate) fn hurry(&mut self, first: Duration) {
        self.delay = first.min(self.slowest);
        self.at = after(self.delay);
    }

    /// Returns whether the current rung is the slow poll.
    pub(crate) fn is_slowest(&self) -> bool {
        self.delay >= self.slowest
    }

    /// Goes to the next rung. If the slow poll is disabled, there is a last one.
    pub(crate) fn climb(&mut self) {
        if self.slowest == Duration::MAX && self.delay >= LAST_RUNG {
            self.at = None;
            return;
        }
        self.delay = self.delay.saturating_mul(2).min(self.slowest);
        self.at = after(self.delay);
    }
}

/// Returns the time after this delay, or `None` if the clock does not reach so far.
pub(crate) fn after(delay: Duration) -> Option<Instant> {
    Instant::now().checked_add(delay)
}
