//! Locks in memory: order among requests of different kinds, frozen waiters, and what a name means.
//! The conformance suite tests what they share with other locks.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "conformance/support.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use stanchion::{Acquire, ErrorKind, Held, MemGuard, Memory};
use support::{Polled, Random, assert_pending, assert_ready, eventually, in_runtime, kind_of};

/// Longer than a running thread ever pauses on a busy machine.
const WINDOW: Duration = Duration::from_secs(1);

fn waits(wait: Acquire<MemGuard>) -> Polled<Acquire<MemGuard>> {
    Polled::pending(wait)
}

fn enters(wait: Acquire<MemGuard>) -> MemGuard {
    assert_ready!(Polled::new(wait).poll()).expect("free")
}

#[test]
fn p15_readers_and_writers_take_turns_by_arrival() {
    let lock = Memory::new().rwlock("a").expect("a lock");
    let (one, two) = (enters(lock.read()), enters(lock.read()));
    assert!(one.token() > 0 && one.token() == two.token());
    let mut writer = waits(lock.write());
    let mut late = [waits(lock.read()), waits(lock.read())];
    let mut last = waits(lock.write());
    assert!(
        lock.try_read().expect("no error").is_none(),
        "a writer waits"
    );
    drop(one);
    assert_pending!(writer.poll());
    drop(two);
    let written = assert_ready!(writer.poll()).expect("its turn");
    late.iter_mut().for_each(|it| assert_pending!(it.poll()));
    let token = written.token();
    drop(written);
    let inside = late
        .each_mut()
        .map(|it| assert_ready!(it.poll()).expect("together"));
    assert!(inside.iter().all(|it| it.token() == token));
    assert_pending!(last.poll());
    drop(inside);
    let last = assert_ready!(last.poll()).expect("its turn");
    assert!(last.token() > token);
}

#[test]
fn p15_readers_acquire_when_the_writer_before_them_leaves_the_queue() {
    let lock = Memory::new().rwlock("a").expect("a lock");
    let inside = enters(lock.read());
    let writer = waits(lock.write());
    let mut reader = waits(lock.read());
    drop(writer);
    assert_eq!(reader.rings(), 1);
    drop((
        assert_ready!(reader.poll()).expect("beside the first"),
        inside,
    ));
}

#[test]
fn p55_a_big_request_is_not_overtaken_by_small_ones() {
    let workers = Memory::new().semaphore("w", 3).expect("a semaphore");
    let (one, two) = (enters(workers.acquire()), enters(workers.acquire()));
    let mut big = waits(workers.acquire_many(3));
    let mut small = waits(workers.acquire());
    assert!(
        workers.try_acquire().expect("no error").is_none(),
        "one is free, and there is a waiter"
    );
    drop(one);
    assert_pending!(big.poll());
    assert_pending!(small.poll());
    drop(two);
    let all = assert_ready!(big.poll()).expect("all three");
    assert_pending!(small.poll());
    drop(all);
    drop(assert_ready!(small.poll()).expect("its turn"));
}

#[test]
fn p52_never_more_than_n_are_out() {
    const LIMIT: u32 = 5;
    let workers = Memory::new().semaphore("w", LIMIT).expect("a semaphore");
    let out = Arc::new(AtomicU32::new(0));
    in_runtime(async {
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..32 {
            let (workers, out) = (workers.clone(), out.clone());
            tasks.spawn(async move {
                let mut random = Random::new(seed);
                for _ in 0..100 {
                    let wanted = 1 + random.below(u64::from(LIMIT)) as u32;
                    let wait = workers.acquire_many(wanted);
                    let permit = tokio::select! {
                        biased;
                        permit = wait => permit.expect("a permit"),
                        () = tokio::task::yield_now(), if random.below(3) == 0 => continue,
                    };
                    let now = out.fetch_add(wanted, Ordering::SeqCst) + wanted;
                    assert!(now <= LIMIT, "{now} are out");
                    tokio::task::yield_now().await;
                    out.fetch_sub(wanted, Ordering::SeqCst);
                    drop(permit);
                }
            });
        }
        tasks.join_all().await;
    });
    drop(enters(workers.acquire_many(LIMIT)));
}

