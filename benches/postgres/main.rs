//! The locks in a Postgres database beside advisory locks, measured in the same run on one server
//! of the bench.
//!
//! ```text
//! cargo bench --features postgres --bench postgres                     everything, a few minutes
//! cargo bench --features postgres --bench postgres -- --quick          one short round of everything
//! cargo bench --features postgres --bench postgres -- --job handover   one job; may be given several times
//! ```
//!
//! # What is measured
//!
//! | job | what |
//! |---|---|
//! | `alone` | acquire and release without contention |
//! | `handover` | from just before a release until the next *process* holds |
//! | `storm` | 8 processes without pause: grants a second, and the share of the busiest |
//! | `overtakes` | 12 processes of 12 rounds: how many earlier requests are overtaken |
//! | `crash` | from just before `kill -9` of the holder until the next process holds |
//! | `bloat` | 40,000 rounds of 4 processes, each on a lock of its own: the size of the tables with their indexes |
//!
//! | subject | what |
//! |---|---|
//! | `stanchion` | `PgLock` with its default options |
//! | `durable` | the same with `durable(true)` |
//! | `on-disconnect` | the same with `OnDisconnect::Release` |
//! | `advisory` | `pg_advisory_lock` through the same driver, by prepared statements, on a connection for each waiter |
//! | `sqlx` | `PgAdvisoryLock` of sqlx. A separate build, in `sqlx/` |
//!
//! # How
//!
//! All subjects use the same server through its Unix socket. Each process is real, and has its own
//! connections. The bench sends it orders as lines. Times are `CLOCK_MONOTONIC`, which all
//! processes of a host share. The subjects take turns within each job, round by round, so a change
//! of the machine's speed affects all of them. A figure is the median of its rounds, or the worst
//! round where one bad round is a fault. Each round uses a new lock.
//!
//! Before a release or a kill, the bench waits until the server shows that the next process waits.
//! Then follows a pause of up to 20 ms.
//!
//! For `overtakes`, a request is *asked* just before its call. It has *arrived* when the server has
//! certainly received it: `status()` or `pg_locks` shows that it waits. A grant overtakes an
//! earlier request if that had arrived before this one was asked, and acquired later.
//!
//! # What the numbers do not say
//!
//! - There is no network in a Unix socket. Over a network, the number of round trips counts more.
//!   All subjects need one round trip for an acquire, and one for a release.
//! - An advisory lock costs a connection for each waiter, and has no tokens and no leases.
#![allow(clippy::disallowed_methods)] // It plays many processes.

#[cfg(unix)]
mod bench;
#[cfg(unix)]
#[path = "../peers/clock.rs"]
#[allow(dead_code)]
mod clock;
#[cfg(unix)]
#[path = "../peers/order.rs"]
#[allow(dead_code)]
mod order;
#[cfg(unix)]
#[path = "../../tests/postgres/server.rs"]
mod server;
#[cfg(unix)]
#[path = "../servers/mod.rs"]
mod servers;
#[cfg(unix)]
#[path = "../../tests/crew/skip.rs"]
mod skip;
#[cfg(unix)]
mod subject;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    servers::plan::main::<bench::Postgres>()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("this benchmark speaks with the server through a Unix socket");
}
