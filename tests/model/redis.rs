//! A model.
mod client;
mod mutations;
mod rules;
mod server;
mod steps;
mod world;

use crate::graph;
use rules::Rules;
use world::World;

/// No state of the scenario is wrong.
fn holds(rules: Rules) {
    graph::holds(World::new(rules));
}

/// Two clients, one wait each.
const TWO: Rules = Rules::new([1, 1, 0]);
/// Three.
const THREE: Rules = Rules::new([1, 1, 1]);

/// A test for each scenario; those marked `wide` take long and run on demand.
macro_rules! scenarios {
    ($($(#[doc = $doc:literal])* $name:ident: $base:expr => { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[doc = $doc])*
            #[test]
            fn $name() {
                holds(Rules { $($field: $value,)* ..$base });
            }
        )*
    };
    (wide: $($(#[doc = $doc:literal])* $name:ident: $base:expr => { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[doc = $doc])*
            #[test]
            #[ignore = "wide: millions of states"]
            fn $name() {
                holds(Rules { $($field: $value,)* ..$base });
            }
        )*
    };
}

scenarios! {
    /// Two, and nothing happens to them.
    redis_two: TWO => { }
    /// small
    redis_two_flight: TWO => { flights: 1 }
    /// small
    redis_two_d0: TWO => { delay: 0 }
    /// small
    redis_two_d1: TWO => { delay: 1 }
    /// small
    redis_three_d0: THREE => { delay: 0, flights: 1 }
    /// small
    redis_two_impatient: TWO => { impatient: true }
}
