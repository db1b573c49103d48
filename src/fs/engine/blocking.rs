//! The bridge between futures and threads that may block.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::coop;

use super::watch::{Seat, Seen, WatchId, watch};
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::surviving;
use crate::fs::sys::fork::{PerProcess, Private, generation};
use crate::fs::sys::{flock, host};

/// Threads of one process that sit in a lock call.
const MOST_SITTERS: usize = 64;

/// More polls than any task may make before it must yield.
const BUDGET: usize = 512;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, which sleeps while it is pending; `None` when the deadline came first.
pub(crate) fn block_on<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            None => std::thread::park(),
            Some(left) if left.is_zero() => return None,
            Some(left) => std::thread::park_timeout(left),
        }
    }
}

/// Whether this is code of an async task, which must not block its thread.
///
/// Tokio knows, and panics where it matters, but does not tell. What it tells is the budget: a task, or the future of
/// a `block_on`, may make progress only so often before it must yield; the threads of `spawn_blocking`, `block_in_place` and
/// everything outside a runtime may without end. What is taken from the budget here is put back.
pub(crate) fn in_async_context() -> bool {
    let mut context = Context::from_waker(Waker::noop());
    // Each value gives its share back when dropped, in the reverse order of taking.
    let mut taken = Vec::with_capacity(BUDGET);
    for _ in 0..BUDGET {
        match coop::poll_proceed(&mut context) {
            Poll::Ready(restore) => taken.push(restore),
            Poll::Pending => {
                while taken.pop().is_some() {}
                return true;
            }
        }
    }
    while taken.pop().is_some() {}
    false
}

/// Refuses to block a thread that other tasks need.
pub(crate) fn refuse_async(path: &Path) -> Result<()> {
    if in_async_context() {
        let text = "a blocking call from async code: use the one that is awaited there";
        return Err(Error::at(ErrorKind::Unsupported, text, path));
    }
    Ok(())
}

/// Waits on this thread for a lock, at most that long.
pub(crate) fn acquire<G>(
    attempt: impl Future<Output = Result<G>>,
    path: &Path,
    limit: Option<Duration>,
) -> Result<G> {
    refuse_async(path)?;
    let begun = Instant::now();
    let deadline = limit.and_then(|limit| begun.checked_add(limit));
    let outcome = block_on(attempt, deadline);
    outcome.unwrap_or_else(|| Err(Error::timed_out(path, begun.elapsed())))
}

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

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // they are what is tested here
mod tests {
    use super::*;

    #[test]
    fn tells_tasks_from_threads() {
        assert!(!in_async_context());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            assert!(in_async_context(), "the future of block_on");
            assert!(in_async_context(), "asking takes nothing away");
            let task = tokio::spawn(async { in_async_context() });
            assert!(task.await.expect("a task"));
            let thread = tokio::task::spawn_blocking(in_async_context);
            assert!(!thread.await.expect("a blocking thread"));
        });
        let handle = runtime.handle().clone();
        let inside = tokio::task::LocalSet::new().block_on(&runtime, async move {
            let local = tokio::task::spawn_local(async { in_async_context() });
            let blocking = tokio::task::spawn_blocking(move || {
                let _entered = handle.enter();
                in_async_context()
            });
            (
                local.await.expect("local"),
                blocking.await.expect("blocking"),
            )
        });
        assert_eq!(inside, (true, false));
        let in_place = runtime.block_on(async {
            tokio::spawn(async { tokio::task::block_in_place(in_async_context) }).await
        });
        assert!(!in_place.expect("a task"));
    }
}
