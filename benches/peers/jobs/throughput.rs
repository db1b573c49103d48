//! Eight processes that acquire without pause: grants a second, their order, and how evenly they
//! are shared.

use std::io;

use crate::child::{Call, Child, say, say_table};
use crate::clock::{now, sleep_until};
use crate::order::{Grant, passing, stamped};
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
        grants.extend(mine.into_iter().map(Grant::from_row));
    }
    let inside = grants.iter().filter(|grant| grant.acquired < end).count();
    let per_second = inside as f64 * 1e9 / (end - begin) as f64;
    let out_of_order = passing(&mut grants);
    let share = |part: usize| part as f64 * 100.0 / grants.len().max(1) as f64;
    Ok(vec![per_second, share(out_of_order), share(busiest)])
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
