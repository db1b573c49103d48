//! The program `stanchion`, as a shell sees it: real processes, exit codes, signals, terminals.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

#[path = "../crew/mod.rs"]
mod crew;
mod database;
mod far;
mod flock;
mod inherit;
mod kinds;
mod kinds_look;
mod look;
mod methods;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod namespaces;
#[cfg(feature = "postgres")]
#[path = "../postgres/server.rs"]
mod postgres_server;
mod process;
mod program;
#[path = "../processes/queue.rs"]
mod queue;
#[cfg(feature = "redis")]
#[path = "../redis/server.rs"]
mod redis_server;
mod run;
mod signals;
mod sweep;
#[path = "../processes/taker.rs"]
mod taker;
mod terminal;
mod url;
mod wrong;

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("taker", taker::main)]);
}
