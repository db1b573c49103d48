//! A Postgres server for one test, with its own directory and socket. It ends with the test. `None`
//! if Postgres is not installed.
//!
//! The files of a new server are made once, and then copied. Postgres refuses to run as root, so
//! root's tests run it as `nobody`.
#![allow(dead_code)] // Each test binary uses a part.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use stanchion::postgres::{Options, PgClient};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Far longer than anything here takes.
pub(crate) const SAFETY: Duration = Duration::from_secs(300);

/// The user and group that run the server for root.
const NOBODY: u32 = 65534;

pub(crate) struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Child,
    /// For the questions of the test.
    session: Mutex<Option<Session>>,
}

/// A signal that ends the server.
#[derive(Clone, Copy)]
pub(crate) enum Stop {
    /// It writes everything first.
    Clean,
    /// As a power failure, except that the kernel keeps the files.
    Crash,
    /// The first process alone. The others notice that.
    Kill,
}

impl Server {
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With these settings: `name=value`.
    pub(crate) fn start_with(settings: &[&str]) -> Option<Self> {
        Self::start_in(owned_directory(), settings, &[])
    }

    /// In this directory, with these variables too.
    pub(crate) fn start_in(
        directory: tempfile::TempDir,
        settings: &[&str],
        environment: &[(&str, &str)],
    ) -> Option<Self> {
        let programs = programs()?;
        let copied = as_nobody(&mut Command::new("cp"))
            .arg("-a")
            .arg(template(&programs))
            .arg(directory.path().join("data"))
            .status();
        assert!(copied.is_ok_and(|it| it.success()), "a copy");
        let mut arguments = Vec::new();
        for setting in settings {
            arguments.extend(["-c".to_owned(), (*setting).to_owned()]);
        }
        let owned = |it: &(&str, &str)| (it.0.to_owned(), it.1.to_owned());
        let environment = environment.iter().map(owned).collect();
        Some(Self::in_directory(
            directory,
            programs,
            arguments,
            environment,
        ))
    }

