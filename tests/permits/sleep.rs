//! Waiters that are frozen when their turn comes are bypassed, and are first again when they
//! continue. Also what they leave behind.

use crate::crew::{NO_WINDOW, Who, until};
use crate::order::serve_in_order;
use crate::pool::{Crew, everywhere};

#[test]
fn p64_a_stopped_head_is_bypassed_and_is_first_again() {
    for wish in [1, 3] {
        everywhere(3, |crew| {
            let mut crew = crew.with_windows();
            let (holder, frozen) = (crew.start(), crew.start());
            let (next, last) = (crew.start(), crew.start());
            crew.take((holder, 1), 3);
            crew.queue((frozen, 1), wish);
            crew.queue((next, 1), 3);
            crew.queue((last, 1), 3);
            crew.stop(frozen);
            crew.release((holder, 1));
            crew.expect_held((next, 1));
            crew.resume(frozen);
            crew.until_awake();
            crew.release((next, 1));
            crew.serve((frozen, 1));
            crew.serve((last, 1));
            crew.expect_idle(holder);
        });
    }
}

/// The frozen waiter keeps its part. The waiters that need no more than the rest acquire.
#[test]
fn p64_a_head_that_is_stopped_with_a_part() {
    everywhere(4, |crew| {
        let mut crew = crew.with_windows();
        let (holder, frozen) = (crew.start(), crew.start());
        let (next, last) = (crew.start(), crew.start());
        crew.take((holder, 1), 1);
        crew.take((holder, 2), 2);
        crew.queue((frozen, 1), 4);
        until("it has the free one", || crew.locked_slots() == 4);
        crew.queue((next, 1), 1);
        crew.queue((last, 1), 4);
        crew.stop(frozen);
        crew.release((holder, 1));
        crew.release((holder, 2));
        crew.resume(frozen);
        crew.serve((frozen, 1));
        crew.serve((next, 1));
        crew.serve((last, 1));
        crew.expect_idle(holder);
    });
}

#[test]
fn p64_after_the_first_bypass_no_waiter_waits_for_it_again() {
    everywhere(2, |crew| {
        let mut crew = crew.with_windows();
        let (holder, frozen) = (crew.start(), crew.start());
        let mut others = vec![crew.start()];
        others.extend((0..4).map(|_| crew.start_with(NO_WINDOW)));
        crew.take((holder, 1), 2);
        crew.queue((frozen, 1), 2);
        for &who in &others {
            crew.queue((who, 1), 2);
        }
        crew.stop(frozen);
        crew.release((holder, 1));
        crew.expect_held((others[0], 1));
        for pair in others.windows(2) {
            crew.release((pair[0], 1));
            crew.expect_held((pair[1], 1));
        }
        crew.release((others[4], 1));
        // A newcomer skips the marked ticket too, and the frozen waiter is still first when it
        // continues.
        crew.acquire((holder, 2), 2);
        crew.resume(frozen);
        crew.until_awake();
        crew.release((holder, 2));
        crew.serve((frozen, 1));
        crew.expect_idle(holder);
    });
}

#[test]
fn p64_several_stopped_heads_are_bypassed() {
    everywhere(3, |crew| {
        let mut crew = crew.with_windows();
        let holder = crew.start();
        crew.take((holder, 1), 3);
        let frozen_waiters: Vec<Who> = (0..3).map(|_| crew.start()).collect();
        for (&who, permits) in frozen_waiters.iter().zip([2, 1, 3]) {
            crew.queue((who, 1), permits);
        }
        let next = crew.start();
        crew.queue((next, 1), 3);
        for &who in &frozen_waiters {
            crew.stop(who);
        }
        crew.release((holder, 1));
        crew.expect_held((next, 1));
        // While all permits are taken they come back, in any order, and keep their tickets.
        for &who in frozen_waiters.iter().rev() {
            crew.resume(who);
        }
        crew.until_awake();
        crew.release((next, 1));
        crew.until_held(&[(frozen_waiters[0], 1), (frozen_waiters[1], 1)]);
        assert!(crew.token((frozen_waiters[0], 1)) < crew.token((frozen_waiters[1], 1)));
        crew.expect_silence();
        crew.release((frozen_waiters[0], 1));
        crew.expect_silence();
        crew.release((frozen_waiters[1], 1));
        crew.serve((frozen_waiters[2], 1));
        crew.expect_idle(holder);
    });
}

