//! What a scenario fixes: its processes, what may go wrong, the form of the protocol, and the
//! broken rule.

use crate::world::{N, Proc, Role, World};

/// Where ticket numbers come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clock {
    /// The clock moves on between any two draws.
    Fine,
    /// Two draws may fall into the same tick.
    Coarse,
    /// The clock is far behind the tickets: only "highest listed + 1" counts, so a number may be
    /// used again.
    Behind,
}

/// A part of the protocol left out or reversed, to see the model fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutation {
    /// Closes the door's descriptor first and releases the lock later.
    CloseBeforeUnlock,
    /// Unlocks a door that it does not need, and keeps the descriptor.
    GiveBackWithoutClose,
    /// The fast path lists first and locks then.
    ListThenLock,
    /// A reaper unlinks the name without comparing inodes.
    ReapWithoutCheck,
    /// One try after an event or a new watch, then no more.
    NoLadder,
    /// A process that has locked the door does not compare it with the path.
    NoCheckDoor,
    /// The holder does not lock the state file.
    NoStateLock,
    /// Releases the door before the state file.
    DoorBeforeState,
    /// A refused state file is `Replaced` at once, also while its holder is dying.
    ReplacedAtOnce,
    /// A refused state file counts as the current one, although it may be an old one that was kept
    /// open.
    RefusalUnchecked,
    /// Marks that were skipped at the last check count as unchanged.
    MarksNotRechecked,
    /// A refused probe is not tried again before it counts as "not free".
    ProbeWithoutLadder,
    /// Windows are counted on although the tickets before one have changed.
    CountThroughChanges,
    /// The token is written when the guard exists already.
    TokenAfterGuard,
    /// A new ticket takes the lowest number that is free.
    LowNumbers,
    /// A process that has just watched its predecessor's ticket does not check that the ticket is
    /// still there.
    PredecessorUnchecked,
    /// `remove` compares no inode.
    RemoveWithoutCheck,
    /// A dropped offer clears the held flag, whatever it was.
    SwallowCrash,
    /// The fast path of a reader does not check the queue.
    ReaderIgnoresLine,
    /// A bypassing reader treats a door that readers share as free.
    ProbeShared,
    /// A downgrade does not ring the door.
    NoRing,
    /// The ring comes before the downgrade.
    RingTooEarly,
    /// The windows of a reader count only the writers before it.
    ReadersUncounted,
    /// A reader does not lock the state file.
    ReaderWithoutState,
    /// A reader treats an unreported held flag as a clean record.
    HeldIsClean,
    /// A reader has unlocked the door to ask for all of it, and is refused. It still believes that
    /// it has its share.
    AskKept,
    /// A reader that was refused the state file for long does not ask whether it is alone at the
    /// door.
    NotAsked,
    /// A reader that is alone at the door does not try the state file again.
    AskedOnly,
    /// A reader takes charge with the whole door only.
    ChargeByDoor,
    /// The reader in charge goes by what it read before it had the state file locked.
    ChargeUnread,
    /// A reader in charge that gives up sets the held flag although others hold the lock.
    GivesUpBeside,
    /// The reader in charge releases the state file instead of sharing it.
    ChargeWithoutState,
    /// A reader that shares the state file does not read the record again.
    CleanUnchecked,
    /// A reader that finds nothing recorded writes no token.
    ReaderWritesZero,
    /// A reader that is not in charge clears the held flag.
    AnyReaderClears,
    /// The reader in charge clears the held flag before its guard is claimed.
    ClearedTooEarly,
    /// A process that has locked the state file does not check whether the file is still in use.
    LockedUnchecked,
    /// The same for a reader.
    SharedUnchecked,
    /// A process that enters writes into a state file that has another name.
    WritesLinked,
    /// `remove` writes its tombstone into a state file that has another name.
    TombstonesLinked,
    /// The copy of the state file gets its name before the record is in it.
    CopyEmpty,
    /// It gets its name before it is locked.
    CopyUnlocked,
    /// The record in it still names the file that it was copied from.
    CopyNamesOther,
    /// The owner of a ticket does not release its wake lock when it keeps the file.
    WakeLockKept,
    /// All tickets of one file have one wake lock.
    OneWakeLock,
    /// A ticket whose wake lock is free counts as that of a dead owner.
    WokenIsDead,
    /// The call of a thread is lost if its waiter does something else at that moment.
    CallMissed,
}

