//! The plain file lock, the guard that is a file, locks on open files, and files that are replaced
//! as a whole.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod atomic;
#[path = "../crew/mod.rs"]
mod crew;
mod flags;
mod foreign;
mod guard;
mod options;
mod storm;
#[path = "../conformance/support.rs"]
mod support;
mod waits;

use std::time::Duration;

use stanchion::{FileGuard, FileLock, FileOptions};
use support::{Place, Polled};

/// No safety net: a lost wake-up stays lost.
fn by_events() -> FileOptions {
    FileLock::options().poll_interval(Duration::MAX)
}

fn open(place: &Place, options: FileOptions) -> FileLock {
    options.open(place.path()).expect("a lock")
}

fn held(lock: &FileLock) -> FileGuard {
    let guard = lock.try_acquire().expect("no error");
    guard.expect("the lock is free")
}

/// A waiter that has been polled once and waits.
fn queued(lock: &FileLock) -> Polled<stanchion::Acquire<FileGuard>> {
    Polled::pending(lock.acquire())
}

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[
        ("atomic", atomic::main),
        ("atomic-crowd", atomic::crowd),
        ("look", foreign::main),
        ("options", options::main),
        ("storm", storm::main),
    ]);
}
