//! Hand-over among the tasks of one process, which all acquire the lock without pause.

use std::io;
use std::sync::Arc;

use tokio::sync::Barrier;

use crate::child::{Call, Child, say};
use crate::clock::now;
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::subject::{Kind, Subject};

pub(crate) const JOB: Job = Job {
    name: "tasks",
    subjects: &[Kind::Stanchion, Kind::AsyncFdLock, Kind::Tokio],
    rounds: [3, 9],
    metrics: &[
        metric("hand-over among 8 tasks"),
        metric("hand-over among 100 tasks"),
    ],
    round,
};

const fn metric(name: &'static str) -> Metric {
    Metric {
        name,
        unit: Unit::Nanoseconds,
        pick: Pick::Median,
        peer: Some(Kind::Tokio),
        target: Target::AtMostTimesPeer(3.0),
    }
}

pub(super) fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    // Waking a thread for each grant costs a hundred times as much.
    let grants = match kind {
        Kind::AsyncFdLock => scene.amount(2_000, 4_000),
        _ => scene.amount(100_000, 200_000),
    };
    let measure = |tasks: u64| {
        let mut child = Child::start("tasks", kind, &scene.path, &[tasks, grants / tasks])?;
        let spent = child.number()?;
        Ok(spent as f64 / (grants / tasks * tasks) as f64)
    };
    [8, 100].into_iter().map(measure).collect()
}

pub(crate) async fn child<S: Subject>(call: Call) {
    let (tasks, each) = (call.number(0), call.number(1));
    let first = S::open(&call.path);
    let barrier = Arc::new(Barrier::new(tasks as usize));
    let mut handles = Vec::new();
    say("ready");
    for _ in 0..tasks {
        let (mut lock, barrier) = (first.another(), barrier.clone());
        handles.push(tokio::spawn(async move {
            repeat(&mut lock, each / 10).await;
            barrier.wait().await;
            let begun = now();
            repeat(&mut lock, each).await;
            (begun, now())
        }));
    }
    let (mut begun, mut ended) = (u64::MAX, 0);
    for handle in handles {
        let times = handle.await.expect("the task");
        begun = begun.min(times.0);
        ended = ended.max(times.1);
    }
    say(&(ended - begun).to_string());
}

async fn repeat<S: Subject>(lock: &mut S, times: u64) {
    for _ in 0..times {
        let guard = lock.acquire().await;
        lock.release(guard);
    }
}
