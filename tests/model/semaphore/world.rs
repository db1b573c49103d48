//! The state of the semaphore's model, and what the kernel does with it.

use std::hash::{Hash, Hasher};

/// Processes in a world.
pub(crate) const N: usize = 3;
/// The most slots.
pub(crate) const SLOTS: usize = 3;
/// A process index that refers to no process.
pub(crate) const NOBODY: u8 = 0xff;
/// The lock byte of a slot that another program has. 0 is free, else the process plus one.
pub(crate) const STRANGER: u8 = 0x40;
/// The same, with its close announced.
pub(crate) const STRANGER_DROPPING: u8 = 0x41;

/// Whether the process is able to run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Life {
    Awake,
    Stopped,
    Dying,
    Dead,
}

/// The next step of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Pc {
    Idle,
    FastTry,
    FastList,
    Draw,
    Create,
    Look,
    Unmark,
    WaitPred,
    Reap,
    TrySlots,
    WaitWindow,
    Probe,
    ProbeSee,
    Mark,
    Spare,
    CheckMarks,
    LockState,
    ReadToken,
    WriteToken,
    UnlockState,
    Grant,
    Held,
    Give,
    Finish,
    Done,
}

/// The bits of [`Proc::flags`].
pub(crate) mod flag {
    /// The claim window's timer has fired.
    pub(crate) const DUE: u8 = 1;
    /// This check comes from that timer.
    pub(crate) const LOOK: u8 = 1 << 1;
    /// The guard exists.
    pub(crate) const GUARD: u8 = 1 << 2;
    /// It is queued.
    pub(crate) const PLACED: u8 = 1 << 3;
    /// Was stopped at some time in the current window.
    pub(crate) const SLEPT: u8 = 1 << 4;
    /// Its slots are watched.
    pub(crate) const WATCHES: u8 = 1 << 5;
}

/// One process, with its ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Proc {
    /// The permits that it requests.
    pub(crate) k: u8,
    pub(crate) life: Life,
    pub(crate) pc: Pc,
    /// The step after the slots are released.
    pub(crate) next: Pc,
    /// Rounds left, the current one included.
    pub(crate) rounds: u8,
    /// The number of its ticket, 0 for none.
    pub(crate) number: u8,
    /// The ticket has its name; it is locked; it is marked.
    pub(crate) linked: bool,
    pub(crate) locked: bool,
    pub(crate) mark: bool,
    pub(crate) flags: u8,
    /// Slots that it has open; those still to be tried; those whose close is announced.
    pub(crate) open: u8,
    pub(crate) todo: u8,
    pub(crate) announced: u8,
    pub(crate) token: u8,
    /// What its probes have seen: the token, in how many windows, and how many tickets before its
    /// own.
    pub(crate) seen: u8,
    pub(crate) looks: u8,
    pub(crate) behind: u8,
    /// The process with the lowest ticket before its own, and the process with the next one.
    pub(crate) front: u8,
    pub(crate) pred: u8,
    /// Processes whose marked tickets it bypasses; those still to be marked.
    pub(crate) skip: u8,
    pub(crate) marking: u8,
    /// Processes whose tickets it has marked since its last check.
    pub(crate) marked: u8,
    /// Processes that it must not bypass, and those that it may.
    pub(crate) ahead: u8,
    pub(crate) exempt: u8,
}

impl Proc {
    pub(crate) fn new(k: u8, rounds: u8) -> Self {
        Self {
            k,
            life: Life::Awake,
            pc: if rounds == 0 { Pc::Done } else { Pc::Idle },
            next: Pc::Idle,
            rounds,
            number: 0,
            linked: false,
            locked: false,
            mark: false,
            flags: 0,
            open: 0,
            todo: 0,
            announced: 0,
            token: 0,
            seen: 0,
            looks: 0,
            behind: 0,
            front: NOBODY,
            pred: NOBODY,
            skip: 0,
            marking: 0,
            marked: 0,
            ahead: 0,
            exempt: 0,
        }
    }

    pub(crate) fn has(&self, bit: u8) -> bool {
        self.flags & bit != 0
    }

    pub(crate) fn set(&mut self, bits: u8) {
        self.flags |= bits;
    }

    pub(crate) fn clear(&mut self, bits: u8) {
        self.flags &= !bits;
    }

