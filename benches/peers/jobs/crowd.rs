//! What ten thousand waiting tasks of one process cost while another process holds the lock.
//!
//! A peer that opens a file for every waiter, or for every attempt, runs out of descriptors
//! earlier. It gets as many tasks as the limit allows, and the table shows how many. Its threads
//! are limited to 512, the default of a runtime. The other tasks do not even wait in the kernel.

use std::io;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::crash::ask;
use super::idle::share_of_a_core;
use crate::child::{Call, Child, say};
use crate::heap;
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::procfs::{descriptors, resident, threads};
use crate::subject::{Kind, Subject};

pub(crate) const JOB: Job = Job {
    name: "crowd",
    subjects: &[Kind::Stanchion, Kind::AsyncFdLock, Kind::Fs2, Kind::Tokio],
    rounds: [1, 3],
    metrics: &[
        metric("waiting tasks", Unit::Count, Target::None),
        metric("their descriptors", Unit::Count, Target::AtMost(16.0)),
        Metric {
            peer: Some(Kind::Tokio),
            ..metric(
                "heap of each, with the task",
                Unit::Bytes,
                Target::AtMost(1_024.0),
            )
        },
        Metric {
            peer: Some(Kind::Tokio),
            ..metric("resident memory of each", Unit::Bytes, Target::None)
        },
        metric("threads for them", Unit::Count, Target::None),
        metric(
            "share of a core while they wait",
            Unit::Percent,
            Target::Zero,
        ),
    ],
    round,
};

const fn metric(name: &'static str, unit: Unit, target: Target) -> Metric {
    Metric {
        name,
        unit,
        pick: Pick::Worst,
        peer: None,
        target,
    }
}

const CROWD: u64 = 10_000;
/// How long the tasks have to go idle.
const SETTLE: Duration = Duration::from_millis(500);

fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let tasks = match kind {
        Kind::AsyncFdLock => CROWD.min(limit.saturating_sub(2_000) / 2),
        Kind::FdLock | Kind::Fs2 => CROWD.min(limit.saturating_sub(2_000)),
        // Waiters of the others share what they wait with.
        _ => CROWD,
    };
    let mut holder = ask(kind, scene)?;
    holder.number()?;
    let mut child = Child::start("crowd", kind, &scene.path, &[tasks])?;
    let before = Size::of(&child)?;
    child.tell("wait")?;
    let heap = child.number()?;
    let after = Size::of(&child)?;
    let window = Duration::from_millis(scene.amount(1_500, 4_000));
    let processor = share_of_a_core(slice::from_ref(&child), window)?;
    let each = |total: f64| total / tasks as f64;
    Ok(vec![
        tasks as f64,
        after.descriptors - before.descriptors,
        each(heap as f64),
        each(after.resident - before.resident),
        after.threads - before.threads,
        processor,
    ])
}

struct Size {
    descriptors: f64,
    resident: f64,
    threads: f64,
}

impl Size {
    fn of(child: &Child) -> io::Result<Self> {
        Ok(Self {
            descriptors: descriptors(child.id())? as f64,
            resident: resident(child.id())? as f64,
            threads: threads(child.id())? as f64,
        })
    }
}

pub(crate) async fn child<S: Subject>(mut call: Call) {
    let tasks = call.number(0);
    raise_limit();
    let mut first = S::open(&call.path);
    // The process that holds is no obstacle for a lock in memory.
    let guard = if S::IN_PROCESS {
        Some(first.acquire().await)
    } else {
        None
    };
    let asked = Arc::new(AtomicU64::new(0));
    say("ready");
    call.order().await;
    heap::start_counting();
    for _ in 0..tasks {
        let (mut lock, asked) = (first.another(), asked.clone());
        tokio::spawn(async move {
            asked.fetch_add(1, Ordering::Relaxed);
            let guard = lock.acquire().await;
            lock.release(guard);
        });
    }
    while asked.load(Ordering::Relaxed) < tasks {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(SETTLE).await;
    say(&heap::counted().to_string());
    call.order().await;
    drop(guard);
}

/// Asks for as many descriptors as this process may have.
fn raise_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("setrlimit");
}
