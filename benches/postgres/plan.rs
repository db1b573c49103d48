//! The command line, the rounds, and the table.

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::clock::median;
use crate::jobs::{self, Job, Unit};
use crate::process::Process;
use crate::server::Server;
use crate::subject::{self, Kind};

/// The first argument of a process of this program.
const WORD: &str = "child";

/// Where one round plays.
pub(crate) struct Scene<'a> {
    pub(crate) server: &'a Server,
    pub(crate) kind: Kind,
    sqlx: Option<&'a Path>,
    /// A lock that was not used before.
    lock: String,
    quick: bool,
    /// Counts rounds. Each round has other pauses, the same ones for every subject.
    pub(crate) round: u64,
}

impl Scene<'_> {
    /// How much of something to do.
    pub(crate) fn amount(&self, quick: u64, full: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    pub(crate) fn start(&self) -> io::Result<Process> {
        let mut command = match (self.kind, self.sqlx) {
            (Kind::Sqlx, Some(program)) => Command::new(program),
            _ => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([WORD, self.kind.name()]);
                command
            }
        };
        command.args([&self.server.url(), &self.lock]);
        Process::start(command)
    }

    pub(crate) fn start_many(&self, count: usize) -> io::Result<Vec<Process>> {
        (0..count).map(|_| self.start()).collect()
    }

    /// How many requests wait, as the server shows.
    pub(crate) fn waiting(&self) -> usize {
        self.server.count(match self.kind.is_advisory() {
            true => "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
            false => "SELECT sum(waiting) FROM stanchion.locks",
        })
    }

    /// How many bytes the tables of the locks and their indexes have.
    pub(crate) fn size(&self) -> f64 {
        let tables = "relnamespace = 'stanchion'::regnamespace AND relkind = 'r'";
        let sql = format!("SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE {tables}");
        self.server.count(&sql) as f64
    }
}

struct Choice {
    quick: bool,
    jobs: Vec<Job>,
}

pub(crate) fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|it| it == WORD).is_some() {
        return subject::main(arguments);
    }
    let outcome = match parse(arguments) {
        Ok(Some(choice)) => measure(choice).map_err(|error| error.to_string()),
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
        jobs = jobs::ALL.into();
    }
    Ok(asked.then_some(Choice { quick, jobs }))
}

fn measure(choice: Choice) -> io::Result<()> {
    let server = Server::start().expect("Postgres is installed");
    let sqlx = build_sqlx();
    if let Err(error) = &sqlx {
        eprintln!("without sqlx: {error}");
    }
    let sqlx = sqlx.ok();
    let mut rows = Vec::new();
    for job in &choice.jobs {
        let mut results = Vec::new();
        for round in 0..if choice.quick { 1 } else { job.rounds } {
            for kind in job.subjects.iter().copied() {
                if kind == Kind::Sqlx && sqlx.is_none() {
                    continue;
                }
                let scene = Scene {
                    server: &server,
                    kind,
                    sqlx: sqlx.as_deref(),
                    lock: format!("{}-{}-{round}", job.name, kind.name()),
                    quick: choice.quick,
                    round: round as u64,
                };
                let values = (job.round)(&scene)?;
                let shown: Vec<_> = job.metrics.iter().zip(&values).collect();
                let shown = shown
                    .iter()
                    .map(|((name, unit), it)| format!("{name} {}", show(*unit, **it)));
                let shown = shown.collect::<Vec<_>>().join(", ");
                eprintln!("{}, round {round}, {}: {shown}", job.name, kind.name());
                results.push((kind, values));
            }
        }
        for (index, (name, unit)) in job.metrics.iter().enumerate() {
            let cells = Kind::ALL.map(|kind| cell(&results, kind, index, *unit));
            rows.push(format!("| {} | {name} | {} |", job.name, cells.join(" | ")));
        }
    }
    println!("- server: Postgres {}", server.ask("SHOW server_version"));
    let head = Kind::ALL.map(Kind::name).join(" | ");
    println!(
        "\n| job | what | {head} |\n|{}",
        "---|".repeat(Kind::ALL.len() + 2)
    );
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}

/// Builds the program of sqlx, unless it exists. It is a package of its own, because nothing else
/// needs sqlx.
fn build_sqlx() -> io::Result<std::path::PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = target.with_file_name("bench").join("sqlx");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/postgres/sqlx/Cargo.toml");
    eprintln!("building the program of sqlx in {}", directory.display());
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--quiet", "--manifest-path"]);
    command.arg(manifest).arg("--target-dir").arg(&directory);
    match command.stdin(Stdio::null()).status()?.success() {
        true => Ok(directory.join("release/sqlx-peer")),
        false => Err(io::Error::other("it cannot be built")),
    }
}

/// The figure, and its ratio to that of Stanchion where it means something.
fn cell(results: &[(Kind, Vec<f64>)], kind: Kind, index: usize, unit: Unit) -> String {
    let value = |kind| {
        let own = results.iter().filter(|(own, _)| *own == kind);
        let own: Vec<_> = own.map(|(_, values)| values[index]).collect();
        match unit {
            Unit::Faults => own.into_iter().reduce(f64::max),
            _ => median(&own),
        }
    };
    let Some(own) = value(kind) else {
        return "–".to_owned();
    };
    let ours = value(Kind::Stanchion).filter(|it| *it > 0.0 && kind != Kind::Stanchion);
    match (unit, ours) {
        (Unit::Nanoseconds | Unit::PerSecond, Some(ours)) => {
            format!("{} ({} ×)", show(unit, own), digits(own / ours))
        }
        _ => show(unit, own),
    }
}

fn show(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Nanoseconds if value >= 1e9 => format!("{} s", digits(value / 1e9)),
        Unit::Nanoseconds if value >= 1e7 => format!("{} ms", digits(value / 1e6)),
        Unit::Nanoseconds => format!("{} µs", digits(value / 1e3)),
        Unit::PerSecond => format!("{value:.0} /s"),
        Unit::Percent => format!("{value:.1} %"),
        Unit::Bytes => format!("{:.0} KiB", value / 1024.0),
        Unit::Faults => format!("{value:.0}"),
    }
}

fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
