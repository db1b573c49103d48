//! How long a server that has just been started grants nothing.

use std::time::{Duration, SystemTime};

use stanchion::redis::RedisClient;
use stanchion::{ErrorKind, Held};

use crate::proxy::Proxy;
use crate::server::Server;
use crate::support::{eventually, in_runtime, kind_of};

/// A quarter of it is less than the second by which the server may be younger than it says.
const LEASE: Duration = Duration::from_secs(3);

/// A server shows its age in whole seconds, counted from the beginning of the second in which it
/// was started. So it may show one second when it is a tenth of a second old. The holder is
/// disconnected and cannot come back. It must have lost the lock before the next grant.
#[test]
fn p51_a_server_that_looks_older_than_it_is_grants_nothing_too_early() {
    let mut server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let options = RedisClient::options().lease(LEASE);
    let far = in_runtime(options.clone().connect(proxy.url())).expect("a client");
    let left_of_the_second = |left: u64| {
        eventually("that time of a second", || {
            second_is_over_in() < Duration::from_millis(left)
        });
    };
    let guard = loop {
        let guard = in_runtime(far.lock("a").acquire()).expect("once it is old enough");
        left_of_the_second(950);
        left_of_the_second(300);
        // On a slow machine it may be lost by now.
        if in_runtime(guard.ensure_held()).is_ok() {
            break guard;
        }
    };
    proxy.stop();
    server.kill();
    left_of_the_second(100);
    server.begin_again();
    eventually("the next second", || {
        second_is_over_in() > Duration::from_millis(500)
    });
    let near = in_runtime(options.connect(server.url())).expect("a client");
    let next = in_runtime(near.lock("a").acquire()).expect("after the quarantine");
    assert!(!guard.is_held(), "two holders");
    assert!(next.token() > guard.token());
}

/// An earlier holder may still hold the lock. The server does not know, and the status does not say
/// that the lock is free.
#[test]
fn p51_what_a_restarted_server_may_have_forgotten_is_unknown() {
    let mut server = need!(Server::start());
    let options = RedisClient::options().lease(Duration::from_secs(3600));
    server.kill();
    server.begin_again();
    let client = in_runtime(options.connect(server.url())).expect("a client");
    let lock = client.lock("a");
    for _ in 0..2 {
        let status = in_runtime(lock.status()).expect("a status");
        assert_eq!((status.held, status.holder), (Held::Unknown, None));
        let why = status.unknown.expect("a reason");
        assert!(why.contains("forgotten"), "{why}");
        assert!(!status.names_all);
        let tried = in_runtime(lock.try_acquire()).expect("an answer");
        assert!(tried.is_none(), "a try is refused too");
    }
    let semaphore = client.semaphore("b", 3).expect("a semaphore");
    let status = in_runtime(semaphore.status()).expect("a status");
    assert_eq!(status.available, None, "some may be held");
    let counted = kind_of(in_runtime(semaphore.available()));
    assert_eq!(counted, ErrorKind::Unavailable, "some may be held");
}

fn second_is_over_in() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("after 1970");
    Duration::from_secs(now.as_secs() + 1) - now
}
