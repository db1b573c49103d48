//! The wait for a re-entrant lock: what [`Acquire`](crate::Acquire) drives.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Holder, ReentrantGuard, Table};
use crate::acquire::sealed::{self, Identity};
use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::lock::Waiting;

/// One caller's wait.
#[doc(hidden)]
pub struct ReentrantAttempt<G: Guard> {
    inner: Option<G::Attempt>,
    table: Arc<Table<G>>,
    holder: Holder,
    /// Whether the table knows of this wait.
    waits: bool,
}

impl<G: Guard> ReentrantAttempt<G> {
    pub(super) fn new(inner: G::Attempt, table: Arc<Table<G>>, holder: Holder) -> Self {
        Self {
            inner: Some(inner),
            table,
            holder,
            waits: false,
        }
    }
}

impl<G: Guard> Future for ReentrantAttempt<G> {
    type Output = Result<ReentrantGuard<G>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Pending;
        };
        if let Some(held) = this.table.held_by(&this.holder, None) {
            sealed::Attempt::cancel(this);
            return Poll::Ready(Ok(ReentrantGuard::another(held)));
        }
        match Pin::new(inner).poll(cx) {
            Poll::Pending => {
                // Another wait of this holder may have come in between.
                this.waits = true;
                match this.table.held_by(&this.holder, Some(cx.waker())) {
                    Some(held) => {
                        sealed::Attempt::cancel(this);
                        Poll::Ready(Ok(ReentrantGuard::another(held)))
                    }
                    None => Poll::Pending,
                }
            }
            Poll::Ready(Ok(guard)) => {
                this.inner = None;
                this.waits = false;
                let holder = this.holder.clone();
                Poll::Ready(Ok(ReentrantGuard::first(guard, holder, &this.table)))
            }
            Poll::Ready(Err(error)) => {
                sealed::Attempt::cancel(this);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<G: Guard> Drop for ReentrantAttempt<G> {
    fn drop(&mut self) {
        sealed::Attempt::cancel(self);
    }
}

impl<G: Guard> sealed::Attempt for ReentrantAttempt<G> {
    type Guard = ReentrantGuard<G>;

    fn set_max_waiting(&mut self, most: usize) {
        if let Some(inner) = &mut self.inner {
            inner.set_max_waiting(most);
        }
    }

    fn counts_waiters(&self) -> bool {
        self.inner.as_ref().is_none_or(|it| it.counts_waiters())
    }

    fn try_once(&mut self) -> bool {
        self.inner.as_mut().is_some_and(|inner| inner.try_once())
    }

    /// Leaves the line, and the table.
    fn cancel(&mut self) {
        if let Some(mut inner) = self.inner.take() {
            inner.cancel();
        }
        if std::mem::take(&mut self.waits) {
            self.table.forget(&self.holder);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        self.inner.as_ref()?.waiting()
    }

    /// That of the lock inside, whoever the holder is.
    fn identity(&self) -> Option<Identity> {
        self.inner.as_ref()?.identity()
    }

    fn timed_out(&self) -> Error {
        match &self.inner {
            Some(inner) => inner.timed_out(),
            None => Error::timed_out("", Duration::ZERO),
        }
    }
}

impl<G: Guard> sealed::Granted for ReentrantGuard<G> {
    type Attempt = ReentrantAttempt<G>;
}
