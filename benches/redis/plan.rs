//! The jobs, their order and their number of samples, and the command line that chooses them.

use std::io;
use std::process::ExitCode;

use stanchion::redis::RedisClient;

use crate::jobs;
use crate::player;
use crate::process::WORD;
use crate::python::Python;
use crate::rslock::Rslock;
use crate::server::Server;
use crate::subject::Kind;
use crate::table::{self, Row};

/// One job: its rounds give one number for each of its metrics.
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) subjects: &'static [Kind],
    /// Rounds of each subject in a full run; a quick one has one.
    pub(crate) rounds: usize,
    pub(crate) metrics: &'static [Metric],
    /// Measures one subject once, in the order of `metrics`.
    pub(crate) round: fn(Kind, &Scene) -> io::Result<Vec<f64>>,
}

/// One line of the table.
#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) pick: Pick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    PerSecond,
    Percent,
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
pub(crate) struct Scene<'a> {
    pub(crate) server: &'a Server,
    pub(crate) python: Option<&'a Python>,
    pub(crate) rslock: Option<&'a Rslock>,
    /// A lock that was not used before.
    pub(crate) lock: String,
    /// Whether it must become free some time after a crash.
    pub(crate) needs_expiry: bool,
    pub(crate) quick: bool,
    /// Counts rounds. Each round has other pauses, the same ones for every subject.
    pub(crate) round: u64,
}

impl Scene<'_> {
    /// How much of something to do.
    pub(crate) fn amount(&self, quick: u64, full: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    /// A number of `INFO`.
    fn info(&self, section: &str, field: &str) -> io::Result<f64> {
        let text: String = self.server.ask(&["INFO", section]);
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| *name == field);
        let value = found.and_then(|(_, value)| value.trim().parse().ok());
        value.ok_or_else(|| io::Error::other(format!("INFO has no {field}")))
    }

    /// How many connections wait in a command that blocks.
    pub(crate) fn blocked(&self) -> io::Result<usize> {
        self.info("clients", "blocked_clients")
            .map(|it| it as usize)
    }

    /// The processor time of the server until now, in nanoseconds.
    pub(crate) fn processor_time(&self) -> io::Result<f64> {
        let system = self.info("cpu", "used_cpu_sys")?;
        let user = self.info("cpu", "used_cpu_user")?;
        Ok((system + user) * 1e9)
    }
}

struct Choice {
    quick: bool,
    jobs: Vec<&'static Job>,
}

pub(crate) fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|it| it == WORD).is_some() {
        return player::main(arguments);
    }
    let outcome = match parse(arguments) {
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
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Choice>, String> {
    let (mut quick, mut jobs, mut asked) = (false, Vec::new(), false);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--bench" => asked = true,
            "--quick" => quick = true,
            "--job" => {
                let name = arguments.next().unwrap_or_default();
                let job = jobs::ALL.into_iter().find(|job| job.name == name);
                let names = || jobs::ALL.map(|job| job.name).join(", ");
                jobs.push(job.ok_or_else(|| format!("the jobs are {}", names()))?);
            }
            _ => return Err(format!("what is {argument}? there are --quick and --job")),
        }
    }
    if jobs.is_empty() {
        jobs = jobs::ALL.to_vec();
    }
    Ok(asked.then_some(Choice { quick, jobs }))
}

fn measure(choice: &Choice) -> io::Result<()> {
    let server = Server::start().expect("redis-server is installed");
    let python = Python::find();
    match &python {
        Ok(python) => eprintln!("with {}", python.versions),
        Err(error) => eprintln!("without the Python peers: {error}"),
    }
    let python = python.ok();
    let rslock = Rslock::find();
    if let Err(error) = &rslock {
        eprintln!("without rslock: {error}");
    }
    let rslock = rslock.ok();
    let first = grow_old(&server);
    futures::executor::block_on(first).map_err(io::Error::other)?;
    let stage = Stage {
        server: &server,
        python: python.as_ref(),
        rslock: rslock.as_ref(),
        quick: choice.quick,
    };
    let mut rows = Vec::new();
    for job in &choice.jobs {
        rows.extend(stage.play(job)?);
    }
    let facts = [
        ("server", server_facts(&server)),
        (
            "peers",
            python.map_or("no Python".to_owned(), |it| it.versions),
        ),
        ("samples", if choice.quick { "few" } else { "all" }.into()),
    ];
    table::publish(&facts, &rows);
    Ok(())
}

/// What all jobs share.
struct Stage<'a> {
    server: &'a Server,
    python: Option<&'a Python>,
    rslock: Option<&'a Rslock>,
    quick: bool,
}

impl Stage<'_> {
    /// All rounds of a job. The subjects take turns.
    fn play(&self, job: &'static Job) -> io::Result<Vec<Row>> {
        let mut rows: Vec<_> = job
            .metrics
            .iter()
            .map(|it| Row::new(job.name, it))
            .collect();
        let rounds = if self.quick { 1 } else { job.rounds };
        let present = |kind: &Kind| match kind {
            Kind::Rslock => self.rslock.is_some(),
            kind => self.python.is_some() || !kind.is_python(),
        };
        for round in 0..rounds {
            for kind in job.subjects.iter().copied().filter(present) {
                let what = format!(
                    "{}, round {} of {rounds}, {}",
                    job.name,
                    round + 1,
                    kind.name()
                );
                match (job.round)(kind, &self.scene(job, kind, round)) {
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

    fn scene(&self, job: &Job, kind: Kind, round: usize) -> Scene<'_> {
        Scene {
            server: self.server,
            python: self.python,
            rslock: self.rslock,
            lock: format!("{}-{}-{round}", job.name, kind.name()),
            needs_expiry: job.name == jobs::CRASH.name,
            quick: self.quick,
            round: round as u64,
        }
    }
}

/// A server that has just been started grants nothing until it is as old as a lease.
async fn grow_old(server: &Server) -> stanchion::Result<()> {
    eprintln!("waiting until the server is as old as a lease");
    let client = RedisClient::connect(server.url()).await?;
    client.lock("first").acquire().await?.release().await
}

fn server_facts(server: &Server) -> String {
    let text: String = server.ask(&["INFO", "server"]);
    let version = text
        .lines()
        .find_map(|it| it.strip_prefix("redis_version:"));
    format!("redis-server {}, Unix socket", version.unwrap_or("unknown"))
}