#[test]
fn what_cannot_be_had_is_refused() {
    let memory = Memory::new();
    let workers = memory.semaphore("w", 3).expect("a semaphore");
    for wrong in [0, 4] {
        let mut wait = Polled::new(workers.acquire_many(wrong));
        assert_eq!(kind_of(assert_ready!(wait.poll())), ErrorKind::InvalidInput);
        assert_eq!(
            kind_of(workers.try_acquire_many(wrong)),
            ErrorKind::InvalidInput
        );
    }
    assert_eq!(
        kind_of(memory.semaphore("none", 0)),
        ErrorKind::InvalidInput
    );
}

#[test]
fn p66_a_name_has_one_kind_as_long_as_it_is_in_use() {
    let memory = Memory::new();
    let workers = memory.semaphore("w", 3).expect("a semaphore");
    let error = memory.semaphore("w", 4).expect_err("another limit");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(text.contains("of 3") && text.contains("of 4"), "{text}");
    assert_eq!(kind_of(memory.lock("w")), ErrorKind::Incompatible);
    assert_eq!(kind_of(memory.rwlock("w")), ErrorKind::Incompatible);
    let guard = enters(workers.acquire());
    drop(workers);
    assert_eq!(
        kind_of(memory.lock("w")),
        ErrorKind::Incompatible,
        "a guard is out"
    );
    let token = guard.token();
    drop(guard);
    let lock = memory.lock("w").expect("its last user is gone");
    assert!(
        enters(lock.acquire()).token() > token,
        "tokens outlive the lock"
    );
}

fn memory() -> Memory {
    Memory::options().claim_window(WINDOW).build()
}

#[test]
fn p64_an_unclaimed_offer_goes_to_the_next() {
    let lock = memory().lock("a").expect("a lock");
    let guard = enters(lock.acquire());
    let mut frozen = waits(lock.acquire());
    let mut next = waits(lock.acquire());
    drop(guard);
    let passing = next.finish().expect("after the window");
    let status = lock.status().expect("a status");
    assert_eq!(status.waiters.len(), 1);
    assert!(status.waiters[0].bypassed);
    // When it is polled again, it is first, before waiters that arrived later.
    let mut late = waits(lock.acquire());
    assert_pending!(frozen.poll());
    assert!(
        lock.status()
            .expect("a status")
            .waiters
            .iter()
            .all(|it| !it.bypassed)
    );
    drop(passing);
    assert_pending!(late.poll());
    drop(assert_ready!(frozen.poll()).expect("first again"));
    drop(assert_ready!(late.poll()).expect("second"));
}

/// A thousand futures that are not polled cost a few windows, not a thousand.
#[test]
fn p64_a_queue_of_frozen_waiters_is_bypassed_at_once() {
    let lock = memory().lock("a").expect("a lock");
    let guard = enters(lock.acquire());
    let mut frozen_waiters: Vec<_> = (0..1000).map(|_| waits(lock.acquire())).collect();
    drop(guard);
    eventually("the lock is free", || {
        lock.try_acquire().expect("no error").is_some()
    });
    assert!(
        lock.status()
            .expect("a status")
            .waiters
            .iter()
            .all(|it| it.bypassed)
    );
    for frozen in &mut frozen_waiters {
        drop(assert_ready!(frozen.poll()).expect("free, and polled in order"));
    }
}

