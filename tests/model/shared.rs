//! What is new in the reader-writer lock: a reader at the state file, a guard that turns into a shared one, the ring at the
//! door; and how the grant of a reader is judged.
//!
//! The *ladder* at the state file: a reader looks again as soon as nobody has that file exclusively. That it gives up
//! after many rungs is the step it takes when whoever has the file will not let it go by itself.
//!
//! The held flag has three values: clear; set by a writer; *found* by a reader that is in charge of it and will tell. A reader that is
//! not in charge enters under a clear or a found flag only, or else it could take a dying writer for a reader in charge.

use crate::kernel::{SHARED, holders};
use crate::knock;
use crate::rules::{Mutation, Rules};
use crate::steps::{Step, Taken, give_back, go};
use crate::world::{Fault, Fd, Life, N, NONE, Pc, Proc, Report, Role, StateFile, World, flag};

/// Is this a place of the reader-writer lock?
pub(crate) fn takes(pc: Pc) -> bool {
    (Pc::ReadState..=Pc::DownRing).contains(&pc)
}

/// Takes the next step of a reader at the state file, or of whoever turns a lock into a shared one.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    match w.procs[p].pc {
        Pc::ReadState => read_state(w, p),
        Pc::ShareClean | Pc::ShareDirty => share(w, p, rules),
        Pc::LockDirty => lock_dirty(w, p),
        Pc::ReadAgain => read_again(w, p, rules),
        Pc::StateLadder => ladder(w, p, rules),
        Pc::WriteDoor => write_door(w, p, rules),
        Pc::TurnState => turn(w, p, Fd::State, Pc::Grant, Step::ShareState),
        Pc::TurnDoor => turn(w, p, Fd::Door, Pc::Ring, Step::ShareDoor),
        Pc::Ring => {
            ring(w, p, rules);
            knock::enter(w, p, Step::RingDoor, "")
        }
        Pc::DownDoor => turn(w, p, Fd::Door, Pc::DownState, Step::ShareDoor),
        Pc::DownState if rules.is(Mutation::RingTooEarly) => {
            turn(w, p, Fd::State, Pc::Held, Step::ShareState)
        }
        Pc::DownState => turn(w, p, Fd::State, Pc::DownRing, Step::ShareState),
        _ if rules.is(Mutation::RingTooEarly) => {
            ring(w, p, rules);
            go(w, p, Pc::DownDoor, Step::RingDoor, "")
        }
        _ => {
            ring(w, p, rules);
            go(w, p, Pc::Held, Step::RingDoor, "")
        }
    }
}

/// The state file this process has open.
fn state(w: &World, p: usize) -> &StateFile {
    &w.states[usize::from(w.procs[p].state)]
}

/// Does the record name the door of this process?
pub(crate) fn names_my_door(w: &World, p: usize) -> bool {
    let state = state(w, p);
    !state.tombstone && state.door == w.procs[p].door
}

/// Nobody can have died inside, and whoever is inside is so under my door.
fn is_clean(w: &World, p: usize) -> bool {
    names_my_door(w, p) && !state(w, p).held
}

/// Reads the record without a lock.
fn read_state(w: &mut World, p: usize) -> Taken {
    if is_clean(w, p) {
        return go(w, p, Pc::ShareClean, Step::ReadState, "clean");
    }
    go(w, p, Pc::LockDirty, Step::ReadState, "dirty")
}

/// Tries to share the state file under a record that names my door.
fn share(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if rules.is(Mutation::ReaderWithoutState) {
        return go(w, p, Pc::Grant, Step::LockState, "not at all");
    }
    if !w.try_share(p, Fd::State) {
        return go(w, p, Pc::StateLadder, Step::LockState, "refused");
    }
    if w.procs[p].state != w.state_path {
        return reopen(w, p);
    }
    let crashed = state(w, p).held && !state(w, p).found && !rules.is(Mutation::DyingInCharge);
    if (!names_my_door(w, p) || crashed) && !rules.is(Mutation::CleanUnchecked) {
        w.unlock(p, Fd::State);
        return go(w, p, Pc::StateLadder, Step::LockState, "not clean by now");
    }
    if rules.is(Mutation::AnyReaderClears) {
        let state = usize::from(w.procs[p].state);
        w.states[state].held = false;
    }
    go(w, p, Pc::Grant, Step::LockState, "shares it")
}

/// Locked, but not the file in use any more.
fn reopen(w: &mut World, p: usize) -> Taken {
    w.unlock(p, Fd::State);
    w.forget(p, Fd::State);
    go(w, p, Pc::OpenState, Step::LockState, "another file by now")
}

