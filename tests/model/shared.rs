//! What the reader-writer lock adds: a reader at the state file, a downgrade, the ring at the door.
//! Also how the grant of a reader is judged.
//!
//! A reader that finds a *clean* record writes nothing. Any other reader takes *charge*: it locks
//! the state file alone, under the door that it shares, reads the record again, writes it, and
//! shares the state file.
//!
//! A reader may be refused the state file for long, under a record that does not name its door. It
//! cannot distinguish a stopped reader in charge from a holder under another door. So it *asks*: it
//! gives up its share and tries to lock the door alone. If it succeeds and is still refused the
//! state file, the holder is under another door.
//!
//! The *ladder* at the state file: a process that waits there checks again as soon as that can
//! help. It gives up after many rungs. Here it takes that step when the process that has the file
//! will not release it by itself.
//!
//! The held flag has three values: clear; set by a writer; *found* by a reader that is in charge of
//! it and will report it.

use crate::copies;
use crate::head;
use crate::kernel::{SHARED, holders};
use crate::rules::{Mutation, Rules};
use crate::steps::{Step, Taken, give_back, go, queue_or_leave};
use crate::world::{Fault, Fd, Life, N, NONE, Pc, Proc, Report, Role, StateFile, World, flag};

/// Returns whether this is a step of the reader-writer lock, or the ladder at the state file.
pub(crate) fn takes(pc: Pc) -> bool {
    (Pc::ReadState..=Pc::DownRing).contains(&pc)
}

/// Takes the next step of a reader at the state file, or of a downgrade.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    match w.procs[p].pc {
        Pc::ReadState => read_state(w, p, rules),
        Pc::ShareClean => share(w, p, rules),
        Pc::NotClean => {
            w.unlock(p, Fd::State);
            go(w, p, Pc::ReadState, Step::LockState, "unlocks it")
        }
        Pc::StateLadder => ladder(w, p, rules),
        Pc::TakeCharge => take_charge(w, p, rules),
        Pc::ChargeDoor => turn(w, p, Fd::Door, Pc::ChargeState),
        Pc::ChargeState if rules.is(Mutation::ChargeWithoutState) => {
            w.unlock(p, Fd::State);
            go(w, p, Pc::Grant, Step::ShareState, "not at all")
        }
        Pc::ChargeState => turn(w, p, Fd::State, Pc::Grant),
        Pc::AskUnlock | Pc::AskDoor | Pc::AskCheck | Pc::AskState | Pc::AskFree => ask(w, p, rules),
        Pc::PassDoor => turn(w, p, Fd::Door, Pc::PassRing),
        Pc::PassRing => {
            ring(w, p, rules);
            head::enter(w, p, Step::RingDoor, "")
        }
        Pc::DownDoor => turn(w, p, Fd::Door, Pc::DownState),
        Pc::DownState if rules.is(Mutation::RingTooEarly) => turn(w, p, Fd::State, Pc::Held),
        Pc::DownState => turn(w, p, Fd::State, Pc::DownRing),
        _ => {
            ring(w, p, rules);
            let early = rules.is(Mutation::RingTooEarly);
            let next = if early { Pc::DownDoor } else { Pc::Held };
            go(w, p, next, Step::RingDoor, "")
        }
    }
}

/// The state file that this process has open.
fn state(w: &World, p: usize) -> &StateFile {
    &w.states[usize::from(w.procs[p].state)]
}

/// Returns whether the record names the door of this process. Without readers the model keeps no
/// door in the record, but knows which processes die.
pub(crate) fn names_my_door(w: &World, p: usize, rules: &Rules) -> bool {
    let state = state(w, p);
    if !rules.shared() {
        return is_passing(w, state.lock, rules);
    }
    !state.tombstone && state.door == w.procs[p].door
}

/// Returns whether a reader through this door has nothing to write.
fn is_clean(w: &World, p: usize, rules: &Rules) -> bool {
    let state = state(w, p);
    let held = state.held && !state.found && !rules.is(Mutation::HeldIsClean);
    names_my_door(w, p, rules) && !held
}

/// Reads the record without a lock.
fn read_state(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let (next, note) = match is_clean(w, p, rules) {
        true => (Pc::ShareClean, "reads: clean"),
        false => (Pc::TakeCharge, "reads: not clean"),
    };
    let found = *state(w, p);
    if rules.is(Mutation::ChargeUnread) && found.held && !found.found {
        w.procs[p].set(flag::HELD_SEEN);
    }
    go(w, p, next, Step::LockState, note)
}

