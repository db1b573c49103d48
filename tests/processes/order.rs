//! Order among processes and tasks: first come, first served, whatever happens to the others.

use std::collections::VecDeque;

use crate::crew::{Dice, Who};
use crate::queue::{Crew, everywhere};

/// Each waiter acquires in turn and releases.
fn serve(crew: &mut Crew, waiters: &[(Who, u32)]) {
    for &(who, slot) in waiters {
        crew.serve(who, slot);
    }
}

/// A holder and waiters behind it. Each is a process and a slot in that process.
fn line(crew: &mut Crew, places: &[(usize, u32)]) -> (Who, Vec<(Who, u32)>) {
    let most = places.iter().map(|it| it.0).max().unwrap_or(0);
    let holder = crew.start();
    crew.take(holder, 0);
    let others: Vec<Who> = (0..=most).map(|_| crew.start()).collect();
    let mut waiters = Vec::new();
    for &(process, slot) in places {
        crew.queue(others[process], slot);
        waiters.push((others[process], slot));
    }
    (holder, waiters)
}

#[test]
fn p09_processes_are_served_in_the_order_they_queued() {
    everywhere(|mut crew| {
        let places: Vec<_> = (0..8).map(|process| (process, 1)).collect();
        let (holder, waiters) = line(&mut crew, &places);
        assert_eq!(crew.tickets().len(), 8);
        crew.release(holder, 0);
        serve(&mut crew, &waiters);
        crew.expect_no_tickets();
    });
}

#[test]
fn p09_tasks_and_processes_mixed_are_served_in_the_order_they_queued() {
    let patterns: [&[usize]; 4] = [
        &[0, 0, 0, 1, 1, 0, 0, 1, 2, 0],
        &[0, 1, 0, 1, 0, 1, 0, 1],
        &[2, 2, 1, 1, 0, 0, 0, 2, 1, 0, 0],
        &[0, 0, 0, 0, 0, 0],
    ];
    everywhere(|mut crew| {
        for pattern in patterns {
            let places: Vec<_> = pattern.iter().copied().zip(1..).collect();
            let (holder, waiters) = line(&mut crew, &places);
            crew.release(holder, 0);
            serve(&mut crew, &waiters);
            crew.expect_no_tickets();
        }
    });
}

#[test]
fn p09_the_holders_own_tasks_do_not_overtake_others() {
    everywhere(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        crew.take(a, 0);
        // Behind a hold of its own process a task needs no ticket. Behind another process it does.
        crew.queue(a, 1);
        crew.queue(b, 2);
        crew.queue(a, 3);
        crew.queue(a, 4);
        crew.queue(b, 5);
        crew.release(a, 0);
        serve(&mut crew, &[(a, 1), (b, 2), (a, 3), (a, 4), (b, 5)]);
        crew.expect_no_tickets();
    });
}

#[test]
fn p09_the_order_holds_over_several_turns_of_the_same_tasks() {
    everywhere(|mut crew| {
        let members: Vec<Who> = (0..4).map(|_| crew.start()).collect();
        crew.take(members[0], 0);
        for &member in &members[1..] {
            crew.queue(member, 0);
        }
        for turn in 1..40 {
            let (inside, next) = (members[(turn - 1) % 4], members[turn % 4]);
            crew.release(inside, 0);
            crew.expect_held(next, 0);
            crew.queue(inside, 0);
        }
    });
}

#[test]
fn p10_a_newcomer_cannot_overtake_in_the_instant_of_release() {
    everywhere(|mut crew| {
        let (holder, waiter, newcomer) = (crew.start(), crew.start(), crew.start());
        for _ in 0..50 {
            crew.take(holder, 0);
            crew.queue(waiter, 1);
            crew.let_go(holder, 0, "release");
            crew.tell(newcomer, "acquire 2");
            crew.expect_held(waiter, 1);
            crew.expect(newcomer, "queued 2");
            crew.release(waiter, 1);
            crew.serve(newcomer, 2);
            crew.expect_released(holder, 0);
            crew.expect_no_tickets();
        }
    });
}

#[cfg(unix)]
#[test]
fn p10_a_try_does_not_overtake_a_living_waiter() {
    everywhere(|mut crew| {
        let (holder, waiter, newcomer) = (crew.start(), crew.start(), crew.start());
        crew.take(holder, 0);
        crew.queue(waiter, 1);
        crew.stop(waiter);
        crew.release(holder, 0);
        assert_eq!(
            crew.ask(newcomer, "try 2"),
            "none",
            "the door is free, but a process is queued"
        );
        assert_eq!(
            crew.ask(holder, "try 2"),
            "none",
            "the last holder is a newcomer too"
        );
        crew.resume(waiter);
        crew.expect_held(waiter, 1);
    });
}

/// What removes a waiter from the queue.
const LEAVINGS: [&str; 3] = ["kill", "cancel", "time out"];

