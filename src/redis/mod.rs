//! Fair locks for many hosts, on one Redis server.
mod actor;
mod attempt;
mod client;
mod face;
mod guard;
mod lease;
mod link;
mod lock;
mod options;
mod place;
mod rwlock;
mod scripts;
mod semaphore;

pub use client::RedisClient;
pub use lock::{RedisGuard, RedisLock};
pub use options::{Config, OnDisconnect, Options};
pub use rwlock::{RedisReadGuard, RedisRwLock, RedisWriteGuard};
pub use semaphore::{RedisPermit, RedisSemaphore};
