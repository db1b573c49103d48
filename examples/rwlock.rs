//! Many tasks read a catalogue, and one renews it. Readers hold the lock together, the writer holds
//! it alone, and none of them starves.
//!
//! Run it in two terminals at once: both take part.
//!
//! ```text
//! cargo run --example rwlock -- /tmp/catalogue
//! ```
#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use stanchion::{FifoRwLock, Result};

const READERS: usize = 3;
const ROUNDS: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let argument = std::env::args_os().nth(1).map(PathBuf::from);
    let catalogue = argument.unwrap_or_else(|| std::env::temp_dir().join("catalogue"));
    let lock = FifoRwLock::open(catalogue.with_extension("lock"))?;
    renew(&lock, &catalogue).await?;

    let mut tasks = tokio::task::JoinSet::new();
    for reader in 1..=READERS {
        let (lock, catalogue) = (lock.clone(), catalogue.clone());
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                let guard = lock.read().await?;
                let text = tokio::fs::read_to_string(&catalogue).await?;
                assert!(text.starts_with("edition "), "{text:?} is half written");
                println!(
                    "reader {reader} sees {text:?}, not older than token {}",
                    guard.token()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
                guard.release().await?;
            }
            std::io::Result::Ok(())
        });
    }
    for _ in 0..ROUNDS {
        renew(&lock, &catalogue).await?;
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a reader does not panic")
            .expect("a reader reads");
    }
    println!("{} readings, each of a complete edition", READERS * ROUNDS);
    Ok(())
}

/// Writes alone. Then reads what it wrote beside other readers, with no other writer in between.
async fn renew(lock: &FifoRwLock, catalogue: &Path) -> Result<()> {
    let writer = lock.write().await?;
    let text = format!("edition {}", writer.token());
    std::fs::write(catalogue, &text).expect("the catalogue can be written");
    let reader = writer.downgrade()?;
    let read = std::fs::read_to_string(catalogue).expect("the catalogue can be read");
    assert_eq!(read, text, "no other writer in between");
    reader.release().await
}
