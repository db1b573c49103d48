//! A model of the leases of the lock on a Redis server: one exclusive lock, one server, two or
//! three clients.
//!
//! # What is modelled
//!
//! - `redis/server.rs` is the scripts, one step each, under the names of `src/redis/scripts`:
//!   acquire, heartbeat, release, leave, pass; what is overdue; the offer to the head and its
//!   message; the quarantine by run id, start, witness and fence.
//! - `redis/client.rs` is the actor with its entry, the future and the guard: every answer and
//!   message, heartbeats, alarms, a poll, a grant that is passed on, a hold that is asserted.
//! - The requests of a client arrive in order, and so do its answers and its messages. A message
//!   and an answer are read in any order.
//! - Time passes in steps. A lease has four steps, a claim window two. Three quarters of them are
//!   three and one.
//! - `redis/steps.rs` has what can happen. A client dies, pauses for any time, or drops its future.
//!   A client is disconnected, connects again, and then repeats everything. Requests of the old
//!   connection arrive late. The server's clock runs ahead. The server is flushed, loses `state`,
//!   or restarts with all its data, none of it, or an older copy. A replica with such data takes
//!   over. The server notices late that no process listens on an inbox.
//!
//! # What is abstracted
//!
//! - Deadlines and ages count by their rest, numbers and turns by their order. Clients are
//!   interchangeable, so a client may have another number in the next line of a trace. The lock's
//!   clock does not advance between arrivals and grants: two answers in a row have the same
//!   `before`.
//! - What a running client waits for arrives before time passes ([`rules::Rules::delay`] lifts
//!   that), because of `response_timeout`. Messages, and what a stopped client waits for, arrive at
//!   any time. Messages beyond [`rules::Rules::inbox`] are lost.
//! - Heartbeats come at any time after the last one, alarms before time passes. Waiters are kept
//!   forever, or given up at any time (`impatient`).
//! - A repeated request without a timely answer is one that was late on a broken connection.
//! - Not modelled: shares (`redis/downgrade.rs` has them), `crashed`, `max_hold`, `drops`, and the
//!   deletion of all keys by hand, which is a known limit. A replica without `state` is such a
//!   deletion too.
//!
//! # What is checked
//!
//! - There are never two holders by their own clocks, paused or not.
//! - Tokens rise from one guard to the next.
//! - No grant overtakes a waiter in the queue that arrived first, whatever number that has now.
//! - No wait is granted after it has left. The exception is a request of a broken connection, which
//!   costs a lease.
//! - No hold comes back after its lease, or after a later grant.
//! - From every state all living clients can finish. So no wake-up is lost for good.
//!
//! # What it has found
//!
//! Four faults, all fixed. The mutations in `redis/mutations.rs` switch the fixes off, and the
//! model finds the faults again:
//!
//! - An answer that arrived too late was never asked for again. Now the client asks again.
//! - A late pass of a broken connection ended a hold that was granted since. Now a pass names its
//!   turn, and the next request names the returned turn.
//! - On a server with older records, after a restart or on a replica, a recorded holder was granted
//!   the lock at once. Now a recorded hold does not count on another server than the last one:
//!   holders assert their tokens, and waiters wait.
//! - A grant that was over was asserted, and came back beside another one. Now a client asserts
//!   only what is valid, and returns what is over before it asks again.

mod canon;
mod client;
mod downgrade;
mod mutations;
mod rules;
mod server;
mod steps;
mod world;

use crate::graph;
use rules::Rules;
use world::World;

/// Asserts that no state of the scenario has a fault.
fn holds(rules: Rules) {
    graph::holds(World::new(rules));
}

/// Two clients, one wait each.
const TWO: Rules = Rules::new([1, 1, 0]);
/// The same with one request at a time.
const NARROW: Rules = Rules { flights: 1, ..TWO };
/// Three, with one request at a time.
const THREE: Rules = Rules {
    flights: 1,
    ..Rules::new([1, 1, 1])
};

