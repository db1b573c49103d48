//! Many processes, many tasks, in no order: no waiter is lost, there are never two holders, and
//! tokens grow.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use crate::crew::{Dice, WATCHDOG, Who};
use crate::queue::{Crew, everywhere};

/// What the log of a storm shows: rounds that killed processes began and did not end.
struct Log {
    rounds: u64,
    broken: u64,
}

/// There was one holder at a time, except after a kill, and tokens strictly increase.
fn read_log(lock: &Path, killed: &HashSet<u32>) -> Log {
    let text = std::fs::read_to_string(lock.with_extension("log")).expect("the log");
    let (mut rounds, mut broken, mut last) = (0, 0, 0);
    let mut inside: Option<(u64, u32)> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let token: u64 = words[1].parse().expect("a token");
        let pid: u32 = words[2].parse().expect("a pid");
        if words[0] == "out" {
            assert_eq!(inside.take(), Some((token, pid)), "{line}");
            rounds += 1;
            continue;
        }
        if let Some((_, dead)) = inside {
            assert!(killed.contains(&dead), "{line} while {dead} held the lock");
            broken += 1;
        }
        assert!(token > last, "{line} after {last}");
        last = token;
        inside = Some((token, pid));
    }
    broken += u64::from(inside.is_some());
    Log { rounds, broken }
}

fn counter(lock: &Path) -> u64 {
    let text = std::fs::read_to_string(lock.with_extension("counter")).expect("the counter");
    text.trim().parse().expect("a number")
}

/// Waits until every member has finished.
fn until_stormed(crew: &mut Crew, members: &[Who]) {
    for &who in members {
        crew.expect(who, "stormed");
    }
}

fn storm(crew: &mut Crew, processes: usize, rounds: u64, tasks: u64, leave: u64) {
    let members: Vec<Who> = (0..processes).map(|_| crew.start()).collect();
    for &who in &members {
        crew.tell(who, &format!("storm {rounds} {tasks} {leave}"));
    }
    until_stormed(crew, &members);
    let log = read_log(crew.lock(), &HashSet::new());
    assert_eq!(log.broken, 0);
    assert_eq!(counter(crew.lock()), log.rounds, "no update is lost");
    if leave == 0 {
        assert_eq!(log.rounds, processes as u64 * rounds * tasks);
    }
    let last = members[0];
    assert!(!crew.acquire(last, 1).crashed);
    crew.release(last, 1);
    crew.expect_no_tickets();
}

#[test]
fn p01_processes_and_tasks_lose_no_update() {
    everywhere(|mut crew| {
        crew.set("CREW_THREADS", "2");
        storm(&mut crew, 4, 50, 8, 0);
    });
}

#[test]
fn p01_one_task_each() {
    everywhere(|mut crew| storm(&mut crew, 8, 100, 1, 0));
}

#[test]
fn p63_a_storm_needs_nothing_but_events() {
    everywhere(|mut crew| {
        crew.by_events_only().without_ladder();
        storm(&mut crew, 8, 200, 1, 0);
    });
}

#[test]
fn p63_a_storm_in_which_some_give_up() {
    everywhere(|mut crew| {
        crew.by_events_only().without_ladder();
        crew.set("CREW_THREADS", "2");
        storm(&mut crew, 6, 60, 3, 3);
    });
}

#[cfg(stanchion_test)]
#[test]
fn p22_a_storm_of_pollers_comes_to_an_end() {
    everywhere(|mut crew| {
        crew.set("STANCHION_NO_INOTIFY", "24");
        storm(&mut crew, 8, 15, 2, 4);
    });
}

#[test]
fn p63_a_storm_in_which_waiters_and_holders_are_killed() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let mut dice = Dice(0x5eed);
        let mut killed = HashSet::new();
        let mut members: Vec<Who> = (0..8).map(|_| crew.start()).collect();
        for &who in &members {
            crew.tell(who, "storm 200 1 0");
        }
        for _ in 0..40 {
            let index = dice.below(members.len());
            killed.insert(crew.pid(members[index]));
            crew.kill_now(members[index]);
            members[index] = crew.start();
            crew.tell(members[index], "storm 200 1 0");
        }
        until_stormed(&mut crew, &members);
        let log = read_log(crew.lock(), &killed);
        // A death between the counter and the log leaves a round that is counted and not logged.
        let counted = counter(crew.lock());
        assert!(counted >= log.rounds && counted <= log.rounds + log.broken);
        assert!(log.rounds >= 8 * 200, "{}", log.rounds);
        let newcomer = members[0];
        crew.acquire(newcomer, 1);
        crew.release(newcomer, 1);
        crew.expect_no_tickets();
    });
}

