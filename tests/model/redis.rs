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
    redis_two: TWO => { rounds: [2, 1, 0] }
    redis_two_d1: TWO => { delay: 1 }
    redis_three: THREE => { flights: 1 }
    redis_stop: TWO => { stops: 1 }
    redis_kill: TWO => { kills: 1 }
    redis_leave: TWO => { leaves: 1 }
    redis_cut: TWO => { cuts: 1 }
    redis_late: TWO => { cuts: 1, late: true }
    redis_drift: TWO => { drift: 1 }
    redis_impatient: TWO => { impatient: true }
    redis_flush: TWO => { flushes: 1 }
    redis_delete: TWO => { deletes: 1 }
    redis_restart: TWO => { restarts: 1 }
    redis_blank: TWO => { blanks: 1 }
    redis_rollback: TWO => { rollbacks: 1 }
    redis_failover: TWO => { failovers: 1 }
    redis_late_is: TWO => { cuts: 1, late: true, as_is: true }
    redis_rollback_is: TWO => { rollbacks: 1, as_is: true }
    redis_failover_is: TWO => { failovers: 1, as_is: true }
    redis_late_grant: TWO => { stops: 1, as_is: true }
}
