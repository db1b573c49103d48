//! The stream of changes, and the counts.

use stanchion::{Changes, ErrorKind, Status};

use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime};
use stanchion::redis::RedisClient;

/// The next status of which this is true.
async fn until(changes: &mut Changes, is_so: impl Fn(&Status) -> bool) -> Status {
    loop {
        let status = changes.next().await.expect("no end").expect("a status");
        if is_so(&status) {
            return status;
        }
    }
}

#[test]
fn a_stream_follows_a_lock() {
    let server = need!(Server::start());
    let options = || RedisClient::options().quarantine(false);
    let (mine, theirs) = (server.connect(options()), server.connect(options()));
    let lock = theirs.rwlock("a");
    let mut changes = mine.rwlock("a").changes();
    let first = in_runtime(changes.next())
        .expect("the present")
        .expect("a status");
    assert!(first.holder.is_none() && first.waiters.is_empty());

    let guard = in_runtime(lock.write()).expect("free");
    let held = in_runtime(until(&mut changes, |it| it.holder.is_some()));
    assert_eq!(held.last_token, guard.token());
    let mut reader = Polled::pending(lock.read());
    in_runtime(until(&mut changes, |it| it.waiters.len() == 1));
    drop(guard);
    let reader = reader.finish().expect("its turn");
    in_runtime(until(&mut changes, |it| {
        it.shared_by.len() == 1 && it.holder.is_none()
    }));

    drop(reader);
    in_runtime(until(&mut changes, |it| it.shared_by.is_empty()));

    // Nothing changes, so there is no item. Only the stream runs scripts.
    let mut next = Polled::pending(async move { changes.next().await });
    server.forget_counts();
    eventually("it has looked three times", || {
        assert!(next.poll().is_pending(), "nothing has changed");
        server.calls("evalsha") > 2
    });
    let _guard = in_runtime(lock.write()).expect("free");
    let status = next.finish().expect("no end").expect("a status");
    assert!(status.holder.is_some());
}

#[test]
fn a_stream_ends_with_its_error() {
    let mut server = need!(Server::start());
    let client = server.connect(RedisClient::options().quarantine(false));
    let mut changes = client.lock("a").changes();
    in_runtime(changes.next())
        .expect("the present")
        .expect("a status");
    server.kill();
    let error = in_runtime(changes.next())
        .expect("one item")
        .expect_err("no server");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(in_runtime(changes.next()).is_none());
}
