//! Several programs, or several copies of one, must not do the same thing at the same time: deploy, migrate, back up,
//! write one file. Stanchion is a lock for that, made for Tokio: a path, an `acquire().await`, a guard. Who came
//! first goes first, over all tasks of all processes of a host; a killed program holds up nobody; a dropped future leaves nothing
//! behind.
//!
//! | you want | take |
//! |---|---|
//! | one at a time, in order of arrival, among all tasks of all processes of a host | [`FifoLock`] |
//! | many readers or one writer, in order of arrival, among tasks and processes | [`FifoRwLock`] |
//! | at most n at a time, in order of arrival, among tasks and processes | [`FifoSemaphore`] |
//! | a file to oneself, or shared with other readers, among all programs that lock files | [`FileLock`], [`open_locked`] |
//! | to lock a file that is open already | [`lock`], [`unlock`] |
//! | to replace a file so that readers see the old or the new one, never a mix | [`AtomicFile`] |
//! | a lock that is a pid file, without any lock of the operating system | [`PidLock`] |
//! | a lock that needs nothing but that a rename is whole, with an expiry | [`LockDir`] with [`Method::Mkdir`] or [`Method::CreateNew`] |
//! | a lock that its holder may take again | [`Reentrant`], around any of the locks |
//! | locks by name, in files or in memory, as a URL says | [`Locks`] |
//! | a directory of locks with names, which may be any text | [`LockDir`] |
//! | the same locks in memory, for tests | [`Memory`] |
//! | code that works with any of the locks | the traits [`Lock`] and [`Guard`], or [`AnyLock`] |
//! | to know which of the fair locks a path is used for | [`FifoKind::at`] |
//! | several locks at once, all or none, and never a deadlock over their order | [`acquire_all`] |
//! | one at a time, many readers or one writer, or at most n, among many hosts | `redis::{RedisLock, RedisRwLock, RedisSemaphore}`, with the feature `redis` |
//! | a resource that refuses those who have lost their lock | [`TokenGate`] |
//! | only tasks of one process | `tokio::sync::Mutex`, which needs no file |
//!
//! # A first lock
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
//! if guard.predecessor_crashed() {
//!     eprintln!("the last holder died inside: check what it left");
//! }
//! println!("inside, with fencing token {}", guard.token());
//! guard.release().await?; // or just drop it
//! # Ok(()) }
//! ```
//!
//! Open a lock once and clone the handle; all handles on one path in a process share one line.
//!
//! # Waiting
//!
//! Whatever a caller wants beside the lock goes onto the future, see [`Acquire`]: a time limit, a word about its place in
//! line, an upper limit for the line. Dropping the future leaves the line at any point, so `select!` needs no second thought.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> stanchion::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let lock = stanchion::FifoLock::open(dir.path().join("deploy.lock"))?;
//! # let limit = std::time::Duration::from_secs(5);
//! use stanchion::ErrorKind;
//!
//! let waiting = lock.acquire().timeout(limit).max_waiting(10).on_wait(|line| eprintln!("{line}"));
//! match waiting.await {
//!     Ok(guard) => println!("waited for {:?}", guard.waited()),
//!     Err(error) if error.kind() == ErrorKind::TimedOut => println!("too long: {error}"),
//!     Err(error) if error.kind() == ErrorKind::Busy => println!("too many wait already"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(()) }
//! ```
//!
//! A lock that somebody else has is a value ([`FifoLock::try_acquire`] gives `None`) or one of the two errors above, which
//! the caller asked for. Every other [`Error`] is a failure: no lock was taken, and none is believed to be held.
//!
//! # What holds, and what does not
//!
//! - The lock is the OS lock on the file, so no mistake in the queue beside it can let two in, and the kernel frees it at
//!   the death of its holder. The next one hears of that: [`FifoGuard::predecessor_crashed`].
//! - On Linux a waiter sleeps until the one before it leaves. Elsewhere, and on network file systems, waiters look again after 1 to
//!   50 ms. Nothing but Linux is tested.
//! - A waiter that is stopped, or whose future is not polled, is passed after about two claim windows, 2 s each by
//!   default ([`FifoOptions::claim_window`]), and is first again when it wakes. A stopped *holder* is never passed.
//! - A fencing token is greater than all before ([`FifoGuard::token`]), also across crashes and deleted files, unless the wall
//!   clock was set back as well.
//! - If somebody deletes or replaces the lock file under a holder, newcomers are refused and the holder can hear of it:
//!   [`FifoGuard::lost`]. If the queue directory goes with it, newcomers get in.
//! - The lock is not re-entrant by itself ([`Reentrant`] makes it so), reaches one host, and knows of a plain `flock` on its file only that it excludes it.
//! - A handle from before a `fork` answers with an error in the child; open the lock again there.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `tracing` | spans for waits and holds; events for sleepers passed, crashes found, falls back to polling, losses |
//! | `cli` | the program `stanchion`: `flock(1)` with a line |
//! | `redis` | locks for many hosts, on a Redis server |
//! | `redis-tls` | the same through TLS: `rediss://` |
//!
//! None is on by default.

pub use acquire::Acquire;
pub use all::{AcquireAll, AllGuards, Request, acquire_all};
pub use any::{AnyGuard, AnyLock, AnySemaphore, AnySharedLock};
pub use backoff::Backoff;
pub use error::{Error, ErrorKind, Result};
pub use fs::atomic::{AtomicFile, CreateAtomic};
pub use fs::engine::wait::Wait;
pub use fs::fair::{FifoConfig, FifoOptions};
pub use fs::fifo::{FifoGuard, FifoLock};
pub use fs::file::{FileConfig, FileGuard, FileLock, FileOptions};
pub use fs::flags::{LockFlags, OpenFile, lock, unlock};
pub use fs::kind::FifoKind;
pub use fs::named::{LockDir, LockDirConfig, LockDirOptions, LockName, Method, NamedLock};
pub use fs::open::{OpenLocked, open_locked};
pub use fs::pid::{PidConfig, PidGuard, PidLock, PidOptions};
pub use fs::rwlock::{FifoReadGuard, FifoRwLock, FifoWriteGuard};
pub use fs::semaphore::{FifoPermit, FifoSemaphore, SemaphoreConfig, SemaphoreOptions};
pub use guard::{Guard, Loss, Lost, Release};
pub use lock::{Capabilities, Handle, Lock, Reach, Semaphore, SharedLock, Tokens};
pub use locks::{LockUrl, Locks};
pub use mem::{MemGuard, MemLock, MemRwLock, MemSemaphore, Memory};
pub use reentrant::{Holder, Lent, Reentrant, ReentrantGuard};
pub use stats::{Histogram, Stats};
pub use status::{Changes, Held, Owner, Removal, Status, Waiter, Waiting};
pub use token::TokenGate;

mod acquire;
mod address;
mod all;
mod any;
mod backoff;
mod block;
mod error;
mod foreign;
mod fs;
mod guard;
mod ledger;
mod lock;
mod locks;
#[cfg_attr(feature = "redis", path = "locks/redis.rs")]
#[cfg_attr(not(feature = "redis"), path = "locks/redis_none.rs")]
mod locks_redis;
mod mem;
mod options;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis;
mod reentrant;
mod stats;
mod status;
#[cfg(stanchion_test)]
#[doc(hidden)]
pub mod testing;
mod token;
mod trace;