    /// Forgets what its probes have seen.
    pub(crate) fn count_anew(&mut self) {
        (self.seen, self.looks, self.behind) = (0, 0, 0);
        (self.front, self.exempt) = (NOBODY, 0);
    }
}

/// The kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    /// More permits are held than there are.
    Exclusion,
    /// A waiter was granted before one that had to come first.
    Order,
    /// A process waits, and nothing is left that could wake it.
    Stuck,
    /// A token that is not above the one before.
    Token,
    /// All are done, and a lock or a ticket is left.
    Leftover,
    /// A frozen process, or two heads, delay the queue for more windows than guaranteed.
    Frozen,
}

/// A state of the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct World {
    pub(crate) procs: [Proc; N],
    /// How many slots there are, and the holder of each.
    pub(crate) count: usize,
    pub(crate) slots: [u8; SLOTS],
    /// The holder of the state file's lock: the process plus one.
    pub(crate) state: u8,
    pub(crate) token: u8,
    pub(crate) minted: u8,
    pub(crate) kills: u8,
    pub(crate) stops: u8,
    pub(crate) cancels: u8,
    pub(crate) strangers: u8,
    pub(crate) idle: u8,
    pub(crate) fault: Fault,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.procs.hash(to);
        to.write(&self.slots);
        to.write(&[self.state, self.token, self.minted, self.kills]);
        to.write(&[self.stops, self.cancels, self.strangers, self.idle]);
        to.write_u8(self.fault as u8);
    }
}

impl World {
    /// Notes the first fault.
    pub(crate) fn fail(&mut self, fault: Fault) {
        if self.fault == Fault::None {
            self.fault = fault;
        }
    }

    /// All slots, as a mask.
    pub(crate) fn all(&self) -> u8 {
        (1 << self.count) - 1
    }

    /// The slots this process has locked.
    pub(crate) fn held(&self, p: usize) -> u8 {
        (0..self.count).fold(0, |mask, i| {
            mask | u8::from(self.slots[i] == p as u8 + 1) << i
        })
    }

    /// How many they are.
    pub(crate) fn parts(&self, p: usize) -> u8 {
        self.held(p).count_ones() as u8
    }

    /// The processes for which `test` holds, as a mask.
    pub(crate) fn mask(&self, test: impl Fn(&Proc) -> bool) -> u8 {
        (0..N).fold(0, |mask, p| mask | u8::from(test(&self.procs[p])) << p)
    }

    /// The processes with an unmarked ticket before that of `p`.
    pub(crate) fn before(&self, p: usize) -> u8 {
        let mine = self.procs[p].number;
        self.mask(|q| q.linked && !q.mark && q.number < mine)
    }

    /// The one of these processes with the lowest ticket.
    pub(crate) fn lowest(&self, mask: u8) -> Option<usize> {
        let those = (0..N).filter(|q| mask & (1 << q) != 0);
        those.min_by_key(|&q| self.procs[q].number)
    }

    /// Tries to lock a slot.
    pub(crate) fn try_slot(&mut self, p: usize, i: usize) -> bool {
        let free = self.slots[i] == 0;
        if free {
            self.slots[i] = p as u8 + 1;
        }
        free
    }

    /// The close of a slot: all processes that watch it check again.
    pub(crate) fn announce(&mut self, by: Option<usize>, i: usize) {
        for (q, other) in self.procs.iter_mut().enumerate() {
            let mine = Some(q) == by || self.slots[i] == q as u8 + 1;
            if !mine && other.has(flag::WATCHES) && other.open & (1 << i) != 0 {
                other.todo |= 1 << i;
            }
        }
    }

    /// Returns whether the holder of this slot is closing it.
    pub(crate) fn is_dropping(&self, i: usize) -> bool {
        match self.slots[i] {
            0 | STRANGER => false,
            STRANGER_DROPPING => true,
            lock => self.procs[usize::from(lock - 1)].announced & (1 << i) != 0,
        }
    }

    /// No process has to wait for this one any more.
    pub(crate) fn leaves_line(&mut self, p: usize) {
        self.procs[p].clear(flag::PLACED);
        for other in &mut self.procs {
            other.ahead &= !(1 << p);
        }
    }
}
