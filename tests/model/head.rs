//! The head of the queue: watches the door, enters, holds. Also how every grant is judged.

use crate::copies;
use crate::kernel::holders;
use crate::leave;
use crate::rules::{Mutation, Rules};
use crate::shared;
use crate::steps::{Step, Taken, give_back, go, sleep};
use crate::window;
use crate::world::{Fault, Fd, Life, N, NONE, Pc, Proc, Report, Role, World, flag};

/// Takes the next step of a process at the door.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    match w.procs[p].pc {
        Pc::OpenDoor => {
            w.open_door(p);
            go(w, p, Pc::WatchDoor, Step::OpenDoor, "")
        }
        Pc::WatchDoor => {
            w.procs[p].set(flag::DOOR_WATCH);
            go(w, p, Pc::CheckWatch, Step::WatchDoor, "")
        }
        Pc::CheckWatch => check_watch(w, p),
        Pc::WaitDoor => wait_door(w, p, rules),
        Pc::CheckDoor => check_door(w, p, rules),
        Pc::CheckMarks => check_marks(w, p),
        Pc::OpenState => open_state(w, p),
        Pc::LockState => lock_state(w, p, rules),
        Pc::WriteHeld => write_held(w, p, rules),
        Pc::Grant => grant(w, p),
        Pc::Held => leave::release(w, p, rules),
        _ => None,
    }
}

/// There is no unmarked ticket before it, so it is the head.
pub(crate) fn become_head(w: &mut World, p: usize) -> Taken {
    if w.procs[p].pred != NONE {
        w.close_half(p, Fd::Pred);
    }
    let proc = &mut w.procs[p];
    proc.clear(flag::LOOK);
    let door = proc.door;
    w.count_anew(p);
    if door == NONE {
        return go(w, p, Pc::OpenDoor, Step::ListQueue, "I am the head");
    }
    w.procs[p].set(flag::LADDER);
    go(w, p, Pc::WaitDoor, Step::ListQueue, "I am the head")
}

/// After the watch: is the watched file still the lock file?
fn check_watch(w: &mut World, p: usize) -> Taken {
    if w.procs[p].door == w.door_path {
        w.procs[p].set(flag::LADDER);
        return go(w, p, Pc::WaitDoor, Step::CheckDoor, "");
    }
    w.close_half(p, Fd::Door);
    go(w, p, Pc::OpenDoor, Step::CheckDoor, "another file by now")
}

/// Waits for an event of the door, or tries again on the ladder.
fn wait_door(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let woken = w.procs[p].has(flag::DOOR_EVENT) || window::is_due(w, p, rules);
    if woken {
        w.procs[p].clear(flag::DOOR_EVENT | flag::DUE);
        w.procs[p].set(flag::LADDER);
        if rules.windows {
            let marked = w.own(p).mark;
            let next = if marked { Pc::Unmark } else { Pc::WaitDoor };
            return go(
                w,
                p,
                next,
                Step::CheckMarks,
                "woken: checks for its own mark",
            );
        }
    }
    if w.procs[p].has(flag::LADDER) {
        if w.try_door(p) {
            w.procs[p].clear(flag::LADDER);
            return go(w, p, Pc::CheckDoor, Step::TryDoor, "got it");
        }
        if woken {
            return Some((Step::TryDoor, "woken: refused"));
        }
        return sleep(w, p, Fd::Door, Step::TryDoor, rules);
    }
    None
}

/// Holding the door: is it still the lock file?
fn check_door(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if w.procs[p].door != w.door_path && !rules.is(Mutation::NoCheckDoor) {
        return give_back(w, p, Pc::OpenDoor, Step::CheckDoor, "another file by now");
    }
    if w.procs[p].skip == 0 {
        return enter(w, p, Step::CheckDoor, "");
    }
    if rules.is(Mutation::MarksNotRechecked) {
        return enter(w, p, Step::CheckDoor, "");
    }
    go(w, p, Pc::CheckMarks, Step::CheckDoor, "")
}

/// Holding the door: are the skipped marks still there?
fn check_marks(w: &mut World, p: usize) -> Taken {
    let skip = w.procs[p].skip;
    if marks_gone(w, skip) {
        w.idle = 0;
        return give_back(w, p, Pc::Look, Step::CheckMarks, "a mark is gone");
    }
    w.procs[p].exempt = marked(w);
    enter(w, p, Step::CheckMarks, "")
}

/// Returns whether one of these tickets has lost its mark.
pub(crate) fn marks_gone(w: &World, skip: u8) -> bool {
    let mut skipped = w.slots().filter(|t| skip & (1 << t) != 0);
    skipped.any(|t| w.named_as(t).is_some_and(|t| !w.tickets[t].mark))
}

/// The processes whose ticket is marked.
pub(crate) fn marked(w: &World) -> u8 {
    w.mask(|q| q.own != NONE && w.tickets[usize::from(q.own)].mark)
}

/// The door is locked; the state file is next. Whether that file is the current one shows when it
/// is locked.
pub(crate) fn enter(w: &mut World, p: usize, step: Step, note: &'static str) -> Taken {
    let open = w.procs[p].state != NONE;
    let next = if open { at_state(w, p) } else { Pc::OpenState };
    go(w, p, next, step, note)
}

/// Returns the next step when the state file is open.
fn at_state(w: &World, p: usize) -> Pc {
    match w.procs[p].reads() {
        true => Pc::ReadState,
        false => Pc::LockState,
    }
}

