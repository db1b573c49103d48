//! The locks in a Postgres database. Each test has its own server.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod basics;
mod server;
mod steps;
#[path = "../conformance/support.rs"]
mod support;
