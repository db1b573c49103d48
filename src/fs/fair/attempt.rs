//! The wait for a fair lock: what [`Acquire`](crate::Acquire) drives.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Shared;
use super::guard::{FairGuard, Held};
use crate::acquire::sealed::{self, Identity};
use crate::error::{Error, Result};
use crate::fs::engine::blocking;
use crate::fs::engine::line::{Entered, Key, Wish};
use crate::fs::engine::ticket::Mode;
use crate::lock::Waiting;
use crate::trace;

/// One caller's place in the line.
#[doc(hidden)]
pub struct Attempt<G> {
    /// There until the guard takes it over.
    shared: Option<Arc<Shared>>,
    wish: Wish,
    stage: Stage,
    span: trace::Wait,
    _guard: PhantomData<fn() -> G>,
}

enum Stage {
    New,
    Waiting(Key, Instant),
    Over,
}

impl<G: FairGuard> Future for Attempt<G> {
    type Output = Result<G>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // A clone, so that the place in line is known to the drop although the caller's waker may panic.
        let Some(shared) = this.shared.clone() else {
            return Poll::Pending;
        };
        let now = Instant::now();
        let result = match this.stage {
            Stage::Over => return Poll::Pending,
            Stage::New => match shared
                .line
                .enter(&shared.settings, this.wish, cx.waker(), now)
            {
                Ok(Entered::Granted(grant)) => Poll::Ready(Ok(grant)),
                Ok(Entered::Waiting(key)) => {
                    this.span.begin(&shared.line.place().door);
                    this.stage = Stage::Waiting(key, now);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            },
            Stage::Waiting(key, _) => this.span.poll(|| shared.line.poll(key, cx.waker(), now)),
        };
        let Poll::Ready(result) = result else {
            return Poll::Pending;
        };
        this.stage = Stage::Over;
        this.shared = None;
        this.span.end();
        Poll::Ready(result.map(|grant| G::new(Held::new(shared, grant))))
    }
}

impl<G> Drop for Attempt<G> {
    /// Leaves the line.
    fn drop(&mut self) {
        self.leave();
    }
}

impl<G> Attempt<G> {
    pub(crate) fn new(shared: Arc<Shared>, want: Mode) -> Self {
        Self {
            shared: Some(shared),
            wish: Wish {
                want,
                most: None,
                thread: None,
            },
            stage: Stage::New,
            span: trace::Wait::default(),
            _guard: PhantomData,
        }
    }

    /// Waits on this thread, at most that long.
    pub(crate) fn block(mut self, limit: Option<Duration>) -> Result<G>
    where
        G: FairGuard,
    {
        let path = self.shared.as_ref().map(|it| it.path().to_path_buf());
        if limit.is_none() {
            self.wish.thread = Some(std::thread::current().id());
        }
        blocking::acquire(self, &path.unwrap_or_default(), limit)
    }

    fn leave(&mut self) {
        if let Stage::Waiting(key, _) = std::mem::replace(&mut self.stage, Stage::Over)
            && let Some(shared) = &self.shared
        {
            shared.line.cancel(key);
            self.span.end();
        }
    }
}

impl<G: FairGuard> sealed::Attempt for Attempt<G> {
    type Guard = G;

    fn set_max_waiting(&mut self, most: usize) {
        self.wish.most = Some(most);
    }

    fn cancel(&mut self) {
        self.leave();
    }

    fn waiting(&self) -> Option<Waiting> {
        match self.stage {
            Stage::Waiting(key, _) => self.shared.as_ref()?.line.waiting(key),
            Stage::New | Stage::Over => None,
        }
    }

    fn identity(&self) -> Option<Identity> {
        let shared = self.shared.as_ref()?;
        Some(Identity::of_file(&shared.line.place().door))
    }

    fn timed_out(&self) -> Error {
        let waited = match self.stage {
            Stage::Waiting(_, since) => since.elapsed(),
            Stage::New | Stage::Over => Duration::ZERO,
        };
        let path = self.shared.as_ref().map(|it| it.line.place().door.clone());
        Error::timed_out(path.unwrap_or_default(), waited)
    }
}