fn open_state(w: &mut World, p: usize) -> Taken {
    w.queue = true;
    if w.state_path == NONE {
        w.create_state(0, false);
    }
    w.procs[p].state = w.state_path;
    let next = at_state(w, p);
    go(w, p, next, Step::LockState, "opens it")
}

fn lock_state(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let locked = rules.is(Mutation::NoStateLock) || w.try_lock(p, Fd::State);
    let state = w.procs[p].state;
    let stale = w.state_path != state;
    if !locked && (!stale || rules.is(Mutation::RefusalUnchecked)) {
        return state_refused(w, p, rules);
    }
    let seen = !rules.is(Mutation::LockedUnchecked) || w.states[usize::from(state)].tombstone;
    if stale && seen {
        w.unlock(p, Fd::State);
        w.forget(p, Fd::State);
        return go(w, p, Pc::OpenState, Step::LockState, "another file by now");
    }
    let next = match w.procs[p].role {
        Role::Locker | Role::Reader => copies::before_write(w, p, rules),
        Role::Remover => {
            copies::note_names(w, p);
            Pc::Tomb
        }
        Role::Outsider | Role::Onlooker => unreachable!("it does not enter"),
    };
    go(w, p, next, Step::LockState, "")
}

/// The state file is locked. A dying holder will release it. A living one holds under another door.
fn state_refused(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if rules.is(Mutation::ReplacedAtOnce) {
        return replaced(w, p, rules, Step::LockState);
    }
    shared::judge_refusal(w, p, rules);
    let proc = w.procs[p];
    match proc.role {
        Role::Remover if shared::names_my_door(w, p, rules) => {
            go(w, p, Pc::Leave, Step::LockState, "refused: InUse")
        }
        Role::Remover => replaced(w, p, rules, Step::LockState),
        Role::Locker | Role::Reader => shared::refused(w, p, Step::LockState),
        Role::Outsider | Role::Onlooker => unreachable!("it does not enter"),
    }
}

/// Gives up because a process holds under another door. It is a fault if no process does.
pub(crate) fn replaced(w: &mut World, p: usize, rules: &Rules, step: Step) -> Taken {
    let others = holders(*w.lock_behind(p, Fd::State)?);
    // A remover does not use the ladder. It may take a dying process that has not written yet for a
    // living one.
    let doubts = w.procs[p].role == Role::Remover;
    let elsewhere = |q: usize| {
        let other = &w.procs[q];
        let lives = other.life != Life::Dying && other.door != w.procs[p].door;
        others & (1 << q) != 0 && (lives || doubts)
    };
    if !(0..N).any(elsewhere) || (rules.intrusions == 0 && !doubts) {
        w.fail(Fault::Replaced);
    }
    w.leaves_line(p);
    go(w, p, Pc::Leave, step, "refused: Replaced")
}

fn write_held(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if w.procs[p].reads() {
        return shared::write_as_reader(w, p, rules);
    }
    copies::judge_write(w, p);
    let last = w.last_token;
    let state = &mut w.states[usize::from(w.procs[p].state)];
    let proc = &mut w.procs[p];
    let floor = if rules.wall { last } else { 0 };
    proc.token = state.token.max(floor) + 1;
    if rules.is(Mutation::TokenAfterGuard) {
        proc.set(flag::LATE);
    } else {
        state.token = proc.token;
    }
    if state.held && !state.tombstone && !state.copied {
        proc.set(flag::CRASHED);
    }
    (state.held, state.found, state.tombstone) = (true, false, false);
    state.copied = false;
    if rules.shared() {
        state.door = proc.door;
    }
    proc.set(flag::WRITTEN);
    go(w, p, Pc::Grant, Step::WriteHeld, "")
}

/// From here on the guard exists. Exclusion, order, token and crash report are judged here.
fn grant(w: &mut World, p: usize) -> Taken {
    let proc = w.procs[p];
    let disturbs = |q: &Proc| {
        let shares = proc.reads() && q.has(flag::SHARED);
        // A process that knows the lock file only is not excluded by another lock file.
        let apart = q.role == Role::Outsider && q.door != proc.door;
        q.has(flag::GUARD) && !shares && !apart
    };
    if w.mask(disturbs) != 0 || !w.locks(p, Fd::Door) {
        w.fail(Fault::Exclusion);
    }
    if (proc.ahead | proc.first) & !proc.exempt != 0 {
        w.fail(Fault::Order);
    }
    let crashed = proc.has(flag::CRASHED);
    if proc.reads() {
        shared::judge_grant(w, p);
    } else {
        if proc.token <= w.last_token {
            w.fail(Fault::Token);
        }
        let must = matches!(w.report, Report::Must | Report::Left);
        if (must && !crashed) || (w.report == Report::MustNot && crashed) {
            w.fail(Fault::Crash);
        }
        (w.last_token, w.report) = (proc.token, Report::MustNot);
    }
    w.idle = 0;
    w.leaves_line(p);
    w.count_anew(p);
    let proc = &mut w.procs[p];
    proc.set(flag::GUARD);
    if proc.reads() {
        proc.set(flag::SHARED);
        proc.set(if crashed { flag::TOLD } else { 0 });
    }
    proc.clear(flag::CRASHED | flag::LEFT_TO);
    (proc.ahead, proc.first, proc.skip) = (0, 0, 0);
    go(w, p, Pc::Held, Step::Grant, "")
}