/// Tries to share the state file, then reads it again.
fn share(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if rules.is(Mutation::ReaderWithoutState) {
        return go(w, p, Pc::Grant, Step::LockState, "not at all");
    }
    if !w.try_share(p, Fd::State) {
        if w.procs[p].state == w.state_path {
            return refused(w, p, Step::LockState);
        }
        w.forget(p, Fd::State);
        return go(w, p, Pc::OpenState, Step::LockState, "another file by now");
    }
    if w.procs[p].state != w.state_path && !rules.is(Mutation::SharedUnchecked) {
        w.unlock(p, Fd::State);
        w.forget(p, Fd::State);
        return go(w, p, Pc::OpenState, Step::LockState, "another file by now");
    }
    if !is_clean(w, p, rules) && !rules.is(Mutation::CleanUnchecked) {
        return go(w, p, Pc::NotClean, Step::LockState, "not clean by now");
    }
    let found = *state(w, p);
    if found.held && found.found && (w.report == Report::Left || is_in_charge(w)) {
        w.procs[p].set(flag::LEFT_TO);
    }
    if rules.is(Mutation::AnyReaderClears) {
        let state = usize::from(w.procs[p].state);
        w.states[state].held = false;
    }
    go(w, p, Pc::Grant, Step::LockState, "shares it")
}

/// Returns whether a living reader is in charge of a crash.
fn is_in_charge(w: &World) -> bool {
    let lives = |q: &Proc| matches!(q.life, Life::Awake | Life::Stopped);
    w.mask(|q| q.reads() && q.has(flag::CRASHED | flag::TOLD) && lives(q)) != 0
}

/// Refused with the door locked: continues on the ladder. On the fast path it queues.
pub(crate) fn refused(w: &mut World, p: usize, step: Step) -> Taken {
    if w.procs[p].own == NONE {
        return back(w, p, step);
    }
    go(w, p, Pc::StateLadder, step, "refused")
}

/// Releases the door, and starts again.
pub(crate) fn back(w: &mut World, p: usize, step: Step) -> Taken {
    let next = match w.procs[p].own {
        NONE => queue_or_leave(w, p),
        _ => Pc::Look,
    };
    give_back(w, p, next, step, "refused: gives the door back")
}

/// Checks again, first the door and the marks, as soon as something has changed. A writer gives up
/// in the end.
fn ladder(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let lock = *w.lock_behind(p, Fd::State)?;
    let proc = w.procs[p];
    let free = match proc.reads() {
        true => lock == 0 || lock & SHARED != 0 && is_clean(w, p, rules),
        false => lock == 0,
    };
    let old = proc.state != w.state_path && !rules.is(Mutation::RefusalUnchecked);
    if free || old || proc.door != w.door_path || head::marks_gone(w, proc.skip) {
        return go(w, p, Pc::CheckDoor, Step::LockState, "checks again");
    }
    let elsewhere = !names_my_door(w, p, rules) && !is_passing(w, lock, rules);
    if elsewhere && !proc.reads() {
        return head::replaced(w, p, rules, Step::LockState);
    }
    None
}

/// The record does not match: tries to lock the state file alone, and then reads the record again.
fn take_charge(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let by_door = rules.is(Mutation::ChargeByDoor) && !w.has_whole(p, Fd::Door);
    if by_door {
        return charge_by_door(w, p);
    }
    let locked = w.try_lock(p, Fd::State);
    if w.procs[p].state != w.state_path {
        w.unlock(p, Fd::State);
        w.forget(p, Fd::State);
        return go(w, p, Pc::OpenState, Step::TakeCharge, "another file by now");
    }
    if !locked {
        if !is_clean(w, p, rules) {
            judge_refusal(w, p, rules);
        }
        return refused(w, p, Step::TakeCharge);
    }
    let fits = names_my_door(w, p, rules) && !state(w, p).held;
    if fits && !rules.is(Mutation::ChargeUnread) {
        return go(w, p, Pc::ChargeState, Step::TakeCharge, "clean by now");
    }
    let next = copies::before_write(w, p, rules);
    go(w, p, next, Step::TakeCharge, "has it alone")
}

/// What must not be done: asks for the whole door while it has a share of it.
fn charge_by_door(w: &mut World, p: usize) -> Taken {
    w.unlock(p, Fd::Door);
    if w.try_lock(p, Fd::Door) {
        return Some((Step::TakeCharge, "has the door whole"));
    }
    let door = w.procs[p].door;
    if w.mask(|q| q.life == Life::Awake && stays(q) && q.door == door) != 0 {
        w.fail(Fault::Stuck);
    }
    back(w, p, Step::TakeCharge)
}

