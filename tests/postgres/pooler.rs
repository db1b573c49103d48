//! PgBouncer in front of the server, in transaction mode.

use std::os::unix::fs::chown;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stanchion::postgres::{Options, PgClient};

use crate::server::{SAFETY, Server, Session, as_nobody};
use crate::support::{Polled, eventually, in_runtime};

struct Pooler {
    directory: tempfile::TempDir,
    child: Child,
}

impl Pooler {
    /// With two connections to the server, which all clients share.
    fn before(server: &Server) -> Option<Self> {
        let program = pgbouncer()?;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let settings = format!(
            "[databases]\npostgres = host={} user=postgres\n[pgbouncer]\npool_mode = transaction\nlisten_addr =\nunix_socket_dir = {}\nauth_type = any\ndefault_pool_size = 2\nignore_startup_parameters = extra_float_digits\n",
            server.socket_directory().display(),
            path.display()
        );
        let file = path.join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("settings");
        if rustix::process::geteuid().is_root() {
            chown(path, Some(65534), Some(65534)).expect("a directory of another user");
        }
        let child = as_nobody(&mut Command::new(program))
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a pooler");
        let pooler = Self { directory, child };
        let begun = Instant::now();
        while Session::open(&pooler.url()).is_err() {
            assert!(begun.elapsed() < SAFETY, "the pooler never answers");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(pooler)
    }

    fn url(&self) -> String {
        let path = self.directory.path().to_str().expect("a plain path");
        let path = path.replace('/', "%2F");
        format!("postgres://postgres@{path}:6432/postgres")
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian installs it where only root looks.
fn pgbouncer() -> Option<std::path::PathBuf> {
    let usual = std::path::PathBuf::from("/usr/sbin/pgbouncer");
    match usual.exists() {
        true => Some(usual),
        false => crate::skip::program("pgbouncer"),
    }
}

/// No waiter notices a grant by its heartbeat.
fn options() -> Options {
    PgClient::options()
        .lease(Duration::from_secs(3600))
        .patience(Duration::from_secs(3600))
}

#[test]
fn p63_steps_may_go_through_a_pooler() {
    let server = need!(Server::start());
    let pooler = need!(Pooler::before(&server));
    let clients: Vec<_> = (0..4)
        .map(|_| server.connect(options().steps(pooler.url())))
        .collect();
    assert!(clients.iter().all(|it| it.capabilities().push));
    let guard = in_runtime(clients[0].lock("a").acquire()).expect("free");
    let mut line = Vec::new();
    for client in &clients {
        line.push(Polled::pending(client.lock("a").acquire()));
        let waiting = || server.count("SELECT waiting FROM stanchion.locks") == line.len();
        eventually("queued", waiting);
    }
    in_runtime(guard.release()).expect("released");
    for mut waiter in line {
        in_runtime(waiter.finish().expect("in order").release()).expect("released");
    }
}

/// Session locks and messages do not work in transaction mode. The client notices that.
#[test]
fn p63_behind_a_pooler_alone_waiters_poll() {
    let server = need!(Server::start());
    let pooler = need!(Pooler::before(&server));
    drop(server.connect(options()));
    let connect = || in_runtime(options().connect(pooler.url())).expect("a client");
    let (one, two) = (connect(), connect());
    assert!(!one.capabilities().push && !two.capabilities().push);
    let guard = in_runtime(one.lock("a").acquire()).expect("free");
    let mut waiter = Polled::pending(two.lock("a").acquire());
    let waiting = || server.ask("SELECT waiting FROM stanchion.locks") == "1";
    eventually("queued", waiting);
    in_runtime(guard.release()).expect("released");
    drop(waiter.finish().expect("it polls"));
}
