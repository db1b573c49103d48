//! Threads that may block: for short work, and to wait in a lock call.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use super::watch::{Seat, Seen, WatchId, watch};
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::surviving;
use crate::fs::sys::fork::{PerProcess, Private, generation};
use crate::fs::sys::{flock, host};

/// How many threads of one process wait in a lock call.
const MOST_SITTERS: usize = 64;

/// Returns the runtime whose pool of threads runs short blocking work.
pub(crate) fn pool() -> Result<Handle> {
    Handle::try_current().map_err(|_| {
        let text = "this needs a Tokio runtime: its thread pool reads and writes files";
        Error::new(ErrorKind::Unsupported, text)
    })
}

/// Runs short blocking work in the runtime's pool of threads. Once begun it is finished, also if
/// the future is dropped.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let pool = pool()?;
    // Tokio panics if it cannot start a thread.
    let Some(job) = surviving(|| pool.spawn_blocking(work)) else {
        let text = "the Tokio runtime cannot start a thread";
        return Err(Error::new(ErrorKind::Unsupported, text));
    };
    job.await.map_err(|_| {
        Error::new(
            ErrorKind::Closed,
            "the runtime shut down before the operation ended",
        )
    })
}

/// A thread that waits in the system's lock call, and calls a watcher when it has the lock.
///
/// The lock belongs to the open file. So the owner of the file has it as soon as the thread has it.
/// Until then no other thread may try the lock of that open file: this thread could not tell whose
/// lock it gets.
///
/// This is not a job of `spawn_blocking`, because nothing ends a blocked lock call. Each one would
/// take a thread of the pool from short work, and would keep the runtime from shutting down.
pub(crate) struct Sitter {
    chair: Arc<Chair>,
}

struct Chair {
    file: Private,
    seat: Seat,
    generation: u32,
    stage: Mutex<Stage>,
}

enum Stage {
    Waiting,
    /// The call has returned, and its result was not taken yet.
    Arrived(io::Result<()>),
    /// The result was taken.
    Taken,
    /// The lock is no longer wanted.
    Abandoned,
}

static SITTING: PerProcess<AtomicUsize> = PerProcess::new(|| AtomicUsize::new(0));

impl Sitter {
    /// Starts a thread that waits for the lock of this open file. Returns `None` if there are too
    /// many, or if no thread can be started.
    pub(crate) fn start(seat: Seat, file: &File, shared: bool) -> Option<Self> {
        let file = Private::new(file.try_clone().ok()?);
        let sitting = SITTING.get();
        let more = |count| (count < MOST_SITTERS).then_some(count + 1);
        sitting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        let stage = Mutex::new(Stage::Waiting);
        let generation = generation();
        let chair = Arc::new(Chair {
            file,
            seat,
            generation,
            stage,
        });
        let sat = chair.clone();
        let thread = std::thread::Builder::new().name("stanchion-flock".into());
        let started = thread.spawn(move || {
            host::prepare_helper_thread();
            surviving(|| sat.sit(shared));
            drop(sat);
            sitting.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            sitting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self { chair })
    }

    /// Returns whether the open file is locked now, or why it cannot be. Returns `None` while the
    /// thread waits, and after the result was taken.
    pub(crate) fn outcome(&self) -> Option<io::Result<bool>> {
        let mut stage = self.chair.stage();
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Arrived(result) => Some(result.map(|()| true)),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Returns the ID with which the watcher is called.
    pub(crate) fn id(&self) -> WatchId {
        WatchId::without_watch(Seen::Door)
    }
}

impl Drop for Sitter {
    /// Releases a lock that was not taken: here if the call has returned, otherwise in the thread
    /// when it returns.
    fn drop(&mut self) {
        // In a forked child there is no such thread, and the mutex may have been locked at the
        // fork.
        if self.chair.generation != generation() {
            return;
        }
        let mut stage = self.chair.stage();
        let unasked = matches!(*stage, Stage::Arrived(Ok(())));
        if !matches!(*stage, Stage::Taken) {
            *stage = Stage::Abandoned;
        }
        drop(stage);
        if unasked {
            let _ = flock::unlock(&self.chair.file);
        }
    }
}

impl Chair {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sit(&self, shared: bool) {
        let result = flock::wait_and_lock(&self.file, shared);
        let mut stage = self.stage();
        if matches!(*stage, Stage::Abandoned) {
            drop(stage);
            // Unlock before the file is closed. The close wakes the watchers.
            let _ = flock::unlock(&self.file);
            return;
        }
        *stage = Stage::Arrived(result);
        drop(stage);
        watch().call(self.seat, WatchId::without_watch(Seen::Door));
    }
}
