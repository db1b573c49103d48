//! A model of the lock that is a baton, a file that is renamed. Each step is one system call on the
//! names in its directory.
//!
//! A listing is atomic, or it falls between the old and the new name of the baton and shows
//! neither. Listed names, and numbers read off the clock, may be of any age when they are used.
//! Besides: kill -9 anywhere; a holder that is stopped, is judged to have expired, and continues; a
//! wait that is dropped; `remove`.
//!
//! A holder is gone when its process is dead, and the model knows which are. The crate calls a
//! holder gone only if it can prove that. A process that executed another program is alive here,
//! and waits as any other.
//!
//! Checked: there is one baton. A living holder that was never stopped keeps it. Tokens rise, also
//! across a removal. From every state all living processes can finish. Then they have left nothing
//! but a free baton, and a new caller would acquire the lock.

use crate::graph::{Act, State};

mod scenarios;
mod steps;

const N: usize = 3;
const ROUNDS: u8 = 2;

const TWO: &str = "two batons";
const ROBBED: &str = "a living holder was robbed";
const TOKEN: &str = "a token that is not greater";
const LEFT: &str = "a record of the living is left";
const LOCKED: &str = "it can never be acquired again";

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mutation {
    None,
    /// Records are in the directory of the baton. So a process that finds no baton deletes them, to
    /// make the directory empty.
    RecordsWithBaton,
    /// A missing record is written only after the baton was taken.
    SureTooLate,
    /// A new directory replaces this one, empty or not.
    HealsFull,
    /// On release, the baton gets back the free name that it was taken from.
    OldFreeName,
    /// A release frees the baton whatever its name is.
    FreesAny,
    /// `remove` deletes its record first.
    RecordFirst,
    /// A token is the last one plus one. The time does not count.
    NoTime,
    /// What proves nothing counts as a death: another boot, or another start of the process.
    JudgesLiving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Free(u8),
    Held(u8),
}

/// A name of the baton: its number and its owner.
type Name = (u8, Who);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pc {
    Idle,
    List,
    /// Lists while the baton has this name.
    Listing(Name),
    Fresh,
    Place,
    ReadRecord,
    Write,
    Sure,
    Take,
    SureAfter,
    DeleteRobbed,
    Tidy,
    Held,
    Free,
    RemoveBaton,
    RemoveInner,
    DeleteRecord,
    RemoveOuter,
    Sweep,
    Refused,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    pc: Pc,
    alive: bool,
    stopped: bool,
    /// It was stopped while it held the lock, so it may have been bypassed.
    slept: bool,
    remover: bool,
    rounds: u8,
    /// The name that it saw, and may take.
    seen: Option<Name>,
    /// The records that it saw.
    listed: u16,
    /// The number of its own directory, which it is about to put in place.
    fresh: u8,
    /// Its token, when it has the baton.
    token: u8,
    missed: bool,
    drafted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    outer: bool,
    inner: bool,
    batons: Vec<Name>,
    records: u16,
    /// The greatest token there was.
    granted: u8,
    /// Random numbers given out.
    ids: u8,
    processes: [Process; N],
    expires: bool,
    kills: u8,
    stops: u8,
    cancels: u8,
    mutation: Mutation,
    fault: Option<&'static str>,
}

/// Three processes with so many rounds. Those that are marked call `remove`.
fn world(rounds: [u8; N], removers: [bool; N]) -> World {
    let process = |p: usize| Process {
        pc: Pc::Idle,
        alive: true,
        stopped: false,
        slept: false,
        remover: removers[p],
        rounds: rounds[p],
        seen: None,
        listed: 0,
        fresh: 0,
        token: 0,
        missed: false,
        drafted: false,
    };
    World {
        outer: true,
        inner: true,
        batons: vec![(1, Who::Free(0))],
        records: 0,
        granted: 1,
        ids: 1,
        processes: [0, 1, 2].map(process),
        expires: false,
        kills: 0,
        stops: 0,
        cancels: 0,
        mutation: Mutation::None,
        fault: None,
    }
}

impl World {
    fn broken(self, mutation: Mutation) -> Self {
        Self { mutation, ..self }
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == mutation
    }

    /// The record that a process writes in this round.
    fn own(&self, p: usize) -> u8 {
        p as u8 * ROUNDS + self.processes[p].rounds.saturating_sub(1)
    }

    fn writer(&self, record: u8) -> &Process {
        &self.processes[usize::from(record / ROUNDS)]
    }

    fn is_recorded(&self, record: u8) -> bool {
        self.records & (1 << record) != 0
    }

    fn delete(&mut self, record: u8) {
        self.records &= !(1 << record);
    }

    /// The name of the baton while this process has it.
    fn held_name(&self, p: usize) -> Name {
        (self.processes[p].token, Who::Held(self.own(p)))
    }

    fn holds(&self, p: usize) -> bool {
        use Pc::{DeleteRobbed, Free, Held, SureAfter, Tidy};
        let process = &self.processes[p];
        let inside = matches!(process.pc, SureAfter | DeleteRobbed | Tidy | Held | Free);
        process.alive && !process.slept && inside
    }

