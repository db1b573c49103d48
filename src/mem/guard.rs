//! The guard of a lock in memory.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::line::{Grant, Line};
use super::pending::MemPending;
use crate::error::Result;
use crate::guard::{Hold, Lost, guard};

guard! {
    /// The guard of a lock of a [`Memory`](crate::Memory): exclusive, shared, or with permits.
    ///
    /// Dropping it releases the lock, and the next waiter acquires it at once. The lock cannot be
    /// lost, and a holder cannot die without the lock.
    MemGuard holds MemHold, by MemPending,
    token: "Returns the fencing token: greater than that of every earlier grant. A reader has the token of the writer before it."
}

/// A grant of a lock in memory.
#[doc(hidden)]
pub struct MemHold {
    line: Arc<Line>,
    visit: Option<u64>,
    token: u64,
}

impl MemHold {
    pub(super) fn new(line: &Arc<Line>, grant: Grant) -> Self {
        Self {
            line: line.clone(),
            visit: Some(grant.visit),
            token: grant.token,
        }
    }

    fn give_back(&mut self) {
        if let Some(visit) = self.visit.take() {
            self.line.leave(visit);
        }
    }
}

impl Hold for MemHold {
    fn token(&self) -> Option<u64> {
        Some(self.token)
    }

    /// Always `false`: the lock dies with its holder.
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

    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.give_back();
        Poll::Ready(Ok(()))
    }

    fn place(&self) -> &Path {
        self.line.path()
    }
}

impl Drop for MemHold {
    fn drop(&mut self) {
        self.give_back();
    }
}
