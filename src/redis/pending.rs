//! The wait for a lock on a server.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::actor::Command;
use super::client::Line;
use super::hold::RedisHold;
use super::place::{Mode, Outcome, Place, Seen, Wish};
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
    place: Option<Arc<Place>>,
}

impl RedisPending {
    pub(super) fn new(line: Arc<Line>, mode: Mode, cost: u32, wrong: Option<Error>) -> Self {
        Self {
            line,
            mode,
            cost,
            wrong,
            place: None,
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

    fn look(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<RedisHold>>> {
        self.refuse_closed()?;
        if let Some(wrong) = self.wrong.take() {
            return Poll::Ready(Err(wrong));
        }
        let is_new = self.place.is_none();
        let place = self.place.get_or_insert_with(|| {
            let wish = Wish {
                mode: self.mode,
                cost: self.cost,
                most: request.max_waiting,
                try_only: request.try_only,
            };
            Arc::new(Place::new(self.line.target.clone(), wish))
        });
        let outcome = match place.look(cx) {
            Seen::Pending if !is_new => return Poll::Pending,
            Seen::Pending | Seen::AskAgain => {
                self.line.core.send(Command::Enter(place.clone()))?;
                return Poll::Pending;
            }
            Seen::Outcome(outcome) => outcome,
        };
        // The actor has ended this wait too.
        Poll::Ready(match (outcome, self.place.take()) {
            (Outcome::Granted(grant), Some(place)) => {
                Ok(Some(RedisHold::new(self.line.clone(), place, grant)))
            }
            (Outcome::Failed(error), _) => Err(error),
            _ => Ok(None),
        })
    }
}

impl Pending for RedisPending {
    type Grant = RedisHold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<RedisHold>>> {
        let looked = self.look(request, cx);
        if looked.is_ready() {
            self.leave();
        }
        looked
    }

    /// Sends a command to the actor, which leaves the queue.
    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.line.leave(&place);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        let (rank, outlook) = self.place.as_ref()?.outlook()?;
        Some(Waiting {
            position: Some(rank + 1),
            quarantine: outlook.closed(),
            ..Waiting::behind(outlook.holder())
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
