//! The program of a process, one system call a step: from the call of `acquire` up to the wait for
//! the predecessor's ticket. `head.rs` continues from there. `leave.rs` has everything that
//! releases something.
//!
//! A step that is not possible now (it waits for an event, or for a lock that is about to drop) is
//! `None`. A refused try-lock that is simply repeated changes nothing and is no step.

use crate::copies;
use crate::head;
use crate::leave;
use crate::outsider;
use crate::rules::{Clock, Mutation, Rules};
use crate::shared;
pub(crate) use crate::step::Step;
use crate::thread;
use crate::window;
use crate::world::{Fault, Fd, NONE, Pc, Role, World, flag};

/// A step that was taken, with its result; `None` if it is not possible now.
pub(crate) type Taken = Option<(Step, &'static str)>;

/// Takes the next step of process `p`.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    match w.procs[p].pc {
        Pc::Idle => begin(w, p, rules),
        Pc::FastOpen => fast_open(w, p, rules),
        Pc::FastTry | Pc::FastList if w.procs[p].role == Role::Onlooker => probe(w, p, rules),
        Pc::FastTry => fast_try(w, p),
        Pc::FastCheck => fast_check(w, p, rules),
        Pc::FastList => fast_list(w, p, rules),
        Pc::Draw => draw(w, p, rules),
        Pc::Create => create(w, p, rules),
        Pc::LockTicket => lock_ticket(w, p, rules),
        Pc::CheckTicket => check_ticket(w, p),
        Pc::Retake => retake(w, p),
        Pc::Look => look(w, p, rules),
        Pc::OpenPred => open_pred(w, p),
        Pc::WatchPred => watch_pred(w, p),
        Pc::CheckPred => check_pred(w, p, rules),
        Pc::WaitPred => wait_pred(w, p, rules),
        Pc::ReapCheck => reap_check(w, p, rules),
        Pc::Reap => reap(w, p),
        Pc::ReapClose => reap_close(w, p),
        Pc::ProbeOpen | Pc::ProbeTry | Pc::ProbeSee | Pc::MarkList | Pc::Mark | Pc::Unmark => {
            window::step(w, p, rules)
        }
        Pc::Tomb
        | Pc::UnlinkState
        | Pc::RemoveQueue
        | Pc::StateBack
        | Pc::CheckRemove
        | Pc::UnlinkDoor => leave::remove(w, p, rules),
        Pc::Leave | Pc::GiveUnlock | Pc::GiveClose => leave::step(w, p, rules),
        Pc::Outside => outsider::try_lock_file(w, p),
        Pc::CopyState | Pc::ReplaceState | Pc::DropState => copies::step(w, p, rules),
        Pc::Done => None,
        pc if shared::takes(pc) => shared::step(w, p, rules),
        _ => head::step(w, p, rules),
    }
}

/// Sets the next step of the process and returns the result of this one.
pub(crate) fn go(w: &mut World, p: usize, pc: Pc, step: Step, note: &'static str) -> Taken {
    w.procs[p].pc = pc;
    Some((step, note))
}

/// Unlocks and closes the door, then continues at `next`.
pub(crate) fn give_back(
    w: &mut World,
    p: usize,
    next: Pc,
    step: Step,
    note: &'static str,
) -> Taken {
    w.procs[p].next = next;
    go(w, p, Pc::GiveUnlock, step, note)
}

/// The first step of a call. Processes that are queued now come first.
fn begin(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if w.procs[p].role == Role::Outsider {
        return outsider::open(w, p);
    }
    w.procs[p].ahead = w.placed_before(p);
    if w.procs[p].role == Role::Onlooker {
        return probe_open(w, p);
    }
    if rules.fast || w.procs[p].role == Role::Remover {
        fast_open(w, p, rules)
    } else {
        draw(w, p, rules)
    }
}

