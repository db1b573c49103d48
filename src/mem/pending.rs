//! The wait for a lock in memory.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::Core;
use super::guard::MemHold;
use super::line::{Caller, Entered};
use super::state::By;
use crate::address::Address;
use crate::backend::{Mode, Pending, Request};
use crate::error::Result;
use crate::ledger::Ledger;
use crate::status::Waiting;

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
                Poll::Ready(grant) => Some(grant),
                Poll::Pending => return Poll::Pending,
            },
            None if request.try_only => self.core.line.try_enter(self.mode, &by())?,
            None => {
                let caller = Caller {
                    mode: self.mode,
                    by: by(),
                    most: request.max_waiting,
                    waker: cx.waker(),
                };
                match self.core.line.enter(caller)? {
                    Entered::Granted(grant) => Some(grant),
                    Entered::Waiting(entry) => {
                        self.entry = Some(entry);
                        return Poll::Pending;
                    }
                }
            }
        };
        self.entry = None;
        Poll::Ready(Ok(grant.map(|grant| MemHold::new(&self.core.line, grant))))
    }

    fn leave(&mut self) {
        if let Some(entry) = self.entry.take() {
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
