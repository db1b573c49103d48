//! The model can fail: each test breaks one rule of the protocol, and expects the counter-example
//! that the rule prevents.
//!
//! Bounds are as small as the counter-example allows, so each search ends early.

use crate::explore::explore;
use crate::rules::{Clock, Mutation, Rules};
use crate::world::{Fault, Role};

/// Asserts that the protocol holds without the mutation, and that the mutation leads to this fault.
pub(crate) fn breaks(rules: Rules, mutation: Mutation, fault: Fault) {
    let sound = explore(&rules, None);
    assert_eq!(sound.fault, Fault::None, "unbroken\n{}", sound.trace);
    finds(rules, mutation, fault);
}

/// Asserts that the mutation leads to this fault. For rules that are a scenario of their own, which
/// need no second search.
pub(crate) fn finds(rules: Rules, mutation: Mutation, fault: Fault) {
    let outcome = explore(&rules.broken(mutation), Some(fault));
    println!("{mutation:?}: {} states\n{}", outcome.states, outcome.trace);
    assert_eq!(outcome.fault, fault, "\n{}", outcome.trace);
}

/// Two processes, one round each.
fn two() -> Rules {
    Rules {
        tmpfile: true,
        ..Rules::new([1, 1, 0])
    }
}

/// Two lockers and one remover.
fn with_remover() -> Rules {
    Rules {
        roles: [Role::Locker, Role::Locker, Role::Remover],
        wall: true,
        tmpfile: true,
        ..Rules::new([1, 1, 1])
    }
}

#[test]
fn closing_before_unlocking_loses_the_wake_up() {
    breaks(two(), Mutation::CloseBeforeUnlock, Fault::Stuck);
}

#[test]
fn giving_back_without_closing_loses_the_wake_up() {
    let rules = Rules {
        fast: true,
        ..two()
    };
    breaks(rules, Mutation::GiveBackWithoutClose, Fault::Stuck);
}

/// One process locks, another one only observes whether it is free.
#[test]
fn looking_without_closing_loses_the_wake_up() {
    let rules = Rules {
        roles: [Role::Locker, Role::Onlooker, Role::Locker],
        tmpfile: true,
        ..Rules::new([2, 1, 0])
    };
    breaks(rules, Mutation::GiveBackWithoutClose, Fault::Stuck);
}

#[test]
fn no_ladder_loses_the_wake_up_of_a_death() {
    let rules = Rules { kills: 1, ..two() };
    breaks(rules, Mutation::NoLadder, Fault::Stuck);
}

#[test]
fn a_predecessor_not_looked_at_again_loses_the_wake_up() {
    let rules = Rules {
        spares: true,
        rounds: [2, 1, 0],
        ..two()
    };
    breaks(rules, Mutation::PredecessorUnchecked, Fault::Stuck);
}

#[test]
fn listing_before_locking_passes_a_waiter() {
    let rules = Rules {
        fast: true,
        tmpfile: true,
        ..Rules::new([1, 1, 1])
    };
    breaks(rules, Mutation::ListThenLock, Fault::Order);
}

#[test]
fn low_numbers_pass_a_waiter() {
    let rules = Rules {
        tmpfile: true,
        ..Rules::new([1, 1, 1])
    };
    breaks(rules, Mutation::LowNumbers, Fault::Order);
}

#[test]
fn reaping_a_name_unseen_takes_a_living_ticket() {
    let rules = Rules {
        clock: Clock::Behind,
        tmpfile: true,
        ..Rules::new([1, 1, 1])
    };
    breaks(rules, Mutation::ReapWithoutCheck, Fault::Reaped);
}

#[test]
fn entering_by_a_stale_door_meets_another_holder() {
    breaks(with_remover(), Mutation::NoCheckDoor, Fault::Replaced);
}

#[test]
fn without_the_state_lock_a_replaced_door_allows_two_holders() {
    let rules = Rules {
        intrusions: 1,
        ..two()
    };
    breaks(rules, Mutation::NoStateLock, Fault::Exclusion);
}

#[test]
fn unlocking_the_door_before_the_state_refuses_the_next() {
    breaks(two(), Mutation::DoorBeforeState, Fault::Replaced);
}

#[test]
fn a_dying_holder_is_no_replaced_door() {
    let rules = Rules { kills: 1, ..two() };
    breaks(rules, Mutation::ReplacedAtOnce, Fault::Replaced);
}

#[test]
fn removing_without_a_check_of_the_inode_splits_the_lock() {
    let rules = Rules {
        roles: [Role::Locker, Role::Remover, Role::Remover],
        wall: true,
        fast: true,
        ..Rules::new([1, 1, 1])
    };
    breaks(rules, Mutation::RemoveWithoutCheck, Fault::Replaced);
}

#[test]
fn an_old_state_file_kept_open_is_no_replaced_door() {
    let rules = Rules {
        roles: [Role::Locker, Role::Remover, Role::Remover],
        wall: true,
        fast: true,
        ..Rules::new([2, 1, 0])
    };
    breaks(rules, Mutation::RefusalUnchecked, Fault::Replaced);
}

#[test]
fn a_token_written_late_is_given_twice() {
    let rules = Rules { kills: 1, ..two() };
    breaks(rules, Mutation::TokenAfterGuard, Fault::Token);
}

#[test]
fn a_dropped_offer_swallows_the_crash() {
    let rules = Rules {
        kills: 1,
        cancels: 1,
        tmpfile: true,
        ..Rules::new([1, 2, 0])
    };
    breaks(rules, Mutation::SwallowCrash, Fault::Crash);
}

#[test]
fn marks_taken_on_trust_bypass_a_running_waiter() {
    let rules = Rules {
        windows: true,
        stops: 1,
        tmpfile: true,
        ..Rules::new([1, 1, 1])
    };
    finds(rules, Mutation::MarksNotRechecked, Fault::Order);
}

#[test]
fn windows_counted_through_a_change_bypass_a_running_waiter() {
    let rules = Rules {
        windows: true,
        jitter: true,
        stops: 1,
        tmpfile: true,
        ..Rules::new([1, 1, 1])
    };
    finds(rules, Mutation::CountThroughChanges, Fault::Order);
}

#[test]
fn one_refused_probe_bypasses_a_running_waiter() {
    let rules = Rules {
        windows: true,
        jitter: true,
        stops: 1,
        tmpfile: true,
        ..Rules::new([1, 1, 1])
    };
    finds(rules, Mutation::ProbeWithoutLadder, Fault::Order);
}
