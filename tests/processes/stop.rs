//! Stopped processes: a stopped waiter delays the rest by its claim windows and is first again
//! afterwards. A stopped holder is never bypassed.

use crate::crew::{NO_WINDOW, Who, until};
use crate::queue::everywhere;

#[test]
fn p64_a_stopped_head_is_bypassed_and_is_first_again() {
    everywhere(|crew| {
        let mut crew = crew.with_windows();
        let (holder, frozen) = (crew.start(), crew.start());
        let (next, last) = (crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(frozen, 1);
        crew.queue(next, 1);
        crew.queue(last, 1);
        crew.stop(frozen);
        crew.release(holder, 1);
        crew.expect_held(next, 1);
        crew.resume(frozen);
        crew.until_awake();
        crew.release(next, 1);
        crew.serve(frozen, 1);
        crew.serve(last, 1);
        crew.expect_no_tickets();
    });
}

#[test]
fn p64_after_the_first_bypass_no_waiter_waits_for_it_again() {
    everywhere(|crew| {
        let mut crew = crew.with_windows();
        let (holder, frozen) = (crew.start(), crew.start());
        let mut others = vec![crew.start()];
        others.extend((0..4).map(|_| crew.start_with(NO_WINDOW)));
        crew.take(holder, 1);
        crew.queue(frozen, 1);
        for &who in &others {
            crew.queue(who, 1);
        }
        crew.stop(frozen);
        crew.release(holder, 1);
        crew.expect_held(others[0], 1);
        for pair in others.windows(2) {
            crew.release(pair[0], 1);
            crew.expect_held(pair[1], 1);
        }
        crew.release(others[4], 1);
        // A newcomer skips the marked ticket too, and the frozen waiter is still first when it
        // continues.
        crew.acquire(holder, 2);
        crew.resume(frozen);
        crew.release(holder, 2);
        crew.expect_held(frozen, 1);
    });
}

#[test]
fn p64_several_stopped_heads_are_bypassed() {
    everywhere(|crew| {
        let mut crew = crew.with_windows();
        let holder = crew.start();
        crew.take(holder, 1);
        let frozen_waiters: Vec<Who> = (0..3).map(|_| crew.start()).collect();
        for &who in &frozen_waiters {
            crew.queue(who, 1);
        }
        let next = crew.start();
        crew.queue(next, 1);
        for &who in &frozen_waiters {
            crew.stop(who);
        }
        crew.release(holder, 1);
        crew.expect_held(next, 1);
        // While the lock is held they come back, in any order, and keep their tickets.
        for &who in frozen_waiters.iter().rev() {
            crew.resume(who);
        }
        crew.until_awake();
        crew.release(next, 1);
        for who in frozen_waiters {
            crew.serve(who, 1);
        }
    });
}

#[test]
fn p64_frozen_waiters_between_running_ones() {
    everywhere(|crew| {
        let mut crew = crew.with_windows();
        let holder = crew.start();
        crew.take(holder, 1);
        let waiters: Vec<Who> = (0..6).map(|_| crew.start()).collect();
        for &who in &waiters {
            crew.queue(who, 1);
        }
        for index in [0, 2, 4] {
            crew.stop(waiters[index]);
        }
        crew.release(holder, 1);
        for index in [1, 3, 5] {
            crew.serve(waiters[index], 1);
        }
        for index in [0, 2, 4] {
            crew.resume(waiters[index]);
            crew.serve(waiters[index], 1);
        }
        crew.expect_no_tickets();
    });
}

#[test]
fn p64_a_stopped_holder_is_never_bypassed() {
    everywhere(|mut crew| {
        crew.set("CREW_POLL", "20").set("CREW_WINDOW", "20");
        let (holder, waiters) = (crew.start(), [crew.start(), crew.start()]);
        crew.take(holder, 1);
        for who in waiters {
            crew.queue(who, 1);
        }
        crew.stop(holder);
        // Many windows pass: a wait with its own time limit measures them.
        let clock = crew.start();
        let line = crew.answer(clock, "acquire 1 600", 1);
        assert!(line.starts_with("failed 1 TimedOut"), "{line}");
        assert!(
            waiters.iter().all(|who| !crew.has_spoken(*who)),
            "the holder was bypassed"
        );
        assert_eq!(crew.ask(clock, "try 2"), "none");
        crew.resume(holder);
        crew.release(holder, 1);
        for who in waiters {
            crew.serve(who, 1);
        }
    });
}

#[test]
fn p64_a_stopped_waiter_that_dies_leaves_nothing_behind() {
    everywhere(|crew| {
        let mut crew = crew.with_windows();
        let (holder, frozen, next) = (crew.start(), crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(frozen, 1);
        crew.queue(next, 1);
        crew.stop(frozen);
        crew.release(holder, 1);
        let held = crew.expect_held(next, 1);
        assert!(!held.crashed);
        crew.kill(frozen);
        crew.release(next, 1);
        assert!(!crew.acquire(holder, 2).crashed);
        crew.release(holder, 2);
        crew.acquire(next, 3);
        // A waiter that waits for a window deletes the tickets of dead processes.
        crew.queue(holder, 4);
        until("only the live ticket is left", || crew.tickets().len() == 1);
        crew.release(next, 3);
        crew.expect_held(holder, 4);
    });
}

#[test]
fn p64_a_future_that_is_not_polled_is_bypassed_and_keeps_its_place() {
    everywhere(|crew| {
        let mut crew = crew.with_windows();
        let (holder, frozen, next) = (crew.start(), crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(frozen, 1);
        assert_eq!(crew.ask(frozen, "freeze 1"), "frozen 1");
        crew.queue(next, 1);
        crew.release(holder, 1);
        crew.expect_held(next, 1);
        crew.queue(holder, 2);
        assert_eq!(crew.ask(frozen, "thaw 1"), "thawed 1");
        crew.until_awake();
        crew.release(next, 1);
        crew.serve(frozen, 1);
        crew.expect_held(holder, 2);
    });
}

#[test]
fn p64_a_frozen_task_does_not_hold_up_its_own_process() {
    everywhere(|crew| {
        let mut crew = crew.with_windows();
        let (holder, crowd) = (crew.start(), crew.start());
        crew.take(holder, 1);
        for slot in 1..=4 {
            crew.queue(crowd, slot);
        }
        for slot in [1, 3] {
            let frozen = format!("frozen {slot}");
            assert_eq!(crew.ask(crowd, &format!("freeze {slot}")), frozen);
        }
        crew.release(holder, 1);
        for slot in [2, 4] {
            crew.serve(crowd, slot);
        }
        for slot in [1, 3] {
            let thawed = format!("thawed {slot}");
            assert_eq!(crew.ask(crowd, &format!("thaw {slot}")), thawed);
            crew.serve(crowd, slot);
        }
        crew.expect_no_tickets();
    });
}

/// Stopped in the middle of a step. Before it has a ticket it does not count. With a ticket it is a
/// frozen waiter. With the door locked it is a holder.
#[cfg(stanchion_test)]
mod inside_a_step {
    use crate::queue::{Crew, everywhere};

    fn stopped_at(step: &str, everyone: impl Fn(&mut Crew, crate::crew::Who, crate::crew::Who)) {
        everywhere(|crew| {
            let mut crew = crew.with_windows();
            let holder = crew.start();
            let frozen = crew.start_with(&[("STANCHION_AT", &format!("stop:{step}:1"))]);
            crew.take(holder, 1);
            crew.tell(frozen, "acquire 1");
            everyone(&mut crew, holder, frozen);
        });
    }

    fn is_passed_at(step: &str) {
        stopped_at(step, |crew, holder, frozen| {
            crew.expect_stopped(frozen);
            let next = crew.start();
            crew.queue(next, 1);
            crew.release(holder, 1);
            crew.expect_held(next, 1);
            crew.resume(frozen);
            crew.expect(frozen, "queued 1");
            crew.release(next, 1);
            crew.expect_held(frozen, 1);
        });
    }

    #[test]
    fn p64_a_stopped_process_without_a_ticket_delays_no_waiter() {
        for step in ["FastOpen", "FastTryDoor", "ListQueue", "CreateTicket"] {
            is_passed_at(step);
        }
    }

    #[test]
    fn p64_a_stopped_waiter_at_the_door_is_bypassed() {
        for step in ["OpenDoor", "TryDoor", "WatchDoor", "CheckDoor"] {
            is_passed_at(step);
        }
    }

    /// Stopped between drawing a number and linking the ticket. Others with higher numbers find no
    /// ticket before them, and may acquire first. Processes that arrive after the link may not, and
    /// they may not join one of those others in memory either.
    #[test]
    fn p10_a_late_ticket_is_overtaken_only_by_those_before_it() {
        for _ in 0..5 {
            stopped_at("CreateTicket", |crew, holder, late| {
                crew.expect_stopped(late);
                let early = crew.start();
                crew.queue(early, 1);
                crew.resume(late);
                crew.expect(late, "queued 1");
                crew.queue(early, 2);
                crew.release(holder, 1);
                let mut served = Vec::new();
                for _ in 0..3 {
                    let held = crew.next_held();
                    served.push((held.who, held.slot));
                    crew.release(held.who, held.slot);
                }
                assert_eq!(served[2], (early, 2), "it came last: {served:?}");
            });
        }
    }

    #[test]
    fn p64_a_stopped_waiter_behind_another_is_bypassed_when_its_turn_comes() {
        for step in ["OpenPredecessor", "WatchPredecessor", "TryPredecessor"] {
            everywhere(|crew| {
                let mut crew = crew.with_windows();
                let (holder, first, next) = (crew.start(), crew.start(), crew.start());
                let frozen = crew.start_with(&[("STANCHION_AT", &format!("stop:{step}:1"))]);
                crew.take(holder, 1);
                crew.queue(first, 1);
                crew.tell(frozen, "acquire 1");
                crew.expect_stopped(frozen);
                crew.queue(next, 1);
                crew.release(holder, 1);
                crew.serve(first, 1);
                crew.expect_held(next, 1);
                crew.resume(frozen);
                crew.expect(frozen, "queued 1");
                crew.release(next, 1);
                crew.expect_held(frozen, 1);
            });
        }
    }

    #[test]
    fn p64_stopped_with_the_door_in_hand_is_a_stopped_holder() {
        for step in [
            "LockState",
            "WriteHeld",
            "Grant",
            "UnlinkTicket",
            "CloseTicket",
        ] {
            stopped_at(step, |crew, holder, frozen| {
                crew.expect(frozen, "queued 1");
                crew.release(holder, 1);
                crew.expect_stopped(frozen);
                // More than two windows.
                let line = crew.answer(holder, "acquire 2 2000", 2);
                assert!(line.starts_with("failed 2 TimedOut"), "{step}: {line}");
                crew.resume(frozen);
                crew.serve(frozen, 1);
                crew.take_and_release(holder);
            });
        }
    }

    #[test]
    fn p64_stopped_on_the_way_out_with_the_door_free_delays_no_waiter() {
        everywhere(|crew| {
            let mut crew = crew.with_windows();
            let holder = crew.start_with(&[("STANCHION_AT", "stop:CloseDoor:1")]);
            let next = crew.start();
            crew.take(holder, 1);
            crew.queue(next, 1);
            crew.let_go(holder, 1, "release");
            crew.expect_stopped(holder);
            crew.serve(next, 1);
            crew.take_and_release(next);
            crew.resume(holder);
            crew.expect_released(holder, 1);
        });
    }
}
