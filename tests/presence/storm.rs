//! Many at once: breakers of one stale lock, and an ordinary crowd.

use std::path::Path;

use crate::family::{Member, place};

/// Processes that break.
const BREAKERS: usize = 8;
/// Stale locks in one race.
const RACE: usize = 50;

fn rounds() -> usize {
    let given = std::env::var("STANCHION_ROUNDS").ok();
    given.map_or(500, |it| it.parse().expect("a number"))
}

/// The record of a process that was killed while it held, to be laid down again and again under other IDs.
fn stale_record(path: &Path) -> String {
    let mut holder = Member::start(path);
    holder.acquire();
    let text = std::fs::read_to_string(path).expect("its record");
    holder.kill();
    holder.bury();
    std::fs::remove_file(path).expect("left behind");
    text
}

/// The same record of another hold.
fn with_id(text: &str, number: usize) -> String {
    let at = text.find("id=").expect("an ID") + 3;
    format!("{}{number:032x}{}", &text[..at], &text[at + 32..])
}

#[test]
fn p32_of_those_who_break_a_stale_lock_one_wins() {
    let (_directory, path) = place();
    let record = stale_record(&path);
    let mut breakers: Vec<_> = (0..BREAKERS).map(|_| Member::start(&path)).collect();
    let rounds = rounds();
    for first in (0..rounds).step_by(RACE) {
        let last = (first + RACE).min(rounds);
        let lock = |index: usize| path.with_extension(index.to_string());
        for index in first..last {
            std::fs::write(lock(index), with_id(&record, index)).expect("laid down");
        }
        for breaker in &mut breakers {
            breaker.tell(&format!("race {first} {last}"));
        }
        let mut winners = vec![0; last - first];
        for breaker in &breakers {
            let line = breaker.next().expect("it lives");
            let won = line.strip_prefix("won").expect("an answer");
            for word in won.split_whitespace() {
                winners[word.parse::<usize>().expect("a number") - first] += 1;
            }
        }
        assert!(winners.iter().all(|it| *it == 1), "{winners:?}");
        for breaker in &mut breakers {
            breaker.tell("all have tried");
        }
        for breaker in &breakers {
            breaker.expect("let-go");
        }
        let left = crate::family::left(path.parent().expect("a directory"));
        assert_eq!(left, Vec::<String>::new(), "after {last}");
    }
}

#[test]
fn p01_no_update_is_lost_among_processes() {
    let (directory, path) = place();
    let mut crowd: Vec<_> = (0..BREAKERS).map(|_| Member::start(&path)).collect();
    for member in &mut crowd {
        member.tell("storm 100");
    }
    for member in &crowd {
        member.expect("stormed");
    }
    let counted = std::fs::read_to_string(path.with_extension("counter")).expect("counted");
    assert_eq!(counted, (100 * BREAKERS).to_string());
    assert_eq!(crate::family::left(directory.path()), Vec::<String>::new());
}

#[test]
fn p29_no_update_is_lost_and_nobody_waits_for_ever_while_processes_are_killed() {
    let (directory, path) = place();
    let mut crowd: Vec<_> = (0..BREAKERS).map(|_| Member::start(&path)).collect();
    for member in &mut crowd {
        member.tell("storm 1000000");
    }
    let counter = path.with_extension("counter");
    let count = || {
        let text = std::fs::read_to_string(&counter).unwrap_or_default();
        text.parse().unwrap_or(0_u64)
    };
    for victim in 0..BREAKERS * 5 {
        // They move on before each death, so somebody has taken over from the last one.
        let before = count();
        crate::family::until("it goes on", || count() > before + 5);
        let mut fresh = Member::start(&path);
        fresh.tell("storm 1000000");
        let dead = std::mem::replace(&mut crowd[victim % BREAKERS], fresh);
        dead.kill();
        dead.bury();
    }
    for member in crowd {
        member.kill();
        member.bury();
    }
    let mut last = Member::start(&path);
    last.acquire();
    last.release();
    let left = crate::family::left(directory.path());
    assert!(left.len() <= 1 + BREAKERS, "{left:?}");
}
