//! How the holder of a plain file lock learns that its file was deleted, renamed or replaced under it.
//!
//! The file is watched for changes of its name, by a descriptor that neither reads nor holds anything, and compared with the
//! path on every event and once a second. A loss is latched.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::watch::{Seat, Seen, WatchId, Watcher, watch};
use crate::fs::sys::file::{self, FileId};
use crate::fs::sys::fork::generation;
use crate::guard::Loss;

/// How often the file is compared with its path although nothing was announced.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// Watches over the name of one held file; made when somebody first asks.
pub(crate) struct Vigil {
    path: PathBuf,
    id: FileId,
    events: bool,
    generation: u32,
    seat: OnceLock<Seat>,
    latch: OnceLock<Loss>,
    core: Mutex<Core>,
}

#[derive(Default)]
struct Core {
    watch: Option<WatchId>,
    wakers: Vec<Waker>,
    over: bool,
}

/// What has happened to the file that was locked as this one. What cannot be looked at is not taken for lost.
pub(crate) fn loss_of(path: &Path, id: FileId) -> Option<Loss> {
    match file::id_at(path) {
        Ok(Some(found)) if found == id => None,
        Ok(Some(_)) => Some(Loss::Replaced),
        Ok(None) => Some(Loss::Deleted),
        Err(_) => None,
    }
}

impl Vigil {
    pub(crate) fn begin(path: PathBuf, id: FileId, events: bool) -> Arc<Self> {
        let vigil = Arc::new(Self {
            path,
            id,
            events,
            generation: generation(),
            seat: OnceLock::new(),
            latch: OnceLock::new(),
            core: Mutex::default(),
        });
        let weak = Arc::downgrade(&vigil);
        vigil.seat.get_or_init(|| watch().enroll(weak));
        vigil.look();
        vigil
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was seen so far; latched.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.latch.get().copied()
    }

    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Loss> {
        // In a forked child nothing of this is ours, and the mutex may be locked for ever.
        if self.generation != generation() {
            return Poll::Pending;
        }
        let mut core = self.core();
        if let Some(loss) = self.latch.get() {
            return Poll::Ready(*loss);
        }
        if !core.over && !core.wakers.iter().any(|it| it.will_wake(waker)) {
            core.wakers.push(waker.clone());
        }
        Poll::Pending
    }

    /// The file is given back, and was not lost: whoever still asks stays pending.
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
            // Before the look, so that nothing happens unseen in between.
            let file = file::open_to_watch(&self.path).ok().flatten();
            let file = file.filter(|it| file::id_of(it).ok() == Some(self.id));
            core.watch = file.and_then(|it| watch().add(seat, &it, Seen::Held).ok());
        }
        let Some(loss) = loss_of(&self.path, self.id) else {
            // Without a timer the watch is all there is.
            let _ = watch().arm(seat, Instant::now() + COMPARE_EVERY);
            return;
        };
        self.latch.get_or_init(|| loss);
        let wakers = std::mem::take(&mut core.wakers);
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Watcher for Vigil {
    fn on_event(&self, id: WatchId) {
        let mut core = self.core();
        let over = match core.watch {
            Some(own) if own == id => core.watch.take(),
            // Events were lost: the watch may be over, or not.
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
