//! What one acquisition costs apart from time: system calls, counted by `strace`, and instructions
//! of the program, counted by `perf stat`. Rows stay empty where one of these is not installed, or
//! where the processor counts no instructions, as in many virtual machines.
//!
//! The start of a process is not counted: two processes do the same a different number of times, or
//! do nothing, and only the difference counts.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::child::Child;
use crate::clock::now;
use crate::plan::{Job, Metric, NOT_MEASURED, Pick, Scene, Target, Unit};
use crate::subject::Kind;

pub(crate) const JOB: Job = Job {
    name: "cost",
    subjects: &Kind::FILES,
    rounds: [1, 1],
    metrics: &[
        metric("system calls, uncontended", Target::AtMost(10.0)),
        metric("system calls, 8 processes", Target::None),
        metric("instructions, uncontended", Target::None),
    ],
    round,
};

const fn metric(name: &'static str, target: Target) -> Metric {
    Metric {
        name,
        unit: Unit::Count,
        pick: Pick::Median,
        peer: None,
        target,
    }
}

/// A program that counts what another one does.
#[derive(Clone, Copy)]
enum Counter {
    Calls,
    Instructions,
}

impl Counter {
    fn program(self) -> &'static str {
        match self {
            Self::Calls => "strace",
            Self::Instructions => "perf",
        }
    }

    fn can_count(self, directory: &Path) -> bool {
        let result = directory.join("try");
        let mut command = self.command(&result);
        let silent = command.arg("true").stdout(Stdio::null());
        let ran = silent.stderr(Stdio::null()).status().is_ok();
        ran && self.read(&result).is_ok()
    }

    /// Returns the command that writes its count to `result`.
    fn command(self, result: &Path) -> Command {
        let mut command = Command::new(self.program());
        match self {
            Self::Calls => {
                command.args(["-f", "-c", "-o"]).arg(result);
            }
            Self::Instructions => {
                command.args(["stat", "-x,", "-e", "instructions:u", "-o"]);
                command.arg(result).arg("--");
            }
        }
        command
    }

    /// Finds the count in a result.
    fn read(self, result: &Path) -> io::Result<f64> {
        let text = std::fs::read_to_string(result)?;
        let word = match self {
            // The columns are: share of the time, seconds, microseconds per call, calls.
            Self::Calls => {
                let mut lines = text.lines();
                let total = lines.find(|line| line.ends_with(" total"));
                total.and_then(|line| line.split_whitespace().nth(3))
            }
            Self::Instructions => {
                let mut lines = text.lines();
                let counted = lines.find(|line| line.contains("instructions"));
                counted.and_then(|line| line.split(',').next())
            }
        };
        let number = word.and_then(|word| word.parse().ok());
        let program = self.program();
        number.ok_or_else(|| io::Error::other(format!("no count of {program} in {text:?}")))
    }
}

fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let directory = scene.path.parent().unwrap_or(Path::new(""));
    let calls = Counter::Calls.can_count(directory);
    let instructions = Counter::Instructions.can_count(directory);
    let if_can = |can: bool, count: &dyn Fn() -> io::Result<f64>| match can {
        true => count(),
        false => Ok(NOT_MEASURED),
    };
    Ok(vec![
        if_can(calls, &|| uncontended(Counter::Calls, kind, scene))?,
        if_can(calls, &|| contended(kind, scene))?,
        if_can(instructions, &|| {
            uncontended(Counter::Instructions, kind, scene)
        })?,
    ])
}

fn result_of(scene: &Scene, number: u64) -> PathBuf {
    scene.path.with_extension(format!("count-{number}"))
}

/// Counts one acquire and release in a process that is alone.
fn uncontended(counter: Counter, kind: Kind, scene: &Scene) -> io::Result<f64> {
    let few = scene.amount(100, 500);
    let count = |times: u64| {
        let result = result_of(scene, times);
        let observer = counter.command(&result);
        let mut child = Child::start_under(observer, "uncontended", kind, &scene.path, &[times])?;
        child.number()?;
        child.finish()?;
        counter.read(&result)
    };
    // Each process does a tenth more before the measurement.
    let more = 2 * few + 2 * few / 10;
    Ok((count(3 * few)? - count(few)?) / more as f64)
}

const PROCESSES: u64 = 8;

/// Counts what processes that acquire without pause do for one grant.
fn contended(kind: Kind, scene: &Scene) -> io::Result<f64> {
    let counter = Counter::Calls;
    let (nothing, _) = without_pause(counter, kind, scene, 0)?;
    let time = scene.amount(300, 1_000) * 1_000_000;
    let (all, grants) = without_pause(counter, kind, scene, time)?;
    Ok((all - nothing) / grants)
}

/// Returns the count of all processes, and their grants.
fn without_pause(counter: Counter, kind: Kind, scene: &Scene, time: u64) -> io::Result<(f64, f64)> {
    let start = |number| {
        let observer = counter.command(&result_of(scene, number));
        Child::start_under(observer, "throughput", kind, &scene.path, &[])
    };
    let mut children = (0..PROCESSES).map(start).collect::<io::Result<Vec<_>>>()?;
    let begin = now() + 50_000_000;
    for child in &mut children {
        child.tell(&format!("{begin} {}", begin + time))?;
    }
    let mut grants = 0;
    for child in &mut children {
        grants += child.table::<3>()?.len();
    }
    let mut count = 0.0;
    for (number, child) in (0..PROCESSES).zip(children) {
        child.finish()?;
        count += counter.read(&result_of(scene, number))?;
    }
    Ok((count, grants as f64))
}
