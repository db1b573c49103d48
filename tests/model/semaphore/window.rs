//! The claim window of the semaphore: probing the slots past a frozen waiter, marking, and finding
//! its own mark.

use super::rules::{Mutation, Rules};
use super::steps::{Taken, give, go};
use super::world::{Fault, Life, N, Pc, Proc, STRANGER, World, flag};

/// Takes the next step of a process that probes, marks or unmarks.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    match w.procs[p].pc {
        Pc::Unmark => {
            w.procs[p].mark = false;
            go(w, p, Pc::Look, "takes its mark off")
        }
        Pc::WaitWindow if is_due(w, p, rules) => {
            w.procs[p].clear(flag::DUE);
            go(w, p, Pc::Look, "the timer: tries again")
        }
        Pc::WaitWindow => None,
        Pc::Probe => probe(w, p, rules),
        Pc::ProbeSee => probe_see(w, p),
        Pc::Mark => mark(w, p),
        _ => spare(w, p),
    }
}

/// The timer's check: if the first ticket before its own is another one, or the number of tickets
/// has changed, it counts windows from zero.
pub(crate) fn compare(w: &mut World, p: usize, front: usize, behind: u8) -> Taken {
    let proc = &mut w.procs[p];
    if (proc.front, proc.behind) != (front as u8, behind) {
        proc.count_anew();
    }
    (proc.front, proc.behind) = (front as u8, behind);
    w.procs[p].todo = w.all();
    go(w, p, Pc::Probe, "the timer: still behind")
}

/// How many slots must be free.
fn wanted(w: &World, p: usize, rules: &Rules) -> u8 {
    if rules.is(Mutation::OneSlotIsFree) {
        return 1;
    }
    w.procs[usize::from(w.procs[p].front)].k
}

/// Opens and tries one slot. It waits for a slot that is locked for an instant only.
fn probe(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let todo = w.procs[p].todo;
    if todo == 0 {
        w.procs[p].count_anew();
        return give(w, p, Pc::WaitPred, "not free");
    }
    let i = todo.trailing_zeros() as usize;
    if w.slots[i] != 0 && is_passing(w, i) {
        return None;
    }
    w.procs[p].open |= 1 << i;
    w.procs[p].todo &= todo - 1;
    if !w.try_slot(p, i) {
        return Some("probes a slot: refused");
    }
    if w.parts(p) < wanted(w, p, rules) {
        return Some("probes a slot: free");
    }
    w.procs[p].todo = 0;
    w.procs[p].exempt |= w.mask(|q| q.life != Life::Awake || q.has(flag::SLEPT) || q.mark);
    go(w, p, Pc::ProbeSee, "probes a slot: enough are free")
}

/// Returns whether the process that has this slot will release it by itself, without having been
/// granted.
fn is_passing(w: &World, i: usize) -> bool {
    let Some(q) = w.slots[i].checked_sub(1).map(usize::from) else {
        return false;
    };
    let passing = [Pc::FastTry, Pc::FastList, Pc::Probe, Pc::ProbeSee, Pc::Give];
    q >= N && w.is_dropping(i)
        || q < N
            && match w.procs[q].life {
                Life::Awake => !w.procs[q].has(flag::GUARD) && passing.contains(&w.procs[q].pc),
                Life::Stopped => false,
                Life::Dying | Life::Dead => true,
            }
}

/// Checks whether the token has not changed since the last check.
fn probe_see(w: &mut World, p: usize) -> Taken {
    let token = w.token;
    let proc = &mut w.procs[p];
    let counts_on = proc.looks > 0 && proc.seen == token;
    proc.looks = if counts_on {
        (proc.looks + 1).min(9)
    } else {
        1
    };
    proc.seen = token;
    // A quarter more is for jitter. With three processes that is a window for the third one.
    if proc.looks <= proc.behind + (proc.behind + 2) / 4 {
        return give(w, p, Pc::WaitPred, "waits one more window");
    }
    let mine = proc.number;
    w.procs[p].marking = w.before(p);
    w.procs[p].skip = w.mask(|q| q.linked && q.number < mine);
    go(w, p, Pc::Mark, "the windows are over: passes")
}

/// Marks one ticket after the other.
fn mark(w: &mut World, p: usize) -> Taken {
    let marking = w.procs[p].marking;
    if marking == 0 {
        return resume(w, p);
    }
    let q = w.lowest(marking).unwrap_or(p);
    w.procs[p].marking = marking & !(1 << q);
    if w.procs[q].linked && w.procs[q].number < w.procs[p].number {
        w.procs[q].mark = true;
        w.procs[p].marked |= 1 << q;
    }
    Some("marks a ticket")
}

