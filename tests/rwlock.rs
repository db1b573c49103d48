//! The reader-writer lock within one process, polled by hand, with outsiders that queue or hold.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use stanchion::{
    Acquire, ErrorKind, FifoLock, FifoReadGuard, FifoRwLock, FifoWriteGuard, Guard, Lock,
    SharedLock,
};

#[path = "conformance/support.rs"]
mod support;

use support::{Outsider, Place, Polled, assert_pending, assert_ready, eventually, kind_of};

type Reader = Polled<Acquire<FifoReadGuard>>;
type Writer = Polled<Acquire<FifoWriteGuard>>;

fn open(place: &Place) -> FifoRwLock {
    let options = FifoRwLock::options().poll_interval(Duration::MAX);
    options.open(place.path()).expect("a lock")
}

fn reads(lock: &FifoRwLock) -> FifoReadGuard {
    assert_ready!(Polled::new(lock.read()).poll()).expect("there is no writer")
}

fn writes(lock: &FifoRwLock) -> FifoWriteGuard {
    assert_ready!(Polled::new(lock.write()).poll()).expect("there is no holder")
}

fn wants_to_read(lock: &FifoRwLock) -> Reader {
    Polled::pending(lock.read())
}

fn wants_to_write(lock: &FifoRwLock) -> Writer {
    Polled::pending(lock.write())
}

fn assert_idle(place: &Place, lock: &FifoRwLock) {
    assert_eq!(place.tickets(), Vec::<String>::new());
    drop(lock.try_write().expect("no error").expect("it is free"));
    // Now by the operating system.
    let file = File::options().read(true).write(true).open(place.path());
    fs2::FileExt::try_lock_exclusive(&file.expect("the door")).expect("it is free");
}

/// Returns whether the operating system lets an outsider share the lock.
fn an_outsider_may_read(path: &Path) -> bool {
    let file = File::open(path).expect("the door");
    fs2::FileExt::try_lock_shared(&file).is_ok()
}

#[test]
fn p03_readers_share_and_a_writer_is_alone() {
    let place = Place::new();
    let lock = open(&place);
    let one = reads(&lock);
    let two = reads(&open(&place));
    assert!(lock.try_write().expect("no error").is_none());
    assert!(lock.try_read().expect("no error").is_some());
    assert!(one.is_held() && two.is_held());
    drop(one);
    assert!(lock.try_write().expect("no error").is_none());
    drop(two);
    let writer = writes(&lock);
    assert!(lock.try_read().expect("no error").is_none());
    assert!(lock.try_write().expect("no error").is_none());
    drop(writer);
    assert_idle(&place, &lock);
}

/// A wait behind the writer ends while a reader of another process queues.
#[test]
fn p03_a_writer_inside_shares_with_no_process() {
    let place = Place::new();
    let lock = open(&place);
    let writer = writes(&lock);
    let reader = place.outsider_waits_to_read(1 << 62);
    drop(wants_to_write(&lock));
    assert!(!an_outsider_may_read(&place.path()));
    drop(wants_to_read(&lock));
    assert!(!an_outsider_may_read(&place.path()));
    assert!(writer.is_held());
    drop(writer);
    reader.leaves_the_queue();
    assert_idle(&place, &lock);
}

#[test]
fn p15_a_waiting_writer_holds_back_later_readers() {
    let place = Place::new();
    let lock = open(&place);
    let first = reads(&lock);
    let mut writer = wants_to_write(&lock);
    let mut later = wants_to_read(&lock);
    assert!(lock.try_read().expect("no error").is_none());
    drop(first);
    let guard = assert_ready!(writer.poll()).expect("its turn");
    assert_pending!(later.poll());
    drop(guard);
    drop(assert_ready!(later.poll()).expect("its turn"));
    assert_idle(&place, &lock);
}

#[test]
fn p15_adjacent_readers_enter_together() {
    let place = Place::new();
    let lock = open(&place);
    let writer = writes(&lock);
    let mut readers = [wants_to_read(&lock), wants_to_read(&lock)];
    let mut second = wants_to_write(&lock);
    let mut last = wants_to_read(&lock);
    drop(writer);
    let guards = readers.each_mut().map(|it| assert_ready!(it.poll()));
    assert_pending!(second.poll());
    assert_pending!(last.poll());
    drop(guards);
    let guard = assert_ready!(second.poll()).expect("its turn");
    assert_pending!(last.poll());
    drop(guard);
    drop(assert_ready!(last.poll()).expect("its turn"));
    assert_idle(&place, &lock);
}

/// The readers inside have not claimed their offers yet.
#[test]
fn a_newcomer_enters_beside_readers_that_have_offers() {
    let place = Place::new();
    let lock = open(&place);
    let writer = writes(&lock);
    let mut readers = [wants_to_read(&lock), wants_to_read(&lock)];
    drop(writer);
    let newcomer = reads(&lock);
    assert!(lock.try_read().expect("no error").is_some());
    let guards = readers.each_mut().map(|it| assert_ready!(it.poll()));
    drop((newcomer, guards));
    assert_idle(&place, &lock);
}

