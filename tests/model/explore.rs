//! Breadth-first search over all states. Prints a readable trace of the shortest way to the first
//! fault.
//!
//! For a state that was seen, the search keeps a fingerprint of 128 bits and the index of its
//! parent. It keeps whole states for the current layer only. To find a trace, it follows the
//! parents back and runs the steps again. The searched states are sorted by process. The states of
//! the trace are not, so p0 stays p0 from line to line.

use std::fmt::Write as _;

use crate::canon;
use crate::copies;
use crate::faults::{self, Event};
use crate::kernel::{SHARED, descriptor, holders};
use crate::leave;
use crate::rules::{Clock, Rules};
use crate::seen::{Seen, fingerprint};
use crate::shared;
use crate::steps::{self, Step, Taken};
use crate::thread;
use crate::window;
use crate::world::{Fault, Fd, Life, N, NONE, Pc, Proc, World, flag};

/// What happened between two states.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// A process took a step.
    Did(usize, Step, &'static str),
    /// Something happened to a process.
    Befell(usize, Event),
    /// Something happened to all.
    Passed(Event),
    /// Nothing can move any more, which is a fault here.
    Rested(&'static str),
}

/// The result of a search.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) states: usize,
    pub(crate) edges: usize,
    pub(crate) depth: usize,
    pub(crate) fault: Fault,
    /// The way to the fault; empty if there is none.
    pub(crate) trace: String,
}

/// Searches everything that the scenario can reach, up to the first fault. If a fault is `wanted`,
/// up to the first of that kind.
pub(crate) fn explore(rules: &Rules, wanted: Option<Fault>) -> Outcome {
    let mut seen = Seen::new();
    let mut start = rules.start();
    canon::sort_procs(&mut start);
    seen.insert(fingerprint(&start), u32::MAX);
    let mut layer = vec![(start, 0)];
    let mut next = Vec::new();
    let mut moves = Vec::new();
    let (mut edges, mut depth) = (0, 0);
    while !layer.is_empty() {
        for &(world, number) in &layer {
            moves.clear();
            successors(&world, rules, &mut moves);
            edges += moves.len();
            for (_, mut world) in moves.drain(..) {
                if wanted.is_some_and(|wanted| world.fault != wanted) {
                    world.fault = Fault::None;
                }
                canon::sort_procs(&mut world);
                let Some(number) = seen.insert(fingerprint(&world), number) else {
                    continue;
                };
                if world.fault != Fault::None {
                    let trace = trace(rules, &seen, number, wanted);
                    return outcome(&seen, edges, depth + 1, world.fault, trace);
                }
                next.push((world, number));
            }
        }
        std::mem::swap(&mut layer, &mut next);
        next.clear();
        depth += 1;
    }
    outcome(&seen, edges, depth, Fault::None, String::new())
}

fn outcome(seen: &Seen, edges: usize, depth: usize, fault: Fault, trace: String) -> Outcome {
    Outcome {
        states: seen.len(),
        edges,
        depth,
        fault,
        trace,
    }
}

/// What a process does beside its main program.
#[derive(Clone, Copy)]
enum Lane {
    Main,
    Tidy,
    DrawSame,
    Downgrade,
    GiveUp,
    Thread,
}

const LANES: [Lane; 6] = [
    Lane::Main,
    Lane::Tidy,
    Lane::DrawSame,
    Lane::Downgrade,
    Lane::GiveUp,
    Lane::Thread,
];

impl Lane {
    /// No other process can rely on this step. Readers may hold the lock forever. A reader that
    /// asks whether it is alone returns to the same state.
    fn is_leisure(self, proc: &Proc) -> bool {
        matches!(self, Self::GiveUp) || matches!(self, Self::Main) && shared::stays(proc)
    }