/// An observer makes no lock file.
fn probe_open(w: &mut World, p: usize) -> Taken {
    if w.door_path == NONE {
        w.procs[p].pc = Pc::Leave;
        leave::finish(w, p);
        return Some((Step::Probe, "no lock file"));
    }
    w.open_door(p);
    go(w, p, Pc::FastTry, Step::Probe, "opens the door")
}

/// An observer tries the door, then tries to share it, and releases at once what it gets.
fn probe(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let exclusive = w.procs[p].pc == Pc::FastTry;
    let got = match exclusive {
        true => w.try_lock(p, Fd::Door),
        false => w.try_share(p, Fd::Door),
    };
    if got {
        return give_back(w, p, Pc::Leave, Step::Probe, "got it");
    }
    if exclusive && rules.shared() {
        return go(w, p, Pc::FastList, Step::Probe, "refused");
    }
    w.procs[p].next = Pc::Leave;
    go(w, p, Pc::GiveClose, Step::Probe, "refused")
}

fn fast_open(w: &mut World, p: usize, rules: &Rules) -> Taken {
    w.open_door(p);
    let list_first = rules.is(Mutation::ListThenLock);
    let next = if list_first {
        Pc::FastList
    } else {
        Pc::FastTry
    };
    go(w, p, next, Step::FastOpen, "")
}

fn fast_try(w: &mut World, p: usize) -> Taken {
    if w.try_door(p) {
        w.procs[p].first = w.placed_before(p);
        return go(w, p, Pc::FastCheck, Step::FastTryDoor, "got it");
    }
    w.procs[p].next = queue_or_leave(w, p);
    go(w, p, Pc::GiveClose, Step::FastTryDoor, "refused")
}

fn fast_check(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let unchecked = rules.is(Mutation::NoCheckDoor)
        || (rules.is(Mutation::RemoveWithoutCheck) && w.procs[p].role == Role::Remover);
    if w.procs[p].door != w.door_path && !unchecked {
        return give_back(w, p, Pc::FastOpen, Step::FastCheck, "another file by now");
    }
    if rules.is(Mutation::ListThenLock) {
        return head::enter(w, p, Step::FastCheck, "");
    }
    go(w, p, Pc::FastList, Step::FastCheck, "")
}

fn fast_list(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let ignores = rules.is(Mutation::ReaderIgnoresLine) && w.procs[p].reads();
    if w.slots().any(|t| w.conflicts(p, t)) && !ignores {
        let next = queue_or_leave(w, p);
        return give_back(w, p, next, Step::FastList, "another process queues");
    }
    if rules.is(Mutation::ListThenLock) {
        return go(w, p, Pc::FastTry, Step::FastList, "empty");
    }
    head::enter(w, p, Step::FastList, "empty")
}

/// The next step when the fast path fails: queue or return.
pub(crate) fn queue_or_leave(w: &World, p: usize) -> Pc {
    match w.procs[p].role {
        Role::Locker | Role::Reader => Pc::Draw,
        Role::Remover | Role::Outsider | Role::Onlooker => Pc::Leave,
    }
}

/// Lists the queue to draw a number.
fn draw(w: &mut World, p: usize, rules: &Rules) -> Taken {
    w.procs[p].first = 0;
    if !w.queue {
        w.queue = true;
        return go(w, p, Pc::Draw, Step::ListQueue, "no directory: makes it");
    }
    let number = number(w, rules);
    expect_before(w, p);
    w.draw(p, number);
    go(w, p, Pc::Create, Step::ListQueue, "draws a number")
}

/// The last ticket of this listing will be opened first.
fn expect_before(w: &mut World, p: usize) {
    let standing = w.slots().filter(|&t| w.conflicts(p, t));
    let last = standing.max_by_key(|&t| w.place(t));
    w.procs[p].target = last.map_or(NONE, |t| t as u8);
}

/// The ticket has its name. Next it opens the last ticket of its listing, or lists the queue.
fn placed(w: &mut World, p: usize, step: Step, note: &'static str) -> Taken {
    let next = match w.procs[p].target {
        NONE => Pc::Look,
        _ => Pc::OpenPred,
    };
    go(w, p, next, step, note)
}

