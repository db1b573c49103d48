//! Answers that mean "not me" or "not now": waiters stay queued and holders keep their holds until
//! the server serves again. If it never does, the error has its last answer.

use std::time::Duration;

use stanchion::redis::{Options, RedisClient, RedisGuard};
use stanchion::{Acquire, ErrorKind, Loss};

use crate::proxy::Proxy;
use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime, kind_of};

/// Nothing ends by itself during a test.
const LONG: Duration = Duration::from_secs(600);
/// How long the server may be unusable, where that is the subject.
const SHORT: Duration = Duration::from_secs(2);

fn options() -> Options {
    let options = RedisClient::options().quarantine(false);
    options.lease(LONG).patience(LONG).unavailable_after(LONG)
}

fn denied(error: &stanchion::Error) -> bool {
    error.kind() == ErrorKind::Io
        && error.io_error().map(std::io::Error::kind) == Some(std::io::ErrorKind::PermissionDenied)
}

/// Returns how often the server has answered with this error.
fn refusals(server: &Server, code: &str) -> u64 {
    let stats = server.info("errorstats");
    let name = format!("errorstat_{code}:count=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |it| it.trim().parse().expect("a number"))
}

/// Often enough that every request was refused, and repeated.
fn wait_for_refusals(server: &Server, code: &str) {
    let before = refusals(server, code);
    eventually("the server refuses", || {
        refusals(server, code) >= before + 12
    });
}

/// A client with a hold of one lock, and a queue entry of another.
struct Stage {
    server: Server,
    client: RedisClient,
    guard: RedisGuard,
    /// Holds the lock that the waiter waits for.
    first: RedisGuard,
    waiter: Polled<Acquire<RedisGuard>>,
    /// The queue entry of the waiter.
    line: Vec<String>,
}

impl Stage {
    fn set(server: Server) -> Self {
        let url = server.url();
        Self::at(server, &url)
    }

    fn at(server: Server, url: &str) -> Self {
        let client = in_runtime(options().connect(url)).expect("a client");
        Self::of(server, client)
    }

    fn of(server: Server, client: RedisClient) -> Self {
        let guard = in_runtime(client.lock("held").acquire()).expect("free");
        let near = server.connect(options());
        let first = in_runtime(near.lock("line").acquire()).expect("free");
        let waiter = Polled::pending(client.lock("line").acquire());
        eventually("queued", || queue(&server).len() == 2);
        let line = queue(&server);
        Self {
            server,
            client,
            guard,
            first,
            waiter,
            line,
        }
    }

    /// Makes every hold and wait ask again at once.
    fn cut(&self) {
        self.server
            .ask::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    }

    /// While the server answers with this code nothing is lost, and nothing after it.
    fn assert_outlasts(mut self, code: &str, end: impl FnOnce(&Server)) {
        self.cut();
        let mut ensured = Polled::pending(self.guard.ensure_held());
        let mut newcomer = Polled::pending(self.client.lock("new").acquire());
        wait_for_refusals(&self.server, code);
        assert!(newcomer.poll().is_pending() && self.waiter.poll().is_pending());
        end(&self.server);
        ensured.finish().expect("still held");
        drop(ensured);
        in_runtime(newcomer.finish().expect("served again").release()).expect("released");
        self.assert_kept();
    }

    fn assert_kept(mut self) {
        assert!(self.guard.is_held());
        in_runtime(self.guard.ensure_held()).expect("still held");
        assert_eq!(queue(&self.server), self.line, "the same place");
        assert!(self.waiter.poll().is_pending());
        in_runtime(self.first.release()).expect("released");
        let next = self.waiter.finish().expect("its turn");
        assert!(!next.predecessor_crashed());
        in_runtime(self.guard.release()).expect("released");
    }
}

/// Returns the queue, with the arrival numbers.
fn queue(server: &Server) -> Vec<String> {
    let key = "{stanchion:line}:queue";
    server.ask(&["ZRANGE", key, "0", "-1", "WITHSCORES"])
}

fn set(server: &Server, name: &str, value: &str) {
    server.ask::<()>(&["CONFIG", "SET", name, value]);
}

#[test]
fn p45_a_server_without_enough_replicas_keeps_holds_and_places() {
    let stage = Stage::set(need!(Server::start()));
    set(&stage.server, "min-replicas-to-write", "1");
    stage.assert_outlasts("NOREPLICAS", |it| set(it, "min-replicas-to-write", "0"));
}

#[test]
fn p45_a_server_that_cannot_save_keeps_holds_and_places() {
    let server = need!(Server::start_with(&[
        "--appendonly",
        "no",
        "--enable-protected-configs",
        "yes"
    ]));
    let stage = Stage::set(server);
    let server = &stage.server;
    let directory: Vec<String> = server.ask(&["CONFIG", "GET", "dir"]);
    let gone = tempfile::tempdir().expect("a directory");
    set(server, "dir", gone.path().to_str().expect("a plain path"));
    // The snapshot cannot be written, because its directory does not exist.
    drop(gone);
    let _ = server.try_ask::<()>(&["BGSAVE"]);
    eventually("a failed snapshot", || {
        server
            .info("persistence")
            .contains("rdb_last_bgsave_status:err")
    });
    stage.assert_outlasts("MISCONF", |server| {
        set(server, "dir", &directory[1]);
        server.ask::<()>(&["SAVE"]);
    });
}

/// The holder keeps its hold, the waiter stays queued, and a new request waits until there is
/// memory.
#[test]
fn p45_a_server_without_memory_keeps_holds_and_places() {
    let stage = Stage::set(need!(Server::start()));
    set(&stage.server, "maxmemory", "1");
    stage.cut();
    in_runtime(stage.guard.ensure_held()).expect("the holder keeps it");
    let mut newcomer = Polled::pending(stage.client.lock("new").acquire());
    wait_for_refusals(&stage.server, "OOM");
    assert!(newcomer.poll().is_pending());
    set(&stage.server, "maxmemory", "0");
    drop(newcomer.finish().expect("served again"));
    stage.assert_kept();
}

/// Earlier holders and waiters come back without new memory, also if the server has forgotten
/// everything.
#[test]
fn p45_a_server_without_memory_takes_back_what_it_has_forgotten() {
    let mut stage = Stage::set(need!(Server::start()));
    set(&stage.server, "maxmemory", "1");
    stage.server.ask::<()>(&["FLUSHALL"]);
    in_runtime(stage.guard.ensure_held()).expect("put back");
    in_runtime(stage.first.ensure_held()).expect("put back");
    // The waiter asks only now. Without quarantine it would be granted the lock before the holder
    // is back.
    stage.cut();
    eventually("queued again", || queue(&stage.server).len() == 2);
    assert!(stage.waiter.poll().is_pending());
    in_runtime(stage.first.release()).expect("released");
    drop(stage.waiter.finish().expect("its turn"));
}

/// A snapshot is loaded slowly, and the server answers meanwhile.
#[test]
fn p45_a_server_that_loads_keeps_holds_and_places() {
    let server = need!(Server::start_with(&[
        "--save",
        "",
        "--enable-debug-command",
        "local"
    ]));
    let filler = "for i = 1, 5000 do redis.call('SET', i, string.rep('x', 2048)) end";
    server.ask::<()>(&["EVAL", filler, "0"]);
    let stage = Stage::set(server);
    let server = &stage.server;
    set(server, "loading-process-events-interval-bytes", "1024");
    set(server, "key-load-delay", "10000");
    let client = server.client();
    let reload = std::thread::spawn(move || {
        let mut connection = client.get_connection().expect("a connection");
        let mut command = ::redis::cmd("DEBUG");
        command.arg("RELOAD").query::<()>(&mut connection)
    });
    eventually("it loads", || {
        server.info("persistence").contains("loading:1")
    });
    let fresh = in_runtime(options().connect(server.url())).expect_err("it loads");
    assert_eq!(fresh.kind(), ErrorKind::Unavailable, "{fresh}");
    assert!(fresh.to_string().contains("LOADING"), "{fresh}");
    stage.assert_loads(reload);
}

impl Stage {
    fn assert_loads(self, reload: std::thread::JoinHandle<::redis::RedisResult<()>>) {
        self.assert_outlasts("LOADING", |server| {
            set(server, "key-load-delay", "0");
            reload.join().expect("no panic").expect("loaded");
        });
    }
}

/// Another client's script does not end: the server answers nothing, then that it is busy.
#[test]
fn p45_a_server_that_runs_a_script_keeps_holds_and_places() {
    let server = need!(Server::start_with(&[
        "--save",
        "",
        "--busy-reply-threshold",
        "1"
    ]));
    let stage = Stage::set(server);
    let client = stage.server.client();
    let busy = std::thread::spawn(move || {
        let mut connection = client.get_connection().expect("a connection");
        let mut command = ::redis::cmd("EVAL");
        let endless = command.arg("while true do end").arg(0);
        endless.query::<()>(&mut connection)
    });
    let server = &stage.server;
    eventually("it is busy", || {
        let pong = server.try_ask::<String>(&["PING"]);
        pong.is_err_and(|error| error.code() == Some("BUSY"))
    });
    let mut newcomer = Polled::pending(stage.client.lock("new").acquire());
    let mut refused = 0;
    // The server cannot be asked how often it has refused.
    eventually("it refuses for a while", || {
        assert!(newcomer.poll().is_pending());
        refused += usize::from(server.try_ask::<String>(&["PING"]).is_err());
        refused > 100
    });
    let before = newcomer.rings();
    server.ask::<()>(&["SCRIPT", "KILL"]);
    busy.join().expect("no panic").expect_err("killed");
    drop(newcomer.finish().expect("served again"));
    assert_eq!(before, 0, "no wake-up while it was busy");
    assert!(refusals(server, "BUSY") > 0);
    stage.assert_kept();
}

/// The password is changed while the client is connected, and later changed back.
#[test]
fn p45_a_client_that_may_not_log_in_keeps_holds_and_places() {
    let stage = Stage::set(need!(Server::start()));
    let server = &stage.server;
    let mut admin = server.client().get_connection().expect("a connection");
    let mut admin = move |words: &[&str]| {
        let mut command = ::redis::Cmd::new();
        command.arg(words).query::<()>(&mut admin).expect("done");
    };
    admin(&["CONFIG", "SET", "requirepass", "other"]);
    admin(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let mut ensured = Polled::new(stage.guard.ensure_held());
    let mut newcomer = Polled::new(stage.client.lock("new").acquire());
    assert!(ensured.poll().is_pending() && newcomer.poll().is_pending());
    let fresh = in_runtime(options().connect(server.url())).expect_err("no password");
    assert!(denied(&fresh), "{fresh:?}");
    let impatient = options().unavailable_after(SHORT);
    let url = format!("{}?pass=other", server.url());
    let other = in_runtime(impatient.connect(url)).expect("the new password");
    // The other client knows the password, and later does not either.
    admin(&["CONFIG", "SET", "requirepass", "third"]);
    admin(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let error = in_runtime(other.lock("a").acquire()).expect_err("another password");
    assert!(denied(&error), "{error:?}");
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
    assert!(ensured.poll().is_pending() && newcomer.poll().is_pending());
    admin(&["CONFIG", "SET", "requirepass", ""]);
    ensured.finish().expect("still held");
    drop(ensured);
    drop(newcomer.finish().expect("served again"));
    stage.assert_kept();
}

/// There is no room for the new connection.
#[test]
fn p45_a_server_with_too_many_clients_keeps_holds_and_places() {
    let stage = Stage::set(need!(Server::start()));
    let server = &stage.server;
    let mut admin = server.client().get_connection().expect("a connection");
    let mut admin = move |words: &[&str]| -> ::redis::Value {
        let mut command = ::redis::Cmd::new();
        command.arg(words).query(&mut admin).expect("done")
    };
    admin(&["CONFIG", "SET", "maxclients", "1"]);
    admin(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let mut ensured = Polled::new(stage.guard.ensure_held());
    let mut newcomer = Polled::new(stage.client.lock("new").acquire());
    assert!(ensured.poll().is_pending() && newcomer.poll().is_pending());
    eventually("it is refused", || {
        let stats = ::redis::from_redis_value(admin(&["INFO", "stats"]));
        let stats: String = stats.expect("a text");
        let rejected = stats
            .lines()
            .find_map(|it| it.strip_prefix("rejected_connections:"));
        rejected.is_some_and(|it| it.trim().parse::<u64>().expect("a number") >= 6)
    });
    assert!(ensured.poll().is_pending() && newcomer.poll().is_pending());
    admin(&["CONFIG", "SET", "maxclients", "1000"]);
    ensured.finish().expect("still held");
    drop(ensured);
    drop(newcomer.finish().expect("served again"));
    stage.assert_kept();
}

/// Missing rights fail the wait at once. The hold lasts until its lease ends.
#[test]
fn p45_a_user_that_loses_its_rights_is_refused_and_keeps_its_hold() {
    let server = need!(Server::start());
    let rules = |rule| {
        let words = ["ACL", "SETUSER", "u", "on", ">x", "~*", "&*", "+@all", rule];
        server.ask::<()>(&words);
    };
    rules("+evalsha");
    let url = format!("{}?user=u&pass=x", server.url());
    let client = in_runtime(options().connect(url)).expect("a client");
    let guard = in_runtime(client.lock("held").acquire()).expect("free");
    rules("-evalsha");
    let error = in_runtime(client.lock("a").acquire()).expect_err("no rights");
    assert!(denied(&error), "{error:?}");
    assert!(error.to_string().contains("NOPERM"), "{error}");
    assert!(denied(
        &in_runtime(guard.ensure_held()).expect_err("no rights")
    ));
    assert!(guard.is_held());
    rules("+evalsha");
    in_runtime(guard.ensure_held()).expect("still held");
    in_runtime(guard.release()).expect("released");
}

/// Each request is answered with this line, which the network inserts.
#[test]
fn p45_every_answer_that_may_pass_is_outlasted() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let url = proxy.url();
    let mut stage = Stage::at(server, &url);
    for error in [
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down",
        "LOADING Redis is loading the dataset in memory",
        "UNBLOCKED force unblock from blocking operation",
        "REDIRECT 127.0.0.1:1",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair",
        "MISCONF Errors writing to the AOF file",
        "OOM command not allowed",
        "NOREPLICAS Not enough good replicas to write.",
        "BUSY Redis is busy running a script.",
        "UNKILLABLE Sorry the script already executed write commands",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN The cluster is down",
    ] {
        let code = error.split(' ').next().expect("a code");
        proxy.refuse(error);
        stage.cut();
        let mut ensured = Polled::new(stage.guard.ensure_held());
        let mut newcomer = Polled::new(stage.client.lock("new").acquire());
        assert!(ensured.poll().is_pending() && newcomer.poll().is_pending());
        let before = refusals(&stage.server, code);
        eventually("refused", || refusals(&stage.server, code) >= before + 4);
        assert!(ensured.poll().is_pending(), "{error}");
        assert!(newcomer.poll().is_pending(), "{error}");
        assert!(stage.waiter.poll().is_pending(), "{error}");
        proxy.refuse_nothing();
        ensured.finish().expect("still held");
        drop(ensured);
        in_runtime(newcomer.finish().expect("served").release()).expect("released");
        assert_eq!(queue(&stage.server), stage.line, "{error}");
    }
    stage.assert_kept();
}

/// The error has the last answer of the server.
#[test]
fn p45_every_answer_that_does_not_pass_ends_in_an_error_that_names_it() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let impatient = options().unavailable_after(Duration::from_millis(300));
    let client = in_runtime(impatient.connect(proxy.url())).expect("a client");
    for (error, expected) in [
        ("READONLY a replica", ErrorKind::Unavailable),
        ("LOADING a snapshot", ErrorKind::Unavailable),
        ("MISCONF no disk", ErrorKind::Unavailable),
        ("OOM no memory", ErrorKind::Unavailable),
        ("NOAUTH no password", ErrorKind::Io),
        ("NOPERM no rights", ErrorKind::Io),
        ("MOVED 1 127.0.0.1:1", ErrorKind::Unsupported),
        ("ASK 1 127.0.0.1:1", ErrorKind::Unsupported),
        ("CROSSSLOT two slots", ErrorKind::Unsupported),
        ("WRONGTYPE another type", ErrorKind::Incompatible),
        ("ERR anything", ErrorKind::Unavailable),
        ("NEVERSEEN before", ErrorKind::Unavailable),
    ] {
        proxy.refuse(error);
        // The answer of a slow machine may come too late.
        let names_it = |failed: stanchion::Error| {
            let is_named = failed.to_string().contains(error);
            assert!(!is_named || failed.kind() == expected, "{error}: {failed}");
            is_named
        };
        eventually("a reason", || {
            names_it(in_runtime(client.lock("a").acquire()).expect_err("refused"))
        });
        eventually("a reason", || {
            names_it(in_runtime(client.lock("a").try_acquire()).expect_err("refused"))
        });
        let status = kind_of(in_runtime(client.lock("a").status()));
        assert_eq!(status, expected, "{error}");
        proxy.refuse_nothing();
        // Until the connection is made again, which may take longer than this wait.
        eventually("served again", || {
            let guard = in_runtime(client.lock("a").acquire());
            guard.is_ok_and(|it| in_runtime(it.release()).is_ok())
        });
    }
}

/// If the server never serves again, its holder learns of the loss before its lease ends. Its
/// release returns the server's last answer.
#[test]
fn p48_a_hold_on_a_server_that_never_serves_again_is_lost_in_time() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let options = RedisClient::options().quarantine(false).lease(SHORT);
    let client = in_runtime(options.connect(proxy.url())).expect("a client");
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    let other = in_runtime(client.lock("b").acquire()).expect("free");
    proxy.refuse("READONLY a replica");
    let error = in_runtime(other.release()).expect_err("never heard");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("READONLY a replica"), "{error}");
    assert_eq!(in_runtime(guard.lost()), Loss::Expired);
}

