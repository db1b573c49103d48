//! Another program releases the lock, leaves the queue or deletes the lock file. The event must
//! wake the waiter or holder, and nothing else may.
//!
//! Each case runs in its own process, because all locks of a process share one watch. A case waits
//! until the process has no timer left and then lets the other program act. If the waiter does not
//! acquire then, a wake-up was lost.
//!
//! Each case runs twice: as it is, and with a watch that ignores the event (`STANCHION_DEAF`). The
//! second run must fail.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use stanchion::{AnyLock, FifoLock, FifoRwLock, FifoSemaphore, FileLock};

use crate::crew::program;
use crate::one_permit::OnePermit;
use crate::support::{Outsider, Place, Polled, assert_pending, eventually};

/// A lock without a safety net.
fn fifo(place: &Place) -> AnyLock {
    let options = FifoLock::options().poll_interval(Duration::MAX);
    let options = options.claim_window(Duration::MAX);
    AnyLock::new(options.open(place.path()).expect("a lock"))
}

fn rwlock(place: &Place) -> AnyLock {
    let options = FifoRwLock::options().poll_interval(Duration::MAX);
    let options = options.claim_window(Duration::MAX);
    AnyLock::new(options.open(place.path()).expect("a lock"))
}

fn semaphore(place: &Place) -> AnyLock {
    let options = FifoSemaphore::options().limit(1);
    let options = options.poll_interval(Duration::MAX);
    let options = options.claim_window(Duration::MAX);
    let opened = options.open(place.directory(), "a.lock");
    AnyLock::new(OnePermit(opened.expect("a semaphore")))
}

fn plain(place: &Place) -> FileLock {
    let options = FileLock::options().poll_interval(Duration::MAX);
    options.open(place.path()).expect("a lock")
}

fn file(place: &Place) -> AnyLock {
    AnyLock::new(plain(place))
}

/// The file that is locked. It exists after the first use.
fn lock_file(place: &Place, lock: &AnyLock) -> PathBuf {
    drop(Polled::new(lock.acquire()).finish().expect("free"));
    let entries = std::fs::read_dir(place.directory()).expect("a directory");
    let mut files = entries
        .map(|it| it.expect("an entry").path())
        .filter(|it| it.is_file());
    files.next().expect("a lock file")
}

/// From now on only an event can wake the waiter.
fn until_settled() {
    eventually("no timer is set", || {
        stanchion::testing::settled().is_some()
    });
}

fn assert_woken<F: Future>(waiter: &Polled<F>) {
    let settled = || stanchion::testing::settled().is_some();
    eventually("it is woken, or never", || waiter.rings() > 0 || settled());
    assert!(waiter.rings() > 0, "a wake-up was lost");
}

fn another_program_releases(open: fn(&Place) -> AnyLock) {
    let place = Place::new();
    let lock = open(&place);
    let outsider = Outsider::locks(&lock_file(&place, &lock));
    let mut waiter = Polled::new(lock.acquire());
    assert_pending!(waiter.poll().map(|it| it.map(drop)));
    until_settled();
    assert_eq!(waiter.rings(), 0);
    outsider.release();
    assert_woken(&waiter);
    drop(waiter.finish().expect("its turn"));
}

fn another_program_leaves_the_queue(open: fn(&Place) -> AnyLock) {
    let place = Place::new();
    let lock = open(&place);
    let holds = Outsider::locks(&lock_file(&place, &lock));
    let waits = place.outsider_waits(5);
    let mut waiter = Polled::new(lock.acquire());
    assert_pending!(waiter.poll().map(|it| it.map(drop)));
    until_settled();
    waits.leaves_the_queue();
    until_settled();
    holds.release();
    assert_woken(&waiter);
    drop(waiter.finish().expect("its turn"));
}

/// The holder of a lock whose file is deleted is informed.
fn the_lock_file_goes(open: fn(&Place) -> AnyLock) {
    let place = Place::new();
    let lock = open(&place);
    let guard = Polled::new(lock.acquire()).finish().expect("free");
    let mut lost = Polled::new(guard.lost());
    assert_pending!(lost.poll());
    until_settled();
    std::fs::remove_file(place.path()).expect("deleted");
    assert_woken(&lost);
    assert_eq!(lost.finish(), stanchion::Loss::Deleted);
}

/// A downgrade wakes a reader of a plain lock as a release does.
fn a_writer_becomes_a_reader(open: fn(&Place) -> FileLock) {
    let place = Place::new();
    let lock = open(&place);
    let writer = Polled::new(lock.acquire()).finish().expect("free");
    let mut waiter = Polled::new(lock.acquire_shared());
    assert_pending!(waiter.poll().map(|it| it.map(drop)));
    until_settled();
    assert_eq!(waiter.rings(), 0);
    let reader = Polled::new(writer.downgrade()).finish();
    assert_woken(&waiter);
    drop((waiter.finish().expect("shared"), reader.expect("a reader")));
}

/// Runs each case as a child program.
pub(crate) const CASES: &[(&str, fn())] = &[
    ("fifo_door", || another_program_releases(fifo)),
    ("fifo_line", || another_program_leaves_the_queue(fifo)),
    ("rwlock_door", || another_program_releases(rwlock)),
    ("rwlock_line", || another_program_leaves_the_queue(rwlock)),
    ("semaphore_slot", || another_program_releases(semaphore)),
    ("semaphore_line", || {
        another_program_leaves_the_queue(semaphore)
    }),
    ("file_lock", || another_program_releases(file)),
    ("file_share", || a_writer_becomes_a_reader(plain)),
    ("fifo_loss", || the_lock_file_goes(fifo)),
    ("rwlock_loss", || the_lock_file_goes(rwlock)),
];

/// The events without which each case fails.
const DEAF: &[(&str, &[&str])] = &[
    ("fifo_door", &["door"]),
    ("fifo_line", &["door", "predecessor"]),
    ("rwlock_door", &["door"]),
    ("rwlock_line", &["door", "predecessor"]),
    ("semaphore_slot", &["door"]),
    ("semaphore_line", &["door", "predecessor"]),
    ("file_lock", &["door"]),
    ("file_share", &["door"]),
    ("fifo_loss", &["held"]),
    ("rwlock_loss", &["held"]),
];

fn run(name: &str, deaf: &str) -> Output {
    let mut command = program(name);
    // The ladder has no rungs, because no process dies here.
    command.env("STANCHION_LADDER", "off");
    command.env("STANCHION_DEAF", deaf);
    command.output().expect("the case runs")
}

#[test]
fn p21_another_program_wakes_a_waiter_by_its_event() {
    for (name, _) in CASES {
        let output = run(name, "");
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

#[test]
fn p21_a_lost_event_fails_the_cases_of_this_file() {
    assert_eq!(CASES.len(), DEAF.len());
    for (name, events) in DEAF {
        for deaf in *events {
            let output = run(name, deaf);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{name} passes, deaf to {deaf}");
            assert!(
                text.contains("a wake-up was lost"),
                "{name}, {deaf}: {text}"
            );
        }
    }
}
