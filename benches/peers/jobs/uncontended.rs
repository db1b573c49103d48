//! Acquire and release without contention, repeatedly in one task.

use std::io;

use crate::child::{Call, Child, say};
use crate::clock::now;
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::subject::{Kind, Subject};

pub(crate) const JOB: Job = Job {
    name: "uncontended",
    subjects: &Kind::FAIR,
    rounds: [3, 9],
    metrics: &[Metric {
        name: "acquire + release",
        unit: Unit::Nanoseconds,
        pick: Pick::Median,
        peer: Some(Kind::AsyncFdLock),
        target: Target::AtMost(5_000.0),
    }],
    round,
};

pub(super) fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let times = scene.amount(2_000, 5_000);
    let mut child = Child::start("uncontended", kind, &scene.path, &[times])?;
    Ok(vec![child.number()? as f64 / times as f64])
}

pub(crate) async fn child<S: Subject>(call: Call) {
    let times = call.number(0);
    let mut lock = S::open(&call.path);
    // Makes the files, the threads and the buffers that are kept.
    repeat(&mut lock, times / 10).await;
    say("ready");
    let begun = now();
    repeat(&mut lock, times).await;
    say(&(now() - begun).to_string());
}

async fn repeat<S: Subject>(lock: &mut S, times: u64) {
    for _ in 0..times {
        let guard = lock.acquire().await;
        lock.release(guard);
    }
}
