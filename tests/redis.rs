//! The locks on a Redis server, each test with a server of its own.

#![allow(clippy::disallowed_methods)] // The tests play those who do what the crate must not.

#[path = "redis/basics.rs"]
mod basics;
#[path = "redis/child.rs"]
mod child;
#[path = "redis/faults.rs"]
mod faults;
#[path = "redis/processes.rs"]
mod processes;
#[path = "redis/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "conformance/support.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod support;
#[path = "redis/tokens.rs"]
mod tokens;
#[path = "redis/waits.rs"]
mod waits;
