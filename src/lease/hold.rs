//! The hold in the guard of a lock on a server.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::oneshot;

use super::actor::Command;
use super::client::{LeaseLock, gone};
use super::session::Session;
use super::store::Grant;
use crate::backend::{Hold, Mode};
use crate::error::{Error, Result};
use crate::foreign::poll_shielded;
use crate::loss::{Loss, LossListener, Lost};
use crate::options::no_writer;

/// A grant of a lock on a server.
#[doc(hidden)]
pub struct LeaseHold {
    lock: LeaseLock,
    /// Present until the release.
    session: Option<Arc<Session>>,
    /// The same session. It stays after the release, for `is_held` and `lost`.
    watched: Arc<Session>,
    grant: Grant,
    /// The channel that receives the result of the release.
    answer: Option<oneshot::Receiver<Result<()>>>,
    /// The channel that receives the result of the downgrade.
    sharing: Option<oneshot::Receiver<Result<()>>>,
}

impl LeaseHold {
    pub(super) fn new(lock: LeaseLock, session: Arc<Session>, grant: Grant) -> Self {
        Self {
            lock,
            watched: session.clone(),
            session: Some(session),
            grant,
            answer: None,
            sharing: None,
        }
    }

    /// Returns the id, for the simulation.
    #[cfg(test)]
    pub(super) fn id(&self) -> &str {
        &self.watched.id
    }

    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.is_held().then(|| self.watched.valid_until().instant())
    }

    pub(crate) async fn ensure(&self) -> Result<()> {
        if let Some(loss) = self.watched.loss() {
            return Err(self.lost_by(loss));
        }
        let (reply, mut answer) = oneshot::channel();
        self.lock
            .send(Command::Ensure(self.watched.clone(), reply))?;
        std::future::poll_fn(|context| self.poll_answer(&mut answer, context)).await
    }

    /// Waits for the answer or a loss, whichever comes first. A loss needs no answer.
    fn poll_answer(
        &self,
        answer: &mut oneshot::Receiver<Result<()>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        if let Poll::Ready(answer) = poll_shielded(Pin::new(answer), context) {
            return Poll::Ready(answer.map_err(|_| gone(self.lock.path())).and_then(|it| it));
        }
        let loss = self.watched.poll_lost(context);
        loss.map(|loss| Err(self.lost_by(loss)))
    }

    fn lost_by(&self, loss: Loss) -> Error {
        Error::lost(loss, self.lock.path())
    }
}

impl Hold for LeaseHold {
    fn token(&self) -> Option<u64> {
        Some(self.grant.token)
    }

    fn predecessor_crashed(&self) -> bool {
        self.grant.crashed
    }

    fn permits(&self) -> u32 {
        match self.watched.wish().mode {
            Mode::Permits(permits) => permits,
            Mode::Exclusive | Mode::Shared => 0,
        }
    }

    fn poll_downgrade(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut answer = match self.sharing.take() {
            Some(answer) => answer,
            None if self.watched.writes() => {
                let (reply, answer) = oneshot::channel();
                let command = Command::Downgrade(self.watched.clone(), reply);
                self.lock.send(command)?;
                answer
            }
            None => return Poll::Ready(Err(no_writer(self.lock.path()))),
        };
        let answered = self.poll_answer(&mut answer, context);
        self.sharing = answered.is_pending().then_some(answer);
        answered
    }

    fn is_held(&self) -> bool {
        self.lock.client().check().is_ok() && self.watched.is_valid()
    }

    fn lost(&self) -> Lost {
        let session = self.watched.clone();
        Lost::new(std::future::poll_fn(move |context| {
            session.poll_lost(context)
        }))
    }

    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(session) = self.session.take() {
            let (reply, answer) = oneshot::channel();
            let command = Command::Leave(session, Some(reply));
            self.lock.send(command)?;
            self.answer = Some(answer);
        }
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(Ok(()));
        };
        let answer = ready!(poll_shielded(Pin::new(answer), context));
        self.answer = None;
        Poll::Ready(answer.map_err(|_| gone(self.lock.path())).and_then(|it| it))
    }

    fn on_loss(&self, listener: &dyn Fn() -> LossListener) {
        self.watched.on_loss(listener());
    }

    fn place(&self) -> &Path {
        self.lock.path()
    }

    fn has_queued(&self) -> bool {
        self.watched.waiting().is_some()
    }
}

impl Drop for LeaseHold {
    /// Sends a command to the actor, which releases the hold.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.lock.leave(session);
        }
    }
}
