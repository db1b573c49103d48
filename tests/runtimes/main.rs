//! Runtimes that start and end, threads without one, and the life of a handle: close, remove, loss,
//! status.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::sync::Arc;
use std::time::Duration;

use stanchion::{Error, ErrorKind, FifoGuard, FifoLock, Loss, Removal};
use tokio::runtime::{Builder, Runtime};

mod handles;
mod loss;
#[path = "../conformance/support.rs"]
mod support;

use support::{Place, Polled, Random, SAFETY, assert_pending, assert_ready, eventually, kind_of};

/// No safety net: a lost wake-up stays lost.
fn open(place: &Place) -> FifoLock {
    place.open_with(FifoLock::options().poll_interval(Duration::MAX))
}

fn held(lock: &FifoLock) -> FifoGuard {
    let guard = lock.try_acquire().expect("no error");
    guard.expect("the lock is free")
}

fn queued(lock: &FifoLock) -> Polled<stanchion::Acquire<FifoGuard>> {
    Polled::pending(lock.acquire())
}

fn current_thread() -> Runtime {
    let built = Builder::new_current_thread().enable_time().build();
    built.expect("a runtime")
}

fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let built = builder.worker_threads(2).enable_time().build();
    built.expect("a runtime")
}

/// With I/O, a task of the runtime reads the events.
fn current_thread_with_io() -> Runtime {
    let built = Builder::new_current_thread().enable_all().build();
    built.expect("a runtime")
}

fn multi_thread_with_io() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let built = builder.worker_threads(2).enable_all().build();
    built.expect("a runtime")
}

const KINDS: [fn() -> Runtime; 4] = [
    current_thread,
    multi_thread_with_io,
    current_thread_with_io,
    multi_thread,
];

/// Runs the same test on each kind of runtime.
fn on_each_kind(test: impl Fn(fn() -> Runtime)) {
    KINDS.into_iter().for_each(test);
}

/// Spawns a task that acquires and holds. Returns when it has acquired.
fn holds_forever(runtime: &Runtime, lock: &FifoLock) {
    let lock = lock.clone();
    let (inside, is_inside) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let _guard = lock.acquire().await.expect("the lock");
        inside.send(()).expect("the test listens");
        std::future::pending::<()>().await;
    });
    runtime.block_on(is_inside).expect("inside");
}

/// Spawns a task that waits. Returns when it is queued.
fn waits_forever(runtime: &Runtime, lock: &FifoLock) {
    let before = waiters(lock);
    let mine = lock.clone();
    runtime.spawn(async move { mine.acquire().await });
    runtime.block_on(async {
        while waiters(lock) == before {
            tokio::task::yield_now().await;
        }
    });
}

fn waiters(lock: &FifoLock) -> usize {
    lock.status().expect("a status").waiters.len()
}

#[test]
fn p26_a_runtime_that_ends_while_holding_frees_the_lock() {
    on_each_kind(|new| {
        let place = Place::new();
        let lock = open(&place);
        let runtime = new();
        holds_forever(&runtime, &lock);
        let mut next = queued(&lock);
        drop(runtime);
        drop(next.finish().expect("freed"));
        place.assert_idle();
    });
}

#[test]
fn p26_a_runtime_that_ends_while_waiting_leaves_the_queue() {
    on_each_kind(|new| {
        let place = Place::new();
        let lock = open(&place);
        let guard = held(&lock);
        let runtime = new();
        waits_forever(&runtime, &lock);
        waits_forever(&runtime, &lock);
        let mut next = queued(&lock);
        drop(runtime);
        assert_eq!(waiters(&lock), 1);
        drop(guard);
        drop(assert_ready!(next.poll()).expect("moved up"));
        place.assert_idle();
    });
}

#[test]
fn p26_a_runtime_that_ends_with_an_offer_unclaimed_passes_it_on() {
    let place = Place::new();
    let lock = open(&place);
    let guard = held(&lock);
    let runtime = current_thread();
    waits_forever(&runtime, &lock);
    let mut next = queued(&lock);
    // The task is woken, but its runtime does not run.
    drop(guard);
    assert_pending!(next.poll());
    drop(runtime);
    drop(assert_ready!(next.poll()).expect("passed on"));
    place.assert_idle();
}

#[test]
fn p26_a_runtime_that_shuts_down_in_the_background_does_so_too() {
    let place = Place::new();
    let lock = open(&place);
    let runtime = multi_thread();
    holds_forever(&runtime, &lock);
    waits_forever(&runtime, &lock);
    let mut next = queued(&lock);
    runtime.shutdown_background();
    drop(next.finish().expect("freed"));
    place.assert_idle();
}

#[test]
fn p26_a_guard_works_outside_any_runtime() {
    on_each_kind(|new| {
        let place = Place::new();
        let lock = open(&place);
        let runtime = new();
        let guard = runtime
            .block_on(lock.acquire().into_future())
            .expect("free");
        drop(runtime);
        assert!(guard.is_held());
        let mut next = queued(&lock);
        drop(guard);
        drop(assert_ready!(next.poll()).expect("its turn"));
        place.assert_idle();
    });
}

#[test]
fn a_lock_outlives_the_runtime_that_used_it_first() {
    let place = Place::new();
    let lock = open(&place);
    for new in KINDS.into_iter().chain(KINDS) {
        let outsider = place.outsider_holds();
        let runtime = new();
        waits_forever(&runtime, &lock);
        drop(runtime);
        let next = lock.clone();
        let task = std::thread::spawn(move || new().block_on(next.acquire().into_future()));
        eventually("another runtime waits", || waiters(&lock) == 1);
        outsider.release();
        drop(task.join().expect("a thread").expect("served"));
        place.assert_idle();
    }
}