/// At its beginning, a connection cannot see that it leads to a replica, because the user may not
/// call INFO. Only scripts are refused. The client does not ask without pause.
#[test]
fn p45_a_replica_that_looks_like_a_primary_is_not_stormed() {
    let server = need!(Server::start());
    let rules = ["ACL", "SETUSER", "blind", "on", ">x", "~*", "&*", "+@all"];
    server.ask::<()>(&[&rules[..], &["-info"]].concat());
    let impatient = options().unavailable_after(SHORT);
    let url = format!("{}?user=blind&pass=x", server.url());
    let client = in_runtime(impatient.connect(url)).expect("a client");
    server.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    server.forget_counts();
    let error = in_runtime(client.lock("a").acquire()).expect_err("a replica");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("READONLY"), "{error}");
    // Delays grow from 10 ms to a second.
    let hellos = server.calls("hello");
    assert!((1..40).contains(&hellos), "{hellos} connections");
    server.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    drop(in_runtime(client.lock("a").acquire()).expect("a primary again"));
}

/// The data of a replica may be outdated.
#[test]
fn p45_a_replica_shows_no_status() {
    let stage = Stage::set(need!(Server::start()));
    stage.server.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = in_runtime(stage.client.lock("held").status()).expect_err("a replica");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = in_runtime(options().connect(stage.server.url())).expect_err("a replica");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("replica"), "{error}");
    stage.server.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    in_runtime(stage.guard.ensure_held()).expect("a primary again");
    stage.assert_kept();
}

