//! A process that takes a `PgAdvisoryLock` of sqlx: `sqlx-peer URL LOCK`.

use std::process::ExitCode;

use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockGuard};
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::sync::Mutex;

#[path = "../../../peers/clock.rs"]
#[allow(dead_code)]
mod clock;
#[path = "../../../servers/player.rs"]
mod player;

struct Peer {
    lock: PgAdvisoryLock,
    /// Absent while it waits or holds.
    connection: Mutex<Option<PgConnection>>,
    /// Shows what the connection waits for.
    onlooker: Mutex<PgConnection>,
    pid: i32,
}

async fn connect(url: &str, name: &str) -> Peer {
    let dial = async || PgConnection::connect(url).await.expect("the server is there");
    let mut connection = dial().await;
    let row = connection.fetch_one("SELECT pg_backend_pid()").await;
    Peer {
        lock: PgAdvisoryLock::new(name),
        pid: row.expect("a row").get(0),
        connection: Mutex::new(Some(connection)),
        onlooker: Mutex::new(dial().await),
    }
}

impl player::Player for Peer {
    type Guard = PgAdvisoryLockGuard<PgConnection>;

    async fn acquire(&self) -> Self::Guard {
        let connection = self.connection.lock().await.take().expect("it is idle");
        self.lock.acquire(connection).await.expect("its turn")
    }

    async fn release(&self, guard: Self::Guard) {
        let connection = guard.release_now().await.expect("it was held");
        *self.connection.lock().await = Some(connection);
    }

    async fn seen(&self) {
        let mut onlooker = self.onlooker.lock().await;
        loop {
            let sql = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = $1 AND NOT granted";
            let rows = sqlx::query(sql).bind(self.pid).fetch_all(&mut *onlooker);
            if !rows.await.expect("an answer").is_empty() {
                return;
            }
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [url, name] = &words[..] else {
        panic!("URL LOCK");
    };
    let (url, name) = (url.clone(), name.clone());
    player::main(async move { connect(&url, &name).await })
}