    /// Renames the baton. Returns `false` if it has another name.
    fn rename(&mut self, from: Name, to: Name) -> bool {
        let found = self.batons.iter_mut().find(|it| **it == from);
        found.map(|it| *it = to).is_some()
    }

    fn fresh_id(&mut self) -> u8 {
        self.ids += 1;
        self.ids
    }

    /// Returns whether a new caller could acquire it, perhaps after some time.
    fn is_open(&self) -> bool {
        match self.batons.iter().max_by_key(|it| it.0) {
            Some((_, Who::Held(record))) => self.expires || self.is_recorded(*record),
            _ => true,
        }
    }

    /// Clears what is not used any more. Numbers only count by their order.
    fn settle(mut self) -> Self {
        let keep = self.is(Mutation::OldFreeName);
        for process in &mut self.processes {
            if matches!(process.pc, Pc::Refused | Pc::List | Pc::Listing(_)) {
                (process.seen, process.listed, process.token) = (None, 0, 0);
            }
            if matches!(process.pc, Pc::Held) && !keep {
                (process.seen, process.listed) = (None, 0);
            }
            if !process.alive {
                (process.seen, process.listed, process.token, process.fresh) = (None, 0, 0, 0);
                (process.stopped, process.slept, process.missed) = (false, false, false);
                (process.drafted, process.pc) = (false, Pc::Done);
            }
        }
        let (mut numbers, mut ids) = (vec![0, self.granted], vec![0]);
        self.for_each_name(|(number, who)| {
            numbers.push(*number);
            if let Who::Free(id) = who {
                ids.push(*id);
            }
        });
        let more = self.processes.iter().flat_map(|it| [it.token, it.fresh]);
        numbers.extend(more);
        let rank = |all: &mut Vec<u8>| {
            all.sort_unstable();
            all.dedup();
        };
        rank(&mut numbers);
        rank(&mut ids);
        let place = |all: &[u8], it: u8| all.partition_point(|other| *other < it) as u8;
        self.for_each_name(|(number, who)| {
            *number = place(&numbers, *number);
            if let Who::Free(id) = who {
                *id = place(&ids, *id);
            }
        });
        for process in &mut self.processes {
            process.token = place(&numbers, process.token);
            process.fresh = place(&numbers, process.fresh);
        }
        self.granted = place(&numbers, self.granted);
        self.ids = ids.len() as u8;
        self
    }

    fn for_each_name(&mut self, mut each: impl FnMut(&mut Name)) {
        self.batons.iter_mut().for_each(&mut each);
        for process in &mut self.processes {
            process.seen.iter_mut().for_each(&mut each);
            if let Pc::Listing(name) = &mut process.pc {
                each(name);
            }
        }
    }

    fn befall(&mut self, p: usize, what: &str) -> bool {
        let (own, holds) = (self.own(p), self.holds(p));
        let drafted = self.processes[p].drafted;
        let process = &mut self.processes[p];
        let (budget, possible) = match what {
            "*Kill*" => (&mut self.kills, process.pc != Pc::Done),
            "*Stop*" => (&mut self.stops, !process.stopped && holds),
            _ => (&mut self.cancels, process.pc == Pc::Refused),
        };
        if *budget == 0 || !process.alive || !possible {
            return false;
        }
        *budget -= 1;
        match what {
            "*Kill*" => process.alive = false,
            "*Stop*" => (process.stopped, process.slept) = (true, true),
            _ => {
                steps::leave(process);
                if drafted {
                    self.delete(own);
                }
            }
        }
        true
    }
}

impl State for World {
    fn next(&self, out: &mut Vec<(Act, Self)>) {
        for p in (0..N).filter(|&p| self.processes[p].alive) {
            if self.processes[p].stopped {
                let mut w = self.clone();
                w.processes[p].stopped = false;
                out.push(((p, "*Continue*"), w.settle()));
            } else {
                let mut w = self.clone();
                if let Some(what) = steps::step(&mut w, p) {
                    out.push(((p, what), w.settle()));
                }
                let mut w = self.clone();
                if steps::begin_listing(&mut w, p) {
                    out.push(((p, "begin to list"), w.settle()));
                }
            }
            for what in ["*Kill*", "*Stop*", "*Cancel*"] {
                let mut w = self.clone();
                if w.befall(p, what) {
                    out.push(((p, what), w.settle()));
                }
            }
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let robbed = |p: usize| self.holds(p) && !self.batons.contains(&self.held_name(p));
        if self.fault.is_some() {
            return self.fault;
        }
        if self.batons.len() > 1 {
            return Some(TWO);
        }
        if (0..N).any(robbed) {
            return Some(ROBBED);
        }
        if !self.is_end() {
            return None;
        }
        let left = |it: u8| self.is_recorded(it) && self.writer(it).alive;
        if (0..N as u8 * ROUNDS).any(left) {
            return Some(LEFT);
        }
        (!self.is_open()).then_some(LOCKED)
    }

    fn is_end(&self) -> bool {
        let done = |it: &Process| !it.alive || it.pc == Pc::Done;
        self.processes.iter().all(done)
    }
}
