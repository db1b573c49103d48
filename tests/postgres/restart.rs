//! Servers that are restarted, crash, or are replaced.

use std::time::Duration;

use stanchion::postgres::{Options, PgClient, PgLock};
use stanchion::{ErrorKind, Held};

use crate::server::{Server, Stop};
use crate::support::{Polled, eventually, in_runtime};

/// No lease ends during a test by itself.
fn options() -> Options {
    PgClient::options()
        .lease(Duration::from_secs(3600))
        .unavailable_after(Duration::from_secs(60))
}

/// In quarantine, nothing is granted to a new caller. A status is asked once, so it fails as long
/// as the client is not connected again.
fn assert_quarantine(client: &PgClient) {
    let lock = client.lock("new");
    eventually("a status", || {
        let status = in_runtime(lock.status());
        status.is_ok_and(|it| it.held == Held::Unknown)
    });
    let tried = in_runtime(lock.try_acquire()).expect("an answer");
    assert!(tried.is_none(), "granted in quarantine");
}

/// A waiter learns how long the quarantine lasts.
fn assert_is_told(lock: &PgLock) {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let waiter = lock
        .acquire()
        .on_wait(move |it| _ = tell.send(it.quarantine));
    in_runtime(async {
        let told = async { while told.recv().await.expect("a report").is_none() {} };
        futures::future::select(Box::pin(waiter), Box::pin(told)).await;
    });
}

#[test]
fn p51_a_clean_restart_costs_nothing() {
    let mut server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiters: Vec<_> = (0..3).map(|_| Polled::pending(lock.acquire())).collect();
    let numbers =
        "SELECT string_agg(id, ' ' ORDER BY number) FROM stanchion.entries WHERE state = 'w'";
    let queued = || server.ask("SELECT waiting FROM stanchion.locks") == "3";
    eventually("queued", queued);
    let before = server.ask(numbers);
    server.stop(Stop::Clean);
    server.begin_again();
    in_runtime(guard.ensure_held()).expect("connected again");
    assert_eq!(server.ask(numbers), before);
    let other = in_runtime(client.lock("new").try_acquire()).expect("an answer");
    assert!(other.is_some(), "no quarantine");
    in_runtime(guard.release()).expect("released");
    for waiter in &mut waiters {
        drop(waiter.finish().expect("in order"));
    }
}

#[test]
fn p51_after_a_crash_nothing_is_granted_and_holders_come_back() {
    for durable in [false, true] {
        let mut server = need!(Server::start());
        let client = server.connect(options().durable(durable));
        let lock = client.lock("a");
        let guard = in_runtime(lock.acquire()).expect("free");
        server.stop(Stop::Crash);
        server.begin_again();
        in_runtime(guard.ensure_held()).expect("it asserts its hold");
        assert_quarantine(&client);
        assert_is_told(&lock);
        let mut waiter = Polled::pending(lock.acquire());
        let waits = || server.ask("SELECT max(waiting) FROM stanchion.locks") == "1";
        eventually("queued", waits);
        let token = guard.token();
        let session = server.session();
        session.ask(&format!("SELECT stanchion.assert_held('a', {token})"));
        in_runtime(guard.release()).expect("released");
        assert!(
            waiter.poll().is_pending(),
            "the quarantine lasts for a lease"
        );
        session.ask("UPDATE stanchion.locks SET until = 0");
        let next = in_runtime(client.lock("a").try_acquire()).expect("an answer");
        assert!(next.is_none(), "the waiter is first");
        assert!(waiter.finish().expect("its turn").token() > token);
    }
}

/// A backend that is killed makes the server restart all of them, while its first process lives.
#[test]
fn p51_a_killed_backend_is_a_crash() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    let session = server.session();
    let pid = session
        .ask("SELECT pg_backend_pid()")
        .parse()
        .expect("a number");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    assert_quarantine(&client);
    in_runtime(guard.ensure_held()).expect("it asserts its hold");
}

#[test]
fn p51_a_killed_postmaster_is_a_crash() {
    let mut server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiter = Polled::pending(lock.acquire());
    let waits = || server.ask("SELECT waiting FROM stanchion.locks") == "1";
    eventually("queued", waits);
    server.stop(Stop::Kill);
    server.begin_again();
    assert_quarantine(&client);
    in_runtime(guard.ensure_held()).expect("it asserts its hold");
    assert!(waiter.poll().is_pending());
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    server.ask("UPDATE stanchion.locks SET until = 0");
    // A try is a step too: it grants the lock to the waiter.
    let next = in_runtime(lock.try_acquire()).expect("an answer");
    assert!(next.is_none(), "the waiter is first");
    assert!(waiter.finish().expect("its turn").token() > token);
}

#[test]
fn p51_a_promoted_standby_grants_nothing_for_a_lease() {
    let mut server = need!(Server::start());
    let client = server.connect(options());
    drop(in_runtime(client.lock("a").acquire()).expect("free"));
    let standby = server.standby();
    let refused = in_runtime(options().connect(standby.url())).expect_err("a standby");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(refused.to_string().contains("replica"), "{refused}");
    server.stop(Stop::Crash);
    standby.ask("SELECT pg_promote()");
    let client = in_runtime(options().connect(standby.url())).expect("a primary");
    assert_quarantine(&client);
}

#[test]
fn quarantine_can_be_switched_off() {
    let mut server = need!(Server::start());
    drop(server.connect(options()));
    server.stop(Stop::Crash);
    server.begin_again();
    let client = server.connect(options().quarantine(false));
    let lock = client.lock("a");
    assert!(in_runtime(lock.try_acquire()).expect("an answer").is_some());
}
