//! What metrics cost a grant: a lock in memory is acquired and released, first without a recorder,
//! then with one that keeps everything in atomics.
//!
//! ```text
//! cargo bench --bench metrics                      # a build without metrics
//! cargo bench --bench metrics --features metrics
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use stanchion::{MemLock, Memory};

/// So few that most tries end before the scheduler interrupts them.
const ROUNDS: u32 = 5_000;

/// The shortest time of a grant and its release, among several tries.
fn shortest(lock: &MemLock) -> Duration {
    let round = || drop(black_box(lock.try_acquire().expect("no error")));
    let tries = (0..1_000).map(|_| {
        let begun = Instant::now();
        (0..ROUNDS).for_each(|_| round());
        begun.elapsed()
    });
    tries.min().unwrap_or_default() / ROUNDS
}

fn report(what: &str, lock: &str) {
    let lock = Memory::new().lock(lock).expect("a lock");
    println!("{what}: {:?} for a grant and its release", shortest(&lock));
}

#[cfg(feature = "metrics")]
mod recorder {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{
        Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString,
        Unit,
    };

    pub(crate) struct Atomics;

    /// Counts and adds up.
    #[derive(Default)]
    struct Sum(AtomicU64, AtomicU64);

    impl HistogramFn for Sum {
        fn record(&self, value: f64) {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1.fetch_add((value * 1e9) as u64, Ordering::Relaxed);
        }
    }

    impl Recorder for Atomics {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Arc::new(AtomicU64::new(0)))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(Arc::new(AtomicU64::new(0)))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(Arc::new(Sum::default()))
        }
    }
}

fn main() {
    #[cfg(not(feature = "metrics"))]
    report("without the feature", "a");
    #[cfg(feature = "metrics")]
    {
        report("without a recorder", "a");
        metrics::set_global_recorder(recorder::Atomics)
            .map_err(drop)
            .expect("the first");
        // A series of its own, which the recorder gets.
        stanchion::metrics::label_names(1);
        report("with atomics", "b");
    }
}
