//! The program of a process that requests permits, one system call a step.
//!
//! The wait for the predecessor's ticket is that of the lock and is checked there. Here it ends as
//! soon as that ticket is deleted, marked or its owner is dead.

use super::rules::{Mutation, Rules};
use super::window;
use super::world::{Fault, Life, N, NOBODY, Pc, Proc, World, flag};

/// How a step went; `None` when it cannot be taken now.
pub(crate) type Taken = Option<&'static str>;

/// Takes the next step of process `p`.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    match w.procs[p].pc {
        Pc::Idle => begin(w, p, rules),
        Pc::FastTry => fast_try(w, p),
        Pc::FastList => fast_list(w, p, rules),
        Pc::Draw => draw(w, p),
        Pc::Create => {
            let proc = &mut w.procs[p];
            (proc.linked, proc.locked) = (true, true);
            proc.set(flag::PLACED);
            go(w, p, Pc::Look, "creates its ticket")
        }
        Pc::Look => look(w, p, rules),
        Pc::WaitPred => wait_pred(w, p, rules),
        Pc::Reap => {
            let pred = usize::from(w.procs[p].pred);
            (w.procs[pred].linked, w.idle) = (false, 0);
            go(w, p, Pc::Look, "reaps the ticket before its own")
        }
        Pc::TrySlots => try_slots(w, p, rules),
        Pc::CheckMarks => check_marks(w, p, rules),
        Pc::LockState | Pc::ReadToken | Pc::WriteToken | Pc::UnlockState => mint(w, p, rules),
        Pc::Grant => grant(w, p),
        Pc::Held => {
            w.procs[p].clear(flag::GUARD);
            w.procs[p].token = 0;
            give(w, p, Pc::Finish, "leaves")
        }
        Pc::Give => give_one(w, p, rules),
        Pc::Finish => finish(w, p),
        Pc::Done => None,
        _ => window::step(w, p, rules),
    }
}

/// Sets the next step of the process and returns the result of this one.
pub(crate) fn go(w: &mut World, p: usize, pc: Pc, note: &'static str) -> Taken {
    w.procs[p].pc = pc;
    Some(note)
}

/// Releases all slots, then continues at `next`.
pub(crate) fn give(w: &mut World, p: usize, next: Pc, note: &'static str) -> Taken {
    w.procs[p].clear(flag::WATCHES);
    w.procs[p].todo = 0;
    if w.procs[p].open == 0 {
        return go(w, p, next, note);
    }
    w.procs[p].next = next;
    go(w, p, Pc::Give, note)
}

fn begin(w: &mut World, p: usize, rules: &Rules) -> Taken {
    w.procs[p].ahead = w.mask(|q| q.has(flag::PLACED));
    if rules.fast {
        (w.procs[p].todo, w.procs[p].pc) = (w.all(), Pc::FastTry);
        return fast_try(w, p);
    }
    draw(w, p)
}

/// Opens and tries one slot after the other.
fn fast_try(w: &mut World, p: usize) -> Taken {
    let todo = w.procs[p].todo;
    if todo == 0 {
        return give(w, p, Pc::Draw, "not enough are free");
    }
    let i = todo.trailing_zeros() as usize;
    w.procs[p].todo &= todo - 1;
    w.procs[p].open |= 1 << i;
    let got = w.try_slot(p, i);
    if w.parts(p) == w.procs[p].k {
        w.procs[p].ahead |= w.mask(|q| q.has(flag::PLACED));
        w.procs[p].todo = 0;
        return go(w, p, Pc::FastList, "has enough");
    }
    Some(if got { "got a slot" } else { "refused a slot" })
}

fn fast_list(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if w.mask(|q| q.linked) != 0 && !rules.is(Mutation::FastIgnoresLine) {
        w.procs[p].ahead = 0;
        return give(w, p, Pc::Draw, "another process queues");
    }
    go(w, p, Pc::LockState, "the queue is empty")
}

/// Lists the queue for a number above all that are listed or drawn, because the clock advances.
fn draw(w: &mut World, p: usize) -> Taken {
    let last = w.procs.iter().map(|q| q.number).max();
    w.procs[p].number = last.unwrap_or(0) + 1;
    go(w, p, Pc::Create, "draws a number")
}

