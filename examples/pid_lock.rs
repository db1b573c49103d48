//! A lock that is a pid file. The second copy waits, prints the holder, and acquires at once when
//! the holder ends or dies.
//!
//! Run it in two terminals: `cargo run --example pid_lock -- /tmp/worker.pid`. Then end the first
//! copy: by a line on its standard input, or with `kill -9`.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;

use stanchion::PidLock;
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| std::env::temp_dir().join("worker.pid"));
    let lock = PidLock::options().label("worker").open(&path)?;
    let guard = lock.acquire().on_wait(|it| println!("{it}")).await?;
    if guard.predecessor_crashed() {
        println!("the last holder died while it held the lock: check what it left");
    }
    let text = std::fs::read_to_string(lock.path())?;
    let first = text.lines().next().unwrap_or_default();
    assert_eq!(first, std::process::id().to_string());
    println!("process {first} works now; a line on standard input ends it");
    // The lock is lost if the file is deleted. Then stop.
    let mut input = [0];
    let mut console = tokio::io::stdin();
    tokio::select! {
        _ = console.read(&mut input) => {}
        reason = guard.lost() => return Err(format!("stopped: {reason}").into()),
    }
    guard.release().await?;
    println!("ended; the file is gone");
    Ok(())
}
