//! Exports the statistics of a lock in the text format of Prometheus. Other metrics crates can be
//! used in the same way.
//!
//! ```text
//! cargo run --example metrics
//! ```
#![allow(clippy::disallowed_methods)]

use std::fmt::Write;
use std::time::Duration;

use stanchion::{FifoLock, Result, Stats};

/// Writes a line for each counter, and the histogram with its cumulative buckets.
fn export(stats: &Stats) -> String {
    let mut text = String::new();
    let counters = [
        ("grants", stats.grants),
        ("waits", stats.waits),
        ("bypassed", stats.bypassed),
    ];
    for (name, count) in counters {
        let _ = writeln!(text, "stanchion_{name}_total {count}");
    }
    let (mut below, wait) = (0, &stats.wait_time);
    for (bound, count) in wait.steps() {
        below += count;
        let bound = bound.map_or("+Inf".to_owned(), |it| it.as_secs_f64().to_string());
        let _ = writeln!(
            text,
            "stanchion_wait_seconds_bucket{{le=\"{bound}\"}} {below}"
        );
    }
    let _ = writeln!(
        text,
        "stanchion_wait_seconds_sum {}",
        wait.sum().as_secs_f64()
    );
    let _ = writeln!(text, "stanchion_wait_seconds_count {}", wait.count());
    text
}

#[tokio::main]
async fn main() -> Result<()> {
    let home = tempfile::tempdir().expect("a directory");
    let lock = FifoLock::open(home.path().join("metrics.lock"))?;
    let worker = async |lock: FifoLock| -> Result<()> {
        for _ in 0..10 {
            let _guard = lock.acquire().await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    };
    tokio::try_join!(worker(lock.clone()), worker(lock.clone()))?;
    print!("{}", export(&Stats::of_process()));
    Ok(())
}
