//! The state of the model: what the kernel keeps (inodes, names, locks) and what each process keeps (program counter,
//! open descriptors, registers), with the few kernel operations the protocol uses.
//!
//! Everything is a byte, so that a state is small to copy and quick to hash. References between parts are indices; an
//! index that refers to nothing is [`NONE`]. A lock is a byte too: 0 when free, else the descriptor that holds it, as
//! [`lock_of`] packs it. So "the lock of an open file description" is literal: another descriptor of the same process
//! does not own it.

use std::hash::{Hash, Hasher};

/// Processes in a world.
pub(crate) const N: usize = 3;
/// Slots for ticket inodes; the explorer asserts that they suffice.
pub(crate) const TICKETS: usize = 8;
/// Slots for door inodes and for state inodes.
pub(crate) const INODES: usize = 4;
/// An index that refers to nothing.
pub(crate) const NONE: u8 = 0xff;

/// What a process was started for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Role {
    /// Acquires and releases.
    Locker,
    /// Calls `remove` instead.
    Remover,
}

/// Is the process able to run?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Life {
    /// It runs.
    Awake,
    /// SIGSTOP, or a future nobody polls: its descriptors stay, it does not step.
    Stopped,
    /// Killed; the kernel is closing its descriptors one by one.
    Dying,
    /// Killed and closed.
    Dead,
}

/// Where a process stands in its program: the step it will take next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Pc {
    Idle,
    FastOpen,
    FastTry,
    FastCheck,
    FastList,
    Draw,
    Create,
    LockTicket,
    CheckTicket,
    Retake,
    Look,
    OpenPred,
    WatchPred,
    WaitPred,
    ReapCheck,
    Reap,
    ReapClose,
    OpenDoor,
    WatchDoor,
    CheckKnock,
    Unmark,
    WaitDoor,
    CheckDoor,
    CheckMarks,
    ProbeOpen,
    ProbeTry,
    ProbeSee,
    MarkList,
    Mark,
    OpenState,
    LockState,
    WriteHeld,
    Grant,
    Held,
    Leave,
    GiveUnlock,
    GiveClose,
    Tomb,
    UnlinkState,
    RemoveQueue,
    StateBack,
    CheckRemove,
    UnlinkDoor,
    Done,
}

/// The descriptors a process may have open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fd {
    /// Its own ticket.
    Own,
    /// The ticket before its own.
    Pred,
    /// The lock file.
    Door,
    /// The state file.
    State,
}

impl Fd {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Own, Self::Pred, Self::Door, Self::State];

    /// The bit of this descriptor in [`Proc::announced`].
    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The bits of [`Proc::flags`].
pub(crate) mod flag {
    /// Watches the predecessor's inode.
    pub(crate) const PRED_WATCH: u16 = 1;
    /// An event of the predecessor's inode is unread.
    pub(crate) const PRED_EVENT: u16 = 1 << 1;
    /// Watches the door's inode.
    pub(crate) const DOOR_WATCH: u16 = 1 << 2;
    /// An event of the door's inode is unread.
    pub(crate) const DOOR_EVENT: u16 = 1 << 3;
    /// On the ladder: will try again without an event.
    pub(crate) const LADDER: u16 = 1 << 4;
    /// Has written the held flag.
    pub(crate) const WRITTEN: u16 = 1 << 5;
    /// Found the held flag set by somebody who died.
    pub(crate) const CRASHED: u16 = 1 << 6;
    /// This look at the queue comes from the claim window's timer.
    pub(crate) const LOOK: u16 = 1 << 7;
    /// The claim window's timer has fired.
    pub(crate) const DUE: u16 = 1 << 8;
    /// The guard exists.
    pub(crate) const GUARD: u16 = 1 << 9;
    /// Has a place in line: its ticket stands and is locked, the guard is still to come.
    pub(crate) const PLACED: u16 = 1 << 10;
    /// Was stopped at some time in the current window.
    pub(crate) const SLEPT: u16 = 1 << 11;
    /// Still has to write its token (only in a mutation).
    pub(crate) const LATE: u16 = 1 << 12;
    /// Gives up an offer nobody claims.
    pub(crate) const GIVES_UP: u16 = 1 << 13;
}

