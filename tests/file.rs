//! The plain file lock, the guard that is a file, locks on open files, and files that are replaced as a whole.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // The tests play those who do what the crate must not.

#[path = "crew/skip.rs"]
#[macro_use]
mod skip;

#[path = "file/atomic.rs"]
mod atomic;
#[path = "file/flags.rs"]
mod flags;
#[path = "file/foreign.rs"]
mod foreign;
#[path = "file/guard.rs"]
mod guard;
#[path = "file/options.rs"]
mod options;
#[path = "file/storm.rs"]
mod storm;
#[path = "conformance/support.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod support;
#[path = "file/waits.rs"]
mod waits;

use std::time::Duration;

use stanchion::{FileGuard, FileLock, FileOptions};
use support::{Place, Polled, assert_pending};

/// No safety net: a wake-up that is lost stays lost.
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
    let mut waiter = Polled::new(lock.acquire());
    assert_pending!(waiter.poll().map(drop));
    waiter
}
