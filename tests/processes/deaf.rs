//! The tests of wake-ups, run by a crate that ignores the events that they test. Each of them must
//! fail, and at once. A test that passes here proves nothing.

use std::process::Command;

const LOST: &str = "a wake-up was lost";

/// Runs a test of this binary, which ignores these events (`STANCHION_DEAF`).
fn fails_without(name: &str, events: &[&str]) {
    for deaf in events {
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args([name, "--exact", "--test-threads=1"])
            .env("STANCHION_DEAF", deaf)
            .output()
            .expect("the test runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("running 1 test"), "{name}: {text}");
        assert!(!output.status.success(), "{name} passes, deaf to {deaf}");
        assert!(text.contains(LOST), "{name}, deaf to {deaf}: {text}");
    }
}

#[test]
fn p21_every_hand_over() {
    fails_without(
        "order::p21_every_hand_over_needs_nothing_but_the_event",
        &["door", "predecessor", "door,predecessor", "queue"],
    );
}

#[test]
fn p63_a_death_in_the_middle_of_the_queue() {
    fails_without(
        "order::p63_a_death_in_the_middle_of_the_queue_needs_nothing_but_the_event",
        &["door", "predecessor", "door,predecessor", "queue"],
    );
}

#[test]
fn p63_readers_and_writers() {
    let share = "rwlock_share::p63_";
    fails_without(
        &format!("{share}the_chain_of_modes_needs_nothing_but_events"),
        &["door", "predecessor"],
    );
    fails_without(
        &format!("{share}a_writer_behind_waits_for_both_and_is_woken_by_the_last"),
        &["door"],
    );
    fails_without(
        &format!("{share}the_lender_is_idle_until_another_process_queues"),
        &["queue"],
    );
    fails_without(
        "rwlock_share::p15_a_downgrade_without_waiters_grants_later_readers",
        &["queue"],
    );
    fails_without(
        "rwlock::p23_a_writer_that_gives_up_grants_the_readers_behind_it_at_once",
        &["predecessor"],
    );
}
