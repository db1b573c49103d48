//! A job that must run at most once at a time among many hosts.
//!
//! ```sh
//! redis-server &
//! cargo run --features redis --example redis
//! ```

#![allow(clippy::disallowed_methods)] // A program has its own runtime.

use std::time::Duration;

use stanchion::TokenGate;
use stanchion::redis::RedisClient;

#[tokio::main(flavor = "current_thread")]
async fn main() -> stanchion::Result<()> {
    let url = std::env::args().nth(1);
    let url = url.unwrap_or_else(|| "redis://127.0.0.1/".to_owned());
    let client = RedisClient::options()
        .namespace("example")
        .label("report")
        .connect(url)
        .await?;
    let lock = client.lock("monthly report");
    // A stand-in for the service that the lock protects.
    let service = TokenGate::new();

    let waiting = lock.acquire().timeout(Duration::from_secs(60));
    let guard = waiting.on_wait(|line| eprintln!("{line}")).await?;
    if guard.predecessor_crashed() {
        eprintln!("the last holder did not finish");
    }
    tokio::select! {
        done = write_report(&service, guard.token()) => done?,
        loss = guard.lost() => {
            eprintln!("stopped: {loss}");
            return Ok(());
        }
    }
    guard.release().await
}

async fn write_report(service: &TokenGate<&'static str>, token: u64) -> stanchion::Result<()> {
    // Long enough to see other processes wait.
    tokio::time::sleep(Duration::from_secs(3)).await;
    service.admit("report", token)?;
    println!("written with token {token}");
    Ok(())
}