/// Queues with a time limit. If the machine is so slow that the limit is over before the first
/// poll, the next limit is longer.
fn queue_for_a_while(crew: &mut Crew, who: Who, slot: u32, mut limit: u64) {
    loop {
        crew.tell(who, &format!("acquire {slot} {limit}"));
        if crew.must_wait(who, slot) {
            return;
        }
        let line = crew.line(who);
        assert!(
            line.starts_with(&format!("failed {slot} TimedOut")),
            "{line}"
        );
        limit *= 2;
    }
}

fn leave(crew: &mut Crew, (who, slot): (Who, u32), how: &str) {
    match how {
        "kill" => crew.kill(who),
        "cancel" => assert_eq!(
            crew.ask(who, &format!("cancel {slot}")),
            format!("cancelled {slot}")
        ),
        _ => {
            let line = crew.line(who);
            assert!(
                line.starts_with(&format!("failed {slot} TimedOut")),
                "{line}"
            );
        }
    }
}

#[test]
fn p11_a_waiter_that_leaves_changes_nothing_for_the_rest() {
    everywhere(|mut crew| {
        crew.by_events_only();
        for how in LEAVINGS {
            for victim in 0..4 {
                let holder = crew.start();
                crew.take(holder, 0);
                let mut waiters: Vec<Who> = (0..4).map(|_| crew.start()).collect();
                for (index, &who) in waiters.iter().enumerate() {
                    match how == "time out" && index == victim {
                        true => queue_for_a_while(&mut crew, who, 1, 20),
                        false => crew.queue(who, 1),
                    }
                }
                leave(&mut crew, (waiters[victim], 1), how);
                waiters.remove(victim);
                crew.release(holder, 0);
                for who in waiters {
                    let held = crew.expect_held(who, 1);
                    assert!(!held.crashed, "{how}: no holder died");
                    crew.release(who, 1);
                }
                // There is no waiter behind the last one to delete its ticket. The next process
                // deletes it.
                crew.take_and_release(holder);
                crew.expect_no_tickets();
            }
        }
    });
}

#[test]
fn p11_a_task_that_leaves_its_cohort_changes_nothing_for_the_rest() {
    everywhere(|mut crew| {
        crew.by_events_only();
        for victim in 1..=5 {
            let (holder, crowd, last) = (crew.start(), crew.start(), crew.start());
            crew.take(holder, 0);
            for slot in 1..=5 {
                crew.queue(crowd, slot);
            }
            crew.queue(last, 1);
            leave(&mut crew, (crowd, victim), "cancel");
            crew.release(holder, 0);
            let rest: Vec<_> = (1..=5).filter(|slot| *slot != victim).collect();
            for slot in rest {
                crew.serve(crowd, slot);
            }
            crew.serve(last, 1);
            crew.expect_no_tickets();
        }
    });
}

#[test]
fn p11_the_whole_queue_leaves() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let (holder, waiters) = line(&mut crew, &[(0, 1), (1, 1), (0, 2), (1, 2)]);
        for waiter in waiters {
            leave(&mut crew, waiter, "cancel");
        }
        crew.expect_no_tickets();
        crew.release(holder, 0);
        crew.take_and_release(holder);
    });
}

#[test]
fn p27_a_waiter_keeps_its_own_deadline_behind_others() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let (holder, waiter, late) = (crew.start(), crew.start(), crew.start());
        crew.take(holder, 0);
        crew.queue(waiter, 1);
        let begun = std::time::Instant::now();
        queue_for_a_while(&mut crew, late, 2, 60);
        let line = crew.line(late);
        let elapsed = begun.elapsed();
        assert!(line.starts_with("failed 2 TimedOut"), "{line}");
        assert!(elapsed.as_millis() >= 60, "too early: {elapsed:?}");
        assert_eq!(crew.tickets().len(), 1, "its ticket is gone");
        crew.release(holder, 0);
        crew.expect_held(waiter, 1);
    });
}

#[cfg(unix)]
#[test]
fn p27_a_deadline_holds_behind_a_stopped_process() {
    let mut crew = Crew::new();
    crew.by_events_only();
    let (holder, waiter, late) = (crew.start(), crew.start(), crew.start());
    crew.take(holder, 0);
    crew.queue(waiter, 1);
    crew.stop(waiter);
    crew.stop(holder);
    queue_for_a_while(&mut crew, late, 2, 20);
    let line = crew.line(late);
    assert!(line.starts_with("failed 2 TimedOut"), "{line}");
    crew.resume(waiter);
    crew.resume(holder);
    crew.release(holder, 0);
    crew.expect_held(waiter, 1);
}

/// A holder, two tasks of one process, two other processes, and the first one again. Its third task
/// must not join the first two. Only the event of the queue directory shows that.
#[cfg(stanchion_test)]
fn line_that_returns(crew: &mut Crew) -> (Who, Vec<(Who, u32)>) {
    let (holder, mut waiters) = line(crew, &[(0, 1), (0, 2), (1, 1), (2, 1)]);
    crew.until_only_events_wake();
    crew.queue(waiters[0].0, 3);
    waiters.push((waiters[0].0, 3));
    (holder, waiters)
}

