//! Stanchion is an async lock library for Tokio. Use it where several programs, or several copies
//! of one, must not do the same thing at the same time: deploy, migrate, back up, write a file.
//!
//! A lock is a path, an `acquire().await`, and a guard. Callers acquire in order of arrival, across
//! all tasks and processes of a host. A killed process delays no other process. A dropped future
//! leaves nothing behind.
//!
//! # Which lock?
//!
//! | you need | take |
//! |---|---|
//! | one holder at a time, in order of arrival, among all tasks of all processes of a host | [`FifoLock`] |
//! | many readers or one writer, in order of arrival, among tasks and processes | [`FifoRwLock`] |
//! | at most n holders at a time, in order of arrival, among tasks and processes | [`FifoSemaphore`] |
//! | the same three among many hosts | `redis::{RedisLock, RedisRwLock, RedisSemaphore}`, with the feature `redis`; `postgres::{PgLock, PgRwLock, PgSemaphore}`, with the feature `postgres` |
//! | an exclusive or shared lock on a file, respected by all programs that use `flock` | [`FileLock`], [`open_locked`] |
//! | to lock a file that is already open | [`lock`], [`unlock`] |
//! | to replace a file so that readers see the old or the new one, never a mix | [`AtomicFile`] |
//! | a lock that is a pid file, without any lock of the operating system | [`PidLock`] |
//! | a lock that needs only atomic renames, with an expiry | [`LockDir`] with [`Method::Mkdir`] or [`Method::CreateNew`] |
//! | a lock that its holder may acquire again | [`Reentrant`], around any of the locks |
//! | several locks at once, all or none, without a deadlock over their order | [`acquire_all`] |
//! | locks by name, in files, in memory or on a server, chosen by a URL; for example a lock for each user | [`Locks`] |
//! | the same on a database or server of your own | [`backend`] |
//! | the same in a directory only, with paths, a namespace for each call, and a list of the names | [`LockDir`] |
//! | the same locks in memory, for tests | [`Memory`] |
//! | code that works with any lock | the traits [`Lock`], [`SharedLock`], [`Semaphore`], [`Guard`] and [`Permit`]; [`AnyLock`], [`AnySharedLock`], [`AnySemaphore`] |
//! | to know which kind of fair lock is at a path | [`FifoKind::at`] |
//! | a resource that refuses callers that have lost their lock | [`TokenGate`] |
//! | growing pauses between the attempts of your own loop | [`Backoff`] |
//! | a lock for the tasks of one process only | `tokio::sync::Mutex`, which needs no file |
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
//!     eprintln!("the last holder died while it held the lock: check what it left");
//! }
//! println!("fencing token {}", guard.token());
//! guard.release().await?; // or just drop it
//! # Ok(()) }
//! ```
//!
//! All handles of a process on one path share one queue, which is a directory beside the lock file:
//! `deploy.lock.queue`. So a lock may be opened again for each use. To clone a handle is cheaper,
//! because opening makes system calls.
//!
//! # Waiting
//!
//! Every wait is the same future, [`Acquire`]. Its methods set a time limit, report the caller's
//! place in the queue, and limit how many callers may wait. Dropping the future at any point leaves
//! the queue, so it is safe in `select!`.
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
//! It is not a failure that another caller holds the lock: [`FifoLock::try_acquire`] returns
//! `None`. A wait ends with one of the two errors above only if the caller or the options set a
//! limit. Every other [`Error`] is a failure. After any error, the caller does not hold the lock.
//!
//! # What holds, and what does not
//!
//! These hold for [`FifoLock`], [`FifoRwLock`] and [`FifoSemaphore`]:
//!
//! - The lock is the operating system's lock on the file. So no fault in the queue can grant it to
//!   two holders, and the kernel frees the lock when its holder dies. The next exclusive holder
//!   learns of the death: [`FifoGuard::predecessor_crashed`].
//! - On Linux a waiter sleeps until the waiter or holder before it leaves. On other systems,
//!   threads wake the waiters of [`FifoLock`] and [`FifoRwLock`], and waiters for permits poll. On
//!   network file systems, all waiters poll every 1 to 50 ms. Tests run on Linux, and under Wine.
//! - A *frozen* waiter is stopped, or its future is not polled. It is bypassed after about two
//!   claim windows, 2 s each by default ([`FifoOptions::claim_window`]). It is first again when it
//!   wakes. A stopped *holder* is never bypassed.
//! - A fencing token is greater than all earlier ones ([`FifoGuard::token`]), even after a crash or
//!   a deletion of the files. Exception: the files were deleted and the wall clock was set back.
//! - If the lock file is deleted or replaced while it is held, newcomers are refused, and the
//!   holder learns of the loss: [`FifoGuard::lost`]. If the queue directory is deleted too,
//!   newcomers acquire a lock that is held.
//! - A lock is not re-entrant by itself; [`Reentrant`] makes it so.
//! - A lock on a file reaches one host.
//! - A program that uses plain `flock` on the lock file is excluded, but has no place in the queue.
//! - A handle from before a `fork` returns an error in the child. Open the lock again there.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `metrics` | gauges, histograms and counters of all locks, through the crate `metrics` |
//! | `tracing` | spans for waits and holds; events for bypassed waiters, crashes, fallbacks to polling, and losses |
//! | `serde` | `Serialize` and `Deserialize` for [`Status`] and its parts |
//! | `cli` | the program `stanchion`: `flock(1)` with a queue |
//! | `postgres` | locks for many hosts, in a Postgres database |
//! | `postgres-tls` | the same through TLS: `sslmode=require`, or where the server has it |
//! | `redis` | locks for many hosts, on a Redis server |
//! | `redis-tls` | the same through TLS: `rediss://` |
//! | `conformance` | the module `conformance`: a test suite for a [backend] of your own |
//!
//! None is enabled by default.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use acquire::Acquire;
pub use all::{AcquireAll, AllGuards, Request, acquire_all};
pub use any::{AnyGuard, AnyLock, AnySemaphore, AnySharedLock};
pub use backoff::Backoff;
pub use error::{Error, ErrorKind, Result};
pub use existence::pid::{PidConfig, PidGuard, PidLock, PidOptions};
pub use fair::{
    FifoConfig, FifoGuard, FifoKind, FifoLock, FifoOptions, FifoPermit, FifoReadGuard, FifoRwLock,
    FifoSemaphore, FifoWriteGuard, SemaphoreConfig, SemaphoreOptions,
};
pub use file::atomic::{AtomicFile, CreateAtomic};
pub use file::flags::{LockFlags, OpenFile, lock, unlock};
pub use file::{FileConfig, FileGuard, FileLock, FileOptions};
pub use guard::{Downgrade, Guard, Permit, Release, WriteGuard};
pub use kind::LockKind;
pub use lock::{Capabilities, Handle, Lock, Reach, Semaphore, SharedLock, Tokens};
pub use locks::{LockUrl, Locks, LocksOptions};
pub use loss::{Loss, Lost};
pub use mem::{MemGuard, MemLock, MemRwLock, MemSemaphore, Memory, MemoryConfig, MemoryOptions};
pub use named::open::{OpenLocked, open_locked};
pub use named::{LockDir, LockDirConfig, LockDirOptions, LockName, Method, NamedLock, Sweep};
pub use reentrant::{Holder, Lent, Reentrant, ReentrantGuard};
pub use stats::{Histogram, Stats};
pub use status::{Changes, Held, Owner, Removal, Status, Waiter, Waiting};
pub use token::TokenGate;
pub use watch::wait::Wait;

#[cfg(test)]
#[path = "../tests/crew/skip.rs"]
#[macro_use]
mod skip;

mod acquire;
mod address;
mod all;
mod any;
pub mod backend;
mod backoff;
mod block;
#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
mod door;
mod duration;
mod error;
mod existence;
mod fair;
mod file;
mod foreign;
mod guard;
mod kind;
#[cfg(any(feature = "postgres", feature = "redis"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "postgres", feature = "redis"))))]
pub mod lease;
mod ledger;
mod lock;
mod locks;
mod loss;
mod mem;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "metrics_none.rs"]
mod metrics;
mod named;
mod options;
mod owner;
mod path;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub mod postgres;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis;
mod reentrant;
mod stats;
mod status;
mod step;
mod sys;
#[cfg(stanchion_test)]
#[doc(hidden)]
pub mod testing;
mod token;
mod trace;
mod wait;
mod watch;
