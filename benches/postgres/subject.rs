//! The subjects, except sqlx: that one is in `sqlx/`.

use std::process::ExitCode;

use stanchion::postgres::{OnDisconnect, PgClient, PgLock};
use tokio_postgres::{Client, NoTls, Statement};

use crate::servers::ours::Ours;
use crate::servers::plan::Subject;
use crate::servers::player::{self, Player};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stanchion,
    Durable,
    OnDisconnect,
    Advisory,
    Sqlx,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Stanchion,
        Self::Durable,
        Self::OnDisconnect,
        Self::Advisory,
        Self::Sqlx,
    ];
}

impl Subject for Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Stanchion => "stanchion",
            Self::Durable => "durable",
            Self::OnDisconnect => "on-disconnect",
            Self::Advisory => "advisory",
            Self::Sqlx => "sqlx",
        }
    }

    fn is_peer(self) -> bool {
        matches!(self, Self::Advisory | Self::Sqlx)
    }
}

/// Runs a process: `kind url lock`.
pub(crate) fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut word = || arguments.next().expect("a missing argument");
    let (kind, url, name) = (word(), word(), word());
    let kind = Kind::ALL.into_iter().find(|it| it.name() == kind);
    match kind.expect("a kind of lock") {
        Kind::Advisory => player::main(async move { Advisory::connect(&url, &name).await }),
        kind => player::main(async move { Ours(connect(kind, &url, &name).await) }),
    }
}

async fn connect(kind: Kind, url: &str, name: &str) -> PgLock {
    let mut options = PgClient::options().durable(kind == Kind::Durable);
    if kind == Kind::OnDisconnect {
        options = options.on_disconnect(OnDisconnect::Release);
    }
    let client = options.install(true).connect(url).await;
    client.expect("the server is there").lock(name)
}

/// A session advisory lock, by prepared statements on a connection of its own.
struct Advisory {
    client: Client,
    acquire: Statement,
    release: Statement,
    key: i64,
    /// Shows what the connection waits for.
    onlooker: Client,
    seen: Statement,
    pid: i32,
}

async fn dial(url: &str) -> Client {
    let connected = tokio_postgres::connect(url, NoTls).await;
    let (client, connection) = connected.expect("the server is there");
    tokio::spawn(connection);
    client
}

impl Advisory {
    async fn connect(url: &str, name: &str) -> Self {
        let (client, onlooker) = (dial(url).await, dial(url).await);
        let prepare = async |client: &Client, sql| client.prepare(sql).await.expect("a statement");
        let facts = "SELECT hashtextextended($1, 0), pg_backend_pid()";
        let facts = client.query_one(facts, &[&name]).await.expect("facts");
        Self {
            acquire: prepare(&client, "SELECT pg_advisory_lock($1)").await,
            release: prepare(&client, "SELECT pg_advisory_unlock($1)").await,
            seen: prepare(
                &onlooker,
                "SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = $1 AND NOT granted",
            )
            .await,
            key: facts.get(0),
            pid: facts.get(1),
            client,
            onlooker,
        }
    }
}

impl Player for Advisory {
    type Guard = ();

    async fn acquire(&self) {
        let acquired = self.client.query_one(&self.acquire, &[&self.key]).await;
        acquired.expect("its turn");
    }

    async fn release(&self, (): ()) {
        let released = self.client.query_one(&self.release, &[&self.key]).await;
        assert!(released.expect("it was held").get::<_, bool>(0));
    }

    async fn seen(&self) {
        let seen = async || self.onlooker.query(&self.seen, &[&self.pid]).await;
        while seen().await.expect("an answer").is_empty() {}
    }
}
