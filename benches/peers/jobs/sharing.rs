//! The locks that allow several holders: among tasks beside Tokio's, among processes beside the
//! bare system call.

use std::io;

use super::tasks;
use crate::child::Child;
use crate::clock::now;
use crate::order::Grant;
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::subject::Kind;

/// One acquire in five writes.
pub(crate) const RWLOCK: Job = Job {
    name: "rwlock-tasks",
    subjects: &[Kind::RwMixed, Kind::TokioRw],
    rounds: [3, 9],
    metrics: &[
        among("read or write among 8 tasks", Kind::TokioRw),
        among("read or write among 100 tasks", Kind::TokioRw),
    ],
    round: tasks::round,
};

/// Three permits.
pub(crate) const SEMAPHORE: Job = Job {
    name: "semaphore-tasks",
    subjects: &[Kind::Pool, Kind::TokioPool],
    rounds: [3, 9],
    metrics: &[
        among("permit among 8 tasks", Kind::TokioPool),
        among("permit among 100 tasks", Kind::TokioPool),
    ],
    round: tasks::round,
};

pub(crate) const READERS: Job = Job {
    name: "readers",
    subjects: &[Kind::RwReads, Kind::FlockShared],
    rounds: [2, 5],
    metrics: &[Metric {
        name: "reads of 8 processes",
        unit: Unit::PerSecond,
        pick: Pick::Median,
        peer: Some(Kind::FlockShared),
        target: Target::None,
    }],
    round: readers,
};

const PROCESSES: usize = 8;

const fn among(name: &'static str, peer: Kind) -> Metric {
    Metric {
        name,
        unit: Unit::Nanoseconds,
        pick: Pick::Median,
        peer: Some(peer),
        target: Target::AtMostTimesPeer(3.0),
    }
}

fn readers(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let start = |_| Child::start("throughput", kind, &scene.path, &[]);
    let mut children = (0..PROCESSES).map(start).collect::<io::Result<Vec<_>>>()?;
    let begin = now() + 50_000_000;
    let end = begin + scene.amount(200, 500) * 1_000_000;
    for child in &mut children {
        child.tell(&format!("{begin} {end}"))?;
    }
    let mut inside = 0;
    for child in &mut children {
        let grants = child.table()?.into_iter().map(Grant::from_row);
        inside += grants.filter(|grant| grant.acquired < end).count();
    }
    Ok(vec![inside as f64 * 1e9 / (end - begin) as f64])
}
