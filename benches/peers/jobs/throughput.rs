//! Eight processes without pause: how many grants a second, in which order, and shared how evenly.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;

use crate::child::{Call, Child, say, say_table};
use crate::clock::{now, sleep_until};
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::subject::{Kind, Subject};

pub(crate) const JOB: Job = Job {
    name: "throughput",
    subjects: &Kind::FILES,
    rounds: [2, 5],
    metrics: &[
        Metric {
            name: "grants of 8 processes",
            unit: Unit::PerSecond,
            pick: Pick::Median,
            peer: Some(Kind::AsyncFdLock),
            target: Target::AtLeastTimesPeer(0.6),
        },
        Metric {
            name: "grants out of order",
            unit: Unit::Percent,
            pick: Pick::Worst,
            peer: None,
            target: Target::AtMost(0.0),
        },
        Metric {
            name: "share of the busiest",
            unit: Unit::Percent,
            pick: Pick::Median,
            peer: None,
            target: Target::None,
        },
    ],
    round,
};

const PROCESSES: usize = 8;

fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let start = |_| Child::start("throughput", kind, &scene.path, &[]);
    let mut children = (0..PROCESSES).map(start).collect::<io::Result<Vec<_>>>()?;
    let begin = now() + 50_000_000;
    let end = begin + scene.amount(300, 1_000) * 1_000_000;
    for child in &mut children {
        child.tell(&format!("{begin} {end}"))?;
    }
    let (mut grants, mut busiest) = (Vec::new(), 0);
    for child in &mut children {
        let mine = child.table()?;
        busiest = busiest.max(mine.len());
        grants.extend(mine.iter().filter_map(|row| Grant::from_row(row)));
    }
    let inside = grants.iter().filter(|grant| grant.acquired < end).count();
    let per_second = inside as f64 * 1e9 / (end - begin) as f64;
    let share = |part: usize| part as f64 * 100.0 / grants.len().max(1) as f64;
    let busiest = share(busiest);
    let passing = passing(&mut grants).iter().filter(|p| **p).count();
    let passing = passing as f64 * 100.0 / grants.len().max(1) as f64;
    Ok(vec![per_second, passing, busiest])
}

/// One turn of a process.
pub(crate) struct Grant {
    /// Just before the first poll.
    pub(crate) asked: u64,
    /// Just after the first poll.
    pub(crate) queued: u64,
    /// Just after the last poll.
    pub(crate) acquired: u64,
}

impl Grant {
    pub(crate) fn from_row(row: &[u64]) -> Option<Self> {
        match *row {
            [asked, queued, acquired] => Some(Self {
                asked,
                queued,
                acquired,
            }),
            _ => None,
        }
    }
}

/// For each grant, in order of time, whether it passed somebody: one who was queued before this one asked got the lock later.
pub(crate) fn passing(grants: &mut [Grant]) -> Vec<bool> {
    grants.sort_by_key(|grant| grant.acquired);
    let mut earliest = u64::MAX;
    let mut passing: Vec<_> = grants
        .iter()
        .rev()
        .map(|grant| {
            let passed = earliest < grant.asked;
            earliest = earliest.min(grant.queued);
            passed
        })
        .collect();
    passing.reverse();
    passing
}

/// Runs an acquire to its end and notes `[asked, queued, acquired]`.
pub(crate) async fn stamped<T>(acquire: impl Future<Output = T>) -> ([u64; 3], T) {
    let mut acquire = pin!(acquire);
    let asked = now();
    let mut queued = None;
    let guard = poll_fn(|context| {
        let outcome = acquire.as_mut().poll(context);
        queued.get_or_insert_with(now);
        outcome
    });
    let guard = guard.await;
    let acquired = now();
    ([asked, queued.unwrap_or(acquired), acquired], guard)
}

pub(crate) async fn child<S: Subject>(mut call: Call) {
    let mut lock = S::open(&call.path);
    say("ready");
    let order = call.order().await;
    let mut words = order.split(' ').map(|word| word.parse().expect("a time"));
    let (begin, end) = words.next().zip(words.next()).expect("two times");
    let mut grants = Vec::with_capacity(1 << 18);
    sleep_until(begin).await;
    while now() < end {
        let (times, guard) = stamped(lock.acquire()).await;
        lock.release(guard);
        grants.push(times);
    }
    say_table(&grants);
}
