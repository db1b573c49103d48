//! The child program: takes the lock as its standard input orders, and prints a line for each
//! event. Also how a test controls it.
//!
//! | command | answer |
//! |---|---|
//! | `lock`, `read`, `write`, `permit` | `held token crashed` when it has acquired; later `lost reason` |
//! | `release` | `released` or `failed kind` |
//! | `is-held` | `true` or `false` |
//! | `storm ROUNDS` | `stormed`: so often it has added one to a key, by reading and writing |
//! | `crowd FIRST COUNT` | queues so many more waits, one behind the other; `in token number` for each, numbered from FIRST |
//! | `connect` | `connected`: another client, which is kept |
//! | `fork WHAT` | `forked pid`; see [`fork`] |
//! | `contend PATH` | acquires and releases through the [gate](crate::gate) at this path until `stop`, then `contended` and its [`Tally`](crate::gate::Tally) |

use std::time::Duration;

use stanchion::redis::{OnDisconnect, Options, RedisClient, RedisGuard};
use stanchion::{Acquire, AnyGuard, Lock, SharedLock};

use crate::crew::child::{self, say};
use crate::crew::{Member, program};
use crate::gate::Gate;
use crate::server::Server;

#[path = "child_fork.rs"]
mod fork;

/// The lock that all of them use.
pub(crate) const NAME: &str = "shared by children";
/// The lease of the children. It is long enough that no hold is lost because the machine is slow.
/// It is not longer, because some tests wait for its end.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

pub(crate) fn main() {
    child::block_on(obey());
}

/// The environment sets the lease and the patience, in milliseconds.
fn options() -> Options {
    let mut options = RedisClient::options()
        .quarantine(std::env::var_os("CHILD_QUARANTINE").is_some())
        .unavailable_after(Duration::from_secs(120))
        .lease(child::duration("CHILD_LEASE").unwrap_or(LEASE));
    if let Some(patience) = child::duration("CHILD_PATIENCE") {
        // A waiter without a message notices a grant by its heartbeat. No claim window ends during
        // a test.
        options = options
            .patience(patience)
            .claim_window(Duration::from_secs(3600));
    }
    match std::env::var_os("CHILD_DROPS") {
        Some(_) => options.on_disconnect(OnDisconnect::Release),
        None => options,
    }
}

async fn obey() {
    let url = &child::variable("CHILD_URL");
    let client = options().connect(url).await;
    let client = client.expect("the server is there");
    say("ready");
    let mut hear = child::commands();
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
    // In one task, which polls them in this order.
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
    // Its own limit of 500 ms is too short for a busy machine.
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

impl Member {
    pub(crate) fn spawn(server: &Server) -> Self {
        Self::spawn_with(server, &[])
    }

    pub(crate) fn spawn_with(server: &Server, environment: &[(&str, &str)]) -> Self {
        let mut command = program("redis");
        command
            .env("CREW_THREADS", "2")
            .env("CHILD_URL", server.url())
            .envs(environment.iter().copied());
        Self::start(command)
    }

    /// Waits until it has acquired. Returns its token, and whether the holder before it crashed.
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

    /// Requests, and waits until the request is queued.
    pub(crate) fn queue(&mut self, server: &Server, wish: &str) {
        let before = waiting(server);
        self.tell(wish);
        crate::support::eventually("queued", || waiting(server) > before);
    }
}

pub(crate) fn waiting(server: &Server) -> usize {
    server.ask(&["ZCARD", "{stanchion:shared by children}:queue"])
}

/// Waits until the server has noticed which clients are gone: this many that listen are left.
pub(crate) fn assert_listeners(server: &Server, count: usize) {
    crate::support::eventually("the dead are noticed", || {
        let inboxes: Vec<String> = server.ask(&["PUBSUB", "CHANNELS", "stanchion:inbox:*"]);
        inboxes.len() == count
    });
}
