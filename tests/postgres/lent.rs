//! Connections of the caller: a configuration, and a connection that is lent.

use std::sync::Arc;
use std::time::Duration;

use stanchion::ErrorKind;
use stanchion::postgres::{Options, PgClient};
use tokio::task::block_in_place;
use tokio_postgres::{Client, Config, NoTls};

use crate::server::Server;
use crate::support::in_runtime;

fn options() -> Options {
    PgClient::options().lease(Duration::from_secs(3600))
}

async fn dial(server: &Server) -> Arc<Client> {
    let connected = tokio_postgres::connect(&server.url(), NoTls).await;
    let (client, connection) = connected.expect("a connection");
    tokio::spawn(connection);
    Arc::new(client)
}

#[test]
fn p63_a_connection_that_was_lent_is_used_and_left_open() {
    let server = need!(Server::start());
    in_runtime(async {
        let lent = dial(&server).await;
        let refused = options().from_client(lent.clone(), "here").await;
        let error = refused.expect_err("nothing is installed");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let client = options()
            .install(true)
            .from_client(lent.clone(), "here")
            .await;
        let client = client.expect("installed");
        let own = || {
            server.count(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'stanchion%'",
            )
        };
        assert_eq!(block_in_place(own), 0, "it has no other connection");
        assert!(!client.capabilities().push);
        let lock = client.lock("a");
        let guard = lock.acquire().await.expect("free");
        let mut waiter = Box::pin(lock.acquire());
        assert!(futures::poll!(&mut waiter).is_pending());
        assert!(lock.status().await.expect("a status").polling);
        guard.ensure_held().await.expect("held");
        let token = guard.token();
        guard.release().await.expect("released");
        let next = waiter.await.expect("it polls");
        assert!(next.token() > token);
        next.release().await.expect("released");
        drop((lock, client));
        let row = lent.query_one("SELECT 7", &[]).await.expect("it is open");
        assert_eq!(row.get::<_, i32>(0), 7);
    });
}

/// Its steps fail. Holds end with their leases, and waits after their time.
#[test]
fn p51_a_connection_that_was_lent_and_breaks_is_not_replaced() {
    let server = need!(Server::start());
    in_runtime(async {
        let lease = Duration::from_secs(2);
        let options = PgClient::options().lease(lease).unavailable_after(lease);
        let lent = dial(&server).await;
        let client = options
            .install(true)
            .from_client(lent.clone(), "here")
            .await;
        let lock = client.expect("installed").lock("a");
        let guard = lock.acquire().await.expect("free");
        let pid = lent.query_one("SELECT pg_backend_pid()", &[]).await;
        let pid: i32 = pid.expect("a row").get(0);
        block_in_place(|| server.ask(&format!("SELECT pg_terminate_backend({pid})")));
        assert_eq!(guard.lost().await, stanchion::Loss::Expired);
        let error = lock.acquire().await.expect_err("no connection");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    });
}

#[test]
fn p63_the_configuration_of_the_caller_is_used() {
    let server = need!(Server::start());
    let mut config: Config = server.url().parse().expect("a configuration");
    config.application_name("mine");
    in_runtime(async {
        let client = options().install(true).connect_with(config, NoTls).await;
        let client = client.expect("installed");
        assert!(client.capabilities().push);
        assert_eq!(block_in_place(|| server.connections("mine")), 2);
        let guard = client.lock("a").acquire().await.expect("free");
        guard.release().await.expect("released");
        let nowhere = options().connect_with(Config::new(), NoTls).await;
        let error = nowhere.expect_err("no host");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    });
}
