//! A worker that can be stopped at any time. It gives up a wait that takes too long. When it is
//! stopped, it gives up its wait or finishes its current job, and leaves nothing behind. Start it
//! in two terminals, and stop it with ctrl-c or SIGTERM:
//!
//! ```text
//! cargo run --example shutdown [LOCK]
//! ```
#![allow(clippy::disallowed_methods)]

use std::pin::pin;
use std::time::{Duration, Instant};

use stanchion::{ErrorKind, FifoLock};

/// The time limit of a wait. It is shorter than a job, so waits do time out.
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
    let print = |line: &str| println!("{:>8.1?}  {line}", begun.elapsed());

    // Made once and polled by reference, so that a signal during a job is not lost.
    let mut stop = pin!(stop_signal()?);
    print("waits");
    loop {
        let entered = tokio::select! {
            biased; // after a signal, begin no other job, even if the lock is free
            () = &mut stop => break,
            entered = lock.acquire().timeout(LONGEST_WAIT) => entered,
        };
        let guard = match entered {
            Ok(guard) => guard,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                print("gives up, and waits again at the end of the queue");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let token = guard.token();
        print(&format!("begins job {token}"));
        tokio::time::sleep(JOB).await; // outside of the select, so a signal does not interrupt it
        print(&format!("ends job {token}"));
        guard.release().await?;
    }
    print("stops"); // the select has dropped the wait, which leaves the queue
    Ok(())
}

/// Listens from the call on, not from the first poll, so that no signal is lost.
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
