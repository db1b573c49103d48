//! `tokio::select!` with a time limit and a shutdown. A wait may be dropped at any point and leaves
//! nothing behind.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use stanchion::{ErrorKind, FifoLock};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let lock = FifoLock::open(dir.path().join("select.lock"))?;
    let guard = lock.acquire().await?;

    // A time limit for the wait.
    let error = lock.acquire().timeout(Duration::from_millis(20)).await;
    assert_eq!(error.err().map(|e| e.kind()), Some(ErrorKind::TimedOut));
    println!("timed out, as expected");

    // The first ready branch wins. The other branch is dropped: a wait leaves the queue.
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

    // In a loop, poll one pinned future by reference: it keeps its place in the queue.
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
        "entered after {seen} ticks and {:?} in the queue",
        guard.waited().unwrap_or_default()
    );
    guard.release().await?;

    // Shut down: every wait ends with an error.
    let guard = lock.acquire().await?;
    let waiter = tokio::spawn(lock.acquire());
    tokio::task::yield_now().await;
    lock.close();
    let error = waiter.await?.err().map(|e| e.kind());
    assert_eq!(error, Some(ErrorKind::Closed));
    println!("closed for the night");
    guard.release().await?;
    assert!(lock.status()?.waiters.is_empty(), "no waiter is left");
    Ok(())
}