/// Lists the queue to find the position of its own ticket.
fn look(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if w.procs[p].mark {
        w.procs[p].clear(flag::LOOK);
        return go(w, p, Pc::Unmark, "own ticket is marked");
    }
    let mine = w.procs[p].number;
    let before = w.before(p);
    w.procs[p].marked = 0;
    w.procs[p].skip = w.mask(|q| q.linked && q.mark && q.number < mine);
    let Some(front) = w.lowest(before) else {
        return become_head(w, p);
    };
    if w.procs[p].open != 0 {
        return give(w, p, Pc::Look, "is not the head any more");
    }
    let last = (0..N).filter(|q| before & (1 << q) != 0);
    let last = last.max_by_key(|&q| w.procs[q].number);
    w.procs[p].pred = last.map_or(NOBODY, |q| q as u8);
    if w.procs[p].has(flag::LOOK) && rules.windows {
        w.procs[p].clear(flag::LOOK);
        return window::compare(w, p, front, before.count_ones() as u8);
    }
    go(w, p, Pc::WaitPred, "there is a ticket before it")
}

/// There is no unmarked ticket before it.
fn become_head(w: &mut World, p: usize) -> Taken {
    let held = w.held(p);
    let proc = &mut w.procs[p];
    proc.clear(flag::LOOK);
    proc.count_anew();
    proc.pred = NOBODY;
    proc.set(flag::WATCHES);
    proc.todo = proc.open & !held;
    go(w, p, Pc::TrySlots, "I am the head")
}

/// Waits at its predecessor's ticket, until that is deleted.
fn wait_pred(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let pred = w.procs[usize::from(w.procs[p].pred)];
    let stands = pred.linked && pred.number < w.procs[p].number && !pred.mark;
    if !stands {
        return look(w, p, rules);
    }
    if !pred.locked {
        return go(w, p, Pc::Reap, "its owner is dead");
    }
    if window::is_due(w, p, rules) {
        w.procs[p].clear(flag::DUE);
        w.procs[p].set(flag::LOOK);
        return look(w, p, rules);
    }
    None
}

/// The head: opens and watches all slots, tries those that it lacks, and keeps what it gets.
fn try_slots(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let proc = w.procs[p];
    let due = window::is_due(w, p, rules);
    if proc.mark && (due || proc.todo != 0) {
        return go(w, p, Pc::Unmark, "own ticket is marked");
    }
    if due {
        w.procs[p].clear(flag::DUE);
        let keeps = rules.is(Mutation::KeepsPart);
        if w.held(p) != 0 && w.before(p) != 0 && !keeps {
            // It makes its first probe at once, so that its windows begin with those of the others.
            w.procs[p].count_anew();
            w.procs[p].set(flag::LOOK);
            return give(w, p, Pc::Look, "is not first any more");
        }
        w.procs[p].todo = w.procs[p].open & !w.held(p);
        return Some("the timer: checks again");
    }
    let unopened = w.all() & !proc.open;
    if unopened != 0 {
        let bit = unopened & unopened.wrapping_neg();
        w.procs[p].open |= bit;
        w.procs[p].todo |= bit;
        return Some("opens and watches a slot");
    }
    let wanted = proc.todo & !w.held(p);
    let ladder = !rules.is(Mutation::NoLadder);
    let ready = |&i: &usize| wanted & (1 << i) != 0 && !(ladder && w.is_dropping(i));
    if let Some(i) = (0..w.count).find(ready) {
        w.procs[p].todo &= !(1 << i);
        if !w.try_slot(p, i) {
            return Some("refused a slot");
        }
        if w.parts(p) == proc.k {
            return go(w, p, Pc::CheckMarks, "has enough");
        }
        return Some("got a slot");
    }
    let part = proc.skip != 0 && w.held(p) != 0;
    if part && wanted == 0 && rules.is(Mutation::PasserKeepsNoPart) {
        return give(
            w,
            p,
            Pc::WaitWindow,
            "has bypassed a waiter, so keeps no part",
        );
    }
    None
}

