//! Death at every step of a process that reads and writes.

use crate::crew::until;
use crate::queue::Crew;
use crate::rwlock_outsider::Outsider;
use crate::steps::lock::is_empty;
use crate::steps::{Group, does, end, goes_in_and_out, lives, victim};

pub(super) const READING: Group = Group {
    times: 5,
    scenarios: &[
        ("reading alone", reading_alone),
        ("reading after a death", reading_after_a_death),
        ("reading as the next", reading_as_the_next),
        ("reading beside an outsider", reading_beside_an_outsider),
    ],
    reaches: &["TakeCharge", "WriteHeld", "ShareState"],
};

/// Scenarios that use the ladder at the record twice.
pub(super) const REFUSED: Group = Group {
    times: 1,
    scenarios: &[(
        "reading under a replaced file",
        reading_under_a_replaced_file,
    )],
    reaches: &["TakeCharge", "AskDoor", "AskState", "GiveBack"],
};

pub(super) const IN_ONE_PROCESS: Group = Group {
    times: 5,
    scenarios: &[
        ("lending what it has", lending),
        ("going on as a reader", downgrading),
        ("joining its own readers", joining),
    ],
    reaches: &[
        "ClearHeld",
        "WriteHeld",
        "ShareDoor",
        "ShareState",
        "RingDoor",
    ],
};

pub(super) const AMONG_READERS: Group = Group {
    times: 5,
    scenarios: &[
        ("writing among readers", writing_among_readers),
        ("giving up between readers", giving_up),
    ],
    reaches: &[
        "CreateTicket",
        "WatchDoor",
        "TryDoor",
        "CheckMarks",
        "UnlinkTicket",
    ],
};

/// Scenarios that take time, because claim windows end.
pub(super) const FROZEN: Group = Group {
    times: 1,
    scenarios: &[
        ("reading past a frozen waiter", reading_past_a_frozen_waiter),
        ("writing past a frozen reader", writing_past_a_frozen_reader),
        ("as a frozen writer", as_a_frozen_writer),
    ],
    reaches: &["Probe", "MarkTicket", "Unmark", "ShareDoor", "RingDoor"],
};

fn readers(crew: &mut Crew) {
    crew.set("TAKER_KIND", "rwlock");
}

fn reading_alone(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let victim = victim(crew, order);
    crew.tell(victim, "read 1");
    let alive = goes_in_and_out(crew, victim);
    end(crew, victim, alive)
}

fn reading_after_a_death(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let dead = crew.start();
    crew.writes(dead, 1);
    crew.kill(dead);
    reading_alone(crew, order)
}

/// An outsider shares the lock file all the time, and a writer has died. Beside the outsider a
/// reader acquires, whatever happens to the victim.
fn reading_beside_an_outsider(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let outsider = Outsider::shares(crew.lock());
    let other = crew.start();
    let victim = victim(crew, order);
    crew.tell(victim, "read 1");
    crew.tell(other, "read 1");
    crew.expect_in(other, 1);
    let alive = goes_in_and_out(crew, victim);
    crew.release(other, 1);
    let last = crew.start();
    crew.wants_to_write(last, 1);
    drop(outsider);
    crew.serve(last, 1);
    end(crew, victim, alive)
}

/// A holder that came through a deleted lock file refuses the victim for long, or the victim dies
/// before.
fn reading_under_a_replaced_file(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let (holder, other) = (crew.start(), crew.start());
    crew.reads(holder, 1);
    std::fs::remove_file(crew.lock()).expect("the lock file");
    let victim = victim(crew, order);
    let alive =
        does(crew, victim, "read 1", "queued 1") && lives(crew, victim, "failed 1 Replaced");
    let answer = crew.ask(other, "try-read 1");
    assert!(answer.starts_with("failed 1 Replaced"), "{answer}");
    crew.command(holder, "release 1", "released 1 Lost");
    crew.no_holder();
    end(crew, victim, alive)
}

