//! The jobs, their order and their number of samples, and the command line that chooses them.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use crate::child;
use crate::jobs;
use crate::report::{self, Row};
use crate::subject::Kind;

/// One job: its rounds give one number for each of its metrics.
pub(crate) struct Job {
    pub(crate) name: &'static str,
    /// The others are compared with the first.
    pub(crate) subjects: &'static [Kind],
    /// Rounds of each subject, in a quick and in a full run.
    pub(crate) rounds: [usize; 2],
    pub(crate) metrics: &'static [Metric],
    /// Measures one subject once, in the order of `metrics`; [`NOT_MEASURED`] if a metric does not
    /// apply to the subject.
    pub(crate) round: fn(Kind, &Scene) -> io::Result<Vec<f64>>,
}

pub(crate) const NOT_MEASURED: f64 = f64::NAN;

/// One line of the table.
#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) pick: Pick,
    /// The peer of the ratio.
    pub(crate) peer: Option<Kind>,
    pub(crate) target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    PerSecond,
    Count,
    Bytes,
    Percent,
}

/// Which of its rounds represents a subject.
#[derive(Clone, Copy)]
pub(crate) enum Pick {
    Median,
    /// The greatest, where one bad round is a fault.
    Worst,
}

/// The target for Stanchion.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Shown for information.
    None,
    AtMost(f64),
    /// Nothing, to a tenth of a percent: less than 0.05.
    Zero,
    AtMostTimesPeer(f64),
    AtLeastTimesPeer(f64),
}

/// Where one round plays.
pub(crate) struct Scene {
    pub(crate) quick: bool,
    /// A lock that was not used before.
    pub(crate) path: PathBuf,
    /// Counts rounds. Each round has other pauses, the same ones for every subject.
    pub(crate) round: u64,
}

impl Scene {
    /// How much of something to do.
    pub(crate) fn amount(&self, quick: u64, full: u64) -> u64 {
        if self.quick { quick } else { full }
    }
}

struct Choice {
    quick: bool,
    jobs: Vec<&'static Job>,
}

enum Command {
    Measure(Choice),
    Child,
    /// Started by `cargo test`, which only checks that it builds and starts.
    Nothing,
}

pub(crate) fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match parse(&mut arguments) {
        Ok(Command::Child) => return child::main(arguments),
        Ok(Command::Nothing) => return ExitCode::SUCCESS,
        Ok(Command::Measure(choice)) => measure(&choice),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &mut impl Iterator<Item = String>) -> Result<Command, String> {
    let (mut quick, mut bench, mut chosen) = (false, false, Vec::new());
    while let Some(word) = arguments.next() {
        match word.as_str() {
            child::WORD => return Ok(Command::Child),
            "--test" => return Ok(Command::Nothing),
            "--bench" => bench = true,
            "--quick" => quick = true,
            "--job" => {
                let name = arguments.next().unwrap_or_default();
                let job = jobs::ALL.iter().find(|job| job.name == name);
                chosen.push(*job.ok_or_else(|| usage(&format!("no job {name:?}")))?);
            }
            _ => return Err(usage(&format!("unknown argument {word:?}"))),
        }
    }
    if !bench {
        return Ok(Command::Nothing);
    }
    if chosen.is_empty() {
        chosen = jobs::ALL.to_vec();
    }
    let jobs = chosen;
    Ok(Command::Measure(Choice { quick, jobs }))
}

fn usage(fault: &str) -> String {
    let names: Vec<_> = jobs::ALL.iter().map(|job| job.name).collect();
    format!(
        "{fault}; usage: [--quick] [--job NAME]…, with jobs {}",
        names.join(", ")
    )
}

fn measure(choice: &Choice) -> io::Result<()> {
    let begun = Instant::now();
    let load = report::load();
    let mut rows = Vec::new();
    for job in &choice.jobs {
        rows.extend(run(job, choice.quick)?);
    }
    eprintln!("[{:5.1} s] done", begun.elapsed().as_secs_f64());
    report::publish(&rows, choice.quick, &load)
}

/// All rounds of a job. The subjects take turns.
fn run(job: &Job, quick: bool) -> io::Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let rounds = job.rounds[usize::from(!quick)];
    let row = |metric: &Metric| Row::new(job.name, job.subjects[0], *metric);
    let mut rows: Vec<Row> = job.metrics.iter().map(row).collect();
    for round in 0..rounds {
        for kind in job.subjects {
            let begun = Instant::now();
            let path = directory
                .path()
                .join(format!("{}-{round}.lock", kind.name()));
            let round = round as u64;
            let values = (job.round)(*kind, &Scene { quick, path, round })
                .map_err(|error| io::Error::other(format!("{}, {kind:?}: {error}", job.name)))?;
            let seconds = begun.elapsed().as_secs_f64();
            let shown = report::show_all(job.metrics, &values);
            eprintln!(
                "{:<17} {}/{rounds} {:<14} {seconds:4.1} s  {shown}",
                job.name,
                round + 1,
                kind.name()
            );
            for (row, value) in rows.iter_mut().zip(values) {
                row.add(*kind, value);
            }
        }
    }
    Ok(rows)
}
