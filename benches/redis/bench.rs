//! The server, the peers, and the jobs.

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use stanchion::redis::RedisClient;

use crate::python::Python;
use crate::server::Server;
use crate::servers::jobs;
use crate::servers::peer;
use crate::servers::plan::{Bench, Job, Metric, Scene, Unit};
use crate::subject::{self, Kind, LEASE};

/// The job in which a lock must become free some time after a crash.
const CRASH: &str = "crash";
/// Longer than anything takes. It only turns a hang into a failure.
const WATCHDOG: Duration = Duration::from_secs(90);

const EVERYDAY: &[Kind] = &[
    Kind::Stanchion,
    Kind::NoQuarantine,
    Kind::RedisPy,
    Kind::PythonRedisLock,
    Kind::Rslock,
];

pub(crate) struct Redis {
    server: Server,
    python: Option<Python>,
    rslock: Option<PathBuf>,
}

impl Bench for Redis {
    type Kind = Kind;

    const KINDS: &'static [Kind] = &Kind::ALL;
    const PAUSE: u64 = 100_000;
    const HANDOVERS: [u64; 2] = [20, 50];
    const JOBS: &'static [Job<Self>] = &[
        Job {
            name: "alone",
            subjects: EVERYDAY,
            rounds: 7,
            metrics: &[
                Metric::median("acquire + release", Unit::Nanoseconds),
                Metric::median("99th percentile", Unit::Nanoseconds),
                Metric::median("of the server", Unit::Nanoseconds),
            ],
            round: jobs::alone,
        },
        Job {
            name: "handover",
            subjects: EVERYDAY,
            rounds: 7,
            metrics: &[
                Metric::median("median", Unit::Nanoseconds),
                Metric::median("90th percentile", Unit::Nanoseconds),
            ],
            round: jobs::handover,
        },
        Job {
            name: "storm",
            subjects: EVERYDAY,
            rounds: 7,
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
            metrics: &[
                Metric::worst("earlier requests overtaken"),
                Metric::worst("grants that overtook, of 144"),
                Metric::median("requests that waited", Unit::Count),
            ],
            round: jobs::overtakes,
        },
        Job {
            name: CRASH,
            subjects: &Kind::ALL,
            rounds: 3,
            metrics: &[Metric::median(
                "kill -9 until the next holds",
                Unit::Nanoseconds,
            )],
            round: jobs::crash,
        },
        Job {
            name: "line",
            subjects: &[Kind::Stanchion, Kind::NoQuarantine],
            rounds: 7,
            metrics: &[Metric::median(
                "grants in a line of 1,000 tasks",
                Unit::PerSecond,
            )],
            round: line,
        },
    ];

    fn start() -> io::Result<Self> {
        let server = Server::start().expect("redis-server is installed");
        let python = Python::find();
        match &python {
            Ok(python) => eprintln!("with {}", python.versions),
            Err(error) => eprintln!("without the Python peers: {error}"),
        }
        let rslock = peer::build("rslock", "redis/rslock");
        if let Err(error) = &rslock {
            eprintln!("without rslock: {error}");
        }
        let first = grow_old(&server);
        futures::executor::block_on(first).map_err(io::Error::other)?;
        Ok(Self {
            server,
            python: python.ok(),
            rslock: rslock.ok(),
        })
    }

    fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Rslock => self.rslock.is_some(),
            kind => self.python.is_some() || !kind.is_python(),
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let text: String = self.server.ask(&["INFO", "server"]);
        let mut lines = text.lines();
        let version = lines.find_map(|it| it.strip_prefix("redis_version:"));
        let version = version.unwrap_or("unknown");
        let python = self.python.as_ref();
        let peers = python.map_or("no Python".to_owned(), |it| it.versions.clone());
        vec![
            ("server", format!("redis-server {version}, Unix socket")),
            ("peers", peers),
        ]
    }

    fn peer(&self, scene: &Scene<'_, Self>) -> Option<Command> {
        let mut command = match (scene.kind, &self.python, &self.rslock) {
            (Kind::Rslock, _, Some(rslock)) => {
                let mut command = Command::new(rslock);
                command.arg(self.url());
                command
            }
            (kind, Some(python), _) if kind.is_python() => python.peer(kind, &self.server.socket()),
            _ => return None,
        };
        command.arg(&scene.lock);
        if scene.kind == Kind::Rslock || scene.lock.starts_with(CRASH) {
            command.arg(LEASE.to_string());
        }
        Some(command)
    }

    fn url(&self) -> String {
        self.server.url()
    }

    fn child(arguments: impl Iterator<Item = String>) -> ExitCode {
        subject::main(arguments)
    }

    /// `BLPOP` says nothing. The server counts it among its blocked clients.
    fn settle(&self, kind: Kind) -> io::Result<()> {
        let begun = Instant::now();
        while kind == Kind::PythonRedisLock && self.info("clients", "blocked_clients")? == 0.0 {
            if begun.elapsed() > WATCHDOG {
                return Err(io::Error::other("no client is blocked on the server"));
            }
        }
        Ok(())
    }

    fn processor_time(&self) -> io::Result<Option<f64>> {
        let system = self.info("cpu", "used_cpu_sys")?;
        let user = self.info("cpu", "used_cpu_user")?;
        Ok(Some((system + user) * 1e9))
    }
}

impl Redis {
    /// A number of `INFO`.
    fn info(&self, section: &str, field: &str) -> io::Result<f64> {
        let text: String = self.server.ask(&["INFO", section]);
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| *name == field);
        let value = found.and_then(|(_, value)| value.trim().parse().ok());
        value.ok_or_else(|| io::Error::other(format!("INFO has no {field}")))
    }
}

/// A server that has just been started grants nothing until it is as old as a lease.
async fn grow_old(server: &Server) -> stanchion::Result<()> {
    eprintln!("waiting until the server is as old as a lease");
    let client = RedisClient::connect(server.url()).await?;
    client.lock("first").acquire().await?.release().await
}

fn line(scene: &Scene<'_, Redis>) -> io::Result<Vec<f64>> {
    let mut process = scene.start()?;
    process.tell("line 1000")?;
    let [took] = process.hear("took")?;
    Ok(vec![1_000.0 * 1e9 / took as f64])
}
