//! What the child program does with `fork`: `fork WHAT` makes a copy of the process that does WHAT
//! and reports on the shared output.
//!
//! | command | what the copy does |
//! |---|---|
//! | `fork old` | uses its copies of the client and of the guard: one `WAY KIND` for each way, then `old` |
//! | `fork drop` | drops its copies of the guard, of the client and of a future: `dropped` |
//! | `fork new` | connects again and queues: `waits`, then `held token`, and lives on until it is killed |

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt as _;
use stanchion::redis::RedisClient;
use stanchion::{AnyGuard, ErrorKind};

use crate::child::{NAME, options};
use crate::crew::child::say;

pub(super) fn in_a_copy(what: &str, client: &RedisClient, url: &str, guard: &mut Option<AnyGuard>) {
    // This keeps the mutex of the hold busy, so it may be locked at the fork.
    let busy = Arc::new(AtomicBool::new(true));
    let hammer = guard.as_ref().filter(|_| what == "old").map(|guard| {
        let (mut lost, busy) = (guard.lost(), busy.clone());
        std::thread::spawn(move || {
            let mut context = Context::from_waker(Waker::noop());
            while busy.load(Ordering::Relaxed) && lost.poll_unpin(&mut context).is_pending() {}
        })
    });
    // SAFETY: the child continues with this one thread and ends by `_exit`. The C library makes
    // `malloc` usable in it.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid != 0 {
        busy.store(false, Ordering::Relaxed);
        hammer.map(std::thread::JoinHandle::join);
        say(format_args!("forked {pid}"));
        return;
    }
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match what {
        "old" => old(client, guard),
        "drop" => {
            let waiting = client.lock(NAME).acquire();
            drop((waiting, guard.take(), client.clone()));
            say("dropped");
        }
        _ => new(url),
    }));
    if done.is_err() {
        say("the copy panicked");
    }
    // SAFETY: ends the process without running the parent's destructors.
    unsafe { libc::_exit(0) };
}

/// The kind of the error with which it fails at once.
fn kind_at_once<T>(future: impl Future<Output = stanchion::Result<T>>) -> Option<ErrorKind> {
    let mut context = Context::from_waker(Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        Poll::Ready(Err(error)) => Some(error.kind()),
        _ => None,
    }
}

fn old(client: &RedisClient, guard: &mut Option<AnyGuard>) {
    let lock = client.lock(NAME);
    let semaphore = client.semaphore("another", 2).expect("a semaphore");
    let tell = |way: &str, kind: Option<ErrorKind>| say(format_args!("{way} {kind:?}"));
    tell("acquire", kind_at_once(lock.acquire()));
    tell("try_acquire", kind_at_once(lock.try_acquire()));
    tell("permit", kind_at_once(semaphore.acquire()));
    tell("status", kind_at_once(lock.status()));
    tell("force_release", kind_at_once(lock.force_release(None)));
    tell("remove", kind_at_once(lock.remove()));
    let guard = guard.take().expect("it holds");
    say(format_args!("is_held {}", guard.is_held()));
    let is_lost = guard.lost().now_or_never().is_some();
    let _ = format!("{guard:?}");
    say(format_args!("is_lost {is_lost}"));
    tell("release", kind_at_once(guard.release()));
    client.close();
    say("old");
}

fn new(url: &str) {
    // On its own thread, because this one is inside the parent's runtime.
    let url = url.to_owned();
    let anew = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let client = options().connect(url).await.expect("a client");
            say("waits");
            let guard = client.lock(NAME).acquire().await.expect("the lock");
            say(format_args!(
                "held {} {}",
                guard.token(),
                guard.predecessor_crashed()
            ));
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(guard);
        });
    });
    anew.join().expect("a thread");
}
