//! Locks of several kinds in one list, and the guard of any of them.

use tokio::io::AsyncWriteExt;

use super::*;
use crate::crew::child::path;
use crate::crew::program;
use stanchion::{FifoRwLock, FifoSemaphore, Guard, Loss};

#[test]
fn p41_locks_of_all_kinds_together() {
    let place = Place::new();
    let (fifo, me) = (place.open(), Holder::new());
    let file = FileLock::open(place.directory().join("b")).expect("a lock");
    let inner = FifoLock::open(place.directory().join("c.lock")).expect("a lock");
    let reentrant = Reentrant::new(inner.clone());
    in_runtime(async {
        let mut guards = acquire_all([
            Request::from(reentrant.acquire_as(&me)),
            fifo.acquire().into(),
            file.acquire().into(),
        ])
        .await
        .expect("all are free");
        assert_eq!(guards.iter().filter(|it| it.token().is_some()).count(), 2);
        assert!(guards[2].downcast_ref::<FifoGuard>().is_none());
        let book = guards[2].downcast_mut::<FileGuard>().expect("the file");
        book.write_all(b"written under the lock")
            .await
            .expect("a write");
        // The task that holds it may acquire it again; other tasks may not.
        let again = reentrant.try_acquire_as(&me).await.expect("no error");
        assert!(again.is_some());
        drop(again);
        assert!(inner.try_acquire().expect("no error").is_none());
        assert!(file.try_acquire().expect("no error").is_none());
        assert!(fifo.try_acquire().expect("no error").is_none());
        // The guards are valid in another task too.
        let released = tokio::spawn(guards.release()).await.expect("a task");
        released.expect("released");
    });
    let written = std::fs::read(file.path()).expect("it is there");
    assert_eq!(written, b"written under the lock");
    assert!(inner.try_acquire().expect("no error").is_some());
    assert!(file.try_acquire().expect("no error").is_some());
    place.assert_idle();
}

#[test]
fn readers_and_permits_in_one_list() {
    let place = Place::new();
    let rw = FifoRwLock::open(place.directory().join("r.lock")).expect("a lock");
    let pool = FifoSemaphore::open(place.directory(), "pool", 3).expect("a semaphore");
    let fifo = place.open();
    in_runtime(async {
        let wants = || {
            [
                Request::from(pool.acquire_many(2)),
                rw.read().into(),
                fifo.acquire().into(),
            ]
        };
        let guards = acquire_all(wants()).await.expect("all are free");
        assert_eq!(guards.len(), 3);
        assert!(rw.try_read().expect("no error").is_some());
        assert!(rw.try_write().expect("no error").is_none());
        assert!(pool.try_acquire_many(2).expect("no error").is_none());
        let twice = acquire_all([Request::from(rw.read()), rw.read().into()]).await;
        assert_eq!(kind_of(twice), ErrorKind::Deadlock);
        guards.release().await.expect("released");
        let writer = rw.write().await.expect("free");
        let waits = acquire_all(wants())
            .timeout(Duration::from_millis(20))
            .await;
        assert_eq!(kind_of(waits), ErrorKind::TimedOut);
        drop(writer);
        assert!(
            pool.try_acquire_many(3).expect("no error").is_some(),
            "all are back"
        );
    });
    place.assert_idle();
}

/// The child program, which dies while it holds the lock.
pub(crate) fn dies_inside() {
    let lock = FifoLock::open(path("DIES_AT")).expect("a lock");
    let guards = granted(&mut Polled::new(acquire_all([lock.acquire()])));
    assert!(guards.is_held());
    std::process::exit(7);
}

#[test]
fn p65_the_guard_of_the_right_lock_reports_a_crash() {
    let row = Row::of(3);
    let mut child = program("dies");
    child.env("DIES_AT", row.locks[1].path());
    let ended = child.output().expect("it starts");
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    let crashed = || {
        let guards = granted(&mut Polled::new(row.want(&[2, 1, 0])));
        let told = guards.iter().map(AnyGuard::predecessor_crashed);
        told.collect::<Vec<_>>()
    };
    assert_eq!(crashed(), [false, true, false]);
    assert_eq!(crashed(), [false; 3]);
    row.assert_idle();
}

