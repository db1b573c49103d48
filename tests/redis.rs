//! The locks on a Redis server, each test with a server of its own.

#![allow(clippy::disallowed_methods)] // The tests play those who do what the crate must not.

#[path = "crew/skip.rs"]
#[macro_use]
mod skip;

#[path = "redis/address.rs"]
mod address;
#[path = "redis/basics.rs"]
mod basics;
#[path = "redis/cancel.rs"]
mod cancel;
#[path = "redis/child.rs"]
mod child;
#[path = "redis/clock.rs"]
mod clock;
#[path = "redis/crowd.rs"]
mod crowd;
#[path = "redis/failover.rs"]
mod failover;
#[path = "redis/faults.rs"]
mod faults;
#[path = "redis/fork.rs"]
mod fork;
#[path = "redis/gate.rs"]
mod gate;
#[path = "redis/locks.rs"]
mod locks;
#[path = "redis/network.rs"]
mod network;
#[path = "conformance/one_permit.rs"]
mod one_permit;
#[path = "redis/processes.rs"]
mod processes;
#[path = "redis/proxy.rs"]
mod proxy;
#[path = "redis/restart.rs"]
mod restart;
#[path = "redis/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "redis/storm.rs"]
mod storm;
#[path = "conformance/support.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod support;
#[cfg(feature = "redis-tls")]
#[path = "redis/tls.rs"]
mod tls;
#[path = "redis/tokens.rs"]
mod tokens;
#[path = "redis/verdicts.rs"]
mod verdicts;
#[path = "redis/waits.rs"]
mod waits;
