//! The wait for a re-entrant lock.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Holder, ReentrantHold, Table};
use crate::acquire::Attempt;
use crate::address::Address;
use crate::backend::{Pending, Request};
use crate::error::Result;
use crate::guard::Guard;
use crate::metrics::Meter;
use crate::status::Waiting;

/// One caller's wait for a re-entrant lock.
#[doc(hidden)]
pub struct ReentrantPending<G: Guard> {
    inner: Attempt<G>,
    table: Arc<Table<G>>,
    holder: Holder,
    /// Whether the table knows of this wait.
    waits: bool,
}

impl<G: Guard> ReentrantPending<G> {
    pub(super) fn new(inner: Attempt<G>, table: Arc<Table<G>>, holder: Holder) -> Self {
        Self {
            inner,
            table,
            holder,
            waits: false,
        }
    }

    /// Returns what the holder already has, or the error of its loss. In both cases the wait is
    /// over. Otherwise `waker` is called when the holder acquires the lock.
    fn held(&mut self, waker: Option<&Waker>) -> Option<Result<ReentrantHold<G>>> {
        let held = self.table.held_by(&self.holder, waker).transpose()?;
        self.leave();
        Some(held.map(ReentrantHold::another))
    }
}

impl<G: Guard> Pending for ReentrantPending<G> {
    type Grant = ReentrantHold<G>;

    fn poll(
        &mut self,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<ReentrantHold<G>>>> {
        if let Some(held) = self.held(None) {
            return Poll::Ready(held.map(Some));
        }
        match self.inner.poll(request, cx) {
            Poll::Pending => {
                self.waits = true;
                // Another wait of this holder may have been granted in the meantime.
                let held = self.held(Some(cx.waker()));
                held.map_or(Poll::Pending, |held| Poll::Ready(held.map(Some)))
            }
            Poll::Ready(Ok(Some(guard))) => {
                self.waits = false;
                let holder = self.holder.clone();
                Poll::Ready(Ok(Some(ReentrantHold::first(guard, holder, &self.table))))
            }
            Poll::Ready(refused) => {
                self.leave();
                Poll::Ready(refused.map(|_| None))
            }
        }
    }

    /// Leaves the queue and the table.
    fn leave(&mut self) {
        self.inner.leave();
        if std::mem::take(&mut self.waits) {
            self.table.forget(&self.holder);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        self.inner.waiting()
    }

    /// That of the inner lock, for every holder.
    fn address(&self) -> Option<Address> {
        self.inner.address()
    }

    fn counts_waiters(&self) -> bool {
        self.inner.counts_waiters()
    }

    #[allow(private_interfaces)]
    fn meter(&self) -> Meter {
        self.inner.meter()
    }

    fn has_inner_wait(&self) -> bool {
        true
    }
}

impl<G: Guard> Drop for ReentrantPending<G> {
    fn drop(&mut self) {
        self.leave();
    }
}