/// Returns the number after a listing.
fn number(w: &World, rules: &Rules) -> u8 {
    let linked = || w.slots().filter(|&t| w.tickets[t].linked);
    if rules.is(Mutation::LowNumbers) {
        let free = (1..).find(|&n| linked().all(|t| w.tickets[t].number != n));
        return free.expect("some number is free");
    }
    let highest = match rules.clock {
        Clock::Behind => linked().map(|t| w.tickets[t].number).max(),
        Clock::Fine | Clock::Coarse => w.slots().map(|t| w.tickets[t].number).max(),
    };
    highest.unwrap_or(0) + 1
}

/// With a coarse clock: draws the number that another process drew in the same tick.
pub(crate) fn draw_same(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let fits = rules.clock == Clock::Coarse && w.procs[p].pc == Pc::Draw && w.queue;
    let last = w.slots().map(|t| w.tickets[t].number).max()?;
    let place = last * 2 + u8::from(!w.procs[p].reads());
    if !fits || w.lookup(place).is_some() {
        return None;
    }
    w.procs[p].first = 0;
    expect_before(w, p);
    w.draw(p, last);
    go(
        w,
        p,
        Pc::Create,
        Step::ListQueue,
        "draws a number of the same tick",
    )
}

fn create(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if !w.queue || w.named_as(usize::from(w.procs[p].own)).is_some() {
        w.undraw(p);
        w.procs[p].target = NONE;
        let note = if w.queue {
            "name taken"
        } else {
            "no directory"
        };
        return go(w, p, Pc::Draw, Step::CreateTicket, note);
    }
    w.own(p).linked = true;
    if rules.tmpfile {
        thread::take(w, p, rules);
    }
    // The link count of a file that is used again changes.
    let slot = w.procs[p].own;
    w.ticket_event(p, slot);
    if rules.tmpfile {
        w.try_lock(p, Fd::Own);
        w.procs[p].set(flag::PLACED);
        return placed(w, p, Step::CreateTicket, "appears locked");
    }
    go(w, p, Pc::LockTicket, Step::CreateTicket, "")
}

fn lock_ticket(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if !w.try_lock(p, Fd::Own) {
        w.procs[p].target = NONE;
        return go(w, p, Pc::Retake, Step::LockTicket, "refused");
    }
    thread::take(w, p, rules);
    if w.own(p).linked {
        w.procs[p].set(flag::PLACED);
    }
    go(w, p, Pc::CheckTicket, Step::LockTicket, "")
}

fn check_ticket(w: &mut World, p: usize) -> Taken {
    if w.own(p).linked {
        return placed(w, p, Step::CheckTicket, "");
    }
    w.procs[p].target = NONE;
    go(
        w,
        p,
        Pc::Retake,
        Step::CheckTicket,
        "reaped before it was locked",
    )
}

/// Closes a lost ticket, then takes another one.
fn retake(w: &mut World, p: usize) -> Taken {
    if w.close_half(p, Fd::Own) {
        return go(w, p, Pc::Draw, Step::CloseTicket, "takes another");
    }
    go(w, p, Pc::Retake, Step::CloseTicket, "announced")
}

