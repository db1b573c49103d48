//! The ways in and out of each lock.

use std::time::Instant;

use stanchion::redis::RedisClient;

use crate::server::Server;
use crate::support::in_runtime;

#[test]
fn a_lock_is_taken_and_given_back() {
    let server = Server::start();
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
fn bench() {
    let server = Server::start();
    let client = server.connect(RedisClient::options());
    in_runtime(async {
        let lock = client.lock("deploy");
        for _ in 0..500 {
            lock.acquire()
                .await
                .expect("free")
                .release()
                .await
                .expect("ok");
        }
        let t = Instant::now();
        for _ in 0..5000 {
            lock.acquire()
                .await
                .expect("free")
                .release()
                .await
                .expect("ok");
        }
        eprintln!("acq+rel {:?}", t.elapsed() / 5000);
        let other = server.connect(RedisClient::options());
        let t = Instant::now();
        let mut js = tokio::task::JoinSet::new();
        for c in [client.clone(), other.clone(), client.clone(), other.clone()] {
            js.spawn(async move {
                let l = c.lock("deploy");
                for _ in 0..1000 {
                    drop(l.acquire().await.expect("x"));
                }
            });
        }
        js.join_all().await;
        eprintln!("handover {:?}", t.elapsed() / 4000);
    });
}