#[test]
fn p23_a_writer_that_gives_up_grants_the_readers() {
    let place = Place::new();
    let lock = open(&place);
    let first = reads(&lock);
    let writer = wants_to_write(&lock);
    let mut later = wants_to_read(&lock);
    drop(writer);
    let second = later.finish().expect("it is free");
    drop((first, second));
    assert_idle(&place, &lock);
}

#[test]
fn p23_an_offer_to_a_reader_that_is_dropped_affects_no_other() {
    let place = Place::new();
    let lock = open(&place);
    let writer = writes(&lock);
    let one = wants_to_read(&lock);
    let mut two = wants_to_read(&lock);
    let mut last = wants_to_write(&lock);
    drop(writer);
    drop(one);
    let guard = assert_ready!(two.poll()).expect("its turn");
    assert_pending!(last.poll());
    drop(guard);
    drop(assert_ready!(last.poll()).expect("its turn"));
    assert_idle(&place, &lock);
}

#[test]
fn a_writer_becomes_a_reader() {
    let place = Place::new();
    let lock = open(&place);
    let writer = writes(&lock);
    let token = writer.token();
    let mut reader = wants_to_read(&lock);
    let mut next = wants_to_write(&lock);
    let first = writer.downgrade().expect("no error");
    assert_eq!(first.token(), token);
    let second = assert_ready!(reader.poll()).expect("acquired");
    assert_eq!(second.token(), token, "the last writer's");
    assert_pending!(next.poll());
    drop((first, second));
    let guard = assert_ready!(next.poll()).expect("its turn");
    assert!(guard.token() > token);
    drop(guard);
    assert_idle(&place, &lock);
}

#[test]
fn p05_a_lost_lock_is_not_downgraded() {
    let place = Place::new();
    let lock = open(&place);
    for asks in [false, true] {
        let writer = writes(&lock);
        let _lost = asks.then(|| writer.lost());
        std::fs::rename(place.path(), place.directory().join("elsewhere")).expect("renamed");
        assert_eq!(kind_of(writer.downgrade()), ErrorKind::Lost);
        assert_idle(&place, &lock);
    }
}

#[test]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    ignore = "there are no directory events"
)]
fn readers_after_a_writer_share_the_lock_as_soon_as_another_process_queues() {
    let place = Place::new();
    let lock = open(&place);
    let writer = writes(&lock);
    let mut reader = wants_to_read(&lock);
    drop(writer);
    let guard = assert_ready!(reader.poll()).expect("its turn");
    assert!(!an_outsider_may_read(&place.path()), "no reader has asked");
    let other = place.outsider_waits_to_read(u64::MAX >> 2);
    eventually("the lock is shared", || an_outsider_may_read(&place.path()));
    drop(guard);
    other.leaves_the_queue();
    assert_idle(&place, &lock);
}

/// Readers of this process are inside, and one of its cohort does not claim its offer.
#[test]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    ignore = "there are no directory events"
)]
fn p64_a_frozen_reader_has_a_marked_ticket_once_another_process_queues() {
    let place = Place::new();
    let options = FifoRwLock::options().poll_interval(Duration::MAX);
    let options = options.claim_window(Duration::from_secs(1));
    let lock = options.open(place.path()).expect("a lock");
    let writer = writes(&lock);
    let (mut awake, mut frozen) = (wants_to_read(&lock), wants_to_read(&lock));
    drop(writer);
    let guard = assert_ready!(awake.poll()).expect("its turn");
    eventually("it counts as frozen", || {
        let waiters = lock.status().expect("status").waiters;
        waiters.iter().any(|it| it.bypassed)
    });
    assert_eq!(place.tickets(), Vec::<String>::new());
    let behind = place.outsider_waits(1 << 62);
    eventually("its ticket is first, and marked", || {
        let tickets = place.tickets();
        let size = std::fs::metadata(place.queue().join(&tickets[0])).map(|it| it.len());
        tickets.len() == 2 && size.is_ok_and(|size| size > 0)
    });
    drop(guard);
    behind.leaves_the_queue();
    drop(frozen.finish().expect("its turn"));
    assert_idle(&place, &lock);
}

#[test]
fn p10_readers_of_this_process_never_overtake_a_writer_of_another() {
    let place = Place::new();
    let lock = open(&place);
    let guard = reads(&lock);
    let other = place.outsider_waits(1);
    let mut reader = wants_to_read(&lock);
    assert!(lock.try_read().expect("no error").is_none());
    other.leaves_the_queue();
    drop(reader.finish().expect("its turn"));
    drop(guard);
    assert_idle(&place, &lock);
}

#[test]
fn a_reader_does_not_wait_for_readers_in_the_queue() {
    let place = Place::new();
    let lock = open(&place);
    let other = place.outsider_waits_to_read(1);
    drop(reads(&lock));
    assert!(lock.try_read().expect("no error").is_some());
    assert!(
        lock.try_write().expect("no error").is_none(),
        "it was first"
    );
    let mut writer = wants_to_write(&lock);
    other.leaves_the_queue();
    drop(writer.finish().expect("its turn"));
    assert_idle(&place, &lock);
}

