//! Sharing: a writer becomes a reader.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stanchion::{Acquire, AnyGuard, ErrorKind, Guard, Lock, SharedLock, WriteGuard};

use crate::subject::{Subject, assert_idle, assert_soon, held, queued, tried, turn};
use crate::support::{Polled, assert_pending, kind_of};

type Reader<S> = Polled<Acquire<<<S as Subject>::Lock as SharedLock>::SharedGuard>>;

/// A reader that has been polled once and waits.
fn queued_to_read<S: Subject<Lock: SharedLock>>(lock: &S::Lock) -> Reader<S> {
    let line = || {
        let status = Polled::new(stanchion::Handle::status(lock)).finish();
        status.expect("a status").waiters.len()
    };
    let before = if S::REMOTE { line() } else { 0 };
    let mut reader = Polled::new(lock.acquire_shared());
    assert_pending!(reader.poll().map(drop));
    if S::REMOTE {
        assert_soon::<S>("queued", || line() > before);
    }
    reader
}

/// Readers at the head of the queue acquire, with the token of the writer. A writer behind them
/// waits, and so does a reader behind that writer.
pub(crate) fn a_downgrade_grants_the_readers_at_the_head<S: Subject<Lock: SharedLock>>() {
    let subject = S::new();
    let lock = subject.open_without_polling();
    let writer = held::<S>(&lock);
    let token = writer.token();
    let mut readers = [(); 2].map(|()| queued_to_read::<S>(&lock));
    let mut next = queued::<S>(&lock);
    let mut late = S::FAIR.then(|| queued_to_read::<S>(&lock));
    let rings = readers.each_ref().map(Polled::rings);
    let reader = Polled::new(writer.downgrade())
        .finish()
        .expect("downgraded");
    assert!(reader.is_held());
    // They are woken. No poll of their own is needed.
    for (reader, before) in readers.iter().zip(rings) {
        reader.bell.wait_beyond(before);
    }
    let readers = readers.each_mut().map(|it| it.finish().expect("shared"));
    for guard in &readers {
        assert_eq!(guard.token(), token, "that of the writer before");
    }
    assert_eq!(reader.token(), token);
    assert_pending!(next.poll().map(drop));
    if let Some(late) = &mut late {
        assert_pending!(late.poll().map(drop));
    }
    drop(readers);
    assert_pending!(next.poll().map(drop));
    drop(reader);
    let next = turn::<S>(&mut next);
    assert!(!next.predecessor_crashed());
    assert!(!S::TOKENS || next.token() > token);
    drop(next);
    drop(late.map(|mut it| it.finish().expect("the last")));
    assert_idle(&subject);
}

pub(crate) fn no_writer_enters_during_a_downgrade<S: Subject<Lock: SharedLock>>() {
    // Elsewhere the writer polls.
    let rounds = match S::REMOTE || !cfg!(any(target_os = "linux", target_os = "android")) {
        true => 100,
        false => 5000,
    };
    let subject = S::new();
    let (lock, other) = (subject.open(), subject.open());
    let (held, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let before = held.load(Ordering::SeqCst);
                let guard = tried::<S>(&other);
                let during = before && held.load(Ordering::SeqCst);
                assert!(guard.is_none() || !during, "a writer beside the reader");
            }
        });
        // Without a panic, which the other thread would not see.
        let went_well = (0..rounds).all(|_| {
            let writer = Polled::new(lock.acquire()).finish().expect("a turn");
            held.store(true, Ordering::SeqCst);
            let reader = Polled::new(writer.downgrade()).finish();
            let alone = tried::<S>(&other).is_none();
            held.store(false, Ordering::SeqCst);
            alone && reader.is_ok()
        });
        over.store(true, Ordering::SeqCst);
        assert!(went_well, "the lock was lost, or a writer acquired it");
    });
    assert_idle(&subject);
}

/// At every stage of the downgrade.
pub(crate) fn a_downgrade_that_is_dropped_releases<S: Subject<Lock: SharedLock>>() {
    let subject = S::new();
    let lock = subject.open();
    drop(held::<S>(&lock).downgrade());
    assert_idle(&subject);
    let mut begun = Polled::new(held::<S>(&lock).downgrade());
    drop(begun.poll());
    drop(begun);
    assert_idle(&subject);
    drop(Polled::new(held::<S>(&lock).downgrade()).finish());
    assert_idle(&subject);
}

pub(crate) fn a_reader_cannot_be_downgraded<S: Subject<Lock: SharedLock>>() {
    let subject = S::new();
    let lock = subject.open();
    let reader = Polled::new(lock.acquire_shared()).finish().expect("free");
    let again = Polled::new(AnyGuard::new(reader).downgrade()).finish();
    assert_eq!(kind_of(again), ErrorKind::InvalidInput);
    assert_idle(&subject);
    let writer = AnyGuard::new(held::<S>(&lock));
    let reader = Polled::new(writer.downgrade()).finish().expect("a writer");
    type SharedOf<S> = <<S as Subject>::Lock as SharedLock>::SharedGuard;
    let is_its_own_kind = reader.downcast_ref::<SharedOf<S>>().is_some();
    assert!(is_its_own_kind || std::any::type_name::<SharedOf<S>>().contains("AnyGuard"));
    let again = Polled::new(reader.downgrade()).finish();
    assert_eq!(kind_of(again), ErrorKind::InvalidInput);
    assert_idle(&subject);
}

/// A guard that was never a writer's fails, and the lock is released.
#[test]
fn the_guard_of_an_exclusive_lock_cannot_be_downgraded() {
    let place = crate::support::Place::new();
    let memory = stanchion::Memory::new();
    let lock = memory.lock("a").expect("a lock");
    let guard = lock.try_acquire().expect("no error").expect("free");
    assert_eq!(kind_of(guard.downgrade()), ErrorKind::InvalidInput);
    let permits = memory.semaphore("b", 1).expect("a semaphore");
    let permit = permits.try_acquire().expect("no error").expect("free");
    assert_eq!(kind_of(permit.downgrade()), ErrorKind::InvalidInput);
    assert!(permits.try_acquire().expect("no error").is_some());
    for lock in [
        stanchion::AnyLock::from(lock),
        stanchion::AnyLock::from(place.open()),
    ] {
        let guard = Polled::new(lock.acquire()).finish().expect("free");
        let refused = Polled::new(guard.downgrade()).finish();
        assert_eq!(kind_of(refused), ErrorKind::InvalidInput);
        let again = Polled::new(lock.acquire().timeout(Duration::ZERO)).finish();
        assert!(again.is_ok(), "it was released");
    }
}
