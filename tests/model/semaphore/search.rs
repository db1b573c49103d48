//! Breadth-first search of the semaphore's states, and the events of its processes.

use std::fmt::Write as _;

use super::rules::Rules;
use super::steps;
use super::window;
use super::world::{Fault, Life, N, NOBODY, Pc, Proc, STRANGER, STRANGER_DROPPING, World, flag};
use crate::seen::{Seen, fingerprint};

/// What happened: the process that acted or was affected, and a description.
type Act = (Option<usize>, &'static str);

/// The result of a search. The way to the fault is empty if there is none.
pub(crate) struct Outcome {
    pub(crate) states: usize,
    pub(crate) fault: Fault,
    pub(crate) trace: String,
}

/// Searches everything that the scenario can reach, up to the first fault. If a fault is `wanted`,
/// up to the first of that kind.
pub(crate) fn explore(rules: &Rules, wanted: Option<Fault>) -> Outcome {
    let mut seen = Seen::new();
    let start = rules.start();
    seen.insert(fingerprint(&canonical(&start)), u32::MAX);
    let (mut layer, mut next) = (vec![(start, 0)], Vec::new());
    let mut moves = Vec::new();
    while !layer.is_empty() {
        for &(world, number) in &layer {
            moves.clear();
            successors(&world, rules, &mut moves);
            for (_, mut world) in moves.drain(..) {
                if wanted.is_some_and(|wanted| world.fault != wanted) {
                    world.fault = Fault::None;
                }
                let world = canonical(&world);
                let Some(number) = seen.insert(fingerprint(&world), number) else {
                    continue;
                };
                if world.fault != Fault::None {
                    return Outcome {
                        states: seen.len(),
                        fault: world.fault,
                        trace: trace(rules, &seen, number, wanted),
                    };
                }
                next.push((world, number));
            }
        }
        std::mem::swap(&mut layer, &mut next);
        next.clear();
    }
    Outcome {
        states: seen.len(),
        fault: Fault::None,
        trace: String::new(),
    }
}

/// Ticket numbers only count by their order. Processes with equal requests are interchangeable.
fn canonical(world: &World) -> World {
    let mut w = *world;
    let old = w.procs;
    for proc in w.procs.iter_mut().filter(|proc| proc.number != 0) {
        let below = |q: &&Proc| q.number != 0 && q.number < proc.number;
        proc.number = 1 + old.iter().filter(below).count() as u8;
    }
    let mut order = [0, 1, 2];
    order.sort_by(|&a: &usize, &b: &usize| w.procs[a].cmp(&w.procs[b]));
    if order == [0, 1, 2] {
        return w;
    }
    let old = w.procs;
    let mut renamed = [0_u8; N];
    for (new, &from) in order.iter().enumerate() {
        w.procs[new] = old[from];
        renamed[from] = new as u8;
    }
    let index = |q: u8| {
        if q == NOBODY {
            q
        } else {
            renamed[usize::from(q)]
        }
    };
    let mask = |mask: u8| {
        let those = (0..N).filter(|q| mask & (1 << q) != 0);
        those.fold(0, |new, q| new | 1 << renamed[q])
    };
    for proc in &mut w.procs {
        (proc.front, proc.pred) = (index(proc.front), index(proc.pred));
        (proc.skip, proc.marking) = (mask(proc.skip), mask(proc.marking));
        proc.marked = mask(proc.marked);
        (proc.ahead, proc.exempt) = (mask(proc.ahead), mask(proc.exempt));
    }
    for lock in w.slots.iter_mut().chain([&mut w.state]) {
        if (1..=N as u8).contains(lock) {
            *lock = renamed[usize::from(*lock) - 1] + 1;
        }
    }
    w
}

/// Returns all successors. A state without successors is judged here.
fn successors(world: &World, rules: &Rules, out: &mut Vec<(Act, World)>) {
    let mut moving = false;
    let mut keep = |act: Act, counts: bool, taken: bool, w: World| {
        if taken {
            moving |= counts;
            out.push((act, w));
        }
    };
    for p in (0..N).filter(|&p| world.procs[p].life == Life::Awake) {
        let mut w = *world;
        // A holder may hold forever.
        let counts = !matches!(world.procs[p].pc, Pc::Idle | Pc::Held);
        if let Some(note) = steps::step(&mut w, p, rules) {
            keep((Some(p), note), counts, true, w);
        }
        let mut w = *world;
        if let Some(note) = steps::tidy(&mut w, p) {
            keep((Some(p), note), true, true, w);
        }
    }
    for p in 0..N {
        let mut w = *world;
        let taken = w.kills > 0 && kill(&mut w, p);
        keep((Some(p), "*Kill*"), false, taken, w);
        let mut w = *world;
        let taken = w.stops > 0 && stop(&mut w, p, rules);
        keep((Some(p), "*Stop*"), false, taken, w);
        let mut w = *world;
        let taken = resume(&mut w, p);
        keep((Some(p), "*Continue*"), false, taken, w);
        let mut w = *world;
        let taken = w.cancels > 0 && cancel(&mut w, p);
        keep((Some(p), "*Cancel*"), false, taken, w);
        for fd in 0..world.count + 2 {
            let mut w = *world;
            let taken = dying_close(&mut w, p, fd);
            keep((Some(p), "*closes one*"), true, taken, w);
        }
    }
    for i in 0..world.count {
        let mut w = *world;
        let taken = stranger(&mut w, i);
        keep((None, "*another program*"), world.slots[i] != 0, taken, w);
    }
    let mut w = *world;
    let taken = rules.windows && window::pass(&mut w, rules);
    keep((None, "*Window*"), true, taken, w);
    if !moving {
        judge_rest(world, out);
    }
}

/// Judges a state in which nothing moves unless a new process comes, or one leaves, is continued or
/// killed.
fn judge_rest(world: &World, out: &mut Vec<(Act, World)>) {
    let mut w = *world;
    if world.mask(|q| q.life == Life::Stopped) != 0 {
        return;
    }
    let busy = |q: &Proc| q.life == Life::Awake && !matches!(q.pc, Pc::Idle | Pc::Done | Pc::Held);
    let waiting = world.mask(busy);
    if let Some(first) = world.lowest(waiting) {
        let inside = |p: &usize| world.procs[*p].has(flag::GUARD);
        let taken: u8 = (0..N).filter(inside).map(|p| world.parts(p)).sum();
        if world.count as u8 - taken >= world.procs[first].k {
            w.fail(Fault::Stuck);
            out.push(((None, "one waits and nothing will wake it"), w));
        }
        return;
    }
    let inside = world.mask(|q| q.pc == Pc::Held) != 0;
    let dead = world.mask(|q| q.life == Life::Dead) != 0;
    let locked = world.slots.iter().any(|&lock| lock != 0) || world.state != 0;
    if !inside && (locked || (world.mask(|q| q.linked) != 0 && !dead)) {
        w.fail(Fault::Leftover);
        out.push(((None, "all are done, and something is not released"), w));
    }
}

/// SIGKILL: what is not locked is closed at once, the rest one by one.
fn kill(w: &mut World, p: usize) -> bool {
    let old = w.procs[p];
    let alive = matches!(old.life, Life::Awake | Life::Stopped);
    if !alive || matches!(old.pc, Pc::Idle | Pc::Done) {
        return false;
    }
    (w.kills, w.idle) = (w.kills - 1, 0);
    w.leaves_line(p);
    let held = w.held(p);
    for i in (0..w.count).filter(|i| old.open & !held & (1 << i) != 0) {
        w.announce(Some(p), i);
    }
    w.procs[p] = Proc {
        life: Life::Dying,
        number: if old.linked { old.number } else { 0 },
        linked: old.linked,
        locked: old.locked,
        mark: old.mark,
        announced: old.announced & held,
        ..Proc::new(old.k, 0)
    };
    bury(w, p);
    true
}

/// One half of closing a slot, or the end of the lock of the ticket or the state.
fn dying_close(w: &mut World, p: usize, fd: usize) -> bool {
    if w.procs[p].life != Life::Dying {
        return false;
    }
    if fd == w.count {
        if !w.procs[p].locked {
            return false;
        }
        w.procs[p].locked = false;
    } else if fd > w.count {
        if w.state != p as u8 + 1 {
            return false;
        }
        w.state = 0;
    } else if w.held(p) & (1 << fd) == 0 {
        return false;
    } else if w.procs[p].announced & (1 << fd) == 0 {
        w.announce(Some(p), fd);
        w.procs[p].announced |= 1 << fd;
    } else {
        w.slots[fd] = 0;
        w.procs[p].announced &= !(1 << fd);
    }
    bury(w, p);
    true
}

fn bury(w: &mut World, p: usize) {
    if w.held(p) == 0 && !w.procs[p].locked && w.state != p as u8 + 1 {
        w.procs[p].life = Life::Dead;
    }
}

fn stop(w: &mut World, p: usize, rules: &Rules) -> bool {
    let pc = w.procs[p].pc;
    let in_line = matches!(pc, Pc::WaitPred | Pc::TrySlots | Pc::WaitWindow);
    let can = !matches!(pc, Pc::Idle | Pc::Done) && (in_line || !rules.stops_in_line);
    if w.procs[p].life != Life::Awake || !can {
        return false;
    }
    (w.stops, w.idle) = (w.stops - 1, 0);
    w.procs[p].life = Life::Stopped;
    w.procs[p].set(flag::SLEPT);
    for other in w.procs.iter_mut().filter(|other| other.looks > 0) {
        other.exempt |= 1 << p;
    }
    true
}

fn resume(w: &mut World, p: usize) -> bool {
    if w.procs[p].life != Life::Stopped {
        return false;
    }
    w.idle = 0;
    w.procs[p].life = Life::Awake;
    true
}

/// The future is dropped. It releases everything.
fn cancel(w: &mut World, p: usize) -> bool {
    let proc = w.procs[p];
    let over = matches!(proc.pc, Pc::Idle | Pc::Done | Pc::Finish) || proc.next == Pc::Finish;
    if proc.life != Life::Awake || over || proc.has(flag::GUARD) {
        return false;
    }
    w.cancels -= 1;
    w.leaves_line(p);
    if w.state == p as u8 + 1 {
        w.state = 0;
    }
    let proc = &mut w.procs[p];
    if !proc.linked {
        proc.number = 0;
    }
    proc.flags = 0;
    proc.count_anew();
    (proc.skip, proc.marking, proc.marked) = (0, 0, 0);
    (proc.ahead, proc.token) = (0, 0);
    proc.pred = NOBODY;
    steps::give(w, p, Pc::Finish, "").is_some()
}

/// Another program locks a free slot, and closes it without an unlock.
fn stranger(w: &mut World, i: usize) -> bool {
    match w.slots[i] {
        0 if w.strangers > 0 => {
            (w.strangers, w.idle) = (w.strangers - 1, 0);
            w.slots[i] = STRANGER;
        }
        STRANGER => {
            w.announce(None, i);
            w.slots[i] = STRANGER_DROPPING;
        }
        STRANGER_DROPPING => w.slots[i] = 0,
        _ => return false,
    }
    true
}

/// The steps from the start to state `number`, one per line.
fn trace(rules: &Rules, seen: &Seen, number: u32, wanted: Option<Fault>) -> String {
    let mut world = rules.start();
    let mut text = String::new();
    let mut moves = Vec::new();
    for (line, number) in seen.way(number).into_iter().enumerate() {
        moves.clear();
        successors(&world, rules, &mut moves);
        let judged = |next: &World| {
            let mut next = *next;
            if wanted.is_some_and(|wanted| next.fault != wanted) {
                next.fault = Fault::None;
            }
            next
        };
        let found = moves
            .iter()
            .find(|(_, next)| fingerprint(&canonical(&judged(next))) == seen.print(number));
        let ((who, note), next) = found.expect("the way was found once");
        world = judged(next);
        let who = who.map_or("  ".to_owned(), |p| format!("p{p}"));
        let act = format!("{who} {note}");
        let _ = writeln!(text, "{:3}  {act:<44} | {}", line + 1, describe(&world));
    }
    let _ = writeln!(text, "     {:?}", world.fault);
    text
}

/// Slots and tickets in one line.
fn describe(w: &World) -> String {
    let mut text = String::new();
    for i in 0..w.count {
        let _ = match w.slots[i] {
            0 => write!(text, "slot free  "),
            STRANGER | STRANGER_DROPPING => write!(text, "slot stranger  "),
            lock => write!(text, "slot p{}  ", lock - 1),
        };
    }
    for (p, proc) in w.procs.iter().enumerate().filter(|(_, q)| q.linked) {
        let mark = if proc.mark { " marked" } else { "" };
        let _ = write!(text, "[{}.p{} of p{p}{mark}] ", proc.number, proc.k);
    }
    text
}
