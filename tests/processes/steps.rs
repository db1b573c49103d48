//! Death at every step of the protocol. A victim is killed before the n-th passage of a step, for
//! every step and every n that a scenario reaches. Afterwards the rest acquire in order, a new
//! process acquires at once, and no ticket is left.
//!
//! The steps are read from the engine's own list, so a new step that no scenario reaches fails a
//! test.

use std::collections::BTreeSet;

use crate::crew::Who;
use crate::queue::Crew;

#[path = "steps_lock.rs"]
mod lock;
#[path = "steps_rwlock.rs"]
mod rwlock;

/// How many passages of one step a scenario kills at. A wait may use its ladder more often than
/// that.
const PASSAGES: usize = 6;

fn all_steps() -> Vec<&'static str> {
    let source = include_str!("../../src/step.rs");
    let (_, behind) = source.split_once("enum Step {").expect("the list of steps");
    let (list, _) = behind.split_once('}').expect("its end");
    let names = list.split(',').filter_map(|line| line.lines().last());
    names
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect()
}

/// What happens around the victim. Returns `true` if it survived.
pub(super) type Scenario = fn(&mut Crew, &str) -> bool;

/// The scenarios of one test, so that several tests can run side by side.
pub(super) struct Group {
    /// How often everything is done. The moment at which the others notice a death differs each
    /// time.
    pub(super) times: usize,
    pub(super) scenarios: &'static [(&'static str, Scenario)],
    /// The steps that these scenarios must reach.
    pub(super) reaches: &'static [&'static str],
}

pub(super) fn victim(crew: &mut Crew, order: &str) -> Who {
    crew.start_unready(&[("STANCHION_AT", order)])
}

/// The next line of the victim must be this one, or its end.
pub(super) fn lives(crew: &mut Crew, victim: Who, wanted: &str) -> bool {
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

/// Sends the victim a command. Its next line must be this one, or its end.
pub(super) fn does(crew: &mut Crew, victim: Who, command: &str, wanted: &str) -> bool {
    crew.tell(victim, command);
    lives(crew, victim, wanted)
}

/// Acquires, which succeeds or fails, and releases.
pub(super) fn goes_in_and_out(crew: &mut Crew, victim: Who) -> bool {
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
    does(crew, victim, "release 1", "released 1")
}

/// It was killed at its step, or ends regularly.
pub(super) fn end(crew: &mut Crew, victim: Who, alive: bool) -> bool {
    if alive {
        crew.tell(victim, "end");
    }
    let killed = crew.process_mut(victim).was_ended_by_kill();
    assert!(alive || killed, "it died of something else");
    !killed
}

/// A new process and an old one both acquire at once, and nothing is left of the dead one.
fn check_repaired(crew: &mut Crew) {
    let (newcomer, other) = (crew.start(), crew.start());
    crew.take(newcomer, 1);
    crew.queue(other, 1);
    crew.release(newcomer, 1);
    assert!(!crew.expect_held(other, 1).crashed);
    crew.release(other, 1);
    crew.take_and_release(newcomer);
    if crew.has_readers() {
        crew.reads(newcomer, 2);
        crew.reads(other, 2);
        crew.release_all(&[(newcomer, 2), (other, 2)]);
    }
    crew.expect_no_tickets();
    assert_eq!(crew.ask(newcomer, "remove"), "removed");
    assert!(!crew.lock().exists() && !crew.queue_dir().exists());
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

/// Runs every passage of one step in one scenario. Returns whether there was any.
fn kill_at((name, scenario): (&str, Scenario), step: &str) -> bool {
    for passage in 1..=PASSAGES {
        let order = format!("kill:{step}:{passage}");
        let _story = Story(format!("{name}, {order}"));
        let mut crew = Crew::new();
        crew.by_events_only().writers_are_unseen();
        let alive = scenario(&mut crew, &order);
        crew.by_events_only();
        check_repaired(&mut crew);
        if alive {
            return passage > 1;
        }
    }
    true
}

/// Every step in the scenarios of a group, several times.
fn kill_everywhere(group: &Group) {
    let mut reached = BTreeSet::new();
    for &scenario in group.scenarios {
        let steps = all_steps().into_iter();
        // The first round finds out which steps this scenario reaches.
        let own: Vec<_> = steps.filter(|step| kill_at(scenario, step)).collect();
        for _ in 1..group.times {
            for step in &own {
                kill_at(scenario, step);
            }
        }
        reached.extend(own);
    }
    eprintln!("reached: {reached:?}");
    let missed = group.reaches.iter().filter(|it| !reached.contains(*it));
    let missed: Vec<_> = missed.collect();
    assert!(missed.is_empty(), "not reached: {missed:?}");
}

/// Makes one test of each group, and one that asserts that each step belongs to a group.
macro_rules! groups {
    ($($test:ident: $group:expr,)*) => {
        $(
            #[test]
            fn $test() {
                kill_everywhere(&$group);
            }
        )*

        #[test]
        fn p30_every_step_is_reached_by_some_group() {
            let reached = [$($group.reaches),*].concat();
            // `tests/permits/steps.rs` covers those of a semaphore.
            let of_slots = ["OpenSlot", "TrySlot", "WatchSlot", "MintToken"];
            let steps = all_steps().into_iter().filter(|it| !of_slots.contains(it));
            let missed = steps.filter(|it| !reached.contains(it));
            let missed: Vec<_> = missed.collect();
            assert!(missed.is_empty(), "no scenario reaches {missed:?}");
        }
    };
}

groups! {
    p30_p13_alone_and_as_the_next: lock::ALONE,
    p30_p13_behind_others: lock::BEHIND,
    p30_p13_among_frozen_waiters: lock::FROZEN,
    p30_p13_without_events: lock::WITHOUT_EVENTS,
    p30_p13_reading: rwlock::READING,
    p30_p13_reading_and_writing_in_one_process: rwlock::IN_ONE_PROCESS,
    p30_p13_writing_among_readers: rwlock::AMONG_READERS,
    p30_p13_reading_and_writing_among_frozen_waiters: rwlock::FROZEN,
    p30_p13_reading_refused_at_the_record: rwlock::REFUSED,
}
