//! A server as a place of locks: its options in a URL, and its clients.

use stanchion::redis::RedisClient;
use stanchion::{ErrorKind, Locks};

use crate::server::Server;
use crate::support::{Polled, in_runtime, kind_of};

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
