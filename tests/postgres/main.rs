//! The locks in a Postgres database. Each test has its own server, which is a program of Unix.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod assertions;
#[path = "../servers/basics.rs"]
mod basics;
#[cfg(all(feature = "postgres-tls", target_os = "linux"))]
#[path = "../servers/certificate.rs"]
mod certificate;
#[path = "../servers/child.rs"]
mod child;
mod clock;
#[path = "../crew/mod.rs"]
mod crew;
mod crowd;
#[path = "../servers/fake_clock.rs"]
mod fake_clock;
mod faults;
mod lent;
mod limits;
mod place;
mod pooler;
#[path = "../servers/processes.rs"]
mod processes;
mod restart;
mod server;
#[path = "../servers/faults.rs"]
mod shared_faults;
mod steps;
#[path = "../conformance/support.rs"]
mod support;
// It needs many loopback addresses.
#[cfg(all(feature = "postgres-tls", target_os = "linux"))]
mod tls;

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("postgres", child::main)]);
}
