//! Readers and writers of several processes: which of them may hold the lock together, and in which
//! order they acquire.
//!
//! Unless a test says otherwise there is no safety net: polling and claim windows are off.

use crate::crew::{Dice, Who};
#[cfg(unix)]
use crate::files::{home, snapshot};
use crate::queue::{Crew, everywhere};

/// On disk and in memory, around a reader-writer lock. Only events wake the waiters.
pub(crate) fn with_readers(test: impl Fn(Crew)) {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        crew.by_events_only();
        test(crew);
    });
}

/// The same. A waiter that has tried once tries again after an event only.
#[cfg(stanchion_test)]
pub(crate) fn without_ladder_after_events(test: impl Fn(Crew)) {
    with_readers(|mut crew| {
        crew.without_ladder();
        test(crew);
    });
}

/// The same for tests that kill.
#[cfg(stanchion_test)]
pub(crate) fn with_deaths(test: impl Fn(Crew)) {
    with_readers(|mut crew| {
        crew.ladder_after_events();
        test(crew);
    });
}

/// A member, its slot, and its command.
pub(crate) type Place = (Who, u32, &'static str);

/// Queues members in this order: `0r 1w` is a reader of the first and a writer of the second.
pub(crate) fn queue_all(crew: &mut Crew, members: &[Who], pattern: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for (word, slot) in pattern.split_whitespace().zip(1..) {
        let (index, mode) = word.split_at(1);
        let who = members[index.parse::<usize>().expect("which member")];
        let command = if mode == "r" { "read" } else { "write" };
        crew.queue_by(who, command, slot);
        places.push((who, slot, command));
    }
    places
}

/// Each writer acquires alone, adjacent readers acquire together, in the order of the queue. They
/// release when all that may hold together do.
pub(crate) fn serve(crew: &mut Crew, places: &[Place]) {
    let reads = |it: &Place| it.2 == "read";
    for group in places.chunk_by(|one, two| reads(one) && reads(two)) {
        let group: Vec<_> = group.iter().map(|it| (it.0, it.1)).collect();
        crew.expect_together(&group);
        assert_eq!(crew.count_inside(), group.len());
        crew.release_all(&group);
    }
}

fn start(crew: &mut Crew, count: usize) -> Vec<Who> {
    (0..count).map(|_| crew.start()).collect()
}

#[test]
fn p03_readers_of_several_processes_overlap_and_a_writer_overlaps_none() {
    with_readers(|mut crew| {
        let members = start(&mut crew, 4);
        let writer = crew.start();
        crew.writes(members[0], 9);
        crew.release(members[0], 9);
        let mut inside = Vec::new();
        for slot in 1..=2 {
            for &who in &members {
                crew.reads(who, slot);
                inside.push((who, slot));
            }
        }
        assert_eq!(crew.count_inside(), 8);
        for &who in &members {
            assert_eq!(crew.ask(who, "try-write 7"), "none");
            crew.take_by(who, "try-read", 7);
            crew.release(who, 7);
        }
        crew.wants_to_write(writer, 1);
        let (last, others) = inside.split_last().expect("eight");
        crew.release_all(others);
        assert!(!crew.has_spoken(writer), "one still reads");
        crew.release(last.0, last.1);
        crew.expect_held(writer, 1);
        for &who in &members {
            assert_eq!(crew.ask(who, "try-read 7"), "none");
            assert_eq!(crew.ask(who, "try-write 7"), "none");
        }
        crew.release(writer, 1);
        crew.expect_idle(members[0]);
    });
}

#[test]
fn p03_a_new_lock_is_read_by_all_at_once() {
    with_readers(|mut crew| {
        let members = start(&mut crew, 6);
        // None of them finds a record. One of them makes it.
        for &who in &members {
            crew.tell(who, "read 1");
        }
        let all: Vec<_> = members.iter().map(|who| (*who, 1)).collect();
        crew.expect_together(&all);
        crew.release_all(&all);
        let witness = crew.start();
        crew.expect_idle(witness);
    });
}

#[test]
fn p15_a_writer_waits_for_those_before_it_and_later_readers_wait_for_it() {
    with_readers(|mut crew| {
        let (a, b, c) = (crew.start(), crew.start(), crew.start());
        let writer = crew.start();
        crew.reads(a, 1);
        crew.reads(b, 1);
        crew.wants_to_write(writer, 1);
        crew.wants_to_read(a, 2);
        crew.wants_to_read(c, 1);
        for who in [a, b, c, writer] {
            assert_eq!(crew.ask(who, "try-read 7"), "none");
        }
        crew.release(a, 1);
        crew.wants_to_read(b, 2);
        crew.release(b, 1);
        crew.serve(writer, 1);
        crew.expect_together(&[(a, 2), (b, 2), (c, 1)]);
        crew.release_all(&[(c, 1), (b, 2), (a, 2)]);
        crew.expect_idle(a);
    });
}

#[test]
fn p09_p15_the_order_holds_over_tasks_and_processes() {
    let patterns = [
        "0r 1r 2r 0r",
        "0r 1w 2r 3r 0w 1r",
        "1w 1r 1r 1w 1r",
        "0w 0r 1r 0r 0w 2r",
        "1r 0r 1r 0w 1w 0r 1r 1w 0r",
        "0r 0r 1w 0r 0w 0r 1r 2r 2w 2r",
    ];
    with_readers(|mut crew| {
        let members = start(&mut crew, 4);
        for pattern in patterns {
            // The first member has waiters behind its own hold. They are only in memory as long as
            // no other process arrives.
            for holder in [0, 3] {
                crew.writes(members[holder], 0);
                let places = queue_all(&mut crew, &members, pattern);
                crew.release(members[holder], 0);
                serve(&mut crew, &places);
                crew.expect_no_tickets();
            }
        }
    });
}

#[test]
fn p09_p15_the_order_holds_in_any_mixture() {
    with_readers(|mut crew| {
        let members = start(&mut crew, 3);
        let mut dice = Dice(0x5eed);
        let mut below = |end: u64| dice.below(end);
        for _ in 0..40 {
            let words =
                (0..10).map(|_| format!("{}{} ", below(3), ["r", "r", "w"][below(3) as usize]));
            let pattern: String = words.collect();
            let holder = members[below(3) as usize];
            // Behind readers a pattern must begin with a writer. Otherwise its readers need not
            // wait.
            let (how, pattern) = match below(2) {
                0 => ("read", format!("{}w {pattern}", below(3))),
                _ => ("write", pattern),
            };
            crew.take_by(holder, how, 0);
            let places = queue_all(&mut crew, &members, &pattern);
            crew.release(holder, 0);
            serve(&mut crew, &places);
            crew.expect_no_tickets();
        }
    });
}

#[test]
fn p10_a_reader_cannot_overtake_a_writer_in_the_instant_of_release() {
    with_readers(|mut crew| {
        let (holder, writer, newcomer) = (crew.start(), crew.start(), crew.start());
        for round in 0..60 {
            let how = ["read", "write"][round % 2];
            crew.take_by(holder, how, 0);
            crew.wants_to_write(writer, 1);
            crew.let_go(holder, 0, "release");
            crew.tell(newcomer, "read 2");
            crew.tell(holder, "read 3");
            crew.expect_held(writer, 1);
            crew.expect(newcomer, "queued 2");
            crew.expect_released(holder, 0);
            crew.expect(holder, "queued 3");
            crew.release(writer, 1);
            crew.expect_together(&[(newcomer, 2), (holder, 3)]);
            crew.release_all(&[(holder, 3), (newcomer, 2)]);
            crew.expect_no_tickets();
        }
    });
}

/// A process that shares its lock has seen the ticket of the other one. Its own newcomers come after
/// that ticket, although no later one has come.
#[test]
fn p10_a_newcomer_does_not_join_readers_that_share_before_another_process() {
    with_readers(|mut crew| {
        let (one, other) = (crew.start(), crew.start());
        for how in ["read", "write"].repeat(20) {
            crew.writes(one, 0);
            crew.wants_to_read(one, 1);
            crew.release(one, 0);
            crew.expect_held(one, 1);
            crew.wants_to_write(other, 2);
            crew.queue_by(one, how, 3);
            crew.release(one, 1);
            crew.serve(other, 2);
            crew.serve(one, 3);
            crew.expect_no_tickets();
        }
    });
}

#[test]
fn p15_readers_that_never_pause_do_not_starve_a_writer() {
    with_readers(|mut crew| {
        let readers = start(&mut crew, 3);
        let writer = crew.start();
        for round in 0..20 {
            // There is always a holder.
            crew.reads(readers[0], 0);
            crew.reads(readers[1], 0);
            crew.release(readers[0], 0);
            crew.reads(readers[2], 0);
            crew.wants_to_write(writer, round);
            crew.release(readers[1], 0);
            for &who in &readers[..2] {
                crew.wants_to_read(who, 1);
            }
            crew.release(readers[2], 0);
            crew.serve(writer, round);
            crew.expect_together(&[(readers[0], 1), (readers[1], 1)]);
            crew.release_all(&[(readers[0], 1), (readers[1], 1)]);
        }
        crew.expect_idle(writer);
    });
}

#[test]
fn p15_writers_that_never_pause_do_not_starve_a_reader() {
    with_readers(|mut crew| {
        let (one, two, reader) = (crew.start(), crew.start(), crew.start());
        crew.writes(one, 0);
        crew.wants_to_write(two, 0);
        for _ in 0..20 {
            crew.wants_to_read(reader, 1);
            crew.release(one, 0);
            crew.expect_held(two, 0);
            crew.wants_to_write(one, 0);
            crew.release(two, 0);
            crew.expect_held(reader, 1);
            crew.wants_to_write(two, 0);
            crew.release(reader, 1);
            crew.expect_held(one, 0);
        }
    });
}

#[cfg(unix)]
#[test]
fn p12_a_try_in_vain_changes_nothing() {
    with_readers(|mut crew| {
        let (holder, waiter, other) = (crew.start(), crew.start(), crew.start());
        for (how, waits) in [("read", "write"), ("write", "read")] {
            crew.take_by(holder, how, 1);
            crew.queue_by(waiter, waits, 1);
            let before = snapshot(&home(&crew));
            for who in [holder, waiter, other] {
                assert_eq!(crew.ask(who, "try-write 7"), "none");
                assert_eq!(crew.ask(who, "try-read 7"), "none");
            }
            assert_eq!(snapshot(&home(&crew)), before);
            crew.release(holder, 1);
            crew.serve(waiter, 1);
            crew.expect_no_tickets();
        }
    });
}

/// What removes a waiter from the queue.
const LEAVINGS: [&str; 3] = ["kill", "cancel", "time out"];

fn leave(crew: &mut Crew, (who, slot, _): Place, how: &str) {
    match how {
        "kill" => crew.kill(who),
        "cancel" => crew.cancel(who, slot),
        _ => {
            let line = crew.line(who);
            let wanted = format!("failed {slot} TimedOut");
            assert!(line.starts_with(&wanted), "{line}");
        }
    }
}

#[test]
fn p11_p29_a_waiter_that_leaves_changes_nothing_for_the_rest() {
    with_readers(|mut crew| {
        for how in LEAVINGS {
            for victim in 0..5 {
                let holder = crew.start();
                crew.writes(holder, 0);
                let mut places: Vec<Place> = Vec::new();
                for (index, command) in ["read", "write", "read", "read", "write"]
                    .into_iter()
                    .enumerate()
                {
                    let who = crew.start();
                    let limited = how == "time out" && index == victim;
                    let limit = if limited { "1000" } else { "" };
                    crew.command(who, &format!("{command} 1 {limit}"), "queued 1");
                    places.push((who, 1, command));
                }
                leave(&mut crew, places.remove(victim), how);
                crew.release(holder, 0);
                serve(&mut crew, &places);
                // There is no waiter behind the last one to delete its ticket. The next process
                // deletes it.
                assert!(!crew.expect_idle(holder).crashed, "{how}: no holder died");
            }
        }
    });
}

#[test]
fn p11_a_task_that_leaves_its_cohort_changes_nothing_for_the_rest() {
    with_readers(|mut crew| {
        for victim in 0..6 {
            let members = start(&mut crew, 2);
            let holder = crew.start();
            crew.writes(holder, 0);
            let mut places = queue_all(&mut crew, &members, "0w 0r 0r 0w 0r 1r");
            leave(&mut crew, places.remove(victim), "cancel");
            crew.release(holder, 0);
            serve(&mut crew, &places);
            crew.expect_idle(holder);
        }
    });
}

#[cfg(stanchion_test)]
#[test]
fn p23_a_writer_that_gives_up_grants_the_readers_behind_it_at_once() {
    for how in LEAVINGS {
        let told = |test: fn(Crew, &str)| match how {
            "kill" => with_deaths(|crew| test(crew, how)),
            _ => without_ladder_after_events(|crew| test(crew, how)),
        };
        told(|mut crew, how| {
            let (inside, one, two) = (crew.start(), crew.start(), crew.start());
            let writer = crew.start();
            crew.reads(inside, 1);
            let limit = if how == "time out" { "1000" } else { "" };
            crew.command(writer, &format!("write 1 {limit}"), "queued 1");
            // Readers of the holder's process, of other processes, and one behind another.
            crew.wants_to_read(one, 1);
            crew.wants_to_read(inside, 2);
            crew.wants_to_read(two, 1);
            if how != "time out" {
                crew.until_only_events_wake();
            }
            leave(&mut crew, (writer, 1, "write"), how);
            crew.expect_all_woken(&[(one, 1), (inside, 2), (two, 1)]);
            assert_eq!(crew.count_inside(), 4);
            crew.release_all(&[(one, 1), (inside, 2), (inside, 1), (two, 1)]);
            crew.expect_idle(one);
        });
    }
}

#[cfg(stanchion_test)]
#[test]
fn p23_a_writer_of_the_readers_own_process_gives_up() {
    without_ladder_after_events(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        crew.reads(a, 1);
        crew.wants_to_write(a, 2);
        crew.wants_to_read(a, 3);
        crew.wants_to_read(b, 1);
        crew.until_only_events_wake();
        crew.cancel(a, 2);
        crew.expect_all_woken(&[(a, 3), (b, 1)]);
        crew.release_all(&[(a, 1), (a, 3), (b, 1)]);
        crew.expect_idle(b);
    });
}
