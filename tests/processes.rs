//! The lock among real processes: order and exclusion, crashes, stops.
//!
//! The tests that need fail points exist under `--cfg stanchion_test` only; `scripts/test` sets it.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // The tests play those who do what the crate must not.

#[path = "crew/skip.rs"]
#[macro_use]
mod skip;

#[cfg(target_os = "linux")] // It calls GNU `cp`.
#[path = "processes/copies.rs"]
mod copies;
#[path = "processes/crash.rs"]
mod crash;
#[path = "processes/crew.rs"]
mod crew;
#[cfg(stanchion_test)]
#[path = "processes/deaf.rs"]
mod deaf;
#[path = "processes/files.rs"]
mod files;
#[path = "processes/onlooker.rs"]
mod onlooker;
#[path = "processes/order.rs"]
mod order;
#[path = "processes/rwlock.rs"]
mod rwlock;
#[path = "processes/rwlock_crash.rs"]
mod rwlock_crash;
#[path = "processes/rwlock_files.rs"]
mod rwlock_files;
#[path = "processes/rwlock_outsider.rs"]
mod rwlock_outsider;
#[path = "processes/rwlock_share.rs"]
mod rwlock_share;
#[path = "processes/rwlock_stop.rs"]
mod rwlock_stop;
#[path = "processes/rwlock_storm.rs"]
mod rwlock_storm;
#[cfg(stanchion_test)]
#[path = "processes/steps.rs"]
mod steps;
#[path = "processes/stop.rs"]
mod stop;
#[path = "processes/storm.rs"]
mod storm;
#[allow(dead_code)]
#[path = "processes/taker.rs"]
mod taker;
