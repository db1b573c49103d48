//! The program of the processes, system call by system call.

use super::{Mutation, Name, Pc, Process, TOKEN, Who, World};

/// Its round is over.
pub(super) fn leave(process: &mut Process) {
    *process = Process {
        pc: Pc::Idle,
        rounds: process.rounds.saturating_sub(1),
        alive: process.alive,
        stopped: process.stopped,
        remover: process.remover,
        seen: None,
        listed: 0,
        fresh: 0,
        token: 0,
        slept: false,
        missed: false,
        drafted: false,
    };
}

/// A listing that is not atomic.
pub(super) fn begin_listing(w: &mut World, p: usize) -> bool {
    let newest = newest(w);
    match (w.processes[p].pc, newest) {
        (Pc::List, Some(name)) => {
            w.processes[p].pc = Pc::Listing(name);
            true
        }
        _ => false,
    }
}

fn newest(w: &World) -> Option<Name> {
    w.batons.iter().max_by_key(|it| it.0).copied()
}

/// The time. It is later than all tokens so far.
fn now(w: &World) -> u8 {
    w.granted + 1
}

/// Takes one step of a process, and describes it; `None` if it has nothing to do.
pub(super) fn step(w: &mut World, p: usize) -> Option<&'static str> {
    let own = w.own(p);
    let (what, pc) = match w.processes[p].pc {
        Pc::Idle if w.processes[p].rounds == 0 => ("done", Pc::Done),
        Pc::Idle | Pc::Refused => ("begin to look", Pc::List),
        Pc::List => {
            let found = newest(w);
            ("list", judge(w, p, found))
        }
        Pc::Listing(name) => {
            let found = newest(w).filter(|it| *it == name);
            ("end to list", judge(w, p, found))
        }
        Pc::Fresh => {
            w.processes[p].fresh = now(w);
            w.outer = true;
            ("make a directory", Pc::Place)
        }
        Pc::Place => place(w, p),
        Pc::Sweep => match w.processes[p].listed.trailing_zeros() {
            16 => ("swept", Pc::List),
            record => {
                w.processes[p].listed &= !(1 << record);
                w.delete(record as u8);
                ("sweep a record", Pc::Sweep)
            }
        },
        Pc::ReadRecord => ("read the record", read_record(w, p)),
        Pc::Write | Pc::Sure if !w.outer => ("no directory", Pc::List),
        Pc::Write | Pc::Sure => {
            w.records |= 1 << own;
            w.processes[p].drafted = true;
            ("see to the record", Pc::Take)
        }
        Pc::Take => take(w, p),
        Pc::SureAfter => {
            w.records |= 1 << own;
            ("see to the record", Pc::DeleteRobbed)
        }
        Pc::DeleteRobbed => {
            if let Some((_, Who::Held(robbed))) = w.processes[p].seen {
                w.delete(robbed);
            }
            ("delete the robbed one's", Pc::Tidy)
        }
        Pc::Tidy => {
            let dead = |it: &u8| w.processes[p].listed & (1 << it) != 0 && !w.writer(*it).alive;
            match (0..16).find(dead) {
                Some(record) => {
                    w.delete(record);
                    w.processes[p].listed &= !(1 << record);
                    ("tidy", Pc::Tidy)
                }
                None => ("tidied", Pc::Held),
            }
        }
        Pc::Held if !w.processes[p].remover => ("begin to leave", Pc::Free),
        Pc::Held => {
            if w.is(Mutation::RecordFirst) {
                w.delete(own);
            }
            ("begin to remove", Pc::RemoveBaton)
        }
        Pc::Free => {
            free(w, p);
            ("free the baton", Pc::DeleteRecord)
        }
        Pc::RemoveBaton => {
            let name = w.held_name(p);
            w.batons.retain(|it| *it != name);
            ("delete the baton", Pc::RemoveInner)
        }
        Pc::RemoveInner => {
            let shared = w.is(Mutation::RecordsWithBaton);
            w.inner &= shared || !w.batons.is_empty();
            ("remove the inner one", Pc::DeleteRecord)
        }
        Pc::DeleteRecord => {
            w.delete(own);
            if w.processes[p].remover {
                ("delete the record", Pc::RemoveOuter)
            } else {
                leave(&mut w.processes[p]);
                ("delete the record", Pc::Idle)
            }
        }
        Pc::RemoveOuter => {
            let shared = w.is(Mutation::RecordsWithBaton) && w.batons.is_empty();
            if w.records == 0 && (!w.inner || shared) {
                (w.outer, w.inner) = (false, false);
            }
            leave(&mut w.processes[p]);
            ("remove the outer one", Pc::Idle)
        }
        Pc::Done => return None,
    };
    w.processes[p].pc = pc;
    Some(what)
}

