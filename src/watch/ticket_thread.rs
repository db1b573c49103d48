//! Threads that wait in the lock call of another process's ticket, for a waiter that gets no file
//! events.
//!
//! # Algorithm
//!
//! The thread waits for the [wake lock](crate::sys::wake_lock) of the ticket, which its owner
//! releases after it has removed the ticket, or when it dies. The thread closes the file and calls
//! the watcher, which looks at the queue as after any event.
//!
//! Nothing ends the call of a thread before. If the wait ends otherwise, the thread stays until the
//! owner leaves. A new wait behind the same ticket relies on the thread that is there. So there is
//! at most one thread for each line and ticket, and at most [`MAX_LOCK_THREADS`] in the process.
//!
//! # Invariants
//!
//! 1. The descriptor belongs to the thread alone. No other thread tries a lock of that open file.
//! 2. A ticket is in the set until just before its thread calls the watcher. So a waiter that finds
//!    it there, with its own mutex held, gets the call.
//!
//! [`MAX_LOCK_THREADS`]: super::lock_thread::MAX_LOCK_THREADS

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Seen, WatchId, WatcherId, lock_thread, watch};
use crate::foreign::surviving;
use crate::step::{self, Step};
use crate::sys::file::FileId;
use crate::sys::fork::{PerProcess, Private};
use crate::sys::wake_lock;

/// The number of a ticket.
type Number = u64;

/// The tickets for which threads of this process wait.
static WAITING: PerProcess<Mutex<HashSet<(WatcherId, Number, FileId)>>> =
    PerProcess::new(Mutex::default);

fn waiting() -> MutexGuard<'static, HashSet<(WatcherId, Number, FileId)>> {
    WAITING.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the ID with which such a thread calls its watcher.
pub(crate) fn event() -> WatchId {
    WatchId::without_watch(Seen::Predecessor)
}

/// Returns whether any such thread waits.
pub(crate) fn any() -> bool {
    !waiting().is_empty()
}

/// Returns whether a thread will call this watcher when the owner of this ticket leaves.
pub(crate) fn waits_for(watcher_id: WatcherId, (number, id): (Number, FileId)) -> bool {
    waiting().contains(&(watcher_id, number, id))
}

/// Starts a thread that calls the watcher when the owner of this ticket leaves. Returns `false` if
/// there are too many threads, or if no thread can be started.
pub(crate) fn start(watcher_id: WatcherId, (number, id): (Number, FileId), file: Private) -> bool {
    step::at(Step::StartThread);
    let key = (watcher_id, number, id);
    waiting().insert(key);
    let started = lock_thread::spawn(move || {
        surviving(|| wait(file, number));
        waiting().remove(&key);
        if !step::is_deaf_to(Seen::Predecessor) {
            watch().call(watcher_id, event());
        }
    });
    if !started {
        waiting().remove(&key);
    }
    started
}

/// Waits until the owner leaves. After an error, the waiter finds that it must poll.
fn wait(file: Private, number: Number) {
    let _ = wake_lock::wait(&file, number);
    step::at(Step::ThreadWakes);
}
