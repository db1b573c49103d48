//! One copy of a program at a time. The second copy prints the process id of the first, and ends.
//!
//! Run it twice: `cargo run --example single_instance -- /tmp/app.pid`.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;

use stanchion::{ErrorKind, FileLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.unwrap_or_else(|| std::env::temp_dir().join("single_instance.pid"));
    // Emptied only once the lock is held: until then the number in it is the first one's.
    let lock = FileLock::options()
        .truncate(true)
        .fail_when_locked(true)
        .remove_on_release(true)
        .open(&path)?;
    let mut file = match lock.acquire().await {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::Busy => {
            let first = tokio::fs::read_to_string(&path).await?;
            println!("already running as process {}", first.trim());
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let pid = std::process::id();
    file.write_all(format!("{pid}\n").as_bytes()).await?;
    file.sync_all().await?;
    println!("running as process {pid}; a line on standard input ends it");
    // Here the program would do its work. A death frees the lock as well, and leaves the file.
    let mut input = [0];
    let _ = tokio::io::stdin().read(&mut input).await?;
    file.release().await?;
    println!("ended");
    Ok(())
}
