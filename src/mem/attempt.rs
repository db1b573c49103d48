//! The wait for a lock in memory: what [`Acquire`](crate::Acquire) drives.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::guard::MemGuard;
use super::line::{Caller, Entered, Line, Want};
use crate::acquire::Acquire;
use crate::acquire::sealed::{self, Identity};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::{Readable, Waiting};
use crate::trace;

/// One caller's place in the line.
#[doc(hidden)]
pub struct MemAttempt {
    line: Arc<Line>,
    want: Want,
    most: Option<usize>,
    stage: Stage,
    span: trace::Wait,
}

enum Stage {
    New,
    Waiting(u64, Instant),
    Over,
}

impl MemAttempt {
    pub(super) fn begin(line: &Arc<Line>, want: Want) -> Acquire<MemGuard> {
        let attempt = Self {
            line: line.clone(),
            want,
            most: None,
            stage: Stage::New,
            span: trace::Wait::default(),
        };
        Acquire::new(attempt, None)
    }

    fn leave(&mut self) {
        if let Stage::Waiting(place, _) = std::mem::replace(&mut self.stage, Stage::Over) {
            self.line.cancel(place);
            self.span.end();
        }
    }
}

impl Future for MemAttempt {
    type Output = Result<MemGuard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let result = match this.stage {
            Stage::Over => return Poll::Pending,
            Stage::New => {
                let caller = Caller {
                    want: this.want,
                    most: this.most,
                    waker: cx.waker(),
                };
                match this.line.enter(caller) {
                    Ok(Entered::Granted(grant)) => Poll::Ready(Ok(grant)),
                    Ok(Entered::Waiting(place)) => {
                        this.span.begin(this.line.path());
                        this.stage = Stage::Waiting(place, Instant::now());
                        Poll::Pending
                    }
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
            Stage::Waiting(place, _) => {
                let poll = || this.line.poll(place, cx.waker());
                this.span.poll(poll).map(Ok)
            }
        };
        if result.is_ready() {
            this.stage = Stage::Over;
            this.span.end();
        }
        result.map(|granted| granted.map(|grant| MemGuard::new(&this.line, grant)))
    }
}

impl Drop for MemAttempt {
    /// Leaves the line.
    fn drop(&mut self) {
        self.leave();
    }
}

impl sealed::Attempt for MemAttempt {
    type Guard = MemGuard;

    fn set_max_waiting(&mut self, most: usize) {
        self.most = Some(most);
    }

    fn cancel(&mut self) {
        self.leave();
    }

    fn waiting(&self) -> Option<Waiting> {
        match self.stage {
            Stage::Waiting(place, _) => self.line.waiting(place),
            Stage::New | Stage::Over => None,
        }
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.line.identity())
    }

    fn timed_out(&self) -> Error {
        let waited = match self.stage {
            Stage::Waiting(_, since) => since.elapsed(),
            Stage::New | Stage::Over => Duration::ZERO,
        };
        let (waited, path) = (Readable(waited), self.line.path().display());
        let text = format!("timed out after {waited} waiting for {path}");
        Error::new(ErrorKind::TimedOut, text)
    }
}

impl sealed::Granted for MemGuard {
    type Attempt = MemAttempt;
}