    fn in_directory(
        directory: tempfile::TempDir,
        programs: PathBuf,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Self {
        let child = spawn(&directory, &programs, &arguments, &environment);
        let mut server = Self {
            directory,
            programs,
            arguments,
            environment,
            child,
            session: Mutex::new(None),
        };
        server.wait_until_ready();
        server
    }

    /// A standby that follows this server.
    pub(crate) fn standby(&self) -> Self {
        let directory = owned_directory();
        let status = as_nobody(&mut Command::new(self.programs.join("pg_basebackup")))
            .args([
                "--checkpoint=fast",
                "--write-recovery-conf",
                "--no-sync",
                "-U",
                "postgres",
                "-h",
            ])
            .arg(self.directory.path())
            .arg("-D")
            .arg(directory.path().join("data"))
            .stdout(Stdio::null())
            .status();
        assert!(status.is_ok_and(|it| it.success()), "a copy");
        Self::in_directory(directory, self.programs.clone(), Vec::new(), Vec::new())
    }

    fn wait_until_ready(&mut self) {
        let begun = Instant::now();
        while self.try_ask("SELECT 1").is_err() {
            assert!(begun.elapsed() < SAFETY, "the server never answers");
            // It does not start before the last process of a server that was killed has ended.
            if !matches!(self.child.try_wait(), Ok(None)) {
                self.child = self.spawned();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the server.
    pub(crate) fn stop(&mut self, how: Stop) {
        self.signal(match how {
            Stop::Clean => rustix::process::Signal::INT,
            Stop::Crash => rustix::process::Signal::QUIT,
            Stop::Kill => rustix::process::Signal::KILL,
        });
        self.child.wait().expect("it ends");
    }

    /// Ends the server as a power failure does.
    pub(crate) fn kill(&mut self) {
        self.stop(Stop::Crash);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process"), signal).expect("it runs");
    }

    /// Starts it again in the same directory.
    pub(crate) fn begin_again(&mut self) {
        self.child = self.spawned();
        self.wait_until_ready();
    }

    fn spawned(&self) -> Child {
        let (arguments, environment) = (&self.arguments, &self.environment);
        spawn(&self.directory, &self.programs, arguments, environment)
    }

    pub(crate) fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// The URL without options.
    pub(crate) fn url(&self) -> String {
        self.url_of("postgres")
    }

    pub(crate) fn url_of(&self, user: &str) -> String {
        let path = self.directory.path().to_str().expect("a plain path");
        format!("postgres://{user}@{}/postgres", path.replace('/', "%2F"))
    }

    /// Runs a statement. Returns the first column, one line for each row.
    pub(crate) fn try_ask(&self, sql: &str) -> Result<String, tokio_postgres::Error> {
        let mut kept = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = match kept.take().filter(|it| !it.client.is_closed()) {
            Some(session) => session,
            None => Session::open(&self.url())?,
        };
        let answer = session.try_ask(sql);
        *kept = Some(session);
        answer
    }

    #[track_caller]
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.try_ask(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    #[track_caller]
    pub(crate) fn count(&self, sql: &str) -> usize {
        self.ask(sql).parse().expect("a number")
    }

    pub(crate) fn session(&self) -> Session {
        Session::open(&self.url()).expect("a connection")
    }

    /// A client for locks. Installs them.
    pub(crate) fn connect(&self, options: Options) -> PgClient {
        let connecting = options.install(true).connect(self.url());
        futures::executor::block_on(connecting).expect("a client")
    }

    /// How many connections it has with this name.
    pub(crate) fn connections(&self, name: &str) -> usize {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = ";
        self.count(&format!("{sql}'{name}'"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop(Stop::Crash);
        }
    }
}

/// A connection of the test, for transactions.
pub(crate) struct Session {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Session {
    pub(crate) fn open(url: &str) -> Result<Self, tokio_postgres::Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls))?;
        runtime.spawn(connection);
        Ok(Self { runtime, client })
    }

    pub(crate) fn try_ask(&self, sql: &str) -> Result<String, tokio_postgres::Error> {
        let messages = self.runtime.block_on(self.client.simple_query(sql))?;
        let rows = messages.iter().filter_map(|it| match it {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default()),
            _ => None,
        });
        Ok(rows.collect::<Vec<_>>().join("\n"))
    }

    #[track_caller]
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.try_ask(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The SQLSTATE of a statement that fails.
    #[track_caller]
    pub(crate) fn refused(&self, sql: &str) -> String {
        let error = self.try_ask(sql).expect_err(sql);
        error
            .code()
            .expect("an error of the server")
            .code()
            .to_owned()
    }
}

/// Where the programs of the newest Postgres are.
pub(crate) fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut found: Vec<_> = versions
        .flatten()
        .map(|it| it.path().join("bin"))
        .filter(|it| it.join("initdb").exists())
        .collect();
    found.sort();
    if let Some(newest) = found.pop() {
        return Some(newest);
    }
    let program = super::skip::program("initdb")?;
    program.parent().map(Path::to_path_buf)
}

pub(crate) fn as_nobody(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/")
}

pub(crate) fn owned_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    if rustix::process::geteuid().is_root() {
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("a directory of another user");
    }
    directory
}

/// The files of a new server: made by the first test of all processes that needs them.
fn template(programs: &Path) -> PathBuf {
    let version = Command::new(programs.join("postgres"))
        .arg("--version")
        .output();
    let version = String::from_utf8(version.expect("it runs").stdout).expect("text");
    let version: String = version
        .chars()
        .filter(|it| it.is_ascii_alphanumeric())
        .collect();
    let user = rustix::process::geteuid().as_raw();
    let place = std::env::temp_dir().join(format!("stanchion-template-{user}-{version}"));
    if place.exists() {
        return place;
    }
    let directory = owned_directory();
    let made = directory.path().join("data");
    let status = as_nobody(&mut Command::new(programs.join("initdb")))
        .args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
        ])
        .args(["--wal-segsize=1", "--no-sync", "--no-instructions", "-D"])
        .arg(&made)
        .stdout(Stdio::null())
        .status();
    assert!(status.is_ok_and(|it| it.success()), "a new server");
    // Another process may have been faster.
    if std::fs::rename(&made, &place).is_err() {
        assert!(place.exists(), "a template");
    }
    place
}

fn spawn(
    directory: &tempfile::TempDir,
    programs: &Path,
    arguments: &[String],
    environment: &[(String, String)],
) -> Child {
    let path = directory.path();
    let log = std::fs::File::create(path.join("log")).expect("a log");
    as_nobody(&mut Command::new(programs.join("postgres")))
        .arg("-D")
        .arg(path.join("data"))
        .args(["-c", "listen_addresses=", "-c"])
        .arg(format!("unix_socket_directories={}", path.display()))
        .args([
            "-c",
            "shared_buffers=16MB",
            "-c",
            "max_wal_size=64MB",
            "-c",
            "min_wal_size=2MB",
        ])
        .args(["-c", "max_connections=300"])
        .args(arguments)
        .envs(environment.iter().map(|it| (&it.0, &it.1)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("a server")
}

/// Lets other users reach a file of the test.
pub(crate) fn open_to_all(path: &Path) {
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, permissions).expect("permissions");
}
