//! `tokio::select!` with a time limit and a shutdown. A wait may be dropped at any point: it leaves
//! the queue.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use stanchion::{ErrorKind, FifoLock};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let lock = FifoLock::open(dir.path().join("select.lock"))?;
    let guard = lock.acquire().await?;

    // A limit on the wait.
    let error = lock.acquire().timeout(Duration::from_millis(20)).await;
    assert_eq!(error.err().map(|e| e.kind()), Some(ErrorKind::TimedOut));
    println!("timed out, as expected");

    // The branch that is ready first runs. The other one is dropped and leaves the queue.
    let (stop, mut stopped) = watch::channel(false);
    let worker = tokio::spawn({
        let lock = lock.clone();
        async move {
            tokio::select! {
                guard = lock.acquire() => guard.map(|guard| Some(guard.token())),
                _ = stopped.changed() => Ok(None),
            }
        }
    });
    stop.send(true)?;
    assert_eq!(worker.await??, None);
    println!("stopped while waiting");

    // In a loop, poll one pinned future by reference. It keeps its place in the queue.
    let waiting = lock.acquire();
    tokio::pin!(waiting);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut seen = 0;
    let mut held = Some(guard);
    let guard = loop {
        tokio::select! {
            guard = &mut waiting => break guard?,
            _ = ticks.tick() => {
                seen += 1;
                if seen == 3 {
                    held.take();
                }
            }
        }
    };
    println!(
        "acquired after {seen} ticks and a wait of {:?}",
        guard.waited().unwrap_or_default()
    );
    guard.release().await?;

    // Shut down: all waits of this handle end with an error.
    let guard = lock.acquire().await?;
    let waiter = tokio::spawn(lock.acquire());
    tokio::task::yield_now().await;
    lock.close();
    let error = waiter.await?.err().map(|e| e.kind());
    assert_eq!(error, Some(ErrorKind::Closed));
    println!("closed");
    guard.release().await?;
    assert!(lock.status()?.waiters.is_empty(), "the queue is empty");
    Ok(())
}
