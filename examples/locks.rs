//! A program that takes the URL of its locks: in memory for a test, or in files for several
//! processes.
//!
//! ```text
//! cargo run --example locks
//! cargo run --example locks -- file:///tmp/reports
//! ```
//!
//! Start it twice with the same `file:` URL: both processes share the locks. `stanchion status
//! file:///tmp/reports#report` shows the holder and the waiters.

#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use stanchion::{Locks, Result};

const REPORTERS: u32 = 12;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or("mem:".to_owned());
    let locks = Locks::connect(url).await?;
    let can = locks.capabilities();
    println!(
        "fair: {}, reach: {:?}, tokens: {:?}",
        can.fair, can.reach, can.tokens
    );

    let writing = Arc::new(AtomicU32::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..REPORTERS {
        let (locks, writing) = (locks.clone(), writing.clone());
        tasks.spawn(async move {
            // At most four tasks collect at a time, and one writes.
            let collecting = locks.semaphore("collect", 4)?.acquire().await?;
            tokio::task::yield_now().await;
            collecting.release().await?;
            let guard = locks.lock("report")?.acquire().await?;
            assert_eq!(writing.fetch_add(1, Ordering::SeqCst), 0, "two write");
            println!("report {number} with token {:?}", guard.token());
            tokio::task::yield_now().await;
            writing.fetch_sub(1, Ordering::SeqCst);
            guard.release().await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a reporter does not panic")?;
    }
    println!("{locks} each report was whole");
    Ok(())
}
