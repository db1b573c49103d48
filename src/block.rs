//! Waiting for a future on a thread, without a runtime.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use tokio::task::coop;

use crate::error::{Error, ErrorKind, Result};

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

/// A waker that unparks this thread.
pub(crate) fn unparker() -> Waker {
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

/// Runs a future on this thread, which sleeps while the future is pending.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = unparker();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

/// Returns whether this is code of an async task, which must not block its thread.
///
/// Tokio knows this and panics where it matters, but has no way to ask. It does show the budget of
/// the task: a task, or the future of a `block_on`, may make progress only so often before it must
/// yield. The threads of `spawn_blocking`, `block_in_place`, and everything outside a runtime have
/// no such limit. What is taken from the budget here is put back.
///
/// A future in `tokio::task::unconstrained` has no budget either, so this returns `false` there.
fn in_async_context() -> bool {
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
pub(crate) fn refuse_async(place: &Path) -> Result<()> {
    if in_async_context() {
        let text = "cannot block inside an async task: await the future instead";
        return Err(Error::at(ErrorKind::Unsupported, text, place));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // They are what is tested here.
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
        let unlimited = tokio::task::unconstrained(async { in_async_context() });
        assert!(!runtime.block_on(unlimited), "the known exception");
    }
}
