//! A job that runs at most once at a time among many hosts, and writes to the database only while
//! it holds the lock.
//!
//! ```sh
//! cargo run --features postgres --example postgres -- postgres://postgres@localhost/postgres
//! ```
//!
//! Run it in several terminals. With sqlx, the check is
//! `sqlx::query("SELECT stanchion.assert_held($1, $2)").bind(NAME).bind(token).execute(&mut *transaction)`.

#![allow(clippy::disallowed_methods)] // A program has its own runtime.

use std::error::Error;
use std::time::Duration;

use stanchion::postgres::PgClient;
use tokio_postgres::{Client, NoTls};

const NAME: &str = "monthly report";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1);
    let url = url.unwrap_or_else(|| "postgres://postgres@localhost/postgres".to_owned());
    let options = PgClient::options().install(true).label("report");
    let client = options.connect(&url).await?;
    let mut database = connected(&url).await?;

    let waiting = client.lock(NAME).acquire();
    let waiting = waiting.timeout(Duration::from_secs(60));
    let guard = waiting.on_wait(|line| eprintln!("{line}")).await?;
    if guard.predecessor_crashed() {
        eprintln!("the last holder did not finish");
    }
    let token = i64::try_from(guard.token())?;
    tokio::select! {
        done = write_report(&mut database, token) => done?,
        loss = guard.lost() => {
            eprintln!("stopped: {loss}");
            return Ok(());
        }
    }
    guard.release().await?;
    Ok(())
}

/// The connection of the program itself.
async fn connected(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (database, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let table =
        "CREATE TABLE IF NOT EXISTS reports (token bigint, written timestamptz DEFAULT now())";
    database.batch_execute(table).await?;
    Ok(database)
}

async fn write_report(database: &mut Client, token: i64) -> Result<(), tokio_postgres::Error> {
    // Long enough to see other processes wait.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let transaction = database.transaction().await?;
    // Fails if the lock is lost. Otherwise no other caller acquires it before the commit.
    let held = "SELECT stanchion.assert_held($1, $2)";
    transaction.execute(held, &[&NAME, &token]).await?;
    let insert = "INSERT INTO reports (token) VALUES ($1)";
    transaction.execute(insert, &[&token]).await?;
    transaction.commit().await?;
    println!("written with token {token}");
    Ok(())
}
