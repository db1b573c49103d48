//! What goes wrong on every server.

use std::time::Duration;

use stanchion::{ErrorKind, Loss, Result};

use crate::place::{self, Client, OnDisconnect, Options};
use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime, kind_of};

const LEASE: Duration = Duration::from_secs(12);

fn options() -> Options {
    Client::options().lease(LEASE)
}

#[test]
fn p47_a_broken_connection_costs_no_hold_and_no_place() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    for connection in 0..place::CONNECTIONS {
        let guard = in_runtime(lock.acquire()).expect("free");
        let mut waiters: Vec<_> = (0..3).map(|_| Polled::pending(lock.acquire())).collect();
        eventually("queued", || place::queue(&server).len() == 3);
        let before = place::queue(&server);
        place::cut(&server, connection);
        in_runtime(guard.ensure_held()).expect("connected again");
        assert_eq!(place::queue(&server), before);
        in_runtime(guard.release()).expect("released");
        for waiter in &mut waiters {
            drop(waiter.finish().expect("in order"));
        }
    }
}

#[test]
fn a_disconnect_is_a_loss_if_the_options_say_so() {
    let server = need!(Server::start());
    let client = server.connect(options().on_disconnect(OnDisconnect::Release));
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    place::cut(&server, 0);
    assert_eq!(in_runtime(guard.lost()), Loss::Disconnected);
}

/// The lease is so long that the hold cannot end by itself.
#[test]
fn p47_a_hold_is_renewed_by_no_request_beyond_its_most() {
    let server = need!(Server::start());
    let lease = Duration::from_secs(3600);
    let most = Duration::from_nanos(1);
    let client = server.connect(Client::options().lease(lease).max_hold(most));
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    assert!(guard.is_held(), "until it would be renewed");
    assert_eq!(kind_of(in_runtime(guard.ensure_held())), ErrorKind::Lost);
    assert!(!guard.is_held());
    assert_eq!(in_runtime(guard.lost()), Loss::Expired);
    assert_eq!(kind_of(in_runtime(guard.release())), ErrorKind::Lost);
    drop(in_runtime(client.lock("a").acquire()).expect("released all the same"));
    let writer = in_runtime(client.rwlock("b").write()).expect("free");
    assert_eq!(kind_of(in_runtime(writer.downgrade())), ErrorKind::Lost);
    drop(in_runtime(client.rwlock("b").write()).expect("released all the same"));
}

/// No limit is too long.
#[test]
fn p18_a_client_waits_as_long_as_it_should() {
    let server = need!(Server::start());
    let most = Duration::MAX;
    let options = Client::options()
        .response_timeout(most)
        .unavailable_after(most)
        .max_hold(most)
        .timeout(most)
        .poll_interval(most);
    let client = server.connect(options);
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    in_runtime(guard.ensure_held()).expect("held");
    in_runtime(guard.release()).expect("released");
}

#[test]
fn p51_a_server_that_is_gone_ends_in_a_loss() {
    let mut server = need!(Server::start());
    let lease = Duration::from_secs(4);
    let client = server.connect(options().lease(lease).unavailable_after(lease));
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiter = Polled::pending(lock.acquire());
    server.kill();
    assert_eq!(in_runtime(guard.lost()), Loss::Expired);
    let error = waiter.finish().expect_err("no server answers");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(kind_of(in_runtime(lock.status())), ErrorKind::Unavailable);
}

/// The server receives two requests, and answers too late: the second is under way when the acquire
/// fails. The lease is so long that only the client can have released the lock.
#[test]
fn p45_an_acquire_that_fails_leaves_nothing_behind() {
    let server = need!(Server::start());
    let hour = || Client::options().lease(Duration::from_secs(3600));
    let other = server.connect(hour());
    let brief = Duration::from_millis(100);
    let client = server.connect(hour().response_timeout(brief).unavailable_after(brief * 2));
    for _ in 0..3 {
        let failed = place::unanswered(&server, || in_runtime(client.lock("a").acquire()));
        assert_eq!(kind_of(failed), ErrorKind::Unavailable);
        drop(in_runtime(other.lock("a").acquire()).expect("free"));
    }
}

#[test]
fn p50_p66_another_kind_limit_or_lease_is_refused_with_both_values() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let other = server.connect(Client::options().lease(LEASE * 2));
    let permit = in_runtime(client.semaphore("a", 3).expect("one").acquire()).expect("free");
    fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        let error = result.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        error.to_string()
    }
    let kind = text(in_runtime(client.lock("a").acquire()));
    assert!(
        kind.contains("semaphore") && kind.contains("not lock"),
        "{kind}"
    );
    let limit = text(in_runtime(client.semaphore("a", 4).expect("one").acquire()));
    assert!(limit.contains('3') && limit.contains('4'), "{limit}");
    let lease = text(in_runtime(other.semaphore("a", 3).expect("one").acquire()));
    assert!(lease.contains("12s") && lease.contains("24s"), "{lease}");
    in_runtime(permit.release()).expect("released");
    // Without a holder or waiter, another lease is accepted.
    drop(in_runtime(other.semaphore("a", 3).expect("one").acquire()).expect("free"));
}
