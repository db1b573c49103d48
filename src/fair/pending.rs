//! The wait for a fair lock.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::guard::FairHold;
use super::line::Key;
use super::ticket::Mode;
use super::{Arrived, Shared};
use crate::address::Address;
use crate::backend::{Pending, Request};
use crate::error::Result;
use crate::metrics::Meter;
use crate::status::Waiting;

/// The place of one caller in the queue.
#[doc(hidden)]
pub struct FairPending {
    shared: Arc<Shared>,
    mode: Mode,
    key: Option<Key>,
    over: bool,
}

impl FairPending {
    pub(super) fn new(shared: Arc<Shared>, mode: Mode) -> Self {
        Self {
            shared,
            mode,
            key: None,
            over: false,
        }
    }
}

impl Pending for FairPending {
    type Grant = FairHold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<FairHold>>> {
        let (line, settings) = (&self.shared.line, &self.shared.settings);
        let result = match self.key {
            _ if self.over => return Poll::Pending,
            Some(key) => line.poll(key, cx.waker(), request.now()).map_ok(Some),
            None if request.try_only => Poll::Ready(line.try_enter(settings, self.mode)),
            None => match line.enter(settings, self.mode, request, cx.waker()) {
                Ok(Arrived::Granted(grant)) => Poll::Ready(Ok(Some(grant))),
                Ok(Arrived::Waiting(key)) => {
                    self.key = Some(key);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            },
        };
        let Poll::Ready(result) = result else {
            return Poll::Pending;
        };
        self.over = true;
        let hold = |grant| FairHold::new(self.shared.clone(), grant);
        Poll::Ready(result.map(|grant| grant.map(hold)))
    }

    fn leave(&mut self) {
        if let Some(key) = self.key.take()
            && !std::mem::replace(&mut self.over, true)
        {
            self.shared.line.cancel(key);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        let key = self.key.filter(|_| !self.over)?;
        self.shared.line.waiting(key)
    }

    fn address(&self) -> Option<Address> {
        Some(Address::of_file(self.shared.path()))
    }

    #[allow(private_interfaces)]
    fn meter(&self) -> Meter {
        self.shared.meter()
    }
}

impl Drop for FairPending {
    /// Leaves the queue.
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use crate::acquire::Acquire;
    use crate::fair::FifoGuard;

    /// Thousands of tasks may wait, and each result is moved through several functions.
    #[test]
    fn p64_a_wait_and_its_guard_are_small() {
        assert!(size_of::<Acquire<FifoGuard>>() <= 304);
        let metered = size_of::<crate::metrics::Holding>();
        assert!(size_of::<FifoGuard>() <= 152 + metered);
    }
}
