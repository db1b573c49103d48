//! Many tasks that acquire many locks at once, in all orders: every wait ends, and none is much
//! longer than the rest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::runtime::Builder;

use super::*;
use support::Random;

#[test]
fn two_tasks_with_opposite_orders_never_deadlock() {
    let row = Arc::new(Row::of(2));
    in_runtime(async {
        let mut tasks = tokio::task::JoinSet::new();
        for wanted in [[0, 1], [1, 0]] {
            let row = row.clone();
            tasks.spawn(async move {
                for _ in 0..5_000 {
                    let guards = row.want(&wanted).await.expect("both");
                    tokio::task::yield_now().await;
                    drop(guards);
                }
            });
        }
        tasks.join_all().await;
    });
    row.assert_idle();
}

const LOCKS: u64 = 50;
const TASKS: u64 = 64;
const ROUNDS: u64 = 20_000;

/// What all tasks share.
struct Storm {
    rounds: u64,
    row: Row,
    inside: Vec<AtomicBool>,
    begun: AtomicU64,
    /// Also used as a clock, because it stops when the machine does.
    grants: AtomicU64,
}

/// The length of a task's waits, in time and in grants to others.
#[derive(Default)]
struct Waits {
    times: Vec<Duration>,
    grants: Vec<u64>,
}

impl Storm {
    fn new(rounds: u64) -> Arc<Self> {
        Arc::new(Self {
            rounds,
            row: Row::of(LOCKS as usize),
            inside: (0..LOCKS).map(|_| AtomicBool::new(false)).collect(),
            begun: AtomicU64::new(0),
            grants: AtomicU64::new(0),
        })
    }

    async fn task(self: Arc<Self>, mut random: Random, most: u64) -> Waits {
        let mut waits = Waits::default();
        while self.begun.fetch_add(1, Ordering::Relaxed) < self.rounds {
            let wanted = subset(&mut random, most);
            let (begun, before) = (Instant::now(), self.grants.load(Ordering::Relaxed));
            let guards = self.row.want(&wanted).await.expect("all of them");
            waits.times.push(begun.elapsed());
            let passed = self.grants.fetch_add(1, Ordering::Relaxed) - before;
            waits.grants.push(passed);
            for which in &wanted {
                let before = self.inside[*which].swap(true, Ordering::SeqCst);
                assert!(!before, "two holders at once");
            }
            for _ in 0..random.below(3) {
                tokio::task::yield_now().await;
            }
            for which in &wanted {
                self.inside[*which].store(false, Ordering::SeqCst);
            }
            drop(guards);
        }
        waits
    }
}

/// Returns up to `most` different locks, in any order.
fn subset(random: &mut Random, most: u64) -> Vec<usize> {
    let mut all: Vec<_> = (0..LOCKS as usize).collect();
    let size = 1 + random.below(most);
    let mut draw = |_| all.swap_remove(random.below(all.len() as u64) as usize);
    (0..size).map(&mut draw).collect()
}

/// Runs the storm. Returns the longest wait divided by the mean one, in time and in grants to
/// others.
fn storm(mut runtime: Builder, most: u64, rounds: u64) -> (f64, f64) {
    let storm = Storm::new(rounds);
    let runtime = runtime.worker_threads(4).enable_time().build();
    let begun = Instant::now();
    let waits = runtime.expect("a runtime").block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..TASKS {
            tasks.spawn(storm.clone().task(Random::new(seed + 1), most));
        }
        let all = tasks.join_all();
        tokio::time::timeout(10 * SAFETY, all).await.expect("hangs")
    });
    let took = begun.elapsed();
    let times: Vec<_> = waits.iter().flat_map(|it| &it.times).collect();
    let grants: Vec<_> = waits.iter().flat_map(|it| &it.grants).collect();
    assert_eq!(times.len() as u64, rounds);
    storm.row.assert_idle();
    let by_time = ratio(times.iter().map(|it| it.as_secs_f64()));
    let by_grants = ratio(grants.into_iter().map(|it| *it as f64));
    println!(
        "{rounds} times up to {most} locks in {took:.1?}, longest/mean wait {by_time:.1} in time, {by_grants:.1} in grants"
    );
    (by_time, by_grants)
}

fn ratio(waits: impl Iterator<Item = f64> + Clone) -> f64 {
    let mean = waits.clone().sum::<f64>() / waits.clone().count() as f64;
    waits.fold(0.0, f64::max) / mean
}

#[test]
fn p63_random_subsets_never_deadlock() {
    for (most, rounds) in [(4, ROUNDS), (10, ROUNDS), (LOCKS, ROUNDS / 10)] {
        storm(Builder::new_multi_thread(), most, rounds);
    }
}

/// In one thread: if the machine is busy, all tasks are delayed alike.
#[test]
fn no_task_waits_much_longer_than_the_rest() {
    for most in [4, 10] {
        let (_, by_grants) = storm(Builder::new_current_thread(), most, ROUNDS);
        assert!(by_grants < 50.0, "{by_grants}");
    }
}

#[test]
#[ignore = "takes up to a minute"]
fn p63_random_subsets_of_all_never_deadlock() {
    storm(Builder::new_multi_thread(), LOCKS, ROUNDS);
}
