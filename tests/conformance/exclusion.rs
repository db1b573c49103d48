//! Exclusion: never two holders.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stanchion::{Guard, Lock};

use crate::subject::{Subject, assert_idle, held, next_turn, queued, tried, turn};
use crate::support::{Polled, Random, assert_pending, in_runtime};

/// Reads, yields to others, and writes: any overlap loses an update.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Counter {
    async fn add(&self) {
        let seen = self.0.load(Ordering::Relaxed);
        tokio::task::yield_now().await;
        self.0.store(seen + 1, Ordering::Relaxed);
    }

    fn add_slowly(&self) {
        let seen = self.0.load(Ordering::Relaxed);
        std::thread::yield_now();
        self.0.store(seen + 1, Ordering::Relaxed);
    }

    fn sum(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn p01_no_update_is_lost<S: Subject>() {
    const ROUNDS: usize = 50;
    // A server takes longer for each round. Without a queue each release wakes all who wait.
    let tasks_at_once = if S::FAIR && !S::REMOTE { 64 } else { 12 };
    let subject = S::new();
    let counter = Arc::new(Counter::default());
    in_runtime(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..tasks_at_once {
            let (lock, counter) = (subject.open(), counter.clone());
            tasks.spawn(async move {
                for _ in 0..ROUNDS {
                    let guard = lock.acquire().await.expect("the lock");
                    counter.add().await;
                    guard.release().await.expect("released");
                }
            });
        }
        tasks.join_all().await;
    });
    assert_eq!(counter.sum(), tasks_at_once * ROUNDS);
    assert_idle(&subject);
}

pub(crate) fn p01_no_update_is_lost_among_threads_that_block<S: Subject>() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 50;
    let subject = S::new();
    let counter = Counter::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (lock, counter) = (subject.open(), &counter);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let guard = Polled::new(lock.acquire()).finish().expect("the lock");
                    counter.add_slowly();
                    drop(guard);
                }
            });
        }
    });
    assert_eq!(counter.sum(), THREADS * ROUNDS);
    assert_idle(&subject);
}

pub(crate) fn p02_two_handles_exclude_each_other<S: Subject>() {
    let subject = S::new();
    let (first, second) = (subject.open(), subject.open());
    let guard = held::<S>(&first);
    assert!(tried::<S>(&first).is_none(), "the same handle");
    assert!(tried::<S>(&second).is_none(), "another handle");
    let mut waiter = queued::<S>(&second);
    drop(guard);
    let guard = turn::<S>(&mut waiter);
    assert!(tried::<S>(&first).is_none(), "the other way round");
    drop(guard);
    assert_idle(&subject);
}

pub(crate) fn p02_tasks_threads_and_runtimes_exclude_each_other<S: Subject>() {
    let subject = S::new();
    let lock = Arc::new(subject.open());
    let guard = held::<S>(&lock);
    let refused = |lock: &S::Lock| tried::<S>(lock).is_none();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| refused(&lock));
        assert!(thread.join().expect("a thread"), "another thread");
    });
    let mine = lock.clone();
    let task = in_runtime(async { tokio::spawn(async move { mine.try_acquire().await }).await });
    let tried = task.expect("a task").expect("no error");
    assert!(tried.is_none(), "a task of another runtime");
    drop(guard);
    assert_idle(&subject);
}

pub(crate) fn p07_different_locks_never_contend<S: Subject>() {
    let subject = S::new();
    let (one, other) = (subject.open(), subject.open_another());
    let guard = held::<S>(&one);
    let waiter = queued::<S>(&one);
    let beside = held::<S>(&other);
    assert!(guard.is_held() && beside.is_held());
    drop(guard);
    assert!(
        tried::<S>(&other).is_none(),
        "a release of one frees no other"
    );
    drop((waiter, beside));
    assert_idle(&subject);
}

pub(crate) fn p07_all_spellings_of_a_name_are_one_lock<S: Subject>() {
    let subject = S::new();
    let guard = held::<S>(&subject.open());
    let others = subject.open_by_other_names();
    let mut waiters: Vec<_> = others.iter().map(|it| queued::<S>(it)).collect();
    drop(guard);
    while !waiters.is_empty() {
        let guard = next_turn::<S>(&mut waiters);
        for later in &mut waiters {
            assert_pending!(later.poll().map(drop));
        }
        drop(guard);
    }
    assert_idle(&subject);
}

/// Acquires in every way, at random, with cancelled attempts in between: there is at most one
/// holder.
pub(crate) fn p40_no_guard_without_the_lock<S: Subject>() {
    const TASKS: u64 = 32;
    let subject = S::new();
    let inside = Arc::new(AtomicUsize::new(0));
    in_runtime(async {
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..TASKS {
            let (lock, inside) = (subject.open(), inside.clone());
            tasks.spawn(async move {
                let mut random = Random::new(seed);
                for _ in 0..100 {
                    if let Some(guard) = acquires_somehow(&lock, random.below(4)).await {
                        assert_eq!(
                            inside.fetch_add(1, Ordering::SeqCst),
                            0,
                            "two holders at once"
                        );
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                    }
                }
            });
        }
        tasks.join_all().await;
    });
    assert_idle(&subject);
}

async fn acquires_somehow<L: Lock>(lock: &L, way: u64) -> Option<L::Guard> {
    match way {
        0 => lock.try_acquire().await.expect("no error"),
        1 => lock.acquire().timeout(std::time::Duration::ZERO).await.ok(),
        2 => tokio::select! {
            biased;
            guard = lock.acquire() => Some(guard.expect("the lock")),
            () = tokio::task::yield_now() => None,
        },
        _ => Some(lock.acquire().await.expect("the lock")),
    }
}
