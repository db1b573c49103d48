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
//! [`stanchion::lease`](crate::lease) describes what a hold on a server is, how a hand-over works,
//! and what a caller can rely on. This page has what differs on Redis.
//!
//! # Guarantees and limits
//!
//! - **One server.** With replicas, a failover may lose the last grants. The quarantine below
//!   protects the holders. The client asks sentinels for the primary whenever it connects. Clusters
//!   are refused. There is no Redlock, because it gives neither order nor tokens.
//! - **Quarantine.** After a restart or a failover the server grants nothing for one lease
//!   ([`Config::quarantine`]), so that forgotten holders can come back. The restart shows in the
//!   server's run id. For locks that the server does not know, it shows in the server's uptime, and
//!   in the run id that is recorded for the namespace. So a server that has just started grants
//!   nothing until it is as old as the lease. The same holds after `FLUSHALL` and `FLUSHDB`, and
//!   after only `state` was deleted.
//! - **Deleted keys.** A lock whose keys are all deleted by hand looks like a new one. Its holders
//!   come back with their next renewal. If another caller acquired the lock before that, they have
//!   lost it. Set the server's `maxmemory-policy` to `noeviction`: a trace event warns of any other
//!   policy.
//! - **Tokens.** A token is the server's time in microseconds since the Unix epoch, or one more
//!   than the last token. So tokens increase also if the server has lost data. The exception: the
//!   server has lost data and its clock was set back as well.
//! - **Disconnected waiters.** The server counts the listeners of an inbox when it publishes. So
//!   the death of a waiter costs nothing where its connection ends with it.
//!
//! # Rights
//!
//! The user needs these rights on the server:
//!
//! - the keys `{<namespace>:*` and `<namespace>:witness`,
//! - the channels `stanchion:inbox:*`,
//! - the commands `evalsha eval script|load info ping subscribe publish client|setname`, `select`
//!   for a database other than 0, and those that the scripts use: `time exists expire del`,
//!   commands on strings, hashes and sorted sets, and `pubsub|numsub` for
//!   [`OnDisconnect::Release`].
//!
//! Without `subscribe`, waiters poll. Without `info`, there is no quarantine. Trace events report
//! both. `docs/backends/redis.md` has the whole rule for `ACL SETUSER`.
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
//! this server has forgotten nothing.
//!
//! *Scripts.* They are `acquire`, `heartbeat`, `release`, `inspect` and `force`, one for each step.
//! The parts:
//!
//! | part | what it does |
//! |---|---|
//! | `sentinel` | asks the sentinels for the primary |
//! | `store` | makes the connection, and runs a step as a script |
//! | `scripts` | the scripts, their keys and their arguments |
//! | `replies` | reads the answers and messages of the scripts |
//! | `verdict` | says what an error means |
//! | `client`, `options` | the public types |
//!
//! # Cost
//!
//! Work on the server is O(log n) in the number of waiters, whichever waiter is next.
//!
//! # Sources
//!
//! - Redis documentation on scripting, `EVALSHA` and pub/sub.

mod client;
mod options;
#[cfg(all(test, target_os = "linux"))]
#[path = "../../tests/replay/redis.rs"]
mod replay;
mod replies;
mod scripts;
mod sentinel;
mod store;
#[cfg_attr(not(feature = "redis-tls"), path = "tls_none.rs")]
mod tls;
mod verdict;

pub use crate::lease::OnDisconnect;
/// The driver. Its types are arguments of [`Options::connect_with`] and
/// [`RedisClient::from_connection`], and must be of the version that this crate uses.
pub use ::redis;
pub use client::{
    RedisClient, RedisGuard, RedisLock, RedisPermit, RedisReadGuard, RedisRwLock, RedisSemaphore,
    RedisWriteGuard,
};
pub use options::{Config, Options};
