//! The rounds of the jobs, and the command line that chooses them.

use std::io;
use std::process::{Command, ExitCode};

use super::process::Process;
use super::table::{self, Row};

/// The first argument of a process of this program.
const WORD: &str = "child";

/// One of the locks that are compared.
pub(crate) trait Subject: Copy + PartialEq + 'static {
    fn name(self) -> &'static str;

    /// Whether it is a lock of others. Such a one is left out of a job when it fails.
    fn is_peer(self) -> bool;
}

/// A server with its subjects.
pub(crate) trait Bench: Sized + 'static {
    type Kind: Subject;

    /// All subjects, Stanchion first.
    const KINDS: &'static [Self::Kind];
    const JOBS: &'static [Job<Self>];
    /// The longest pause before a release or a kill, in microseconds.
    const PAUSE: u64;
    /// How many hand-overs one round has, in a quick run and in a full one.
    const HANDOVERS: [u64; 2];

    /// Starts the server, and finds the peers.
    fn start() -> io::Result<Self>;

    /// Returns whether the subject is available.
    fn has(&self, kind: Self::Kind) -> bool;

    /// What stands above the table.
    fn facts(&self) -> Vec<(&'static str, String)>;

    /// Returns the command line of a process of a peer. `None` for a lock that this program has.
    fn peer(&self, scene: &Scene<'_, Self>) -> Option<Command>;

    fn url(&self) -> String;

    /// Runs a process: `kind url lock`.
    fn child(arguments: impl Iterator<Item = String>) -> ExitCode;

    /// Returns when the server certainly has the request of a process that waits.
    fn settle(&self, _kind: Self::Kind) -> io::Result<()> {
        Ok(())
    }

    /// Returns the processor time of the server until now in nanoseconds, if it tells.
    fn processor_time(&self) -> io::Result<Option<f64>> {
        Ok(None)
    }
}

/// One job: its rounds give one number for each of its metrics.
pub(crate) struct Job<B: Bench> {
    pub(crate) name: &'static str,
    pub(crate) subjects: &'static [B::Kind],
    /// Rounds of each subject in a full run; a quick one has one.
    pub(crate) rounds: usize,
    pub(crate) metrics: &'static [Metric],
    /// Measures one subject once, in the order of `metrics`.
    pub(crate) round: fn(&Scene<'_, B>) -> io::Result<Vec<f64>>,
}

/// One line of the table.
#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) pick: Pick,
}

impl Metric {
    /// A metric of which the median counts.
    pub(crate) const fn median(name: &'static str, unit: Unit) -> Self {
        let pick = Pick::Median;
        Self { name, unit, pick }
    }

    /// A number of faults, of which the worst round counts.
    pub(crate) const fn worst(name: &'static str) -> Self {
        let (unit, pick) = (Unit::Count, Pick::Worst);
        Self { name, unit, pick }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // Not every bench has every unit.
pub(crate) enum Unit {
    Nanoseconds,
    PerSecond,
    Percent,
    Bytes,
    Count,
}

/// Which of its rounds represents a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    Median,
    /// The greatest, where one bad round is a fault.
    Worst,
}

/// Where one round plays.
pub(crate) struct Scene<'a, B: Bench> {
    pub(crate) bench: &'a B,
    pub(crate) kind: B::Kind,
    /// A lock that was not used before.
    pub(crate) lock: String,
    quick: bool,
    /// Counts rounds. Each round has other pauses, the same ones for every subject.
    pub(crate) round: u64,
}

impl<B: Bench> Scene<'_, B> {
    /// How much of something to do.
    pub(crate) fn amount(&self, quick: u64, full: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    pub(crate) fn start(&self) -> io::Result<Process> {
        Process::start(match self.bench.peer(self) {
            Some(peer) => peer,
            None => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([WORD, self.kind.name(), &self.bench.url(), &self.lock]);
                command
            }
        })
    }

    pub(crate) fn start_many(&self, count: usize) -> io::Result<Vec<Process>> {
        (0..count).map(|_| self.start()).collect()
    }

    /// Requests a lock that is held. Returns when the request is queued.
    pub(crate) fn queue(&self, process: &mut Process) -> io::Result<()> {
        process.queue()?;
        self.bench.settle(self.kind)
    }
}

struct Choice<B: Bench> {
    quick: bool,
    jobs: Vec<&'static Job<B>>,
}

pub(crate) fn main<B: Bench>() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|it| it == WORD).is_some() {
        return B::child(arguments);
    }
    let outcome = match parse::<B>(arguments) {
        Ok(Some(choice)) => measure(&choice).map_err(|error| error.to_string()),
        Ok(None) => Ok(()),
        Err(text) => Err(text),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// `None` if started by `cargo test`, which only checks that it builds and starts.
fn parse<B: Bench>(
    mut arguments: impl Iterator<Item = String>,
) -> Result<Option<Choice<B>>, String> {
    let (mut quick, mut jobs, mut asked) = (false, Vec::new(), false);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--bench" => asked = true,
            "--quick" => quick = true,
            "--job" => {
                let name = arguments.next().unwrap_or_default();
                let job = B::JOBS.iter().find(|job| job.name == name);
                let names = || B::JOBS.iter().map(|job| job.name).collect::<Vec<_>>();
                jobs.push(job.ok_or_else(|| format!("the jobs are {}", names().join(", ")))?);
            }
            _ => return Err(format!("what is {argument}? there are --quick and --job")),
        }
    }
    if jobs.is_empty() {
        jobs = B::JOBS.iter().collect();
    }
    Ok(asked.then_some(Choice { quick, jobs }))
}

fn measure<B: Bench>(choice: &Choice<B>) -> io::Result<()> {
    let bench = B::start()?;
    let mut rows = Vec::new();
    for job in &choice.jobs {
        rows.extend(play(&bench, job, choice.quick)?);
    }
    let mut facts = bench.facts();
    facts.push(("samples", if choice.quick { "few" } else { "all" }.into()));
    table::publish(&facts, &rows);
    Ok(())
}

/// All rounds of a job. The subjects take turns.
fn play<B: Bench>(bench: &B, job: &'static Job<B>, quick: bool) -> io::Result<Vec<Row<B>>> {
    let metrics = job.metrics.iter();
    let mut rows: Vec<_> = metrics.map(|it| Row::new(job.name, it)).collect();
    let rounds = if quick { 1 } else { job.rounds };
    for round in 0..rounds {
        let present = job.subjects.iter().filter(|kind| bench.has(**kind));
        for &kind in present {
            let (name, subject) = (job.name, kind.name());
            let what = format!("{name}, round {} of {rounds}, {subject}", round + 1);
            let scene = Scene {
                bench,
                kind,
                lock: format!("{name}-{subject}-{round}"),
                quick,
                round: round as u64,
            };
            match (job.round)(&scene) {
                Ok(values) => {
                    eprintln!("{what}: {}", table::show_all(job.metrics, &values));
                    for (row, value) in rows.iter_mut().zip(values) {
                        row.add(kind, value);
                    }
                }
                Err(error) if kind.is_peer() => eprintln!("{what}: left out: {error}"),
                Err(error) => return Err(io::Error::other(format!("{what}: {error}"))),
            }
        }
    }
    Ok(rows)
}
