//! Many waiters.

use std::time::Duration;

use stanchion::postgres::PgClient;

use crate::child::assert_listeners;
use crate::crew::Member;
use crate::place::waiting;
use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime};

/// A wait for one dead waiter would last longer than the test.
const PATIENT: [(&str, &str); 1] = [("CHILD_PATIENCE", "600000")];

#[test]
fn p29_of_a_hundred_waiters_all_but_two_die() {
    let server = need!(Server::start());
    let mut holder = Member::spawn_with(&server, &PATIENT);
    holder.hold("lock");
    let mut line: Vec<_> = (0..9)
        .map(|_| Member::spawn_with(&server, &PATIENT))
        .collect();
    let mut queued = 0;
    for (index, child) in line.iter_mut().enumerate() {
        let count = if [3, 8].contains(&index) { 1 } else { 14 };
        child.tell(&format!("crowd {queued} {count}"));
        queued += count;
        eventually("queued", || waiting(&server) == queued);
    }
    assert_eq!(queued, 100);
    for index in [0, 1, 2, 4, 5, 6, 7] {
        line[index].kill();
    }
    assert_listeners(&server, 3);
    holder.tell("release");
    for (index, number) in [(3, "42"), (8, "99")] {
        let line = line[index].hear();
        assert_eq!(line.rsplit(' ').next(), Some(number), "{line}");
    }
    eventually("none waits", || waiting(&server) == 0);
}

#[test]
fn p09_a_thousand_waiters_use_one_pair_of_connections() {
    let server = need!(Server::start());
    let hour = Duration::from_secs(3600);
    let client = server.connect(PgClient::options().lease(hour).patience(hour));
    let lock = client.lock("a");
    let mut guard = in_runtime(lock.acquire()).expect("free");
    let mut line: Vec<_> = (0..1000).map(|_| Polled::pending(lock.acquire())).collect();
    eventually("queued", || waiting(&server) == 1000);
    assert_eq!(
        server.connections(&format!("stanchion:{}", std::process::id())),
        2
    );
    for waiter in &mut line[..50] {
        let last = guard.token();
        in_runtime(guard.release()).expect("released");
        guard = waiter.finish().expect("in order");
        assert!(guard.token() > last);
    }
    assert_eq!(waiting(&server), 950);
}
