//! The jobs.

use std::io;
use std::time::Duration;

use crate::clock::{Random, now, quantile};
use crate::order::{Grant, passes};
use crate::plan::Scene;
use crate::process::Process;
use crate::subject::Kind;

/// One job: its rounds give one number for each of its metrics.
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) subjects: &'static [Kind],
    /// Rounds of each subject in a full run; a quick one has one.
    pub(crate) rounds: usize,
    pub(crate) metrics: &'static [(&'static str, Unit)],
    /// Measures one subject once, in the order of `metrics`.
    pub(crate) round: fn(&Scene) -> io::Result<Vec<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    PerSecond,
    Percent,
    Bytes,
    /// The worst round counts, not the median.
    Faults,
}

const EVERYDAY: &[Kind] = &[Kind::Stanchion, Kind::Durable, Kind::Advisory, Kind::Sqlx];

pub(crate) const ALL: [Job; 6] = [
    Job {
        name: "alone",
        subjects: EVERYDAY,
        rounds: 7,
        metrics: &[
            ("acquire + release", Unit::Nanoseconds),
            ("99th percentile", Unit::Nanoseconds),
        ],
        round: alone,
    },
    Job {
        name: "handover",
        subjects: EVERYDAY,
        rounds: 9,
        metrics: &[
            ("median", Unit::Nanoseconds),
            ("90th percentile", Unit::Nanoseconds),
        ],
        round: handover,
    },
    Job {
        name: "storm",
        subjects: EVERYDAY,
        rounds: 5,
        metrics: &[
            ("grants of 8 processes", Unit::PerSecond),
            ("share of the busiest", Unit::Percent),
        ],
        round: storm,
    },
    Job {
        name: "overtakes",
        subjects: EVERYDAY,
        rounds: 3,
        metrics: &[("earlier requests overtaken", Unit::Faults)],
        round: overtakes,
    },
    Job {
        name: "crash",
        subjects: &Kind::ALL,
        rounds: 3,
        metrics: &[("kill -9 until the next holds", Unit::Nanoseconds)],
        round: crash,
    },
    Job {
        name: "bloat",
        subjects: &[Kind::Stanchion],
        rounds: 1,
        metrics: &[
            ("tables after the rounds", Unit::Bytes),
            ("the same after a vacuum", Unit::Bytes),
        ],
        round: bloat,
    },
];

fn alone(scene: &Scene) -> io::Result<Vec<f64>> {
    let rounds = scene.amount(500, 2_000);
    let mut process = scene.start()?;
    process.tell(&format!("alone {}", rounds / 10))?;
    process.hear::<2>("took")?;
    process.tell(&format!("alone {rounds}"))?;
    let [middle, late] = process.hear("took")?;
    Ok(vec![middle as f64, late as f64])
}

/// The longest pause before a release or a kill, in microseconds.
const PAUSE: u64 = 20_000;

fn pause(random: &mut Random) {
    std::thread::sleep(Duration::from_micros(random.below(PAUSE)));
}

fn handover(scene: &Scene) -> io::Result<Vec<f64>> {
    let mut random = Random::new(scene.round);
    let (mut holder, mut next) = (scene.start()?, scene.start()?);
    holder.tell("take")?;
    holder.hear::<1>("held")?;
    let mut times = Vec::new();
    for _ in 0..scene.amount(30, 100) {
        queue(scene, &mut next)?;
        pause(&mut random);
        holder.tell("give")?;
        let [given] = holder.hear("given")?;
        let [held] = next.hear("held")?;
        times.push(between(given, held)?);
        std::mem::swap(&mut holder, &mut next);
    }
    let values = [0.5, 0.9].map(|share| quantile(&times, share));
    Ok(values.map(|it| it.unwrap_or(f64::NAN)).to_vec())
}

/// Requests a lock that is held. Returns when the server shows that the request waits.
fn queue(scene: &Scene, process: &mut Process) -> io::Result<()> {
    process.tell("take")?;
    while scene.waiting() == 0 {}
    Ok(())
}

fn between(before: u64, after: u64) -> io::Result<f64> {
    let time = after.checked_sub(before);
    let time = time.ok_or_else(|| io::Error::other("two held the lock at once"))?;
    Ok(time as f64)
}

fn storm(scene: &Scene) -> io::Result<Vec<f64>> {
    let mut processes = scene.start_many(8)?;
    let begin = now();
    let end = begin + scene.amount(1_000, 2_000) * 1_000_000;
    for process in &mut processes {
        process.tell(&format!("storm {end}"))?;
    }
    let mut counts = Vec::new();
    for process in &mut processes {
        let [count] = process.hear("stormed")?;
        counts.push(count as f64);
    }
    let all: f64 = counts.iter().sum();
    let busiest = counts.iter().copied().fold(0.0, f64::max);
    let seconds = (end - begin) as f64 / 1e9;
    Ok(vec![all / seconds, busiest * 100.0 / all.max(1.0)])
}

const CROWD: usize = 12;
const TURNS: usize = 12;
/// The longest pause of a process between two turns, in microseconds. It is shorter than one turn
/// of all the others, so a queue forms.
const BETWEEN_TURNS: u64 = 20_000;

fn overtakes(scene: &Scene) -> io::Result<Vec<f64>> {
    let mut random = Random::new(scene.round);
    let mut processes = scene.start_many(CROWD)?;
    for process in &mut processes {
        let pauses = (0..TURNS).map(|_| format!(" {}", random.below(BETWEEN_TURNS)));
        process.tell(&format!("turns{}", pauses.collect::<String>()))?;
    }
    let mut grants = Vec::new();
    for process in &mut processes {
        let times = process.hear_all("turned")?;
        grants.extend(
            times
                .as_chunks::<3>()
                .0
                .iter()
                .copied()
                .map(Grant::from_row),
        );
    }
    assert_eq!(grants.len(), CROWD * TURNS);
    Ok(vec![passes(&grants) as f64])
}

fn crash(scene: &Scene) -> io::Result<Vec<f64>> {
    let (mut holder, mut next) = (scene.start()?, scene.start()?);
    holder.tell("take")?;
    holder.hear::<1>("held")?;
    queue(scene, &mut next)?;
    pause(&mut Random::new(scene.round));
    let killed = now();
    holder.kill()?;
    let [held] = next.hear("held")?;
    Ok(vec![between(killed, held)?])
}

/// Rounds without another caller, by four processes on locks of their own.
fn bloat(scene: &Scene) -> io::Result<Vec<f64>> {
    let mut processes = scene.start_many(4)?;
    let rounds = scene.amount(2_000, 10_000);
    for process in &mut processes {
        process.tell(&format!("alone {rounds}"))?;
    }
    for process in &mut processes {
        process.hear::<2>("took")?;
    }
    let after = scene.size();
    scene.server.ask("VACUUM");
    Ok(vec![after, scene.size()])
}