/// A waiter that is polled in time keeps its place in the queue.
#[test]
fn p64_a_polled_waiter_is_not_bypassed() {
    let lock = memory().lock("a").expect("a lock");
    let guard = enters(lock.acquire());
    let frozen = waits(lock.acquire());
    let line: Vec<_> = (0..8).map(|_| waits(lock.acquire())).collect();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for (number, mut waiter) in line.into_iter().enumerate() {
            let told = told.clone();
            scope.spawn(move || {
                let guard = waiter.finish().expect("its turn");
                told.send(number).expect("the test listens");
                drop(guard);
            });
        }
        drop(guard);
    });
    assert_eq!(
        heard.try_iter().collect::<Vec<_>>(),
        (0..8).collect::<Vec<_>>()
    );
    drop(frozen);
    assert_eq!(lock.status().expect("a status").waiters, []);
}

#[test]
fn p64_a_frozen_reader_and_its_permits_are_bypassed() {
    let workers = memory().semaphore("w", 4).expect("a semaphore");
    let all = enters(workers.acquire_many(4));
    let frozen = waits(workers.acquire_many(3));
    let mut next = waits(workers.acquire_many(2));
    drop(all);
    drop(next.finish().expect("after the window"));
    drop(frozen);
    drop(enters(workers.acquire_many(4)));
}

#[test]
fn p62_wakers_are_dropped_with_their_futures() {
    let lock = Memory::new().lock("a").expect("a lock");
    let guard = enters(lock.acquire());
    let waiter = waits(lock.acquire());
    let bell = waiter.bell.clone();
    drop(waiter);
    assert_eq!(Arc::strong_count(&bell), 1);
    drop(guard);
}

/// A waker may own another future of the same lock, and drop it when it is called or dropped.
#[test]
fn p63_foreign_code_is_not_run_under_the_mutex() {
    type Owned = Polled<Acquire<MemGuard>>;
    struct Owning(std::sync::Mutex<Option<Owned>>);
    impl std::task::Wake for Owning {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().expect("not poisoned").take());
        }
    }
    let lock = Memory::new().lock("a").expect("a lock");
    for is_woken in [false, true] {
        let guard = enters(lock.acquire());
        let mut first = waits(lock.acquire());
        let other = waits(lock.acquire());
        let bell = other.bell.clone();
        let owning = Owning(std::sync::Mutex::new(Some(other)));
        assert_pending!(first.poll_with(&Arc::new(owning).into()));
        match is_woken {
            true => drop((guard, first)),
            false => drop((first, guard)),
        }
        assert_eq!(lock.status().expect("a status").waiters, []);
        assert_eq!(Arc::strong_count(&bell), 1, "the other one is gone");
    }
}

#[test]
fn the_wait_is_reported() {
    let lock = Memory::new().lock("a").expect("a lock");
    let places = in_runtime(async {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let guard = lock.acquire().await.expect("free");
        let before = waits(lock.acquire());
        let hears = told.clone();
        let wait = lock.acquire().on_wait(move |it| {
            let words = (it.position, it.held_by_this_task(), it.to_string());
            hears.lock().expect("not poisoned").push(words);
        });
        let busy = lock.acquire().max_waiting(1).await;
        assert_eq!(kind_of(busy), ErrorKind::Busy);
        let wait = Polled::pending(wait);
        let timed_out = lock.acquire().timeout(Duration::ZERO).await;
        let error = timed_out.expect_err("held");
        assert!(error.to_string().contains("mem:#"), "{error}");
        drop((guard, before, wait));
        std::mem::take(&mut *told.lock().expect("not poisoned"))
    });
    assert_eq!(places[0].0, Some(2));
    assert!(places[0].2.contains("held by pid"), "{}", places[0].2);
}

#[test]
fn a_task_that_waits_for_itself_gets_a_report() {
    let lock = Memory::new().lock("a").expect("a lock");
    let told = in_runtime(async {
        let task = tokio::spawn(async move {
            let guard = lock.acquire().await.expect("free");
            let (told, heard) = std::sync::mpsc::channel();
            let again = lock.acquire().on_wait(move |it| {
                let _ = told.send(it.held_by_this_task());
            });
            drop((Polled::pending(again), guard));
            heard.recv()
        });
        task.await.expect("a task")
    });
    assert_eq!(told, Ok(true));
}

