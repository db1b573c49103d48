//! Fair locks for many hosts, on one Redis server: exclusive, shared, and with permits.
//!
//! ```no_run
//! # async fn example() -> stanchion::Result<()> {
//! use std::time::Duration;
//! use stanchion::redis::RedisClient;
//!
//! let client = RedisClient::options().namespace("shop").label("nightly backup").connect("redis://127.0.0.1/").await?;
//! let lock = client.lock("backup");
//! let guard = lock.acquire().timeout(Duration::from_secs(60)).on_wait(|line| eprintln!("{line}")).await?;
//! tokio::select! {
//!     () = back_up(guard.token()) => guard.release().await?,
//!     loss = guard.lost() => eprintln!("stopped: {loss}"),
//! }
//! # Ok(()) }
//! # async fn back_up(_: u64) {}
//! ```
//!
//! Who came first goes first: the order is that of arrival at the server. A release hands the lock to the next in line in the same step
//! and tells its process, so nobody asks again and again. A holder renews its lease in the background as long as the guard lives.
//!
//! # What holds, and what does not
//!
//! - A hold is a *lease*. A holder that dies is followed when its lease is over (10 s by default). A holder that is cut off from the server, or
//!   stands still, is told by [`lost()`](crate::Guard::lost) before anybody else is let in, **if it runs**: one that stands still past its lease, or
//!   does not listen, goes on beside the next one. Only the resource can stop it then: hand it the fencing token and let it refuse
//!   smaller ones, see [`TokenGate`](crate::TokenGate).
//! - A hold that was handed over and is not claimed yet has a lease of the [claim window](Config::claim_window) only, counted from the last time the server was heard: if the
//!   server stands still for more than a second just then, it is lost sooner than another hold would be. Whoever finds the lock free has a whole lease at once.
//! - One server. With replicas a failover may forget the last moments; the quarantine below holds for what is on record at the new server.
//!   Clusters are refused. There is no Redlock: it gives neither order nor tokens.
//! - After a restart or a failover nobody is let in for one lease ([`Config::quarantine`]), so that holders that the server has forgotten can come back. It
//!   is noticed by the server's run id, and for locks that the server knows nothing of by its uptime. So a server that has just been started lets in
//!   nobody before it is as old as the lease. The same holds after `FLUSHALL` and `FLUSHDB`, and after `state` alone was deleted.
//! - A lock whose keys are all deleted by hand looks like a new one. Holders come back with their next renewal; if somebody was let
//!   in before, they have lost. Let the server's `maxmemory-policy` be `noeviction`: another one is told of in a trace event.
//! - If the server's clock is set forward, leases end early by as much. If it is set back, they end late by as much. No clock of one host is compared with that of
//!   another.
//! - Deaths of *waiters* cost nothing where the connection ends with them: whoever has none when his turn comes is passed, and comes back to the front if he lives. Those of a
//!   host that vanished without a word delay the next one by at most [`patience`](Config::patience), 4 s, all of them together.
//!
//! # The background thread
//!
//! Each client has a thread of its own with a small runtime, which owns the connection, renews, and releases what is dropped. So guards and futures may be
//! dropped anywhere, also outside a runtime, and a caller's runtime that is blocked or ends loses no lease. (A connection that is
//! [handed in](RedisClient::from_connection) is driven by the runtime it was made on; if that one ends, the leases end.) At the end of the process what is
//! held and not released stays until its lease is over: release guards before `main` returns.
//!
//! # Rights
//!
//! The user needs the keys `{<namespace>:*` and `<namespace>:witness`, the channels `stanchion:inbox:*`, and the commands `evalsha eval script|load info ping subscribe publish client|setname`, those
//! that the scripts use on strings, hashes and sorted sets included. Without `subscribe` waiters poll; without `info` there is no
//! quarantine. Both are told in trace events.
//!
//! # Algorithm
//!
//! *Keys*, all under one hash tag, written `{namespace:name}`: `state` (one text: version, kind, limit, lease, run id, shares in use, not-before, the last tick, and
//! who has all shares), `queue` (sorted set: arrival number → waiter id), `alive` (deadline → waiter id), `hold` (expiry → id of who shares), `who`
//! (id → record), `fence` (the last token). All but `fence` are deleted by the server when nobody has used them for a day; that is never the end of a hold.
//! One key belongs to all locks of a namespace: `namespace:witness`, since when nothing was flushed.
//!
//! *Scripts*: `acquire`, `heartbeat`, `release`, `inspect`, `force`. Each reads the server's time once and takes max(time, last tick); removes who is overdue; lets in
//! from the head of the queue while shares are left; stores. A lock has one share, a semaphore n, a reader-writer lock a thousand million of which a writer takes all: so
//! one routine serves exclusive, shared and weighted requests.
//!
//! *Hand-over*: the script that frees shares lets the next one in and publishes to the inbox of its process. That is an *offer*: it stands for a claim
//! window, and becomes a hold by a heartbeat. The receiver cannot know how old the message is. But the offer came after the last answer that said "you wait", so its window
//! is not over before a window has gone by since the *request* for that answer. In the first three quarters of that time the receiver is inside at once, with a lease of
//! that length, and claims when it renews; a short hold ends before that, without a claim. Else it claims first. Whoever finds the lock free needs no claim.
//!
//! # Invariants
//!
//! 1. The shares of all inside together never exceed the limit: every change is one script.
//! 2. Every request carries the 128-bit id of its wait, and repeating it changes nothing: who is on record is answered, not let in again.
//! 3. A hold counts here from before its request was sent, and is given up after three quarters of its lease; the server counts from later and to the end.
//! 4. Arrivals, grants and tokens take ticks of one clock: max(last + 1, microseconds of the server). A token is written before anybody hears of the grant.
//! 5. The inbox is subscribed to before the first request. Messages are hints: a heartbeat finds what they say, later.
//! 6. Nobody who lives in the queue is passed for good: who misses his turn keeps his number.
//!
//! # After a crash
//!
//! A holder's shares are free after its lease; the next exclusive guard has `predecessor_crashed()`. A waiter's entry goes when its deadline is over, or
//! when its turn comes and nobody listens on its inbox. A server that comes back: see above.
//!
//! # Fairness
//!
//! By arrival number, exclusive and shared requests and requests for many permits in one queue. The first in line blocks all behind it until there is room for it.
//!
//! # Cost
//!
//! An acquire or release is one round trip; a hand-over is the release and a message, and a claim if the hold lasts. Work on the server is O(log n) in the number of waiters, whoever
//! is next. A hold costs a heartbeat each third of a lease, waiters one each 1.3 s for each lock and process.
//!
//! # Sources
//!
//! Redis documentation on scripting, `EVALSHA` and pub/sub; Martin Kleppmann, *How to do distributed locking* (2016), for tokens; Gray and Cheriton,
//! *Leases* (1989), for the holder's side of the clock.

mod actor;
mod client;
mod face;
mod hold;
mod lease;
mod link;
mod lock;
mod options;
mod pending;
mod place;
mod replies;
mod rwlock;
mod scripts;
mod semaphore;
mod verdict;

pub use client::RedisClient;
pub use lock::{RedisGuard, RedisLock};
pub use options::{Config, OnDisconnect, Options};
pub use rwlock::{RedisReadGuard, RedisRwLock, RedisWriteGuard};
pub use semaphore::{RedisPermit, RedisSemaphore};
