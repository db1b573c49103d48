//! The claim window: probing the door past a frozen waiter, marking, and finding its own mark.

use crate::head::{enter, marked};
use crate::outsider;
use crate::rules::{Mutation, Rules};
use crate::shared;
use crate::steps::{Step, Taken, give_back, go};
use crate::thread;
use crate::world::{Fault, Fd, Life, NONE, Pc, Proc, World, flag};

/// Takes the next step of a process that probes, marks or unmarks.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    match w.procs[p].pc {
        Pc::ProbeOpen => {
            w.open_door(p);
            go(w, p, Pc::ProbeTry, Step::Probe, "opens the door")
        }
        Pc::ProbeTry => probe_try(w, p, rules),
        Pc::ProbeSee => probe_see(w, p),
        Pc::MarkList => mark_list(w, p),
        Pc::Mark => mark(w, p),
        _ => {
            w.own(p).mark = false;
            go(w, p, Pc::Look, Step::Unmark, "")
        }
    }
}

/// The timer's check: if the first ticket before its own is another one, it counts windows from
/// zero.
pub(crate) fn compare(w: &mut World, p: usize, front: u8, behind: u8, rules: &Rules) {
    let proc = &w.procs[p];
    if proc.front != front && !rules.is(Mutation::CountThroughChanges) {
        w.count_anew(p);
    }
    let proc = &mut w.procs[p];
    (proc.front, proc.behind) = (front, behind);
}

fn probe_try(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let shares = rules.is(Mutation::ProbeShared) && w.procs[p].reads();
    if w.try_lock(p, Fd::Door) || (shares && w.try_share(p, Fd::Door)) {
        let asleep = w.mask(|q| q.life != Life::Awake || q.has(flag::SLEPT));
        w.procs[p].exempt |= asleep | marked(w);
        return go(w, p, Pc::ProbeSee, Step::Probe, "free");
    }
    let lock = *w.lock_behind(p, Fd::Door)?;
    if shared::all_passing(w, lock) && !rules.is(Mutation::ProbeWithoutLadder) {
        return None;
    }
    w.count_anew(p);
    w.procs[p].next = Pc::WaitPred;
    go(w, p, Pc::GiveClose, Step::Probe, "not free")
}

/// With the door locked for an instant: has the token not changed since the last check?
fn probe_see(w: &mut World, p: usize) -> Taken {
    let token = match w.state_path {
        NONE => 0,
        state => w.states[usize::from(state)].token,
    };
    if w.procs[p].door != w.door_path {
        w.count_anew(p);
        return give_back(w, p, Pc::WaitPred, Step::Probe, "another file by now");
    }
    let proc = &mut w.procs[p];
    let counts_on = proc.looks > 0 && proc.seen == token;
    proc.looks = if counts_on { proc.looks + 1 } else { 1 };
    proc.seen = token;
    if proc.looks > proc.behind {
        return go(
            w,
            p,
            Pc::MarkList,
            Step::Probe,
            "the windows are over: passes",
        );
    }
    give_back(w, p, Pc::WaitPred, Step::Probe, "waits one more window")
}

/// With the door locked for good: which tickets does it bypass?
fn mark_list(w: &mut World, p: usize) -> Taken {
    let own = *w.own(p);
    if !own.linked {
        return give_back(w, p, Pc::Retake, Step::ListQueue, "own ticket is gone");
    }
    let mine = w.place(usize::from(w.procs[p].own));
    let passed = |t: &usize| {
        let ticket = w.tickets[*t];
        ticket.linked && !ticket.mark && w.place(*t) < mine
    };
    let skip = w.slots().filter(passed).fold(0, |mask, t| mask | 1 << t);
    w.procs[p].skip = skip;
    if skip == 0 {
        return go_in(w, p, Step::ListQueue, "none left to bypass");
    }
    go(w, p, Pc::Mark, Step::ListQueue, "tickets to bypass")
}

/// Opens one ticket, writes the mark, closes it. The close is an event for every process that
/// watches that ticket.
fn mark(w: &mut World, p: usize) -> Taken {
    let skip = w.procs[p].skip;
    if skip == 0 {
        return go_in(w, p, Step::MarkTicket, "all gone");
    }
    let t = skip.trailing_zeros() as usize;
    w.procs[p].skip = skip & (skip - 1);
    if w.named_as(t) == Some(t) {
        w.tickets[t].mark = true;
        w.ticket_event(p, t as u8);
    }
    if w.procs[p].skip == 0 {
        return go_in(w, p, Step::MarkTicket, "");
    }
    go(w, p, Pc::Mark, Step::MarkTicket, "")
}

/// It has bypassed all frozen waiters. A reader first lets the other readers enter.
fn go_in(w: &mut World, p: usize, step: Step, note: &'static str) -> Taken {
    if w.procs[p].reads() {
        return go(w, p, Pc::PassDoor, step, note);
    }
    enter(w, p, step, note)
}

/// Nothing moves by itself before the next timer.
fn is_quiet(w: &World, p: usize) -> bool {
    if thread::can_step(w, p) {
        return false;
    }
    let proc = &w.procs[p];
    let urgent = flag::LADDER | flag::DUE | flag::PRED_EVENT | flag::DOOR_EVENT;
    match proc.life {
        Life::Stopped | Life::Dead => true,
        Life::Dying => false,
        Life::Awake => match proc.pc {
            Pc::Idle | Pc::Done => true,
            Pc::Held => proc.own == NONE && !proc.has(flag::TOLD),
            Pc::WaitPred | Pc::WaitDoor => !proc.has(urgent),
            Pc::Outside => !outsider::may_lock(w, p),
            _ => false,
        },
    }
}

/// Returns whether this process may handle its timer. Timers of one length fire in turn: between
/// two checks of one waiter, each other running waiter completes one check. The order of the queue
/// represents any such turn. With jitter, each waiter only checks once a window.
pub(crate) fn is_due(w: &World, p: usize, rules: &Rules) -> bool {
    let number = |q: usize| w.place(usize::from(w.procs[q].own));
    let first = |q: usize| w.procs[q].own == NONE || is_quiet(w, q) || number(q) >= number(p);
    w.procs[p].has(flag::DUE) && (rules.jitter || (0..w.procs.len()).all(first))
}

/// A window ends, only when nothing else can move. All timers become due, and may fire between any
/// steps of others. Returns true if it ended.
pub(crate) fn pass(w: &mut World) -> bool {
    let waiting =
        |proc: &Proc| proc.life == Life::Awake && matches!(proc.pc, Pc::WaitPred | Pc::WaitDoor);
    if w.mask(waiting) == 0 || !(0..w.procs.len()).all(|p| is_quiet(w, p)) {
        return false;
    }
    for proc in &mut w.procs {
        if proc.life == Life::Awake {
            proc.clear(flag::SLEPT);
        }
        if waiting(proc) {
            proc.set(flag::DUE);
        }
    }
    let free = w.door_path == NONE || w.doors[usize::from(w.door_path)].lock == 0;
    if !free {
        w.idle = 0;
        return true;
    }
    w.idle += 1;
    let asleep = w.mask(|proc| proc.life == Life::Stopped).count_ones() as u8;
    let owned = |t: usize| w.procs.iter().any(|proc| usize::from(proc.own) == t);
    let dead = w
        .slots()
        .filter(|&t| w.tickets[t].linked && !owned(t))
        .count() as u8;
    if asleep == 0 && marked(w) == 0 {
        w.fail(Fault::Stuck);
    } else if w.idle > 1 + (asleep + dead).max(1) {
        w.fail(Fault::Frozen);
    }
    true
}
