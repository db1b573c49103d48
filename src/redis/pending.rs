//! The wait for a lock on a server.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::actor::Command;
use super::client::Line;
use super::hold::RedisHold;
use super::session::{Mode, Outcome, Seen, Session, Wish};
use crate::address::Address;
use crate::backend::{Pending, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;
use crate::status::Waiting;

/// The wait of one caller.
#[doc(hidden)]
pub struct RedisPending {
    line: Arc<Line>,
    mode: Mode,
    cost: u32,
    /// The error of an invalid request. The first poll returns it.
    wrong: Option<Error>,
    session: Option<Arc<Session>>,
}

impl RedisPending {
    pub(super) fn new(line: Arc<Line>, mode: Mode, cost: u32, wrong: Option<Error>) -> Self {
        Self {
            line,
            mode,
            cost,
            wrong,
            session: None,
        }
    }

    fn refuse_closed(&self) -> Result<()> {
        match self.line.core.is_closed() {
            true => {
                let text = "the client is closed";
                Err(Error::at(ErrorKind::Closed, text, self.line.path()))
            }
            false => Ok(()),
        }
    }

    fn poll_session(
        &mut self,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<RedisHold>>> {
        self.refuse_closed()?;
        if let Some(wrong) = self.wrong.take() {
            return Poll::Ready(Err(wrong));
        }
        let is_new = self.session.is_none();
        let session = self.session.get_or_insert_with(|| {
            let wish = Wish {
                mode: self.mode,
                cost: self.cost,
                most: request.max_waiting,
                try_only: request.try_only,
            };
            Arc::new(Session::new(self.line.target.clone(), wish))
        });
        let outcome = match session.poll(cx) {
            Seen::Pending if !is_new => return Poll::Pending,
            Seen::Pending | Seen::AskAgain => {
                self.line.core.send(Command::Enter(session.clone()))?;
                return Poll::Pending;
            }
            Seen::Outcome(outcome) => outcome,
        };
        // The actor has ended this wait too.
        Poll::Ready(match (outcome, self.session.take()) {
            (Outcome::Granted(grant), Some(session)) => {
                Ok(Some(RedisHold::new(self.line.clone(), session, grant)))
            }
            (Outcome::Failed(error), _) => Err(error),
            _ => Ok(None),
        })
    }
}

impl Pending for RedisPending {
    type Grant = RedisHold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<RedisHold>>> {
        let polled = self.poll_session(request, cx);
        if polled.is_ready() {
            self.leave();
        }
        polled
    }

    /// Sends a command to the actor, which leaves the queue.
    fn leave(&mut self) {
        if let Some(session) = self.session.take() {
            self.line.leave(&session);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        let (rank, lock_state) = self.session.as_ref()?.lock_state()?;
        Some(Waiting {
            position: Some(rank + 1),
            quarantine: lock_state.closed(),
            ..Waiting::behind(lock_state.holder())
        })
    }

    fn address(&self) -> Option<Address> {
        let address = &self.line.core.address;
        Some(Address::new("redis", address, &self.line.name))
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        Some(&self.line.ledger)
    }
}

impl Drop for RedisPending {
    fn drop(&mut self) {
        self.leave();
    }
}
