//! A hundred and more processes that acquire without pause: grants a second, and the longest wait
//! beside the mean.
//!
//! Each size makes about three thousand grants. Most systems allow a user 128 inotify instances, so
//! most of these processes have none.

use std::io;

use crate::child::{Call, Child, say, say_table};
use crate::clock::{now, sleep_until};
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::subject::{Kind, Subject};

pub(crate) const JOB: Job = Job {
    name: "processes",
    subjects: &[Kind::Stanchion, Kind::AsyncFdLock],
    rounds: [1, 3],
    metrics: &[
        rate("grants of 100 processes"),
        longest("their longest wait, of the mean"),
        rate("grants of 300 processes"),
        longest("their longest wait, of the mean of 300"),
        rate("grants of 500 processes"),
        longest("their longest wait, of the mean of 500"),
    ],
    round,
};

const fn rate(name: &'static str) -> Metric {
    Metric {
        name,
        unit: Unit::PerSecond,
        pick: Pick::Median,
        peer: Some(Kind::AsyncFdLock),
        target: Target::AtLeastTimesPeer(0.15),
    }
}

const fn longest(name: &'static str) -> Metric {
    Metric {
        name,
        unit: Unit::Percent,
        pick: Pick::Worst,
        peer: None,
        target: Target::AtMost(300.0),
    }
}

const SIZES: [u64; 3] = [100, 300, 500];
/// How many grants of all processes together.
const GRANTS: u64 = 3_000;
/// When a process gives up, in nanoseconds after the begin.
const PATIENCE: u64 = 20_000_000_000;

fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let mut values = Vec::new();
    for size in SIZES {
        values.extend(measure(kind, scene, size)?);
    }
    Ok(values)
}

fn measure(kind: Kind, scene: &Scene, size: u64) -> io::Result<[f64; 2]> {
    let path = scene.path.with_extension(format!("{size}.lock"));
    let start = |_| Child::start("processes", kind, &path, &[GRANTS / size]);
    let mut children = (0..size).map(start).collect::<io::Result<Vec<_>>>()?;
    // All processes begin together, so they must know the time before that.
    let begin = now() + (200 + 2 * size) * 1_000_000;
    for child in &mut children {
        child.tell(&begin.to_string())?;
    }
    let mut grants: Vec<[u64; 2]> = Vec::new();
    for child in &mut children {
        grants.extend(child.table::<2>()?);
    }
    let last = grants.iter().map(|it| it[1]).max().unwrap_or(begin);
    let per_second = grants.len() as f64 * 1e9 / last.saturating_sub(begin).max(1) as f64;
    let waits = || {
        grants
            .iter()
            .map(|[asked, acquired]| (acquired - asked) as f64)
    };
    let mean = waits().sum::<f64>() / grants.len().max(1) as f64;
    let longest = waits().fold(0.0, f64::max);
    Ok([per_second, longest * 100.0 / mean])
}

pub(crate) async fn child<S: Subject>(mut call: Call) {
    let mut lock = S::open(&call.path);
    let rounds = call.number(0);
    say("ready");
    let begin: u64 = call.order().await.parse().expect("a time");
    let mut grants = Vec::new();
    sleep_until(begin).await;
    for _ in 0..rounds {
        let asked = now();
        if asked > begin + PATIENCE {
            break;
        }
        let guard = lock.acquire().await;
        let acquired = now();
        lock.release(guard);
        grants.push([asked, acquired]);
    }
    say_table(&grants);
}
