//! Waiters without file events: threads that wait for wake locks wake them. There is no poll, no
//! claim window and no ladder, unless a test says otherwise.

use crate::crew::{Who, until};
use crate::queue::{Crew, everywhere};

const NO_EVENTS: (&str, &str) = ("STANCHION_NO_INOTIFY", "24");

/// Nobody gets file events.
fn without_events(test: impl Fn(Crew)) {
    everywhere(|mut crew| {
        crew.by_events_only().without_ladder();
        crew.set(NO_EVENTS.0, NO_EVENTS.1);
        test(crew);
    });
}

fn start(crew: &mut Crew, count: usize) -> Vec<Who> {
    (0..count).map(|_| crew.start()).collect()
}

/// How many threads of a member wait in a lock call, or did so a moment ago.
fn lock_threads(crew: &Crew, who: Who) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", crew.pid(who))).expect("its threads");
    let names = tasks.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("comm")).ok());
    names
        .filter(|name| name.trim() == "stanchion-flock")
        .count()
}

/// Each one queues again and again, so files are used for several tickets.
#[test]
fn p09_p63_threads_wake_waiters_in_order() {
    without_events(|mut crew| {
        let members = start(&mut crew, 4);
        crew.take(members[0], 1);
        for &who in &members[1..] {
            crew.queue(who, 1);
        }
        for round in 0..24 {
            let (holder, next) = (members[round % 4], members[(round + 1) % 4]);
            // It queues before it releases, so it is never at rest and keeps its files.
            crew.queue(holder, (round / 4 + 2) as u32);
            crew.release(holder, (round / 4 + 1) as u32);
            crew.expect_held(next, ((round + 1) / 4 + 1) as u32);
        }
    });
}

/// One has events, and one has none, in turn.
#[test]
fn p09_p63_with_and_without_events_side_by_side() {
    everywhere(|mut crew| {
        crew.by_events_only().without_ladder();
        let members: Vec<Who> = (0..4)
            .map(|index| match index % 2 {
                0 => crew.start(),
                _ => crew.start_with(&[NO_EVENTS]),
            })
            .collect();
        crew.take(members[0], 1);
        for &who in &members[1..] {
            crew.queue(who, 1);
        }
        for round in 0..24 {
            let (holder, next) = (members[round % 4], members[(round + 1) % 4]);
            // It queues before it releases, so it is never at rest and keeps its files.
            crew.queue(holder, (round / 4 + 2) as u32);
            crew.release(holder, (round / 4 + 1) as u32);
            crew.expect_held(next, ((round + 1) / 4 + 1) as u32);
        }
    });
}

#[test]
fn p28_p29_a_death_in_front_of_a_thread_frees_the_place() {
    without_events(|mut crew| {
        let members = start(&mut crew, 5);
        crew.take(members[0], 1);
        for &who in &members[1..] {
            crew.queue(who, 1);
        }
        crew.kill_now(members[2]);
        crew.kill_now(members[1]);
        crew.release(members[0], 1);
        crew.serve(members[3], 1);
        crew.expect_held(members[4], 1);
        crew.queue(members[0], 2);
        crew.kill_now(members[4]);
        assert!(crew.expect_held(members[0], 2).crashed);
        crew.release(members[0], 2);
        crew.expect_no_tickets();
    });
}

/// The first one stops. The others skip it, and it is first again.
#[test]
fn p64_a_stopped_waiter_in_front_of_a_thread_is_bypassed() {
    everywhere(|crew| {
        let mut crew = crew.with_windows();
        crew.set(NO_EVENTS.0, NO_EVENTS.1);
        let members = start(&mut crew, 4);
        crew.take(members[0], 1);
        for &who in &members[1..] {
            crew.queue(who, 1);
        }
        crew.stop(members[1]);
        crew.release(members[0], 1);
        crew.expect_held(members[2], 1);
        crew.resume(members[1]);
        crew.until_awake();
        crew.release(members[2], 1);
        crew.serve(members[1], 1);
        crew.serve(members[3], 1);
        crew.expect_no_tickets();
    });
}

