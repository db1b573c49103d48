//! What the server of a run is asked, and what it answers. Backends repeat such runs with the
//! scripts of a real server.

use std::sync::Arc;

use super::server::Sent;
use crate::lease::{Enter, Entered, Heartbeat, Inspection, Leave, Target, Terms};

/// A step.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Enter(Target, Enter),
    Heartbeat(Target, Vec<String>),
    Release(Target, String, Leave),
    /// With the most waiters to show.
    Inspect(Target, usize),
    /// With the token of the hold to end, or for all holds.
    Force(Target, Option<u64>),
    Remove(Target),
    Ping,
}

/// The answer to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Entered(Entered),
    Heartbeat(Heartbeat),
    Released(bool),
    Inspected(Inspection),
    Forced(u64),
    Removed(bool),
    Pong,
}

/// A step that ran on the server.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) now: u64,
    pub(crate) asked: Asked,
    pub(crate) terms: Arc<Terms>,
    /// Whether the client of this request has an inbox.
    pub(crate) listens: bool,
    pub(crate) answered: Answered,
    pub(crate) sent: Vec<Sent>,
}

/// Something that happens to the server. Times are in microseconds of the server.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A client listens on this inbox from now on.
    Listens(String),
    /// No client listens on this inbox any more.
    Deaf(String),
    Step(Box<Step>),
    /// A copy of the data is made. Copies have the numbers 1, 2, …
    Copied,
    /// The server starts again, with its data or with those of a copy. The copy 0 is empty.
    Restarts {
        now: u64,
        with: Option<usize>,
    },
    /// All data is deleted.
    Flushed,
}
