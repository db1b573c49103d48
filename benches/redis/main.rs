//! The locks on a Redis server beside their peers, measured in the same run on a server of the bench's own.
//!
//! ```text
//! cargo bench --features redis --bench redis                     everything, less than ten minutes
//! cargo bench --features redis --bench redis -- --quick          one short round of everything, about two minutes
//! cargo bench --features redis --bench redis -- --job handover   one job; may be given several times
//! ```
//!
//! # What is measured
//!
//! | job | what |
//! |---|---|
//! | `alone` | acquire and release with nobody else there; what of it is processor time of the server |
//! | `handover` | from just before a release until the next *process* holds |
//! | `storm` | 8 processes without pause: grants a second, and the share of the busiest |
//! | `overtakes` | 12 processes of 12 rounds: how often a grant passes somebody who came earlier |
//! | `crash` | from just before `kill -9` of the holder until the next process holds |
//! | `line` | a line of 1,000 tasks of one process: grants a second |
//!
//! | subject | what |
//! |---|---|
//! | `stanchion` | `RedisLock` with its default options |
//! | `no-quarantine` | the same with `quarantine(false)` |
//! | `on-disconnect` | the same with `OnDisconnect::Release` |
//! | `redis-py` | `redis.lock.Lock` of Python's `redis`: retries each 100 ms, its default |
//! | `python-redis-lock` | `redis_lock.Lock`: `SET` and `BLPOP` |
//! | `rslock` | the crate: `SET` with an expiry of ten seconds, tried again after up to 200 ms. Built apart, in `rslock/` |
//!
//! The Python peers live in a virtual environment that the bench makes under the target directory. Where Python or PyPI cannot be had it says so, and
//! leaves them out. They may wait for an answer as long as it takes: the limit that redis-py sets by default ends a `BLPOP` too.
//!
//! # How
//!
//! All, the peers too, speak with one `redis-server` through its Unix socket, without persistence. Each process is a real one, with a connection of its
//! own; the bench tells it by lines what to do. Times are `CLOCK_MONOTONIC`, the same for all of a host. The subjects take turns within each job, round
//! by round, so that a machine that slows down does so for all; a figure is the median of its rounds, or the worst one where a single bad round is a fault.
//! Each round has a lock that nobody used before. Behind a figure stands its ratio to `stanchion`.
//!
//! Before a release or a kill the next process stands in line, as far as the server tells: the queue of ours names it; `BLPOP` counts
//! among the server's blocked clients; who tries again after a delay has had its first answer. Then comes a pause of up to 100 ms, so that the delays of those who try
//! again are met anywhere.
//!
//! For `overtakes` a request has *asked* before its first command was sent, and has *arrived* when the server has certainly seen it: `stanchion` when the
//! `status()` of its client, which follows the request on the same connection, shows it; the others when their first `SET` was answered. A grant passes an earlier one if
//! that had arrived before this one asked, and got the lock later. The pauses between the rounds are random, and the same for all subjects.
//!
//! # What the numbers do not say
//!
//! - A Unix socket has no network in it: over one, the number of round trips counts more.
//! - `redis-py` and `python-redis-lock` set no expiry by default, so a crash would never heal. In `crash` they have ten seconds, as `stanchion`
//!   has always; `python-redis-lock` renews it, `redis-py` does not.
//! - Locks that barge get many grants a second out of one process that takes the lock again while the others sleep.
//! - Python takes its part of each figure. It is what a user of these libraries has.
#![allow(clippy::disallowed_methods)] // It plays many processes.

#[cfg(unix)]
#[path = "../peers/clock.rs"]
#[allow(dead_code)]
mod clock;
#[cfg(unix)]
mod jobs;
#[cfg(unix)]
#[path = "../peers/order.rs"]
#[allow(dead_code)]
mod order;
#[cfg(unix)]
mod plan;
#[cfg(unix)]
mod player;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod python;
mod rslock;
#[cfg(unix)]
#[path = "../../tests/redis/server.rs"]
mod server;
#[cfg(unix)]
#[path = "../../tests/crew/skip.rs"]
mod skip;
#[cfg(unix)]
mod subject;
#[cfg(unix)]
mod table;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    plan::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("this benchmark speaks with the server through a Unix socket");
}
