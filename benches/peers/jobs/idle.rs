//! Processor time of twelve processes that wait for a thirteenth.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::crash::ask;
use crate::child::Child;
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::procfs::processor_time;
use crate::subject::Kind;

pub(crate) const JOB: Job = Job {
    name: "idle",
    subjects: &Kind::FILES,
    rounds: [1, 1],
    metrics: &[Metric {
        name: "share of a core of 12 waiting processes",
        unit: Unit::Percent,
        pick: Pick::Worst,
        peer: None,
        target: Target::Zero,
    }],
    round,
};

const WAITERS: usize = 12;

fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let mut holder = ask(kind, scene)?;
    holder.number()?;
    let start = |_| ask(kind, scene);
    let waiters = (0..WAITERS).map(start).collect::<io::Result<Vec<_>>>()?;
    // Long enough that the checks of a waiter in its first seconds are over.
    sleep(Duration::from_millis(scene.amount(500, 11_000)));
    let window = Duration::from_millis(scene.amount(1_500, 5_000));
    Ok(vec![share_of_a_core(&waiters, window)?])
}

/// Percent of one core that the processes use together.
pub(super) fn share_of_a_core(children: &[Child], window: Duration) -> io::Result<f64> {
    let used = || -> io::Result<u64> { children.iter().map(|c| processor_time(c.id())).sum() };
    let (before, begun) = (used()?, Instant::now());
    sleep(window);
    let (spent, elapsed) = (used()?.saturating_sub(before), begun.elapsed());
    Ok(spent as f64 * 100.0 / elapsed.as_nanos() as f64)
}
