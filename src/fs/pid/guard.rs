//! The guard of the pid file lock.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::Result;
use crate::fs::engine::contest::Contest;
use crate::fs::engine::pidfile::{PidFile, PidHold};
use crate::fs::engine::vigil::Vigil;
use crate::fs::presence::{Present, wait_for};
use crate::guard::{Guard, Lost};
use crate::trace;

/// A pid file that is ours.
///
/// Dropping it releases: the file is deleted, if it is still the same. In a forked child dropping it does nothing to the parent's lock.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct PidGuard {
    lock: Arc<PidFile>,
    hold: PidHold,
    waited: Option<Duration>,
    vigil: OnceLock<Arc<Vigil>>,
    _span: trace::Hold,
}

impl PidGuard {
    pub(super) fn new(lock: &Arc<PidFile>, hold: PidHold, waited: Option<Duration>) -> Self {
        Self {
            hold,
            waited,
            vigil: OnceLock::new(),
            _span: trace::Hold::begin(lock.path(), None, waited),
            lock: lock.clone(),
        }
    }

    /// How long the caller waited; `None` when the lock was free at once.
    pub fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// Whether the holder before this one died inside, so that what the lock protects may be half done.
    pub fn predecessor_crashed(&self) -> bool {
        self.hold.crashed
    }

    /// Whether the path still bears our file: a look at the present, about a microsecond.
    pub fn is_held(&self) -> bool {
        self.hold.is_held()
    }

    /// Resolves when the file is deleted, renamed or replaced while this guard lives; see [`Lost`]. Others can take the lock then.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing; a loss is told to every later call too.
    pub fn lost(&self) -> Lost {
        let lock = &self.lock;
        let begin = || Vigil::begin(lock.path.clone(), self.hold.id, lock.manner.events);
        let vigil = self.vigil.get_or_init(begin).clone();
        Lost::new(std::future::poll_fn(move |cx| vigil.poll(cx.waker())))
    }

    /// Releases the lock and says whether that went well.
    ///
    /// # Cancel safety
    ///
    /// The lock is released at the first poll; dropped before it, the guard releases as any dropped guard does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) when the file was not ours any more: nothing was deleted then.
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when it could not be deleted.
    pub async fn release(mut self) -> Result<()> {
        self.end_vigil();
        self.hold.give_back()
    }

    fn end_vigil(&mut self) {
        if let Some(vigil) = self.vigil.take() {
            vigil.end();
        }
    }
}

impl Drop for PidGuard {
    /// The file is deleted, if it is still the same.
    fn drop(&mut self) {
        self.end_vigil();
    }
}

impl Present for PidFile {
    type Guard = PidGuard;

    fn guard(self: &Arc<Self>, hold: PidHold, waited: Option<Duration>) -> PidGuard {
        PidGuard::new(self, hold, waited)
    }
}

impl Guard for PidGuard {
    fn token(&self) -> Option<u64> {
        None
    }

    fn waited(&self) -> Option<Duration> {
        PidGuard::waited(self)
    }

    fn predecessor_crashed(&self) -> bool {
        PidGuard::predecessor_crashed(self)
    }

    fn is_held(&self) -> bool {
        PidGuard::is_held(self)
    }

    fn lost(&self) -> Lost {
        PidGuard::lost(self)
    }

    async fn release(self) -> Result<()> {
        PidGuard::release(self).await
    }
}

wait_for!(PidAttempt: PidFile => PidGuard);

impl fmt::Debug for PidGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PidGuard")
            .field("path", &self.lock.path)
            .finish_non_exhaustive()
    }
}
