//! The wait for a plain file lock.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::Shared;
use super::guard::FileHold;
use super::os_lock::{First, OsLock, Tried};
use super::wait::FileWait;
use crate::acquire::Attempt;
use crate::address::Address;
use crate::any::AnyGuard;
use crate::backend::{Pending, Request};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::owner::holder_of_file;
use crate::status::Waiting;

/// The wait of one caller.
#[doc(hidden)]
pub struct FilePending {
    /// An error when the lock could not even be opened.
    lock: Result<Arc<Shared>, Option<Error>>,
    reads: bool,
    over: Over,
    wait: Option<FileWait<OsLock>>,
}

/// A lock that is acquired before the file's own, and held as long.
enum Over {
    None,
    /// `locks` says whether the file itself is locked too.
    Waiting {
        attempt: Box<Attempt<AnyGuard>>,
        locks: bool,
    },
    Held {
        guard: AnyGuard,
        locks: bool,
    },
}

impl FilePending {
    pub(super) fn new(shared: &Arc<Shared>, reads: bool) -> Self {
        Self {
            lock: Ok(shared.clone()),
            reads,
            over: Over::None,
            wait: None,
        }
    }

    /// Waits for the file after the lock `over`. `locks` says whether the file itself is locked
    /// too.
    pub(super) fn under(shared: &Arc<Shared>, over: Attempt<AnyGuard>, locks: bool) -> Self {
        let attempt = Box::new(over);
        Self {
            over: Over::Waiting { attempt, locks },
            ..Self::new(shared, false)
        }
    }

    /// Creates a wait that fails with this error at its first poll.
    pub(crate) fn failed(error: Error) -> Self {
        Self {
            lock: Err(Some(error)),
            reads: false,
            over: Over::None,
            wait: None,
        }
    }

    /// Polls for the file. Called when the lock `over` is held, or when there is none.
    fn poll_file(
        &mut self,
        shared: &Arc<Shared>,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<FileHold>>> {
        let target = &shared.target;
        let locked = match &mut self.wait {
            _ if matches!(self.over, Over::Held { locks: false, .. }) => target.open_unlocked()?,
            Some(wait) => ready!(wait.poll(cx.waker()))?,
            none => match target.try_once(self.reads)? {
                First::Locked(locked) => locked,
                First::Refused(_) if request.try_only => return Poll::Ready(Ok(None)),
                First::Refused(file) => {
                    let lock = Arc::new(OsLock::Path(target.clone()));
                    let tried = Tried::new(file, self.reads);
                    let wait = none.insert(FileWait::begin(lock, tried, cx.waker()));
                    ready!(wait.poll(cx.waker()))?
                }
            },
        };
        let hold = FileHold::new(shared, locked, self.reads)?;
        Poll::Ready(Ok(Some(
            match std::mem::replace(&mut self.over, Over::None) {
                Over::Held { guard, locks } => hold.under(Some(guard), locks),
                _ => hold,
            },
        )))
    }
}

impl Pending for FilePending {
    type Grant = FileHold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<FileHold>>> {
        let shared = match &mut self.lock {
            Ok(shared) => shared.clone(),
            Err(error) => {
                return error
                    .take()
                    .map_or(Poll::Pending, |it| Poll::Ready(Err(it)));
            }
        };
        if let Over::Waiting { attempt, locks } = &mut self.over {
            let locks = *locks;
            let Some(guard) = ready!(attempt.poll(request, cx))? else {
                return Poll::Ready(Ok(None));
            };
            self.over = Over::Held { guard, locks };
        }
        let polled = self.poll_file(&shared, request, cx);
        if polled.is_ready() {
            self.leave();
        }
        polled
    }

    fn leave(&mut self) {
        self.wait = None;
        self.over = Over::None;
    }

    fn waiting(&self) -> Option<Waiting> {
        if let Over::Waiting { attempt, .. } = &self.over {
            return attempt.waiting();
        }
        let shared = self.lock.as_ref().ok()?;
        Some(Waiting::behind(holder_of_file(shared.target.path())))
    }

    fn address(&self) -> Option<Address> {
        if let Over::Waiting { attempt, .. } = &self.over {
            return attempt.address();
        }
        let shared = self.lock.as_ref().ok()?;
        Some(Address::of_file(shared.target.path()))
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.lock.as_ref().ok().map(|it| &it.ledger)
    }

    fn counts_waiters(&self) -> bool {
        match &self.over {
            Over::Waiting { attempt, .. } => attempt.counts_waiters(),
            // A failed wait reports its own error.
            _ => self.lock.is_err(),
        }
    }
}
