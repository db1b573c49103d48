//! Measures from just before a release until the task of the next process holds.
//!
//! Two processes take turns. The holder reports that it holds, sleeps for two milliseconds, notes
//! the time and releases. On the report, the parent lets the other process acquire, so its wait is
//! long idle when the release comes. No other process runs between the two timestamps.

use std::io;
use std::time::Duration;

use crate::child::{Call, Child, say, say_table};
use crate::clock::{now, quantile};
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::subject::{Kind, Subject};

pub(crate) const JOB: Job = Job {
    name: "handover",
    subjects: &Kind::FILES,
    rounds: [3, 7],
    metrics: &[
        Metric {
            name: "median",
            unit: Unit::Nanoseconds,
            pick: Pick::Median,
            peer: Some(Kind::AsyncFdLock),
            target: Target::AtMostTimesPeer(1.0),
        },
        Metric {
            name: "99th percentile",
            unit: Unit::Nanoseconds,
            pick: Pick::Median,
            peer: Some(Kind::AsyncFdLock),
            target: Target::AtMostTimesPeer(1.5),
        },
    ],
    round,
};

/// The same for what is measured as the floor.
pub(crate) const FLOOR: Job = Job {
    name: "floor",
    subjects: &Kind::FLOOR,
    rounds: [3, 7],
    metrics: &[floor("median"), floor("99th percentile")],
    round,
};

const fn floor(name: &'static str) -> Metric {
    Metric {
        name,
        unit: Unit::Nanoseconds,
        pick: Pick::Median,
        peer: None,
        target: Target::None,
    }
}

/// How long a process holds. The other one must be idle by then.
const HOLD: Duration = Duration::from_millis(2);

pub(super) fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let start = || Child::start("handover", kind, &scene.path, &[]);
    let mut pair = [start()?, start()?];
    let samples = scene.amount(100, 200) as usize;
    let mut turn = 0;
    pair[turn].tell("ask")?;
    for _ in 0..samples {
        pair[turn].expect("holds")?;
        turn = 1 - turn;
        pair[turn].tell("ask")?;
    }
    pair[turn].expect("holds")?;
    let mut holds: Vec<[u64; 2]> = Vec::new();
    for child in &mut pair {
        child.tell("report")?;
        holds.extend(child.table()?);
    }
    holds.sort();
    let waits = holds.windows(2).map(|pair| {
        let ([_, released], [acquired, _]) = (pair[0], pair[1]);
        let wait = acquired.checked_sub(released);
        wait.ok_or_else(|| io::Error::other("two held the lock at once"))
    });
    let waits = waits.collect::<io::Result<Vec<_>>>()?;
    // The first few also pay for threads and files that are made once.
    let waits = waits.iter().skip(samples / 20).map(|wait| *wait as f64);
    let waits: Vec<_> = waits.collect();
    let at = |share| quantile(&waits, share).unwrap_or(f64::NAN);
    Ok(vec![at(0.5), at(0.99)])
}

pub(crate) async fn child<S: Subject>(mut call: Call) {
    let mut lock = S::open(&call.path);
    let mut holds = Vec::new();
    say("ready");
    while call.order().await == "ask" {
        let guard = lock.acquire().await;
        let acquired = now();
        say("holds");
        tokio::time::sleep(HOLD).await;
        let released = now();
        lock.release(guard);
        holds.push([acquired, released]);
    }
    say_table(&holds);
}
