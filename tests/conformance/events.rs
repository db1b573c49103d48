//! Another program gives the lock back, leaves the line or deletes the lock file: the waiter or holder is woken by the event,
//! and by nothing else.
//!
//! Each case runs in a process of its own, because all locks of a process share one watch. A case waits until no timer is
//! set in it, lets the other go, and has its lock when nothing can happen by itself any more; else a wake-up was lost.
//! It is run as it is, and so that the watch ignores the event (`STANCHION_DEAF`): then it must fail.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use stanchion::{AnyLock, FifoLock, FifoRwLock, FifoSemaphore, FileLock};

use crate::one_permit::OnePermit;
use crate::support::{Outsider, Place, Polled, assert_pending, eventually};

/// A lock without any safety net.
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

/// The file whose lock is the lock, which is there after the first use.
fn lock_file(place: &Place, lock: &AnyLock) -> PathBuf {
    drop(Polled::new(lock.acquire()).finish().expect("free"));
    let entries = std::fs::read_dir(place.directory()).expect("a directory");
    let mut files = entries
        .map(|it| it.expect("an entry").path())
        .filter(|it| it.is_file());
    files.next().expect("a lock file")
}

/// Nothing but an event can happen from now on.
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

fn another_program_lets_go(open: fn(&Place) -> AnyLock) {
    let place = Place::new();
    let lock = open(&place);
    let outsider = Outsider::locks(&lock_file(&place, &lock));
    let mut waiter = Polled::new(lock.acquire());
    assert_pending!(waiter.poll().map(|it| it.map(drop)));
    until_settled();
    assert_eq!(waiter.rings(), 0);
    outsider.lets_go();
    assert_woken(&waiter);
    drop(waiter.finish().expect("its turn"));
}

fn another_program_leaves_the_line(open: fn(&Place) -> AnyLock) {
    let place = Place::new();
    let lock = open(&place);
    let holds = Outsider::locks(&lock_file(&place, &lock));
    let waits = place.outsider_waits(5);
    let mut waiter = Polled::new(lock.acquire());
    assert_pending!(waiter.poll().map(|it| it.map(drop)));
    until_settled();
    waits.leaves_the_line();
    until_settled();
    holds.lets_go();
    assert_woken(&waiter);
    drop(waiter.finish().expect("its turn"));
}

/// The holder of a lock whose file is deleted is told.
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

/// Who waits for a share of a plain lock learns of a downgrade as of a release.
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

macro_rules! cases {
    ($($name:ident: $case:ident($open:ident), without $($deaf:literal)or+;)*) => {
        mod alone {
            $(
                #[test]
                #[ignore = "run by the tests of this file"]
                fn $name() {
                    super::$case(super::$open);
                }
            )*
        }

        const CASES: &[(&str, &[&str])] = &[$((stringify!($name), &[$($deaf),+])),*];
    };
}

cases! {
    fifo_door: another_program_lets_go(fifo), without "door";
    fifo_line: another_program_leaves_the_line(fifo), without "door" or "predecessor";
    rwlock_door: another_program_lets_go(rwlock), without "door";
    rwlock_line: another_program_leaves_the_line(rwlock), without "door" or "predecessor";
    semaphore_slot: another_program_lets_go(semaphore), without "door";
    semaphore_line: another_program_leaves_the_line(semaphore), without "door" or "predecessor";
    file_lock: another_program_lets_go(file), without "door";
    file_share: a_writer_becomes_a_reader(plain), without "door";
    fifo_loss: the_lock_file_goes(fifo), without "held";
    rwlock_loss: the_lock_file_goes(rwlock), without "held";
}

fn run(name: &str, deaf: &str) -> Output {
    let name = format!("events::alone::{name}");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([&name, "--exact", "--ignored", "--test-threads=1"]);
    // No rung of the ladder: nobody dies here.
    command.env("STANCHION_LADDER", "off");
    command.env("STANCHION_DEAF", deaf);
    command.output().expect("the case runs")
}

#[test]
fn p21_another_program_wakes_a_waiter_by_its_event() {
    for (name, _) in CASES {
        let output = run(name, "");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{name}: {text}");
    }
}

#[test]
fn p21_a_lost_event_fails_the_cases_of_this_file() {
    for (name, events) in CASES {
        for deaf in *events {
            let output = run(name, deaf);
            let text = String::from_utf8_lossy(&output.stdout);
            let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
            assert!(text.contains("1 failed"), "{name}, deaf to {deaf}: {text}");
            assert!(all.contains("a wake-up was lost"), "{name}, {deaf}: {all}");
        }
    }
}
