//! At most four downloads at a time, over all copies of this program.
//!
//! Run it in two terminals at once: both together never run more than four.
//!
//! ```text
//! cargo run --example semaphore -- /tmp
//! ```
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use stanchion::{FifoSemaphore, Result};

const AT_A_TIME: u32 = 4;
const DOWNLOADS: u32 = 8;

#[tokio::main]
async fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.unwrap_or_else(std::env::temp_dir);
    let downloads = FifoSemaphore::open(directory, "downloads", AT_A_TIME)?;

    let out = Arc::new(AtomicU32::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=DOWNLOADS {
        let (downloads, out) = (downloads.clone(), out.clone());
        tasks.spawn(async move {
            // A big download takes two permits. Later small ones do not pass it.
            let permits = if number % 4 == 0 { 2 } else { 1 };
            let permit = downloads.acquire_many(permits).await?;
            let before = out.fetch_add(permits, Ordering::SeqCst);
            assert!(before + permits <= AT_A_TIME, "too many at a time");
            println!("download {number} begins with {permits} of {AT_A_TIME} permits");
            tokio::time::sleep(Duration::from_millis(30)).await;
            println!("download {number} is done");
            out.fetch_sub(permits, Ordering::SeqCst);
            permit.release().await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a download does not panic")?;
    }
    println!("at most {AT_A_TIME} permits were held at a time");
    Ok(())
}
