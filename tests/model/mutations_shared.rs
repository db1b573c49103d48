//! The same for the rules of the reader-writer lock.

use crate::modes;
use crate::mutations::{breaks, finds};
use crate::rules::{Mutation, Rules};
use crate::world::{Fault, Role};

#[test]
fn a_reader_that_ignores_the_line_passes_a_writer() {
    let rules = Rules {
        fast: true,
        ..modes("WWR")
    };
    breaks(rules, Mutation::ReaderIgnoresLine, Fault::Order);
}

#[test]
fn a_downgrade_without_a_ring_loses_the_wake_up() {
    let rules = Rules {
        downgrades: true,
        rounds: [1, 1, 0],
        ..modes("WR")
    };
    breaks(rules, Mutation::NoRing, Fault::Stuck);
}

#[test]
fn a_ring_before_the_downgrade_loses_the_wake_up() {
    let rules = Rules {
        downgrades: true,
        rounds: [1, 1, 0],
        ..modes("WR")
    };
    breaks(rules, Mutation::RingTooEarly, Fault::Stuck);
}

#[test]
fn a_reader_that_clears_what_another_should_tell_swallows_the_crash() {
    let rules = Rules {
        kills: 1,
        ..modes("WRR")
    };
    finds(rules, Mutation::AnyReaderClears, Fault::Crash);
}

#[test]
fn a_flag_cleared_before_the_guard_is_claimed_swallows_the_crash() {
    let rules = Rules {
        kills: 1,
        cancels: 1,
        rounds: [1, 2, 0],
        ..modes("WR")
    };
    finds(rules, Mutation::ClearedTooEarly, Fault::Crash);
}

#[test]
fn a_reader_without_the_state_lock_meets_a_writer() {
    let rules = Rules {
        intrusions: 1,
        rounds: [2, 1, 0],
        ..modes("WR")
    };
    breaks(rules, Mutation::ReaderWithoutState, Fault::Exclusion);
}

#[test]
fn a_door_that_readers_share_is_not_free() {
    let rules = Rules {
        windows: true,
        stops: 1,
        ..modes("WRR")
    };
    finds(rules, Mutation::ProbeShared, Fault::Order);
}

#[test]
fn readers_before_a_reader_count_for_its_windows() {
    let rules = Rules {
        windows: true,
        stops: 1,
        ..modes("WRR")
    };
    finds(rules, Mutation::ReadersUncounted, Fault::Order);
}

#[test]
fn a_dying_writer_taken_for_a_reader_in_charge_leaves_the_next_untold() {
    let rules = Rules {
        kills: 1,
        rounds: [1, 1, 0],
        ..modes("WR")
    };
    breaks(rules, Mutation::DyingInCharge, Fault::Crash);
}

#[test]
fn a_reader_that_writes_no_token_goes_back() {
    let rules = Rules {
        roles: [Role::Locker, Role::Reader, Role::Remover],
        wall: true,
        fast: true,
        ..modes("WR")
    };
    breaks(rules, Mutation::ReaderWritesZero, Fault::Token);
}

#[test]
fn a_record_not_read_again_under_the_lock_leaves_the_next_untold() {
    let rules = Rules {
        intrusions: 1,
        kills: 1,
        rounds: [1, 2, 0],
        ..modes("WR")
    };
    finds(rules, Mutation::CleanUnchecked, Fault::Crash);
}