#[test]
fn p41_several_runtimes_share_a_queue() {
    let place = Place::new();
    let lock = open(&place);
    let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for new in KINDS {
            let (lock, inside) = (lock.clone(), inside.clone());
            scope.spawn(move || {
                let runtime = new();
                runtime.block_on(async {
                    let mut tasks = tokio::task::JoinSet::new();
                    for _ in 0..4 {
                        tasks.spawn(visits(lock.clone(), inside.clone()));
                    }
                    let all = tasks.join_all();
                    tokio::time::timeout(SAFETY, all).await.expect("hangs");
                });
            });
        }
    });
    place.assert_idle();
}

#[test]
fn p41_tasks_of_a_local_set_wait() {
    on_each_kind(|new| {
        let place = Place::new();
        let lock = open(&place);
        let outsider = place.outsider_holds();
        let (runtime, tasks) = (new(), tokio::task::LocalSet::new());
        let mine = lock.clone();
        let task = tasks.spawn_local(async move { mine.acquire().await });
        let thread = std::thread::spawn(move || {
            eventually("the task waits", || waiters(&lock) == 1);
            outsider.release();
        });
        drop(
            tasks
                .block_on(&runtime, task)
                .expect("a task")
                .expect("free"),
        );
        thread.join().expect("no panic");
        place.assert_idle();
    });
}

async fn visits(lock: FifoLock, inside: Arc<std::sync::atomic::AtomicUsize>) {
    use std::sync::atomic::Ordering::SeqCst;
    for _ in 0..100 {
        let guard = lock.acquire().await.expect("the lock");
        assert_eq!(inside.fetch_add(1, SeqCst), 0, "two holders at once");
        tokio::task::yield_now().await;
        inside.fetch_sub(1, SeqCst);
        drop(guard);
    }
}

#[test]
fn p41_a_guard_moves_between_runtimes() {
    let place = Place::new();
    let lock = open(&place);
    let (one, other) = (multi_thread(), current_thread());
    let mine = lock.clone();
    let task = one.spawn(async move { mine.acquire().await });
    let guard = one.block_on(task).expect("a task").expect("free");
    drop(one);
    let mut next = queued(&lock);
    other.block_on(guard.release()).expect("released");
    drop(assert_ready!(next.poll()).expect("its turn"));
    place.assert_idle();
}

mod blocking {
    use super::*;

    #[test]
    fn a_thread_waits_in_the_same_queue_as_tasks() {
        let place = Place::new();
        let lock = open(&place);
        let guard = held(&lock);
        let mut first = queued(&lock);
        let mine = lock.clone();
        let thread = std::thread::spawn(move || mine.acquire().block());
        eventually("the thread waits", || waiters(&lock) == 2);
        let mut last = queued(&lock);
        drop(guard);
        drop(assert_ready!(first.poll()).expect("first"));
        let guard = thread.join().expect("a thread").expect("second");
        assert_pending!(last.poll());
        drop(guard);
        drop(assert_ready!(last.poll()).expect("last"));
        place.assert_idle();
    }

    #[test]
    fn p16_p17_it_has_limits() {
        let place = Place::new();
        let lock = open(&place);
        let guard = lock
            .acquire()
            .timeout(Some(Duration::ZERO))
            .block()
            .expect("free");
        for limit in [Duration::ZERO, Duration::from_millis(20)] {
            let begun = std::time::Instant::now();
            let refused = lock.acquire().timeout(Some(limit)).block();
            assert_eq!(kind_of(refused), ErrorKind::TimedOut);
            assert!(begun.elapsed() >= limit);
            assert_eq!(waiters(&lock), 0);
        }
        drop(guard);
        drop(
            lock.acquire()
                .timeout(Some(Duration::MAX))
                .block()
                .expect("free"),
        );
        place.assert_idle();
    }

    #[test]
    fn it_works_on_blocking_threads_of_a_runtime() {
        let place = Place::new();
        let lock = open(&place);
        let runtime = multi_thread();
        let guard = held(&lock);
        let mine = lock.clone();
        let task = runtime.spawn_blocking(move || mine.acquire().block());
        eventually("it waits", || waiters(&lock) == 1);
        drop(guard);
        drop(runtime.block_on(task).expect("a task").expect("served"));
        let in_place = lock.clone();
        let task = runtime
            .spawn(async move { tokio::task::block_in_place(|| in_place.acquire().block()) });
        drop(runtime.block_on(task).expect("a task").expect("free"));
        place.assert_idle();
    }

    #[test]
    fn it_is_refused_inside_a_task() {
        on_each_kind(|new| {
            let place = Place::new();
            let lock = open(&place);
            let (runtime, mine) = (new(), lock.clone());
            let outside = lock.clone();
            let direct = runtime.block_on(async { outside.acquire().block() });
            assert_eq!(kind_of(direct), ErrorKind::Unsupported);
            let task = runtime.spawn(async move { mine.acquire().block() });
            let spawned = runtime.block_on(task).expect("a task");
            assert_eq!(kind_of(spawned), ErrorKind::Unsupported);
            place.assert_idle();
        });
    }

    #[test]
    fn close_ends_it() {
        let place = Place::new();
        let lock = open(&place);
        let _guard = held(&lock);
        let mine = lock.clone();
        let thread = std::thread::spawn(move || mine.acquire().block());
        eventually("the thread waits", || waiters(&lock) == 1);
        lock.close();
        assert_eq!(kind_of(thread.join().expect("a thread")), ErrorKind::Closed);
    }
}
