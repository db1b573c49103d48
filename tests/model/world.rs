//! The state of the model: the kernel's part (inodes, names, locks) and the processes' part
//! (program counter, open descriptors, registers). `kernel.rs` has the operations on it.
//!
//! Everything is a byte, so that a state is small to copy and quick to hash. References between
//! parts are indices. An index that refers to nothing is [`NONE`]. A lock is a byte too: 0 if free,
//! else the descriptor that holds it, as [`crate::kernel::lock_of`] packs it, or, with the highest
//! bit, the processes that share it. So a lock belongs to an open file description: another
//! descriptor of the same process does not own it.

use std::hash::{Hash, Hasher};

/// Processes in a world.
pub(crate) const N: usize = 3;
/// Slots for ticket inodes; the explorer asserts that they suffice.
pub(crate) const TICKETS: usize = 8;
/// Slots for door inodes and for state inodes.
pub(crate) const INODES: usize = 4;
/// An index that refers to nothing.
pub(crate) const NONE: u8 = 0xff;
/// In a record: a door that does not exist any more.
pub(crate) const GONE: u8 = 0xfe;

/// The role of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Role {
    /// Acquires and releases; of a reader-writer lock: a writer.
    Locker,
    /// Acquires and releases in shared mode.
    Reader,
    /// Calls `remove` instead.
    Remover,
    /// Knows the lock file only: `flock -s`, for any time.
    Outsider,
    /// Checks whether the lock is held, by trying it.
    Onlooker,
}

/// Whether the process is able to run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Life {
    /// It runs.
    Awake,
    /// SIGSTOP, or a future that is not polled: it keeps its descriptors and takes no step.
    Stopped,
    /// Killed; the kernel is closing its descriptors one by one.
    Dying,
    /// Killed and closed.
    Dead,
}

/// The next step of a process.
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
    CheckPred,
    WaitPred,
    ReapCheck,
    Reap,
    ReapClose,
    OpenDoor,
    WatchDoor,
    CheckWatch,
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
    ReadState,
    ShareClean,
    NotClean,
    StateLadder,
    TakeCharge,
    ChargeDoor,
    ChargeState,
    AskUnlock,
    AskDoor,
    AskCheck,
    AskState,
    AskFree,
    PassDoor,
    PassRing,
    DownDoor,
    DownState,
    DownRing,
    LockState,
    CopyState,
    ReplaceState,
    DropState,
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
    Outside,
    Done,
}

/// The descriptors that a process may have open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fd {
    /// Its own ticket.
    Own,
    /// Its predecessor's ticket.
    Pred,
    /// The lock file.
    Door,
    /// The state file.
    State,
    /// The file of its last ticket, kept for the next one.
    Spare,
    /// The state file that is to replace one with another name.
    Draft,
    /// The predecessor's ticket, of the thread that waits for its wake lock.
    Thread,
}

impl Fd {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Own,
        Self::Pred,
        Self::Door,
        Self::State,
        Self::Spare,
        Self::Draft,
        Self::Thread,
    ];

    /// The bit of this descriptor in [`Proc::announced`].
    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The bits of [`Proc::flags`].
