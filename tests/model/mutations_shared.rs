//! The same for the rules of the reader-writer lock.

use crate::modes;
use crate::mutations::{breaks, finds};
use crate::rules::{Mutation, Rules};
use crate::world::{Fault, Role};

#[test]
fn a_reader_that_ignores_the_queue_overtakes_a_writer() {
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
        kills: 2,
        rounds: [1, 1, 2],
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
fn a_held_flag_taken_for_a_clean_record_leaves_the_next_untold() {
    let rules = Rules {
        kills: 1,
        rounds: [1, 1, 0],
        ..modes("WR")
    };
    breaks(rules, Mutation::HeldIsClean, Fault::Crash);
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

#[test]
fn charge_by_the_whole_door_waits_for_an_outsider_that_shares() {
    let rules = Rules {
        rounds: [1, 1, 0],
        ..modes("OR")
    };
    breaks(rules, Mutation::ChargeByDoor, Fault::Stuck);
}

#[test]
fn charge_by_the_whole_door_refuses_an_outsider_that_shares() {
    let rules = Rules {
        rounds: [1, 1, 0],
        ..modes("OR")
    };
    finds(rules, Mutation::ChargeByDoor, Fault::Refused);
}

#[test]
fn charge_by_what_was_read_before_reports_a_crash_twice() {
    let rules = Rules {
        kills: 1,
        ..modes("WRR")
    };
    finds(rules, Mutation::ChargeUnread, Fault::Crash);
}

#[test]
fn charge_given_up_beside_others_keeps_a_reader_out() {
    let rules = Rules {
        kills: 1,
        cancels: 1,
        rounds: [1, 2, 1],
        ..modes("WRR")
    };
    finds(rules, Mutation::GivesUpBeside, Fault::Stuck);
}

#[test]
fn a_stopped_reader_in_charge_is_no_replaced_door() {
    let rules = Rules {
        stops: 1,
        rounds: [1, 1, 0],
        ..modes("RR")
    };
    breaks(rules, Mutation::NotAsked, Fault::Replaced);
}

#[test]
fn a_share_given_up_and_believed_kept_lets_a_reader_in_without_the_door() {
    let rules = Rules {
        rounds: [1, 1, 0],
        ..modes("RR")
    };
    breaks(rules, Mutation::AskKept, Fault::Exclusion);
}

#[test]
fn the_state_file_not_tried_again_looks_like_a_replaced_door() {
    let rules = Rules {
        rounds: [1, 1, 0],
        ..modes("RR")
    };
    breaks(rules, Mutation::AskedOnly, Fault::Replaced);
}

#[test]
fn charge_that_lets_the_state_go_meets_a_writer() {
    let rules = Rules {
        intrusions: 1,
        rounds: [1, 1, 0],
        ..modes("WR")
    };
    breaks(rules, Mutation::ChargeWithoutState, Fault::Exclusion);
}

#[test]
fn charge_given_up_and_not_returned_loses_the_report() {
    let rules = Rules {
        kills: 1,
        cancels: 1,
        rounds: [1, 2, 0],
        ..modes("WR")
    };
    breaks(rules, Mutation::SwallowCrash, Fault::Crash);
}
