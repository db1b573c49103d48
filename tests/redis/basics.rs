//! Every way to acquire and release each lock.

use stanchion::ErrorKind;
use stanchion::redis::RedisClient;

use crate::server::Server;
use crate::support::in_runtime;

#[test]
fn a_lock_is_acquired_and_released() {
    let server = need!(Server::start());
    let client = server.connect(RedisClient::options());
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
    let client = server.connect(RedisClient::options());
    let lock = client.lock("a");
    in_runtime(async {
        let token = lock
            .acquire()
            .run(async |guard| guard.token())
            .await
            .expect("run");
        let stopped = lock.acquire().run(async |guard| {
            assert!(guard.token() > token);
            lock.force_release(None).await.expect("ended");
            std::future::pending::<()>().await;
        });
        let error = stopped.await.expect_err("lost");
        assert_eq!(error.kind(), ErrorKind::Lost);
    });
}

#[test]
fn several_clients_of_one_process_are_distinguished_from_others() {
    let server = need!(Server::start());
    let client = server.connect(RedisClient::options().label("one").client_name("named"));
    assert_eq!(server.connections("named"), 1);
    let semaphore = client.semaphore("a", 2).expect("a semaphore");
    in_runtime(async {
        let permits = semaphore.acquire_many(2).await.expect("free");
        let status = semaphore.status().await.expect("a status");
        let owner = &status.shared_by[0];
        assert_eq!((status.holder, status.shared_by.len()), (None, 1));
        assert_eq!(owner.pid, Some(std::process::id()));
        assert_eq!(owner.label.as_deref(), Some("one"));
        drop(permits);
    });
}
