//! Death at every step of a semaphore. A victim is killed before the n-th passage of a step, for
//! every step and every n that a scenario reaches. Afterwards the rest acquire in order, a new
//! process gets everything at once, and no ticket is left.

use std::collections::BTreeSet;

use crate::crew::{Who, until};
use crate::pool::Crew;

/// How many passages of one step a scenario kills at.
const PASSAGES: usize = 6;

/// The steps of semaphores only.
const OWN: [&str; 4] = ["OpenSlot", "TrySlot", "WatchSlot", "MintToken"];

fn all_steps() -> Vec<&'static str> {
    let source = include_str!("../../src/step.rs");
    let (_, behind) = source.split_once("enum Step {").expect("the list of steps");
    let (list, _) = behind.split_once('}').expect("its end");
    let names = list.split(',').filter_map(|line| line.lines().last());
    let names = names.map(str::trim);
    names.filter(|name| !name.is_empty()).collect()
}

/// What happens around the victim. Returns `true` if it survived.
type Scenario = fn(&mut Crew, Who) -> bool;

const SCENARIOS: [(&str, Scenario); 6] = [
    ("alone", alone),
    ("as the next", as_the_next),
    ("with a part", with_a_part),
    ("past a dead ticket", past_a_dead_ticket),
    ("two tasks", two_tasks),
    ("more permits", more_permits),
];

/// The next line of the victim must be one of these, or its end.
fn lives(crew: &mut Crew, victim: Who, wanted: &[&str]) -> bool {
    loop {
        match crew.line(victim).as_str() {
            "gone" => return false,
            "ready" => {}
            line => {
                let fits = wanted.iter().any(|it| line.starts_with(it));
                assert!(fits, "{line:?} instead of {wanted:?}");
                return true;
            }
        }
    }
}

fn alone(crew: &mut Crew, victim: Who) -> bool {
    crew.tell(victim, "acquire 1 2");
    if !lives(crew, victim, &["held 1 "]) {
        return false;
    }
    crew.tell(victim, "release 1");
    lives(crew, victim, &["released 1"])
}

/// Waits, acquires and releases. The waiter behind it acquires, whatever happens to the victim.
fn between(crew: &mut Crew, victim: Who, wish: u32, let_in: impl FnOnce(&mut Crew)) -> bool {
    crew.tell(victim, &format!("acquire 1 {wish}"));
    let queued = lives(crew, victim, &["queued 1"]);
    let next = crew.start();
    crew.queue((next, 1), 3);
    let_in(crew);
    let alive = queued && lives(crew, victim, &["held 1 "]) && {
        crew.tell(victim, "release 1");
        lives(crew, victim, &["released 1"])
    };
    crew.serve((next, 1));
    alive
}

fn as_the_next(crew: &mut Crew, victim: Who) -> bool {
    let holder = crew.start();
    crew.take((holder, 1), 3);
    between(crew, victim, 2, |crew| crew.release((holder, 1)))
}

fn with_a_part(crew: &mut Crew, victim: Who) -> bool {
    let holder = crew.start();
    crew.take((holder, 1), 1);
    crew.take((holder, 2), 1);
    between(crew, victim, 3, |crew| {
        crew.release((holder, 1));
        crew.release((holder, 2));
    })
}

fn past_a_dead_ticket(crew: &mut Crew, victim: Who) -> bool {
    let (holder, dead) = (crew.start(), crew.start());
    crew.take((holder, 1), 3);
    crew.queue((dead, 1), 3);
    between(crew, victim, 1, |crew| {
        crew.kill(dead);
        crew.release((holder, 1));
    })
}

/// A permit that one task releases goes to the other in memory.
fn two_tasks(crew: &mut Crew, victim: Who) -> bool {
    for (number, answer) in [(1, "held 1 "), (2, "queued 2")] {
        crew.tell(victim, &format!("acquire {number} 3"));
        if !lives(crew, victim, &[answer]) {
            return false;
        }
    }
    crew.tell(victim, "release 1");
    let both = ["released 1", "held 2 "];
    if !lives(crew, victim, &both) || !lives(crew, victim, &both) {
        return false;
    }
    crew.tell(victim, "release 2");
    lives(crew, victim, &["released 2"])
}

/// It sets the number to its present value, which takes the same steps.
fn more_permits(crew: &mut Crew, victim: Who) -> bool {
    crew.tell(victim, "resize 1 3");
    lives(crew, victim, &["resized 1"])
}

/// Runs every passage of one step in one scenario. Returns whether there was any.
fn kill_at((name, scenario): (&str, Scenario), step: &str) -> bool {
    for passage in 1..=PASSAGES {
        let order = format!("kill:{step}:{passage}");
        let _story = Story(format!("{name}, {order}"));
        let mut crew = Crew::new(3);
        crew.by_events_only();
        let victim = crew.start_unready(&[("STANCHION_AT", &order)]);
        let alive = scenario(&mut crew, victim);
        match alive {
            true => crew.kill(victim),
            false => crew.expect_killed(victim),
        }
        let (newcomer, other) = (crew.start(), crew.start());
        crew.expect_idle(newcomer);
        crew.take((newcomer, 1), 2);
        crew.queue((other, 1), 2);
        crew.release((newcomer, 1));
        crew.serve((other, 1));
        until("it can be removed", || {
            crew.ask(other, "remove") == "removed"
        });
        assert!(!crew.queue_dir().exists());
        if alive {
            return passage > 1;
        }
    }
    true
}

/// Prints the case in which a test failed.
struct Story(String);

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it failed here: {}", self.0);
        }
    }
}

#[test]
fn p30_p13_death_at_every_step_of_a_semaphore_is_repaired_by_the_next() {
    let mut reached = BTreeSet::new();
    for scenario in SCENARIOS {
        let steps = all_steps().into_iter();
        reached.extend(steps.filter(|step| kill_at(scenario, step)));
    }
    let missed: Vec<_> = OWN.iter().filter(|it| !reached.contains(*it)).collect();
    assert!(missed.is_empty(), "no scenario reaches {missed:?}");
}