/// One scenario.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) roles: [Role; N],
    pub(crate) rounds: [u8; N],
    /// Which processes get no file events of tickets.
    pub(crate) deaf: [bool; N],
    /// Which processes take no wake locks.
    pub(crate) old: [bool; N],
    /// Acquire tries the door before it queues.
    pub(crate) fast: bool,
    /// Tickets appear already locked (`O_TMPFILE`, lock, `linkat`).
    pub(crate) tmpfile: bool,
    /// The file of a finished ticket is kept, open and locked, for the next one; with `tmpfile`
    /// only.
    pub(crate) spares: bool,
    pub(crate) clock: Clock,
    /// Tokens use a wall clock that advances. Otherwise they use the state file alone.
    pub(crate) wall: bool,
    /// Claim windows are on.
    pub(crate) windows: bool,
    /// The timers of one window fire in any order. Otherwise in the order of the queue.
    pub(crate) jitter: bool,
    pub(crate) kills: u8,
    pub(crate) stops: u8,
    /// Stops affect waiters only. Otherwise any step.
    pub(crate) stops_in_line: bool,
    /// Offers that are not claimed for a window.
    pub(crate) unclaimed: u8,
    pub(crate) cancels: u8,
    /// A writer may downgrade.
    pub(crate) downgrades: bool,
    /// Foreign removals of the lock file.
    pub(crate) intrusions: u8,
    /// Hard-linked copies of the directory.
    pub(crate) snapshots: u8,
    pub(crate) broken: Option<Mutation>,
}

impl Rules {
    /// Lockers with this many rounds each; nothing goes wrong.
    pub(crate) fn new(rounds: [u8; N]) -> Self {
        Self {
            roles: [Role::Locker; N],
            rounds,
            deaf: [false; N],
            old: [false; N],
            fast: false,
            tmpfile: false,
            spares: false,
            clock: Clock::Fine,
            wall: false,
            windows: false,
            jitter: false,
            kills: 0,
            stops: 0,
            stops_in_line: false,
            unclaimed: 0,
            cancels: 0,
            downgrades: false,
            intrusions: 0,
            snapshots: 0,
            broken: None,
        }
    }

    /// The same with a part of the protocol broken.
    pub(crate) fn broken(self, mutation: Mutation) -> Self {
        Self {
            broken: Some(mutation),
            ..self
        }
    }

    /// Returns whether this rule is broken.
    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.broken == Some(mutation)
    }

    /// Returns whether it is a reader-writer lock.
    pub(crate) fn shared(&self) -> bool {
        self.downgrades
            || self.roles.contains(&Role::Reader)
            || self.roles.contains(&Role::Outsider)
    }

    /// Returns whether ticket numbers only count by their order.
    pub(crate) fn ranks(&self) -> bool {
        self.clock != Clock::Behind && !self.is(Mutation::LowNumbers)
    }

    /// Returns whether threads wait for tickets.
    pub(crate) fn has_threads(&self) -> bool {
        self.deaf.contains(&true)
    }

    /// The first state.
    pub(crate) fn start(&self) -> World {
        let mut procs = [Proc::new(Role::Locker, 0); N];
        for (p, proc) in procs.iter_mut().enumerate() {
            *proc = Proc::new(self.roles[p], self.rounds[p]);
            (proc.deaf, proc.old) = (self.deaf[p], self.old[p]);
        }
        let mut world = World::new(procs);
        world.kills = self.kills;
        world.stops = self.stops;
        world.unclaimed = self.unclaimed;
        world.cancels = self.cancels;
        world.intrusions = self.intrusions;
        world.snapshots = self.snapshots;
        world
    }
}
