//! The hold in the guard of a lock on a server.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::oneshot;

use super::actor::Command;
use super::client::{Line, gone};
use super::session::{Grant, Mode, Session, Wish};
use crate::backend::Hold;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::poll_shielded;
use crate::loss::{Loss, Lost};
use crate::options::no_writer;

/// A grant of a lock on a server.
#[doc(hidden)]
pub struct RedisHold {
    line: Arc<Line>,
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

impl RedisHold {
    pub(super) fn new(line: Arc<Line>, session: Arc<Session>, grant: Grant) -> Self {
        Self {
            line,
            watched: session.clone(),
            session: Some(session),
            grant,
            answer: None,
            sharing: None,
        }
    }

    pub(super) fn held_until(&self) -> Option<Instant> {
        self.is_held().then(|| self.watched.valid_until().instant())
    }

    pub(super) async fn ensure(&self) -> Result<()> {
        if let Some(loss) = self.watched.loss() {
            return Err(self.lost_by(loss));
        }
        let (reply, mut answer) = oneshot::channel();
        self.line
            .core
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
            return Poll::Ready(answer.map_err(|_| gone(self.line.path())).and_then(|it| it));
        }
        let loss = self.watched.poll_lost(context);
        loss.map(|loss| Err(self.lost_by(loss)))
    }

    fn lost_by(&self, loss: Loss) -> Error {
        Error::at(ErrorKind::Lost, loss.to_string(), self.line.path())
    }
}

impl Hold for RedisHold {
    fn token(&self) -> Option<u64> {
        Some(self.grant.token)
    }

    fn predecessor_crashed(&self) -> bool {
        self.grant.crashed
    }

    fn permits(&self) -> u32 {
        match self.watched.wish() {
            Wish {
                mode: Mode::Permits,
                cost,
                ..
            } => cost,
            _ => 0,
        }
    }

    fn poll_downgrade(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut answer = match self.sharing.take() {
            Some(answer) => answer,
            None if self.watched.writes() => {
                let (reply, answer) = oneshot::channel();
                let command = Command::Downgrade(self.watched.clone(), reply);
                self.line.core.send(command)?;
                answer
            }
            None => return Poll::Ready(Err(no_writer(self.line.path()))),
        };
        let answered = self.poll_answer(&mut answer, context);
        self.sharing = answered.is_pending().then_some(answer);
        answered
    }

    fn is_held(&self) -> bool {
        self.line.core.check().is_ok() && self.watched.is_valid()
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
            self.line.core.send(command)?;
            self.answer = Some(answer);
        }
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(Ok(()));
        };
        let answer = ready!(poll_shielded(Pin::new(answer), context));
        self.answer = None;
        Poll::Ready(answer.map_err(|_| gone(self.line.path())).and_then(|it| it))
    }

    fn place(&self) -> &Path {
        self.line.path()
    }

    fn has_queued(&self) -> bool {
        self.grant.queued
    }
}

impl Drop for RedisHold {
    /// Sends a command to the actor, which releases the hold.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.line.leave(&session);
        }
    }
}

/// Defines the guard of a lock on a server; see [`guard!`](crate::guard::guard).
macro_rules! remote_guard {
    ($(#[$about:meta])* $name:ident, token: $token:literal $(, reader: $reader:ident)?) => {
        $crate::guard::guard! {
            $(#[$about])*
            ///
            /// Dropping it releases in the background, also outside a runtime and while unwinding.
            /// The result is not reported. If the server cannot be reached, the lease ends the
            /// hold. In a forked child, dropping it does nothing.
            ///
            /// The lock is lost three quarters of a lease after the last renewal that the server
            /// confirmed. This is before the server may grant the lock to another caller. A loss
            /// that is known earlier counts at once.
            ///
            /// `is_held` uses the clock of this host and sends no request. That clock counts the
            /// time for which the machine was suspended, so a lease that ended meanwhile is noticed
            /// at once. `release` takes one round trip. A request without an answer is repeated
            /// until the lease is over.
            $name holds $crate::redis::hold::RedisHold,
            by $crate::redis::pending::RedisPending,
            token: $token $(, reader: $reader)?
        }

        impl $name {
            /// Returns the time at which the hold ends if it is not renewed. Each renewal moves
            /// this time. Returns `None` if the lock is lost.
            pub fn held_until(&self) -> Option<std::time::Instant> {
                self.held.hold.held_until()
            }

            /// Asks the server whether the lock is still held, and renews it. Use it as a last
            /// check before a step that cannot be undone.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future changes nothing. The server may still receive the request.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) when the lock is lost. While the server
            /// does not answer, the call waits, at most until the lease is over.
            pub async fn ensure_held(&self) -> crate::error::Result<()> {
                self.held.hold.ensure().await
            }
        }
    };
}
pub(super) use remote_guard;
