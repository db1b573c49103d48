//! The wait for a lock on a server.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::actor::Command;
use super::client::LeaseLock;
use super::hold::LeaseHold;
use super::session::{Outcome, Seen, Session, Wish};
use crate::acquire::Acquire;
use crate::address::Address;
use crate::backend::{Mode, Pending, Request};
use crate::error::Result;
use crate::guard::Guard;
use crate::guard::sealed::Granted;
use crate::ledger::Ledger;
use crate::status::Waiting;

impl LeaseLock {
    pub(crate) fn acquire<G>(&self, mode: Mode) -> Acquire<G>
    where
        G: Guard + Granted<Pending = LeasePending>,
    {
        let pending = LeasePending::new(self.clone(), mode);
        Acquire::new(pending, self.timeout())
    }

    pub(crate) async fn try_acquire<G>(&self, mode: Mode) -> Result<Option<G>>
    where
        G: Guard + Granted<Pending = LeasePending>,
    {
        self.acquire(mode).try_once().await
    }
}

/// The wait of one caller.
#[doc(hidden)]
pub struct LeasePending {
    lock: LeaseLock,
    mode: Mode,
    session: Option<Arc<Session>>,
}

impl LeasePending {
    pub(super) fn new(lock: LeaseLock, mode: Mode) -> Self {
        Self {
            lock,
            mode,
            session: None,
        }
    }

    fn poll_session(
        &mut self,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<LeaseHold>>> {
        self.lock.check(self.mode)?;
        let is_new = self.session.is_none();
        let session = self.session.get_or_insert_with(|| {
            let wish = Wish {
                mode: self.mode,
                max_waiting: request.max_waiting,
                try_only: request.try_only,
            };
            Arc::new(Session::new(self.lock.target().clone(), wish))
        });
        let outcome = match session.poll(cx) {
            Seen::Pending if !is_new => return Poll::Pending,
            Seen::Pending | Seen::AskAgain => {
                self.lock.send(Command::Enter(session.clone()))?;
                return Poll::Pending;
            }
            Seen::Outcome(outcome) => outcome,
        };
        // The actor has ended this wait too.
        Poll::Ready(match (outcome, self.session.take()) {
            (Outcome::Granted(grant), Some(session)) => {
                Ok(Some(LeaseHold::new(self.lock.clone(), session, grant)))
            }
            (Outcome::Failed(error), _) => Err(error),
            _ => Ok(None),
        })
    }
}

impl Pending for LeasePending {
    type Grant = LeaseHold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<LeaseHold>>> {
        let polled = self.poll_session(request, cx);
        if polled.is_ready() {
            self.leave();
        }
        polled
    }

    /// Sends a command to the actor, which leaves the queue.
    fn leave(&mut self) {
        if let Some(session) = self.session.take() {
            self.lock.leave(session);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        self.session.as_ref()?.waiting()
    }

    fn address(&self) -> Option<Address> {
        Some(self.lock.full_address())
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        Some(self.lock.ledger())
    }
}

impl Drop for LeasePending {
    fn drop(&mut self) {
        self.leave();
    }
}