pub(crate) mod flag {
    /// Watches the predecessor's inode.
    pub(crate) const PRED_WATCH: u32 = 1;
    /// An event of the predecessor's inode is unread.
    pub(crate) const PRED_EVENT: u32 = 1 << 1;
    /// Watches the door's inode.
    pub(crate) const DOOR_WATCH: u32 = 1 << 2;
    /// An event of the door's inode is unread.
    pub(crate) const DOOR_EVENT: u32 = 1 << 3;
    /// On the ladder: will try again without an event.
    pub(crate) const LADDER: u32 = 1 << 4;
    /// Has written the held flag.
    pub(crate) const WRITTEN: u32 = 1 << 5;
    /// Found the held flag set by a process that died.
    pub(crate) const CRASHED: u32 = 1 << 6;
    /// This check of the queue comes from the claim window's timer.
    pub(crate) const LOOK: u32 = 1 << 7;
    /// The claim window's timer has fired.
    pub(crate) const DUE: u32 = 1 << 8;
    /// The guard exists.
    pub(crate) const GUARD: u32 = 1 << 9;
    /// It is queued: its ticket is linked and locked, and it has no guard yet.
    pub(crate) const PLACED: u32 = 1 << 10;
    /// Was stopped at some time in the current window.
    pub(crate) const SLEPT: u32 = 1 << 11;
    /// Still has to write its token (only in a mutation).
    pub(crate) const LATE: u32 = 1 << 12;
    /// Gives up an unclaimed offer.
    pub(crate) const GIVES_UP: u32 = 1 << 13;
    /// The guard is a shared one.
    pub(crate) const SHARED: u32 = 1 << 14;
    /// Has reported a crash and still has to clear the held flag.
    pub(crate) const TOLD: u32 = 1 << 15;
    /// Need not report a crash: when it read the record, another process was in charge of that.
    pub(crate) const LEFT_TO: u32 = 1 << 16;
    /// Has read a held flag that was not found by a reader in charge (only in a mutation).
    pub(crate) const HELD_SEEN: u32 = 1 << 17;
    /// The state file had another name when it was locked.
    pub(crate) const LINKED: u32 = 1 << 18;
    /// Will start a thread if the predecessor is alive.
    pub(crate) const BEGINS: u32 = 1 << 19;
    /// The ticket that it has opened has lost its wake lock since.
    pub(crate) const PRED_FREE: u32 = 1 << 20;
    /// The thread has its wake lock.
    pub(crate) const THREAD_FREE: u32 = 1 << 21;
    /// Its thread has ended, and the ticket still stood.
    pub(crate) const TRIED: u32 = 1 << 22;
}

/// One process. The masks of other processes come last, so that sorting hardly depends on them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Proc {
    pub(crate) role: Role,
    pub(crate) life: Life,
    /// It gets no file events of tickets: threads wait for it.
    pub(crate) deaf: bool,
    /// It runs an older version, and takes no wake locks.
    pub(crate) old: bool,
    pub(crate) pc: Pc,
    /// The step after the door is released.
    pub(crate) next: Pc,
    /// Rounds left, the current one included.
    pub(crate) rounds: u8,
    /// Slot of its own ticket.
    pub(crate) own: u8,
    /// Slot of its predecessor's ticket that it has open.
    pub(crate) pred: u8,
    /// Slot of the ticket it is about to open.
    pub(crate) target: u8,
    /// Door inode that it has open.
    pub(crate) door: u8,
    /// State inode that it has open.
    pub(crate) state: u8,
    /// Slot of the ticket file that it keeps without a ticket.
    pub(crate) spare: u8,
    /// State inode that is to replace the one that it has open.
    pub(crate) draft: u8,
    /// Slot of the ticket for whose wake lock a thread waits.
    pub(crate) thread: u8,
    /// See [`flag`].
    pub(crate) flags: u32,
    /// Descriptors whose close is announced while their lock still exists.
    pub(crate) announced: u8,
    /// Token of the grant in hand.
    pub(crate) token: u8,
    /// Token seen by the last probe that found the door free.
    pub(crate) seen: u8,
    /// Probes in a row that found the door free and that token.
    pub(crate) looks: u8,
    /// Unmarked tickets below its own at the last check.
    pub(crate) behind: u8,
    /// Slot of the lowest of them.
    pub(crate) front: u8,
    /// Ticket slots: marks that were skipped at the last check, or tickets still to be marked.
    pub(crate) skip: u8,
    /// Processes that were queued before this one began.
    pub(crate) ahead: u8,
    /// Processes that were queued when the fast path got the door.
    pub(crate) first: u8,
    /// Processes that may be bypassed: stopped or marked when it was decided.
    pub(crate) exempt: u8,
}

