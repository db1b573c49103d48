//! Real processes: order, deaths of holders and waiters, and holders that are stopped past their
//! lease.

use std::time::{Duration, Instant};

use crate::child::{NAME, assert_listeners};
use crate::crew::Member;
use crate::place::{Client, LEASE, Number, waiting};
use crate::server::Server;
use crate::support::{eventually, in_runtime};

/// A wait for one dead waiter would last longer than the test.
const PATIENT: [(&str, &str); 1] = [("CHILD_PATIENCE", "600000")];

#[test]
fn p01_no_update_is_lost_among_processes() {
    let server = need!(Server::start());
    Number::create(&server);
    let mut children: Vec<_> = (0..8).map(|_| Member::spawn(&server)).collect();
    children.iter_mut().for_each(|it| it.tell("storm 50"));
    for child in &mut children {
        assert_eq!(child.hear(), "stormed");
    }
    let number = async { Number::at(&server.url()).await.get().await };
    assert_eq!(in_runtime(number), 400);
}

#[test]
fn p09_processes_are_served_in_order() {
    let server = need!(Server::start());
    let mut holder = Member::spawn(&server);
    let (mut last, _) = holder.hold("lock");
    let mut line: Vec<_> = (0..8).map(|_| Member::spawn(&server)).collect();
    line.iter_mut().for_each(|it| it.queue(&server, "lock"));
    holder.tell("release");
    for child in &mut line {
        let (token, crashed) = child.hear_held();
        assert!(token > last && !crashed);
        last = token;
        assert_eq!(child.ask("release"), "released");
    }
}

#[test]
fn p28_a_killed_holder_is_followed_after_its_lease() {
    let server = need!(Server::start());
    let (mut holder, mut next) = (Member::spawn(&server), Member::spawn(&server));
    let (first, _) = holder.hold("lock");
    next.queue(&server, "lock");
    holder.kill();
    let (token, crashed) = next.hear_held();
    assert!(token > first && crashed, "the crash is reported");
    assert_eq!(next.ask("release"), "released");
    let (_, crashed) = next.hold("lock");
    assert!(!crashed, "no other report");
}

#[test]
fn p47_a_live_hold_outlasts_its_lease() {
    let server = need!(Server::start());
    let (mut holder, mut next) = (Member::spawn(&server), Member::spawn(&server));
    let (first, _) = holder.hold("lock");
    next.queue(&server, "lock");
    // Longer than a lease, by the clock of the server.
    let begun = Instant::now();
    let client = server.connect(Client::options().lease(LEASE));
    let lock = client.lock(NAME);
    eventually("a lease", || {
        let status = in_runtime(lock.status()).expect("a status");
        assert!(status.holder.is_some() && status.waiters.len() == 1);
        std::thread::sleep(Duration::from_millis(50));
        begun.elapsed() > LEASE + Duration::from_secs(1)
    });
    assert_eq!(holder.ask("release"), "released");
    let (token, crashed) = next.hear_held();
    assert!(token > first && !crashed);
}

/// With `on_disconnect(Release)` the closed connection shows a death.
#[test]
fn a_holder_that_is_cut_off_is_followed_before_its_lease_if_it_wants_so() {
    let server = need!(Server::start());
    // No lease ends during a test.
    let lease = ("CHILD_LEASE", "3600000");
    let mut holder = Member::spawn_with(&server, &[("CHILD_DROPS", "1"), lease]);
    let mut next = Member::spawn_with(&server, &[lease]);
    holder.hold("lock");
    next.queue(&server, "lock");
    holder.kill();
    let (_, crashed) = next.hear_held();
    assert!(crashed);
}

/// Dead waiters listen no more, so they are bypassed without a wait.
#[test]
fn p29_killed_waiters_cost_no_delay() {
    let server = need!(Server::start());
    let mut holder = Member::spawn_with(&server, &PATIENT);
    holder.hold("lock");
    let mut line: Vec<_> = (0..6)
        .map(|_| Member::spawn_with(&server, &PATIENT))
        .collect();
    line.iter_mut().for_each(|it| it.queue(&server, "lock"));
    let dies = |index: usize| [0, 2, 3, 5].contains(&index);
    for (index, child) in line.iter_mut().enumerate() {
        if dies(index) {
            child.kill();
        }
    }
    assert_listeners(&server, 3);
    holder.tell("release");
    for (index, child) in line.iter_mut().enumerate() {
        if !dies(index) {
            let (_, crashed) = child.hear_held();
            assert!(!crashed, "a waiter was no holder");
            assert_eq!(child.ask("release"), "released");
        }
    }
}

#[test]
fn p48_a_stopped_holder_learns_that_it_has_lost() {
    let server = need!(Server::start());
    let (mut holder, mut next) = (Member::spawn(&server), Member::spawn(&server));
    let (first, _) = holder.hold("lock");
    next.queue(&server, "lock");
    assert!(holder.stop());
    let (token, _) = next.hear_held();
    assert!(token > first);
    holder.resume();
    // The loss may be noticed by the clock or by a message, whichever comes first.
    let lost = holder.hear();
    assert!(lost == "lost Expired" || lost == "lost Revoked", "{lost}");
    assert_eq!(holder.ask("is-held"), "false");
    assert_eq!(holder.ask("release"), "failed Lost");
    assert_eq!(next.ask("is-held"), "true", "it keeps its hold");
}

#[test]
fn p03_readers_of_several_processes_overlap_and_a_writer_waits_for_all() {
    let server = need!(Server::start());
    let mut readers: Vec<_> = (0..3).map(|_| Member::spawn(&server)).collect();
    readers.iter_mut().for_each(|it| _ = it.hold("read"));
    let (mut writer, mut late) = (Member::spawn(&server), Member::spawn(&server));
    writer.queue(&server, "write");
    late.queue(&server, "read");
    for reader in &mut readers {
        assert_eq!(waiting(&server), 2);
        assert_eq!(reader.ask("release"), "released");
    }
    writer.hear_held();
    assert_eq!(waiting(&server), 1, "the late reader waits for the writer");
    writer.tell("release");
    late.hear_held();
}

#[test]
fn p53_the_permits_of_the_dead_return() {
    let server = need!(Server::start());
    let mut holders: Vec<_> = (0..2).map(|_| Member::spawn(&server)).collect();
    holders.iter_mut().for_each(|it| _ = it.hold("permit"));
    let mut next = Member::spawn(&server);
    next.queue(&server, "permit");
    holders[0].kill();
    next.hear_held();
    assert_eq!(holders[1].ask("is-held"), "true");
}