/// With all slots locked: are the skipped marks still there?
fn check_marks(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let skip = w.procs[p].skip;
    let mine = w.procs[p].number;
    let awake = w.mask(|q| q.linked && !q.mark && q.number < mine) & skip;
    if awake != 0 && !rules.is(Mutation::MarksNotRechecked) {
        w.idle = 0;
        return give(w, p, Pc::Look, "a mark is gone");
    }
    // The process that it has just marked should be stopped.
    w.procs[p].exempt |= w.mask(|q| q.mark) & !w.procs[p].marked;
    go(w, p, Pc::LockState, "")
}

/// The next token, under the state lock.
fn mint(w: &mut World, p: usize, rules: &Rules) -> Taken {
    match w.procs[p].pc {
        Pc::LockState => {
            if rules.is(Mutation::NoStateLock) {
                return go(w, p, Pc::ReadToken, "does not lock the state");
            }
            if w.state != 0 {
                return None;
            }
            w.state = p as u8 + 1;
            go(w, p, Pc::ReadToken, "locks the state")
        }
        Pc::ReadToken => {
            w.procs[p].token = w.token + 1;
            go(w, p, Pc::WriteToken, "reads the token")
        }
        Pc::WriteToken => {
            w.token = w.procs[p].token;
            if w.token <= w.minted {
                w.fail(Fault::Token);
            }
            w.minted = w.minted.max(w.token);
            go(w, p, Pc::UnlockState, "writes the token")
        }
        _ => {
            w.state = 0;
            go(w, p, Pc::Spare, "unlocks the state")
        }
    }
}

/// From here on the guard exists. It is judged here.
fn grant(w: &mut World, p: usize) -> Taken {
    let inside = |q: &Proc| q.has(flag::GUARD) && matches!(q.life, Life::Awake | Life::Stopped);
    let others: u8 = w.procs.iter().filter(|q| inside(q)).map(|q| q.k).sum();
    if usize::from(others + w.procs[p].k) > w.count || w.parts(p) != w.procs[p].k {
        w.fail(Fault::Exclusion);
    }
    if w.procs[p].ahead & !w.procs[p].exempt != 0 {
        w.fail(Fault::Order);
    }
    w.idle = 0;
    w.leaves_line(p);
    let proc = &mut w.procs[p];
    proc.count_anew();
    proc.set(flag::GUARD);
    proc.clear(flag::WATCHES | flag::DUE);
    (proc.ahead, proc.skip, proc.todo, proc.marked) = (0, 0, 0, 0);
    go(w, p, Pc::Held, "granted")
}

/// Unlocks or closes one slot.
fn give_one(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let open = w.procs[p].open;
    if open == 0 {
        let next = w.procs[p].next;
        w.procs[p].next = Pc::Idle;
        return go(w, p, next, "all slots are released");
    }
    let i = open.trailing_zeros() as usize;
    let locked = w.held(p) & (1 << i) != 0;
    // A process that releases watches nothing, so this register is free (only in a mutation).
    let closed = w.procs[p].todo & (1 << i) != 0;
    if rules.is(Mutation::CloseBeforeUnlock) && locked && !closed {
        w.announce(Some(p), i);
        w.procs[p].todo |= 1 << i;
        return Some("closes a slot before the unlock");
    }
    if locked {
        w.slots[i] = 0;
        if !closed && !rules.is(Mutation::GiveBackWithoutClose) {
            return Some("unlocks a slot");
        }
    } else {
        w.announce(Some(p), i);
    }
    w.procs[p].todo &= !(1 << i);
    w.procs[p].open &= !(1 << i);
    Some("closes a slot")
}

/// The ticket is deleted any time after the guard exists or the call was given up, beside the main
/// program.
pub(crate) fn tidy(w: &mut World, p: usize) -> Taken {
    let proc = &w.procs[p];
    let over = proc.has(flag::GUARD) || proc.pc == Pc::Finish || proc.next == Pc::Finish;
    if !over || !proc.linked {
        return None;
    }
    w.idle = 0;
    (w.procs[p].linked, w.procs[p].locked) = (false, false);
    (w.procs[p].mark, w.procs[p].number) = (false, 0);
    Some("unlinks its ticket")
}

/// Ends the round when the ticket is deleted too.
fn finish(w: &mut World, p: usize) -> Taken {
    let proc = w.procs[p];
    if proc.linked {
        return None;
    }
    w.leaves_line(p);
    w.procs[p] = Proc::new(proc.k, proc.rounds - 1);
    Some("is done")
}
