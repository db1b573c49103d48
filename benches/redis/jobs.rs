//! The jobs: the part of the bench. The part of the processes is in `player.rs` and `peer.py`.

use std::io;
use std::time::Duration;

use crate::clock::{Random, now, quantile};
use crate::order::{Grant, passes, passing};
use crate::plan::{Job, Metric, Pick, Scene, Unit};
use crate::process::Process;
use crate::subject::Kind;

pub(crate) const ALL: [&Job; 6] = [&ALONE, &HANDOVER, &STORM, &OVERTAKES, &CRASH, &LINE];

const EVERYDAY: [Kind; 5] = [
    Kind::Stanchion,
    Kind::NoQuarantine,
    Kind::RedisPy,
    Kind::PythonRedisLock,
    Kind::Rslock,
];

const fn metric(name: &'static str, unit: Unit, pick: Pick) -> Metric {
    Metric { name, unit, pick }
}

const ALONE: Job = Job {
    name: "alone",
    subjects: &EVERYDAY,
    rounds: 7,
    metrics: &[
        metric("acquire + release", Unit::Nanoseconds, Pick::Median),
        metric("99th percentile", Unit::Nanoseconds, Pick::Median),
        metric("of the server", Unit::Nanoseconds, Pick::Median),
    ],
    round: alone,
};

fn alone(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let rounds = scene.amount(500, 2_000);
    let mut process = Process::start(kind, scene)?;
    process.tell(&format!("alone {}", rounds / 10))?;
    process.hear::<2>("took")?;
    let before = scene.processor_time()?;
    process.tell(&format!("alone {rounds}"))?;
    let [middle, late] = process.hear("took")?;
    let spent = (scene.processor_time()? - before) / rounds as f64;
    Ok(vec![middle as f64, late as f64, spent])
}

const HANDOVER: Job = Job {
    name: "handover",
    subjects: &EVERYDAY,
    rounds: 7,
    metrics: &[
        metric("median", Unit::Nanoseconds, Pick::Median),
        metric("90th percentile", Unit::Nanoseconds, Pick::Median),
    ],
    round: handover,
};

/// The longest pause before a release or a kill, in microseconds.
const PAUSE: u64 = 100_000;

fn pause(random: &mut Random) {
    std::thread::sleep(Duration::from_micros(random.below(PAUSE)));
}

fn handover(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let mut random = Random::new(scene.round);
    let mut holder = Process::start(kind, scene)?;
    let mut next = Process::start(kind, scene)?;
    holder.hold()?;
    let mut times = Vec::new();
    for _ in 0..scene.amount(20, 50) {
        next.queue(scene)?;
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

fn between(before: u64, after: u64) -> io::Result<f64> {
    let time = after.checked_sub(before);
    let time = time.ok_or_else(|| io::Error::other("two held the lock at once"))?;
    Ok(time as f64)
}

const STORM: Job = Job {
    name: "storm",
    subjects: &EVERYDAY,
    rounds: 7,
    metrics: &[
        metric("grants of 8 processes", Unit::PerSecond, Pick::Median),
        metric("share of the busiest", Unit::Percent, Pick::Median),
    ],
    round: storm,
};

fn storm(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let mut processes = Process::start_many(kind, scene, 8)?;
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

const OVERTAKES: Job = Job {
    name: "overtakes",
    subjects: &EVERYDAY,
    rounds: 3,
    metrics: &[
        metric("earlier requests overtaken", Unit::Count, Pick::Worst),
        metric("grants that overtook, of 144", Unit::Count, Pick::Worst),
        metric("requests that waited", Unit::Count, Pick::Median),
    ],
    round: overtakes,
};

const CROWD: usize = 12;
const TURNS: usize = 12;
/// The longest pause of a process between two turns, in microseconds. It is shorter than one turn
/// of all the others, so a queue forms.
const BETWEEN_TURNS: u64 = 20_000;

fn overtakes(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let mut random = Random::new(scene.round);
    let mut processes = Process::start_many(kind, scene, CROWD)?;
    for process in &mut processes {
        let pauses = (0..TURNS).map(|_| format!(" {}", random.below(BETWEEN_TURNS)));
        process.tell(&format!("turns{}", pauses.collect::<String>()))?;
    }
    let (mut grants, mut waited) = (Vec::new(), 0);
    for process in &mut processes {
        let times = process.hear_all("turned")?;
        let (rows, _) = times.as_chunks::<3>();
        waited += rows.iter().filter(|row| row[1] < row[2]).count();
        grants.extend(rows.iter().copied().map(Grant::from_row));
    }
    if grants.len() != CROWD * TURNS {
        let text = format!("{} grants instead of {}", grants.len(), CROWD * TURNS);
        return Err(io::Error::other(text));
    }
    let passed = passes(&grants);
    let counts = [passed, passing(&mut grants), waited];
    Ok(counts.map(|it| it as f64).to_vec())
}

pub(crate) const CRASH: Job = Job {
    name: "crash",
    subjects: &Kind::ALL,
    rounds: 3,
    metrics: &[metric(
        "kill -9 until the next holds",
        Unit::Nanoseconds,
        Pick::Median,
    )],
    round: crash,
};

fn crash(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let mut holder = Process::start(kind, scene)?;
    let mut next = Process::start(kind, scene)?;
    holder.hold()?;
    next.queue(scene)?;
    pause(&mut Random::new(scene.round));
    let killed = now();
    holder.kill()?;
    let [held] = next.hear("held")?;
    Ok(vec![between(killed, held)?])
}

const LINE: Job = Job {
    name: "line",
    subjects: &[Kind::Stanchion, Kind::NoQuarantine],
    rounds: 7,
    metrics: &[metric(
        "grants in a line of 1,000 tasks",
        Unit::PerSecond,
        Pick::Median,
    )],
    round: line,
};

fn line(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let mut process = Process::start(kind, scene)?;
    process.tell("line 1000")?;
    let [took] = process.hear("took")?;
    Ok(vec![1_000.0 * 1e9 / took as f64])
}