/// Lists the queue to find the position of its own ticket.
fn look(w: &mut World, p: usize, rules: &Rules) -> Taken {
    w.procs[p].clear(flag::PRED_EVENT);
    let own = *w.own(p);
    if !own.linked {
        w.procs[p].clear(flag::LOOK);
        return go(w, p, Pc::Retake, Step::ListQueue, "own ticket is gone");
    }
    if own.mark {
        w.procs[p].clear(flag::LOOK);
        return go(w, p, Pc::Unmark, Step::ListQueue, "own ticket is marked");
    }
    let mut before: Option<usize> = None;
    let mut front: Option<usize> = None;
    let (mut behind, mut skip) = (0, 0);
    let mine = w.place(usize::from(w.procs[p].own));
    for t in w.slots() {
        if !w.tickets[t].linked || w.place(t) >= mine {
            continue;
        }
        let conflicts = w.conflicts(p, t);
        if w.tickets[t].mark {
            skip |= u8::from(conflicts) << t;
            continue;
        }
        // The windows of a reader count the readers before it too, because running writers count
        // them.
        if !conflicts && rules.is(Mutation::ReadersUncounted) {
            continue;
        }
        behind += 1;
        if conflicts && before.is_none_or(|b| w.place(b) < w.place(t)) {
            before = Some(t);
        }
        if front.is_none_or(|f| w.place(f) > w.place(t)) {
            front = Some(t);
        }
    }
    w.procs[p].skip = skip;
    let (Some(before), Some(front)) = (before, front) else {
        return head::become_head(w, p);
    };
    if w.procs[p].has(flag::LOOK) && rules.windows {
        window::compare(w, p, front as u8, behind, rules);
    }
    stay_behind(w, p, before as u8)
}

/// There is a ticket before its own: opens it, probes the door past it, or tries it.
fn stay_behind(w: &mut World, p: usize, before: u8) -> Taken {
    if thread::waits_for(w, p, usize::from(before)) {
        return stay_with_thread(w, p);
    }
    let opened = w.procs[p].pred;
    let place = |slot: u8| w.place(usize::from(slot));
    let same_name = opened != NONE && place(opened) == place(before);
    let proc = &mut w.procs[p];
    if !same_name {
        proc.target = before;
        return go(
            w,
            p,
            Pc::OpenPred,
            Step::ListQueue,
            "there is a ticket before it",
        );
    }
    if proc.has(flag::LOOK) {
        proc.clear(flag::LOOK);
        return go(w, p, Pc::ProbeOpen, Step::ListQueue, "timer: still behind");
    }
    proc.set(flag::LADDER);
    go(w, p, Pc::WaitPred, Step::ListQueue, "still behind")
}

/// A thread waits for the ticket before its own.
fn stay_with_thread(w: &mut World, p: usize) -> Taken {
    if w.procs[p].pred != NONE {
        w.close_half(p, Fd::Pred);
    }
    let proc = &mut w.procs[p];
    proc.clear(flag::LADDER);
    if proc.has(flag::LOOK) {
        proc.clear(flag::LOOK);
        return go(w, p, Pc::ProbeOpen, Step::ListQueue, "timer: still behind");
    }
    go(
        w,
        p,
        Pc::WaitPred,
        Step::ListQueue,
        "its thread waits for it",
    )
}

/// Opens the predecessor's ticket. Closes the one that was open before, and the door of a former
/// head.
fn open_pred(w: &mut World, p: usize) -> Taken {
    for fd in [Fd::Pred, Fd::Door] {
        if w.lock_behind(p, fd).is_some() {
            w.close_half(p, fd);
        }
    }
    let target = std::mem::replace(&mut w.procs[p].target, NONE);
    match w.named_as(usize::from(target)) {
        Some(t) if thread::waits_for(w, p, t) && w.tickets[t].mark => {
            go(w, p, Pc::Look, Step::CheckPredecessor, "marked")
        }
        Some(t) if thread::waits_for(w, p, t) => stay_with_thread(w, p),
        Some(t) => {
            w.procs[p].pred = t as u8;
            go(w, p, Pc::WatchPred, Step::OpenPredecessor, "")
        }
        None => go(w, p, Pc::Look, Step::OpenPredecessor, "gone"),
    }
}

fn watch_pred(w: &mut World, p: usize) -> Taken {
    w.procs[p].set(flag::LADDER);
    if thread::begin(w, p) {
        return go(w, p, Pc::CheckPred, Step::WatchPredecessor, "no events");
    }
    w.procs[p].set(flag::PRED_WATCH);
    go(w, p, Pc::CheckPred, Step::WatchPredecessor, "")
}

