//! Locks that exist as a name, among real processes: breakers of a stale lock, deaths between any two steps, stopped holders, foreign
//! records. On Linux, where a process can be told to be gone.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods)] // The tests play those who do what the crate must not.

#[path = "crew/skip.rs"]
#[macro_use]
mod skip;

#[path = "presence/child.rs"]
mod child;
#[path = "presence/copies.rs"]
mod copies;
#[path = "presence/death.rs"]
mod death;
#[path = "presence/drafts.rs"]
mod drafts;
#[path = "presence/elsewhere.rs"]
mod elsewhere;
#[path = "presence/family.rs"]
mod family;
#[path = "presence/foreign.rs"]
mod foreign;
#[path = "presence/itself.rs"]
mod itself;
#[path = "presence/other_users.rs"]
mod other_users;
#[path = "presence/rubbish.rs"]
mod rubbish;
#[path = "presence/storm.rs"]
mod storm;
