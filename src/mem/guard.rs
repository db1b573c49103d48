//! The guard of a lock in memory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::line::{Grant, Line, Want};
use crate::error::Result;
use crate::guard::{Guard, Lost};
use crate::trace;

/// A lock of a [`Memory`](crate::Memory) that is held: alone, shared, or some permits of it.
///
/// Dropping it releases: the next in line has its turn at once.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct MemGuard {
    line: Arc<Line>,
    visit: u64,
    token: u64,
    waited: Option<Duration>,
    _span: trace::Hold,
}

impl MemGuard {
    pub(super) fn new(line: &Arc<Line>, grant: Grant) -> Self {
        let span = trace::Hold::begin(line.path(), Some(grant.token), grant.waited);
        Self {
            line: line.clone(),
            visit: grant.visit,
            token: grant.token,
            waited: grant.waited,
            _span: span,
        }
    }

    pub(super) fn at_once(line: &Arc<Line>, want: Want) -> Result<Option<Self>> {
        let grant = line.try_enter(want)?;
        Ok(grant.map(|grant| Self::new(line, grant)))
    }

    /// The fencing token: greater than that of every earlier grant; a reader has that of the writer before it.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// How long the caller stood in line; `None` when it entered at once.
    pub fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// Releases.
    ///
    /// # Cancel safety
    ///
    /// Releases at the first poll; dropped before it, the guard inside releases too.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn release(self) -> Result<()> {
        Ok(())
    }
}

impl Drop for MemGuard {
    fn drop(&mut self) {
        self.line.leave(self.visit);
    }
}

impl Guard for MemGuard {
    fn token(&self) -> Option<u64> {
        Some(MemGuard::token(self))
    }

    fn waited(&self) -> Option<Duration> {
        MemGuard::waited(self)
    }

    /// Never: with its holder the lock would be gone.
    fn predecessor_crashed(&self) -> bool {
        false
    }

    fn is_held(&self) -> bool {
        true
    }

    /// Never resolves.
    fn lost(&self) -> Lost {
        Lost::new(std::future::pending())
    }

    async fn release(self) -> Result<()> {
        MemGuard::release(self).await
    }
}

impl fmt::Debug for MemGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemGuard")
            .field("lock", &self.line.path())
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
