//! P19: no change of the clocks changes a decision of a lock on files. The tests set the wall clock
//! forward and back, and simulate a suspension of the machine.
//!
//! Every process of a test uses the clocks of libfaketime, which the test sets while they run. A
//! suspension stops all processes, sets the clocks forward and continues the processes. It sets the
//! wall clock alone, as on Linux, where the monotonic clock stops during a suspension. Or it sets
//! all clocks, as on platforms where that clock continues.
//!
//! A test must give each waiter the opportunity to decide wrongly. So it waits until the watch
//! thread of the waiter has polled often enough after the clocks were set.
#![cfg(all(any(target_os = "linux", target_os = "android"), stanchion_test))]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod child;
#[path = "../crew/mod.rs"]
mod crew;
mod family;
#[path = "../conformance/one_permit.rs"]
mod one_permit;

use child::Kind;
use family::{Family, Which};

const HOUR: i64 = 3600;

/// The waiters acquire in turn, there is one holder at a time, tokens rise, and no process is taken
/// for dead, wherever the clock is set.
fn the_wall_clock_is_set(kind: Kind) {
    let mut family = need!(Family::new(kind, Which::Wall));
    let [a, b, c] = [family.start(), family.start(), family.start()];
    family.enters(a);
    family.queues(b);
    family.queues(c);
    for seconds in [HOUR, -HOUR, 24 * HOUR] {
        family.set_clocks(seconds);
        family.all_waiters_poll();
        family.still_holds(a);
    }
    family.releases(a);
    let next = family.next_of(&[b, c]);
    for seconds in [-24 * HOUR, HOUR] {
        family.set_clocks(seconds);
        family.all_waiters_poll();
        family.still_holds(next);
    }
    family.releases(next);
    let last = family.next_of(&[b, c]);
    family.set_clocks(-HOUR);
    family.releases(last);
    // The clock is set while no process runs. The next one has never seen another time.
    family.set_clocks(-2 * HOUR);
    family.enters(a);
    family.releases(a);
    let late = family.start();
    family.enters(late);
    family.queues(b);
    // A death is noticed at any time.
    family.set_clocks(HOUR);
    family.kills(late);
    family.next_of(&[b]);
    family.releases(b);
    family.enters(a);
}

/// A stopped process is bypassed after its claim windows. Only the clock that counts them matters.
fn a_frozen_waiter_is_bypassed_no_sooner(kind: Kind, which: Which) {
    let mut family = need!(Family::new(kind, which));
    let [a, b, c] = [family.start(), family.start(), family.start()];
    family.enters(a);
    family.queues(b);
    family.queues(c);
    family.stop(b);
    family.releases(a);
    family.set_clocks(HOUR);
    family.all_waiters_poll();
    if which == Which::Wall {
        for seconds in [-HOUR, 2 * HOUR, 3 * HOUR] {
            family.set_clocks(seconds);
            family.all_waiters_poll();
        }
    }
    family.says_nothing(c);
    family.resume(b);
    assert_eq!(family.next_of(&[b, c]), b);
    family.releases(b);
    family.next_of(&[c]);
}

/// The machine is suspended three times: with a holder, after a hand-over, and with no process.
fn the_machine_is_suspended(kind: Kind, which: Which) {
    let mut family = need!(Family::new(kind, which));
    let [a, b, c] = [family.start(), family.start(), family.start()];
    family.enters(a);
    family.queues(b);
    family.queues(c);
    family.suspend(HOUR);
    family.all_waiters_poll();
    family.still_holds(a);
    family.releases(a);
    let next = family.next_of(&[b, c]);
    family.suspend(2 * HOUR);
    family.all_waiters_poll();
    family.still_holds(next);
    family.releases(next);
    let last = family.next_of(&[b, c]);
    family.releases(last);
    family.suspend(3 * HOUR);
    family.enters(a);
    family.releases(a);
}

macro_rules! for_each_kind {
    ($($name:ident, $kind:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn p19_the_wall_clock_is_set_forward_and_back() {
                the_wall_clock_is_set($kind);
            }

            #[test]
            fn p19_the_machine_is_suspended() {
                the_machine_is_suspended($kind, Which::Wall);
            }

            #[test]
            fn p19_the_machine_is_suspended_and_all_clocks_count_it() {
                the_machine_is_suspended($kind, Which::All);
            }
        })*
    };
}

for_each_kind! {
    fifo, Kind::Fifo;
    rwlock, Kind::RwLock;
    semaphore, Kind::Semaphore;
    pid, Kind::Pid;
    mkdir, Kind::Mkdir;
    create_new, Kind::CreateNew;
    file, Kind::File;
}

#[test]
fn p19_a_frozen_waiter_is_bypassed_no_sooner_when_the_wall_clock_is_set() {
    for kind in [Kind::Fifo, Kind::RwLock, Kind::Semaphore] {
        a_frozen_waiter_is_bypassed_no_sooner(kind, Which::Wall);
    }
}

#[test]
fn p19_a_frozen_waiter_is_bypassed_no_sooner_after_a_suspension() {
    for kind in [Kind::Fifo, Kind::RwLock, Kind::Semaphore] {
        a_frozen_waiter_is_bypassed_no_sooner(kind, Which::All);
    }
}

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("clocks", child::main)]);
}
