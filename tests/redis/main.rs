//! The locks on a Redis server. Each test has its own server, which is a program of Unix.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod address;
#[path = "../servers/basics.rs"]
mod basics;
mod cancel;
#[cfg(feature = "redis-tls")]
#[path = "../servers/certificate.rs"]
mod certificate;
mod changes;
#[path = "../servers/child.rs"]
mod child;
mod clock;
#[path = "../crew/mod.rs"]
mod crew;
mod crowd;
mod failover;
#[path = "../servers/fake_clock.rs"]
mod fake_clock;
mod faults;
mod fork;
mod gate;
mod locks;
mod network;
#[path = "../conformance/one_permit.rs"]
mod one_permit;
mod place;
#[path = "../servers/processes.rs"]
mod processes;
mod proxy;
mod restart;
mod sentinel;
mod server;
#[path = "../servers/faults.rs"]
mod shared_faults;
mod storm;
#[path = "../conformance/support.rs"]
mod support;
#[cfg(feature = "redis-tls")]
mod tls;
mod tokens;
mod verdicts;
mod waits;

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("redis", child::main)]);
}
