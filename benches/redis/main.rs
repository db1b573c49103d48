//! The locks on a Redis server beside their peers, measured in the same run on one server of the
//! bench.
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
//! | `alone` | acquire and release without contention; the server's processor time for it |
//! | `handover` | from just before a release until the next *process* holds |
//! | `storm` | 8 processes without pause: grants a second, and the share of the busiest |
//! | `overtakes` | 12 processes of 12 rounds: how often a grant overtakes an earlier request |
//! | `crash` | from just before `kill -9` of the holder until the next process holds |
//! | `line` | a queue of 1,000 tasks of one process: grants a second |
//!
//! | subject | what |
//! |---|---|
//! | `stanchion` | `RedisLock` with its default options |
//! | `no-quarantine` | the same with `quarantine(false)` |
//! | `on-disconnect` | the same with `OnDisconnect::Release` |
//! | `redis-py` | `redis.lock.Lock` of Python's `redis`: retries each 100 ms, its default |
//! | `python-redis-lock` | `redis_lock.Lock`: `SET` and `BLPOP` |
//! | `rslock` | the crate: `SET` with an expiry of ten seconds, repeated after up to 200 ms. A separate build, in `rslock/` |
//!
//! The Python peers are in a virtual environment that the bench makes under the target directory.
//! If Python or PyPI is not available, the bench prints that and leaves them out. They wait for an
//! answer without limit, because the limit that redis-py sets by default ends a `BLPOP` too.
//!
//! # How
//!
//! All subjects use the same `redis-server` through its Unix socket, without persistence. Each
//! process is real, and has its own connection. The bench sends it orders as lines. Times are
//! `CLOCK_MONOTONIC`, which all processes of a host share. The subjects take turns within each job,
//! round by round, so a change of the machine's speed affects all of them. A figure is the median
//! of its rounds, or the worst round where one bad round is a fault. Each round uses a new lock.
//! Each figure is followed by its ratio to `stanchion`.
//!
//! Before a release or a kill, the bench waits until the next process is queued. For `stanchion`,
//! the queue on the server shows it. For `BLPOP`, the server counts it among its blocked clients. A
//! peer that retries after a delay has had its first answer. Then follows a pause of up to 100 ms,
//! so that the release falls anywhere within the delay of such a peer.
//!
//! For `overtakes`, a request is *asked* just before its first command is sent. It has *arrived*
//! when the server has certainly received it. For `stanchion` that is when the `status()` of its
//! client shows it, because this call follows the request on the same connection. For the others
//! that is when their first `SET` was answered. A grant overtakes an earlier request if that had
//! arrived before this one was asked, and acquired later. The pauses between the rounds are random,
//! and the same for all subjects.
//!
//! # What the numbers do not say
//!
//! - There is no network in a Unix socket. Over a network, the number of round trips counts more.
//! - `redis-py` and `python-redis-lock` set no expiry by default, so the lock of a dead holder
//!   would never be free. In `crash` they have ten seconds, as `stanchion` always has.
//!   `python-redis-lock` renews the lock, `redis-py` does not.
//! - A lock without order gets many grants a second when one process takes it again and again while
//!   the others sleep.
//! - Python is a part of each figure of its libraries, as it is for their users.
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
mod python;
#[cfg(unix)]
#[path = "../../tests/redis/server.rs"]
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
    servers::plan::main::<bench::Redis>()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("this benchmark speaks with the server through a Unix socket");
}
