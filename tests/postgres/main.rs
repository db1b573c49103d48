//! The locks in a Postgres database. Each test has its own server.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod assertions;
mod basics;
mod child;
#[path = "../crew/mod.rs"]
mod crew;
mod faults;
mod pooler;
mod processes;
mod restart;
mod server;
mod steps;
#[path = "../conformance/support.rs"]
mod support;

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("postgres", child::main)]);
}
