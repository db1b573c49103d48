//! Threads that wait in the system's lock call.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Seen, WatchId, WatcherId, watch};
use crate::foreign::surviving;
use crate::sys::fork::{Origin, PerProcess, Private};
use crate::sys::{flock, host};

/// How many threads of one process wait in a lock call.
const MAX_LOCK_THREADS: usize = 64;
/// How long a thread waits for its next job. To start a thread takes longer than most waits between
/// busy processes.
const IDLE: Duration = Duration::from_millis(100);

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
    origin: Origin,
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

/// A wait in a lock call, and what follows it.
type Job = Box<dyn FnOnce() + Send>;

/// The threads of this process that wait in lock calls, and those that have done so a moment ago
/// and take the next job.
#[derive(Default)]
struct Threads {
    count: usize,
    /// How many of them have no job.
    idle: usize,
    /// Jobs that idle threads will take. There are never more than these threads.
    jobs: VecDeque<Job>,
}

#[derive(Default)]
struct Pool {
    threads: Mutex<Threads>,
    job: Condvar,
}

static POOL: PerProcess<Pool> = PerProcess::new(Pool::default);

impl Pool {
    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs jobs until there has been none for a while.
    fn serve(&self, first: Job) {
        host::prepare_helper_thread();
        let mut job = Some(first);
        while let Some(run) = job {
            surviving(run);
            job = self.next();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut threads = self.threads();
        threads.idle += 1;
        let no_job = |threads: &mut Threads| threads.jobs.is_empty();
        let waited = self.job.wait_timeout_while(threads, IDLE, no_job);
        threads = waited.unwrap_or_else(PoisonError::into_inner).0;
        threads.idle -= 1;
        let job = threads.jobs.pop_front();
        threads.count -= usize::from(job.is_none());
        job
    }
}

/// Lets a thread wait in a lock call. Returns `false` if there are too many, or if no thread can be
/// started.
pub(super) fn spawn(run: impl FnOnce() + Send + 'static) -> bool {
    let pool = POOL.get();
    let mut threads = pool.threads();
    if threads.jobs.len() < threads.idle {
        threads.jobs.push_back(Box::new(run));
        drop(threads);
        pool.job.notify_one();
        return true;
    }
    if threads.count >= MAX_LOCK_THREADS {
        return false;
    }
    threads.count += 1;
    drop(threads);
    let thread = std::thread::Builder::new().name("stanchion-flock".into());
    let started = thread.spawn(move || pool.serve(Box::new(run)));
    if started.is_err() {
        pool.threads().count -= 1;
    }
    started.is_ok()
}

impl LockThread {
    /// Starts a thread that waits for the lock of this open file. Returns `None` if there are too
    /// many, or if no thread can be started.
    pub(crate) fn start(watcher_id: WatcherId, file: &File, shared: bool) -> Option<Self> {
        let file = Private::new(file.try_clone().ok()?);
        let progress = Mutex::new(Progress::Waiting);
        let origin = Origin::here();
        let call = Arc::new(LockCall {
            file,
            watcher_id,
            origin,
            progress,
        });
        let thread_call = call.clone();
        let started = spawn(move || {
            thread_call.run(shared);
            drop(thread_call);
        });
        started.then_some(Self { call })
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
        if !self.call.origin.is_here() {
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