/// A thread whose process is stopped with the wake lock delays no other thread and no newcomer.
#[test]
fn p64_a_thread_stopped_with_the_wake_lock_delays_no_waiter() {
    everywhere(|mut crew| {
        crew.by_events_only();
        crew.set(NO_EVENTS.0, NO_EVENTS.1);
        let (holder, dead) = (crew.start(), crew.start());
        let frozen = crew.start_with(&[("STANCHION_AT", "stop:ThreadWakes:1")]);
        crew.take(holder, 1);
        crew.queue(dead, 1);
        crew.queue(frozen, 1);
        crew.kill_now(dead);
        crew.expect_stopped(frozen);
        crew.kill(frozen);
        let newcomer = crew.start();
        crew.queue(newcomer, 1);
        crew.release(holder, 1);
        crew.serve(newcomer, 1);
        crew.expect_no_tickets();
        // The same while it lives: the next process that tries finds the owner of the ticket dead.
        let dead = crew.start();
        let frozen = crew.start_with(&[("STANCHION_AT", "stop:ThreadWakes:1")]);
        crew.take(holder, 2);
        crew.queue(dead, 2);
        crew.queue(frozen, 2);
        crew.kill_now(dead);
        crew.expect_stopped(frozen);
        let before = crew.tickets().len();
        assert_eq!(crew.ask(newcomer, "try 3"), "none");
        assert_eq!(crew.tickets().len(), before - 1, "the dead one's is reaped");
        crew.resume(frozen);
        crew.release(holder, 2);
        crew.serve(frozen, 2);
    });
}

/// A wait that is dropped leaves its thread. The next ones behind the same ticket use it.
#[test]
fn p23_p62_dropped_waits_share_one_thread() {
    without_events(|mut crew| {
        let members = start(&mut crew, 4);
        crew.take(members[0], 1);
        crew.queue(members[1], 1);
        for slot in 1..=20 {
            crew.queue(members[2], slot);
            until("one thread waits", || lock_threads(&crew, members[2]) == 1);
            if slot < 20 {
                let answer = format!("cancelled {slot}");
                assert_eq!(crew.ask(members[2], &format!("cancel {slot}")), answer);
            }
        }
        crew.queue(members[3], 1);
        crew.release(members[0], 1);
        crew.serve(members[1], 1);
        crew.serve(members[2], 20);
        crew.serve(members[3], 1);
        until("its threads end", || lock_threads(&crew, members[2]) == 0);
        crew.expect_no_tickets();
    });
}

/// The wake lock of a waiter that leaves ends with its ticket. So the thread behind it wakes, and the
/// order stays right.
#[test]
fn p23_p63_a_waiter_that_leaves_wakes_the_thread_behind_it() {
    without_events(|mut crew| {
        let members = start(&mut crew, 4);
        crew.take(members[0], 1);
        for &who in &members[1..] {
            crew.queue(who, 1);
        }
        assert_eq!(crew.ask(members[2], "cancel 1"), "cancelled 1");
        crew.queue(members[2], 2);
        crew.release(members[0], 1);
        for (who, slot) in [(1, 1), (3, 1), (2, 2)] {
            crew.serve(members[who], slot);
        }
        crew.expect_no_tickets();
    });
}

/// An older process takes no wake locks. Only waiters behind it poll.
#[test]
fn p63_behind_an_older_process_waiters_poll() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let older = crew.start_with(&[("STANCHION_WAKE_LOCKS", "off")]);
        crew.set(NO_EVENTS.0, NO_EVENTS.1);
        let members = start(&mut crew, 3);
        for round in 0..3 {
            crew.take(members[0], round);
            crew.queue(older, round);
            crew.queue(members[1], round);
            crew.queue(members[2], round);
            let polls = |crew: &mut Crew, who| crew.ask(who, "status").starts_with("status true");
            until("it polls", || polls(&mut crew, members[1]));
            assert!(!polls(&mut crew, members[2]));
            crew.release(members[0], round);
            for who in [older, members[1], members[2]] {
                crew.serve(who, round);
            }
        }
        crew.expect_no_tickets();
    });
}

/// Readers wait for one writer, and its death wakes all of them.
#[test]
fn p15_p28_threads_wake_all_readers_behind_a_writer() {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        crew.by_events_only();
        crew.set(NO_EVENTS.0, NO_EVENTS.1);
        let members = start(&mut crew, 5);
        crew.take_by(members[0], "write", 1);
        crew.queue_by(members[1], "write", 1);
        for &who in &members[2..] {
            crew.queue_by(who, "read", 1);
        }
        crew.kill_now(members[1]);
        crew.release(members[0], 1);
        let all: Vec<_> = members[2..].iter().map(|who| (*who, 1)).collect();
        crew.expect_together(&all);
        crew.release_all(&all);
        crew.expect_no_tickets();
    });
}