#[cfg(stanchion_test)]
#[test]
fn p21_every_hand_over_needs_nothing_but_the_event() {
    everywhere(|mut crew| {
        crew.by_events_only().ladder_after_events();
        let (holder, mut waiters) = line_that_returns(&mut crew);
        let last = crew.start();
        for slot in 1..=2 {
            crew.queue(last, slot);
            waiters.push((last, slot));
        }
        crew.until_only_events_wake();
        crew.release(holder, 0);
        for (index, &(who, slot)) in waiters.iter().enumerate() {
            crew.expect_woken(who, slot);
            crew.until_only_events_wake();
            match index {
                2 => crew.kill(who),
                _ => crew.release(who, slot),
            }
        }
        crew.take_and_release(holder);
        crew.expect_no_tickets();
    });
}

#[cfg(stanchion_test)]
#[test]
fn p63_a_death_in_the_middle_of_the_queue_needs_nothing_but_the_event() {
    everywhere(|mut crew| {
        crew.by_events_only().ladder_after_events();
        let (holder, waiters) = line_that_returns(&mut crew);
        let [first, second, middle, next, again] = waiters[..] else {
            unreachable!("five")
        };
        let last = (crew.start(), 1);
        crew.queue(last.0, last.1);
        crew.until_only_events_wake();
        crew.kill(middle.0);
        crew.until_only_events_wake();
        leave(&mut crew, first, "cancel");
        crew.until_only_events_wake();
        crew.release(holder, 0);
        crew.expect_woken(second.0, second.1);
        crew.until_only_events_wake();
        crew.release(second.0, second.1);
        crew.expect_woken(next.0, next.1);
        crew.until_only_events_wake();
        crew.release(next.0, next.1);
        crew.expect_woken(again.0, again.1);
        crew.until_only_events_wake();
        crew.kill(again.0);
        crew.expect_woken(last.0, last.1);
    });
}

/// The watched directory is gone. As long as a process has it open, no event says so.
#[test]
fn p10_a_lock_that_was_removed_and_made_anew_keeps_the_order() {
    everywhere(|mut crew| {
        let (keeper, remover, other) = (crew.start(), crew.start(), crew.start());
        // Has the directory open, and does nothing.
        let bystander = crew.start();
        crew.take_and_release(bystander);
        // From its second task on it watches the directory.
        crew.take(keeper, 1);
        crew.queue(keeper, 2);
        crew.release(keeper, 1);
        crew.serve(keeper, 2);
        crew.expect_no_tickets();
        assert_eq!(crew.ask(remover, "remove"), "removed");
        crew.take(keeper, 1);
        crew.queue(keeper, 2);
        crew.queue(other, 1);
        crew.queue(keeper, 3);
        crew.release(keeper, 1);
        serve(&mut crew, &[(keeper, 2), (other, 1), (keeper, 3)]);
    });
}

/// Processes with one task each: the holder first, then the waiters in order of arrival.
struct Turns {
    crew: Crew,
    line: VecDeque<Who>,
}

impl Turns {
    fn begin(mut crew: Crew, processes: usize) -> Self {
        let holder = crew.start();
        crew.take(holder, 1);
        let line = VecDeque::from([holder]);
        let mut turns = Self { crew, line };
        (1..processes).for_each(|_| turns.newcomer());
        turns
    }

    /// A new process queues.
    fn newcomer(&mut self) {
        let who = self.crew.start();
        self.again(who);
    }

    /// A process queues.
    fn again(&mut self, who: Who) {
        self.crew.queue(who, 1);
        self.line.push_back(who);
    }

    /// The first waiter has acquired, and no other one.
    fn next(&mut self, crashed: bool) {
        let held = self.crew.expect_held(self.line[0], 1);
        assert_eq!(held.crashed, crashed, "{}", self.crew.scene());
        assert!(
            !self
                .crew
                .said_so_far()
                .iter()
                .any(|it| it.1.starts_with("held"))
        );
    }

    fn holder_releases(&mut self) -> Who {
        let who = self.line.pop_front().expect("a holder");
        self.crew.release(who, 1);
        who
    }

    fn holder_dies(&mut self) {
        let who = self.line.pop_front().expect("a holder");
        self.crew.kill_now(who);
        self.next(true);
        self.crew.bury(who);
    }

    fn waiter_dies(&mut self, place: usize) {
        let who = self.line.remove(place).expect("a waiter");
        self.crew.kill(who);
    }

    fn end(mut self) {
        while self.line.len() > 1 {
            self.holder_releases();
            self.next(false);
        }
        self.holder_releases();
        self.crew.expect_silence();
        self.crew.expect_no_tickets();
    }
}

#[test]
fn p09_p28_p29_eight_processes_acquire_fifty_times_in_order_while_some_are_killed() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let mut dice = Dice(0x5eed);
        let mut turns = Turns::begin(crew, 8);
        let mut acquired = 1;
        while acquired < 8 * 50 {
            match dice.below(16) {
                0 => turns.waiter_dies(1 + dice.below(7)),
                1 => {
                    turns.holder_dies();
                    acquired += 1;
                }
                _ => {
                    let who = turns.holder_releases();
                    turns.next(false);
                    acquired += 1;
                    turns.again(who);
                    continue;
                }
            }
            turns.newcomer();
        }
        turns.end();
    });
}
