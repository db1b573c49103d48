//! Stanchion beside its peers, measured in the same run on the same machine.
//!
//! ```text
//! cargo bench --bench peers                      everything, a few minutes
//! cargo bench --bench peers -- --quick           everything with fewer samples, less than a minute
//! cargo bench --bench peers -- --job handover    one job; may be given several times
//! ```
//!
//! # What is measured
//!
//! | job | what |
//! |---|---|
//! | `uncontended` | acquire and release with nobody else there |
//! | `handover` | from just before a release until the task of the next process holds |
//! | `tasks` | hand-over among 8 and among 100 tasks of one process |
//! | `throughput` | 8 processes without pause: grants a second, in which order, shared how evenly |
//! | `onlooker` | from one grant to the next in such a crowd, unwatched and while somebody looks on |
//! | `overtakes` | 12 processes of 12 rounds: how often a grant passes somebody who came earlier |
//! | `crash` | from just before `kill -9` of the holder until the next process holds |
//! | `idle` | processor time of 12 processes that have waited for 11 seconds (half a second in a quick run) |
//! | `crowd` | descriptors, memory, threads and processor time of 10,000 waiting tasks of one process |
//! | `dropping` | futures dropped at random: what is left afterwards |
//! | `plain-uncontended`, `plain-handover` | the first two for the plain file lock in its three ways to wait |
//!
//! The peers are `async-fd-lock` (a blocking thread per waiter), `fd-lock` (its blocking call in `spawn_blocking`), the
//! try-lock of `fs2` with a jittered backoff of 1 to 50 ms, and, inside one process, `tokio::sync::Mutex`. Each peer
//! keeps its file open between rounds where its interface allows that, so it is seen at its best.
//!
//! # How
//!
//! The processes are real ones: this program starts itself again with a role. Whatever is measured runs in a spawned task
//! on a multi-thread runtime with two workers, never on the thread that blocks on the runtime: that is where the code
//! of a service runs, and a wake-up that crosses threads is part of the price. Processes note `CLOCK_MONOTONIC`, the same
//! for all of a host, in memory of their own, and report when the round is over. The subjects take turns within each job, round
//! by round, so that a machine that slows down or warms up does so for all; the figure of a subject is the median of its
//! rounds, or the worst one where a single bad round is a fault. Nothing is asserted: a target that is missed says so in the table.
//!
//! # What the numbers do not say
//!
//! - They hold for one machine and its file system for temporary files (`TMPDIR` chooses another). The ratios travel better
//!   than the figures; few cores for many processes exaggerate the price of every wake-up.
//! - `handover` and `crash` wait a few milliseconds before they release or kill. A backoff is still at its short steps
//!   then; after a longer wait it takes up to its longest step, 50 ms.
//! - Grants a second of locks that barge count one process that takes the lock again and again while the others wait. The
//!   share of the busiest process is given beside it.
//! - Whoever is asked later is "passed" only if the first poll of the earlier one had returned before. `async-fd-lock` and
//!   `fd-lock` have then only sent for a thread that will ask the kernel.
//! - Memory is what the allocator was asked for, the task itself included, but not the stacks of threads; these are in the
//!   resident size, as far as they were touched.
#![allow(clippy::disallowed_methods)] // foreign processes and the clumsy user are played here

#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod heap;
#[cfg(target_os = "linux")]
mod jobs;
#[cfg(target_os = "linux")]
mod order;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod plot;
#[cfg(target_os = "linux")]
mod procfs;
#[cfg(target_os = "linux")]
mod report;
mod shared;
#[cfg(target_os = "linux")]
mod subject;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    plan::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this benchmark reads /proc: it runs on Linux only");
}
