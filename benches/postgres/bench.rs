//! The server, the peer, and the jobs.

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::server::Server;
use crate::servers::jobs;
use crate::servers::peer;
use crate::servers::plan::{Bench, Job, Metric, Scene, Unit};
use crate::subject::{self, Kind};

const EVERYDAY: &[Kind] = &[Kind::Stanchion, Kind::Durable, Kind::Advisory, Kind::Sqlx];

pub(crate) struct Postgres {
    server: Server,
    sqlx: Option<PathBuf>,
}

impl Bench for Postgres {
    type Kind = Kind;

    const KINDS: &'static [Kind] = &Kind::ALL;
    const PAUSE: u64 = 20_000;
    const HANDOVERS: [u64; 2] = [30, 100];
    const JOBS: &'static [Job<Self>] = &[
        Job {
            name: "alone",
            subjects: EVERYDAY,
            rounds: 7,
            metrics: &[
                Metric::median("acquire + release", Unit::Nanoseconds),
                Metric::median("99th percentile", Unit::Nanoseconds),
            ],
            round: jobs::alone,
        },
        Job {
            name: "handover",
            subjects: EVERYDAY,
            rounds: 9,
            metrics: &[
                Metric::median("median", Unit::Nanoseconds),
                Metric::median("90th percentile", Unit::Nanoseconds),
            ],
            round: jobs::handover,
        },
        Job {
            name: "storm",
            subjects: EVERYDAY,
            rounds: 5,
            metrics: &[
                Metric::median("grants of 8 processes", Unit::PerSecond),
                Metric::median("share of the busiest", Unit::Percent),
            ],
            round: jobs::storm,
        },
        Job {
            name: "overtakes",
            subjects: EVERYDAY,
            rounds: 3,
            metrics: &[Metric::worst("earlier requests overtaken")],
            round: jobs::overtakes,
        },
        Job {
            name: "crash",
            subjects: &Kind::ALL,
            rounds: 3,
            metrics: &[Metric::median(
                "kill -9 until the next holds",
                Unit::Nanoseconds,
            )],
            round: jobs::crash,
        },
        Job {
            name: "bloat",
            subjects: &[Kind::Stanchion],
            rounds: 1,
            metrics: &[
                Metric::median("tables after the rounds", Unit::Bytes),
                Metric::median("the same after a vacuum", Unit::Bytes),
            ],
            round: bloat,
        },
    ];

    fn start() -> io::Result<Self> {
        let server = Server::start().expect("Postgres is installed");
        let sqlx = peer::build("sqlx", "postgres/sqlx");
        if let Err(error) = &sqlx {
            eprintln!("without sqlx: {error}");
        }
        let sqlx = sqlx.ok();
        Ok(Self { server, sqlx })
    }

    fn has(&self, kind: Kind) -> bool {
        kind != Kind::Sqlx || self.sqlx.is_some()
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let version = self.server.ask("SHOW server_version");
        vec![("server", format!("Postgres {version}"))]
    }

    fn peer(&self, scene: &Scene<'_, Self>) -> Option<Command> {
        let sqlx = self.sqlx.as_ref().filter(|_| scene.kind == Kind::Sqlx)?;
        let mut command = Command::new(sqlx);
        command.args([&self.url(), &scene.lock]);
        Some(command)
    }

    fn url(&self) -> String {
        self.server.url()
    }

    fn child(arguments: impl Iterator<Item = String>) -> ExitCode {
        subject::main(arguments)
    }
}

impl Postgres {
    /// How many bytes the tables of the locks and their indexes have.
    fn size(&self) -> f64 {
        let tables = "relnamespace = 'stanchion'::regnamespace AND relkind = 'r'";
        let sql = format!("SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE {tables}");
        self.server.count(&sql) as f64
    }
}

/// Rounds without another caller, by four processes on locks of their own.
fn bloat(scene: &Scene<'_, Postgres>) -> io::Result<Vec<f64>> {
    let mut processes = scene.start_many(4)?;
    let rounds = scene.amount(2_000, 10_000);
    for process in &mut processes {
        process.tell(&format!("alone {rounds}"))?;
    }
    for process in &mut processes {
        process.hear::<2>("took")?;
    }
    let after = scene.bench.size();
    scene.bench.server.ask("VACUUM");
    Ok(vec![after, scene.bench.size()])
}
