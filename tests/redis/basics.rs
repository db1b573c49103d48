//! The ways in and out of each lock.

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
