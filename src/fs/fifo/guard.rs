//! The guard of the fair lock.

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::error::Result;
use crate::fs::engine::door::Door;
use crate::fs::engine::line::Grant;
use crate::fs::sys::file::lend_file;
use crate::guard::{Guard, Lost};
use crate::trace;

/// The lock is held as long as this value lives.
///
/// Dropping it releases: the lock goes to the next in line at once, also outside a runtime, also while unwinding. In a
/// forked child dropping it does nothing to the parent's lock.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct FifoGuard {
    /// There until the guard is released.
    door: Option<Door>,
    shared: Arc<Shared>,
    token: u64,
    waited: Option<Duration>,
    predecessor_crashed: bool,
    _span: trace::Hold,
}

impl FifoGuard {
    pub(super) fn new(shared: Arc<Shared>, grant: Grant) -> Self {
        let path = &shared.line.place().door;
        let span = trace::Hold::begin(path, Some(grant.token), grant.waited);
        Self {
            _span: span,
            door: Some(grant.door),
            shared,
            token: grant.token,
            waited: grant.waited,
            predecessor_crashed: grant.predecessor_crashed,
        }
    }

    /// The fencing token: strictly greater than that of every earlier grant of this lock, across processes and crashes, and
    /// across deleted state unless the wall clock was set back as well or more than a million grants a second went on
    /// before. Microseconds since the epoch, or one more than the last.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// How long the caller stood in line; `None` when it entered at once.
    pub fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// Whether the last holder's process ended while it held the lock, so that what the lock protects may be half done. A
    /// panic that unwinds releases in order, and does not count.
    pub fn predecessor_crashed(&self) -> bool {
        self.predecessor_crashed
    }

    /// Whether the lock is still held: compares the lock file with its path, about a microsecond.
    pub fn is_held(&self) -> bool {
        self.shared.line.is_held(self.token)
    }

    /// Resolves when the lock file is deleted, renamed or replaced while this guard lives; see [`Lost`]. As long as
    /// its queue directory stands nobody else can enter while the guard lives even then: newcomers get [`ErrorKind::Replaced`](crate::ErrorKind::Replaced).
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing; a loss is told to every later call too.
    pub fn lost(&self) -> Lost {
        let line = self.shared.line.clone();
        let latch = match &self.door {
            Some(door) => line.watch_for_loss(door),
            None => Arc::default(),
        };
        let token = self.token;
        Lost::new(std::future::poll_fn(move |cx| {
            line.poll_lost(&latch, token, cx.waker())
        }))
    }

    /// Releases the lock and says whether that went well.
    ///
    /// # Cancel safety
    ///
    /// Releases at the first poll, without waiting; dropped before it, the guard inside releases as any guard does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) when the lock had been lost (a loss that nobody asked about is seen when the lock
    /// leaves this process, not when it goes from task to task, and by this method, not by a drop); [`ErrorKind::Io`](crate::ErrorKind::Io) when a step failed. The lock is given up in any case.
    pub async fn release(mut self) -> Result<()> {
        self.give_back(true)
    }

    fn file(&self) -> &File {
        match &self.door {
            Some(door) => door.file(),
            None => unreachable!("a guard has its door until it is consumed"),
        }
    }

    fn give_back(&mut self, listens: bool) -> Result<()> {
        match self.door.take() {
            Some(door) => self.shared.line.release(door, self.token, listens),
            None => Ok(()),
        }
    }
}

impl Drop for FifoGuard {
    /// Releases: a few short system calls, or none when a task of this process is next. Errors cannot be told from here; the
    /// closed descriptor frees the lock whatever happens.
    fn drop(&mut self) {
        if let Err(error) = self.give_back(false) {
            trace::unheard(&self.shared.line.place().door, &error);
        }
    }
}

impl Guard for FifoGuard {
    fn token(&self) -> Option<u64> {
        Some(FifoGuard::token(self))
    }

    fn waited(&self) -> Option<Duration> {
        FifoGuard::waited(self)
    }

    fn predecessor_crashed(&self) -> bool {
        FifoGuard::predecessor_crashed(self)
    }

    fn is_held(&self) -> bool {
        FifoGuard::is_held(self)
    }

    fn lost(&self) -> Lost {
        FifoGuard::lost(self)
    }

    async fn release(self) -> Result<()> {
        FifoGuard::release(self).await
    }
}

lend_file!(FifoGuard);

impl fmt::Debug for FifoGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FifoGuard")
            .field("path", &self.shared.line.place().door)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
