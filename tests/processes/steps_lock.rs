//! Death at every step of a process that takes a plain fair lock.

use std::path::Path;

use crate::crew::until;
use crate::queue::Crew;
use crate::steps::{Group, does, end, goes_in_and_out, victim};

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

/// The same where threads wait for the tickets.
pub(super) const WITHOUT_EVENTS: Group = Group {
    times: 3,
    scenarios: &[
        (
            "behind another, without events",
            behind_another_without_events,
        ),
        (
            "behind one that dies, without events",
            behind_one_that_dies_without_events,
        ),
    ],
    reaches: &["StartThread", "ThreadWakes"],
};

/// Scenarios that take time, because claim windows end.
pub(super) const FROZEN: Group = Group {
    times: 5,
    scenarios: &[
        ("past a frozen waiter", past_a_frozen_waiter),
        ("as a frozen waiter", as_a_frozen_waiter),
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
    let queued = does(crew, victim, "acquire 1", "queued 1");
    crew.queue(next, 1);
    crew.release(holder, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    crew.serve(next, 1);
    end(crew, victim, alive)
}

fn behind_another(crew: &mut Crew, order: &str) -> bool {
    behind_one(crew, order, false)
}

fn behind_one_that_dies(crew: &mut Crew, order: &str) -> bool {
    behind_one(crew, order, true)
}

fn behind_another_without_events(crew: &mut Crew, order: &str) -> bool {
    crew.set("STANCHION_NO_INOTIFY", "24");
    behind_one(crew, order, false)
}

fn behind_one_that_dies_without_events(crew: &mut Crew, order: &str) -> bool {
    crew.set("STANCHION_NO_INOTIFY", "24");
    behind_one(crew, order, true)
}

fn behind_one(crew: &mut Crew, order: &str, that_dies: bool) -> bool {
    let (holder, first, last) = (crew.start(), crew.start(), crew.start());
    let victim = victim(crew, order);
    crew.take(holder, 1);
    crew.queue(first, 1);
    let queued = does(crew, victim, "acquire 1", "queued 1");
    crew.queue(last, 1);
    if that_dies {
        crew.kill(first);
    }
    crew.release(holder, 1);
    if !that_dies {
        crew.serve(first, 1);
    }
    let alive = queued && goes_in_and_out(crew, victim);
    crew.serve(last, 1);
    end(crew, victim, alive)
}

/// The door is free, but there is a ticket: its owner died at the head.
fn past_a_dead_ticket(crew: &mut Crew, order: &str) -> bool {
    let (holder, dead) = (crew.start(), crew.start());
    crew.take(holder, 1);
    crew.queue(dead, 1);
    crew.kill(dead);
    crew.release(holder, 1);
    alone(crew, order)
}

fn past_a_frozen_waiter(crew: &mut Crew, order: &str) -> bool {
    let (holder, frozen) = (crew.start(), crew.start());
    // Much more patient than the victim, so it never bypasses a living waiter.
    let last = crew.start_with(&[("CREW_WINDOW", "300")]);
    crew.set("CREW_WINDOW", "40");
    let victim = victim(crew, order);
    crew.take(holder, 1);
    crew.queue(frozen, 1);
    crew.stop(frozen);
    let queued = does(crew, victim, "acquire 1", "queued 1");
    crew.queue(last, 1);
    crew.release(holder, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    crew.serve(last, 1);
    crew.resume(frozen);
    crew.serve(frozen, 1);
    end(crew, victim, alive)
}

fn as_a_frozen_waiter(crew: &mut Crew, order: &str) -> bool {
    let holder = crew.start();
    let next = crew.start_with(&[("CREW_WINDOW", "60")]);
    let victim = victim(crew, order);
    crew.take(holder, 1);
    let queued = does(crew, victim, "acquire 1", "queued 1") && crew.process_mut(victim).stop();
    crew.queue(next, 1);
    crew.release(holder, 1);
    crew.expect_held(next, 1);
    if queued {
        crew.resume(victim);
        // Its mark is deleted while the door is locked, or it dies on the way.
        until("it has looked at its mark", || {
            crew.process(victim).has_ended() || crew.tickets().iter().all(|it| is_empty(it))
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
    let alive = does(crew, victim, "remove", "removed");
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