#[test]
fn a_name_is_shared_and_a_world_without_one_is_not() {
    let (one, other) = (Memory::named("shared"), Memory::named("shared"));
    let guard = enters(one.lock("a").expect("a lock").acquire());
    let lock = other.lock("a").expect("the same lock");
    assert!(lock.try_acquire().expect("no error").is_none());
    for beside in [Memory::new(), Memory::named("another")] {
        let lock = beside.lock("a").expect("another lock");
        assert!(lock.try_acquire().expect("no error").is_some());
    }
    assert!(guard.is_held());
    assert_pending!(Polled::new(guard.lost()).poll());
}

#[test]
fn changes_follow_each_step() {
    let memory = Memory::new();
    let lock = memory.lock("a").expect("a lock");
    let mut changes = lock.changes();
    let mut seen = |what: &str| {
        let next = assert_ready!(Polled::new(changes.next()).poll());
        let status = next.expect("it never ends").expect("a status");
        let more = Polled::new(changes.next()).poll();
        assert!(more.is_pending(), "{what}");
        (status.held, status.waiters.len())
    };
    assert_eq!(seen("at first"), (Held::No, 0));
    let guard = Polled::new(lock.acquire()).finish().expect("free");
    assert_eq!(seen("acquired"), (Held::Yes, 0));
    let waiter = Polled::pending(lock.acquire());
    assert_eq!(seen("waits"), (Held::Yes, 1));
    drop(waiter);
    assert_eq!(seen("left"), (Held::Yes, 0));
    drop(guard);
    assert_eq!(seen("released"), (Held::No, 0));
}

#[test]
fn a_change_wakes_the_observer() {
    let memory = Memory::new();
    let lock = memory.lock("a").expect("a lock");
    let mut changes = lock.changes();
    drop(assert_ready!(Polled::new(changes.next()).poll()));
    let mut next = Polled::pending(changes.next());
    let guard = Polled::new(lock.acquire()).finish().expect("free");
    assert_eq!(next.rings(), 1);
    assert!(assert_ready!(next.poll()).is_some());
    drop(guard);
}

#[test]
fn a_semaphore_is_resized() {
    let memory = Memory::new();
    let semaphore = memory.semaphore("a", 2).expect("a semaphore");
    let resized = |permits| Polled::new(semaphore.resize(permits)).finish();
    let all = semaphore
        .try_acquire_many(2)
        .expect("no error")
        .expect("free");
    resized(3).expect("more at once");
    let one = semaphore
        .try_acquire()
        .expect("no error")
        .expect("the new one");
    assert!(semaphore.try_acquire().expect("no error").is_none());
    let mut fewer = Polled::pending(semaphore.resize(1));
    drop(all);
    assert_pending!(fewer.poll().map(drop));
    drop(one);
    fewer.finish().expect("all are back");
    assert_eq!(semaphore.limit(), 1);
    let wrong = semaphore.acquire_many(2);
    assert_eq!(
        kind_of(Polled::new(wrong).finish()),
        ErrorKind::InvalidInput
    );
    drop(
        semaphore
            .try_acquire()
            .expect("no error")
            .expect("one is left"),
    );
    assert_eq!(kind_of(memory.semaphore("a", 2)), ErrorKind::Incompatible);
    assert_eq!(kind_of(resized(0)), ErrorKind::InvalidInput);
    semaphore.close();
    assert_eq!(kind_of(resized(2)), ErrorKind::Closed);
}

/// As on files: the time limit of the options applies to an acquire only.
#[test]
fn a_reduction_waits_longer_than_the_limit_of_the_options() {
    let memory = Memory::options().timeout(Duration::from_millis(1)).build();
    let semaphore = memory.semaphore("a", 2).expect("a semaphore");
    let permit = semaphore.try_acquire().expect("no error").expect("free");
    in_runtime(async {
        let mut reduced = Polled::new(semaphore.resize(1));
        assert_pending!(reduced.poll());
        let late = semaphore.acquire_many(2).await;
        assert_eq!(kind_of(late), ErrorKind::TimedOut);
        assert_pending!(reduced.poll());
        drop(permit);
        reduced.finish().expect("reduced");
    });
    assert_eq!(semaphore.limit(), 1);
}

