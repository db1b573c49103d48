//! Exports the metrics of all locks to Prometheus.
//!
//! ```text
//! cargo run --example metrics --features metrics
//! ```
//!
//! Other exporters of the crate `metrics` are used in the same way.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use stanchion::{ErrorKind, FifoLock, Result};

/// Waits up to a limit, and works under the lock.
async fn worker(lock: FifoLock) -> Result<()> {
    for _ in 0..10 {
        match lock.acquire().timeout(Duration::from_millis(5)).await {
            Ok(_guard) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    // First the recorder, then the locks. A service serves what `render` returns at `/metrics`.
    let buckets = [0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0];
    let prometheus = PrometheusBuilder::new().set_buckets(&buckets);
    let prometheus = prometheus.expect("bounds in order").install_recorder();
    let prometheus = prometheus.expect("the first recorder");
    // The label `name` for up to 100 locks. Without this call, `backend` is the only label.
    stanchion::metrics::label_names(100);

    let home = tempfile::tempdir().expect("a directory");
    let lock = FifoLock::open(home.path().join("metrics.lock"))?;
    let workers = [(); 8].map(|()| worker(lock.clone()));
    futures::future::try_join_all(workers).await?;
    let guard = lock.acquire().await?;
    print!("{}", prometheus.render());
    guard.release().await
}