/// The state file is refused even after many rungs, and the record does not name its door: asks
/// whether the holder is elsewhere.
pub(crate) fn give_up(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let lock = *w.lock_behind(p, Fd::State)?;
    let proc = w.procs[p];
    let refused = lock != 0 && proc.state == w.state_path && proc.own != NONE;
    if !refused || names_my_door(w, p, rules) {
        return None;
    }
    if !rules.is(Mutation::NotAsked) {
        return go(w, p, Pc::AskUnlock, Step::LockState, "refused for long");
    }
    if is_passing(w, lock, rules) {
        return None;
    }
    head::replaced(w, p, rules, Step::LockState)
}

/// Checks whether it is alone at the door while the state file is still locked. Releases the door
/// in any case.
fn ask(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let pc = w.procs[p].pc;
    match pc {
        Pc::AskUnlock => {
            w.unlock(p, Fd::Door);
            go(w, p, Pc::AskDoor, Step::AskDoor, "gives up its share")
        }
        Pc::AskDoor if w.try_lock(p, Fd::Door) => {
            go(w, p, Pc::AskCheck, Step::AskDoor, "is alone at the door")
        }
        Pc::AskDoor if rules.is(Mutation::AskKept) => {
            go(w, p, Pc::ReadState, Step::AskDoor, "refused: continues")
        }
        Pc::AskDoor => back(w, p, Step::AskDoor),
        Pc::AskCheck if w.procs[p].door != w.door_path => back(w, p, Step::CheckDoor),
        Pc::AskCheck => go(w, p, Pc::AskState, Step::CheckDoor, ""),
        Pc::AskState if rules.is(Mutation::AskedOnly) => {
            head::replaced(w, p, rules, Step::AskState)
        }
        Pc::AskState if w.try_lock(p, Fd::State) => {
            go(w, p, Pc::AskFree, Step::AskState, "it is free")
        }
        Pc::AskState => {
            let lock = *w.lock_behind(p, Fd::State)?;
            let old = w.procs[p].state != w.state_path;
            if old || names_my_door(w, p, rules) || is_passing(w, lock, rules) {
                return back(w, p, Step::AskState);
            }
            head::replaced(w, p, rules, Step::AskState)
        }
        _ => {
            w.unlock(p, Fd::State);
            back(w, p, Step::UnlockState)
        }
    }
}

/// Refused under a record that names its door: only a dying process may have the state file.
/// Otherwise this one would wait forever.
pub(crate) fn judge_refusal(w: &mut World, p: usize, rules: &Rules) {
    let lock = w.lock_behind(p, Fd::State).map_or(0, |lock| *lock);
    let inside = |q: usize| {
        let other = &w.procs[q];
        holders(lock) & (1 << q) != 0 && other.life == Life::Awake && other.has(flag::GUARD)
    };
    if names_my_door(w, p, rules) && (0..N).any(inside) {
        w.fail(Fault::Stuck);
    }
}

/// In charge: from here on the record names its door, and a set flag is found.
pub(crate) fn write_as_reader(w: &mut World, p: usize, rules: &Rules) -> Taken {
    copies::judge_write(w, p);
    let clock = if rules.wall { w.last_token } else { 0 };
    let proc = &mut w.procs[p];
    let state = &mut w.states[usize::from(proc.state)];
    let nothing = state.door == NONE || state.tombstone;
    if nothing && !rules.is(Mutation::ReaderWritesZero) {
        state.token = state.token.max(clock);
    }
    let seen = rules.is(Mutation::ChargeUnread) && proc.has(flag::HELD_SEEN);
    let crashed = (state.held || seen) && !nothing && !state.copied;
    if crashed {
        proc.set(flag::CRASHED);
    }
    state.held = crashed && !rules.is(Mutation::ClearedTooEarly);
    (state.found, state.tombstone, state.door) = (state.held, false, proc.door);
    state.copied = false;
    let whole = w.has_whole(p, Fd::Door);
    let next = if whole {
        Pc::ChargeDoor
    } else {
        Pc::ChargeState
    };
    go(w, p, next, Step::WriteHeld, "is in charge")
}

/// It was in charge and has not reported the crash, so the next one must. It writes that with the
/// state file locked alone. If that is refused because others read, it leaves the report to the
/// next writer.
pub(crate) fn untake_charge(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let beside = rules.is(Mutation::GivesUpBeside);
    if w.locks(p, Fd::State) && !w.has_whole(p, Fd::State) && !beside {
        w.unlock(p, Fd::State);
        return Some((Step::UnlockState, "to have it alone"));
    }
    w.procs[p].clear(flag::CRASHED);
    if !w.try_lock(p, Fd::State) && !beside {
        if w.report == Report::Must {
            w.report = Report::Left;
        }
        return Some((Step::ClearHeld, "others read: leaves it to the next writer"));
    }
    if copies::note_names(w, p) {
        if w.report == Report::Must {
            w.report = Report::Left;
        }
        return Some((
            Step::ClearHeld,
            "it has another name: leaves it to the next writer",
        ));
    }
    let state = &mut w.states[usize::from(w.procs[p].state)];
    let wrong = rules.is(Mutation::SwallowCrash) || rules.is(Mutation::ClearedTooEarly);
    if state.held && state.found && !wrong {
        state.found = false;
    }
    Some((Step::ClearHeld, "as it was found"))
}

