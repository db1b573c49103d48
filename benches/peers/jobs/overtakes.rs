//! Twelve processes of twelve rounds with random pauses: how often a grant overtakes an earlier
//! request.

use std::io;
use std::time::Duration;

use crate::child::{Call, Child, say, say_table};
use crate::clock::Random;
use crate::order::{Grant, passes, passing, stamped};
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::subject::{Kind, Subject};

pub(crate) const JOB: Job = Job {
    name: "overtakes",
    subjects: &Kind::FILES,
    rounds: [1, 5],
    metrics: &[
        metric("earlier requests overtaken"),
        metric("grants that overtook, of 144"),
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

const PROCESSES: u64 = 12;
const TURNS: u64 = 12;
const HOLD: Duration = Duration::from_millis(2);
/// The longest pause of a process between two turns, in microseconds. It is shorter than one turn
/// of all the others, so a queue forms.
const PAUSE: u64 = 20_000;

fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let start = |index| {
        let seed = scene.round * PROCESSES + index;
        Child::start("overtakes", kind, &scene.path, &[seed])
    };
    let mut children = (0..PROCESSES).map(start).collect::<io::Result<Vec<_>>>()?;
    for child in &mut children {
        child.tell("go")?;
    }
    let mut grants = Vec::new();
    for child in &mut children {
        grants.extend(child.table()?.into_iter().map(Grant::from_row));
    }
    let passes = passes(&grants);
    Ok(vec![passes as f64, passing(&mut grants) as f64])
}

pub(crate) async fn child<S: Subject>(mut call: Call) {
    let mut random = Random::new(call.number(0));
    let mut lock = S::open(&call.path);
    let mut turns = Vec::new();
    say("ready");
    call.order().await;
    for _ in 0..TURNS {
        tokio::time::sleep(Duration::from_micros(random.below(PAUSE))).await;
        let (times, guard) = stamped(lock.acquire()).await;
        tokio::time::sleep(HOLD).await;
        lock.release(guard);
        turns.push(times);
    }
    say_table(&turns);
}
