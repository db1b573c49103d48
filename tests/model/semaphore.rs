//! A model of the semaphore: `n` slot files, each a door, and tickets for several permits.
//!
//! The queue, its tickets and marks are those of the lock, whose model checks them. Here they
//! belong to their owner.
//!
//! New here, call by call: a head that collects slots and keeps its part; what it releases, and
//! when; the count of free slots past a frozen waiter; the token under a state lock held for an
//! instant. Slots are never replaced. A holder may hold forever, so a waiter that could acquire
//! beside it and does not is stuck.

mod rules;
mod search;
mod steps;
mod window;
mod world;

use rules::{Mutation, Rules};
use search::explore;
use world::Fault;

/// Asserts that no state of the scenario has a fault.
fn holds(rules: &Rules) {
    let start = std::time::Instant::now();
    let outcome = explore(rules, None);
    println!("{} states, {:.1?}", outcome.states, start.elapsed());
    assert_eq!(outcome.fault, Fault::None, "\n{}", outcome.trace);
}

/// Asserts that the mutation leads to this fault.
fn finds(rules: Rules, mutation: Mutation, fault: Fault) {
    let outcome = explore(&rules.broken(mutation), Some(fault));
    println!("{mutation:?}: {} states\n{}", outcome.states, outcome.trace);
    assert_eq!(outcome.fault, fault, "\n{}", outcome.trace);
}

/// With claim windows.
fn windows(slots: usize, asks: [u8; 3]) -> Rules {
    Rules {
        windows: true,
        ..Rules::new(slots, asks)
    }
}

