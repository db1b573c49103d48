//! Many waiters.

use std::time::Duration;

use stanchion::postgres::PgClient;

use crate::child::assert_listeners;
use crate::crew::Member;
use crate::place::waiting;
use crate::server::Server;
use crate::support::{eventually, in_runtime};

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
fn a_thousand_waiters_use_one_pair_of_connections() {
    let server = need!(Server::start());
    let client = server.connect(PgClient::options().lease(Duration::from_secs(3600)));
    let lock = client.lock("a");
    let name = format!("stanchion:{}", std::process::id());
    in_runtime(async {
        let guard = lock.acquire().await.expect("free");
        let mut last = guard.token();
        let mut line: Vec<_> = (0..1000).map(|_| Box::pin(lock.acquire())).collect();
        for waiter in &mut line {
            assert!(futures::poll!(waiter).is_pending());
        }
        while lock.status().await.expect("a status").waiters.len() < 1000 {}
        assert_eq!(lock.status().await.expect("a status").waiters.len(), 1000);
        guard.release().await.expect("released");
        for waiter in line {
            let guard = waiter.await.expect("in order");
            assert!(guard.token() > last);
            last = guard.token();
            guard.release().await.expect("released");
        }
    });
    assert_eq!(server.connections(&name), 2);
}