    /// Returns whether the step is worth a try.
    fn may_step(self, w: &World, p: usize, rules: &Rules) -> bool {
        match self {
            Self::Main => true,
            Self::Tidy => matches!(w.procs[p].pc, Pc::Held | Pc::Leave),
            Self::DrawSame => rules.clock == Clock::Coarse,
            Self::Downgrade => rules.downgrades && w.procs[p].pc == Pc::Held,
            Self::GiveUp => w.procs[p].pc == Pc::StateLadder && w.procs[p].reads(),
            Self::Thread => thread::can_step(w, p),
        }
    }

    fn step(self, w: &mut World, p: usize, rules: &Rules) -> Taken {
        match self {
            Self::Main => steps::step(w, p, rules),
            Self::Tidy => leave::tidy(w, p, rules),
            Self::DrawSame => steps::draw_same(w, p, rules),
            Self::Downgrade => shared::downgrade(w, p, rules),
            Self::GiveUp => shared::give_up(w, p, rules),
            Self::Thread => thread::step(w, p, rules),
        }
    }
}

/// Returns all successors of a state. A state without successors is judged here: it is the end, or
/// a process is stuck.
fn successors(world: &World, rules: &Rules, out: &mut Vec<(Act, World)>) {
    let keep = |act: Act, mut w: World, out: &mut Vec<(Act, World)>| {
        canon::collect(&mut w, rules.ranks());
        out.push((act, w));
    };
    let mut moving = false;
    for p in (0..N).filter(|&p| world.procs[p].life == Life::Awake) {
        for lane in LANES {
            if !lane.may_step(world, p, rules) {
                continue;
            }
            let mut w = *world;
            if let Some((step, note)) = lane.step(&mut w, p, rules) {
                let begun = world.procs[p].pc != Pc::Idle || matches!(lane, Lane::Thread);
                moving |= begun && !lane.is_leisure(&world.procs[p]);
                keep(Act::Did(p, step, note), w, out);
            }
        }
    }
    for p in 0..N {
        for event in Event::TO_PROCESS {
            if !faults::may_happen(world, p, event) {
                continue;
            }
            let mut w = *world;
            if faults::happen(&mut w, p, event, rules) {
                moving |= world.procs[p].life == Life::Dying;
                keep(Act::Befell(p, event), w, out);
            }
        }
    }
    let mut w = *world;
    if w.intrusions > 0 && faults::intrude(&mut w) {
        keep(Act::Passed(Event::Intrude), w, out);
    }
    let mut w = *world;
    if w.snapshots > 0 && copies::snapshot(&mut w) {
        keep(Act::Passed(Event::Snapshot), w, out);
    }
    let mut w = *world;
    if rules.windows && window::pass(&mut w) {
        moving = true;
        keep(Act::Passed(Event::Window), w, out);
    }
    if !moving {
        judge_rest(world, rules, out);
    }
}

/// Judges a state in which nothing moves unless a new process comes, or one is continued or killed.
fn judge_rest(world: &World, rules: &Rules, out: &mut Vec<(Act, World)>) {
    let waiting = |p: usize| {
        let proc = &world.procs[p];
        let busy = !matches!(proc.pc, Pc::Idle | Pc::Done) && !shared::stays(proc);
        proc.life == Life::Awake && busy && !shared::excuses(world, p)
    };
    let stopped = world.procs.iter().any(|proc| proc.life == Life::Stopped);
    let mut w = *world;
    if (0..N).any(waiting) {
        if !stopped {
            w.fail(Fault::Stuck);
            out.push((Act::Rested("one waits and nothing will wake it"), w));
        }
        return;
    }
    if world.procs.iter().any(|proc| proc.has(flag::GUARD)) {
        return;
    }
    let killed = world.procs.iter().any(|proc| proc.life == Life::Dead);
    let locked = world.doors.iter().any(|door| door.lock != 0)
        || world.states.iter().any(|state| state.lock != 0)
        || world
            .tickets
            .iter()
            .any(|ticket| ticket.lock != 0 && descriptor(ticket.lock) != Fd::Spare);
    let unclean = !world.queue_is_empty() || world.states.iter().any(|state| state.held);
    if !stopped && (locked || (unclean && !killed && rules.cancels == 0)) {
        w.fail(Fault::Leftover);
        out.push((
            Act::Rested("all are done, and something is not released"),
            w,
        ));
    }
}

