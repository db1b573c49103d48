//! What goes wrong: connections, rights, versions, servers that do not serve.

use std::time::Duration;

use stanchion::postgres::{OnDisconnect, Options, PgClient};
use stanchion::{Error, ErrorKind, Loss};

use crate::server::{Server, Stop};
use crate::support::{Polled, eventually, in_runtime, kind_of};

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
    let error = in_runtime(lock.acquire()).expect_err("read only");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("25006"), "{error}");
}

/// Ends one of the two connections of the client.
fn terminate(server: &Server, listens: bool) {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'stanchion%' AND {} pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')",
        if listens { "" } else { "NOT" }
    );
    assert_eq!(server.ask(&sql), "1");
}

#[test]
fn p47_a_broken_connection_costs_no_hold_and_no_place() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    for listens in [false, true] {
        let guard = in_runtime(lock.acquire()).expect("free");
        let mut waiters: Vec<_> = (0..3).map(|_| Polled::pending(lock.acquire())).collect();
        eventually("queued", || {
            server.ask("SELECT waiting FROM stanchion.locks") == "3"
        });
        let queue =
            "SELECT string_agg(id, ' ' ORDER BY number) FROM stanchion.entries WHERE state = 'w'";
        let before = server.ask(queue);
        terminate(&server, listens);
        in_runtime(guard.ensure_held()).expect("connected again");
        assert_eq!(server.ask(queue), before);
        in_runtime(guard.release()).expect("released");
        for waiter in &mut waiters {
            drop(waiter.finish().expect("in order"));
        }
    }
}

#[test]
fn a_disconnect_is_a_loss_if_the_options_say_so() {
    let server = need!(Server::start());
    let client = server.connect(options().on_disconnect(OnDisconnect::Release));
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    terminate(&server, true);
    assert_eq!(in_runtime(guard.lost()), Loss::Disconnected);
}

#[test]
fn p51_a_server_that_is_gone_ends_in_a_loss() {
    let mut server = need!(Server::start());
    let lease = Duration::from_secs(4);
    let client = server.connect(PgClient::options().lease(lease).unavailable_after(lease));
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiter = Polled::pending(lock.acquire());
    server.stop(Stop::Crash);
    assert_eq!(in_runtime(guard.lost()), Loss::Expired);
    let error = waiter.finish().expect_err("no server answers");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(kind_of(in_runtime(lock.status())), ErrorKind::Unavailable);
}

#[test]
fn p50_p66_another_kind_limit_or_lease_is_refused_with_both_values() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let other = server.connect(PgClient::options().lease(LEASE * 2));
    let permit = in_runtime(client.semaphore("a", 3).expect("one").acquire()).expect("free");
    fn text<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
        let error = result.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        error.to_string()
    }
    let kind = text(in_runtime(client.lock("a").acquire()));
    assert!(
        kind.contains("semaphore") && kind.contains("not lock"),
        "{kind}"
    );
    let limit = text(in_runtime(client.semaphore("a", 4).expect("one").acquire()));
    assert!(limit.contains('3') && limit.contains('4'), "{limit}");
    let lease = text(in_runtime(other.semaphore("a", 3).expect("one").acquire()));
    assert!(lease.contains("12s") && lease.contains("24s"), "{lease}");
    drop(permit);
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
