//! A primary, its replica and three sentinels, all real processes.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stanchion::redis::{Options, RedisClient};
use stanchion::{ErrorKind, Locks};

use crate::server::{SAFETY, Server, free_port};
use crate::support::{Polled, eventually, in_runtime, kind_of};

const SERVICE: &str = "main";

/// No hold is lost because the failover takes long. Without a quarantine, because it would last as
/// long as the lease. The tests of failovers without sentinels have one.
fn options() -> Options {
    RedisClient::options()
        .lease(Duration::from_secs(3600))
        .quarantine(false)
        .unavailable_after(SAFETY)
}

/// A process that watches the primary.
struct Sentinel {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Sentinel {
    /// Two of three must agree. A primary that is silent for so many milliseconds counts as dead.
    fn start(primary: u16, silent: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("sentinel.conf");
        let port = free_port();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {SERVICE} {silent}\n\
             sentinel failover-timeout {SERVICE} 3000\n",
            directory.path().display(),
        );
        std::fs::write(&file, settings).expect("written");
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self {
            child: command.spawn().expect("it starts"),
            port,
            _directory: directory,
        }
    }

    fn ask(&self, words: &[&str]) -> ::redis::RedisResult<String> {
        let client = ::redis::Client::open(("127.0.0.1", self.port))?;
        let mut command = ::redis::cmd("SENTINEL");
        command.arg(words);
        command.query(&mut client.get_connection()?)
    }

    /// Knows the others and the replica, so it can fail over.
    fn is_ready(&self) -> bool {
        let client = ::redis::Client::open(("127.0.0.1", self.port)).expect("an address");
        let info = client.get_connection().and_then(|mut it| {
            ::redis::cmd("INFO")
                .arg("sentinel")
                .query::<String>(&mut it)
        });
        info.is_ok_and(|it| it.contains("slaves=1,sentinels=3"))
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A primary, its replica, and who watches them.
struct Service {
    primary: Server,
    replica: Server,
    sentinels: Vec<Sentinel>,
}

impl Service {
    /// A primary that is silent for half a second counts as dead.
    fn start() -> Option<Self> {
        Self::watched(500)
    }

    /// On a slow machine, no primary counts as dead.
    fn patient() -> Option<Self> {
        Self::watched(600_000)
    }

    fn watched(silent: u32) -> Option<Self> {
        let primary = Server::start()?;
        let port = primary.listen("port");
        let replica = Server::start()?;
        replica.listen("port");
        primary.ask::<()>(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        replica.follow(&port.to_string());
        let sentinels: Vec<_> = (0..3).map(|_| Sentinel::start(port, silent)).collect();
        let begun = Instant::now();
        while !sentinels.iter().all(Sentinel::is_ready) {
            assert!(begun.elapsed() < SAFETY, "they never find each other");
            std::thread::yield_now();
        }
        Some(Self {
            primary,
            replica,
            sentinels,
        })
    }

    fn url(&self) -> String {
        let hosts: Vec<_> = self
            .sentinels
            .iter()
            .map(|it| format!("127.0.0.1:{}", it.port))
            .collect();
        format!("redis+sentinel://{}/{SERVICE}", hosts.join(","))
    }

    fn connect(&self) -> RedisClient {
        in_runtime(options().connect(self.url())).expect("a client")
    }

    fn wait_for_failover(&self) {
        eventually("the replica is promoted", || {
            has_role(&self.replica, "master")
        });
    }
}

/// A change of the role breaks the connections.
fn has_role(server: &Server, role: &str) -> bool {
    let info = server.try_ask::<String>(&["INFO", "replication"]);
    info.is_ok_and(|it| it.contains(&format!("role:{role}")))
}

/// The address leads to the promoted replica, without a change of the URL.
#[test]
fn holds_and_waits_continue_when_sentinels_promote_a_replica() {
    let mut service = need!(Service::start());
    let (mine, theirs) = (service.connect(), service.connect());
    let guard = in_runtime(mine.lock("first").acquire()).expect("free");
    let mut waiter = Polled::pending(theirs.lock("first").acquire());
    eventually("it is queued", || {
        let status = in_runtime(mine.lock("first").status()).expect("a status");
        status.waiters.len() == 1
    });
    service.primary.kill();
    service.wait_for_failover();
    in_runtime(guard.ensure_held()).expect("it is on record, or put back");
    assert!(guard.is_held());
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    let next = waiter.finish().expect("its turn");
    assert!(next.token() > token && next.is_held());
    drop(next);
    drop(in_runtime(service.connect().lock("first").acquire()).expect("a newcomer"));
}

/// The old primary lives, and becomes a replica.
#[test]
fn a_primary_that_is_demoted_is_left() {
    let service = need!(Service::patient());
    let client = service.connect();
    let guard = in_runtime(client.lock("first").acquire()).expect("free");
    service.sentinels[0]
        .ask(&["FAILOVER", SERVICE])
        .expect("it begins");
    service.wait_for_failover();
    eventually("the old primary follows", || {
        has_role(&service.primary, "slave")
    });
    in_runtime(guard.ensure_held()).expect("held on the new primary");
    let held: u64 = service.replica.ask(&["EXISTS", "{stanchion:first}:state"]);
    assert_eq!(held, 1);
    in_runtime(guard.release()).expect("released");
}

#[test]
fn sentinels_that_cannot_help_are_errors() {
    let service = need!(Service::patient());
    let connect = |url: String| kind_of(in_runtime(options().connect(url)));
    let port = service.sentinels[0].port;
    let unknown = connect(format!("redis+sentinel://127.0.0.1:{port}/another"));
    assert_eq!(unknown, ErrorKind::InvalidInput);
    let nobody = connect(format!("redis+sentinel://127.0.0.1:1/{SERVICE}"));
    assert_eq!(nobody, ErrorKind::Unavailable);
    for wrong in [
        "redis+sentinel://127.0.0.1",
        "redis+sentinel:///main",
        "redis+sentinel://h/m?db=1",
    ] {
        assert_eq!(
            connect(wrong.to_owned()),
            ErrorKind::InvalidInput,
            "{wrong}"
        );
    }
    // One that does not answer is passed over.
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/{SERVICE}");
    let locks = in_runtime(Locks::connect(&url)).expect("the other one answers");
    drop(in_runtime(locks.lock("a").expect("a lock").acquire()).expect("free"));
}

/// Nothing listens at port 1.
#[test]
fn p18_sentinels_are_asked_with_every_limit() {
    let options = RedisClient::options().response_timeout(Duration::MAX);
    let connecting = options.connect("redis+sentinel://127.0.0.1:1/main");
    let error = in_runtime(connecting).expect_err("nothing listens");
    let text = error.to_string();
    assert!(text.contains("ask the sentinels"), "{text}");
}
