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
//! The order is first come, first served, by arrival at the server. A release hands the lock to the
//! next waiter in the same step and informs its process, so waiters do not poll. A holder renews
//! its lease in the background as long as the guard lives.
//!
//! # Guarantees and limits
//!
//! - **A hold is a lease.** When a holder dies, the next waiter acquires the lock after the
//!   holder's lease is over (10 s by default). When a holder is stopped or cut off from the server,
//!   [`lost()`](crate::Guard::lost) informs it before another caller acquires the lock, **if its
//!   process runs**. A holder that is stopped past its lease, or does not listen, continues beside
//!   the next holder. Then only the resource can stop it: pass the fencing token to the resource
//!   and let it refuse smaller ones, see [`TokenGate`](crate::TokenGate).
//! - **An unclaimed hold is shorter.** A hold that was handed over and is not claimed yet has a
//!   lease of only the [claim window](Config::claim_window), counted from the last time the server
//!   was heard. If the server stops for more than a second at that time, this hold is lost
//!   sooner than another hold would be. A caller that finds the lock free has a whole lease at
//!   once.
//! - **One server.** With replicas, a failover may forget the last moments. The quarantine below
//!   protects the locks that are on record at the new server. Clusters are refused. There is no
//!   Redlock, because it gives neither order nor tokens.
//! - **Quarantine.** After a restart or a failover the server grants nothing for one lease
//!   ([`Config::quarantine`]), so that forgotten holders can come back. The restart shows in the
//!   server's run id. For locks that the server does not know, it shows in the server's uptime. So
//!   a server that has just started grants nothing until it is as old as the lease. The same holds
//!   after `FLUSHALL` and `FLUSHDB`, and after only `state` was deleted.
//! - **Deleted keys.** A lock whose keys are all deleted by hand looks like a new one. Its holders
//!   come back with their next renewal. If another caller acquired the lock before that, they have
//!   lost it. Set the server's `maxmemory-policy` to `noeviction`: a trace event warns of any other
//!   policy.
//! - **The server's clock.** If the clock is set forward, leases end early by as much. If it is set
//!   back, they end late by as much. Clocks of different hosts are never compared.
//! - **Dead waiters.** The death of a waiter costs nothing where its connection ends with it. A
//!   waiter that has no connection when its turn comes is bypassed. If it lives, it comes back at
//!   the front. Waiters on a host that vanished without closing its connections delay the next
//!   waiter by at most [`patience`](Config::patience), 4 s by default, all of them together.
//!
//! # The background thread
//!
//! Each client has its own thread with a small runtime. The thread owns the connection, renews the
//! leases, and releases what is dropped. So guards and futures may be dropped anywhere, also
//! outside a runtime. A caller's runtime that is blocked or ends loses no lease.
//!
//! One exception is a connection that is [handed in](RedisClient::from_connection). The runtime on
//! which it was created drives it. If that runtime ends, the leases end.
//!
//! A lock that is still held at the end of the process stays held until its lease is over. Release
//! guards before `main` returns.
//!
//! # Rights
//!
//! The user needs these rights on the server:
//!
//! - the keys `{<namespace>:*` and `<namespace>:witness`,
//! - the channels `stanchion:inbox:*`,
//! - the commands `evalsha eval script|load info ping subscribe publish client|setname`, and those
//!   that the scripts use: `time exists expire del`, commands on strings, hashes and sorted sets, and
//!   `pubsub|numsub` for [`OnDisconnect::Release`].
//!
//! Without `subscribe`, waiters poll. Without `info`, there is no quarantine. Trace events report
//! both.
//!
//! # Algorithm
//!
//! *Keys.* All keys of a lock have one hash tag, written `{namespace:name}`:
//!
//! - `state`: one text with version, kind, limit, lease, run id, shares in use, not-before, last
//!   tick, and the holder of all shares.
//! - `queue`: a sorted set, arrival number → waiter id.
//! - `alive`: a sorted set, deadline → waiter id.
//! - `hold`: a sorted set, expiry → id of a holder that shares the lock.
//! - `who`: a hash, id → record.
//! - `fence`: the last token.
//!
//! The server deletes all of them except `fence` after a day without use. This never ends a hold.
//! One more key, `namespace:witness`, belongs to all locks of a namespace. It says since when
//! nothing was flushed.
//!
//! *Scripts.* They are `acquire`, `heartbeat`, `release`, `inspect` and `force`. Each script does
//! these steps: it reads the server's time once and takes max(time, last tick); it removes what is
//! overdue; it grants the lock from the head of the queue while shares are left; it stores the
//! state. A lock has one share. A semaphore has n. A reader-writer lock has a thousand million, and
//! a writer takes all of them. So one routine serves exclusive, shared and weighted requests.
//!
//! *Hand-over.* The script that frees shares grants the lock to the next waiter and publishes to
//! the inbox of its process. This grant is an *offer*: it lasts for a claim window, and a
//! heartbeat turns it into a hold.
//!
//! The receiver cannot know how old the message is. But the server made the offer after its last
//! answer that said "you wait". So the window of the offer is not over before one window has passed
//! since the *request* for that answer. In the first three quarters of that time the receiver holds
//! the lock at once, with a lease of that length, and claims the offer when it renews. A short hold
//! ends before that, without a claim. After the three quarters the receiver claims first. A caller
//! that finds the lock free needs no claim.
//!
//! # Invariants
//!
//! 1. The shares of all holders together never exceed the limit: every change is one script.
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
//! has `predecessor_crashed()`. A dead waiter's queue entry is removed when its deadline is over,
//! or when its turn comes and no process listens on its inbox. The quarantine above covers a server
//! that comes back.
//!
//! # Fairness
//!
//! By arrival number. Exclusive requests, shared requests and requests for many permits are in one
//! queue. The head of the queue blocks all waiters behind it until there is room for it.
//!
//! # Cost
//!
//! An acquire or a release is one round trip. A hand-over is the release and a message, and a claim
//! if the hold lasts. Work on the server is O(log n) in the number of waiters, whichever waiter is
//! next. A hold costs a heartbeat each third of a lease. Waiters cost one heartbeat each 1.3 s by
//! default, for each lock and process.
//!
//! # Sources
//!
//! - Redis documentation on scripting, `EVALSHA` and pub/sub.
//! - Martin Kleppmann, *How to do distributed locking* (2016), for tokens.
//! - Gray and Cheriton, *Leases* (1989), for the holder's side of the clock.

mod client;
mod options;
mod replies;
mod scripts;
mod store;
mod verdict;

pub use crate::lease::OnDisconnect;
pub use client::{
    RedisClient, RedisGuard, RedisLock, RedisPermit, RedisReadGuard, RedisRwLock, RedisSemaphore,
    RedisWriteGuard,
};
pub use options::{Config, Options};
