//! Re-entry: which caller may, and until when.
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "conformance/support.rs"]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use stanchion::{
    ErrorKind, FifoGuard, FifoLock, FileGuard, FileLock, Holder, Loss, Reentrant, ReentrantGuard,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use support::{Place, Polled, assert_pending, assert_ready, in_runtime, kind_of};

fn lock(place: &Place) -> Reentrant<FifoLock> {
    Reentrant::new(place.open())
}

fn held(lock: &Reentrant<FifoLock>, holder: &Holder) -> ReentrantGuard<FifoGuard> {
    assert_ready!(Polled::new(lock.acquire_as(holder)).poll()).expect("at once")
}

fn is_free(place: &Place) -> bool {
    place.open().try_acquire().expect("no error").is_some()
}

#[test]
fn p42_a_holder_acquires_again_and_the_last_guard_releases() {
    let place = Place::new();
    let (lock, me) = (lock(&place), Holder::new());
    let first = held(&lock, &me);
    let second = held(&lock.clone(), &me);
    let third = second.reenter();
    assert_eq!(first.token(), third.token());
    assert!(first.waited().is_none() && second.holder() == &me);
    drop(first);
    assert!(!is_free(&place));
    let released = Polled::new(second.release()).finish();
    released.expect("there is another one");
    assert!(third.is_held() && !is_free(&place));
    Polled::new(third.release()).finish().expect("released");
    assert!(is_free(&place));
    // Afterwards its last holder waits for it like any other task.
    let other = held(&lock, &Holder::new());
    let mut again = Polled::pending(lock.acquire_as(&me));
    drop(other);
    drop(assert_ready!(again.poll()).expect("its turn"));
    assert!(is_free(&place));
}

#[test]
fn p42_no_other_holder_acquires() {
    let place = Place::new();
    let (lock, me) = (lock(&place), Holder::new());
    let guard = held(&lock, &me);
    let enters = |holder: &Holder| {
        let tried = Polled::new(lock.try_acquire_as(holder)).finish();
        tried.expect("no error").is_some()
    };
    assert!(!enters(&Holder::new()));
    assert!(enters(&me));
    // A caller without a holder is another holder, even for itself.
    let mut stranger = Polled::pending(lock.acquire());
    // Another handle that was made re-entrant separately does not know the holders of this one.
    let apart = Reentrant::new(place.open());
    let mut other = Polled::pending(apart.acquire_as(&me));
    drop(guard);
    let guard = assert_ready!(stranger.poll()).expect("its turn");
    let again = Polled::pending(lock.acquire());
    drop((again, guard));
    drop(assert_ready!(other.poll()).expect("its turn"));
}

#[test]
fn a_scope_shows_its_holder_and_tasks_it_spawns_do_not() {
    let place = Place::new();
    let lock = lock(&place);
    in_runtime(async {
        let me = Holder::new();
        me.scope(async {
            let outer = lock.acquire().await.expect("free");
            let inner = lock.acquire().await.expect("the same holder");
            let spawned = tokio::spawn({
                let lock = lock.clone();
                async move { lock.try_acquire().await.expect("no error").is_none() }
            });
            assert!(spawned.await.expect("a task"), "another holder");
            Holder::new()
                .scope(async {
                    assert!(lock.try_acquire().await.expect("no error").is_none());
                    let mine = lock.try_acquire_as(&me).await.expect("no error");
                    assert!(mine.is_some(), "shown");
                })
                .await;
            drop((outer, inner));
        })
        .await;
    });
    assert!(is_free(&place));
}

/// What `by_task` means: all branches of one task are one holder, and acquire at once.
#[test]
fn by_task_the_branches_of_a_join_are_one_holder() {
    let place = Place::new();
    let lock = lock(&place).by_task();
    in_runtime(async {
        let task = tokio::spawn(async move {
            let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let branch = || async {
                let guard = lock.acquire().await.expect("the lock");
                let now = inside.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::Relaxed);
                drop(guard);
            };
            tokio::join!(branch(), branch());
            most.load(Ordering::Relaxed)
        });
        assert_eq!(task.await.expect("a task"), 2, "both at once");
        // Two tasks are two holders.
        let lock = Reentrant::new(place.open()).by_task();
        let guard = {
            let lock = lock.clone();
            let task = tokio::spawn(async move { lock.acquire().await.expect("free") });
            task.await.expect("a task")
        };
        let other =
            tokio::spawn(async move { lock.try_acquire().await.expect("no error").is_none() });
        assert!(other.await.expect("a task"));
        drop(guard);
    });
    assert!(is_free(&place));
}

