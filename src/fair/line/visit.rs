//! What a caller wants of the lock, which task it is, and what it gets.

use std::sync::Arc;
use std::time::Duration;

use crate::fair::door::Door;
use crate::fair::slots::Permits;
use crate::fair::ticket::Mode;

/// What a newcomer wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) want: Mode,
    /// The arrival is refused if this many wait already.
    pub(crate) most: Option<usize>,
    /// The thread that will block until it has the lock, without a time limit.
    pub(crate) thread: Option<std::thread::ThreadId>,
}

/// A lock that was granted, on its way into a guard.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) share: Share,
    pub(crate) visit: Visit,
    pub(crate) token: u64,
    pub(crate) waited: Option<Duration>,
    pub(crate) predecessor_crashed: bool,
}

/// A hold or a wait: what is wanted, and which task or thread wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) want: Mode,
    pub(crate) by: Caller,
}

/// The task or thread that asks for a lock, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Unknown,
    Task(tokio::task::Id),
    /// A thread that blocks until it has the lock.
    Thread(std::thread::ThreadId),
}

impl Caller {
    /// Returns the task that runs this code.
    pub(crate) fn of_here() -> Self {
        tokio::task::try_id().map_or(Self::Unknown, Self::Task)
    }
}

/// A guard's share of the lock.
#[derive(Debug)]
pub(crate) enum Share {
    /// The open lock file. Readers share it.
    Door(Arc<Door>),
    /// Slots of a semaphore, for this guard alone.
    Permits(Permits),
}