#[test]
fn strangers_with_shared_locks_take_part() {
    let place = Place::new();
    let lock = open(&place);
    drop(reads(&lock));
    let stranger = File::open(place.path()).expect("the door");
    fs2::FileExt::lock_shared(&stranger).expect("locked");
    let reader = reads(&lock);
    assert!(lock.try_write().expect("no error").is_none());
    drop(reader);
    let mut writer = wants_to_write(&lock);
    fs2::FileExt::unlock(&stranger).expect("unlocked");
    drop(stranger);
    drop(writer.finish().expect("its turn"));
    assert_idle(&place, &lock);
}

#[test]
fn p66_other_kinds_are_refused_with_both_names() {
    let place = Place::new();
    let lock = open(&place);
    let error = FifoLock::open(place.path()).expect_err("open here already");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(
        text.contains("has a reader-writer lock") && text.contains("not a lock"),
        "{text}"
    );
    drop(reads(&lock));
    drop(lock);
    let error = FifoLock::open(place.path()).expect_err("the record says it");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let plain = Place::new();
    drop(plain.open().try_acquire().expect("no error"));
    assert_eq!(
        kind_of(FifoRwLock::open(plain.path())),
        ErrorKind::Incompatible
    );
}

/// A writer that came through the old lock file is still inside.
#[test]
fn p40_a_reader_learns_that_the_lock_file_was_replaced() {
    let place = Place::new();
    let lock = open(&place);
    drop(writes(&lock));
    // The old file keeps its inode number, so the new lock file has another one.
    std::fs::rename(place.path(), place.directory().join("other")).expect("renamed");
    let outsider = Outsider::locks(&place.queue().join("state"));
    assert_eq!(kind_of(lock.try_read()), ErrorKind::Replaced);
    outsider.release();
    assert!(lock.try_read().expect("no error").is_some());
    assert_idle(&place, &lock);
}

/// Each holder "dies": the record is put back that was there while it was inside.
#[test]
fn p65_the_death_of_a_writer_is_reported_once_whoever_is_next() {
    let place = Place::new();
    let lock = open(&place);
    let state = place.queue().join("state");
    let record = || std::fs::read(&state).expect("a record");
    let die = |record: Vec<u8>| std::fs::write(&state, record).expect("written");
    let first = writes(&lock);
    let inside = record();
    drop(first);
    die(inside);
    let readers = [reads(&lock), reads(&lock)];
    assert_eq!(
        readers.each_ref().map(|it| it.predecessor_crashed()),
        [true, false]
    );
    // The next writer gets the lock from readers of its own process.
    let mut writer = wants_to_write(&lock);
    drop(readers);
    let writer = assert_ready!(writer.poll()).expect("its turn");
    assert!(!writer.predecessor_crashed(), "it was reported");
    let inside = record();
    drop(writer);
    die(inside);
    let writer = writes(&lock);
    assert!(writer.predecessor_crashed());
    drop(writer);
    let reader = reads(&lock);
    let inside = record();
    drop(reader);
    die(inside);
    assert!(!writes(&lock).predecessor_crashed(), "it was a reader");
}

#[test]
fn p05_readers_learn_of_a_loss_and_newcomers_are_refused() {
    let place = Place::new();
    let lock = open(&place);
    let (one, two) = (reads(&lock), reads(&lock));
    let mut released = Polled::pending(one.lost());
    drop(one);
    let mut lost = Polled::pending(two.lost());
    std::fs::rename(place.path(), place.directory().join("away")).expect("renamed");
    lost.finish();
    assert!(!two.is_held());
    assert_pending!(released.poll());
    assert!(futures::executor::block_on(two.release()).is_err());
    drop(reads(&lock));
}

#[test]
fn p49_writers_tokens_grow_through_readers_too() {
    let place = Place::new();
    let lock = open(&place);
    let mut last = 0;
    for _ in 0..50 {
        let writer = writes(&lock);
        let mut reader = wants_to_read(&lock);
        let mut next = wants_to_write(&lock);
        assert!(writer.token() > last);
        last = writer.token();
        drop(writer);
        let guard = assert_ready!(reader.poll()).expect("its turn");
        assert_eq!(guard.token(), last);
        drop(guard);
        let guard = assert_ready!(next.poll()).expect("its turn");
        assert!(guard.token() > last);
        last = guard.token();
    }
}

#[test]
fn the_traits_fit() {
    fn token_of<L: SharedLock>(lock: &L) -> Option<u64> {
        let guard = futures::executor::block_on(lock.acquire_shared()).expect("no error");
        let again = futures::executor::block_on(lock.try_acquire_shared()).expect("no error");
        assert!(again.is_some());
        let writes = futures::executor::block_on(Lock::try_acquire(lock)).expect("no error");
        assert!(writes.is_none());
        guard.token()
    }
    let place = Place::new();
    let lock = open(&place);
    assert!(token_of(&lock).is_some());
    assert!(lock.capabilities().fair);
    assert_idle(&place, &lock);
}
