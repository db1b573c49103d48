//! The child program: takes the lock as its standard input orders, and prints a line for each
//! event. Also how a test controls it.
//!
//! | command | answer |
//! |---|---|
//! | `lock`, `read`, `write`, `permit` | `held token crashed` when it has acquired; later `lost reason` |
//! | `release` | `released` or `failed kind` |
//! | `is-held` | `true` or `false` |
//! | `crowd FIRST COUNT` | queues so many more waits, one behind the other; `in token number` for each, numbered from FIRST |
//! | `storm ROUNDS` | `stormed`: so often it has added one to a number in the database, by reading and writing |

use std::time::Duration;

use stanchion::postgres::{OnDisconnect, Options, PgClient, PgGuard};
use stanchion::{Acquire, AnyGuard, Lock, SharedLock};
use tokio_postgres::NoTls;

use crate::crew::child::{self, say};
use crate::crew::{Member, program};
use crate::server::Server;

/// The lock that all of them use.
pub(crate) const NAME: &str = "shared by children";
/// The lease of the children. It is long enough that no hold is lost because the machine is slow.
/// It is not longer, because some tests wait for its end.
pub(crate) const LEASE: Duration = Duration::from_secs(8);

pub(crate) fn main() {
    child::block_on(obey());
}

/// The environment sets the lease and the patience, in milliseconds.
fn options() -> Options {
    let mut options = PgClient::options()
        .install(true)
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
    while let Some(line) = hear.recv().await {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("release", _) => match guard.take().expect("it holds").release().await {
                Ok(()) => say("released"),
                Err(error) => say(format_args!("failed {:?}", error.kind())),
            },
            ("is-held", _) => say(guard.as_ref().is_some_and(AnyGuard::is_held)),
            ("storm", rounds) => storm(&client, url, rounds.parse().expect("a number")).await,
            ("crowd", numbers) => crowd(&client, numbers),
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

async fn take(client: &PgClient, wish: &str) -> AnyGuard {
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

fn crowd(client: &PgClient, numbers: &str) {
    let mut numbers = numbers.split(' ').map(|it| it.parse().expect("a number"));
    let (first, count): (usize, usize) =
        (numbers.next().expect("one"), numbers.next().expect("two"));
    let lock = client.lock(NAME);
    // In one task, which polls them in this order.
    let waiters: Vec<_> = (first..first + count)
        .map(|number| (number, lock.acquire()))
        .collect();
    let pass = |(number, waiter): (usize, Acquire<PgGuard>)| async move {
        let guard = waiter.await.expect("the lock");
        say(format_args!("in {} {number}", guard.token()));
        guard.release().await.expect("released");
    };
    tokio::spawn(futures::future::join_all(waiters.into_iter().map(pass)));
}

/// Reads and writes a number without a transaction, so that updates are lost if two do it at once.
async fn storm(client: &PgClient, url: &str, rounds: usize) {
    let connected = tokio_postgres::connect(url, NoTls).await;
    let (session, connection) = connected.expect("a connection");
    tokio::spawn(connection);
    let lock = client.lock("storm");
    for _ in 0..rounds {
        let guard = lock.acquire().await.expect("the lock");
        let row = session.query_one("SELECT number FROM counter", &[]).await;
        let seen: i64 = row.expect("a row").get(0);
        let more = format!("UPDATE counter SET number = {}", seen + 1);
        session.batch_execute(&more).await.expect("updated");
        guard.release().await.expect("released");
    }
    say("stormed");
}

impl Member {
    pub(crate) fn spawn(server: &Server) -> Self {
        Self::spawn_with(server, &[])
    }

    pub(crate) fn spawn_with(server: &Server, environment: &[(&str, &str)]) -> Self {
        let mut command = program("postgres");
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
    server.count("SELECT coalesce(sum(waiting), 0) FROM stanchion.locks")
}

/// Waits until the server has noticed which clients are gone: so many sessions are left that
/// listen.
pub(crate) fn assert_listeners(server: &Server, count: usize) {
    let sql = "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'";
    crate::support::eventually("the dead are noticed", || server.count(sql) == count);
}