/// The first wait that is granted lets the other one acquire, which leaves the queue.
#[test]
fn two_waits_of_one_holder_acquire_together() {
    let place = Place::new();
    let (lock, me) = (lock(&place), Holder::new());
    let guard = held(&lock, &Holder::new());
    let mut first = Polled::pending(lock.acquire_as(&me));
    let mut between = Polled::pending(lock.acquire_as(&Holder::new()));
    let mut second = Polled::pending(lock.acquire_as(&me));
    drop(guard);
    let mine = assert_ready!(first.poll()).expect("its turn");
    second.bell.wait_beyond(0);
    let also_mine = assert_ready!(second.poll()).expect("it has it already");
    assert_pending!(between.poll());
    drop(mine);
    assert_pending!(between.poll());
    drop(also_mine);
    drop(assert_ready!(between.poll()).expect("its turn"));
    assert!(is_free(&place));
}

/// A wait that is dropped must not take the wake-up of the other one with it.
#[test]
fn a_dropped_wait_takes_nothing_from_the_other_one() {
    let place = Place::new();
    let (lock, me) = (lock(&place), Holder::new());
    let guard = held(&lock, &Holder::new());
    let mut waits: Vec<_> = (0..3).map(|_| Polled::new(lock.acquire_as(&me))).collect();
    for wait in &mut waits {
        assert_pending!(wait.poll());
    }
    drop(waits.remove(0));
    drop(guard);
    let mine = waits.remove(0).finish().expect("its turn");
    let also_mine = waits.remove(0).finish().expect("it has it already");
    drop((mine, also_mine));
    assert!(is_free(&place));
}

#[test]
fn p41_guards_move_and_threads_may_share_a_holder() {
    let place = Place::new();
    let lock = Reentrant::new(FileLock::open(place.path()).expect("a lock"));
    let me = Holder::new();
    let first = Polled::new(lock.acquire_as(&me)).finish().expect("free");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (lock, me, guard) = (lock.clone(), me.clone(), first.reenter());
            scope.spawn(move || {
                for _ in 0..100 {
                    let mine = Polled::new(lock.acquire_as(&me)).finish().expect("held");
                    assert!(mine.is_held());
                }
                drop(guard);
            });
        }
    });
    drop(first);
    assert!(is_free(&place));
}

/// Two threads of one holder and another task acquire and release: never two holders.
#[test]
fn p42_a_storm_of_holders_is_exclusive() {
    let place = Place::new();
    let lock = lock(&place);
    let inside = std::sync::Mutex::new(None::<Holder>);
    std::thread::scope(|scope| {
        for group in 0..3 {
            let holder = Holder::new();
            for thread in 0..2 {
                let (lock, holder, inside) = (lock.clone(), holder.clone(), &inside);
                scope.spawn(move || {
                    for round in 0..200 {
                        let mut wait = Polled::new(lock.acquire_as(&holder));
                        if (round + group + thread) % 7 == 0 {
                            let _ = wait.poll().map(drop);
                            continue;
                        }
                        let guard = wait.finish().expect("its turn");
                        let before = inside.lock().expect("a mutex").replace(holder.clone());
                        assert!(before.is_none_or(|it| it == holder), "two holders");
                        std::thread::yield_now();
                        // Only the last guard knows that its holder has no other one.
                        let token = guard.token();
                        assert_eq!(guard.reenter().token(), token);
                        *inside.lock().expect("a mutex") = None;
                        drop(guard);
                    }
                });
            }
        }
    });
    assert!(is_free(&place));
}

/// As portalocker's `RLock`: each acquire returns the one open file.
#[test]
fn every_guard_of_a_holder_lends_the_same_file() {
    let place = Place::new();
    let options = FileLock::options().truncate(true);
    let lock = Reentrant::new(options.open(place.path()).expect("a lock"));
    in_runtime(async {
        let me = Holder::new();
        let outer = lock.acquire_as(&me).await.expect("free");
        let write = async |guard: &ReentrantGuard<FileGuard>, text: &str| {
            let mut file = guard.lend().expect("not lent");
            file.write_all(text.as_bytes()).await.expect("written");
        };
        write(&outer, "one,").await;
        let inner = lock.acquire_as(&me).await.expect("the same holder");
        write(&inner, "two,").await;
        inner.release().await.expect("there is another one");
        write(&outer, "three").await;
        let mut file = outer.lend().expect("not lent");
        file.rewind().await.expect("sought");
        let mut text = String::new();
        file.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "one,two,three");
        drop(file);
        outer.release().await.expect("the last one");
    });
}

