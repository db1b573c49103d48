//! How locks on a server work: queue entries, leases, offers, and what a caller can rely on.
//!
//! The locks of all servers share this part of the crate. Each server has its own module for the
//! rest: the connection, the steps that run on the server, and its own limits.
//!
//! # Guarantees and limits
//!
//! - **A hold is a lease.** When a holder dies, the next waiter acquires the lock after the
//!   holder's lease is over (10 s by default). When a holder is stopped or cut off from the server,
//!   [`lost()`](crate::Guard::lost) reports it before another caller acquires the lock, **if the
//!   holder's process runs**. A holder that is stopped past its lease, or ignores `lost()`,
//!   continues beside the next holder. Then only the resource can stop the late holder: pass the
//!   fencing token to the resource, which refuses smaller tokens; see
//!   [`TokenGate`](crate::TokenGate).
//! - **An unclaimed hold is shorter.** The lease of a hold that was handed over and is not claimed
//!   yet is only one claim window, counted from the last request that the server has answered. If
//!   the server stops for more than a second at that time, this hold is lost earlier than other
//!   holds. A caller that finds the lock free has a whole lease at once.
//! - **Quarantine.** A server that may have forgotten a holder grants nothing for one lease, so
//!   that forgotten holders can come back. They assert their holds with their tokens.
//! - **The server's clock.** If the clock is set forward, leases end early by as much. If it is set
//!   back, they end late by as much. Clocks of different hosts are never compared.
//! - **Dead waiters.** A waiter that the server knows to be disconnected when its turn comes is
//!   bypassed. If it lives, it comes back at the front. Waiters on a host that vanished without
//!   closing its connections delay the next waiter by at most their patience, 4 s by default, all
//!   of them together.
//!
//! # Waits
//!
//! Dropping the future of a wait leaves the queue, in the background. A wait that fails leaves too,
//! because the server may have received its request. If the process dies, its queue entry is free
//! after its patience at the latest, and at once when its turn comes and its connection is gone.
//!
//! A wait fails with these errors:
//!
//! - [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) and
//!   [`ErrorKind::Busy`](crate::ErrorKind::Busy) where the caller set a limit.
//! - [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the server does not answer, is
//!   a replica, or cannot be written to, for the time that the option `unavailable_after` sets.
//! - [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the name is in use with
//!   another kind or version of lock, another limit, another lease, or data of another type.
//! - [`ErrorKind::Closed`](crate::ErrorKind::Closed) after `close`.
//! - [`ErrorKind::Io`](crate::ErrorKind::Io) with `PermissionDenied` when the user lacks the
//!   rights.
//!
//! # The background thread
//!
//! Each client has its own thread with a small runtime. The thread owns the connection, renews the
//! leases, and releases the locks of dropped guards and futures. So these may be dropped anywhere,
//! even outside a runtime. If the caller's runtime is blocked or ends, no lease is lost.
//!
//! One exception is a connection that is handed in. The runtime on which it was created drives it.
//! If that runtime ends, the leases end.
//!
//! A lock that is still held at the end of the process stays held until its lease is over. Release
//! guards before `main` returns.
//!
//! # Algorithm
//!
//! *Shares.* A lock has one share. A semaphore has n. A reader-writer lock has a thousand million,
//! and a writer takes all of them. So one routine serves exclusive, shared and weighted requests.
//!
//! *Steps.* The server changes a lock in steps: `enter`, `heartbeat`, `release`, `force_release`
//! and `remove`. Each step is atomic. It reads the server's time once and takes max(time, last
//! tick); it removes what is overdue; it grants the lock from the head of the queue while shares
//! are left.
//!
//! *Entries.* Each acquire has a queue entry with an id of its own. Holders and waiters report with
//! heartbeats: a holder every third of its lease, a waiter every third of its patience. One
//! heartbeat carries up to 128 ids of one lock.
//!
//! *Hand-over.* The step that frees shares grants the lock to the next waiter and notifies its
//! process. This grant is an *offer*: it lasts for a claim window, and a heartbeat turns it into a
//! hold.
//!
//! The receiver cannot know how old the message is. But the server made the offer after its last
//! answer that said "you wait". So the window of the offer is not over before one window has passed
//! since the *request* for that answer. In the first half of that time the receiver holds the lock
//! at once, with a lease of that length, and claims the offer when it renews. A short hold ends
//! before that, without a claim. After that half the receiver claims first. A caller that finds the
//! lock free needs no claim.
//!
//! *The life of a request:*
//!
//! | what happens | the session | the server |
//! |---|---|---|
//! | the future is polled first | `Asking` | `enter` arrives: the lock is granted, or the id is queued |
//! | "queued" arrives | `Waiting` | keeps the entry, as long as heartbeats arrive |
//! | the holder releases | `Waiting` | offers the lock to this id, and sends a notice |
//! | the notice arrives | `Granted` | – |
//! | the future is polled | `Held` | – |
//! | a third of the lease is over | `Held` | a heartbeat claims the offer and renews the lease |
//! | the guard is dropped | `Over` | `release` arrives: offers the lock to the next id |
//!
//! If the future is not polled within the claim window, the grant goes back (`Bypassed`), and the
//! entry keeps its arrival number. If the connection breaks, the client connects again and repeats
//! every request. If the server has forgotten a hold, the client asserts it with its token.
//!
//! # Invariants
//!
//! 1. The shares of all holders together never exceed the limit: every change is one step.
//! 2. Every request carries the 128-bit id of its wait, and repeating a request changes nothing. An
//!    id that is on record gets its answer again, not a second grant.
//! 3. In the holder's process, a hold counts from before its request was sent, and is given up
//!    after three quarters of its lease. On the server, it counts from later and to the end.
//! 4. Arrivals, grants and tokens take ticks of one clock: max(last + 1, microseconds of the
//!    server). A token is written before any process learns of the grant.
//! 5. The client subscribes to its inbox before the first request. Messages are hints: a heartbeat
//!    finds out the same, later.
//! 6. No living waiter is bypassed forever: a waiter that misses its turn keeps its number.
//!
//! # After a crash
//!
//! A dead holder's shares are free after its lease. If it held the lock exclusively, the next guard
//! has `predecessor_crashed()`. A dead waiter's queue entry is removed when its patience is over,
//! or when its turn comes and no process listens on its inbox. The quarantine covers a server that
//! comes back.
//!
//! # Fairness
//!
//! By arrival at the server. Exclusive requests, shared requests and requests for many permits are
//! in one queue. The head of the queue blocks all waiters behind it until there is room for it.
//!
//! # Cost
//!
//! An acquire or a release is one round trip. A hand-over is the release and a message, and a claim
//! if the hold lasts. A hold costs a heartbeat each third of a lease. Waiters cost one heartbeat
//! each 1.3 s by default, for each lock and process.
//!
//! # Sources
//!
//! - Martin Kleppmann, *How to do distributed locking* (2016), for tokens.
//! - Gray and Cheriton, *Leases* (1989), for the holder's side of the clock.

