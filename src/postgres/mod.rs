//! Fair locks for many hosts, in a Postgres database: exclusive, shared, and with permits.
//!
//! ```no_run
//! # async fn example() -> stanchion::Result<()> {
//! use std::time::Duration;
//! use stanchion::postgres::PgClient;
//!
//! let client = PgClient::options().label("nightly backup").connect("postgres://app@db/shop").await?;
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
//! How holds, waits and the background thread work is the same for all servers: see
//! [`lease`](crate::lease). This page describes what Postgres adds.
//!
//! # Inside your own transaction
//!
//! A lease alone cannot stop a holder that was paused past its lease. A transaction in the same
//! database can: it first asserts the hold, and then writes.
//!
//! ```sql
//! BEGIN;
//! SELECT stanchion.assert_held('backup', 1796063848087390); -- name and token
//! UPDATE …;
//! COMMIT;
//! ```
//!
//! The function raises the SQLSTATE `SL001` if the lock is not held with this token. Otherwise no
//! other caller acquires the lock before the transaction has ended, also if the lease ends
//! meanwhile. The next grant is put off, and the waiters try again. Nothing else waits for the
//! transaction: heartbeats, releases and other locks continue.
//!
//! - A reader asserts its hold with `assert_shared`. That does not put off other readers.
//! - A third argument is the [namespace](Config::namespace), if it is not `stanchion`.
//! - In a semaphore, the transaction puts off all grants of that semaphore.
//! - A rollback to a savepoint before the call ends the protection. Call it outside of savepoints.
//! - At `REPEATABLE READ` and `SERIALIZABLE`, the call fails with `40001` if there was a grant
//!   after the snapshot of the transaction.
//! - The role needs the same rights as for the locks.
//!
//! # Installation
//!
//! The locks are tables and functions in a schema, `stanchion` by default. There are three ways to
//! create them. Each may be repeated.
//!
//! - [`Options::install`], or `?install=true` in a URL of [`Locks`](crate::Locks). Many processes
//!   may do so at once.
//! - `stanchion sql --dialect postgres` prints the script, for your own migrations.
//! - [`schema_sql`] returns it.
//!
//! No extension and no superuser is needed. The functions run with the rights of the role that
//! installed them. Every other role needs `GRANT USAGE ON SCHEMA stanchion TO role`, and nothing
//! else. A role with this right can acquire and release every lock in the schema.
//!
//! # Connections
//!
//! A client has two connections, however many callers wait. One runs the steps, the other one
//! listens (`LISTEN`). The steps may go through PgBouncer, also in its transaction mode: then
//! [`Options::steps`] has the URL of PgBouncer, and the other URL leads to the server itself. If
//! messages do not arrive, waiters [poll](Config::poll_interval), and a trace event says so.
//!
//! # Guarantees and limits
//!
//! - **Crash of the server.** Commits of the steps are asynchronous, so a crash may lose the last
//!   half a second. The next step notices a crash and a failover: one table is not logged, and is
//!   empty then. Each lock grants nothing for one lease after that, and holders come back with
//!   their tokens. A clean restart costs nothing. [`Config::durable`] waits for the disk in each
//!   step.
//! - **Failover.** An asynchronous standby may lack the last grants. The quarantine covers that
//!   too.
//! - **Backups.** A restored backup or a copied database may list outdated holders. Run
//!   `DELETE FROM stanchion.marker` there before you use its locks.
//! - **Deleted rows.** Do not change the tables by hand.
//! - **Dead waiters.** The listening connection of a client holds a session lock. A waiter whose
//!   session has ended is bypassed at once.
//! - **Text.** Names and labels need a database with the encoding UTF8, unless they are ASCII.
//!
//! # Algorithm
//!
//! Each step is one call of a PL/pgSQL function, and one transaction (`sql/*.sql`). It takes an
//! advisory lock on the name, which is first come, first served. Then it reads the row of the lock,
//! reads the server's time once, removes what is overdue, grants from the head of the queue, and
//! writes the row. A holder of all shares is in that row, so an uncontended acquire changes two
//! rows and a release changes one, in place. All others have a row in `entries`.
//!
//! The row of a lock in `fences` is changed by grants only. `assert_held` takes a share lock on it,
//! and a grant takes it with `SKIP LOCKED`. So no step waits for a transaction of a user.
//!
//! `docs/protocol.md` describes the tables and steps.
//!
//! # Sources
//!
//! - Postgres documentation on explicit locking, `NOTIFY`, asynchronous commit and unlogged tables.

mod answers;
mod client;
mod link;
mod options;
#[cfg(all(test, target_os = "linux"))]
#[path = "../../tests/replay/postgres.rs"]
mod replay;
mod source;
mod sql;
#[cfg_attr(not(feature = "postgres-tls"), path = "tls_none.rs")]
mod tls;
mod verdict;

pub use crate::lease::OnDisconnect;
/// The driver. Its types are arguments of [`Options::connect_with`] and [`PgClient::from_client`],
/// and must be of the version that this crate uses.
pub use ::tokio_postgres;
pub use client::{
    PgClient, PgGuard, PgLock, PgPermit, PgReadGuard, PgRwLock, PgSemaphore, PgWriteGuard,
};
pub use options::{Config, Options};
pub(crate) use source::DRIVER;
pub use sql::schema_sql;