impl Proc {
    /// A process that has not begun.
    pub(crate) fn new(role: Role, rounds: u8) -> Self {
        Self {
            role,
            life: Life::Awake,
            deaf: false,
            old: false,
            pc: if rounds == 0 { Pc::Done } else { Pc::Idle },
            next: Pc::Idle,
            rounds,
            own: NONE,
            pred: NONE,
            target: NONE,
            door: NONE,
            state: NONE,
            spare: NONE,
            draft: NONE,
            thread: NONE,
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

    /// Returns whether it locks in shared mode.
    pub(crate) fn reads(&self) -> bool {
        self.role == Role::Reader
    }

    /// Returns whether this bit of [`flag`] is set.
    pub(crate) fn has(&self, bit: u32) -> bool {
        self.flags & bit != 0
    }

    /// Sets bits of [`flag`].
    pub(crate) fn set(&mut self, bits: u32) {
        self.flags |= bits;
    }

    /// Clears bits of [`flag`].
    pub(crate) fn clear(&mut self, bits: u32) {
        self.flags &= !bits;
    }
}

/// A ticket inode, from the moment its number is drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ticket {
    /// The number in its name.
    pub(crate) number: u8,
    /// The mode in its name: shared, else exclusive.
    pub(crate) shared: bool,
    /// The name exists in the queue directory.
    pub(crate) linked: bool,
    /// The mark: the file is not empty.
    pub(crate) mark: bool,
    /// The owner has its wake lock.
    pub(crate) wake: bool,
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
    /// The third value of the held flag: a reader in charge has found it set and will report it.
    pub(crate) found: bool,
    pub(crate) tombstone: bool,
    /// The door through which the last holder entered. Used with readers only.
    pub(crate) door: u8,
    /// It has another name, in a copy of the directory.
    pub(crate) linked: bool,
    /// The record names another file: it was copied, and reports no crash here.
    pub(crate) copied: bool,
}

/// The kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Two guards at once, or one without the door.
    Exclusion,
    /// A waiter was granted before one that had to come first.
    Order,
    /// A process waits, and nothing is left that could wake it.
    Stuck,
    /// A token that is not above the one before.
    Token,
    /// A ticket was unlinked under its living owner.
    Reaped,
    /// The death of a holder was not reported by exactly the next grant.
    Crash,
    /// `Replaced` although no process held under another door.
    Replaced,
    /// All are done, and a lock, a ticket or a flag is left.
    Leftover,
    /// A process that shares was refused by a reader.
    Refused,
    /// A frozen process delays the queue for more windows than guaranteed.
    Frozen,
    /// A process wrote into a state file with another name.
    Linked,
}

/// Whether the next grant may or must report that a holder died.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Report {
    MustNot,
    May,
    Must,
    /// The process in charge of the report died. Readers need not report, until a process has
    /// locked the door alone.
    Left,
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
    /// How many kills, stops, cancels and foreign removals of the door may still happen.
    pub(crate) kills: u8,
    pub(crate) stops: u8,
    pub(crate) unclaimed: u8,
    pub(crate) cancels: u8,
    pub(crate) intrusions: u8,
    /// How many hard-linked copies of the directory may still be made.
    pub(crate) snapshots: u8,
    /// The highest token granted.
    pub(crate) last_token: u8,
    pub(crate) report: Report,
    /// Windows that ended with the door free and a process waiting.
    pub(crate) idle: u8,
    pub(crate) fault: Fault,
}

/// A ticket slot not in use.
pub(crate) const EMPTY: Ticket = Ticket {
    number: 0,
    shared: false,
    linked: false,
    mark: false,
    wake: false,
    lock: 0,
};

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
            self.snapshots,
            self.last_token,
            self.report as u8,
            self.idle,
            self.fault as u8,
        ];
        to.write(&bytes);
    }
}

impl World {
    /// Nothing on disk, and no process has begun.
    pub(crate) fn new(procs: [Proc; N]) -> Self {
        let state = StateFile {
            used: false,
            lock: 0,
            token: 0,
            held: false,
            found: false,
            tombstone: false,
            door: NONE,
            linked: false,
            copied: false,
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
            snapshots: 0,
            last_token: 0,
            report: Report::MustNot,
            idle: 0,
            fault: Fault::None,
        }
    }
}
