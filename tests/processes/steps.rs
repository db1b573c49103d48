//! Death at every step of the protocol: a victim is killed before the n-th passage of a step, for every step and every n
//! that a scenario reaches. Afterwards the rest is served in order, somebody new gets in at once, and no ticket is left.
//!
//! The steps are read from the engine's own list, so that a new one that no scenario reaches fails the test.

use std::collections::BTreeSet;
use std::path::Path;

use crate::crew::{Crew, Who, until};

/// How often everything is done: deaths meet their witnesses at another instant every time.
const TIMES: usize = 5;
/// Passages of one step after which a scenario is cut short; a wait may climb its ladder more often than that.
const PASSAGES: usize = 6;

fn all_steps() -> Vec<&'static str> {
    let source = include_str!("../../src/fs/engine/step.rs");
    let (_, behind) = source.split_once("enum Step {").expect("the list of steps");
    let (list, _) = behind.split_once('}').expect("its end");
    let names = list.split(',').filter_map(|line| line.lines().last());
    names
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect()
}

/// What happens around the victim: `true` when it came through alive.
type Scenario = fn(&mut Crew, &str) -> bool;

const SCENARIOS: [(&str, Scenario); 6] = [
    ("alone", alone),
    ("as the next", as_the_next),
    ("behind another", behind_another),
    ("behind one that dies", behind_one_that_dies),
    ("past a dead ticket", past_a_dead_ticket),
    ("while it removes the lock", removing),
];

/// Those that take their time: claim windows go by.
const SLEEPERS: [(&str, Scenario); 2] = [
    ("past a sleeper", past_a_sleeper),
    ("as a sleeper", as_a_sleeper),
];

fn victim(crew: &mut Crew, order: &str) -> Who {
    crew.start_unready(&[("STANCHION_AT", order)])
}

/// The next line of the victim must be this one, or its end.
fn lives(crew: &mut Crew, victim: Who, wanted: &str) -> bool {
    loop {
        match crew.line(victim).as_str() {
            "gone" => return false,
            "ready" => {}
            line => {
                assert!(line.starts_with(wanted), "{line:?} instead of {wanted:?}");
                return true;
            }
        }
    }
}

fn is_empty(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|it| it.len() == 0)
}

/// Goes in, which ends one way or the other, and out again.
fn goes_in_and_out(crew: &mut Crew, victim: Who) -> bool {
    loop {
        match crew.line(victim).as_str() {
            "gone" => return false,
            "ready" | "queued 1" => {}
            line => {
                assert!(line.starts_with("held 1"), "{line:?}");
                break;
            }
        }
    }
    crew.tell(victim, "release 1");
    lives(crew, victim, "released 1")
}

/// Was killed at the step it was told, or ends in good order.
fn end(crew: &mut Crew, victim: Who, alive: bool) -> bool {
    if alive {
        crew.tell(victim, "end");
    }
    let killed = crew.signal_of(victim) == Some(9);
    assert!(alive || killed, "it died of something else");
    !killed
}

fn alone(crew: &mut Crew, order: &str) -> bool {
    let victim = victim(crew, order);
    crew.tell(victim, "acquire 1");
    let alive = goes_in_and_out(crew, victim);
    end(crew, victim, alive)
}