/// The old primary continues as a replica and keeps its connections. Only new connections reach the
/// new primary.
#[test]
fn p51_a_planned_failover_keeps_holds_and_places() {
    let server = need!(Server::start());
    let replica = server.replica();
    let proxy = Proxy::before(&server);
    let url = proxy.url();
    let stage = Stage::at(server, &url);
    eventually("the replica has caught up", || {
        queue(&replica) == stage.line && replica.ask::<bool>(&["EXISTS", "{stanchion:held}:state"])
    });
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    let port = replica.listen("port").to_string();
    stage.server.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    proxy.lead_newcomers_to(&replica);
    in_runtime(stage.guard.ensure_held()).expect("held at the new primary");
    let fresh = in_runtime(stage.client.lock("new").acquire()).expect("free");
    assert!(fresh.is_held());
    eventually("it listens at the new primary", || {
        let channels: Vec<String> = replica.ask(&["PUBSUB", "CHANNELS", "stanchion:inbox:*"]);
        channels.len() == 1
    });
    assert_eq!(queue(&replica), stage.line, "the same place");
    // Its client has no other address: it was connected to the old primary directly.
    drop(stage.first);
    let near = replica.connect(options());
    in_runtime(near.lock("line").force_release(None)).expect("ended");
    let mut waiter = stage.waiter;
    let next = waiter.finish().expect("its turn, at the new primary");
    assert!(next.is_held() && stage.guard.is_held());
    in_runtime(stage.guard.release()).expect("released");
}
