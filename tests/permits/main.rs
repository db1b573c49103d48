//! The semaphore among real processes: counting, order, deaths, stops, other numbers, and Python's
//! `portalocker`.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod cells;
mod counting;
#[path = "../crew/mod.rs"]
mod crew;
mod death;
mod holder;
mod numbers;
mod order;
mod pool;
mod portalocker;
mod sleep;
#[cfg(stanchion_test)]
mod steps;
mod trouble;

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("holder", holder::main)]);
}
