//! Sudden deaths, one at a time: the permits of the dead process go to the first waiter at once,
//! and the order of the rest is kept.
//!
//! Only events wake the waiters: there is no safety poll and there are no claim windows.

use crate::crew::{Who, until};
use crate::order::serve_in_order;
use crate::pool::{Crew, everywhere};

#[test]
fn p28_p53_the_death_of_a_holder_grants_the_next_waiter_at_once() {
    everywhere(3, |mut crew| {
        crew.by_events_only();
        let mut holder = crew.start();
        crew.take((holder, 1), 3);
        for round in 0..20 {
            let next = crew.start();
            crew.queue((next, 1), 1 + round % 3);
            crew.kill(holder);
            crew.expect_held((next, 1));
            let rest = 3 - crew.permits_out();
            if rest > 0 {
                crew.take((next, 2), rest);
            }
            holder = next;
        }
        crew.kill(holder);
        let last = crew.start();
        crew.expect_idle(last);
    });
}

#[test]
fn p53_of_several_holders_one_dies() {
    everywhere(4, |mut crew| {
        crew.by_events_only();
        let (a, b, c) = (crew.start(), crew.start(), crew.start());
        let next = crew.start();
        crew.take((a, 1), 1);
        crew.take((b, 1), 1);
        crew.take((b, 2), 1);
        crew.take((c, 1), 1);
        crew.queue((next, 1), 2);
        crew.queue((next, 2), 1);
        crew.kill(b);
        crew.expect_held((next, 1));
        crew.expect_silence();
        crew.kill(a);
        crew.expect_held((next, 2));
        crew.kill(c);
        crew.release((next, 1));
        crew.release((next, 2));
        crew.expect_idle(next);
    });
}

/// When it dies, it has two of the three permits that it requested. The waiters behind it get them,
/// in order.
#[test]
fn p29_p53_the_death_of_a_head_that_has_a_part() {
    everywhere(4, |mut crew| {
        crew.by_events_only();
        let (holder, head) = (crew.start(), crew.start());
        let (next, last) = (crew.start(), crew.start());
        crew.take((holder, 1), 2);
        crew.take((holder, 2), 2);
        crew.queue((head, 1), 3);
        crew.queue((next, 1), 2);
        crew.queue((last, 1), 1);
        crew.release((holder, 1));
        until("the head has what was free", || crew.locked_slots() == 4);
        crew.expect_silence();
        crew.kill(head);
        crew.expect_held((next, 1));
        crew.expect_silence();
        crew.release((next, 1));
        crew.serve((last, 1));
        crew.release((holder, 2));
        crew.expect_idle(last);
    });
}

/// The same with a head that gives up, and with one that gets the rest.
#[test]
fn p23_a_head_that_has_a_part_gives_up_or_gets_the_rest() {
    everywhere(4, |mut crew| {
        crew.by_events_only();
        let (holder, head, next) = (crew.start(), crew.start(), crew.start());
        for gives_up in [true, false] {
            crew.take((holder, 1), 2);
            crew.take((holder, 2), 2);
            crew.queue((head, 1), 3);
            crew.queue((head, 2), 2);
            crew.queue((next, 1), 1);
            crew.release((holder, 1));
            until("the head has what was free", || crew.locked_slots() == 4);
            crew.expect_silence();
            if gives_up {
                crew.cancel((head, 1));
                crew.expect_held((head, 2));
                crew.expect_silence();
                crew.release((holder, 2));
                crew.expect_held((next, 1));
            } else {
                crew.release((holder, 2));
                crew.expect_held((head, 1));
                crew.expect_silence();
                crew.release((head, 1));
                crew.until_held(&[(head, 2), (next, 1)]);
            }
            crew.release((head, 2));
            crew.release((next, 1));
            crew.expect_idle(next);
        }
    });
}

/// Some of five waiters die, and then the holder. The rest acquire in order, whatever each
/// requests.
fn kill_subset(crew: &mut Crew, subset: u32) {
    let holder = crew.start();
    crew.take((holder, 0), 3);
    let wishes = [1, 3, 2, 3, 1];
    let waiters: Vec<Who> = wishes.iter().map(|_| crew.start()).collect();
    for (&who, &permits) in waiters.iter().zip(&wishes) {
        crew.queue((who, 1), permits);
    }
    let dies = |index: usize| subset & (1 << index) != 0;
    for (index, &who) in waiters.iter().enumerate() {
        if dies(index) {
            crew.kill(who);
        }
    }
    crew.expect_silence();
    crew.kill(holder);
    let places = waiters.iter().zip(wishes).enumerate();
    let alive = places.filter(|(index, _)| !dies(*index));
    let alive: Vec<_> = alive
        .map(|(_, (&who, permits))| ((who, 1), permits))
        .collect();
    serve_in_order(crew, &alive);
    let newcomer = crew.start();
    crew.expect_idle(newcomer);
}

#[test]
fn p29_any_subset_of_the_waiters_dies_with_the_holder() {
    for subset in 0..32 {
        let mut crew = Crew::new(3);
        crew.by_events_only();
        kill_subset(&mut crew, subset);
    }
}

/// A process with several holds and several waits dies.
#[test]
fn p53_a_crowd_dies() {
    everywhere(3, |mut crew| {
        crew.by_events_only();
        let (crowd, other, next) = (crew.start(), crew.start(), crew.start());
        crew.take((crowd, 1), 1);
        crew.take((crowd, 2), 1);
        crew.take((other, 1), 1);
        crew.queue((crowd, 3), 2);
        crew.queue((crowd, 4), 1);
        crew.queue((next, 1), 3);
        crew.queue((crowd, 5), 1);
        crew.queue((next, 2), 1);
        // The permits went to the crowd's third task in memory. It is first and has a part of its
        // request.
        crew.release((crowd, 1));
        crew.expect_silence();
        crew.kill(crowd);
        crew.expect_silence();
        crew.release((other, 1));
        crew.expect_held((next, 1));
        crew.expect_silence();
        crew.release((next, 1));
        crew.serve((next, 2));
        crew.expect_idle(other);
    });
}
