//! The jobs, their order and their number of samples, and the command line that chooses them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::child::{self, Child};
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
    /// Whether busy loops run on all cores beside the measurement.
    busy: bool,
    jobs: Vec<&'static Job>,
    /// Only these, if there are any.
    subjects: Vec<Kind>,
    /// In place of the rounds of each job.
    rounds: Option<usize>,
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
    let mut bench = false;
    let mut choice = Choice {
        quick: false,
        busy: false,
        jobs: Vec::new(),
        subjects: Vec::new(),
        rounds: None,
    };
    while let Some(word) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match word.as_str() {
            child::WORD => return Ok(Command::Child),
            "--test" => return Ok(Command::Nothing),
            "--bench" => bench = true,
            "--quick" => choice.quick = true,
            "--busy" => choice.busy = true,
            "--job" => choice.jobs.push(job_of(&value())?),
            "--subject" => choice.subjects.push(subject_of(&value())?),
            "--rounds" => choice.rounds = Some(number_of(&value())?),
            _ => return Err(usage(&format!("unknown argument {word:?}"))),
        }
    }
    if !bench {
        return Ok(Command::Nothing);
    }
    if choice.jobs.is_empty() {
        choice.jobs = jobs::ALL.to_vec();
    }
    Ok(Command::Measure(choice))
}

fn job_of(name: &str) -> Result<&'static Job, String> {
    let job = jobs::ALL.iter().find(|job| job.name == name);
    job.copied()
        .ok_or_else(|| usage(&format!("no job {name:?}")))
}

fn subject_of(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| usage(&format!("no subject {name:?}")))
}

fn number_of(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|it| *it > 0);
    number.ok_or_else(|| usage(&format!("no number of rounds: {text:?}")))
}

fn usage(fault: &str) -> String {
    let jobs: Vec<_> = jobs::ALL.iter().map(|job| job.name).collect();
    let subjects = Kind::ALL.map(Kind::name);
    format!(
        "{fault}; usage: [--quick] [--busy] [--rounds N] [--job NAME]… [--subject NAME]…, \
         with jobs {}, and subjects {}",
        jobs.join(", "),
        subjects.join(", ")
    )
}

/// Starts a busy loop for each core. They end with the returned handles.
fn busy_loops() -> io::Result<Vec<Child>> {
    let cores = std::thread::available_parallelism()?.get();
    let nowhere = Path::new("");
    let start = |_| Child::start(child::BURN, Kind::Stanchion, nowhere, &[]);
    (0..cores).map(start).collect()
}

fn measure(choice: &Choice) -> io::Result<()> {
    let begun = Instant::now();
    let load = report::load();
    let mut rows = Vec::new();
    let busy = match choice.busy {
        true => busy_loops()?,
        false => Vec::new(),
    };
    for job in &choice.jobs {
        rows.extend(run(job, choice)?);
    }
    drop(busy);
    eprintln!("[{:5.1} s] done", begun.elapsed().as_secs_f64());
    report::publish(&rows, choice.quick, &load)
}

/// All rounds of a job. The subjects take turns.
fn run(job: &Job, choice: &Choice) -> io::Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let quick = choice.quick;
    let rounds = choice.rounds.unwrap_or(job.rounds[usize::from(!quick)]);
    let chosen = |kind: &&Kind| choice.subjects.is_empty() || choice.subjects.contains(kind);
    let row = |metric: &Metric| Row::new(job.name, job.subjects[0], *metric);
    let mut rows: Vec<Row> = job.metrics.iter().map(row).collect();
    for round in 0..rounds {
        for kind in job.subjects.iter().filter(chosen) {
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
