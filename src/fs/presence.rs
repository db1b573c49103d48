//! The wait for a lock that exists as a name, [claim](super::claim) or [pid file](super::pid): what [`Acquire`](crate::Acquire) drives.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::engine::contest::{Contest, Outcome, Waiting};
use super::engine::wait::Wait;
use crate::acquire::sealed::{self, Identity};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::lock;
use crate::trace;

/// A lock of this sort, with the guard it hands out.
pub(crate) trait Present: Contest {
    type Guard: Guard;

    fn guard(self: &Arc<Self>, prize: Self::Prize, waited: Option<Duration>) -> Self::Guard;
}

/// One caller's wait.
pub(crate) struct PresenceAttempt<C: Present> {
    lock: Arc<C>,
    most: Option<usize>,
    stage: Stage<C>,
    span: trace::Wait,
}

enum Stage<C: Present> {
    New,
    Waiting(Waiting<C>, Instant),
    Over,
}

impl<C: Present> PresenceAttempt<C> {
    pub(crate) fn new(lock: Arc<C>) -> Self {
        Self {
            lock,
            most: None,
            stage: Stage::New,
            span: trace::Wait::default(),
        }
    }

    /// The first poll.
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<C::Guard>> {
        let mut memory = C::Memory::default();
        match self.lock.contend(&mut memory) {
            Err(error) => return Poll::Ready(Err(error)),
            Ok(Outcome::Won(prize)) => return Poll::Ready(Ok(self.lock.guard(prize, None))),
            Ok(Outcome::Refused(_)) => {}
        }
        let path = self.lock.path();
        if self.most == Some(0) {
            let text = "another process has the lock, and this caller does not wait";
            return Poll::Ready(Err(Error::at(ErrorKind::Busy, text, path)));
        }
        self.span.begin(path);
        let waiting = Waiting::begin(self.lock.clone(), memory, cx.waker());
        if waiting.is_polling() && !matches!(self.lock.manner().wait, Wait::Poll(_)) {
            let mut notes = trace::Notes::default();
            notes.push(trace::Note::Fallback);
            notes.tell(path);
        }
        self.stage = Stage::Waiting(waiting, Instant::now());
        self.go_on(cx)
    }

    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<Result<C::Guard>> {
        let Stage::Waiting(waiting, since) = &mut self.stage else {
            return Poll::Pending;
        };
        let polled = self.span.poll(|| waiting.poll(cx.waker()));
        let waited = since.elapsed();
        polled.map(|won| won.map(|prize| self.lock.guard(prize, Some(waited))))
    }
}

impl<C: Present> Future for PresenceAttempt<C> {
    type Output = Result<C::Guard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let result = match &this.stage {
            Stage::New => this.begin(cx),
            Stage::Waiting(..) => this.go_on(cx),
            Stage::Over => Poll::Pending,
        };
        if result.is_ready() {
            this.give_up();
        }
        result
    }
}

impl<C: Present> PresenceAttempt<C> {
    fn give_up(&mut self) {
        self.stage = Stage::Over;
        self.span.end();
    }

    pub(crate) fn path(&self) -> &Path {
        self.lock.path()
    }
}

impl<C: Present> Unpin for PresenceAttempt<C> {}

impl<C: Present> sealed::Attempt for PresenceAttempt<C> {
    type Guard = C::Guard;

    fn set_max_waiting(&mut self, most: usize) {
        self.most = Some(most);
    }

    fn counts_waiters(&self) -> bool {
        false
    }

    fn cancel(&mut self) {
        self.give_up();
    }

    fn waiting(&self) -> Option<lock::Waiting> {
        let Stage::Waiting(waiting, since) = &self.stage else {
            return None;
        };
        Some(lock::Waiting {
            place: None,
            holder: waiting.owner(),
            waited: since.elapsed(),
            closed_for: None,
            held_by_this_task: false,
        })
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity::of_file(self.path()))
    }

    fn timed_out(&self) -> Error {
        let waited = match self.stage {
            Stage::Waiting(_, since) => since.elapsed(),
            Stage::New | Stage::Over => Duration::ZERO,
        };
        Error::timed_out(self.path(), waited)
    }
}

/// The wait for one lock of this sort, as the public face names it: `wait_for!(PidAttempt: PidFile => PidGuard)`.
macro_rules! wait_for {
    ($attempt:ident: $lock:ty => $guard:ty) => {
        /// One caller's wait.
        #[doc(hidden)]
        pub struct $attempt(pub(crate) crate::fs::presence::PresenceAttempt<$lock>);

        impl std::future::Future for $attempt {
            type Output = crate::error::Result<$guard>;

            fn poll(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                std::pin::Pin::new(&mut self.0).poll(cx)
            }
        }

        impl crate::acquire::sealed::Attempt for $attempt {
            type Guard = $guard;

            fn set_max_waiting(&mut self, most: usize) {
                self.0.set_max_waiting(most);
            }

            fn counts_waiters(&self) -> bool {
                self.0.counts_waiters()
            }

            fn cancel(&mut self) {
                self.0.cancel();
            }

            fn waiting(&self) -> Option<crate::lock::Waiting> {
                self.0.waiting()
            }

            fn identity(&self) -> Option<crate::acquire::sealed::Identity> {
                self.0.identity()
            }

            fn timed_out(&self) -> crate::error::Error {
                self.0.timed_out()
            }
        }

        impl crate::acquire::sealed::Granted for $guard {
            type Attempt = $attempt;
        }
    };
}
pub(crate) use wait_for;
