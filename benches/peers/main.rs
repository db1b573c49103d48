//! Stanchion beside its peers, measured in the same run on the same machine.
//!
//! ```text
//! cargo bench --bench peers                      everything, a few minutes
//! cargo bench --bench peers -- --quick           everything with fewer samples, less than a minute
//! cargo bench --bench peers -- --job handover    one job; may be given several times
//! cargo bench --bench peers -- --busy            with a busy loop beside it for each core
//! cargo bench --bench peers -- --rounds 100 --subject stanchion --job overtakes
//! ```
//!
//! # What is measured
//!
//! | job | what |
//! |---|---|
//! | `uncontended` | acquire and release without contention |
//! | `handover` | from just before a release until the task of the next process holds |
//! | `tasks` | hand-over among 8 and among 100 tasks of one process |
//! | `throughput` | 8 processes without pause: grants a second, their order, how evenly they are shared |
//! | `processes` | 100, 300 and 500 processes without pause: grants a second, the longest wait |
//! | `onlooker` | from one grant to the next among such processes, with and without an observer |
//! | `overtakes` | 12 processes of 12 rounds: how often a grant overtakes an earlier request |
//! | `crash` | from just before `kill -9` of the holder until the next process holds |
//! | `idle` | processor time of 12 processes that have waited for 11 seconds (half a second in a quick run) |
//! | `crowd` | descriptors, memory, threads and processor time of 10,000 waiting tasks of one process |
//! | `dropping` | futures dropped at random: what is left at the end |
//! | `floor` | a hand-over by a pipe, and by one file event: the least that any lock costs |
//! | `cost` | system calls and instructions of an acquisition, where `strace` and `perf` can count them |
//! | `plain-uncontended`, `plain-handover` | the first two for the plain file lock with its three ways to wait |
//!
//! The peers are:
//!
//! - `async-fd-lock`: a blocking thread for each waiter.
//! - `fd-lock`: its blocking call in `spawn_blocking`.
//! - `fs2`: its try-lock with a jittered backoff of 1 to 50 ms.
//! - Inside one process, `tokio::sync::Mutex`.
//!
//! Each peer keeps its file open between rounds if its interface allows that.
//!
//! # How
//!
//! The processes are real: this program starts itself again with a role. The measured code runs in
//! a spawned task on a multi-thread runtime with two workers, as the code of a service does. It
//! never runs on the thread that blocks on the runtime. So a wake-up across threads is part of the
//! cost.
//!
//! Processes note `CLOCK_MONOTONIC`, which all processes of a host share, in their own memory. They
//! report when the round is over. The subjects take turns within each job, round by round, so a
//! change of the machine's speed affects all of them. The figure of a subject is the median of its
//! rounds, or the worst round where one bad round is a fault. Nothing is asserted: the table shows
//! which targets are missed.
//!
//! # What the numbers do not say
//!
//! - They hold for one machine and its file system for temporary files (`TMPDIR` chooses another).
//!   The ratios carry over better than the figures. A machine with few cores for many processes
//!   exaggerates the cost of every wake-up.
//! - `handover` and `crash` wait a few milliseconds before they release or kill. A backoff is still
//!   at its short steps then. After a longer wait it takes up to its longest step, 50 ms.
//! - A lock without order gets many grants a second when one process takes it again and again while
//!   the others wait. The share of the busiest process is shown beside it.
//! - A later request overtakes an earlier one only if the first poll of the earlier one had
//!   returned before. At that time `async-fd-lock` and `fd-lock` have only asked for a thread that
//!   will call the kernel.
//! - Memory is what the allocator was asked for, including the task itself but not the stacks of
//!   threads. The stacks are in the resident size, as far as they were touched.
#![allow(clippy::disallowed_methods)] // foreign processes and the clumsy user are played here

#[cfg(any(target_os = "linux", target_os = "android"))]
mod child;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod clock;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod floor;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod heap;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod jobs;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod order;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod plan;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod plot;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod procfs;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod report;
mod shared;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod subject;

#[cfg(any(target_os = "linux", target_os = "android"))]
fn main() -> std::process::ExitCode {
    plan::main()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn main() {
    eprintln!("this benchmark reads /proc: it runs on Linux only");
}
