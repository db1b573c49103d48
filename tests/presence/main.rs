//! Locks that exist as a name, among real processes: takeover of a stale lock, deaths between any
//! two steps, stopped holders, foreign records. On Linux, where a process can be proved to be gone.

#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod child;
mod copies;
#[path = "../crew/mod.rs"]
mod crew;
mod crowd;
mod death;
mod drafts;
mod elsewhere;
mod family;
mod foreign;
mod itself;
mod other_users;
mod rubbish;
mod storm;

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("presence", child::main)]);
}
