//! Every way to acquire and release each lock.

use stanchion::{ErrorKind, LockKind, Locks, Status, conformance};

use crate::place::Client;
use crate::server::Server;
use crate::support::in_runtime;

#[test]
fn a_lock_is_acquired_and_released() {
    let server = need!(Server::start());
    let client = server.connect(Client::options());
    in_runtime(async {
        let lock = client.lock("deploy");
        let guard = lock.acquire().await.expect("free");
        assert!(guard.is_held() && guard.waited().is_none());
        assert!(lock.try_acquire().await.expect("an answer").is_none());
        guard.ensure_held().await.expect("held");
        let token = guard.token();
        guard.release().await.expect("released");
        let guard = lock.try_acquire().await.expect("an answer").expect("free");
        assert!(guard.token() > token);
    });
}

#[test]
fn a_body_is_stopped_when_the_lock_is_lost() {
    let server = need!(Server::start());
    let client = server.connect(Client::options());
    let lock = client.lock("a");
    in_runtime(async {
        let run = lock.acquire().run(async |guard| guard.token());
        let token = run.await.expect("run");
        let stopped = lock.acquire().run(async |guard| {
            assert!(guard.token() > token);
            lock.force_release(None).await.expect("ended");
            std::future::pending::<()>().await;
        });
        let error = stopped.await.expect_err("lost");
        assert_eq!(error.kind(), ErrorKind::Lost);
    });
}

/// The status has what is on record, whatever the kind of the handle.
#[test]
fn a_status_has_kind_limit_and_free_permits() {
    let server = need!(Server::start());
    let client = server.connect(Client::options());
    let facts = |it: &Status| (it.kind, it.limit, it.available);
    in_runtime(async {
        let workers = client.semaphore("workers", 4).expect("a semaphore");
        let status = workers.status().await.expect("a status");
        assert_eq!(facts(&status), (None, None, None), "nothing is on record");
        let three = workers.acquire_many(3).await.expect("free");
        let other = client.lock("workers");
        for status in [workers.status().await, other.status().await] {
            let status = status.expect("a status");
            let expected = (Some(LockKind::Semaphore), Some(4), Some(1));
            assert_eq!(facts(&status), expected);
            let text = status.to_string();
            assert!(
                text.starts_with("semaphore of 4, 1 available: shared by "),
                "{text}"
            );
        }
        three.release().await.expect("released");
        let status = workers.status().await.expect("a status");
        assert_eq!((status.limit, status.available), (Some(4), Some(4)));

        let (book, deploy) = (client.rwlock("book"), client.lock("deploy"));
        let reader = book.read().await.expect("free");
        let status = book.status().await.expect("a status");
        assert_eq!(facts(&status), (Some(LockKind::RwLock), None, None));
        let guard = deploy.acquire().await.expect("free");
        let status = deploy.status().await.expect("a status");
        assert_eq!(facts(&status), (Some(LockKind::Lock), None, None));
        drop((reader, guard));
    });
}

#[test]
fn locks_close_the_client_that_they_are_made_of() {
    let server = need!(Server::start());
    let client = server.connect(Client::options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    Locks::from(client.clone()).close();
    let error = in_runtime(lock.acquire()).expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    in_runtime(guard.release()).expect("guards stay valid");
}

#[test]
fn a_server_passes_the_suite() {
    let server = need!(Server::start());
    let locks = Locks::from(server.connect(Client::options()));
    let report = in_runtime(conformance::run(&locks));
    assert!(report.is_ok(), "{report}");
}
