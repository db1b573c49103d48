//! What can happen to a server while many processes contend for a lock on it: there are never two
//! holders, no token goes back, and all progress.

use crate::gate::{Crowd, Tally, rounds};
use crate::server::Server;

/// In milliseconds. Long enough that no hold is lost because the machine is slow.
const LEASE: &str = "12000";

/// With quarantine, as by default.
const SAFE: [(&str, &str); 2] = [("CHILD_QUARANTINE", "1"), ("CHILD_LEASE", LEASE)];

fn assert_safe(all: Tally) {
    assert_eq!((all.overlaps, all.fallen), (0, 0), "{all:?}");
    println!("{all:?}");
}

fn storm_of_restarts(mut server: Server) {
    let crowd = Crowd::begin(6, &server, &SAFE);
    for _ in 0..rounds(2) {
        server.kill();
        server.begin_again();
        crowd.make_progress();
    }
    assert_safe(crowd.end());
}

#[test]
fn p51_a_server_without_memory_that_is_killed_again_and_again_allows_no_two_holders() {
    storm_of_restarts(need!(Server::start()));
}

/// It loses up to a second of data.
#[test]
fn p51_a_server_with_a_log_that_is_killed_again_and_again_allows_no_two_holders() {
    storm_of_restarts(need!(Server::start_with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
    ])));
}

/// Killed before it is as old as the lease, so the quarantine of one run follows that of another.
#[test]
fn p51_restarts_within_the_quarantine_allow_no_two_holders() {
    let mut server = need!(Server::start_with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec"
    ]));
    let crowd = Crowd::begin(6, &server, &SAFE);
    for _ in 0..rounds(4) {
        server.kill();
        server.begin_again();
    }
    crowd.make_progress();
    assert_safe(crowd.end());
}

#[test]
fn p51_disturbances_of_a_server_allow_no_two_holders() {
    let server = need!(Server::start());
    let crowd = Crowd::begin(6, &server, &SAFE);
    for _ in 0..rounds(6) {
        server.ask::<()>(&["SCRIPT", "FLUSH"]);
        crowd.make_progress();
        for kind in ["normal", "pubsub"] {
            server.ask::<u64>(&["CLIENT", "KILL", "TYPE", kind]);
            crowd.make_progress();
        }
        server.ask::<()>(&["CLIENT", "PAUSE", "150", "ALL"]);
        crowd.make_progress();
    }
    let all = crowd.end();
    assert_safe(all);
    assert_eq!((all.lost, all.unavailable), (0, 0), "{all:?}");
}

/// A pause longer than the lease ends the hold.
#[test]
fn p48_pauses_longer_than_the_lease_allow_no_two_holders() {
    let server = need!(Server::start());
    let crowd = Crowd::begin(6, &server, &SAFE);
    for _ in 0..rounds(1) {
        server.ask::<()>(&["CLIENT", "PAUSE", "13000", "ALL"]);
        crowd.make_progress();
    }
    assert_safe(crowd.end());
}

#[test]
fn p51_everything_forgotten_again_and_again_allows_no_two_holders() {
    let server = need!(Server::start());
    let crowd = Crowd::begin(6, &server, &SAFE);
    for _ in 0..rounds(2) {
        server.ask::<()>(&["FLUSHALL"]);
        crowd.make_progress();
    }
    assert_safe(crowd.end());
}

/// The documented limit: a lock whose keys are all deleted by hand looks like a new one. So it may
/// be granted again, with a greater token. The earlier holder is informed.
#[test]
fn p51_a_lock_deleted_in_a_storm_is_a_loss_for_its_holder() {
    let server = need!(Server::start());
    let crowd = Crowd::begin(6, &server, &SAFE);
    for _ in 0..rounds(10) {
        let keys: Vec<String> = server.ask(&["KEYS", "{stanchion:contended}:*"]);
        let words: Vec<_> = std::iter::once("DEL")
            .chain(keys.iter().map(|it| &it[..]))
            .collect();
        server.ask::<u64>(&words);
        crowd.make_progress();
    }
    let all = crowd.end();
    println!("{all:?}");
    assert_eq!(all.fooled, 0, "each loss is reported: {all:?}");
}

/// An overloaded server answers late: nothing is lost by that.
#[test]
fn p47_a_server_that_is_busy_again_and_again_loses_no_hold() {
    let allowed = ["--save", "", "--enable-debug-command", "local"];
    let server = need!(Server::start_with(&allowed));
    let crowd = Crowd::begin(6, &server, &SAFE);
    for _ in 0..rounds(6) {
        server.ask::<()>(&["DEBUG", "SLEEP", "0.12"]);
        crowd.make_progress();
    }
    let all = crowd.end();
    assert_safe(all);
    assert_eq!((all.lost, all.unavailable), (0, 0), "{all:?}");
}
