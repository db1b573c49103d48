//! Async-first fair locks for Tokio: first come, first served, across tasks and processes.
//!
//! | you want | take |
//! |---|---|
//! | one at a time, in order of arrival, among all tasks of all processes of a host | [`FifoLock`] |
//! | code that works with any of the locks | the traits [`Lock`] and [`Guard`] |
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> stanchion::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("deploy.lock");
//! use stanchion::FifoLock;
//!
//! let lock = FifoLock::open(path)?;
//! let guard = lock.acquire().await?;
//! println!("inside, with fencing token {}", guard.token());
//! guard.release().await?; // or just drop it
//! # Ok(()) }
//! ```

pub use acquire::Acquire;
pub use backoff::Backoff;
pub use error::{Error, ErrorKind, Result};
pub use fs::engine::line::Wait;
pub use fs::fifo::{FifoConfig, FifoGuard, FifoLock, FifoOptions, Removal};
pub use guard::{Guard, Loss, Lost};
pub use lock::{Capabilities, Changes, Lock, Owner, Reach, Status, Waiter, Waiting};
pub use stats::{Histogram, Stats};

mod acquire;
mod backoff;
mod error;
mod fs;
mod guard;
mod lock;
mod stats;
mod trace;
