//! What the tests that all servers share need of Postgres.

use std::time::Duration;

pub(crate) use stanchion::postgres::{OnDisconnect, Options, PgClient as Client, PgGuard as Guard};
use tokio_postgres::NoTls;

use crate::child::Child;
use crate::server::Server;

/// The name of the child program.
pub(crate) const PROGRAM: &str = "postgres";
/// The lease of the children. It is long enough that no hold is lost because the machine is slow.
/// It is not longer, because some tests wait for its end.
pub(crate) const LEASE: Duration = Duration::from_secs(8);

pub(crate) fn options() -> Options {
    Client::options().install(true)
}

/// How many callers wait for any lock.
pub(crate) fn waiting(server: &Server) -> usize {
    server.count("SELECT coalesce(sum(waiting), 0) FROM stanchion.locks")
}

/// How many clients listen.
pub(crate) fn listeners(server: &Server) -> usize {
    server.count("SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'")
}

/// The ids that wait for the lock `a`, in order.
pub(crate) fn queue(server: &Server) -> Vec<String> {
    let ids = server.ask("SELECT id FROM stanchion.entries WHERE state = 'w' ORDER BY number");
    ids.lines().map(str::to_owned).collect()
}

/// How many connections a client has.
pub(crate) const CONNECTIONS: usize = 2;

/// Ends a connection of the client: the one that listens first.
pub(crate) fn cut(server: &Server, connection: usize) {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'stanchion%' AND {} pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')",
        if connection == 0 { "" } else { "NOT" }
    );
    assert_eq!(server.ask(&sql), "1");
}

/// Calls this while the server receives requests, but runs and answers none.
pub(crate) fn unanswered<T>(server: &Server, body: impl FnOnce() -> T) -> T {
    let session = server.session();
    session.ask("BEGIN; LOCK TABLE stanchion.locks");
    let result = body();
    session.ask("ROLLBACK");
    result
}

/// A number in a table, which is read and written without a transaction.
pub(crate) struct Number(tokio_postgres::Client);

impl Number {
    pub(crate) fn create(server: &Server) {
        server.ask("CREATE TABLE counter AS SELECT 0::bigint AS number");
    }

    pub(crate) async fn at(url: &str) -> Self {
        let connected = tokio_postgres::connect(url, NoTls).await;
        let (session, connection) = connected.expect("a connection");
        tokio::spawn(connection);
        Self(session)
    }

    pub(crate) async fn get(&self) -> i64 {
        let row = self.0.query_one("SELECT number FROM counter", &[]).await;
        row.expect("a row").get(0)
    }

    pub(crate) async fn set(&self, number: i64) {
        let set = format!("UPDATE counter SET number = {number}");
        self.0.batch_execute(&set).await.expect("updated");
    }
}

/// The commands that only this server has.
pub(crate) struct Place;

impl Place {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) async fn obey(&mut self, _: &mut Child, word: &str, _: &str) {
        panic!("an unknown command: {word}");
    }
}