/// One process. The masks of other processes stand last, so that sorting processes hardly depends on them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Proc {
    pub(crate) role: Role,
    pub(crate) life: Life,
    pub(crate) pc: Pc,
    /// Where to go on after the door was given back.
    pub(crate) next: Pc,
    /// Rounds left, the current one included.
    pub(crate) rounds: u8,
    /// Slot of its own ticket.
    pub(crate) own: u8,
    /// Slot of the predecessor it has open.
    pub(crate) pred: u8,
    /// Slot of the ticket it is about to open.
    pub(crate) target: u8,
    /// Door inode it has open.
    pub(crate) door: u8,
    /// State inode it has open.
    pub(crate) state: u8,
    /// See [`flag`].
    pub(crate) flags: u16,
    /// Descriptors whose close is announced while their lock still stands.
    pub(crate) announced: u8,
    /// Token of the grant in hand.
    pub(crate) token: u8,
    /// Token seen by the last probe that found the door free.
    pub(crate) seen: u8,
    /// Probes in a row that found the door free and that token.
    pub(crate) looks: u8,
    /// Unmarked tickets below its own at the last look.
    pub(crate) behind: u8,
    /// Slot of the lowest of them.
    pub(crate) front: u8,
    /// Ticket slots: marks skipped at the last look, or tickets still to be marked.
    pub(crate) skip: u8,
    /// Processes that had a place before this one began.
    pub(crate) ahead: u8,
    /// Processes that had a place when the fast path got the door.
    pub(crate) first: u8,
    /// Processes that may be passed: asleep or marked when it was decided.
    pub(crate) exempt: u8,
}

impl Proc {
    /// A process that has not begun.
    pub(crate) fn new(role: Role, rounds: u8) -> Self {
        Self {
            role,
            life: Life::Awake,
            pc: if rounds == 0 { Pc::Done } else { Pc::Idle },
            next: Pc::Idle,
            rounds,
            own: NONE,
            pred: NONE,
            target: NONE,
            door: NONE,
            state: NONE,
            flags: 0,
            announced: 0,
            token: 0,
            seen: 0,
            looks: 0,
            behind: 0,
            front: NONE,
            skip: 0,
            ahead: 0,
            first: 0,
            exempt: 0,
        }
    }

    /// Is this bit of [`flag`] set?
    pub(crate) fn has(&self, bit: u16) -> bool {
        self.flags & bit != 0
    }

    /// Sets bits of [`flag`].
    pub(crate) fn set(&mut self, bits: u16) {
        self.flags |= bits;
    }

    /// Clears bits of [`flag`].
    pub(crate) fn clear(&mut self, bits: u16) {
        self.flags &= !bits;
    }
}

/// A ticket inode, from the moment its number is drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ticket {
    /// The number in its name.
    pub(crate) number: u8,
    /// The name stands in the queue directory.
    pub(crate) linked: bool,
    /// The mark: the file is not empty.
    pub(crate) mark: bool,
    pub(crate) lock: u8,
}

/// A door inode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Door {
    pub(crate) used: bool,
    pub(crate) lock: u8,
}

/// A state inode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct StateFile {
    pub(crate) used: bool,
    pub(crate) lock: u8,
    pub(crate) token: u8,
    pub(crate) held: bool,
    pub(crate) tombstone: bool,
}

/// What was found wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Two guards at once.
    Exclusion,
    /// Somebody was granted before one who had to come first.
    Order,
    /// Somebody waits and nothing is left that could wake him.
    Stuck,
    /// A token that is not above the one before.
    Token,
    /// A ticket was unlinked under its living owner.
    Reaped,
    /// A death inside was not reported by exactly the next grant.
    Crash,
    /// `Replaced` although nobody held under another door.
    Replaced,
    /// All is over, and a lock, a ticket or a flag is left behind.
    Leftover,
    /// A frozen process holds up the line for more windows than promised.
    Frozen,
}

/// May or must the next grant report that its predecessor died inside?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Report {
    MustNot,
    May,
    Must,
}

/// A state of the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct World {
    pub(crate) procs: [Proc; N],
    /// Sorted by number; `ticket_count` are in use.
    pub(crate) tickets: [Ticket; TICKETS],
    pub(crate) ticket_count: u8,
    pub(crate) doors: [Door; INODES],
    pub(crate) door_path: u8,
    pub(crate) states: [StateFile; INODES],
    pub(crate) state_path: u8,
    /// The queue directory exists.
    pub(crate) queue: bool,
    /// How many kills, stops, cancels and foreign removals of the door may still come.
    pub(crate) kills: u8,
    pub(crate) stops: u8,
    pub(crate) unclaimed: u8,
    pub(crate) cancels: u8,
    pub(crate) intrusions: u8,
    /// The highest token granted.
    pub(crate) last_token: u8,
    pub(crate) report: Report,
    /// Windows gone by with the door free and somebody waiting.
    pub(crate) idle: u8,
    pub(crate) fault: Fault,
}

