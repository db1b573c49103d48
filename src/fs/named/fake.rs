//! A lock that is none: it always says yes. For programs that can switch locking off.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::acquire::Acquire;
use crate::acquire::sealed::{self, Identity};
use crate::error::{Error, Result};
use crate::guard::{Guard, Lost};
use crate::lock::{Capabilities, Lock, Reach, Status, Tokens, Waiting};

pub(super) struct FakeLock {
    /// The file that a real one would have.
    path: Arc<Path>,
}

impl FakeLock {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }
}

impl Lock for FakeLock {
    type Guard = FakeGuard;

    fn acquire(&self) -> Acquire<FakeGuard> {
        let attempt = FakeAttempt {
            path: self.path.clone(),
            over: false,
        };
        Acquire::new(attempt, None)
    }

    async fn try_acquire(&self) -> Result<Option<FakeGuard>> {
        Ok(Some(FakeGuard(())))
    }

    async fn status(&self) -> Result<Status> {
        Ok(Status {
            excludes: false,
            ..Status::of_nobody()
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            excludes: false,
            fair: false,
            push: false,
            detects_loss: false,
            tokens: Tokens::None,
            names_owners: false,
            reach: Reach::Process,
        }
    }
}

pub(super) struct FakeGuard(());

impl Guard for FakeGuard {
    fn token(&self) -> Option<u64> {
        None
    }

    fn waited(&self) -> Option<Duration> {
        None
    }

    fn predecessor_crashed(&self) -> bool {
        false
    }

    /// As much as ever.
    fn is_held(&self) -> bool {
        true
    }

    fn lost(&self) -> Lost {
        Lost::new(std::future::pending())
    }

    async fn release(self) -> Result<()> {
        Ok(())
    }
}

pub(super) struct FakeAttempt {
    path: Arc<Path>,
    over: bool,
}

impl Future for FakeAttempt {
    type Output = Result<FakeGuard>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.over, true) {
            true => Poll::Pending,
            false => Poll::Ready(Ok(FakeGuard(()))),
        }
    }
}

impl sealed::Attempt for FakeAttempt {
    type Guard = FakeGuard;

    fn set_max_waiting(&mut self, _: usize) {}

    fn cancel(&mut self) {
        self.over = true;
    }

    fn waiting(&self) -> Option<Waiting> {
        None
    }

    /// So that `acquire_all` finds the same mistakes as with real locks.
    fn identity(&self) -> Option<Identity> {
        Some(Identity::of_nothing(&self.path))
    }

    fn timed_out(&self) -> Error {
        Error::timed_out(&*self.path, Duration::ZERO)
    }
}

impl sealed::Granted for FakeGuard {
    type Attempt = FakeAttempt;
}
