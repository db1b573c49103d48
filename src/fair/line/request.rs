//! What a caller wants of the line, and what it gets.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::super::door::Door;
use super::super::slots::Permits;
use super::super::ticket::Mode;
use crate::watch::wait::Wait;

/// What a handle asks of the engine. If several tasks of a process wait, the settings of the first
/// one apply.
#[derive(Debug)]
pub(crate) struct Settings {
    /// This process and the label, as in the record.
    pub words: Arc<str>,
    pub label: Option<Arc<str>>,
    /// The permission bits of files that have to be created.
    pub bits: Option<u32>,
    pub poll_interval: Duration,
    pub claim_window: Duration,
    pub wait: Wait,
    /// Whether a task that would wait for itself gets an error.
    pub deadlock_is_error: bool,
    /// Set once for a handle and all its clones.
    pub closed: Arc<AtomicBool>,
}

/// A lock as one caller wants it or has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub mode: Mode,
    pub by: Caller,
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

/// A request as it arrives.
pub(super) struct Request<'a> {
    pub settings: &'a Arc<Settings>,
    pub want: Want,
    /// The request is refused if this many wait already.
    pub most: Option<usize>,
    /// Whether no event was under way when it arrived; see [`Tail`](super::tail::Tail).
    pub quiet: bool,
    pub now: Instant,
}

/// A lock that was granted, on its way into a guard.
#[derive(Debug)]
pub(crate) struct Grant {
    pub share: Share,
    pub want: Want,
    pub token: u64,
    pub waited: Option<Duration>,
    pub predecessor_crashed: bool,
}

/// A guard's share of the lock.
#[derive(Debug)]
pub(crate) enum Share {
    /// The open lock file. Readers share it.
    Door(Arc<Door>),
    /// Slots of a semaphore, for this guard alone.
    Permits(Permits),
}