/// Its process runs and handles events, but the future that is next is not polled.
#[test]
fn p64_a_frozen_future_is_bypassed_and_is_first_again() {
    for wish in [1, 2] {
        everywhere(2, |crew| {
            let mut crew = crew.with_windows();
            let (holder, frozen, next) = (crew.start(), crew.start(), crew.start());
            crew.take((holder, 1), 2);
            crew.queue((frozen, 1), wish);
            crew.command(frozen, "freeze 1", "frozen 1");
            crew.queue((next, 1), 2);
            crew.queue((next, 2), 2);
            crew.release((holder, 1));
            crew.expect_held((next, 1));
            crew.command(frozen, "thaw 1", "thawed 1");
            crew.until_awake();
            crew.release((next, 1));
            crew.serve((frozen, 1));
            crew.serve((next, 2));
            crew.expect_idle(holder);
        });
    }
}

/// Another task of the same process is behind the frozen one.
#[test]
fn p64_a_frozen_future_is_bypassed_by_its_neighbours() {
    everywhere(2, |crew| {
        let mut crew = crew.with_windows();
        let (holder, crowd, other) = (crew.start(), crew.start(), crew.start());
        crew.take((holder, 1), 2);
        crew.queue((crowd, 1), 2);
        crew.command(crowd, "freeze 1", "frozen 1");
        crew.queue((crowd, 2), 1);
        crew.queue((crowd, 3), 1);
        crew.queue((other, 1), 1);
        crew.release((holder, 1));
        crew.until_held(&[(crowd, 2), (crowd, 3)]);
        crew.command(crowd, "thaw 1", "thawed 1");
        crew.until_awake();
        crew.release((crowd, 2));
        crew.expect_silence();
        crew.release((crowd, 3));
        crew.serve((crowd, 1));
        crew.serve((other, 1));
        crew.expect_idle(holder);
    });
}

#[test]
fn p23_cancelled_at_every_position() {
    everywhere(3, |mut crew| {
        crew.by_events_only();
        let (holder, a, b) = (crew.start(), crew.start(), crew.start());
        let line = [(a, 1, 2), (b, 1, 3), (a, 2, 1), (b, 2, 1), (a, 3, 2)];
        for leaves in 0..line.len() {
            crew.take((holder, 1), 3);
            for (who, number, permits) in line {
                crew.queue((who, number), permits);
            }
            let (who, number, _) = line[leaves];
            crew.cancel((who, number));
            crew.expect_silence();
            crew.release((holder, 1));
            let rest = line.iter().enumerate().filter(|it| it.0 != leaves);
            let rest: Vec<_> = rest
                .map(|(_, &(who, number, permits))| ((who, number), permits))
                .collect();
            serve_in_order(&mut crew, &rest);
            crew.expect_no_tickets();
        }
        crew.expect_idle(a);
    });
}

/// Frozen with an offer, and then dropped: the offer goes to the next waiter.
#[test]
fn p23_an_offer_that_is_not_taken_is_released() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (holder, frozen, next) = (crew.start(), crew.start(), crew.start());
        crew.take((holder, 1), 2);
        crew.queue((frozen, 1), 2);
        crew.command(frozen, "freeze 1", "frozen 1");
        crew.queue((next, 1), 1);
        crew.queue((frozen, 2), 1);
        crew.release((holder, 1));
        crew.cancel((frozen, 1));
        crew.until_held(&[(next, 1), (frozen, 2)]);
        crew.release((next, 1));
        crew.release((frozen, 2));
        crew.expect_idle(holder);
    });
}

#[test]
fn p62_descriptors_and_threads_are_back_after_deaths_and_cancels() {
    everywhere(3, |mut crew| {
        crew.by_events_only();
        let witness = crew.start();
        let count = |crew: &mut Crew| ["fd", "task"].map(|it| crew.count(witness, it));
        crew.contend(witness);
        crew.expect_idle(witness);
        let before = count(&mut crew);
        for _ in 0..15 {
            let victims = [crew.start(), crew.start()];
            crew.take((victims[0], 1), 2);
            crew.take((victims[1], 1), 1);
            crew.queue((victims[1], 2), 3);
            crew.queue((witness, 1), 2);
            crew.queue((witness, 2), 3);
            assert!(!crew.tries((witness, 3), 1));
            crew.kill(victims[1]);
            crew.cancel((witness, 2));
            crew.kill(victims[0]);
            crew.serve((witness, 1));
        }
        crew.contend(witness);
        crew.expect_idle(witness);
        let after = count(&mut crew);
        assert!(
            after[0] <= before[0] + 2,
            "{before:?} {after:?}: it may keep two files for its next tickets"
        );
        assert_eq!(after[1], before[1], "threads");
    });
}
