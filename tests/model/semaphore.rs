//! A model of the semaphore of its own: `n` slot files, each a door, and tickets for several permits.
//!
//! The line, its tickets and marks are those of the lock, whose model checks them; here they are states of their owner. What is new is
//! spelled out call by call: a head that collects slots and keeps its part, what it gives back and when, the count of free
//! slots past a sleeper, the token under a state lock held for an instant. Slots are never replaced. Who is
//! inside may stay there for ever, so whoever could go in beside it and does not is stuck.

#[path = "semaphore/rules.rs"]
mod rules;
#[path = "semaphore/search.rs"]
mod search;
#[path = "semaphore/steps.rs"]
mod steps;
#[path = "semaphore/window.rs"]
mod window;
#[path = "semaphore/world.rs"]
mod world;

use rules::{Mutation, Rules};
use search::explore;
use world::Fault;

/// No state of the scenario is wrong.
fn holds(rules: &Rules) {
    let start = std::time::Instant::now();
    let outcome = explore(rules, None);
    println!("{} states, {:.1?}", outcome.states, start.elapsed());
    assert_eq!(outcome.fault, Fault::None, "\n{}", outcome.trace);
}

/// The mutation leads to this fault.
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

/// A test for each scenario.
macro_rules! scenarios {
    ($($name:ident: $base:expr => { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            #[test]
            fn $name() {
                holds(&Rules { $($field: $value,)* ..$base });
            }
        )*
    };
}

scenarios! {
    single_permits: Rules::new(2, [1, 1, 1]) => { rounds: [2, 1, 1] }
    single_permits_and_fast_path: Rules::new(2, [1, 1, 1]) => { fast: true, rounds: [2, 1, 1] }
    single_permits_and_kill: Rules::new(2, [1, 1, 1]) => { kills: 1 }
    single_permits_and_cancel: Rules::new(2, [1, 1, 1]) => { cancels: 1 }
    single_permits_and_strangers: Rules::new(2, [1, 1, 1]) => { strangers: 2 }
    single_permits_and_sleeper: windows(2, [1, 1, 1]) => { stops: 1, jitter: true }
    pairs: windows(2, [2, 2, 1]) => { rounds: [2, 1, 1] }
    pairs_and_fast_path: windows(2, [2, 2, 1]) => { fast: true }
    pairs_and_kill: windows(2, [2, 2, 1]) => { kills: 1 }
    pairs_and_two_kills: windows(2, [2, 2, 1]) => { kills: 2 }
    pairs_and_cancel: windows(2, [2, 1, 1]) => { cancels: 1, fast: true }
    pairs_and_strangers: windows(2, [2, 1, 1]) => { strangers: 1 }
    pairs_and_sleeper: windows(2, [2, 2, 1]) => { stops: 1 }
    pairs_and_sleeper_jitter: windows(2, [2, 1, 1]) => { stops: 1, jitter: true }
    pairs_and_two_sleepers: windows(2, [2, 1, 2]) => { stops: 2, stops_in_line: true }
    pairs_of_three: windows(3, [2, 2, 2]) => { }
    pairs_of_three_and_sleeper: windows(3, [2, 2, 1]) => { stops: 1 }
    pairs_of_three_and_kill: windows(3, [2, 2, 1]) => { kills: 1 }
}