/// Every pair of kinds on one path is one lock twice.
#[test]
fn all_kinds_on_one_path_are_one_lock() {
    let place = Place::new();
    let fifo = place.open();
    let file = FileLock::open(place.path()).expect("a lock");
    let me = Holder::new();
    let reentrant = Reentrant::new(fifo.clone());
    let twice = Reentrant::new(reentrant.clone());
    let all: [&dyn Fn() -> Request; 5] = [
        &|| fifo.acquire().into(),
        &|| file.acquire_shared().into(),
        &|| file.acquire().into(),
        &|| reentrant.acquire_as(&me).into(),
        &|| twice.acquire().into(),
    ];
    for one in all {
        for other in all {
            let refused = assert_ready!(Polled::new(acquire_all([one(), other()])).poll());
            assert_eq!(kind_of(refused), ErrorKind::Deadlock);
        }
    }
    assert!(place.footprint().is_empty());
}

#[test]
fn p42_what_the_holder_has_from_before_comes_at_once() {
    let row = Row::of(2);
    let (first, second) = (row.locks[0].clone(), row.locks[1].clone());
    let (first, me) = (Reentrant::new(first), Holder::new());
    let held = Polled::new(first.acquire_as(&me)).finish().expect("free");
    let both = [
        Request::from(second.acquire()),
        first.acquire_as(&me).into(),
    ];
    let guards = granted(&mut Polled::new(acquire_all(both)));
    assert_eq!(guards[1].token(), held.token());
    drop(guards);
    assert_eq!(row.free(), [false, true], "it still has the first one");
    drop(held);
    row.assert_idle();
}

#[test]
fn any_guard_returns_what_its_guard_returns() {
    let place = Place::new();
    let lock = place.open();
    let guard = lock.try_acquire().expect("no error").expect("free");
    let token = guard.token();
    let guard = AnyGuard::new(guard);
    let mut waiter = Polled::pending(lock.acquire());
    fn told<G: Guard>(guard: &G) -> (Option<u64>, bool, bool, bool) {
        let waited = guard.waited().is_some();
        (
            guard.token(),
            waited,
            guard.predecessor_crashed(),
            guard.is_held(),
        )
    }
    assert_eq!(told(&guard), (Some(token), false, false, true));
    assert!(format!("{guard:?}").contains(&token.to_string()));
    Polled::new(Guard::release(guard))
        .finish()
        .expect("released");
    let guard = assert_ready!(waiter.poll()).expect("its turn");
    // Erasing the kind twice is the same as erasing it once.
    let guard = AnyGuard::new(AnyGuard::new(guard));
    assert!(told(&guard).0 > Some(token) && told(&guard).1);
    let guard = guard.downcast::<FileGuard>().expect_err("no file");
    let mut lost = Polled::pending(guard.lost());
    let guard: FifoGuard = guard.downcast().expect("what it was");
    std::fs::remove_file(lock.path()).expect("it is there");
    assert_eq!(lost.finish(), Loss::Deleted);
    let released = Polled::new(AnyGuard::new(guard).release()).finish();
    assert_eq!(kind_of(released), ErrorKind::Lost);
}

#[test]
fn p48_the_first_loss_is_reported_for_all() {
    let row = Row::of(3);
    let guards = granted(&mut Polled::new(row.want(&[2, 1, 0])));
    let (mut lost, before) = (Polled::new(guards.lost()), Polled::new(guards.lost()));
    assert_pending!(lost.poll());
    std::fs::remove_file(row.locks[1].path()).expect("it is there");
    assert_eq!(lost.finish(), Loss::Deleted);
    assert!(!guards.is_held());
    for mut later in [before, Polled::new(guards.lost())] {
        assert_eq!(later.finish(), Loss::Deleted);
    }
    drop(guards);
    row.assert_idle();
}