/// These permits can never be granted, and the waiters behind would wait for them.
#[test]
fn p55_a_reduction_refuses_waiters_that_want_more_than_is_left() {
    let semaphore = Memory::new().semaphore("a", 5).expect("a semaphore");
    let all = enters(semaphore.acquire_many(5));
    let mut fewer = Polled::pending(semaphore.resize(2));
    let mut big = waits(semaphore.acquire_many(3));
    let dropped = waits(semaphore.acquire_many(4));
    let mut other = Polled::pending(semaphore.resize(1));
    let mut small = waits(semaphore.acquire_many(1));
    drop(all);
    assert!(fewer.poll().is_ready());
    assert_eq!(big.rings(), 1);
    assert_eq!(dropped.rings(), 1);
    let waiters = semaphore.status().expect("a status").waiters;
    assert_eq!(waiters.len(), 1, "the small one");
    let error = assert_ready!(big.poll()).expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("3 permits"), "{error}");
    drop(dropped);
    // It asked for five permits as well. Now it asks for two, behind the small one.
    assert!(other.poll().is_pending());
    drop(assert_ready!(small.poll()).expect("its turn"));
    other.finish().expect("reduced");
    assert_eq!(semaphore.limit(), 1);
}

#[test]
fn p64_a_reduction_refuses_a_frozen_waiter_too() {
    let semaphore = memory().semaphore("a", 5).expect("a semaphore");
    let all = enters(semaphore.acquire_many(5));
    let mut frozen = waits(semaphore.acquire_many(3));
    let mut next = waits(semaphore.acquire());
    drop(all);
    let one = next.finish().expect("after the window");
    let mut fewer = Polled::pending(semaphore.resize(2));
    drop(one);
    fewer.finish().expect("all are back");
    assert_eq!(kind_of(frozen.finish()), ErrorKind::InvalidInput);
    drop(enters(semaphore.acquire_many(2)));
}

/// The limit is looked at and the queue is entered in one step.
#[test]
fn p55_requests_meet_reductions() {
    const ROUNDS: usize = 20_000;
    let semaphore = Memory::new().semaphore("a", 5).expect("a semaphore");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    match Polled::new(semaphore.acquire_many(5)).finish() {
                        Ok(all) => drop(all),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput),
                    }
                }
            });
        }
        let resize = |permits| Polled::new(semaphore.resize(permits)).finish();
        for _ in 0..ROUNDS {
            resize(2).expect("reduced");
            // A waiter for five permits would be before this one.
            drop(Polled::new(semaphore.acquire()).finish().expect("its turn"));
            resize(5).expect("raised");
        }
    });
    drop(enters(semaphore.acquire_many(5)));
}

#[test]
fn p62_a_stream_of_changes_keeps_one_waker() {
    let lock = Memory::new().lock("a").expect("a lock");
    let mut changes = lock.changes();
    drop(assert_ready!(Polled::new(changes.next()).poll()));
    let mut next = Polled::pending(changes.next());
    for _ in 0..100 {
        assert!(next.poll().is_pending());
    }
    let bell = next.bell.clone();
    // Of `bell` and `next`, and in the queue.
    assert_eq!(Arc::strong_count(&bell), 3);
    drop(next);
    drop(changes);
    assert_eq!(Arc::strong_count(&bell), 1);
}

#[test]
fn changes_begin_with_the_status() {
    let semaphore = Memory::new().semaphore("a", 3).expect("a semaphore");
    let mut changes = semaphore.changes();
    let first = assert_ready!(Polled::new(changes.next()).poll());
    let first = first.expect("it never ends").expect("a status");
    assert_eq!(first, semaphore.status().expect("a status"));
}
