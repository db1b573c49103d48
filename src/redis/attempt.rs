//! The wait for a lock on a server: what [`Acquire`](crate::Acquire) drives.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::actor::Command;
use super::client::Line;
use super::guard::{Held, RemoteGuard};
use super::place::{Outcome, Place, Seen, Wish};
use crate::acquire::sealed::{self, Identity};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Waiting;
use crate::trace;

/// One caller's place in the line.
#[doc(hidden)]
pub struct Attempt<G> {
    line: Arc<Line>,
    wish: Wish,
    /// What is wrong with the wish; told at the first poll.
    wrong: Option<Error>,
    stage: Stage,
    span: trace::Wait,
    _guard: PhantomData<fn() -> G>,
}

enum Stage {
    New,
    Waiting(Arc<Place>, Instant),
    Over,
}

impl<G> Attempt<G> {
    pub(super) fn new(line: Arc<Line>, wish: Wish) -> Self {
        Self {
            line,
            wish,
            wrong: None,
            stage: Stage::New,
            span: trace::Wait::default(),
            _guard: PhantomData,
        }
    }

    pub(super) fn or_fail(mut self, wrong: Option<Error>) -> Self {
        self.wrong = wrong;
        self
    }

    fn begin(&mut self) -> Result<()> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        let place = Arc::new(Place::new(self.line.target.clone(), self.wish));
        self.stage = Stage::Waiting(place, Instant::now());
        self.span.begin(self.line.path());
        Ok(())
    }

    /// Leaves the line, or gives back what has been granted meanwhile.
    fn leave(&mut self) {
        if let Stage::Waiting(place, _) = std::mem::replace(&mut self.stage, Stage::Over) {
            self.line.leave(&place);
            self.span.end();
        }
    }

    fn is_closed(&self) -> Result<()> {
        match self.line.core.is_closed() {
            true => {
                let text = "the client is closed";
                Err(Error::at(ErrorKind::Closed, text, self.line.path()))
            }
            false => Ok(()),
        }
    }
}

impl<G: RemoteGuard> Attempt<G> {
    fn step(&mut self, context: &Context<'_>) -> Poll<Result<Option<G>>> {
        self.is_closed()?;
        let is_new = matches!(self.stage, Stage::New);
        if is_new {
            self.begin()?;
        }
        let Stage::Waiting(place, since) = &self.stage else {
            return Poll::Pending;
        };
        let (place, since) = (place.clone(), *since);
        let tell = || self.line.core.tell(Command::Enter(place.clone()));
        let outcome = match place.look(context) {
            Seen::Pending if is_new => {
                tell()?;
                return Poll::Pending;
            }
            Seen::Pending => return Poll::Pending,
            Seen::AskAgain => {
                tell()?;
                return Poll::Pending;
            }
            Seen::Outcome(outcome) => outcome,
        };
        self.stage = Stage::Over;
        match outcome {
            Outcome::Granted(grant) => {
                let waited = grant.queued.then(|| since.elapsed());
                let held = Held::new(self.line.clone(), place, grant, waited);
                Poll::Ready(Ok(Some(G::new(held))))
            }
            Outcome::Refused => Poll::Ready(Ok(None)),
            Outcome::Failed(error) => Poll::Ready(Err(error)),
        }
    }

    /// One attempt: the guard, or nothing.
    pub(super) async fn once(mut self) -> Result<Option<G>> {
        self.wish.try_only = true;
        std::future::poll_fn(|context| self.step(context)).await
    }
}

impl<G: RemoteGuard> Future for Attempt<G> {
    type Output = Result<G>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if matches!(this.stage, Stage::Over) {
            return Poll::Pending;
        }
        let Poll::Ready(result) = this.step(context) else {
            return Poll::Pending;
        };
        this.leave();
        this.span.end();
        Poll::Ready(match result {
            Ok(Some(guard)) => Ok(guard),
            Ok(None) => Err(Error::timed_out(this.line.path(), Duration::ZERO)),
            Err(error) => Err(error),
        })
    }
}

impl<G> Drop for Attempt<G> {
    /// A word to the actor, which does the rest.
    fn drop(&mut self) {
        self.leave();
    }
}

impl<G: RemoteGuard> sealed::Attempt for Attempt<G> {
    type Guard = G;

    fn set_max_waiting(&mut self, most: usize) {
        self.wish.most = Some(most);
    }

    fn try_once(&mut self) -> bool {
        self.wish.try_only = true;
        true
    }

    fn cancel(&mut self) {
        self.leave();
    }

    fn waiting(&self) -> Option<Waiting> {
        let Stage::Waiting(place, since) = &self.stage else {
            return None;
        };
        let (rank, outlook) = place.outlook()?;
        Some(Waiting {
            place: Some(rank + 1),
            holder: outlook.holder(),
            closed_for: outlook.closed(),
            waited: since.elapsed(),
            held_by_this_task: false,
        })
    }

    fn identity(&self) -> Option<Identity> {
        let address = &self.line.core.address;
        Some(Identity::of_server("redis", address, &self.line.name))
    }

    fn timed_out(&self) -> Error {
        let waited = match &self.stage {
            Stage::Waiting(_, since) => since.elapsed(),
            Stage::New | Stage::Over => Duration::ZERO,
        };
        Error::timed_out(self.line.path(), waited)
    }
}
