//! Everything that releases something: release, cancel, a wrong door, `remove`.

use crate::copies;
use crate::rules::{Mutation, Rules};
use crate::shared;
use crate::steps::{Step, Taken, go};
use crate::thread;
use crate::world::{Fd, Life, NONE, Pc, Proc, Report, Role, World, flag};

/// Takes the next step of a process that releases something.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let taken = match w.procs[p].pc {
        Pc::GiveUnlock => give_unlock(w, p),
        Pc::GiveClose => give_close(w, p, rules),
        _ => leave(w, p, rules),
    };
    finish(w, p);
    taken
}

/// The first step of a release: it drops the guard and the held flag.
pub(crate) fn release(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let proc = &mut w.procs[p];
    if proc.has(flag::SHARED) && !proc.has(flag::TOLD) {
        proc.clear(flag::GUARD | flag::SHARED);
        proc.pc = Pc::Leave;
        return leave(w, p, rules);
    }
    let state = &mut w.states[usize::from(proc.state)];
    if proc.has(flag::TOLD) {
        proc.clear(flag::TOLD);
        (state.held, state.found) = (false, false);
        return Some((Step::ClearHeld, "has reported the crash"));
    }
    if proc.has(flag::LATE) {
        proc.clear(flag::LATE);
        state.token = proc.token;
        return Some((Step::WriteHeld, "the token, late"));
    }
    state.held = false;
    proc.clear(flag::GUARD | flag::WRITTEN);
    proc.token = 0;
    go(w, p, Pc::Leave, Step::ClearHeld, "")
}

fn give_unlock(w: &mut World, p: usize) -> Taken {
    w.unlock(p, Fd::Door);
    let step = match w.procs[p].next {
        Pc::Draw | Pc::Look => Step::GiveBack,
        Pc::WaitPred => Step::Probe,
        _ => Step::UnlockDoor,
    };
    go(w, p, Pc::GiveClose, step, "unlocks the door")
}

fn give_close(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if !rules.is(Mutation::GiveBackWithoutClose) {
        w.announce(p, Fd::Door);
    }
    w.forget(p, Fd::Door);
    let next = std::mem::replace(&mut w.procs[p].next, Pc::Idle);
    go(w, p, next, Step::CloseDoor, "")
}

/// Releases, in order, everything that the process has except its ticket.
fn leave(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let proc = w.procs[p];
    if proc.has(flag::GIVES_UP) && !w.own(p).mark {
        w.own(p).mark = true;
        return Some((Step::MarkTicket, "its own: the offer is unclaimed"));
    }
    if proc.has(flag::WRITTEN) {
        return unwrite(w, p, rules);
    }
    if proc.reads() && proc.has(flag::CRASHED) {
        return shared::untake_charge(w, p, rules);
    }
    let door_first = rules.is(Mutation::DoorBeforeState) && proc.door != NONE;
    if w.locks(p, Fd::State) && !door_first {
        w.unlock(p, Fd::State);
        if proc.role == Role::Remover {
            w.forget(p, Fd::State);
        }
        return Some((Step::UnlockState, ""));
    }
    if proc.door != NONE {
        return leave_door(w, p, rules);
    }
    if proc.pred != NONE {
        w.close_half(p, Fd::Pred);
        return Some((Step::CloseTicket, "the predecessor's"));
    }
    None
}

/// The held flag was written without a guard: restores its old value.
fn unwrite(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let proc = &mut w.procs[p];
    let crashed = proc.has(flag::CRASHED) && !rules.is(Mutation::SwallowCrash);
    w.states[usize::from(proc.state)].held = crashed;
    proc.clear(flag::WRITTEN | flag::CRASHED | flag::LATE);
    proc.token = 0;
    Some((Step::ClearHeld, "as it was found"))
}

fn leave_door(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let locked = w.locks(p, Fd::Door);
    if w.procs[p].role == Role::Outsider {
        // Its process ends without an unlock.
        w.close_half(p, Fd::Door);
        return Some((Step::CloseDoor, "as the kernel does it"));
    }
    if locked && rules.is(Mutation::CloseBeforeUnlock) && w.procs[p].next != Pc::Done {
        w.announce(p, Fd::Door);
        w.procs[p].next = Pc::Done;
        return Some((Step::CloseDoor, "before the unlock"));
    }
    if locked {
        w.unlock(p, Fd::Door);
        if w.procs[p].next == Pc::Done {
            w.procs[p].next = Pc::Idle;
            w.forget(p, Fd::Door);
        }
        return Some((Step::UnlockDoor, ""));
    }
    w.close_half(p, Fd::Door);
    Some((Step::CloseDoor, ""))
}

