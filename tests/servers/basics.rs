//! Every way to acquire and release each lock.

use stanchion::{ErrorKind, Locks, conformance};

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

#[test]
fn a_server_passes_the_suite() {
    let server = need!(Server::start());
    let locks = Locks::from(server.connect(Client::options()));
    let report = in_runtime(conformance::run(&locks));
    assert!(report.is_ok(), "{report}");
}
