//! The same for the rules of waiters without file events, for which threads wait.

use crate::deaf;
use crate::mutations::breaks;
use crate::rules::{Mutation, Rules};
use crate::world::Fault;

/// Two processes, whose files are used for several tickets. The second one gets no events.
fn two() -> Rules {
    Rules {
        spares: true,
        rounds: [2, 1, 0],
        ..deaf([false, true, false])
    }
}

#[test]
fn a_wake_lock_kept_with_the_file_wakes_no_thread() {
    breaks(two(), Mutation::WakeLockKept, Fault::Stuck);
}

/// The thread may not have run before the owner takes the lock again, for its next ticket.
#[test]
fn one_wake_lock_for_all_tickets_of_a_file_wakes_no_thread() {
    breaks(two(), Mutation::OneWakeLock, Fault::Stuck);
}

/// The owner runs an older version.
#[test]
fn a_free_wake_lock_is_no_death() {
    let rules = Rules {
        old: [true, false, false],
        ..two()
    };
    breaks(rules, Mutation::WokenIsDead, Fault::Reaped);
}

/// The waiter counts windows when the owner of the ticket before it dies.
#[test]
fn a_call_that_is_not_kept_for_a_busy_waiter_is_lost() {
    let rules = Rules {
        windows: true,
        stops: 1,
        kills: 1,
        rounds: [1, 1, 0],
        ..deaf([false, true, false])
    };
    breaks(rules, Mutation::CallMissed, Fault::Stuck);
}