// The parts, lower ones first. `store` is the seam to a backend, with its rules.
//
// | part | what it is |
// |---|---|
// | `ambient` | the clock and the random ids |
// | `clock` | points in time, and how long a hold counts as valid |
// | `store` | what the core asks of a server |
// | `record` | what all servers write alike |
// | `session` | the state of one wait and its hold, shared by future, guard and actor |
// | `actor` | the task of a client: sends requests, handles answers, renews holds |
// | `client` | the handle on the actor, and its thread |
// | `lock` | the handle on one lock, the wait in the future, and the hold in the guard |
// | `options` | the options that all servers have |
// | `locks` | macros that define the types of a backend |

mod actor;
mod ambient;
mod client;
mod clock;
mod lock;
mod locks;
mod options;
mod record;
mod session;
#[cfg(test)]
#[path = "../../tests/lease/mod.rs"]
pub(crate) mod simulation;
mod store;
#[cfg(test)]
#[path = "../../tests/lease/verdicts.rs"]
mod verdicts;

pub(crate) use client::Client;
pub(crate) use lock::{LeaseHold, LeaseLock, LeasePending};
pub(crate) use locks::{guard, handle, locks};
pub use options::OnDisconnect;
pub(crate) use options::{Settings, config};
pub(crate) use store::{
    Answer, Doubt, Enter, Entered, Failure, Grant, Heartbeat, Inspection, Kind, Leave, Link,
    LockState, Member, Mismatch, Notice, Notices, Pulse, Remedy, Store, Target, Terms, Tokens,
    without_secrets,
};
#[cfg(test)]
pub(crate) use verdicts::assert_documented;
