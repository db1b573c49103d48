//! What a scenario of the semaphore fixes.

use super::world::{Fault, N, Proc, SLOTS, World};

/// A part of the protocol left out or reversed, to see the model fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutation {
    /// A head that is not first any more keeps what it has.
    KeepsPart,
    /// A head that has bypassed marked tickets keeps no part: it releases it and waits for the next
    /// window.
    PasserKeepsNoPart,
    /// A slot is closed first and unlocked then.
    CloseBeforeUnlock,
    /// A slot that is not needed is unlocked and not closed.
    GiveBackWithoutClose,
    /// One try after an event, then no more.
    NoLadder,
    /// The fast path does not check the queue.
    FastIgnoresLine,
    /// Marks are not checked again when the slots are locked.
    MarksNotRechecked,
    /// One free slot counts as free, however many the first waiter requests.
    OneSlotIsFree,
    /// The token is read and written without the state lock.
    NoStateLock,
}

/// One scenario.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// How many slots there are.
    pub(crate) slots: usize,
    /// The permits that each process requests, and how often.
    pub(crate) asks: [u8; N],
    pub(crate) rounds: [u8; N],
    /// Acquire tries the slots before it queues.
    pub(crate) fast: bool,
    /// Claim windows are on.
    pub(crate) windows: bool,
    /// The timers of one window fire in any order. Otherwise in the order of the queue.
    pub(crate) jitter: bool,
    pub(crate) kills: u8,
    pub(crate) stops: u8,
    /// Stops affect waiters only.
    pub(crate) stops_in_line: bool,
    pub(crate) cancels: u8,
    /// Other programs lock a slot and close it without an unlock.
    pub(crate) strangers: u8,
    pub(crate) broken: Option<Mutation>,
}

impl Rules {
    /// Nothing goes wrong.
    pub(crate) fn new(slots: usize, asks: [u8; N]) -> Self {
        Self {
            slots,
            asks,
            rounds: [1; N],
            fast: false,
            windows: false,
            jitter: false,
            kills: 0,
            stops: 0,
            stops_in_line: false,
            cancels: 0,
            strangers: 0,
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

    /// The first state.
    pub(crate) fn start(&self) -> World {
        let mut procs = [Proc::new(1, 0); N];
        for (p, proc) in procs.iter_mut().enumerate() {
            *proc = Proc::new(self.asks[p], self.rounds[p]);
        }
        World {
            procs,
            count: self.slots,
            slots: [0; SLOTS],
            state: 0,
            token: 0,
            minted: 0,
            kills: self.kills,
            stops: self.stops,
            cancels: self.cancels,
            strangers: self.strangers,
            idle: 0,
            fault: Fault::None,
        }
    }
}
