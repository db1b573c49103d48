//! Threads that may block: for short work, and to sit in a lock call.

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

/// Threads of one process that sit in a lock call.
const MOST_SITTERS: usize = 64;

/// The runtime whose pool of threads does what blocks shortly.
pub(crate) fn pool() -> Result<Handle> {
    Handle::try_current().map_err(|_| {
        let text = "this needs a Tokio runtime: files are read and written in its pool of threads";
        Error::new(ErrorKind::Unsupported, text)
    })
}

/// Runs short blocking work in the runtime's pool of threads. Once begun it is finished, also when the future is dropped.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let pool = pool()?;
    // Tokio panics where it can start no thread.
    let Some(job) = surviving(|| pool.spawn_blocking(work)) else {
        let text = "this needs a thread of the Tokio runtime, and none may be started";
        return Err(Error::new(ErrorKind::Unsupported, text));
    };
    job.await.map_err(|_| {
        Error::new(
            ErrorKind::Closed,
            "the runtime shut down before it was done",
        )
    })
}

/// A thread that sits in the system's lock call for somebody, and tells his watcher when it has the lock.
///
/// The lock belongs to the open file, so it is the owner's as soon as the thread has it. Until then nobody may try the
/// lock of that open file: the thread could not tell whose lock it finds.
///
/// Not a job of `spawn_blocking`: nothing ends a blocked lock call, so each would take one of the pool's threads from whoever
/// needs them for short work, and would keep the runtime from shutting down.
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
    /// The thread has gone; what came of it has not been asked for.
    Arrived(io::Result<()>),
    /// It has been asked for.
    Taken,
    /// Nobody wants the lock any more.
    Abandoned,
}

static SITTING: PerProcess<AtomicUsize> = PerProcess::new(|| AtomicUsize::new(0));

impl Sitter {
    /// Sends a thread to wait for the lock of this open file; `None` when there are too many, or no thread is to be had.
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

    /// Whether the open file is locked now, or why it cannot be; `None` as long as the thread waits. To be asked once.
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

    /// What the watcher is called with.
    pub(crate) fn id(&self) -> WatchId {
        WatchId::without_watch(Seen::Door)
    }
}

impl Drop for Sitter {
    /// A lock that nobody has asked for goes back: here if it has come, else by the thread as soon as it comes.
    fn drop(&mut self) {
        // In a forked child there is no such thread, and it may have had the mutex at the fork.
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
            // Then the file is closed, which wakes whoever watches.
            let _ = flock::unlock(&self.file);
            return;
        }
        *stage = Stage::Arrived(result);
        drop(stage);
        watch().call(self.seat, WatchId::without_watch(Seen::Door));
    }
}
