//! What the child program does with `fork`: `fork WHAT` makes a copy of the process that does WHAT
//! and reports on the shared output.
//!
//! | command | what the copy does |
//! |---|---|
//! | `keep` (no fork) | the program takes the lock at once and keeps the guard: `kept token` or `none` |
//! | `let-go` (no fork) | releases that guard: `let-go` or `let-go kind` |
//! | `fork stay` | `forked pid`, then it sleeps until it is killed |
//! | `fork drop` | drops its copy of the guard: `dropped`, then it ends |
//! | `fork end` | ends at once by `_exit`: `ended` |
//! | `fork old` | uses its copy of the handle: `old kind` |
//! | `fork try` | opens the lock again and tries: `none`, or `got token` |
//! | `fork take` | opens the lock again and queues: `waiting`, then `got token` |
//! | `fork list` | one `file target` for each descriptor, then `listed` |

#![allow(unsafe_code)]

use std::time::Duration;

use stanchion::{FifoGuard, FifoLock};

use crate::crew::child::say;

pub(super) fn act(words: &[&str], lock: &FifoLock, kept: &mut Option<FifoGuard>) {
    match words {
        ["keep"] => {
            *kept = lock.try_acquire().expect("a try");
            match kept {
                Some(guard) => say(format_args!("kept {}", guard.token())),
                None => say("none"),
            }
        }
        ["let-go"] => match kept.take().map(release) {
            Some(Ok(())) => say("let-go"),
            other => say(format_args!("let-go {other:?}")),
        },
        ["fork", what] => in_a_copy(what, lock, kept),
        _ => panic!("no such command: {words:?}"),
    }
}

fn release(guard: FifoGuard) -> stanchion::Result<()> {
    let mut released = std::pin::pin!(guard.release());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match released.as_mut().poll(&mut context) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("a release never waits"),
    }
}

fn in_a_copy(what: &str, lock: &FifoLock, kept: &mut Option<FifoGuard>) {
    // SAFETY: the child continues with this one thread and ends by `_exit`. The C library makes
    // `malloc` usable in it.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid != 0 {
        return;
    }
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| copy(what, lock, kept)));
    if done.is_err() {
        say("the copy panicked");
    }
    // SAFETY: ends the process without running the parent's destructors.
    unsafe { libc::_exit(0) };
}

fn copy(what: &str, lock: &FifoLock, kept: &mut Option<FifoGuard>) {
    match what {
        "stay" => {
            say(format_args!("forked {}", std::process::id()));
            std::thread::sleep(Duration::from_secs(60));
        }
        "drop" => {
            drop(kept.take());
            say("dropped");
        }
        "end" => say("ended"),
        "old" => match lock.try_acquire() {
            Ok(guard) => say(format_args!("old {guard:?}")),
            Err(error) => say(format_args!("old {:?} {error}", error.kind())),
        },
        "try" => match anew(lock).try_acquire().expect("a try") {
            Some(guard) => say(format_args!("got {}", guard.token())),
            None => say("none"),
        },
        "take" => {
            let lock = anew(lock);
            say("waiting");
            // On its own thread, because this one is inside the parent's runtime.
            let taken = std::thread::spawn(move || lock.acquire().block());
            let guard = taken.join().expect("a thread").expect("the lock");
            say(format_args!("got {}", guard.token()));
        }
        "list" => list(),
        _ => panic!("no such copy: {what}"),
    }
}

fn anew(lock: &FifoLock) -> FifoLock {
    FifoLock::open(lock.path()).expect("the lock, opened in the copy")
}

fn list() {
    for entry in std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd") {
        let entry = entry.expect("an entry");
        if let Ok(target) = std::fs::read_link(entry.path()) {
            say(format_args!("file {}", target.display()));
        }
    }
    say("listed");
}
