//! The wait for the fair lock: what [`Acquire`](crate::Acquire) drives.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{FifoGuard, Shared};
use crate::acquire::sealed;
use crate::error::{Error, Result};
use crate::fs::engine::line::{Entered, Key};
use crate::lock::Waiting;

/// One caller's place in the line.
#[doc(hidden)]
pub struct Attempt {
    shared: Arc<Shared>,
    most: Option<usize>,
    stage: Stage,
}

enum Stage {
    New,
    Waiting(Key, Instant),
    Over,
}

impl Future for Attempt {
    type Output = Result<FifoGuard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let grant = match this.stage {
            Stage::Over => return Poll::Pending,
            Stage::New => {
                this.stage = Stage::Over;
                let shared = &this.shared;
                match shared.line.enter(&shared.settings, this.most, cx.waker())? {
                    Entered::Granted(grant) => grant,
                    Entered::Waiting(key) => {
                        this.stage = Stage::Waiting(key, Instant::now());
                        return Poll::Pending;
                    }
                }
            }
            Stage::Waiting(key, _) => match this.shared.line.poll(key, cx.waker()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => {
                    this.stage = Stage::Over;
                    result?
                }
            },
        };
        Poll::Ready(Ok(FifoGuard::new(this.shared.clone(), grant)))
    }
}

impl Drop for Attempt {
    /// Leaves the line.
    fn drop(&mut self) {
        sealed::Attempt::cancel(self);
    }
}

impl sealed::Attempt for Attempt {
    type Guard = FifoGuard;

    fn set_max_waiting(&mut self, most: usize) {
        self.most = Some(most);
    }

    fn cancel(&mut self) {
        if let Stage::Waiting(key, _) = std::mem::replace(&mut self.stage, Stage::Over) {
            self.shared.line.cancel(key);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        match self.stage {
            Stage::Waiting(key, _) => self.shared.line.waiting(key),
            Stage::New | Stage::Over => None,
        }
    }

    fn timed_out(&self) -> Error {
        let waited = match self.stage {
            Stage::Waiting(_, since) => since.elapsed(),
            Stage::New | Stage::Over => Duration::ZERO,
        };
        Error::timed_out(&self.shared.line.place().door, waited)
    }
}

impl sealed::Granted for FifoGuard {
    type Attempt = Attempt;
}

impl Attempt {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            most: None,
            stage: Stage::New,
        }
    }
}