/// A ticket slot not in use.
pub(crate) const EMPTY: Ticket = Ticket {
    number: 0,
    linked: false,
    mark: false,
    lock: 0,
};

/// The lock byte of a descriptor.
pub(crate) fn lock_of(p: usize, fd: Fd) -> u8 {
    1 + (fd as u8) * N as u8 + p as u8
}

/// The process a lock byte belongs to.
pub(crate) fn holder(lock: u8) -> usize {
    usize::from((lock - 1) % N as u8)
}

impl Hash for World {
    /// What is not in use does not count.
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.procs.hash(to);
        for t in self.slots() {
            self.tickets[t].hash(to);
        }
        for i in 0..INODES {
            if self.doors[i].used {
                self.doors[i].hash(to);
            }
            to.write_u8(i as u8);
            if self.states[i].used {
                self.states[i].hash(to);
            }
        }
        let bytes = [
            self.ticket_count,
            self.door_path,
            self.state_path,
            u8::from(self.queue),
            self.kills,
            self.stops,
            self.unclaimed,
            self.cancels,
            self.intrusions,
            self.last_token,
            self.report as u8,
            self.idle,
            self.fault as u8,
        ];
        to.write(&bytes);
    }
}

impl World {
    /// Nothing on disk, nobody has begun.
    pub(crate) fn new(procs: [Proc; N]) -> Self {
        let state = StateFile {
            used: false,
            lock: 0,
            token: 0,
            held: false,
            tombstone: false,
        };
        let door = Door {
            used: false,
            lock: 0,
        };
        Self {
            procs,
            tickets: [EMPTY; TICKETS],
            ticket_count: 0,
            doors: [door; INODES],
            door_path: NONE,
            states: [state; INODES],
            state_path: NONE,
            queue: false,
            kills: 0,
            stops: 0,
            unclaimed: 0,
            cancels: 0,
            intrusions: 0,
            last_token: 0,
            report: Report::MustNot,
            idle: 0,
            fault: Fault::None,
        }
    }

    /// Notes the first fault.
    pub(crate) fn fail(&mut self, fault: Fault) {
        if self.fault == Fault::None {
            self.fault = fault;
        }
    }

    /// The ticket slots in use.
    pub(crate) fn slots(&self) -> std::ops::Range<usize> {
        0..usize::from(self.ticket_count)
    }

    /// The ticket this process has drawn.
    pub(crate) fn own(&mut self, p: usize) -> &mut Ticket {
        &mut self.tickets[usize::from(self.procs[p].own)]
    }

    /// The inode a ticket's name stands for.
    pub(crate) fn lookup(&self, number: u8) -> Option<usize> {
        self.slots()
            .find(|&t| self.tickets[t].linked && self.tickets[t].number == number)
    }

    /// Is the line without a single ticket?
    pub(crate) fn line_is_empty(&self) -> bool {
        !self.slots().any(|t| self.tickets[t].linked)
    }

    /// The lock byte of what this descriptor has open, and whether it is this very descriptor that holds it.
    pub(crate) fn lock_behind(&mut self, p: usize, fd: Fd) -> Option<&mut u8> {
        let proc = &self.procs[p];
        let index = match fd {
            Fd::Own => proc.own,
            Fd::Pred => proc.pred,
            Fd::Door => proc.door,
            Fd::State => proc.state,
        };
        if index == NONE {
            return None;
        }
        let index = usize::from(index);
        Some(match fd {
            Fd::Own | Fd::Pred => &mut self.tickets[index].lock,
            Fd::Door => &mut self.doors[index].lock,
            Fd::State => &mut self.states[index].lock,
        })
    }

    /// Does this descriptor hold its lock?
    pub(crate) fn locks(&mut self, p: usize, fd: Fd) -> bool {
        self.lock_behind(p, fd)
            .is_some_and(|lock| *lock == lock_of(p, fd))
    }

    /// `flock(LOCK_EX | LOCK_NB)`: true when this descriptor holds the lock now.
    pub(crate) fn try_lock(&mut self, p: usize, fd: Fd) -> bool {
        let mine = lock_of(p, fd);
        match self.lock_behind(p, fd) {
            Some(lock) if *lock == 0 || *lock == mine => {
                *lock = mine;
                true
            }
            _ => false,
        }
    }

    /// Lets the lock go if this descriptor holds it.
    pub(crate) fn unlock(&mut self, p: usize, fd: Fd) {
        if self.locks(p, fd) {
            *self.lock_behind(p, fd).expect("it is open") = 0;
        }
    }

