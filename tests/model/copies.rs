//! What a hard-linked copy of the queue (`cp -al`) changes: the state file has a second name
//! elsewhere. A process that finds it so reads the file, but never writes into it. A process that
//! enters puts a private copy in its place.

use crate::kernel::lock_of;
use crate::rules::{Mutation, Rules};
use crate::steps::{Step, Taken, go};
use crate::world::{Fault, Fd, NONE, Pc, StateFile, World, flag};

/// A copy is made: the state file has a second name elsewhere.
pub(crate) fn snapshot(w: &mut World) -> bool {
    if w.snapshots == 0 || w.state_path == NONE {
        return false;
    }
    w.snapshots -= 1;
    w.states[usize::from(w.state_path)].linked = true;
    true
}

/// With the state file locked: notes whether it has another name. Returns the next step of a
/// process that is about to write.
pub(crate) fn before_write(w: &mut World, p: usize, rules: &Rules) -> Pc {
    if !note_names(w, p) || rules.is(Mutation::WritesLinked) {
        return Pc::WriteHeld;
    }
    Pc::CopyState
}

/// Notes whether the locked state file has another name.
pub(crate) fn note_names(w: &mut World, p: usize) -> bool {
    let linked = w.states[usize::from(w.procs[p].state)].linked;
    w.procs[p].clear(flag::LINKED);
    w.procs[p].set(if linked { flag::LINKED } else { 0 });
    linked
}

/// A write into a state file that had another name when this process locked it.
pub(crate) fn judge_write(w: &mut World, p: usize) {
    if w.procs[p].has(flag::LINKED) {
        w.fail(Fault::Linked);
    }
}

/// Takes the next step of a process that makes a private copy.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    match w.procs[p].pc {
        Pc::CopyState => {
            copy(w, p, rules);
            go(w, p, Pc::ReplaceState, Step::CopyState, "")
        }
        Pc::ReplaceState => {
            w.state_path = w.procs[p].draft;
            go(w, p, Pc::DropState, Step::ReplaceState, "")
        }
        _ => {
            w.unlock(p, Fd::State);
            let draft = std::mem::replace(&mut w.procs[p].draft, NONE);
            let lock = &mut w.states[usize::from(draft)].lock;
            if *lock == lock_of(p, Fd::Draft) {
                *lock = lock_of(p, Fd::State);
            }
            w.procs[p].state = draft;
            w.procs[p].clear(flag::LINKED);
            go(w, p, Pc::WriteHeld, Step::UnlockState, "the old one")
        }
    }
}

/// A new file without the name, locked, with the record in it.
fn copy(w: &mut World, p: usize, rules: &Rules) {
    let old = w.states[usize::from(w.procs[p].state)];
    let free = w.states.iter().position(|state| !state.used);
    let free = free.expect("state inodes suffice");
    let empty = rules.is(Mutation::CopyEmpty);
    w.states[free] = StateFile {
        lock: match rules.is(Mutation::CopyUnlocked) {
            true => 0,
            false => lock_of(p, Fd::Draft),
        },
        token: if empty { 0 } else { old.token },
        held: old.held && !empty,
        linked: false,
        copied: rules.is(Mutation::CopyNamesOther),
        ..old
    };
    w.procs[p].draft = free as u8;
}