/// The ticket is deleted any time after the guard exists or the call was given up, beside the main
/// program.
pub(crate) fn tidy(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let proc = w.procs[p];
    if !matches!(proc.pc, Pc::Held | Pc::Leave) || proc.own == NONE || proc.has(flag::GIVES_UP) {
        return None;
    }
    let closing = proc.announced & Fd::Own.bit() != 0;
    if !closing && w.own(p).linked {
        if w.locks(p, Fd::Own) {
            w.own(p).linked = false;
            w.idle = 0;
            if rules.spares {
                w.ticket_event(p, proc.own);
            }
            if rules.spares && !rules.has_threads() {
                w.set_aside(p);
                finish(w, p);
                return Some((Step::UnlinkTicket, "keeps the file"));
            }
            return Some((Step::UnlinkTicket, ""));
        }
        if w.try_lock(p, Fd::Own) {
            return Some((Step::LockTicket, "to unlink it"));
        }
    }
    if rules.spares && rules.has_threads() && !closing && w.locks(p, Fd::Own) {
        if !rules.is(Mutation::WakeLockKept) {
            thread::release(w, proc.own);
        }
        w.set_aside(p);
        finish(w, p);
        return Some((Step::CloseTicket, "keeps the file"));
    }
    let closed = w.close_half(p, Fd::Own);
    finish(w, p);
    Some((Step::CloseTicket, if closed { "" } else { "announced" }))
}

/// Ends the round when nothing is left to release.
pub(crate) fn finish(w: &mut World, p: usize) {
    let proc = w.procs[p];
    let busy = proc.pc != Pc::Leave
        || proc.has(flag::WRITTEN)
        || w.locks(p, Fd::State)
        || proc.door != NONE
        || proc.pred != NONE;
    if busy {
        return;
    }
    if proc.has(flag::GIVES_UP) {
        let proc = &mut w.procs[p];
        proc.clear(flag::GIVES_UP);
        proc.set(flag::SLEPT);
        (proc.life, proc.pc) = (Life::Stopped, Pc::Look);
    } else if proc.own == NONE {
        w.leaves_line(p);
        let mut fresh = Proc::new(proc.role, proc.rounds - 1);
        (fresh.deaf, fresh.old, fresh.thread) = (proc.deaf, proc.old, proc.thread);
        fresh.set(proc.flags & flag::THREAD_FREE);
        if fresh.rounds > 0 {
            (fresh.state, fresh.spare) = (proc.state, proc.spare);
        } else if proc.spare != NONE {
            w.drop_spare(p);
        }
        w.procs[p] = fresh;
    }
}

/// `remove`, with door and state locked and an empty queue.
pub(crate) fn remove(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let state = usize::from(w.procs[p].state);
    match w.procs[p].pc {
        Pc::Tomb => {
            // A process that has it open finds another file, or none, under its name.
            if !w.procs[p].has(flag::LINKED) || rules.is(Mutation::TombstonesLinked) {
                copies::judge_write(w, p);
                w.states[state].tombstone = true;
            }
            if matches!(w.report, Report::Must | Report::Left) {
                w.report = Report::May;
            }
            go(w, p, Pc::UnlinkState, Step::TombstoneState, "")
        }
        Pc::UnlinkState => {
            if w.state_path == w.procs[p].state {
                w.state_path = NONE;
            }
            go(w, p, Pc::RemoveQueue, Step::UnlinkState, "")
        }
        Pc::RemoveQueue if w.queue_is_empty() && w.state_path == NONE => {
            w.queue = false;
            go(w, p, Pc::CheckRemove, Step::RemoveQueue, "")
        }
        Pc::RemoveQueue => go(w, p, Pc::StateBack, Step::RemoveQueue, "refused"),
        Pc::StateBack => {
            if w.queue && w.state_path == NONE {
                let old = w.states[state];
                w.create_state(old.token, old.held);
                w.states[usize::from(w.state_path)].door = old.door;
            }
            go(w, p, Pc::Leave, Step::RemoveQueue, "state back: InUse")
        }
        Pc::CheckRemove => {
            let same = w.procs[p].door == w.door_path || rules.is(Mutation::RemoveWithoutCheck);
            let next = if same { Pc::UnlinkDoor } else { Pc::Leave };
            go(w, p, next, Step::CheckDoor, "")
        }
        _ => {
            w.door_path = NONE;
            go(w, p, Pc::Leave, Step::UnlinkDoor, "")
        }
    }
}