    /// Is the close of the holder of this lock announced, so that the lock is about to drop?
    pub(crate) fn is_dropping(&self, lock: u8) -> bool {
        let fd = Fd::ALL[usize::from((lock - 1) / N as u8)];
        self.procs[holder(lock)].announced & fd.bit() != 0
    }

    /// Delivers the close of a descriptor to whoever watches that inode.
    pub(crate) fn announce(&mut self, p: usize, fd: Fd) {
        let proc = self.procs[p];
        match fd {
            Fd::Own => self.ticket_event(p, proc.own),
            Fd::Pred => self.ticket_event(p, proc.pred),
            Fd::Door => {
                for (q, other) in self.procs.iter_mut().enumerate() {
                    if q != p && other.door == proc.door && other.has(flag::DOOR_WATCH) {
                        other.set(flag::DOOR_EVENT);
                    }
                }
            }
            Fd::State => {}
        }
    }

    /// An event of a ticket inode, for everybody but the one who caused it.
    pub(crate) fn ticket_event(&mut self, p: usize, slot: u8) {
        for (q, other) in self.procs.iter_mut().enumerate() {
            if q != p && other.pred == slot && other.has(flag::PRED_WATCH) {
                other.set(flag::PRED_EVENT);
            }
        }
    }

    /// Forgets a descriptor that is closed, with its watch.
    pub(crate) fn forget(&mut self, p: usize, fd: Fd) {
        let proc = &mut self.procs[p];
        proc.announced &= !fd.bit();
        match fd {
            Fd::Own => proc.own = NONE,
            Fd::Pred => {
                proc.pred = NONE;
                proc.clear(flag::PRED_WATCH | flag::PRED_EVENT);
            }
            Fd::Door => {
                proc.door = NONE;
                proc.clear(flag::DOOR_WATCH | flag::DOOR_EVENT);
            }
            Fd::State => proc.state = NONE,
        }
    }

    /// One half of a close: the announcement, or (when there was one) the end of lock and descriptor. A descriptor
    /// without a lock is closed in one go. True when it is closed.
    pub(crate) fn close_half(&mut self, p: usize, fd: Fd) -> bool {
        let announced = self.procs[p].announced & fd.bit() != 0;
        if !announced {
            self.announce(p, fd);
            if self.locks(p, fd) {
                self.procs[p].announced |= fd.bit();
                return false;
            }
        }
        self.unlock(p, fd);
        self.forget(p, fd);
        true
    }

    /// `open(path, O_CREAT)` of the lock file.
    pub(crate) fn open_door(&mut self, p: usize) {
        if self.door_path == NONE {
            let free = self.doors.iter().position(|door| !door.used);
            let free = free.expect("door inodes suffice");
            self.doors[free].used = true;
            self.door_path = free as u8;
        }
        self.procs[p].door = self.door_path;
    }

    /// A fresh state file under its name.
    pub(crate) fn create_state(&mut self, token: u8, held: bool) {
        let free = self.states.iter().position(|state| !state.used);
        let free = free.expect("state inodes suffice");
        self.states[free] = StateFile {
            used: true,
            lock: 0,
            token,
            held,
            tombstone: false,
        };
        self.state_path = free as u8;
    }

    /// A slot for a ticket of this number, not yet on disk.
    pub(crate) fn draw(&mut self, p: usize, number: u8) {
        let slot = usize::from(self.ticket_count);
        assert!(slot < TICKETS, "ticket slots suffice");
        self.tickets[slot] = Ticket { number, ..EMPTY };
        self.procs[p].own = slot as u8;
        self.ticket_count += 1;
    }

    /// The processes for which `test` holds, as a mask.
    pub(crate) fn mask(&self, test: impl Fn(&Proc) -> bool) -> u8 {
        (0..N).fold(0, |mask, p| mask | (u8::from(test(&self.procs[p])) << p))
    }

    /// Nobody has to wait for this process any more: it was granted, gave up or died.
    pub(crate) fn leaves_line(&mut self, p: usize) {
        self.procs[p].clear(flag::PLACED);
        for other in &mut self.procs {
            other.ahead &= !(1 << p);
            other.first &= !(1 << p);
        }
    }

    /// Process `p` forgets what its probes have seen.
    pub(crate) fn count_anew(&mut self, p: usize) {
        let proc = &mut self.procs[p];
        (proc.seen, proc.looks, proc.behind) = (0, 0, 0);
        (proc.front, proc.exempt) = (NONE, 0);
    }
}
