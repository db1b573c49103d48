//! Locks on files that the caller has opened, and `open_locked`.

use std::fs::File;

use stanchion::{ErrorKind, LockFlags, lock, open_locked, unlock};
use tokio::io::AsyncWriteExt;

use crate::support::{Place, Polled, assert_ready, in_runtime, kind_of};
use crate::{by_events, open, queued};

fn file(place: &Place) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(place.path()).expect("a file")
}

fn at_once(file: &File, flags: LockFlags) -> stanchion::Result<()> {
    assert_ready!(Polled::new(lock(file, flags)).poll())
}

#[test]
fn shared_and_exclusive() {
    let place = Place::new();
    let (one, two) = (file(&place), file(&place));
    let now = LockFlags::NON_BLOCKING;
    at_once(&one, LockFlags::SHARED | now).expect("free");
    at_once(&two, LockFlags::SHARED | now).expect("shared");
    let busy = at_once(&two, LockFlags::EXCLUSIVE | now);
    assert_eq!(kind_of(busy), ErrorKind::Busy);
    at_once(&two, LockFlags::UNBLOCK).expect("unlocked");
    at_once(&one, LockFlags::EXCLUSIVE).expect("changed, there is no other holder");
    let mut waiting = Polled::pending(lock(&two, LockFlags::SHARED));
    unlock(&one).expect("unlocked");
    waiting.finish().expect("its turn");
    unlock(&one).expect("nothing to unlock is no error");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = Place::new();
    let file = file(&place);
    for bits in [0, 3, 4, 7, 9, 10, 12, 15] {
        let flags = LockFlags::from_bits(bits).expect("known bits");
        assert_eq!(kind_of(at_once(&file, flags)), ErrorKind::InvalidInput);
    }
}

/// The file stays open, so no close wakes the waiters.
#[test]
fn an_unlock_is_heard() {
    let place = Place::new();
    let holder = file(&place);
    at_once(&holder, LockFlags::EXCLUSIVE).expect("free");
    let plain = open(&place, by_events());
    for _ in 0..20 {
        let mut waiter = queued(&plain);
        unlock(&holder).expect("unlocked");
        drop(waiter.finish().expect("its turn"));
        at_once(&holder, LockFlags::EXCLUSIVE).expect("free again");
    }
    drop(holder);
}

#[test]
fn a_dropped_wait_locks_nothing() {
    let place = Place::new();
    let (one, two) = (file(&place), file(&place));
    at_once(&one, LockFlags::EXCLUSIVE).expect("free");
    let waiting = Polled::pending(lock(&two, LockFlags::EXCLUSIVE));
    unlock(&one).expect("unlocked");
    waiting.bell.wait_beyond(0);
    drop(waiting);
    at_once(&one, LockFlags::EXCLUSIVE | LockFlags::NON_BLOCKING).expect("released");
}

#[test]
fn files_of_tokio_are_files_too() {
    let place = Place::new();
    in_runtime(async {
        let tokio_file = tokio::fs::File::from_std(file(&place));
        lock(&tokio_file, LockFlags::EXCLUSIVE).await.expect("free");
        let late = open_locked(place.path()).timeout(std::time::Duration::from_millis(5));
        assert_eq!(kind_of(late.await), ErrorKind::TimedOut);
        unlock(&tokio_file).expect("unlocked");
        let mut guard = open_locked(place.path()).await.expect("free");
        guard.write_all(b"from the start").await.expect("written");
        guard.release().await.expect("released");
    });
    let content = std::fs::read_to_string(place.path()).expect("read");
    assert_eq!(content, "from the start");
}

#[test]
fn open_locked_returns_errors_when_it_is_awaited() {
    let place = Place::new();
    let nowhere = place.directory().join("no/such/file");
    let error = in_runtime(async { open_locked(&nowhere).await.expect_err("no directory") });
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.path(), nowhere.parent());
}
