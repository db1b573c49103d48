//! A server as a place of locks: its options in a URL, and the suite for backends.

use stanchion::backend::conformance;
use stanchion::redis::RedisClient;
use stanchion::{ErrorKind, Locks};

use crate::server::Server;
use crate::support::{Polled, in_runtime, kind_of};

#[test]
fn a_server_passes_the_suite() {
    let server = need!(Server::start());
    let locks = Locks::from(server.connect(RedisClient::options().quarantine(false)));
    let report = in_runtime(conformance::run(&locks));
    assert!(report.is_ok(), "{report}");
}

#[test]
fn options_are_read_from_the_url() {
    let server = need!(Server::start());
    let url = server.url();
    let connect = |options: &str| in_runtime(Locks::connect(format!("{url}?{options}")));
    let one = connect("quarantine=false&namespace=n&label=me&lease=5s").expect("connected");
    assert_eq!(one.url(), url);
    let guard = in_runtime(one.lock("a").expect("a lock").acquire()).expect("free");
    let client = server.connect(RedisClient::options().namespace("n"));
    let status = in_runtime(client.lock("a").status()).expect("a status");
    assert_eq!(status.holder.and_then(|it| it.label).as_deref(), Some("me"));
    drop(guard);
    let other_lease = connect("quarantine=false&namespace=n&lease=6s").expect("connected");
    let kept = in_runtime(one.lock("b").expect("a lock").acquire()).expect("free");
    let differs = in_runtime(other_lease.lock("b").expect("a lock").acquire());
    assert_eq!(kind_of(differs), ErrorKind::Incompatible);
    drop(kept);
    for wrong in [
        "quarantine=maybe",
        "lease=1ms",
        "on_disconnect=cry",
        "lable=a",
        "pass=secret&x=y",
    ] {
        let error = connect(wrong).expect_err(wrong);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

/// The connection is closed too, as soon as no guard needs it.
#[test]
fn close_ends_all_waits() {
    let server = need!(Server::start());
    let locks = Locks::from(server.connect(RedisClient::options().quarantine(false)));
    let lock = locks.lock("a").expect("a lock");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waits = Polled::pending(locks.lock("a").expect("a lock").acquire());
    locks.close();
    assert_eq!(kind_of(waits.finish()), ErrorKind::Closed);
    assert_eq!(
        kind_of(Polled::new(lock.acquire()).finish()),
        ErrorKind::Closed
    );
    assert!(guard.is_held());
    in_runtime(guard.release()).expect("released");
}
