//! What goes wrong with this server: rights, versions, servers that do not serve.

use std::time::Duration;

use stanchion::postgres::{Options, PgClient};
use stanchion::{Error, ErrorKind};

use crate::server::Server;
use crate::support::{eventually, in_runtime};

const LEASE: Duration = Duration::from_secs(12);

fn options() -> Options {
    PgClient::options().lease(LEASE)
}

fn refused(url: &str, options: Options) -> Error {
    in_runtime(options.connect(url)).expect_err("refused")
}

#[test]
fn p45_a_database_without_the_locks_says_how_to_install_them() {
    let server = need!(Server::start());
    let error = refused(&server.url(), options());
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("stanchion sql") && text.contains("install=true"),
        "{text}"
    );
}

#[test]
fn p45_missing_rights_are_named() {
    let server = need!(Server::start());
    server.ask("CREATE ROLE app LOGIN");
    let url = server.url_of("app");
    let denied = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        let kind = error.io_error().map(std::io::Error::kind);
        assert_eq!(kind, Some(std::io::ErrorKind::PermissionDenied), "{error}");
        error.to_string()
    };
    denied(refused(&url, options().install(true)));
    drop(server.connect(options()));
    let text = denied(refused(&url, options()));
    assert!(text.contains("GRANT USAGE"), "{text}");
    // This right is enough.
    server.ask("GRANT USAGE ON SCHEMA stanchion TO app");
    let client = in_runtime(options().install(true).connect(&url)).expect("a client");
    in_runtime(async {
        let lock = client.lock("a");
        let guard = lock.acquire().await.expect("free");
        guard.ensure_held().await.expect("held");
        assert!(lock.status().await.expect("a status").holder.is_some());
        guard.release().await.expect("released");
        lock.remove().await.expect("removed");
    });
    // The tables are not for everyone.
    let session = crate::server::Session::open(&url).expect("a session");
    assert_eq!(session.refused("DELETE FROM stanchion.locks"), "42501");
    let inner = "SELECT stanchion.save(NULL)";
    assert_ne!(session.refused(inner), "", "only steps change the tables");
}

#[test]
fn p08_another_version_is_refused_with_both() {
    let server = need!(Server::start());
    drop(server.connect(options()));
    server.ask("UPDATE stanchion.version SET version = 7");
    let error = refused(&server.url(), options().install(true));
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    let text = error.to_string();
    assert!(text.contains('7') && text.contains('1'), "{text}");
    let script = stanchion::postgres::schema_sql("stanchion").expect("a script");
    assert_eq!(server.session().refused(&script), "SL003");
}

#[test]
fn p32_many_processes_install_at_once() {
    let server = need!(Server::start());
    let connect = || options().install(true).connect(server.url());
    let clients = in_runtime(futures::future::join_all((0..12).map(|_| connect())));
    for client in &clients {
        let client = client.as_ref().expect("installed");
        drop(in_runtime(client.lock("a").acquire()).expect("granted"));
    }
    assert_eq!(server.ask("SELECT count(*) FROM stanchion.marker"), "1");
}

#[test]
fn a_role_with_snapshots_by_default_is_refused() {
    let server = need!(Server::start());
    drop(server.connect(options()));
    server.ask("ALTER ROLE postgres SET default_transaction_isolation = 'repeatable read'");
    let error = refused(&server.url(), options());
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("ALTER ROLE"), "{error}");
}

#[test]
fn p45_a_server_without_free_connections_is_unavailable() {
    let server = need!(Server::start_with(&[
        "max_connections=6",
        "superuser_reserved_connections=0"
    ]));
    drop(server.connect(options()));
    let mut sessions = Vec::new();
    while let Ok(session) = crate::server::Session::open(&server.url()) {
        sessions.push(session);
    }
    let error = refused(&server.url(), options());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("connection limit"), "{error}");
}

#[test]
fn p45_a_server_that_is_read_only_is_unavailable() {
    let server = need!(Server::start());
    let client = server.connect(options().unavailable_after(Duration::from_millis(500)));
    let lock = client.lock("a");
    server.ask("ALTER ROLE postgres SET default_transaction_read_only = on");
    server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'stanchion%'");
    // The answer of a slow machine may come too late.
    eventually("the reason", || {
        let error = in_runtime(lock.acquire()).expect_err("read only");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        error.to_string().contains("25006")
    });
}

/// As through a pooler that does not pass messages on: here the steps run in another database.
#[test]
fn p63_without_messages_waiters_poll() {
    let server = need!(Server::start());
    server.ask("CREATE DATABASE other");
    let url = server.url();
    let steps = format!("{}other", url.strip_suffix("postgres").expect("a database"));
    drop(in_runtime(options().install(true).connect(&steps)).expect("installed"));
    let client = server.connect(options().steps(steps));
    let lock = client.lock("a");
    assert!(!lock.capabilities().push);
    in_runtime(async {
        let guard = lock.acquire().await.expect("free");
        let mut waiter = Box::pin(lock.acquire());
        assert!(futures::poll!(&mut waiter).is_pending());
        assert!(lock.status().await.expect("a status").polling);
        guard.release().await.expect("released");
        drop(waiter.await.expect("its turn"));
    });
}

#[test]
fn steps_may_go_through_another_url() {
    let server = need!(Server::start());
    let steps = format!("{}?application_name=steps", server.url());
    let client = server.connect(options().steps(steps));
    assert!(client.capabilities().push);
    drop(in_runtime(client.lock("a").acquire()).expect("free"));
    assert_eq!(server.connections("steps"), 1);
}

/// A step that cannot end in time is no loss and no grant.
#[test]
fn p45_a_step_that_is_held_up_fails_the_wait_in_time() {
    let server = need!(Server::start());
    let patient = Duration::from_millis(1500);
    let options = PgClient::options().lease(Duration::from_secs(3));
    let options = options.response_timeout(patient / 3);
    let client = server.connect(options.unavailable_after(patient));
    let lock = client.lock("a");
    drop(in_runtime(lock.acquire()).expect("free"));
    let session = server.session();
    session.ask("BEGIN; LOCK TABLE stanchion.locks");
    let error = in_runtime(lock.acquire()).expect_err("held up");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    session.ask("ROLLBACK");
    // The step runs now, and nobody wants its grant any more. Its lease ends that.
    drop(in_runtime(client.lock("a").acquire()).expect("free again"));
}

#[test]
fn p59_a_thousand_rounds_leave_small_tables() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    in_runtime(async {
        for _ in 0..1000 {
            lock.acquire()
                .await
                .expect("free")
                .release()
                .await
                .expect("released");
        }
    });
    let size = "SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = 'stanchion'::regnamespace";
    assert!(server.count(size) < 512 * 1024, "{}", server.ask(size));
}
