//! A model of the leases of the lock on a Redis server: one exclusive lock, one server, two or three clients.
//!
//! # What is modelled
//!
//! `redis/server.rs` is the scripts, each one step, under the names of `src/redis/scripts`: acquire, heartbeat, release, leave, pass; what is
//! overdue, the offer to the head and its message, the quarantine by run id, start, witness and fence. `redis/client.rs` is the actor with its
//! seat, the future and the guard: every answer and message, heartbeats, alarms, a poll, a grant passed on, a hold asserted anew. Requests and
//! answers of a client are each first in, first out, and so are its messages; a message and an answer are read in any order. Time goes by in steps, in which a
//! lease is four, a claim window two, three quarters three and one. `redis/steps.rs` has what befalls: a client dies, stands still for as long as it
//! likes, drops its future, is cut off and connects again, and asks for everything then; requests of the old connection come late; the server's clock
//! runs ahead; the server is flushed, loses `state`, starts again with all, with nothing, with what was written earlier, or is succeeded by a
//! replica that knows as much. It finds out late that nobody listens.
//!
//! # What is abstracted
//!
//! - Deadlines and ages count by what is left of them; numbers and turns by their order; clients are interchangeable, so that in a trace a client may have
//!   another number in the next line. The lock's clock stands still between arrivals and grants: who is asked twice is told the same `before`.
//! - What a running client waits for comes before time goes by ([`rules::Rules::delay`] lifts that), as `response_timeout` sees to it; what a stopped one
//!   waits for, and messages, come at any time. Of more messages than [`rules::Rules::inbox`] those beyond are lost.
//! - Heartbeats come at any time after the last, alarms before time goes by. Waiters are kept for ever, or given up at any time (`impatient`).
//! - A request that was not answered in time and is repeated is one that was late on a broken connection. Shares (`redis/downgrade.rs` is of them), `crashed`, `max_hold`, `drops` and
//!   deletion of all keys by hand, which is a limit that is known, are not modelled. A replica without `state` is one, too.
//!
//! # What is checked
//!
//! Never two who hold by their own clocks, asleep or not; tokens rise from one guard to the next; nobody is let in before one in the queue who
//! came first, whatever number it has now; nobody is let in after it has left, save by a request of a broken connection, which costs a lease; no hold that is over comes back, and none
//! after another was taken; from every state all who live can get done. So there is no wake-up that is lost for good.
//!
//! # What it has found
//!
//! Four faults, all mended. What mends them can be switched off by the mutations in `redis/mutations.rs`, which then find them again:
//!
//! - An answer that came too late was never asked about again. Now who gets it asks anew.
//! - A late pass of a broken connection ended a hold that was granted since. Now a pass names its turn, and who asks next names the turn it gave back.
//! - On a server with older records, after a restart or on a replica, who was on record was let in by them at once. Now on another server than its last
//!   nobody counts as inside: holders assert their tokens, and waiters wait.
//! - A grant that was over was asserted, and came back beside another. Now only what is valid is asserted, and what is over is given back before it asks again.

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

/// No state of the scenario is wrong.
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

/// A test for each scenario. Where a reason stands before them they run on demand.
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
    /// One is let in after the other.
    redis_two: TWO => { }
    /// One stands in line twice.
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
    /// The server starts again and knows everything.
    redis_restart: NARROW => { restarts: 1 }
    /// It starts again and knows nothing.
    redis_blank: NARROW => { blanks: 1 }
}

scenarios! { #[ignore = "wide: millions of states"] :
    /// Three.
    wide_redis_three: THREE => { }
    /// Answers take their time.
    wide_redis_delay: NARROW => { delay: 9 }
    /// One is stopped, with two requests at a time. What follows is the same for others.
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
    /// What was under way on a connection that broke comes late.
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
    /// The server starts with what was written earlier.
    wide_redis_rollback: NARROW => { rollbacks: 1 }
    /// A replica takes over.
    wide_redis_failover: NARROW => { failovers: 1 }
}
