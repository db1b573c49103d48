//! What the tests that all servers share need of Redis.
//!
//! The child program obeys these commands too:
//!
//! | command | answer |
//! |---|---|
//! | `connect` | `connected`: another client, which is kept |
//! | `fork WHAT` | `forked pid`; see [`fork`] |
//! | `contend PATH` | acquires and releases through the [gate](crate::gate) at this path until `stop`, then `contended` and its [`Tally`](crate::gate::Tally) |

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
pub(crate) use stanchion::redis::{
    OnDisconnect, Options, RedisClient as Client, RedisGuard as Guard,
};

use crate::child::Child;
use crate::crew::child::say;
use crate::gate::Gate;
use crate::server::Server;

#[path = "child_fork.rs"]
mod fork;

/// The name of the child program.
pub(crate) const PROGRAM: &str = "redis";
/// The lease of the children. It is long enough that no hold is lost because the machine is slow.
/// It is not longer, because some tests wait for its end.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

pub(crate) fn options() -> Options {
    Client::options().quarantine(std::env::var_os("CHILD_QUARANTINE").is_some())
}

/// How many callers wait for the lock of the children.
pub(crate) fn waiting(server: &Server) -> usize {
    server.ask(&["ZCARD", "{stanchion:shared by children}:queue"])
}

/// How many clients listen.
pub(crate) fn listeners(server: &Server) -> usize {
    let inboxes: Vec<String> = server.ask(&["PUBSUB", "CHANNELS", "stanchion:inbox:*"]);
    inboxes.len()
}

/// The ids that wait for the lock `a`, in order.
pub(crate) fn queue(server: &Server) -> Vec<String> {
    server.ask(&["ZRANGE", "{stanchion:a}:queue", "0", "-1"])
}

/// How many connections a client has.
pub(crate) const CONNECTIONS: usize = 1;

/// Ends the connection of the client.
pub(crate) fn cut(server: &Server, _: usize) {
    server.ask::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
}

/// Calls this while the server receives requests, but runs and answers none.
pub(crate) fn unanswered<T>(server: &Server, body: impl FnOnce() -> T) -> T {
    let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw);
    let signal = |signal| kill_process(pid.expect("a process"), signal).expect("it runs");
    signal(Signal::STOP);
    let result = body();
    signal(Signal::CONT);
    result
}

/// A number under a key, which is read and written in two commands.
pub(crate) struct Number(MultiplexedConnection);

impl Number {
    pub(crate) fn create(_: &Server) {}

    pub(crate) async fn at(url: &str) -> Self {
        let client = ::redis::Client::open(url).expect("a client");
        // Its own limit of 500 ms is too short for a busy machine.
        let patient = ::redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&patient);
        Self(connecting.await.expect("a connection"))
    }

    pub(crate) async fn get(&self) -> i64 {
        let mut get = ::redis::cmd("GET");
        get.arg("counter");
        let seen: Option<i64> = get
            .query_async(&mut self.0.clone())
            .await
            .expect("a number");
        seen.unwrap_or(0)
    }

    pub(crate) async fn set(&self, number: i64) {
        let mut set = ::redis::cmd("SET");
        set.arg("counter").arg(number);
        let () = set.query_async(&mut self.0.clone()).await.expect("set");
    }
}

/// The commands that only this server has.
pub(crate) struct Place {
    others: Vec<Client>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { others: Vec::new() }
    }

    pub(crate) async fn obey(&mut self, own: &mut Child, word: &str, rest: &str) {
        match word {
            "fork" => fork::in_a_copy(rest, &own.client, &own.url, &mut own.guard),
            "connect" => {
                let other = crate::child::options().connect(&own.url).await;
                self.others.push(other.expect("a client"));
                say("connected");
            }
            "contend" => {
                let (gate, hear) = (Gate::at(rest.as_ref()), &mut own.hear);
                let tally = gate.contend(&own.client, async { _ = hear.recv().await });
                say(format_args!("contended {}", tally.await));
            }
            _ => panic!("an unknown command: {word}"),
        }
    }
}
