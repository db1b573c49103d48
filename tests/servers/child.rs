//! The child program of every server: takes the lock as its standard input orders, and prints a line
//! for each event. Also how a test controls it. `crate::place` has what differs between servers.
//!
//! | command | answer |
//! |---|---|
//! | `lock`, `read`, `write`, `permit` | `held token crashed` when it has acquired; later `lost reason` |
//! | `release` | `released` or `failed kind` |
//! | `is-held` | `true` or `false` |
//! | `storm ROUNDS` | `stormed`: so often it has added one to a number on the server, by reading and writing |
//! | `crowd FIRST COUNT` | queues so many more waits, one behind the other; `in token number` for each, numbered from FIRST |
//!
//! `place::Place` may obey more commands.

use std::time::Duration;

use stanchion::{Acquire, AnyGuard, Lock, SharedLock};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::crew::child::{self, say};
use crate::crew::{Member, program};
use crate::place::{self, Client, Guard, OnDisconnect, Options, Place, waiting};
use crate::server::Server;

/// The lock that all of them use.
pub(crate) const NAME: &str = "shared by children";

pub(crate) fn main() {
    child::block_on(obey());
}

/// The environment sets the lease and the patience, in milliseconds.
pub(crate) fn options() -> Options {
    let mut options = place::options()
        .unavailable_after(Duration::from_secs(120))
        .lease(child::duration("CHILD_LEASE").unwrap_or(place::LEASE));
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

/// The state of a child.
pub(crate) struct Child {
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) guard: Option<AnyGuard>,
    pub(crate) hear: UnboundedReceiver<String>,
}

async fn obey() {
    let url = child::variable("CHILD_URL");
    let client = options().connect(&url).await;
    let mut own = Child {
        client: client.expect("the server is there"),
        url,
        guard: None,
        hear: child::commands(),
    };
    let mut place = Place::new();
    say("ready");
    while let Some(line) = own.hear.recv().await {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "release" => match own.guard.take().expect("it holds").release().await {
                Ok(()) => say("released"),
                Err(error) => say(format_args!("failed {:?}", error.kind())),
            },
            "is-held" => say(own.guard.as_ref().is_some_and(AnyGuard::is_held)),
            "storm" => storm(&own, rest.parse().expect("a number")).await,
            "crowd" => crowd(&own.client, rest),
            "lock" | "read" | "write" | "permit" => {
                let taken = take(&own.client, word).await;
                let (token, crashed) = (taken.token(), taken.predecessor_crashed());
                say(format_args!("held {} {crashed}", token.expect("a token")));
                let lost = taken.lost();
                tokio::spawn(async move { say(format_args!("lost {:?}", lost.await)) });
                own.guard = Some(taken);
            }
            _ => place.obey(&mut own, word, rest).await,
        }
    }
}

async fn take(client: &Client, wish: &str) -> AnyGuard {
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

fn crowd(client: &Client, numbers: &str) {
    let mut numbers = numbers.split(' ').map(|it| it.parse().expect("a number"));
    let (first, count): (usize, usize) =
        (numbers.next().expect("one"), numbers.next().expect("two"));
    let lock = client.lock(NAME);
    // In one task, which polls them in this order.
    let waiters: Vec<_> = (first..first + count)
        .map(|number| (number, lock.acquire()))
        .collect();
    let pass = |(number, waiter): (usize, Acquire<Guard>)| async move {
        let guard = waiter.await.expect("the lock");
        say(format_args!("in {} {number}", guard.token()));
        guard.release().await.expect("released");
    };
    tokio::spawn(futures::future::join_all(waiters.into_iter().map(pass)));
}

/// Updates are lost if two do it at once.
async fn storm(own: &Child, rounds: usize) {
    let number = place::Number::at(&own.url).await;
    let lock = own.client.lock("storm");
    for _ in 0..rounds {
        let guard = lock.acquire().await.expect("the lock");
        let seen = number.get().await;
        number.set(seen + 1).await;
        guard.release().await.expect("released");
    }
    say("stormed");
}

impl Member {
    pub(crate) fn spawn(server: &Server) -> Self {
        Self::spawn_with(server, &[])
    }

    pub(crate) fn spawn_with(server: &Server, environment: &[(&str, &str)]) -> Self {
        let mut command = program(place::PROGRAM);
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

/// Waits until the server has noticed which clients are gone: this many that listen are left.
pub(crate) fn assert_listeners(server: &Server, count: usize) {
    crate::support::eventually("the dead are noticed", || place::listeners(server) == count);
}
