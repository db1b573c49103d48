//! The lock among real processes: order and exclusion, crashes, stops.
//!
//! The tests that need fail points exist under `--cfg stanchion_test` only; `scripts/test` sets it.
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

#[cfg(any(target_os = "linux", target_os = "android"))] // It calls GNU `cp`.
mod copies;
mod crash;
#[path = "../crew/mod.rs"]
mod crew;
#[cfg(all(any(target_os = "linux", target_os = "android"), stanchion_test))]
mod deaf;
#[cfg(unix)]
mod files;
mod onlooker;
mod order;
mod queue;
mod rwlock;
mod rwlock_crash;
#[cfg(unix)]
mod rwlock_files;
#[cfg(unix)]
mod rwlock_outsider;
mod rwlock_share;
#[cfg(unix)]
mod rwlock_stop;
mod rwlock_storm;
#[cfg(all(unix, stanchion_test))]
mod steps;
#[cfg(unix)]
mod stop;
mod storm;
mod taker;
#[cfg(all(any(target_os = "linux", target_os = "android"), stanchion_test))]
mod threads;

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("taker", taker::main)]);
}
