//! The child program: takes the lock as its standard input says, and prints a line for each thing that happened; and those who lead it.
//!
//! The test binary runs itself: an ignored test, told by the environment. Its lines begin with `@`.
//!
//! | command | answer |
//! |---|---|
//! | `lock`, `read`, `write`, `permit` | `held token crashed` when it is in; later `lost reason` |
//! | `release` | `released` or `failed kind` |
//! | `is-held` | `true` or `false` |
//! | `storm ROUNDS` | `stormed`: so often it has added one to a key, by reading and writing |
//! | `crowd FIRST COUNT` | so many more wait in line, one behind the other; `in token number` for each, numbered from FIRST |
//! | `connect` | `connected`: another client, kept |
//! | `fork WHAT` | `forked pid`; see [`fork`] |
//! | `contend PATH` | in and out through the [gate](crate::gate) at this path until `stop`, then `contended` and its [`Tally`](crate::gate::Tally) |

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use stanchion::redis::{OnDisconnect, Options, RedisClient, RedisGuard};
use stanchion::{Acquire, AnyGuard, Lock, SharedLock};

use crate::gate::Gate;
use crate::server::Server;

#[path = "child_fork.rs"]
mod fork;

/// The lock that they share.
pub(crate) const NAME: &str = "shared by children";
/// The lease of the children: so long that no hold is lost because the machine is slow, and no longer, because some tests wait for its end.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

fn say(line: impl std::fmt::Display) {
    let line = format!("@{line}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
}

#[test]
#[ignore = "the child program of the other tests"]
fn child() {
    let Ok(url) = std::env::var("CHILD_URL") else {
        return;
    };
    println!();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(obey(&url));
    std::process::exit(0);
}

/// As the environment says: the lease and the patience in milliseconds.
fn options() -> Options {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse().expect("a number"));
    let length = |name: &str| number(name).map(Duration::from_millis);
    let mut options = RedisClient::options()
        .quarantine(std::env::var_os("CHILD_QUARANTINE").is_some())
        .unavailable_after(Duration::from_secs(120))
        .lease(length("CHILD_LEASE").unwrap_or(LEASE));
    if let Some(patience) = length("CHILD_PATIENCE") {
        // A waiter that is not told finds out by its heartbeat: no claim window ends in the time of a test.
        options = options
            .patience(patience)
            .claim_window(Duration::from_secs(3600));
    }
    match std::env::var_os("CHILD_DROPS") {
        Some(_) => options.on_disconnect(OnDisconnect::Release),
        None => options,
    }
}

async fn obey(url: &str) {
    let client = options().connect(url).await;
    let client = client.expect("the server is there");
    say("ready");
    let (lines, mut hear) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    let mut guard: Option<AnyGuard> = None;
    let mut others = Vec::new();
    while let Some(line) = hear.recv().await {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("release", _) => match guard.take().expect("it holds").release().await {
                Ok(()) => say("released"),
                Err(error) => say(format_args!("failed {:?}", error.kind())),
            },
            ("is-held", _) => say(guard.as_ref().is_some_and(AnyGuard::is_held)),
            ("storm", rounds) => storm(&client, url, rounds.parse().expect("a number")).await,
            ("crowd", numbers) => crowd(&client, numbers),
            ("fork", what) => fork::in_a_copy(what, &client, url, &mut guard),
            ("connect", _) => {
                others.push(options().connect(url).await.expect("a client"));
                say("connected");
            }
            ("contend", path) => {
                let gate = Gate::at(path.as_ref());
                let tally = gate.contend(&client, async { _ = hear.recv().await }).await;
                say(format_args!("contended {tally}"));
            }
            (wish, _) => {
                let taken = take(&client, wish).await;
                let (token, crashed) = (taken.token(), taken.predecessor_crashed());
                say(format_args!("held {} {crashed}", token.expect("a token")));
                let lost = taken.lost();
                tokio::spawn(async move { say(format_args!("lost {:?}", lost.await)) });
                guard = Some(taken);
            }
        }
    }
}

