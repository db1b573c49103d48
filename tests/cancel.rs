//! Thousands of random cancellations: in the end no ticket, no descriptor and no lock is left.
//!
//! This file has only one test, because it counts the descriptors of the whole process.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::FusedFuture;
use stanchion::{Acquire, FifoGuard, FifoLock};

#[path = "conformance/support.rs"]
mod support;

use support::{Place, Polled, Random, SAFETY, assert_pending, eventually, open_files};

const TASKS: u64 = 8;
const ROUNDS: u64 = 2_500;

/// Shared by all tasks. At most one of them may hold the lock.
#[derive(Default)]
struct Shared {
    inside: AtomicUsize,
    served: AtomicUsize,
    dropped: AtomicUsize,
}

impl Shared {
    async fn visit(&self, guard: FifoGuard, yields: u64) {
        assert_eq!(
            self.inside.fetch_add(1, Ordering::SeqCst),
            0,
            "two holders at once"
        );
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        assert_eq!(self.inside.fetch_sub(1, Ordering::SeqCst), 1);
        drop(guard);
    }
}

#[test]
fn p23_p62_twenty_thousand_cancelled_at_random() {
    let place = Place::new();
    let lock = place.open_with(FifoLock::options().poll_interval(Duration::MAX));
    warm_up(&place, &lock);
    let before = open_files().len();
    let shared = Arc::new(Shared::default());
    for multi_thread in [true, false] {
        let lock = lock.clone();
        storm(multi_thread, &lock, &shared, &place);
        drop(lock);
        place.assert_idle();
    }
    let served = shared.served.load(Ordering::Relaxed);
    let dropped = shared.dropped.load(Ordering::Relaxed);
    assert_eq!(served + dropped, 2 * (TASKS * ROUNDS) as usize);
    assert!(served > 1000 && dropped > 1000, "{served} and {dropped}");
    assert_eq!(open_files().len(), before, "{:?}", open_files());
    drop(lock);
    eventually("everything is released", || place.descriptors() == 0);
}

/// Opens the files that are kept from the first contention on.
fn warm_up(place: &Place, lock: &FifoLock) {
    let guard = lock.try_acquire().expect("no error").expect("free");
    let waiters = [(); 2].map(|()| Polled::new(lock.acquire()));
    for mut waiter in waiters {
        assert_pending!(waiter.poll());
    }
    drop(guard);
    let outsider = place.outsider_holds();
    assert_pending!(Polled::new(lock.acquire()).poll());
    outsider.release();
    place.assert_idle();
}

fn storm(multi_thread: bool, lock: &FifoLock, shared: &Arc<Shared>, place: &Place) {
    let mut builder = if multi_thread {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.worker_threads(4).enable_time().build();
    let runtime = runtime.expect("a runtime");
    let door = place.path();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..TASKS {
            let task = cancels(lock.clone(), shared.clone(), Random::new(seed + 1));
            tasks.spawn(task);
        }
        tasks.spawn(comes_and_goes(door));
        let all = tasks.join_all();
        tokio::time::timeout(4 * SAFETY, all).await.expect("hangs");
    });
}

async fn cancels(lock: FifoLock, shared: Arc<Shared>, mut random: Random) {
    for _ in 0..ROUNDS {
        let (patience, yields) = (random.below(6), random.below(3));
        let grant = match random.below(4) {
            0 => within_polls(&lock, patience).await,
            1 => in_a_loop(&lock, patience).await,
            2 => within_time(&lock, Duration::from_micros(random.below(300))).await,
            _ => Some(lock.acquire().await.expect("the lock")),
        };
        match grant {
            Some(guard) => shared.visit(guard, yields).await,
            None => _ = shared.dropped.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// The future is dropped unless it is ready after so many turns of the others.
async fn within_polls(lock: &FifoLock, patience: u64) -> Option<FifoGuard> {
    tokio::select! {
        biased;
        () = yields(patience) => None,
        guard = lock.acquire() => Some(guard.expect("the lock")),
    }
}

async fn yields(turns: u64) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// A `select!` in a loop over one pinned future, which keeps its place in the queue. Half of the
/// waiters give up in the end.
async fn in_a_loop(lock: &FifoLock, patience: u64) -> Option<FifoGuard> {
    let mut waiting = Box::pin(lock.acquire());
    for _ in 0..patience {
        tokio::select! {
            guard = &mut waiting, if !waiting.is_terminated() => {
                return Some(guard.expect("the lock"));
            }
            () = tokio::task::yield_now() => {}
        }
    }
    if patience.is_multiple_of(2) {
        return None;
    }
    Some(finishes(waiting).await)
}

async fn finishes(waiting: std::pin::Pin<Box<Acquire<FifoGuard>>>) -> FifoGuard {
    waiting.await.expect("the lock")
}

async fn within_time(lock: &FifoLock, limit: Duration) -> Option<FifoGuard> {
    lock.acquire().timeout(limit).await.ok()
}

/// A holder outside the process, so the process loses the lock file now and then.
async fn comes_and_goes(door: std::path::PathBuf) {
    for _ in 0..200 {
        let file = std::fs::File::open(&door).expect("the lock file");
        if fs2::FileExt::try_lock_exclusive(&file).is_ok() {
            yields(20).await;
            fs2::FileExt::unlock(&file).expect("unlocked");
        }
        drop(file);
        yields(50).await;
    }
}
