//! The semaphore among real processes: counting, order, deaths, stops, other numbers, and Python's `portalocker`.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // The tests play those who do what the crate must not.

#[path = "crew/skip.rs"]
#[macro_use]
mod skip;

#[path = "permits/cells.rs"]
mod cells;
#[path = "permits/counting.rs"]
mod counting;
#[path = "permits/crew.rs"]
mod crew;
#[path = "permits/death.rs"]
mod death;
#[path = "permits/holder.rs"]
mod holder;
#[path = "permits/numbers.rs"]
mod numbers;
#[path = "permits/order.rs"]
mod order;
#[path = "permits/portalocker.rs"]
mod portalocker;
#[path = "permits/sleep.rs"]
mod sleep;
#[cfg(stanchion_test)]
#[path = "permits/steps.rs"]
mod steps;
#[path = "permits/trouble.rs"]
mod trouble;
