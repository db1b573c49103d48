//! Futures dropped at random, in the tasks of two processes that use the same lock: what is left at
//! the end.

use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;
use std::thread::sleep;
use std::time::Duration;

use crate::child::{Call, Child, say};
use crate::clock::Random;
use crate::plan::{Job, Metric, NOT_MEASURED, Pick, Scene, Target, Unit};
use crate::procfs::descriptors;
use crate::subject::{Kind, Subject};

pub(crate) const JOB: Job = Job {
    name: "dropping",
    subjects: &[Kind::Stanchion, Kind::AsyncFdLock],
    rounds: [1, 2],
    metrics: &[
        Metric {
            target: Target::None,
            pick: Pick::Median,
            ..metric("of 20,000 futures, dropped while waiting")
        },
        metric("tickets left after them"),
        metric("descriptors left after them"),
        metric("locks left behind"),
    ],
    round,
};

const fn metric(name: &'static str) -> Metric {
    Metric {
        name,
        unit: Unit::Count,
        pick: Pick::Worst,
        peer: None,
        target: Target::AtMost(0.0),
    }
}

/// For all tasks together. The same number in a quick run, because the table shows it.
const ROUNDS: u64 = 20_000;
const PROCESSES: u64 = 2;
const TASKS: u64 = 4;
/// Time for the threads of a peer that still wait for dropped futures, and for files that are kept
/// a moment for the next ticket.
const SETTLE: Duration = Duration::from_secs(1);

fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let start = |index| {
        let seed = scene.round * PROCESSES + index;
        Child::start("dropping", kind, &scene.path, &[seed])
    };
    let mut children = (0..PROCESSES).map(start).collect::<io::Result<Vec<_>>>()?;
    // Opens now what is opened once and stays open.
    drop_some(&mut children, 400)?;
    let before = open(&children)?;
    let dropped = drop_some(&mut children, ROUNDS)?;
    let after = open(&children)?;
    let tickets = match kind {
        Kind::Stanchion => tickets(&scene.path)? as f64,
        _ => NOT_MEASURED,
    };
    let left = f64::from(u8::from(is_locked(&scene.path)?));
    let descriptors = after.saturating_sub(before) as f64;
    Ok(vec![dropped as f64, tickets, descriptors, left])
}

/// Runs the processes, and returns how many futures they dropped while these waited.
fn drop_some(children: &mut [Child], rounds: u64) -> io::Result<u64> {
    for child in children.iter_mut() {
        child.tell(&(rounds / PROCESSES / TASKS).to_string())?;
    }
    let mut dropped = 0;
    for child in children {
        dropped += child.number()?;
    }
    sleep(SETTLE);
    Ok(dropped)
}

fn open(children: &[Child]) -> io::Result<usize> {
    children.iter().map(|child| descriptors(child.id())).sum()
}

/// Returns how many files the queue on disk has, except its state record.
fn tickets(path: &Path) -> io::Result<usize> {
    let mut queue = PathBuf::from(path).into_os_string();
    queue.push(".queue");
    let mut count = 0;
    for entry in std::fs::read_dir(queue)? {
        count += usize::from(entry?.file_name() != "state");
    }
    Ok(count)
}

fn is_locked(path: &Path) -> io::Result<bool> {
    let file = std::fs::File::open(path)?;
    match fs2::FileExt::try_lock_exclusive(&file) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => Ok(true),
        Err(error) => Err(error),
    }
}

pub(crate) async fn child<S: Subject>(mut call: Call) {
    let first = S::open(&call.path);
    let mut seed = call.number(0) * 1_000_000;
    say("ready");
    loop {
        let rounds: u64 = call.order().await.parse().expect("a number");
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                seed += 1;
                tokio::spawn(play(first.another(), rounds, Random::new(seed)))
            })
            .collect();
        let mut dropped = 0;
        for task in tasks {
            dropped += task.await.expect("the task");
        }
        say(&dropped.to_string());
    }
}

/// Returns how many futures were dropped while they waited.
async fn play<S: Subject>(mut lock: S, rounds: u64, mut random: Random) -> u64 {
    let mut dropped = 0;
    for _ in 0..rounds {
        match attempt(&mut lock, &mut random).await {
            End::Held(guard) => {
                for _ in 0..random.below(4) {
                    tokio::task::yield_now().await;
                }
                lock.release(guard);
            }
            End::Dropped => dropped += 1,
            End::Unused => {}
        }
    }
    dropped
}

/// The end of a future.
enum End<G> {
    Held(G),
    /// After its first poll.
    Dropped,
    /// Before its first poll.
    Unused,
}

/// An acquire that completes, or is dropped before its first poll, after a few polls, or after a
/// while.
async fn attempt<S: Subject>(lock: &mut S, random: &mut Random) -> End<S::Guard> {
    match random.below(8) {
        0..4 => {
            let polls = random.below(4);
            let mut acquire = pin!(lock.acquire());
            for _ in 0..polls {
                let polled = poll_fn(|context| Poll::Ready(acquire.as_mut().poll(context)));
                if let Poll::Ready(guard) = polled.await {
                    return End::Held(guard);
                }
                tokio::task::yield_now().await;
            }
            if polls > 0 { End::Dropped } else { End::Unused }
        }
        4..6 => {
            let limit = Duration::from_micros(random.below(1_500));
            let outcome = tokio::time::timeout(limit, lock.acquire()).await;
            outcome.map_or(End::Dropped, End::Held)
        }
        _ => End::Held(lock.acquire().await),
    }
}
