//! Foreign code that runs on our threads: wakers, subscribers, and the values that panics carry.
//!
//! A waker belongs to a runtime that this crate does not know. It may panic when it is called or
//! dropped. Dropping the value of that panic may panic again. Such a panic must not end a thread
//! that others wait for, keep the next waker from being called, or reach the caller that happens to
//! release the lock. So every waker is kept as a [`SafeWaker`].
//!
//! # Invariants
//!
//! 1. A waker is called or dropped under a panic guard of its own.
//! 2. No waker is cloned, called or dropped while a mutex of this crate is held, because foreign
//!    code may call this crate.
//! 3. A waker is cloned on the thread that polls, before anything else happens. A panic there is
//!    the caller's own.
//!
//! The panic hook still prints the message of a panic that is caught here.

use std::any::Any;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;

/// Runs foreign code. Returns `None` if it panics.
pub(crate) fn surviving<T>(call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// Drops the value of a panic, which is foreign code as well. The value of a second panic is never
/// dropped, because it may be of the same type.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        forget(second);
    }
}

/// A waker whose panics are caught.
pub(crate) struct SafeWaker(Option<Waker>);

impl SafeWaker {
    /// Clones the waker of the task that is polled.
    pub(crate) fn of(waker: &Waker) -> Self {
        Self(Some(waker.clone()))
    }

    pub(crate) fn will_wake(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => own.will_wake(other),
            _ => false,
        }
    }

    pub(crate) fn wake(mut self) {
        if let Some(waker) = self.0.take() {
            surviving(|| waker.wake());
        }
    }
}

impl Drop for SafeWaker {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            surviving(|| drop(waker));
        }
    }
}

impl Wake for SafeWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(waker) = &self.0 {
            surviving(|| waker.wake_by_ref());
        }
    }
}

/// Awaits a future that one of our threads completes, such as a channel. That thread gets a safe
/// waker.
#[allow(dead_code)] // Used by the servers, which are features.
pub(crate) async fn shielded<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| poll_shielded(future.as_mut(), context)).await
}

/// Polls a future that one of our threads completes.
#[allow(dead_code)] // Used by the servers, which are features.
pub(crate) fn poll_shielded<F: Future>(
    future: Pin<&mut F>,
    context: &Context<'_>,
) -> Poll<F::Output> {
    let waker = Waker::from(Arc::new(SafeWaker::of(context.waker())));
    future.poll(&mut Context::from_waker(&waker))
}

/// Awaits a foreign future on one of our threads. Returns `None` if it panics.
#[allow(dead_code)] // Used by the servers, which are features.
pub(crate) async fn surviving_future<F: Future>(future: F) -> Option<F::Output> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(value) => Some(value),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when it is dropped, with another of its kind.
    struct Chain;

    impl Drop for Chain {
        fn drop(&mut self) {
            std::panic::panic_any(Chain);
        }
    }

    #[test]
    fn the_value_of_a_panic_may_panic_when_dropped() {
        assert_eq!(surviving(|| 1), Some(1));
        assert_eq!(surviving(|| std::panic::panic_any(Chain)), None::<()>);
    }

    #[test]
    fn it_survives_while_the_thread_panics() {
        struct Survives;
        impl Drop for Survives {
            fn drop(&mut self) {
                assert_eq!(surviving(|| panic!("inner")), None::<()>);
            }
        }
        assert_eq!(
            surviving(|| {
                let _survives = Survives;
                panic!("outer");
            }),
            None::<()>
        );
    }
}
