//! Model.
#[path = "model/canon.rs"]
mod canon;
#[path = "model/explore.rs"]
mod explore;
#[path = "model/faults.rs"]
mod faults;
#[path = "model/knock.rs"]
mod knock;
#[path = "model/leave.rs"]
mod leave;
#[path = "model/mutations.rs"]
mod mutations;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/window.rs"]
mod window;
#[path = "model/world.rs"]
mod world;

use explore::explore;
use rules::Rules;
use world::Fault;

/// The scenario holds.
fn holds(rules: &Rules) {
    let start = std::time::Instant::now();
    let outcome = explore(rules);
    println!("{} states, {} edges, depth {}, {:?}", outcome.states, outcome.edges, outcome.depth, start.elapsed());
    assert_eq!(outcome.fault, Fault::None, "\n{}", outcome.trace);
}

#[test]
fn one_round() {
    holds(&Rules::new([1, 1, 1]));
}

#[test]
fn kill_one() {
    holds(&Rules { kills: 1, ..Rules::new([1, 1, 1]) });
}
