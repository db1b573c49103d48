//! Threads that wait in the system's lock call.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Seen, WatchId, WatcherId, watch};
use crate::foreign::surviving;
use crate::sys::fork::{PerProcess, Private, generation};
use crate::sys::{flock, host};

/// How many threads of one process wait in a lock call.
const MAX_LOCK_THREADS: usize = 64;

/// A thread that waits in the system's lock call, and calls a watcher when it has the lock.
///
/// The lock belongs to the open file. So the owner of the file has it as soon as the thread has it.
/// Until then no other thread may try the lock of that open file: this thread could not tell whose
/// lock it gets.
///
/// This is not a job of `spawn_blocking`, because nothing ends a blocked lock call. Each one would
/// take a thread of the pool from short work, and would keep the runtime from shutting down.
pub(crate) struct LockThread {
    call: Arc<LockCall>,
}

/// The part that the thread and its owner share.
struct LockCall {
    file: Private,
    watcher_id: WatcherId,
    generation: u32,
    progress: Mutex<Progress>,
}

enum Progress {
    Waiting,
    /// The call has returned, and its result was not taken yet.
    Arrived(io::Result<()>),
    /// The result was taken.
    Taken,
    /// The lock is no longer wanted.
    Abandoned,
}

static LOCK_THREADS: PerProcess<AtomicUsize> = PerProcess::new(|| AtomicUsize::new(0));

impl LockThread {
    /// Starts a thread that waits for the lock of this open file. Returns `None` if there are too
    /// many, or if no thread can be started.
    pub(crate) fn start(watcher_id: WatcherId, file: &File, shared: bool) -> Option<Self> {
        let file = Private::new(file.try_clone().ok()?);
        let count = LOCK_THREADS.get();
        let more = |old| (old < MAX_LOCK_THREADS).then_some(old + 1);
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        let progress = Mutex::new(Progress::Waiting);
        let generation = generation();
        let call = Arc::new(LockCall {
            file,
            watcher_id,
            generation,
            progress,
        });
        let thread_call = call.clone();
        let thread = std::thread::Builder::new().name("stanchion-flock".into());
        let started = thread.spawn(move || {
            host::prepare_helper_thread();
            surviving(|| thread_call.run(shared));
            drop(thread_call);
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self { call })
    }

    /// Returns whether the open file is locked now, or why it cannot be. Returns `None` while the
    /// thread waits, and after the result was taken.
    pub(crate) fn outcome(&self) -> Option<io::Result<bool>> {
        let mut progress = self.call.progress();
        match std::mem::replace(&mut *progress, Progress::Taken) {
            Progress::Arrived(result) => Some(result.map(|()| true)),
            other => {
                *progress = other;
                None
            }
        }
    }

    /// Returns the ID with which the watcher is called.
    pub(crate) fn id(&self) -> WatchId {
        WatchId::without_watch(Seen::Door)
    }
}

impl Drop for LockThread {
    /// Releases a lock that was not taken: here if the call has returned, otherwise in the thread
    /// when it returns.
    fn drop(&mut self) {
        // In a forked child there is no such thread, and the mutex may have been locked at the
        // fork.
        if self.call.generation != generation() {
            return;
        }
        let mut progress = self.call.progress();
        let unasked = matches!(*progress, Progress::Arrived(Ok(())));
        if !matches!(*progress, Progress::Taken) {
            *progress = Progress::Abandoned;
        }
        drop(progress);
        if unasked {
            let _ = flock::unlock(&self.call.file);
        }
    }
}

impl LockCall {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, shared: bool) {
        let result = flock::wait_and_lock(&self.file, shared);
        let mut progress = self.progress();
        if matches!(*progress, Progress::Abandoned) {
            drop(progress);
            // Unlock before the file is closed. The close wakes the watchers.
            let _ = flock::unlock(&self.file);
            return;
        }
        *progress = Progress::Arrived(result);
        drop(progress);
        watch().call(self.watcher_id, WatchId::without_watch(Seen::Door));
    }
}