fn judge(w: &mut World, p: usize, found: Option<Name>) -> Pc {
    w.processes[p].listed = w.records;
    w.processes[p].seen = found;
    match found {
        None => Pc::Fresh,
        Some((_, Who::Held(_))) => {
            w.processes[p].missed = false;
            Pc::ReadRecord
        }
        Some((_, Who::Free(_))) => {
            w.processes[p].missed = false;
            may_take(w, p)
        }
    }
}

/// Reads its token off the clock after it has seen what it may take.
fn may_take(w: &mut World, p: usize) -> Pc {
    let last = w.processes[p].seen.map_or(0, |it| it.0);
    let time = if w.is(Mutation::NoTime) { 0 } else { now(w) };
    w.processes[p].token = time.max(last + 1);
    let late = w.is(Mutation::SureTooLate) || w.is(Mutation::RecordsWithBaton);
    match w.processes[p].drafted {
        true if late => Pc::Take,
        true => Pc::Sure,
        false => Pc::Write,
    }
}

fn place(w: &mut World, p: usize) -> (&'static str, Pc) {
    let shared = w.is(Mutation::RecordsWithBaton);
    let empty = w.batons.is_empty() && !(shared && w.records != 0);
    if w.outer && (empty || w.is(Mutation::HealsFull)) {
        let id = w.fresh_id();
        w.batons = vec![(w.processes[p].fresh, Who::Free(id))];
        w.inner = true;
        w.processes[p].fresh = 0;
        return ("put it in place", Pc::List);
    }
    w.processes[p].fresh = 0;
    let again = shared && w.processes[p].missed;
    w.processes[p].missed = shared && !again;
    match shared {
        true if again => ("not empty for long", Pc::Sweep),
        true => ("not empty", refuse(w, p)),
        false => ("not empty", Pc::List),
    }
}

fn refuse(w: &mut World, p: usize) -> Pc {
    if !w.processes[p].remover {
        return Pc::Refused;
    }
    if w.processes[p].drafted {
        w.delete(w.own(p));
    }
    leave(&mut w.processes[p]);
    Pc::Idle
}

/// A holder that was stopped is silent. A holder that cannot be distinguished from a silent one
/// counts as silent.
fn read_record(w: &mut World, p: usize) -> Pc {
    let Some((_, Who::Held(holder))) = w.processes[p].seen else {
        return Pc::List;
    };
    let writer = w.writer(holder);
    let may = match w.is_recorded(holder) {
        true if !writer.alive || w.is(Mutation::JudgesLiving) => true,
        true => w.expires && writer.stopped,
        false => w.expires,
    };
    if may { may_take(w, p) } else { refuse(w, p) }
}

fn take(w: &mut World, p: usize) -> (&'static str, Pc) {
    let (seen, own) = (w.processes[p].seen, w.held_name(p));
    let Some(seen) = seen.filter(|&it| w.rename(it, own)) else {
        return ("take in vain", Pc::List);
    };
    if own.0 <= w.granted && w.granted > 1 {
        w.fault = Some(TOKEN);
    }
    w.granted = w.granted.max(own.0);
    w.processes[p].seen = Some(seen);
    let late = w.is(Mutation::SureTooLate) || w.is(Mutation::RecordsWithBaton);
    let next = if late {
        Pc::SureAfter
    } else {
        Pc::DeleteRobbed
    };
    ("take the baton", next)
}

fn free(w: &mut World, p: usize) {
    let (own, seen) = (w.held_name(p), w.processes[p].seen);
    let id = w.fresh_id();
    let free = match seen {
        Some(seen @ (_, Who::Free(_))) if w.is(Mutation::OldFreeName) => seen,
        _ => (own.0, Who::Free(id)),
    };
    match newest(w) {
        Some(any) if w.is(Mutation::FreesAny) => w.rename(any, free),
        _ => w.rename(own, free),
    };
}