/// With the watch in place: is the ticket still there, and unmarked?
fn check_pred(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let pred = usize::from(w.procs[p].pred);
    let ticket = w.tickets[pred];
    let same = w.named_as(pred) == Some(pred);
    let own = usize::from(w.procs[p].own);
    let note = if !same {
        "gone"
    } else if ticket.mark {
        "marked"
    } else if w.procs[p].has(flag::LOOK) {
        "is there; the timer requires a check"
    } else if w.place(pred) >= w.place(own) {
        "behind me"
    } else {
        return go(w, p, Pc::WaitPred, Step::CheckPredecessor, "is there");
    };
    if rules.is(Mutation::PredecessorUnchecked) {
        return go(w, p, Pc::WaitPred, Step::CheckPredecessor, note);
    }
    go(w, p, Pc::Look, Step::CheckPredecessor, note)
}

/// Waits for an event of the predecessor's ticket, or tries again on the ladder.
fn wait_pred(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if w.procs[p].has(flag::PRED_EVENT) {
        return look(w, p, rules);
    }
    if w.procs[p].has(flag::LADDER) {
        let trusts = rules.is(Mutation::WokenIsDead) && w.procs[p].has(flag::TRIED);
        if w.try_lock(p, Fd::Pred) || trusts {
            w.procs[p].clear(flag::LADDER | flag::TRIED);
            return go(
                w,
                p,
                Pc::ReapCheck,
                Step::TryPredecessor,
                "locked it: its owner is gone",
            );
        }
        return sleep(w, p, Fd::Pred, Step::TryPredecessor, rules);
    }
    if window::is_due(w, p, rules) {
        w.procs[p].clear(flag::DUE);
        w.procs[p].set(flag::LOOK);
        return look(w, p, rules);
    }
    None
}

/// The last rung was refused: waits, unless the lock is announced to drop, because then a later
/// rung gets it.
pub(crate) fn sleep(w: &mut World, p: usize, fd: Fd, step: Step, rules: &Rules) -> Taken {
    if fd == Fd::Pred
        && let Some(started) = thread::start(w, p)
    {
        return Some(started);
    }
    let lock = *w.lock_behind(p, fd)?;
    if w.is_dropping(lock, fd) && !rules.is(Mutation::NoLadder) {
        return None;
    }
    w.procs[p].clear(flag::LADDER);
    Some((step, "refused: waits"))
}

/// With the lock of a dead ticket: does its name still belong to this inode?
fn reap_check(w: &mut World, p: usize, rules: &Rules) -> Taken {
    let pred = w.procs[p].pred;
    let same = w.named_as(usize::from(pred)) == Some(usize::from(pred));
    if same || rules.is(Mutation::ReapWithoutCheck) {
        return go(
            w,
            p,
            Pc::Reap,
            Step::ReapPredecessor,
            "name and descriptor agree",
        );
    }
    go(
        w,
        p,
        Pc::ReapClose,
        Step::ReapPredecessor,
        "name is gone or another's",
    )
}

fn reap(w: &mut World, p: usize) -> Taken {
    let pred = usize::from(w.procs[p].pred);
    if let Some(t) = w.named_as(pred) {
        w.tickets[t].linked = false;
        w.idle = 0;
        let owner = (0..w.procs.len()).find(|&q| usize::from(w.procs[q].own) == t);
        if owner.is_some_and(|q| w.procs[q].has(flag::PLACED) && w.locks(q, Fd::Own)) {
            w.fail(Fault::Reaped);
        }
    }
    go(w, p, Pc::ReapClose, Step::ReapPredecessor, "unlinks it")
}

fn reap_close(w: &mut World, p: usize) -> Taken {
    if w.close_half(p, Fd::Pred) {
        return go(w, p, Pc::Look, Step::ReapPredecessor, "closes it");
    }
    go(
        w,
        p,
        Pc::ReapClose,
        Step::ReapPredecessor,
        "closes it: announced",
    )
}