fn reading_as_the_next(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let (holder, other, last) = (crew.start(), crew.start(), crew.start());
    let victim = victim(crew, order);
    crew.writes(holder, 1);
    let queued = does(crew, victim, "read 1", "queued 1");
    crew.wants_to_read(other, 1);
    crew.wants_to_write(last, 1);
    crew.release(holder, 1);
    // Whether the victim acquires beside it or not.
    crew.expect_in(other, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    crew.release(other, 1);
    crew.serve(last, 1);
    end(crew, victim, alive)
}

/// Its own reader arrives after its own writer, and another process reads too.
fn lending(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let (other, last) = (crew.start(), crew.start());
    let victim = victim(crew, order);
    let mut alive = does(crew, victim, "write 0", "held 0");
    alive = alive && does(crew, victim, "read 1", "queued 1");
    // If there is no waiter before it any more, it acquires at once.
    crew.tell(other, "read 1");
    if alive {
        crew.expect(other, "queued 1");
        crew.wants_to_write(last, 1);
        alive = does(crew, victim, "release 0", "released 0") && lives(crew, victim, "held 1");
        crew.expect_held(other, 1);
    } else {
        crew.expect_held(other, 1);
        crew.wants_to_write(last, 1);
    }
    alive = alive && does(crew, victim, "release 1", "released 1");
    crew.release(other, 1);
    crew.serve(last, 1);
    end(crew, victim, alive)
}

fn downgrading(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let (other, last) = (crew.start(), crew.start());
    let victim = victim(crew, order);
    let mut alive = does(crew, victim, "write 0", "held 0");
    crew.tell(other, "read 1");
    if alive {
        crew.expect(other, "queued 1");
        crew.wants_to_write(last, 1);
        alive = does(crew, victim, "downgrade 0", "downgraded 0");
        crew.expect_held(other, 1);
    } else {
        crew.expect_held(other, 1);
        crew.wants_to_write(last, 1);
    }
    alive = alive && does(crew, victim, "release 0", "released 0");
    crew.release(other, 1);
    crew.serve(last, 1);
    end(crew, victim, alive)
}

/// Behind another process's writer that gives up, its reader acquires together with the readers of
/// its own process.
fn joining(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let (writer, last) = (crew.start(), crew.start());
    let victim = victim(crew, order);
    let mut alive = does(crew, victim, "read 0", "held 0");
    if !alive {
        return end(crew, victim, alive);
    }
    crew.wants_to_write(writer, 1);
    crew.tell(victim, "read 1");
    // A writer behind a dead one acquires by itself.
    alive = lives(crew, victim, "queued 1");
    if alive {
        crew.wants_to_write(last, 1);
        crew.cancel(writer, 1);
        // The victim may die on a rung of its ladder meanwhile. Then the writer has acquired and
        // released.
        crew.forget_entry(writer, 1);
        alive = lives(crew, victim, "held 1");
    } else {
        crew.expect_held(writer, 1);
        crew.wants_to_write(last, 1);
        crew.release(writer, 1);
    }
    for slot in 0..=1 {
        crew.tell(victim, &format!("release {slot}"));
        alive = alive && lives(crew, victim, &format!("released {slot}"));
    }
    crew.serve(last, 1);
    end(crew, victim, alive)
}

fn writing_among_readers(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let (one, two, behind) = (crew.start(), crew.start(), crew.start());
    let victim = victim(crew, order);
    crew.reads(one, 1);
    crew.reads(two, 1);
    let queued = does(crew, victim, "write 1", "queued 1");
    crew.tell(behind, "read 1");
    // A writer that has queued may die on a later rung of its ladder. Then it delays no other
    // waiter.
    let waits = queued && crew.must_wait(behind, 1);
    crew.release(one, 1);
    crew.release(two, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    assert!(waits || !alive, "a reader has overtaken a living writer");
    crew.serve(behind, 1);
    end(crew, victim, alive)
}

fn giving_up(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let (inside, behind) = (crew.start(), crew.start());
    let victim = victim(crew, order);
    crew.reads(inside, 1);
    let mut alive = does(crew, victim, "write 1", "queued 1");
    crew.tell(behind, "read 1");
    if alive && crew.must_wait(behind, 1) {
        alive = does(crew, victim, "cancel 1", "cancelled 1");
    } else if alive {
        // It has died on a later rung of its ladder.
        crew.expect(victim, "gone");
        alive = false;
    }
    crew.serve(behind, 1);
    crew.release(inside, 1);
    end(crew, victim, alive)
}

fn reading_past_a_frozen_waiter(crew: &mut Crew, order: &str) -> bool {
    past_a_frozen_waiter(crew, order, "read", "write")
}

fn writing_past_a_frozen_reader(crew: &mut Crew, order: &str) -> bool {
    past_a_frozen_waiter(crew, order, "write", "read")
}

fn past_a_frozen_waiter(crew: &mut Crew, order: &str, awake: &str, asleep: &str) -> bool {
    readers(crew);
    let (holder, frozen) = (crew.start(), crew.start());
    // Much more patient than the victim, so it never bypasses a living waiter.
    let last = crew.start_with(&[("CREW_WINDOW", "300")]);
    crew.set("CREW_WINDOW", "40");
    let victim = victim(crew, order);
    crew.writes(holder, 1);
    crew.queue_by(frozen, asleep, 1);
    crew.stop(frozen);
    let queued = does(crew, victim, &format!("{awake} 1"), "queued 1");
    crew.queue_by(last, awake, 1);
    crew.release(holder, 1);
    let alive = queued && goes_in_and_out(crew, victim);
    crew.expect_held(last, 1);
    crew.resume(frozen);
    crew.release(last, 1);
    crew.serve(frozen, 1);
    end(crew, victim, alive)
}

fn as_a_frozen_writer(crew: &mut Crew, order: &str) -> bool {
    readers(crew);
    let holder = crew.start();
    let next = crew.start_with(&[("CREW_WINDOW", "60")]);
    let victim = victim(crew, order);
    crew.reads(holder, 1);
    let queued = does(crew, victim, "write 1", "queued 1") && crew.process_mut(victim).stop();
    crew.tell(next, "read 1");
    if queued {
        crew.expect(next, "queued 1");
    }
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
