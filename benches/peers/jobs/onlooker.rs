//! Eight processes that acquire without pause: what it costs them to be observed.
//!
//! The observer is a process of its own. It follows `changes()` and calls `status()` a hundred
//! times a second. The figure is the time from one grant to the next, over all eight processes.

use std::io;
use std::time::Duration;

use stanchion::FifoLock;

use crate::child::{Call, Child, say};
use crate::clock::{now, quantile};
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::subject::Kind;

pub(crate) const JOB: Job = Job {
    name: "onlooker",
    subjects: &[Kind::Stanchion],
    rounds: [3, 9],
    metrics: &[
        shown("from grant to grant, unwatched", Unit::Nanoseconds),
        shown("from grant to grant, watched", Unit::Nanoseconds),
        shown("its 99th percentile, unwatched", Unit::Nanoseconds),
        shown("its 99th percentile, watched", Unit::Nanoseconds),
        shown("calls of `status` a second", Unit::PerSecond),
    ],
    round,
};

const fn shown(name: &'static str, unit: Unit) -> Metric {
    Metric {
        name,
        unit,
        pick: Pick::Median,
        peer: None,
        target: Target::None,
    }
}

const PROCESSES: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);

fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let start = |_| Child::start("throughput", kind, &scene.path, &[]);
    let length = scene.amount(300, 1_000) * 1_000_000;
    // In turns: the order changes from round to round.
    let mut intervals = [Vec::new(), Vec::new()];
    let mut looks = 0;
    for half in 0..2 {
        let watched = (scene.round + half) % 2 == 1;
        let mut children = (0..PROCESSES).map(start).collect::<io::Result<Vec<_>>>()?;
        let mut onlooker = watched
            .then(|| Child::start("onlooker", kind, &scene.path, &[]))
            .transpose()?;
        let begin = now() + 50_000_000;
        for child in &mut children {
            child.tell(&format!("{begin} {}", begin + length))?;
        }
        let mut grants = Vec::new();
        for child in &mut children {
            grants.extend(child.table()?.into_iter().map(|[_, _, acquired]| acquired));
        }
        if let Some(onlooker) = &mut onlooker {
            onlooker.tell("stop")?;
            looks = onlooker.number()?;
        }
        grants.sort_unstable();
        let pairs = grants.windows(2).map(|pair| (pair[1] - pair[0]) as f64);
        intervals[usize::from(watched)] = pairs.collect();
    }
    let at = |share| {
        intervals
            .each_ref()
            .map(|it| quantile(it, share).unwrap_or(f64::NAN))
    };
    let per_second = looks as f64 * 1e9 / (length + 50_000_000) as f64;
    Ok([&at(0.5)[..], &at(0.99), &[per_second]].concat())
}

pub(crate) async fn child(mut call: Call) {
    let lock = FifoLock::open(&call.path).expect("open");
    let mut changes = lock.changes();
    let mut ticks = tokio::time::interval(PAUSE);
    let mut looks = 0;
    say("ready");
    loop {
        tokio::select! {
            _ = call.order() => break,
            it = changes.next() => drop(it.expect("no end").expect("a change")),
            _ = ticks.tick() => drop(lock.status().expect("a status")),
        }
        looks += 1;
    }
    say(&format!("{looks}"));
}
