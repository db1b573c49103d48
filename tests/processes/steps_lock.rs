//! Death at every step, of one who takes a plain lock.

use std::path::Path;

use crate::crew::{Crew, until};
use crate::steps::{Group, end, goes_in_and_out, lives, victim};

pub(super) const ALONE: Group = Group {
    times: 5,
    scenarios: &[
        ("alone", alone),
        ("as the next", as_the_next),
        ("past a dead ticket", past_a_dead_ticket),
        ("while it removes the lock", removing),
        ("into a record with another name", into_a_linked_record),
    ],
    reaches: &[
        "CheckDoor",
        "CheckMarks",
        "CheckPredecessor",
        "ClearHeld",
        "CloseDoor",
        "CloseTicket",
        "CopyState",
        "CreateTicket",
        "FastCheck",
        "FastList",
        "FastOpen",
        "FastTryDoor",
        "GiveBack",
        "Grant",
        "ListQueue",
        "LockState",
        "OpenDoor",
        "OpenPredecessor",
        "ReapPredecessor",
        "RemoveQueue",
        "ReplaceState",
        "TombstoneState",
        "TryDoor",
        "TryPredecessor",
        "UnlinkDoor",
        "UnlinkState",
        "UnlinkTicket",
        "UnlockDoor",
        "UnlockState",
        "WatchDoor",
        "WatchPredecessor",
        "WriteHeld",
    ],
};

pub(super) const BEHIND: Group = Group {
    times: 5,
    scenarios: &[
        ("behind another", behind_another),
        ("behind one that dies", behind_one_that_dies),
    ],
    reaches: &[
        "OpenPredecessor",
        "WatchPredecessor",
        "CheckPredecessor",
        "TryPredecessor",
        "ReapPredecessor",
    ],
};

/// Those that take their time: claim windows go by.
pub(super) const SLEEPERS: Group = Group {
    times: 5,
    scenarios: &[
        ("past a sleeper", past_a_sleeper),
        ("as a sleeper", as_a_sleeper),
    ],
    reaches: &["Probe", "MarkTicket", "Unmark"],
};

pub(super) fn is_empty(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|it| it.len() == 0)
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

fn into_a_linked_record(crew: &mut Crew, order: &str) -> bool {
    let user = crew.start();
    crew.take_and_release(user);
    let elsewhere = crew.lock().with_extension("elsewhere");
    std::fs::hard_link(crew.state(), &elsewhere).expect("a second name");
    let before = std::fs::read(&elsewhere).expect("content");
    let alive = alone(crew, order);
    assert_eq!(std::fs::read(&elsewhere).expect("content"), before);
    alive
}