async fn take(client: &RedisClient, wish: &str) -> AnyGuard {
    let name = NAME;
    match wish {
        "lock" => AnyGuard::new(client.lock(name).acquire().await.expect("the lock")),
        "write" => AnyGuard::new(client.rwlock(name).acquire().await.expect("to write")),
        "read" => AnyGuard::new(client.rwlock(name).acquire_shared().await.expect("to read")),
        _ => {
            let semaphore = client.semaphore(name, 2).expect("a semaphore");
            AnyGuard::new(semaphore.acquire().await.expect("a permit"))
        }
    }
}

fn crowd(client: &RedisClient, numbers: &str) {
    let mut numbers = numbers.split(' ').map(|it| it.parse().expect("a number"));
    let (first, count): (usize, usize) =
        (numbers.next().expect("one"), numbers.next().expect("two"));
    let lock = client.lock(NAME);
    // On one task, which polls one after the other, so this is their order.
    let waiters: Vec<_> = (first..first + count)
        .map(|number| (number, lock.acquire()))
        .collect();
    let pass = |(number, waiter): (usize, Acquire<RedisGuard>)| async move {
        let guard = waiter.await.expect("the lock");
        say(format_args!("in {} {number}", guard.token()));
        guard.release().await.expect("released");
    };
    tokio::spawn(futures::future::join_all(waiters.into_iter().map(pass)));
}

async fn storm(client: &RedisClient, url: &str, rounds: usize) {
    let other = ::redis::Client::open(url).expect("a client");
    // Its own limit of 500 ms is too short for a machine that is busy.
    let patient = ::redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut other = other
        .get_multiplexed_async_connection_with_config(&patient)
        .await
        .expect("a connection");
    let lock = client.lock("storm");
    for _ in 0..rounds {
        let guard = lock.acquire().await.expect("the lock");
        let mut get = ::redis::cmd("GET");
        get.arg("counter");
        let seen: Option<u64> = get.query_async(&mut other).await.expect("a number");
        let mut set = ::redis::cmd("SET");
        set.arg("counter").arg(seen.unwrap_or(0) + 1);
        let () = set.query_async(&mut other).await.expect("set");
        guard.release().await.expect("released");
    }
    say("stormed");
}

/// A child, seen by its parent.
pub(crate) struct Led {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Led {
    pub(crate) fn spawn(server: &Server) -> Self {
        Self::spawn_with(server, &[])
    }

    pub(crate) fn spawn_with(server: &Server, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let mut child = command
            .args(["--exact", "child::child", "--ignored", "--nocapture"])
            .env("CHILD_URL", server.url())
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut led = Self {
            child,
            input,
            output,
        };
        assert_eq!(led.hear(), "ready");
        led
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the child listens");
    }

    /// Its next line; a child that says nothing for ever is ended by the runner's time limit.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("a line");
            assert!(read > 0, "the child has ended");
            if let Some(line) = line.strip_prefix('@') {
                return line.trim_end().to_owned();
            }
        }
    }

    /// It is in: its token, and whether the one before crashed.
    pub(crate) fn hear_held(&mut self) -> (u64, bool) {
        let line = self.hear();
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("held"), "{line}");
        let token = words.next().and_then(|it| it.parse().ok());
        let crashed = words.next().map(|it| it == "true");
        (token.expect("a token"), crashed.expect("a word"))
    }

    pub(crate) fn hold(&mut self, wish: &str) -> (u64, bool) {
        self.tell(wish);
        self.hear_held()
    }

    /// Asks, and stands in line.
    pub(crate) fn queue(&mut self, server: &Server, wish: &str) {
        let before = waiting(server);
        self.tell(wish);
        crate::support::eventually("in line", || waiting(server) > before);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok();
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal).expect("sent");
    }

    /// `kill -9`, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

pub(crate) fn waiting(server: &Server) -> usize {
    server.ask(&["ZCARD", "{stanchion:shared by children}:queue"])
}

/// Waits until the server has noticed who is gone: so many clients are left that listen.
pub(crate) fn assert_listeners(server: &Server, count: usize) {
    crate::support::eventually("the dead are noticed", || {
        let inboxes: Vec<String> = server.ask(&["PUBSUB", "CHANNELS", "stanchion:inbox:*"]);
        inboxes.len() == count
    });
}

impl Drop for Led {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
