//! What a scenario of the semaphore fixes.

use super::world::{Fault, N, Proc, SLOTS, World};

/// A part of the protocol left out or turned round, to see the model fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutation {
    /// A head that is not first any more keeps what it has.
    KeepsPart,
    /// A head that has passed marked tickets keeps no part: it gives back and waits for the next window.
    PasserKeepsNoPart,
    /// A slot is closed first and unlocked then.
    CloseBeforeUnlock,
    /// What is not wanted is unlocked and not closed.
    GiveBackWithoutClose,
    /// One try after an event, then sleep.
    NoLadder,
    /// The fast path does not look at the line.
    FastIgnoresLine,
    /// Marks are not looked at again with the slots in hand.
    MarksNotRechecked,
    /// One free slot counts as free, however many the first in line asks for.
    OneSlotIsFree,
    /// The token is read and written without the state lock.
    NoStateLock,
}

/// One scenario.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// How many slots there are.
    pub(crate) slots: usize,
    /// The permits each process asks for, and how often.
    pub(crate) asks: [u8; N],
    pub(crate) rounds: [u8; N],
    /// Acquire tries the slots before it queues.
    pub(crate) fast: bool,
    /// Claim windows are on.
    pub(crate) windows: bool,
    /// The timers of one window fire in any order, else in the order of the line.
    pub(crate) jitter: bool,
    pub(crate) kills: u8,
    pub(crate) stops: u8,
    /// Stops hit those who sleep in line only.
    pub(crate) stops_in_line: bool,
    pub(crate) cancels: u8,
    /// Foreign locks of a slot, closed without an unlock.
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

    /// Is this part broken?
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