fn as_the_next(crew: &mut Crew, order: &str) -> bool {
    let (holder, next) = (crew.start(), crew.start());
    let victim = victim(crew, order);
    crew.take(holder, 1);
    crew.tell(victim, "acquire 1");
    let queued = lives(crew, victim, "queued 1");
    crew.queue(next, 1);
    crew.release(holder, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    crew.expect_held(next, 1);
    crew.release(next, 1);
    end(crew, victim, alive)
}

fn behind_another(crew: &mut Crew, order: &str) -> bool {
    let (holder, first, last) = (crew.start(), crew.start(), crew.start());
    let victim = victim(crew, order);
    crew.take(holder, 1);
    crew.queue(first, 1);
    crew.tell(victim, "acquire 1");
    let queued = lives(crew, victim, "queued 1");
    crew.queue(last, 1);
    crew.release(holder, 1);
    crew.expect_held(first, 1);
    crew.release(first, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    crew.expect_held(last, 1);
    crew.release(last, 1);
    end(crew, victim, alive)
}

fn behind_one_that_dies(crew: &mut Crew, order: &str) -> bool {
    let (holder, first, last) = (crew.start(), crew.start(), crew.start());
    let victim = victim(crew, order);
    crew.take(holder, 1);
    crew.queue(first, 1);
    crew.tell(victim, "acquire 1");
    let queued = lives(crew, victim, "queued 1");
    crew.queue(last, 1);
    crew.kill(first);
    crew.release(holder, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    crew.expect_held(last, 1);
    crew.release(last, 1);
    end(crew, victim, alive)
}

/// The door is free, but a ticket stands: its owner died at the head.
fn past_a_dead_ticket(crew: &mut Crew, order: &str) -> bool {
    let (holder, dead) = (crew.start(), crew.start());
    crew.take(holder, 1);
    crew.queue(dead, 1);
    crew.kill(dead);
    crew.release(holder, 1);
    alone(crew, order)
}

fn past_a_sleeper(crew: &mut Crew, order: &str) -> bool {
    let (holder, sleeper) = (crew.start(), crew.start());
    // So much more patient than the victim that it never passes a live one.
    let last = crew.start_with(&[("TAKER_WINDOW", "120")]);
    crew.set("TAKER_WINDOW", "40");
    let victim = victim(crew, order);
    crew.take(holder, 1);
    crew.queue(sleeper, 1);
    crew.stop(sleeper);
    crew.tell(victim, "acquire 1");
    let queued = lives(crew, victim, "queued 1");
    crew.queue(last, 1);
    crew.release(holder, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    crew.expect_held(last, 1);
    crew.release(last, 1);
    crew.go_on(sleeper);
    crew.expect_held(sleeper, 1);
    crew.release(sleeper, 1);
    end(crew, victim, alive)
}

fn as_a_sleeper(crew: &mut Crew, order: &str) -> bool {
    let holder = crew.start();
    let next = crew.start_with(&[("TAKER_WINDOW", "60")]);
    let victim = victim(crew, order);
    crew.take(holder, 1);
    crew.tell(victim, "acquire 1");
    let queued = lives(crew, victim, "queued 1") && crew.stop_unless_dead(victim);
    crew.queue(next, 1);
    crew.release(holder, 1);
    crew.expect_held(next, 1);
    if queued {
        crew.go_on(victim);
        // Its mark goes while the door is locked, or it dies on the way.
        until("it has looked at its mark", || {
            crew.has_ended(victim) || crew.tickets().iter().all(|it| is_empty(it))
        });
    }
    crew.release(next, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    end(crew, victim, alive)
}

fn removing(crew: &mut Crew, order: &str) -> bool {
    let user = crew.start();
    crew.take_and_release(user);
    let victim = victim(crew, order);
    crew.tell(victim, "remove");
    let alive = lives(crew, victim, "removed");
    end(crew, victim, alive)
}

/// Somebody new, somebody old: both get in at once, and nothing is left of the dead.
fn check_repaired(crew: &mut Crew) {
    let (newcomer, other) = (crew.start(), crew.start());
    crew.take(newcomer, 1);
    crew.queue(other, 1);
    crew.release(newcomer, 1);
    assert!(!crew.expect_held(other, 1).crashed);
    crew.release(other, 1);
    crew.take_and_release(newcomer);
    crew.expect_no_tickets();
    assert_eq!(crew.ask(newcomer, "remove"), "removed");
    assert!(!crew.lock().exists() && !crew.queue_dir().exists());
}

/// Tells in which case a test failed.
struct Story(String);

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it failed here: {}", self.0);
        }
    }
}

/// Every passage of one step in one scenario; whether there was any.
fn kill_at((name, scenario): (&str, Scenario), step: &str) -> bool {
    for passage in 1..=PASSAGES {
        let order = format!("kill:{step}:{passage}");
        let _story = Story(format!("{name}, {order}"));
        let mut crew = Crew::new();
        crew.by_events_only();
        let alive = scenario(&mut crew, &order);
        crew.by_events_only();
        check_repaired(&mut crew);
        if alive {
            return passage > 1;
        }
    }
    true
}

/// Every step in some scenarios, several times; returns the steps that were reached.
fn kill_everywhere(scenarios: &[(&str, Scenario)], times: usize) -> BTreeSet<&'static str> {
    let mut reached = BTreeSet::new();
    for &scenario in scenarios {
        let steps = all_steps().into_iter();
        // The first round finds out what this scenario reaches.
        let own: Vec<_> = steps.filter(|step| kill_at(scenario, step)).collect();
        for _ in 1..times {
            for step in &own {
                kill_at(scenario, step);
            }
        }
        reached.extend(own);
    }
    reached
}

#[test]
fn p30_p13_death_at_every_step_is_repaired_by_the_next() {
    let reached = std::thread::scope(|scope| {
        let slow = scope.spawn(|| kill_everywhere(&SLEEPERS, TIMES));
        let mut reached = kill_everywhere(&SCENARIOS, TIMES);
        reached.extend(slow.join().expect("every case of the sleepers"));
        reached
    });
    let missed: Vec<_> = all_steps()
        .into_iter()
        .filter(|it| !reached.contains(it))
        .collect();
    assert!(missed.is_empty(), "no scenario reaches {missed:?}");
}
