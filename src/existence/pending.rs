//! The wait for a lock that exists as a name: a [claim](super::claim) or a [pid file](super::pid).

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::address::Address;
use crate::backend::{Pending, Request};
use crate::error::Result;
use crate::file::wait::{FileWait, Outcome, Target};
use crate::ledger::Ledger;
use crate::status::{self, Owner};

/// A lock that exists as a name.
#[doc(hidden)]
pub trait Presence: Target {
    fn ledger(&self) -> &Arc<Ledger>;
}

/// The wait of one caller.
#[doc(hidden)]
pub struct PresencePending<C: Presence> {
    lock: Arc<C>,
    waiting: Option<FileWait<C>>,
    /// The holder at the first attempt.
    holder: Option<Owner>,
}

impl<C: Presence> PresencePending<C> {
    pub(super) fn new(lock: &Arc<C>) -> Self {
        Self {
            lock: lock.clone(),
            waiting: None,
            holder: None,
        }
    }
}

impl<C: Presence> Unpin for PresencePending<C> {}

impl<C: Presence> Pending for PresencePending<C> {
    type Grant = C::Hold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<C::Hold>>> {
        let waiting = match &mut self.waiting {
            Some(waiting) => waiting,
            none => {
                let mut memory = C::Memory::default();
                match self.lock.attempt(&mut memory, None)? {
                    Outcome::Granted(hold) => return Poll::Ready(Ok(Some(hold))),
                    Outcome::Refused(refusal) => self.holder = refusal.owner,
                }
                if request.try_only {
                    return Poll::Ready(Ok(None));
                }
                none.insert(FileWait::begin(self.lock.clone(), memory, cx.waker()))
            }
        };
        let granted = waiting.poll(cx.waker());
        if granted.is_ready() {
            self.leave();
        }
        granted.map_ok(Some)
    }

    fn leave(&mut self) {
        self.waiting = None;
    }

    fn waiting(&self) -> Option<status::Waiting> {
        let holder = match &self.waiting {
            Some(waiting) => waiting.owner(),
            None => self.holder.clone(),
        };
        Some(status::Waiting::behind(holder))
    }

    fn address(&self) -> Option<Address> {
        self.lock.place().map(Address::of_file)
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        Some(self.lock.ledger())
    }

    fn counts_waiters(&self) -> bool {
        false
    }
}
