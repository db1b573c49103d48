//! The model can fail: what each rule about hard-linked copies prevents.

use crate::mutations::{breaks, finds};
use crate::rules::{Mutation, Rules};
use crate::world::{Fault, Role};

/// Two processes that take the lock in turn, and a copy of the directory.
fn copied() -> Rules {
    Rules {
        tmpfile: true,
        snapshots: 1,
        ..Rules::new([2, 2, 0])
    }
}

#[test]
fn a_record_with_two_names_is_not_written() {
    breaks(copied(), Mutation::WritesLinked, Fault::Linked);
}

#[test]
fn a_record_with_two_names_gets_no_tombstone() {
    let rules = Rules {
        roles: [Role::Locker, Role::Remover, Role::Remover],
        wall: true,
        fast: true,
        ..copied()
    };
    breaks(rules, Mutation::TombstonesLinked, Fault::Linked);
}

/// A replaced lock file, and a process on its way to a state file that is no longer in use.
#[test]
fn a_locked_state_file_not_compared_allows_two_holders() {
    let rules = Rules {
        intrusions: 1,
        fast: true,
        ..copied()
    };
    breaks(rules, Mutation::LockedUnchecked, Fault::Exclusion);
}

#[test]
fn a_shared_state_file_not_compared_allows_two_holders() {
    let rules = Rules {
        roles: [Role::Locker, Role::Locker, Role::Reader],
        intrusions: 1,
        rounds: [1, 1, 1],
        ..copied()
    };
    finds(rules, Mutation::SharedUnchecked, Fault::Exclusion);
}

#[test]
fn a_copy_that_is_not_locked_allows_two_holders() {
    let rules = Rules {
        intrusions: 1,
        fast: true,
        ..copied()
    };
    finds(rules, Mutation::CopyUnlocked, Fault::Exclusion);
}

#[test]
fn a_copy_named_before_it_is_written_swallows_the_crash() {
    let rules = Rules {
        wall: true,
        kills: 1,
        rounds: [1, 1, 1],
        ..copied()
    };
    finds(rules, Mutation::CopyEmpty, Fault::Crash);
}

#[test]
fn a_copy_that_names_the_old_file_swallows_the_crash() {
    let rules = Rules {
        kills: 2,
        rounds: [1, 1, 1],
        ..copied()
    };
    finds(rules, Mutation::CopyNamesOther, Fault::Crash);
}
