//! The jobs of all benches: the part of the bench. The part of the processes is in `player.rs`.

use std::io;
use std::time::Duration;

use super::plan::{Bench, Scene};
use crate::clock::{Random, now, quantile};
use crate::order::{Grant, passes, passing};

const CROWD: usize = 12;
const TURNS: usize = 12;
/// The longest pause of a process between two turns, in microseconds. It is shorter than one turn
/// of all the others, so a queue forms.
const BETWEEN_TURNS: u64 = 20_000;

/// Acquires and releases without contention: the median, the 99th percentile, and the processor
/// time of the server.
pub(crate) fn alone<B: Bench>(scene: &Scene<'_, B>) -> io::Result<Vec<f64>> {
    let rounds = scene.amount(500, 2_000);
    let mut process = scene.start()?;
    process.tell(&format!("alone {}", rounds / 10))?;
    process.hear::<2>("took")?;
    let before = scene.bench.processor_time()?;
    process.tell(&format!("alone {rounds}"))?;
    let [middle, late] = process.hear("took")?;
    let after = scene.bench.processor_time()?;
    let spent = before.zip(after);
    let spent = spent.map(|(before, after)| (after - before) / rounds as f64);
    Ok([middle as f64, late as f64]
        .into_iter()
        .chain(spent)
        .collect())
}

fn pause<B: Bench>(random: &mut Random) {
    std::thread::sleep(Duration::from_micros(random.below(B::PAUSE)));
}

fn between(before: u64, after: u64) -> io::Result<f64> {
    let time = after.checked_sub(before);
    let time = time.ok_or_else(|| io::Error::other("two held the lock at once"))?;
    Ok(time as f64)
}

/// From just before a release until the next process holds: the median and the 90th percentile.
pub(crate) fn handover<B: Bench>(scene: &Scene<'_, B>) -> io::Result<Vec<f64>> {
    let mut random = Random::new(scene.round);
    let (mut holder, mut next) = (scene.start()?, scene.start()?);
    holder.hold()?;
    let mut times = Vec::new();
    let [quick, full] = B::HANDOVERS;
    for _ in 0..scene.amount(quick, full) {
        scene.queue(&mut next)?;
        pause::<B>(&mut random);
        holder.tell("give")?;
        let [given] = holder.hear("given")?;
        let [held] = next.hear("held")?;
        times.push(between(given, held)?);
        std::mem::swap(&mut holder, &mut next);
    }
    let values = [0.5, 0.9].map(|share| quantile(&times, share));
    Ok(values.map(|it| it.unwrap_or(f64::NAN)).to_vec())
}

/// Grants a second of 8 processes, and the share of the busiest.
pub(crate) fn storm<B: Bench>(scene: &Scene<'_, B>) -> io::Result<Vec<f64>> {
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

/// How many earlier requests are overtaken, how many grants overtake, and how many requests wait.
pub(crate) fn overtakes<B: Bench>(scene: &Scene<'_, B>) -> io::Result<Vec<f64>> {
    let mut random = Random::new(scene.round);
    let mut processes = scene.start_many(CROWD)?;
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

/// From just before `kill -9` of the holder until the next process holds.
pub(crate) fn crash<B: Bench>(scene: &Scene<'_, B>) -> io::Result<Vec<f64>> {
    let (mut holder, mut next) = (scene.start()?, scene.start()?);
    holder.hold()?;
    scene.queue(&mut next)?;
    pause::<B>(&mut Random::new(scene.round));
    let killed = now();
    holder.kill()?;
    let [held] = next.hear("held")?;
    Ok(vec![between(killed, held)?])
}
