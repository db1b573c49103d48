//! What somebody wants of the lock, who it is, and what he gets.

use std::sync::Arc;
use std::time::Duration;

use super::super::door::Door;
use super::super::slots::Permits;
use super::super::ticket::Mode;

/// What a newcomer wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) want: Mode,
    /// Refuse when so many wait.
    pub(crate) most: Option<usize>,
    /// The thread that will block without end until it has the lock.
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

/// What for and by whom somebody is inside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) want: Mode,
    pub(crate) by: Visitor,
}

/// Who asked for a lock, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visitor {
    Unknown,
    Task(tokio::task::Id),
    /// A thread that blocks until it has the lock.
    Thread(std::thread::ThreadId),
}

impl Visitor {
    /// Who runs this code.
    pub(crate) fn of_here() -> Self {
        tokio::task::try_id().map_or(Self::Unknown, Self::Task)
    }
}

/// What a guard has of the lock.
#[derive(Debug)]
pub(crate) enum Share {
    /// The open lock file, with others if they read.
    Door(Arc<Door>),
    /// Slots of a semaphore, for itself.
    Permits(Permits),
}
