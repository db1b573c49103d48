//! The wait for a lock in memory, and its guard.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Core;
use super::line::{By, Caller, Entered, Line};
use crate::address::Address;
use crate::backend::{Hold, Mode, Pending, Request};
use crate::error::Result;
use crate::guard::guard;
use crate::ledger::Ledger;
use crate::loss::Lost;
use crate::options::{check_merge, check_split, no_writer};
use crate::status::Waiting;

guard! {
    /// The guard of a lock of a [`Memory`](crate::Memory): exclusive, shared, or with permits.
    ///
    /// Dropping it releases the lock, and the next waiter acquires it at once. The lock cannot be
    /// lost, and a holder cannot die without the lock.
    MemGuard holds MemHold, by MemPending,
    token: "Returns the fencing token: greater than that of every earlier grant. A reader has the token of the writer before it.",
    reader: MemGuard
}

crate::guard::is_permit!(MemGuard);

impl MemGuard {
    /// Turns the writer of a [`MemRwLock`](crate::MemRwLock) into a reader. Waiting readers behind
    /// it may acquire the lock at once. No writer acquires the lock in between.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if this is not the guard of a
    /// writer. It is released then.
    pub fn downgrade(mut self) -> Result<Self> {
        self.held.hold.downgrade()?;
        Ok(self)
    }
}

/// A grant of a lock in memory.
#[doc(hidden)]
pub struct MemHold {
    line: Arc<Line>,
    visit: Option<u64>,
    token: u64,
}

impl MemHold {
    fn downgrade(&mut self) -> Result<()> {
        self.line.refuse_copy()?;
        match self.visit.is_some_and(|visit| self.line.downgrade(visit)) {
            true => Ok(()),
            false => Err(no_writer(self.place())),
        }
    }

    /// Releases the lock. In a forked child it belongs to the parent.
    fn give_back(&mut self) {
        if let Some(visit) = self.visit.take().filter(|_| self.line.is_here()) {
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

    fn permits(&self) -> u32 {
        self.visit.map_or(0, |visit| self.line.permits_of(visit))
    }

    fn split(&mut self, permits: u32) -> Result<Self> {
        self.line.refuse_copy()?;
        let left = check_split(permits, self.permits(), self.place())?;
        let part = self.visit.and_then(|visit| self.line.split(visit, left));
        Ok(Self {
            line: self.line.clone(),
            visit: part,
            token: self.token,
        })
    }

    fn merge(&mut self, mut other: Self) -> Result<()> {
        self.line.refuse_copy()?;
        let same = Arc::ptr_eq(&self.line, &other.line);
        check_merge(same, self.permits(), other.permits(), self.place())?;
        if let (Some(visit), Some(added)) = (self.visit, other.visit.take()) {
            self.line.merge(visit, added);
        }
        self.token = self.token.max(other.token);
        Ok(())
    }

    fn poll_downgrade(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.downgrade())
    }

    fn is_held(&self) -> bool {
        self.line.is_here()
    }

    /// Never resolves.
    fn lost(&self) -> Lost {
        Lost::new(std::future::pending())
    }

    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        let here = self.line.refuse_copy();
        self.give_back();
        Poll::Ready(here)
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

/// One caller's queue entry.
#[doc(hidden)]
pub struct MemPending {
    core: Arc<Core>,
    mode: Mode,
    entry: Option<u64>,
}

impl MemPending {
    pub(super) fn new(core: &Arc<Core>, mode: Mode) -> Self {
        Self {
            core: core.clone(),
            mode,
            entry: None,
        }
    }
}

impl Pending for MemPending {
    type Grant = MemHold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<MemHold>>> {
        let by = || By::this_task(self.core.label.as_ref());
        let grant = match self.entry {
            Some(entry) => match self.core.line.poll(entry, cx.waker()) {
                Poll::Ready(Ok(grant)) => Some(grant),
                Poll::Ready(Err(error)) => {
                    self.leave();
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            },
            None if request.try_only => self.core.line.try_enter(self.mode, &by())?,
            None => {
                let caller = Caller {
                    mode: self.mode,
                    by: by(),
                };
                let line = &self.core.line;
                match line.enter(caller, request.max_waiting, cx.waker())? {
                    Entered::Granted(grant) => Some(grant),
                    Entered::Waiting(entry) => {
                        self.entry = Some(entry);
                        return Poll::Pending;
                    }
                }
            }
        };
        self.entry = None;
        Poll::Ready(Ok(grant.map(|grant| MemHold {
            line: self.core.line.clone(),
            visit: Some(grant.visit),
            token: grant.token,
        })))
    }

    fn leave(&mut self) {
        if let Some(entry) = self.entry.take()
            && self.core.line.is_here()
        {
            self.core.line.cancel(entry);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        self.core.line.waiting(self.entry?)
    }

    fn address(&self) -> Option<Address> {
        Some(self.core.line.address())
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        Some(&self.core.ledger)
    }
}

impl Drop for MemPending {
    /// Leaves the queue.
    fn drop(&mut self) {
        self.leave();
    }
}
