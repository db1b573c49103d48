//! `assert_held` inside a transaction of the user.

use std::time::Duration;

use stanchion::postgres::{Options, PgClient};

use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime};

/// No lease ends during a test by itself.
fn options() -> Options {
    PgClient::options().lease(Duration::from_secs(3600))
}

fn assertion(name: &str, token: u64) -> String {
    format!("SELECT stanchion.assert_held('{name}', {token})")
}

#[test]
fn a_hold_is_asserted_and_a_lost_one_refused() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let (lock, session) = (client.lock("a"), server.session());
    let guard = in_runtime(lock.acquire()).expect("free");
    session.ask(&assertion("a", guard.token()));
    for wrong in [guard.token() - 1, guard.token() + 1, 0] {
        assert_eq!(session.refused(&assertion("a", wrong)), "SL001");
    }
    assert_eq!(session.refused(&assertion("b", guard.token())), "SL001");
    let token = guard.token();
    in_runtime(lock.force_release(None)).expect("ended");
    assert_eq!(session.refused(&assertion("a", token)), "SL001");
    let next = in_runtime(lock.acquire()).expect("free");
    assert_eq!(session.refused(&assertion("a", token)), "SL001");
    session.ask(&assertion("a", next.token()));
    in_runtime(next.release()).expect("released");
    assert_eq!(session.refused(&assertion("a", token)), "SL001");
}

#[test]
fn another_namespace_is_the_third_argument() {
    let server = need!(Server::start());
    let client = server.connect(options().namespace("shop"));
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    let token = guard.token();
    let session = server.session();
    session.ask(&format!(
        "SELECT stanchion.assert_held('a', {token}, 'shop')"
    ));
    assert_eq!(session.refused(&assertion("a", token)), "SL001");
}

/// The heart of it: the lease has ended, and still no other caller acquires the lock.
#[test]
fn p48_no_take_over_before_the_transaction_has_ended() {
    let server = need!(Server::start());
    let (client, other) = (server.connect(options()), server.connect(options()));
    let (lock, session) = (client.lock("a"), server.session());
    let guard = in_runtime(lock.acquire()).expect("free");
    let token = guard.token();
    session.ask("BEGIN");
    session.ask(&assertion("a", token));
    in_runtime(lock.force_release(None)).expect("ended");
    let tried = in_runtime(other.lock("a").try_acquire()).expect("an answer");
    assert!(tried.is_none(), "the transaction goes on");
    let mut waiter = Polled::pending(other.lock("a").acquire());
    eventually("put off", || {
        server.ask("SELECT fenced FROM stanchion.locks") == "t"
    });
    assert!(waiter.poll().is_pending());
    let status = in_runtime(lock.status()).expect("a status");
    let holder = status.holder.expect("the transaction").label;
    assert!(holder.is_some_and(|it| it.contains("assert_held")));
    // Again, in the same transaction: the hold has ended.
    assert_eq!(session.refused(&assertion("a", token)), "SL001");
    session.ask("ROLLBACK");
    let next = waiter.finish().expect("after the transaction");
    assert!(next.token() > token && next.predecessor_crashed());
    assert_eq!(server.ask("SELECT fenced FROM stanchion.locks"), "f");
}

/// Nothing but a grant waits for the transaction.
#[test]
fn an_open_transaction_holds_up_no_step() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let (lock, session) = (client.lock("a"), server.session());
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiter = Polled::pending(lock.acquire());
    let waits = || server.ask("SELECT waiting FROM stanchion.locks WHERE name LIKE '%:a'") == "1";
    eventually("queued", waits);
    session.ask("BEGIN");
    session.ask(&assertion("a", guard.token()));
    in_runtime(async {
        guard.ensure_held().await.expect("renewed");
        let other = client.lock("b").acquire().await.expect("another lock");
        other.release().await.expect("released");
        let status = lock.status().await.expect("a status");
        assert_eq!(status.waiters.len(), 1);
        guard.ensure_held().await.expect("renewed again");
        // From inside the task that has the transaction.
        guard.release().await.expect("released");
        let removed = lock.remove().await.expect("an answer");
        assert_eq!(removed, stanchion::Removal::InUse);
    });
    assert!(waiter.poll().is_pending());
    session.ask("COMMIT");
    drop(waiter.finish().expect("after the transaction"));
}

#[test]
fn readers_put_off_writers_and_no_readers() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let (lock, session) = (client.rwlock("a"), server.session());
    let written = in_runtime(lock.write()).expect("free");
    let writer = written.token();
    session.ask(&assertion("a", writer));
    in_runtime(written.release()).expect("released");
    let reader = in_runtime(lock.read()).expect("free");
    // Readers have the token of the last writer, which holds it no more.
    assert_eq!(reader.token(), writer);
    assert_eq!(session.refused(&assertion("a", writer)), "SL001");
    session.ask("BEGIN");
    session.ask(&format!("SELECT stanchion.assert_shared('a', {writer})"));
    let other = in_runtime(lock.try_read()).expect("an answer");
    in_runtime(other.expect("another reader").release()).expect("released");
    in_runtime(reader.release()).expect("released");
    let tried = in_runtime(lock.try_write()).expect("an answer");
    assert!(tried.is_none(), "a reader's transaction goes on");
    session.ask("COMMIT");
    let writer = in_runtime(lock.try_write())
        .expect("an answer")
        .expect("free");
    let refused = session.refused(&format!(
        "SELECT stanchion.assert_shared('a', {})",
        writer.token()
    ));
    assert_eq!(refused, "SL001", "a writer is no reader");
}

/// A snapshot that is older than the last grant cannot be trusted. Renewals do not matter.
#[test]
fn a_transaction_with_a_snapshot_fails_after_a_grant() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let (lock, session) = (client.lock("a"), server.session());
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM stanchion.version";
    let guard = in_runtime(lock.acquire()).expect("free");
    let token = guard.token();
    session.ask(begin);
    in_runtime(guard.ensure_held()).expect("renewed");
    session.ask(&assertion("a", token));
    session.ask("COMMIT");
    session.ask(begin);
    in_runtime(async {
        guard.release().await.expect("released");
        drop(lock.acquire().await.expect("free"));
    });
    assert_eq!(session.refused(&assertion("a", token)), "40001");
    session.ask("ROLLBACK");
}

#[test]
fn the_permits_of_a_semaphore_are_asserted() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let (semaphore, session) = (client.semaphore("a", 2).expect("one"), server.session());
    let (one, two) = in_runtime(async {
        let one = semaphore.acquire().await.expect("free");
        (one, semaphore.acquire().await.expect("free"))
    });
    session.ask(&assertion("a", one.token()));
    session.ask(&assertion("a", two.token()));
    let token = one.token();
    in_runtime(one.release()).expect("released");
    assert_eq!(session.refused(&assertion("a", token)), "SL001");
}