/// An exclusive lock becomes a shared one.
fn turn(w: &mut World, p: usize, fd: Fd, next: Pc) -> Taken {
    let turned = w.try_share(p, fd);
    assert!(turned, "it was locked");
    let step = match fd {
        Fd::Door => Step::ShareDoor,
        _ => Step::ShareState,
    };
    go(w, p, next, step, "")
}

/// Opens the door's path and closes it: every process that waits at that file checks again.
fn ring(w: &mut World, p: usize, rules: &Rules) {
    if rules.is(Mutation::NoRing) {
        return;
    }
    let door = w.door_path;
    for (q, other) in w.procs.iter_mut().enumerate() {
        if q != p && door != NONE && other.door == door && other.has(flag::DOOR_WATCH) {
            other.set(flag::DOOR_EVENT);
        }
    }
}

/// A writer that holds the lock downgrades.
pub(crate) fn downgrade(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let proc = &mut w.procs[p];
    if proc.role != Role::Locker || proc.has(flag::SHARED) {
        return None;
    }
    w.states[usize::from(proc.state)].held = false;
    proc.clear(flag::WRITTEN);
    proc.set(flag::SHARED);
    proc.token = 0;
    let early = rules.is(Mutation::RingTooEarly);
    let next = if early { Pc::DownRing } else { Pc::DownDoor };
    go(w, p, next, Step::ClearHeld, "readers may enter")
}

/// The guard of a reader: its token, and whether it reports a crash.
pub(crate) fn judge_grant(w: &mut World, p: usize) {
    let state = *state(w, p);
    if state.token < w.last_token {
        w.fail(Fault::Token);
    }
    w.last_token = state.token;
    let told = w.procs[p].has(flag::CRASHED);
    let must = matches!(w.report, Report::Must | Report::Left);
    let untold = !told && must && !w.procs[p].has(flag::LEFT_TO);
    if (told && w.report == Report::MustNot) || untold {
        w.fail(Fault::Crash);
    }
    if told {
        w.report = Report::MustNot;
    }
}

/// Returns whether this process may stay where it is forever: it holds the lock, others can enter,
/// and it has nothing left to do.
pub(crate) fn stays(proc: &Proc) -> bool {
    proc.pc == Pc::Held && proc.has(flag::SHARED) && !proc.has(flag::TOLD)
}

/// Nothing moves, but readers may release. Returns whether this process waits for that with reason.
/// A writer does. A reader does behind a writer, or at another door than that of the holders.
pub(crate) fn excuses(w: &World, p: usize) -> bool {
    let inside = w.mask(|q| q.life == Life::Awake && stays(q));
    let proc = &w.procs[p];
    if inside == 0 || !proc.reads() {
        return inside != 0;
    }
    let before = |q: &Proc| {
        let waits = q.life == Life::Awake && q.has(flag::PLACED) && !q.reads();
        waits && proc.own != NONE && w.place(usize::from(q.own)) < w.place(usize::from(proc.own))
    };
    let elsewhere = |q: &Proc| stays(q) && q.role != Role::Outsider && q.door != w.door_path;
    w.mask(before) != 0 || w.mask(elsewhere) != 0
}

/// Returns whether the process that has the state file will release it by itself. Without readers
/// only a dying one does, because all others hold it together with the door.
fn is_passing(w: &World, lock: u8, rules: &Rules) -> bool {
    let dying = |q: usize| w.procs[q].life == Life::Dying || holders(lock) & (1 << q) == 0;
    if rules.shared() {
        all_passing(w, lock)
    } else {
        (0..N).all(dying)
    }
}

/// Returns whether all that have this lock will release it by themselves.
pub(crate) fn all_passing(w: &World, lock: u8) -> bool {
    let passing = |q: usize| match w.procs[q].life {
        Life::Awake => !w.procs[q].has(flag::GUARD),
        Life::Stopped => false,
        Life::Dying | Life::Dead => true,
    };
    (0..N).all(|q| holders(lock) & (1 << q) == 0 || passing(q))
}
