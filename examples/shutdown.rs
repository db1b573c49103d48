//! A worker that may be stopped at any time. It gives up a wait that takes too long, and ends at a
//! signal, but it finishes the job it has begun. Start it in two terminals, and stop it with ctrl-c
//! or SIGTERM:
//!
//! ```text
//! cargo run --example shutdown [LOCK]
//! ```
#![allow(clippy::disallowed_methods)]

use std::pin::pin;
use std::time::{Duration, Instant};

use stanchion::{ErrorKind, FifoLock};

/// Shorter than a job, so that some waits time out.
const LONGEST_WAIT: Duration = Duration::from_millis(300);
const JOB: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = FifoLock::options().label("worker");
    let lock = match std::env::args().nth(1) {
        Some(path) => options.open(path)?,
        None => options.named("stanchion-shutdown.lock")?,
    };
    let begun = Instant::now();
    let tell = |line: &str| println!("{:>8.1?}  {line}", begun.elapsed());

    // Made once and polled by reference, so a signal during a job is not lost.
    let mut stop = pin!(stop_signal()?);
    tell("waits");
    loop {
        let entered = tokio::select! {
            biased; // after a signal it begins no other job, even if the lock is free
            () = &mut stop => break,
            entered = lock.acquire().timeout(LONGEST_WAIT) => entered,
        };
        let guard = match entered {
            Ok(guard) => guard,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                tell("gives up, and waits again at the end of the queue");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let token = guard.token();
        tell(&format!("begins job {token}"));
        tokio::time::sleep(JOB).await; // outside the select, so it runs to its end
        tell(&format!("ends job {token}"));
        guard.release().await?;
    }
    tell("stops"); // the select dropped the wait, which left the queue
    Ok(())
}

/// Listens from the call on, not from the first poll, so no signal is missed.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async { _ = tokio::signal::ctrl_c().await })
}
