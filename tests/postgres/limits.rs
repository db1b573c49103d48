//! Limits of the server: time limits, connections, space, and transactions that stay open.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use stanchion::ErrorKind;
use stanchion::postgres::{Options, PgClient};

use crate::server::{Server, owned_directory};
use crate::skip::{root, success};
use crate::support::{Polled, eventually, in_runtime, kind_of};

/// No lease ends during a test by itself.
fn options() -> Options {
    PgClient::options().lease(Duration::from_secs(3600))
}

/// Steps that a limit ends are repeated. When they are not in the way of another transaction any
/// more, all goes on. The error of a wait that fails before that says what to do.
fn a_step_that_is_ended_is_repeated(setting: &str) {
    let server = need!(Server::start());
    drop(server.connect(options()));
    server.ask(&format!("ALTER ROLE postgres SET {setting} = '100ms'"));
    let impatient = server.connect(options().unavailable_after(Duration::from_millis(500)));
    let client = server.connect(options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let session = server.session();
    session.ask("BEGIN; LOCK TABLE stanchion.locks");
    let mut waiter = Polled::pending(lock.acquire());
    // The answer of a slow machine may come too late.
    eventually("the reason", || {
        let error = in_runtime(impatient.lock("b").acquire()).expect_err("the tables are locked");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        error.to_string().contains(setting)
    });
    assert!(waiter.poll().is_pending(), "it is patient");
    assert!(guard.is_held());
    session.ask("ROLLBACK");
    in_runtime(guard.ensure_held()).expect("renewed");
    in_runtime(guard.release()).expect("released");
    drop(waiter.finish().expect("its turn"));
}

#[test]
fn p45_a_step_that_statement_timeout_ends_is_repeated() {
    a_step_that_is_ended_is_repeated("statement_timeout");
}

#[test]
fn p45_a_step_that_lock_timeout_ends_is_repeated() {
    a_step_that_is_ended_is_repeated("lock_timeout");
}

#[test]
fn p47_a_server_that_ends_idle_sessions_costs_no_hold() {
    let server = need!(Server::start());
    drop(server.connect(options()));
    for setting in [
        "idle_session_timeout",
        "idle_in_transaction_session_timeout",
    ] {
        server.ask(&format!("ALTER ROLE postgres SET {setting} = '2s'"));
    }
    let client = server.connect(options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let sessions = || {
        server.ask("SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name LIKE 'stanchion%'")
    };
    let before = sessions();
    eventually("other sessions", || {
        let now = sessions();
        !now.is_empty() && now.split(' ').all(|it| !before.contains(it))
    });
    in_runtime(guard.ensure_held()).expect("held");
    in_runtime(guard.release()).expect("released");
    drop(in_runtime(lock.acquire()).expect("free"));
}

/// A client that must connect again finds no free connection for a time.
#[test]
fn p47_a_server_at_its_connection_limit_costs_no_hold_and_no_place() {
    let server = need!(Server::start());
    drop(server.connect(options()));
    server.ask("CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA stanchion TO app");
    let limit = |most| server.ask(&format!("ALTER ROLE app CONNECTION LIMIT {most}"));
    let connected = || server.count("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'");
    let connecting = options().connect(server.url_of("app"));
    let client = in_runtime(connecting).expect("a client");
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiter = Polled::pending(lock.acquire());
    let waiting = || server.count("SELECT waiting FROM stanchion.locks") == 1;
    eventually("queued", waiting);
    limit(0);
    server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
    eventually("cut off", || connected() == 0);
    let error = in_runtime(lock.status()).expect_err("no connection");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(guard.is_held() && waiter.poll().is_pending());
    limit(-1);
    in_runtime(guard.ensure_held()).expect("connected again");
    assert_eq!(connected(), 2);
    in_runtime(guard.release()).expect("released");
    drop(waiter.finish().expect("its turn"));
}

/// A small file system for the tables. Unmounted on drop.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Option<Self> {
        root()?;
        let directory = owned_directory();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=2m,uid=65534,gid=65534,mode=700"])
            .arg("none")
            .arg(directory.path());
        success(&mut mount, "no right to mount")?;
        Some(Self(directory))
    }

    /// A file that takes the rest of the space.
    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    fn fill(&self) {
        let full = std::fs::write(self.filler(), vec![1; 4 << 20]).expect_err("full");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn p45_a_full_disk_is_unavailable_and_loses_nothing() {
    let small = need!(Small::new());
    let server = need!(Server::start());
    let path = small.0.path().display();
    server.ask(&format!("CREATE TABLESPACE small LOCATION '{path}'"));
    server.ask("ALTER DATABASE postgres SET default_tablespace = small");
    let client = server.connect(options().unavailable_after(Duration::from_millis(500)));
    let guard = in_runtime(client.lock("held").acquire()).expect("free");
    let mut waiter = Polled::pending(client.lock("held").acquire());
    let waiting = || server.ask("SELECT max(waiting) FROM stanchion.locks") == "1";
    eventually("queued", waiting);
    small.fill();
    // New locks need space. Each has a long name.
    let name = |number: usize| format!("{number:01000}");
    let mut names = (0..1000).map(name);
    let tried = |name: String| in_runtime(client.lock(name).acquire());
    // The answer of a slow machine may come too late.
    let is_full = |it: &stanchion::Error| it.to_string().contains("53100");
    let error = names
        .by_ref()
        .find_map(|it| tried(it).err().filter(is_full));
    let error = error.expect("an end of the space");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let patient = server.connect(options());
    // Postgres may find a little space again, which dead rows had. Then the next name needs more.
    let refused_both = |name: String| {
        let mut waits = Polled::new(patient.lock(&name).acquire());
        let is_pending = waits.poll().is_pending();
        let again = tried(name);
        (again.is_err() && is_pending && waits.poll().is_pending()).then_some((waits, again))
    };
    let (mut waits, again) = names.find_map(refused_both).expect("an end of the space");
    assert_eq!(kind_of(again), ErrorKind::Unavailable);
    std::fs::remove_file(small.filler()).expect("space");
    in_runtime(waits.finish().expect("there is space").release()).expect("released");
    drop(
        names
            .next()
            .map(tried)
            .expect("a name")
            .expect("there is space"),
    );
    in_runtime(guard.ensure_held()).expect("held");
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    assert!(waiter.finish().expect("its turn").token() > token);
}

/// A transaction that stays open keeps dead rows, and delays nothing but grants of its own lock.
/// When it ends, a vacuum removes the rows.
#[test]
fn p59_an_open_transaction_keeps_dead_rows_only_until_it_ends() {
    let server = need!(Server::start_with(&["autovacuum=off"]));
    let client = server.connect(options());
    let (lock, other) = (client.lock("a"), client.lock("b"));
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiter = Polled::pending(lock.acquire());
    let size = || {
        server.count("SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'stanchion'::regnamespace AND relkind = 'r'")
    };
    let session = server.session();
    session.ask("BEGIN; SELECT txid_current()");
    let token = guard.token();
    session.ask(&format!("SELECT stanchion.assert_held('a', {token})"));
    let round = async || {
        guard.ensure_held().await.expect("renewed");
        let guard = other.acquire().await.expect("free");
        guard.release().await.expect("released");
    };
    let rounds = async |count| {
        for _ in 0..count {
            round().await;
        }
    };
    in_runtime(rounds(500));
    assert!(waiter.poll().is_pending());
    session.ask("COMMIT");
    server.ask("VACUUM FULL stanchion.locks, stanchion.fences, stanchion.entries");
    // Without the transaction, the rows are changed in place. The first vacuum adds maps of the
    // free space.
    in_runtime(rounds(50));
    server.ask("VACUUM");
    let small = size();
    in_runtime(rounds(500));
    server.ask("VACUUM");
    assert!(size() <= small + 48 * 1024, "{small} {}", size());
    in_runtime(guard.release()).expect("released");
    drop(waiter.finish().expect("its turn"));
}