/// The steps from the start to state `number`, one per line.
fn trace(rules: &Rules, seen: &Seen, number: u32, wanted: Option<Fault>) -> String {
    let mut world = rules.start();
    let mut text = String::new();
    let mut moves = Vec::new();
    for (line, number) in seen.way(number).into_iter().enumerate() {
        moves.clear();
        successors(&world, rules, &mut moves);
        let print = seen.print(number);
        let (act, next) = moves
            .iter()
            .find(|(_, next)| {
                let mut sorted = *next;
                if wanted.is_some_and(|wanted| sorted.fault != wanted) {
                    sorted.fault = Fault::None;
                }
                canon::sort_procs(&mut sorted);
                fingerprint(&sorted) == print
            })
            .expect("the way was found once");
        world = *next;
        if wanted.is_some_and(|wanted| world.fault != wanted) {
            world.fault = Fault::None;
        }
        let act = match *act {
            Act::Did(p, step, note) => format!("p{p} {step:?} {note}"),
            Act::Befell(p, event) => format!("p{p} *{event:?}*"),
            Act::Passed(event) => format!("   *{event:?}*"),
            Act::Rested(note) => format!("   {note}"),
        };
        let _ = writeln!(text, "{:3}  {act:<52} | {}", line + 1, describe(&world));
    }
    let _ = writeln!(text, "     {:?}", world.fault);
    text
}

/// Returns the holders of this lock.
fn lock(w: &World, lock: u8, fd: Fd) -> String {
    let mut text = if lock & SHARED == 0 { "" } else { "shared by " }.to_owned();
    for q in (0..N).filter(|q| holders(lock) & (1 << q) != 0) {
        let _ = write!(text, "p{q}");
    }
    match lock {
        0 => "free".to_owned(),
        lock if w.is_dropping(lock, fd) => text + "(dropping)",
        _ => text,
    }
}

/// Formats files and locks in one line.
fn describe(w: &World) -> String {
    let mut text = String::new();
    for (i, door) in w.doors.iter().enumerate().filter(|(_, door)| door.used) {
        let old = if w.door_path == i as u8 { "" } else { "old " };
        let _ = write!(text, "{old}door {}  ", lock(w, door.lock, Fd::Door));
    }
    for (i, state) in w.states.iter().enumerate().filter(|(_, state)| state.used) {
        let old = if w.state_path == i as u8 { "" } else { "old " };
        let held = match (state.held, state.found) {
            (false, _) => "",
            (true, false) => " held",
            (true, true) => " found",
        };
        let _ = write!(
            text,
            "{old}state {} t{}{held}{}  ",
            lock(w, state.lock, Fd::State),
            state.token,
            if state.linked { " linked" } else { "" }
        );
    }
    for t in w.slots() {
        let ticket = w.tickets[t];
        let owner = (0..N).find(|&p| w.procs[p].own == t as u8);
        let owner = owner.map_or("dead".to_owned(), |p| format!("of p{p}"));
        let name = if ticket.linked { "" } else { "unlinked " };
        let mode = if ticket.shared { ".s" } else { "" };
        let mark = if ticket.mark { " marked" } else { "" };
        let _ = write!(
            text,
            "[{name}{}{mode} {owner} {}{mark}] ",
            ticket.number,
            lock(w, ticket.lock, Fd::Own)
        );
    }
    debug_assert!(w.procs.iter().all(|proc| proc.target == NONE
        || matches!(
            proc.pc,
            Pc::Create | Pc::LockTicket | Pc::CheckTicket | Pc::OpenPred
        )));
    text
}
