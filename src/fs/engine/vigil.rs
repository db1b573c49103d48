//! Tells a holder that it has lost its lock: a locked file was deleted, renamed or replaced, or a
//! claim was taken over.
//!
//! The file that stands for the hold is watched for changes of its name, through a descriptor that
//! neither reads nor locks. After every event, and once a second, it is compared with what it
//! should be. The first loss stays.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::watch::{Seat, Seen, WatchId, Watcher, watch};
use crate::foreign::SafeWaker;
use crate::fs::sys::file::{self, FileId};
use crate::fs::sys::fork::generation;
use crate::loss::Loss;

/// How often the file is compared with its path without an event.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// What is held.
pub(crate) trait Subject: Send + Sync + 'static {
    /// Opens the file whose name changes when the lock is lost. Returns `None` if it is not the
    /// expected file.
    fn sign(&self) -> Option<File>;

    /// Returns the loss that is visible now, if any. If the file cannot be looked at, that is no
    /// loss.
    fn loss(&self) -> Option<Loss>;
}

/// A file that was locked under its name.
pub(crate) struct Named {
    path: PathBuf,
    id: FileId,
}

/// Watches what is held. Begins when a caller first asks for losses.
pub(crate) struct Vigil<S = Named> {
    subject: S,
    events: bool,
    generation: u32,
    seat: OnceLock<Seat>,
    latch: OnceLock<Loss>,
    core: Mutex<Core>,
}

#[derive(Default)]
struct Core {
    watch: Option<WatchId>,
    wakers: Vec<SafeWaker>,
    over: bool,
}

/// Returns the loss of the file that was locked as `id` at this path. If the path cannot be looked
/// at, that is no loss.
pub(crate) fn loss_of(path: &Path, id: FileId) -> Option<Loss> {
    match file::id_at(path) {
        Ok(Some(found)) if found == id => None,
        Ok(Some(_)) => Some(Loss::Replaced),
        Ok(None) => Some(Loss::Deleted),
        Err(_) => None,
    }
}

impl Subject for Named {
    fn sign(&self) -> Option<File> {
        let file = file::open_to_watch(&self.path).ok().flatten();
        file.filter(|it| file::id_of(it).ok() == Some(self.id))
    }

    fn loss(&self) -> Option<Loss> {
        loss_of(&self.path, self.id)
    }
}

impl Vigil {
    pub(crate) fn begin(path: PathBuf, id: FileId, events: bool) -> Arc<Self> {
        let vigil = Self::over(Named { path, id }, events);
        vigil.watch_over();
        vigil
    }

    pub(crate) fn path(&self) -> &Path {
        &self.subject.path
    }
}

impl<S: Subject> Vigil<S> {
    pub(crate) fn over(subject: S, events: bool) -> Arc<Self> {
        Arc::new(Self {
            subject,
            events,
            generation: generation(),
            seat: OnceLock::new(),
            latch: OnceLock::new(),
            core: Mutex::default(),
        })
    }

    /// Begins to watch, at the first call.
    pub(crate) fn watch_over(self: &Arc<Self>) {
        // In a forked child the watch belongs to the parent.
        if self.generation == generation() && self.seat.get().is_none() {
            let weak = Arc::downgrade(self);
            self.seat.get_or_init(|| watch().enroll(weak));
            self.look();
        }
    }

    pub(crate) fn subject(&self) -> &S {
        &self.subject
    }

    /// Returns the loss that was seen before.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.latch.get().copied()
    }

    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Loss> {
        // In a forked child nothing of this is ours, and the mutex may stay locked forever.
        if self.generation != generation() {
            return Poll::Pending;
        }
        // Declared before the mutex is locked, so that a waker that is not needed is dropped after
        // it is unlocked.
        let mut waker = Some(SafeWaker::of(waker));
        let mut core = self.core();
        if let Some(loss) = self.latch.get() {
            return Poll::Ready(*loss);
        }
        let known = |it: &SafeWaker| core.wakers.iter().any(|kept| kept.will_wake(it));
        if !core.over
            && let Some(waker) = waker.take_if(|it| !known(it))
        {
            core.wakers.push(waker);
        }
        Poll::Pending
    }

    /// Reports a loss that was found elsewhere. Does nothing after the release.
    pub(crate) fn lose(&self, loss: Loss) {
        let mut core = self.core();
        if core.over {
            return;
        }
        self.latch.get_or_init(|| loss);
        let wakers = std::mem::take(&mut core.wakers);
        drop(core);
        wakers.into_iter().for_each(SafeWaker::wake);
    }

    /// Ends the watch at the release. Callers that still wait for a loss stay pending.
    pub(crate) fn end(&self) {
        if self.generation != generation() {
            return;
        }
        let mut core = self.core();
        core.over = true;
        let wakers = std::mem::take(&mut core.wakers);
        let watched = core.watch.take();
        drop(core);
        drop(wakers);
        if let Some(seat) = self.seat.get() {
            if let Some(id) = watched {
                watch().forget(*seat, id);
            }
            watch().leave(*seat);
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let Some(seat) = self.seat.get().copied() else {
            return;
        };
        let mut core = self.core();
        if core.over || self.latch.get().is_some() {
            return;
        }
        if core.watch.is_none() && self.events {
            // Before the comparison, so that no change is missed in between.
            let sign = self.subject.sign();
            core.watch = sign.and_then(|it| watch().add(seat, &it, Seen::Held).ok());
        }
        drop(core);
        match self.subject.loss() {
            Some(loss) => self.lose(loss),
            None => {
                // If there is no timer, the watch must suffice.
                let _ = watch().arm(seat, Instant::now() + COMPARE_EVERY);
            }
        }
    }
}

impl<S: Subject> Watcher for Vigil<S> {
    fn on_event(&self, id: WatchId) {
        let mut core = self.core();
        let over = match core.watch {
            Some(own) if own == id => core.watch.take(),
            // Events were lost, so the watch may be over or not.
            Some(_) if id.seen == Seen::Everything => core.watch.take(),
            _ => None,
        };
        drop(core);
        if let (Some(own), Some(seat)) = (over.filter(|it| *it != id), self.seat.get()) {
            watch().forget(*seat, own);
        }
        self.look();
    }

    fn on_timer(&self) {
        self.look();
    }
}