/// Tries to have the state file alone, to take charge of a record that is not clean.
fn lock_dirty(w: &mut World, p: usize) -> Taken {
    if !w.try_lock(p, Fd::State) {
        return go(w, p, Pc::ReadAgain, Step::LockState, "refused");
    }
    if w.procs[p].state != w.state_path {
        return reopen(w, p);
    }
    if is_clean(w, p) {
        return go(w, p, Pc::TurnState, Step::LockState, "clean by now");
    }
    go(w, p, Pc::WriteDoor, Step::LockState, "is in charge")
}

/// Refused: who has it?
fn read_again(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let dying = state(w, p).held && !state(w, p).found && !rules.is(Mutation::DyingInCharge);
    let (next, note) = if names_my_door(w, p) && !dying {
        (Pc::ShareDirty, "my door: another is in charge")
    } else {
        (Pc::StateLadder, "no reader is in charge")
    };
    go(w, p, next, Step::ReadState, note)
}

/// Refused for now: looks again from the top as soon as it can get further.
fn ladder(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let lock = *w.lock_behind(p, Fd::State)?;
    if w.procs[p].door != w.door_path {
        let queues = w.procs[p].own != NONE;
        let next = if queues { Pc::OpenDoor } else { Pc::FastOpen };
        return give_back(w, p, next, Step::CheckDoor, "another file by now");
    }
    let mine = names_my_door(w, p);
    if lock == 0 || (mine && lock & SHARED != 0) {
        return go(w, p, Pc::ReadState, Step::LockState, "looks again");
    }
    let other = state(w, p).door != NONE && !mine;
    if other && !all_passing(w, lock) {
        return knock::replaced(w, p, rules, Step::LockState);
    }
    None
}

/// In charge: the record names my door from here on; a flag that is set stays.
fn write_door(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let clock = if rules.wall { w.last_token } else { 0 };
    let proc = &mut w.procs[p];
    let state = &mut w.states[usize::from(proc.state)];
    if state.held {
        proc.set(flag::CRASHED);
        state.held = !rules.is(Mutation::ClearedTooEarly);
        state.found = state.held;
    }
    if (state.door == NONE || state.tombstone) && !rules.is(Mutation::ReaderWritesZero) {
        state.token = state.token.max(clock);
    }
    (state.door, state.tombstone) = (proc.door, false);
    go(w, p, Pc::TurnState, Step::WriteDoor, "")
}

/// An exclusive lock becomes a shared one.
fn turn(w: &mut World, p: usize, fd: Fd, next: Pc, step: Step) -> Taken {
    let turned = w.try_share(p, fd);
    assert!(turned, "it was locked");
    go(w, p, next, step, "")
}

/// Opens the door's path and closes it: whoever sleeps at that file looks again.
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

/// A writer inside lets readers in.
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
    go(w, p, next, Step::ClearHeld, "lets readers in")
}

/// The guard of a reader: which token, and is it told of a crash?
pub(crate) fn judge_grant(w: &mut World, p: usize) {
    let state = *state(w, p);
    if state.token < w.last_token {
        w.fail(Fault::Token);
    }
    w.last_token = state.token;
    let told = w.procs[p].has(flag::CRASHED);
    // Who is not told leaves it to the one in charge; should that one fail, it is on record for a later one.
    let left = state.held && state.found;
    if (told && w.report == Report::MustNot) || (!told && w.report == Report::Must && !left) {
        w.fail(Fault::Crash);
    }
    if told {
        w.report = Report::MustNot;
    }
}

/// May this process stay where it is for as long as it likes? It is inside, others can come in, and it owes nothing.
pub(crate) fn stays(proc: &Proc) -> bool {
    proc.pc == Pc::Held && proc.has(flag::SHARED) && !proc.has(flag::TOLD)
}

/// Nothing moves but readers may leave: does this process wait for that with good reason? A writer does. A reader
/// does behind a writer, and when it stands before another door than those inside.
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
    w.mask(before) != 0 || w.mask(|q| stays(q) && q.door != w.door_path) != 0
}

/// Will whoever has the state file let it go by himself? Without readers only the dying do so, for all others have it
/// together with the door.
pub(crate) fn is_passing(w: &mut World, p: usize, rules: &Rules) -> bool {
    let lock = w.lock_behind(p, Fd::State).map_or(0, |lock| *lock);
    let dying = |q: usize| w.procs[q].life == Life::Dying || holders(lock) & (1 << q) == 0;
    if rules.shared() {
        all_passing(w, lock)
    } else {
        (0..N).all(dying)
    }
}

/// Will all who have this lock let it go by themselves?
pub(crate) fn all_passing(w: &World, lock: u8) -> bool {
    let passing = |q: usize| match w.procs[q].life {
        Life::Awake => !w.procs[q].has(flag::GUARD),
        Life::Stopped => false,
        Life::Dying | Life::Dead => true,
    };
    (0..N).all(|q| holders(lock) & (1 << q) == 0 || passing(q))
}
