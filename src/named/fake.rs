//! A lock that does not lock: it grants every acquire. For programs that can switch locking off.
#![allow(unreachable_pub)] // Its guard is known as AnyGuard only.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::acquire::Acquire;
use crate::address::Address;
use crate::backend::Hold;
use crate::backend::{Pending, Request};
use crate::error::Result;
use crate::guard::guard;
use crate::lock::{Capabilities, Local, Reach, is_lock, local_handle};
use crate::loss::Lost;
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status, Waiting};

#[derive(Clone, Debug)]
pub struct FakeLock {
    /// The file that a real lock would have.
    path: Arc<PathBuf>,
}

impl FakeLock {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: Arc::new(path.to_path_buf()),
        }
    }
}

impl FakeLock {
    fn acquire(&self) -> Acquire<FakeGuard> {
        let path = self.path.clone();
        Acquire::new(FakePending { path }, None)
    }

    fn try_acquire(&self) -> Result<Option<FakeGuard>> {
        self.acquire().try_now()
    }
}

impl Local for PathBuf {
    fn status(&self) -> Result<Status> {
        Ok(Status {
            excludes: false,
            ..Status::free()
        })
    }

    fn remove(&self) -> Result<Removal> {
        Ok(Removal::Removed)
    }

    fn changes(&self) -> Changes {
        Changes::unsupported(self)
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }

    /// Does nothing, because no caller ever waits.
    fn close(&self) {}

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }
}

/// Returns what a lock that does not lock can do: nothing.
pub(super) fn capabilities() -> Capabilities {
    Capabilities {
        excludes: false,
        ..Capabilities::minimal(Reach::Process)
    }
}

local_handle!(FakeLock: path);
is_lock!(FakeLock: Lock<FakeGuard>, acquire, try_acquire);

guard! {
    /// The guard of a lock that does not lock.
    FakeGuard holds FakeHold, by FakePending
}

#[doc(hidden)]
pub struct FakeHold {
    path: Arc<PathBuf>,
}

impl Hold for FakeHold {
    fn token(&self) -> Option<u64> {
        None
    }

    fn predecessor_crashed(&self) -> bool {
        false
    }

    /// Always true: there is nothing to lose.
    fn is_held(&self) -> bool {
        true
    }

    fn lost(&self) -> Lost {
        Lost::new(std::future::pending())
    }

    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn place(&self) -> &Path {
        &self.path
    }
}

#[doc(hidden)]
pub struct FakePending {
    path: Arc<PathBuf>,
}

impl Pending for FakePending {
    type Grant = FakeHold;

    fn poll(&mut self, _: &Request, _: &mut Context<'_>) -> Poll<Result<Option<FakeHold>>> {
        let path = self.path.clone();
        Poll::Ready(Ok(Some(FakeHold { path })))
    }

    fn leave(&mut self) {}

    fn waiting(&self) -> Option<Waiting> {
        None
    }

    /// Returns an address, so `acquire_all` finds the same mistakes as with real locks.
    fn address(&self) -> Option<Address> {
        Some(Address::of_nothing(&self.path))
    }
}