/// Two loans would be two writers. A wait for itself would never end.
#[test]
fn p42_a_guard_is_lent_once_at_a_time() {
    let place = Place::new();
    let lock = Reentrant::new(FileLock::open(place.path()).expect("a lock"));
    let guard = assert_ready!(Polled::new(lock.acquire()).poll()).expect("free");
    let again = guard.reenter();
    let loan = guard.lend().expect("not lent");
    assert!(guard.lend().is_none() && again.lend().is_none());
    // Queries work meanwhile, and a loss is reported after the loan.
    assert!(again.is_held());
    let mut lost = Polled::pending(again.lost());
    std::fs::remove_file(place.path()).expect("removed");
    drop(loan);
    lost.bell.wait_beyond(0);
    assert!(!again.is_held());
    assert_eq!(lost.finish(), Loss::Deleted);
    let mut file = again.lend().expect("the loan is over");
    assert!(!file.is_held());
    drop(file.as_std());
}

/// A new guard of a lost lock would protect nothing.
#[test]
fn p40_a_holder_that_has_lost_the_lock_acquires_no_guard_of_it() {
    let place = Place::new();
    let lock = Reentrant::new(FileLock::open(place.path()).expect("a lock"));
    let me = Holder::new();
    let outer = Polled::new(lock.acquire_as(&me)).finish().expect("free");
    let early = lock.acquire_as(&me);
    std::fs::remove_file(place.path()).expect("removed");
    for wait in [early, lock.acquire_as(&me)] {
        assert_eq!(kind_of(Polled::new(wait).finish()), ErrorKind::Lost);
    }
    let tried = Polled::new(lock.try_acquire_as(&me)).finish();
    assert_eq!(kind_of(tried), ErrorKind::Lost);
    assert!(!outer.reenter().is_held(), "it shares the loss");
    // During a loan, a loss from before is known too.
    let loan = outer.lend().expect("not lent");
    let during = Polled::new(lock.acquire_as(&me)).finish();
    assert_eq!(kind_of(during), ErrorKind::Lost);
    drop(loan);
    // Another holder acquires the new file, and this one waits for it when its guards are gone.
    let other = Polled::new(lock.acquire_as(&Holder::new())).finish();
    drop(outer);
    let mut again = Polled::pending(lock.acquire_as(&me));
    drop(other.expect("a new file"));
    let again = again.finish().expect("its turn");
    assert!(again.is_held());
}

/// Queries of other threads are short, and no loan.
#[test]
fn p41_only_a_loan_keeps_a_guard_from_being_lent() {
    let place = Place::new();
    let lock = Reentrant::new(FileLock::open(place.path()).expect("a lock"));
    let me = Holder::new();
    let first = Polled::new(lock.acquire_as(&me)).finish().expect("free");
    let queries = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (other, queries) = (first.reenter(), &queries);
            scope.spawn(move || {
                while queries.fetch_add(1, Ordering::Relaxed) < 50_000 {
                    assert!(other.is_held());
                }
            });
        }
        while queries.load(Ordering::Relaxed) < 50_000 {
            assert!(first.lend().is_some());
        }
    });
    let again = Polled::new(lock.acquire_as(&me)).finish().expect("held");
    assert!(again.is_held());
}

/// A forked child is another process, also for a holder that it has copied.
#[cfg(unix)]
#[test]
#[allow(unsafe_code)] // fork has no other form
fn p34_a_holder_has_nothing_in_a_forked_child() {
    let place = Place::new();
    let lock = Reentrant::new(FileLock::open(place.path()).expect("a lock"));
    let me = Holder::new();
    let guard = Polled::new(lock.acquire_as(&me)).finish().expect("free");
    // SAFETY: the child continues with this one thread and ends by `_exit`. The C library makes
    // `malloc` usable in it.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        let tried = Polled::new(lock.try_acquire_as(&me)).finish();
        let waits = matches!(tried, Ok(None)) && !guard.is_held();
        // SAFETY: ends the process without running the parent's destructors.
        unsafe { libc::_exit(if waits { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!((waited, status), (pid, 0), "the parent holds the lock");
    assert!(guard.is_held());
    let again = Polled::new(lock.acquire_as(&me)).finish();
    assert!(again.is_ok(), "the parent is the holder");
}