/// A test for each scenario. Those marked `wide` take long and run on demand.
macro_rules! scenarios {
    ($($(#[doc = $doc:literal])* $name:ident: $base:expr => { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[doc = $doc])*
            #[test]
            fn $name() {
                holds(&Rules { $($field: $value,)* ..$base });
            }
        )*
    };
    (wide: $($(#[doc = $doc:literal])* $name:ident: $base:expr => { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[doc = $doc])*
            #[test]
            #[ignore = "wide: millions of states"]
            fn $name() {
                holds(&Rules { $($field: $value,)* ..$base });
            }
        )*
    };
}

scenarios! {
    /// Single permits.
    sem_singles: Rules::new(2, [1, 1, 1]) => { rounds: [2, 1, 1] }
    /// The fast path against the queue.
    sem_singles_and_fast_path: Rules::new(2, [1, 1, 1]) => { fast: true, rounds: [2, 1, 1] }
    /// Any one is killed.
    sem_singles_and_kill: Rules::new(2, [1, 1, 1]) => { kills: 1, fast: true }
    /// Any future is dropped.
    sem_singles_and_cancel: Rules::new(2, [1, 1, 1]) => { cancels: 1 }
    /// Other programs lock a slot and close it.
    sem_singles_and_strangers: Rules::new(2, [1, 1, 1]) => { strangers: 2 }
    /// One is stopped anywhere.
    sem_singles_and_frozen: windows(2, [1, 1, 1]) => { stops: 1, jitter: true }
    /// Two permits. Each of two heads may have one of them.
    sem_pairs: windows(2, [2, 2, 1]) => { rounds: [2, 1, 1] }
    /// The fast path against the queue.
    sem_pairs_and_fast_path: windows(2, [2, 2, 1]) => { fast: true }
    /// Any one is killed.
    sem_pairs_and_kill: windows(2, [2, 2, 1]) => { kills: 1 }
    /// Any two are killed.
    sem_pairs_and_two_kills: windows(2, [2, 1, 1]) => { kills: 2 }
    /// Any future is dropped.
    sem_pairs_and_cancel: windows(2, [2, 2, 1]) => { cancels: 1, fast: true }
    /// Another program locks a slot and closes it.
    sem_pairs_and_stranger: windows(2, [2, 2, 1]) => { strangers: 1 }
    /// One is stopped anywhere.
    sem_pair_and_frozen: windows(2, [2, 1, 1]) => { stops: 1, jitter: true }
    /// Three slots, pairs only.
    sem_pairs_of_three: windows(3, [2, 2, 2]) => { }
}

scenarios! { wide:
    /// One is stopped anywhere, of two that ask for two.
    wide_sem_frozen: windows(2, [2, 2, 1]) => { stops: 1, jitter: true }
    /// One is stopped and one killed, anywhere.
    wide_sem_frozen_and_kill: windows(2, [2, 2, 1]) => { stops: 1, kills: 1 }
    /// One is stopped anywhere, one future dropped.
    wide_sem_frozen_and_cancel: windows(2, [2, 2, 1]) => { stops: 1, cancels: 1 }
    /// Two waiters are stopped.
    wide_sem_two_frozen_waiters: windows(2, [2, 2, 1]) => { stops: 2, stops_in_line: true }
    /// Two waiters are stopped, with other requests.
    wide_sem_two_frozen_waiters_of_singles: windows(2, [2, 1, 1]) => { stops: 2, stops_in_line: true }
    /// A stopped waiter and the fast path.
    wide_sem_frozen_and_fast_path: windows(2, [2, 2, 1]) => { stops: 1, fast: true }
    /// Three slots and a stopped waiter.
    wide_sem_three_and_frozen: windows(3, [2, 2, 1]) => { stops: 1 }
    /// Three slots and a kill.
    wide_sem_three_and_kill: windows(3, [2, 2, 1]) => { kills: 1 }
    /// Three slots, all of them requested.
    wide_sem_all_three: windows(3, [3, 2, 1]) => { kills: 1 }
}

/// Two heads each have half of what both need.
#[test]
fn sem_two_heads_that_keep_their_parts_wait_for_each_other() {
    let rules = Rules {
        rounds: [1, 1, 0],
        ..windows(2, [2, 2, 1])
    };
    finds(rules, Mutation::KeepsPart, Fault::Frozen);
}

#[test]
fn sem_without_windows_two_heads_wait_for_each_other() {
    let rules = Rules {
        rounds: [1, 1, 0],
        ..Rules::new(2, [2, 2, 1])
    };
    let outcome = explore(&rules, Some(Fault::Stuck));
    assert_eq!(outcome.fault, Fault::Stuck, "\n{}", outcome.trace);
}

#[test]
fn sem_closing_before_unlocking_loses_the_wake_up() {
    let rules = Rules {
        rounds: [1, 1, 0],
        ..Rules::new(1, [1, 1, 1])
    };
    finds(rules, Mutation::CloseBeforeUnlock, Fault::Stuck);
}

#[test]
fn sem_giving_back_without_closing_loses_the_wake_up() {
    let rules = Rules {
        fast: true,
        ..Rules::new(2, [2, 1, 1])
    };
    finds(rules, Mutation::GiveBackWithoutClose, Fault::Stuck);
}

#[test]
fn sem_no_ladder_loses_the_wake_up_of_a_strangers_close() {
    let rules = Rules {
        strangers: 1,
        ..Rules::new(1, [1, 1, 1])
    };
    finds(rules, Mutation::NoLadder, Fault::Stuck);
}

#[test]
fn sem_a_fast_path_that_ignores_the_queue_overtakes_a_waiter() {
    let rules = Rules {
        fast: true,
        ..Rules::new(2, [2, 1, 1])
    };
    finds(rules, Mutation::FastIgnoresLine, Fault::Order);
}

#[test]
fn sem_tokens_without_the_state_lock_are_given_twice() {
    finds(
        Rules::new(2, [1, 1, 1]),
        Mutation::NoStateLock,
        Fault::Token,
    );
}

#[test]
fn sem_marks_taken_on_trust_bypass_a_running_waiter() {
    let rules = Rules {
        stops: 1,
        ..windows(2, [1, 1, 1])
    };
    finds(rules, Mutation::MarksNotRechecked, Fault::Order);
}

#[test]
fn sem_one_free_slot_is_not_free_for_two() {
    let rules = Rules {
        strangers: 1,
        ..windows(2, [2, 2, 1])
    };
    finds(rules, Mutation::OneSlotIsFree, Fault::Order);
}

#[test]
fn sem_a_head_that_waits_beside_free_slots_is_bypassed() {
    let rules = Rules {
        stops: 1,
        jitter: true,
        ..windows(2, [2, 1, 1])
    };
    finds(rules, Mutation::PasserKeepsNoPart, Fault::Order);
}