/// All are marked: it continues as the head, with what it has locked.
fn resume(w: &mut World, p: usize) -> Taken {
    let (held, k) = (w.held(p), w.procs[p].k);
    let proc = &mut w.procs[p];
    proc.set(flag::WATCHES);
    proc.todo = proc.open & !held;
    let next = if held.count_ones() as u8 >= k {
        Pc::CheckMarks
    } else {
        Pc::TrySlots
    };
    go(w, p, next, "has marked all, continues as the head")
}

/// It has its token: releases what it has locked beyond its need.
fn spare(w: &mut World, p: usize) -> Taken {
    if w.parts(p) <= w.procs[p].k {
        return go(w, p, Pc::Grant, "needs all it has");
    }
    let i = w.held(p).trailing_zeros() as usize;
    w.slots[i] = 0;
    w.announce(Some(p), i);
    Some("releases what it does not need")
}

/// Returns whether it waits for an event or the timer.
fn waits(w: &World, p: usize, rules: &Rules) -> bool {
    let proc = &w.procs[p];
    let keeps = !rules.is(Mutation::PasserKeepsNoPart);
    let has_all = proc.todo == 0 && proc.open == w.all();
    let rest = match proc.pc {
        Pc::WaitPred => {
            let pred = w.procs[usize::from(proc.pred)];
            pred.linked && pred.locked && !pred.mark && pred.number < proc.number
        }
        Pc::WaitWindow => true,
        Pc::TrySlots => has_all && (proc.skip == 0 || w.held(p) == 0 || keeps),
        _ => false,
    };
    proc.life == Life::Awake && rest
}

/// Nothing moves by itself before the next timer.
fn is_quiet(w: &World, p: usize, rules: &Rules) -> bool {
    let proc = &w.procs[p];
    match proc.life {
        Life::Stopped | Life::Dead => true,
        Life::Dying => false,
        Life::Awake => match proc.pc {
            Pc::Idle | Pc::Done => true,
            Pc::Held => !proc.linked,
            _ => waits(w, p, rules) && !proc.has(flag::DUE),
        },
    }
}

/// Returns whether this process may handle its timer. In the order of the queue, unless there is
/// jitter.
pub(crate) fn is_due(w: &World, p: usize, rules: &Rules) -> bool {
    let number = |q: usize| w.procs[q].number;
    let first = |q: usize| !w.procs[q].linked || is_quiet(w, q, rules) || number(q) >= number(p);
    w.procs[p].has(flag::DUE) && (rules.jitter || (0..N).all(first))
}

/// A window ends, when nothing else can move. Returns true if it ended.
pub(crate) fn pass(w: &mut World, rules: &Rules) -> bool {
    let waiting = (0..N).fold(0, |mask, p| mask | u8::from(waits(w, p, rules)) << p);
    if waiting == 0
        || !(0..N).all(|p| is_quiet(w, p, rules))
        || (0..w.count).any(|i| w.is_dropping(i))
    {
        return false;
    }
    for (p, proc) in w.procs.iter_mut().enumerate() {
        if proc.life == Life::Awake {
            proc.clear(flag::SLEPT);
        }
        if waiting & (1 << p) != 0 {
            proc.set(flag::DUE);
        }
    }
    if !is_free(w, waiting) {
        w.idle = 0;
        return true;
    }
    w.idle += 1;
    let asleep = w.mask(|q| q.life == Life::Stopped).count_ones() as u8;
    let dead = w.mask(|q| q.linked && !q.locked).count_ones() as u8;
    // A process that releases its part begins to count only then. It may then meet another one that
    // bypasses at the same time.
    let several = w.procs.iter().any(|q| q.k > 1);
    // The same for a process that has released its part because it had bypassed a waiter. It waits
    // for that window.
    let in_hand = |p: usize| w.held(p) != 0 || w.procs[p].pc == Pc::WaitWindow;
    let parts = (0..N).any(|p| waiting & (1 << p) != 0 && in_hand(p));
    if asleep == 0 && w.mask(|q| q.mark) == 0 && !parts {
        w.fail(Fault::Stuck);
    } else if w.idle > 1 + (asleep + dead).max(1) + 2 * u8::from(several) + 1 {
        w.fail(Fault::Frozen);
    }
    true
}

/// Returns whether the slots allow the first waiter to acquire. Slots of guards and of stopped
/// processes do not count.
fn is_free(w: &World, waiting: u8) -> bool {
    let taken = |q: &Proc| q.has(flag::GUARD) || q.life == Life::Stopped;
    let taken: u8 = (0..N)
        .filter(|&q| taken(&w.procs[q]))
        .map(|q| w.parts(q))
        .sum();
    let strangers = w.slots.iter().filter(|&&lock| lock == STRANGER).count();
    let free = (w.count - strangers) as u8 - taken;
    let unmarked = w.lowest(w.mask(|q| q.linked && !q.mark));
    let enough = |q: Option<usize>| q.is_none_or(|q| w.procs[q].k <= free);
    enough(w.lowest(waiting)) && enough(unmarked)
}