/// Each member in turn is stopped for as long as another one takes to acquire.
#[cfg(unix)]
#[test]
fn p64_a_storm_in_which_members_are_stopped() {
    everywhere(|mut crew| {
        crew.set("CREW_POLL", "never").set("CREW_WINDOW", "10");
        let members: Vec<Who> = (0..6).map(|_| crew.start()).collect();
        for &who in &members {
            crew.tell(who, "storm 150 1 5");
        }
        let witness = crew.start();
        for &who in members.iter().cycle().take(24) {
            crew.stop(who);
            crew.waits_briefly(witness, "acquire");
            crew.resume(who);
        }
        until_stormed(&mut crew, &members);
        let log = read_log(crew.lock(), &HashSet::new());
        assert_eq!((counter(crew.lock()), log.broken), (log.rounds, 0));
        crew.acquire(witness, 2);
        crew.release(witness, 2);
        crew.expect_no_tickets();
    });
}

#[test]
fn p59_a_lock_that_its_last_user_removes() {
    everywhere(|mut crew| {
        crew.set("TAKER_REMOVES", "1");
        for _ in 0..10 {
            let members: Vec<Who> = (0..4).map(|_| crew.start()).collect();
            for &who in &members {
                crew.tell(who, "storm 10 2 4");
                crew.tell(who, "end");
            }
            until_stormed(&mut crew, &members);
            for &who in &members {
                assert!(!crew.process_mut(who).was_ended_by_kill());
            }
        }
        let log = read_log(crew.lock(), &HashSet::new());
        assert_eq!((counter(crew.lock()), log.broken), (log.rounds, 0));
        let last = crew.start();
        crew.acquire(last, 1);
        crew.release(last, 1);
        crew.end(last);
        assert!(!crew.lock().exists() && !crew.queue_dir().exists());
    });
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn p62_a_storm_leaves_nothing_open() {
    everywhere(|mut crew| {
        crew.set("CREW_THREADS", "2");
        let (one, two) = (crew.start(), crew.start());
        crew.contend(one);
        crew.contend(two);
        let count = |crew: &mut Crew| [one, two].map(|who| crew.count(who, "fd"));
        let before = count(&mut crew);
        for who in [one, two] {
            crew.tell(who, "storm 50 20 3");
        }
        until_stormed(&mut crew, &[one, two]);
        crew.expect_no_tickets();
        crew.contend(one);
        crew.contend(two);
        crew.expect_no_tickets();
        for (before, after) in before.into_iter().zip(count(&mut crew)) {
            // A process may keep two files for its next tickets.
            assert!(after <= before + 2, "{before} were open, {after} are");
        }
    });
}

#[test]
fn p01_a_lock_that_is_removed_again_and_again_still_excludes() {
    everywhere(|mut crew| {
        let members: Vec<Who> = (0..4).map(|_| crew.start()).collect();
        for &who in &members {
            crew.tell(who, "storm 100 2 4");
        }
        let remover = crew.start();
        let begun = Instant::now();
        let mut left = members.clone();
        while !left.is_empty() {
            assert!(begun.elapsed() < WATCHDOG, "{left:?} do not come through");
            let answer = crew.ask(remover, "remove");
            assert!(matches!(answer.as_str(), "removed" | "in-use"), "{answer}");
            left.retain(|who| !crew.has_spoken(*who));
        }
        until_stormed(&mut crew, &members);
        let log = read_log(crew.lock(), &HashSet::new());
        assert_eq!((counter(crew.lock()), log.broken), (log.rounds, 0));
        assert_eq!(crew.ask(remover, "remove"), "removed");
        assert!(!crew.lock().exists() && !crew.queue_dir().exists());
    });
}