/// A test for each scenario. Scenarios with a reason before them run on demand.
macro_rules! scenarios {
    ($(#[$ignore:meta])? : $($(#[doc = $doc:literal])* $name:ident: $base:ident => { $($field:ident: $value:expr),* $(,)? })*) => {
        scenarios! { @ [$(#[$ignore])?] $([$(#[doc = $doc])*] $name $base { $($field: $value),* })* }
    };
    (@ $ignore:tt $($doc:tt $name:ident $base:ident $fields:tt)*) => {
        $(scenarios! { @@ $ignore $doc $name $base $fields })*
    };
    (@@ [$($ignore:tt)*] [$($doc:tt)*] $name:ident $base:ident { $($field:ident: $value:expr),* }) => {
        $($doc)*
        #[test]
        $($ignore)*
        fn $name() {
            holds(Rules { $($field: $value,)* ..$base });
        }
    };
}

scenarios! { :
    /// One acquires after the other.
    redis_two: TWO => { }
    /// One queues twice.
    redis_twice: NARROW => { rounds: [2, 1, 0] }
    /// One is stopped anywhere.
    redis_stop: NARROW => { stops: 1 }
    /// One is killed.
    redis_kill: NARROW => { kills: 1 }
    /// A future is dropped.
    redis_leave: NARROW => { leaves: 1 }
    /// A kill and a dropped future.
    redis_kill_and_leave: NARROW => { kills: 1, leaves: 1 }
    /// A connection breaks.
    redis_cut: NARROW => { cuts: 1 }
    /// The server's clock runs ahead.
    redis_drift: NARROW => { drift: 1 }
    /// All databases are flushed.
    redis_flush: NARROW => { flushes: 1 }
    /// `DEL state`
    redis_delete: NARROW => { deletes: 1 }
    /// The server restarts with all its data.
    redis_restart: NARROW => { restarts: 1 }
    /// It restarts without data.
    redis_blank: NARROW => { blanks: 1 }
}

scenarios! { #[ignore = "wide: millions of states"] :
    /// Three.
    wide_redis_three: THREE => { }
    /// Answers are slow.
    wide_redis_delay: NARROW => { delay: 9 }
    /// One is stopped, with two requests at a time. The rest is the same for other clients.
    wide_redis_stop: TWO => { stops: 1 }
    wide_redis_twice: TWO => { rounds: [2, 1, 0] }
    wide_redis_kill: TWO => { kills: 1, leaves: 1 }
    wide_redis_cut: TWO => { cuts: 1 }
    wide_redis_drift: TWO => { drift: 1 }
    wide_redis_flush: TWO => { flushes: 1 }
    wide_redis_delete: TWO => { deletes: 1 }
    wide_redis_restart: TWO => { restarts: 1 }
    wide_redis_blank: TWO => { blanks: 1 }
    /// Waiters are given up.
    wide_redis_impatient: NARROW => { impatient: true }
    wide_redis_both_impatient: TWO => { impatient: true }
    /// Two connections break.
    wide_redis_cuts: NARROW => { cuts: 2 }
    /// Requests on a broken connection arrive late.
    wide_redis_late: NARROW => { cuts: 1, late: true }
    /// The same with two requests.
    wide_redis_both_late: TWO => { cuts: 1, late: true }
    /// One is stopped, and the clock runs ahead.
    wide_redis_stop_and_drift: NARROW => { stops: 1, drift: 1 }
    /// One is stopped, and a restart.
    wide_redis_stop_and_restart: NARROW => { stops: 1, restarts: 1 }
    /// One is stopped, and `DEL state`.
    wide_redis_stop_and_delete: NARROW => { stops: 1, deletes: 1 }
    /// One is stopped, and a flush.
    wide_redis_stop_and_flush: NARROW => { stops: 1, flushes: 1 }
    /// The server starts with older data.
    wide_redis_rollback: NARROW => { rollbacks: 1 }
    /// A replica takes over.
    wide_redis_failover: NARROW => { failovers: 1 }
}
