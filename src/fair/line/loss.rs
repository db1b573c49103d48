//! How a holder learns that its lock file was deleted, renamed or replaced.
//!
//! While a task waits for a loss, the inode of the door is watched for changes of its name. The
//! door is compared with its path on every event, on every call of `is_held`, and once a second. A
//! loss is latched: it remains for this grant. No other process enters meanwhile, because the lock
//! on `state` refuses a second holder. So a loss means that newcomers fail, and not that they are
//! inside.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::Site;
use super::effects::Effects;
use crate::fair::door::Door;
use crate::foreign::SafeWaker;
use crate::loss::Loss;
use crate::trace::Note;
use crate::watch::loss_watcher::loss_of;
use crate::watch::{Seen, WatchId, watch};

/// The loss of the present hold, as far as it is known, and the wakers of its waiters.
#[derive(Default)]
pub(super) struct LossState {
    loss: Option<Loss>,
    watch: Option<WatchId>,
    /// Set on a loss of the present grant. It exists once a caller waits for a loss.
    latch: Option<Arc<OnceLock<Loss>>>,
    wakers: Vec<SafeWaker>,
}

impl LossState {
    pub(super) fn get(&self) -> Option<Loss> {
        self.loss
    }

    /// Returns whether a caller waits for a loss.
    pub(super) fn is_awaited(&self) -> bool {
        !self.wakers.is_empty()
    }

    /// Returns the latch of the present grant.
    pub(super) fn latch(&mut self) -> Arc<OnceLock<Loss>> {
        let latch = self.latch.get_or_insert_default().clone();
        if let Some(loss) = self.loss {
            latch.get_or_init(|| loss);
        }
        latch
    }

    /// Begins to watch the door. Returns whether the watch is new; then the caller must look again,
    /// because the door may have been moved before.
    pub(super) fn watch(&mut self, door: &Door, site: Site) -> bool {
        if !site.events || self.watch.is_some() || self.loss.is_some() {
            return false;
        }
        self.watch = watch().add(site.watcher_id, door.file(), Seen::Held).ok();
        self.watch.is_some()
    }

    /// Notes that a watch has fired, and is over. It may be that of an earlier hold.
    pub(super) fn fired(&mut self, id: WatchId) {
        self.watch.take_if(|it| *it == id);
    }

    /// Keeps a waker until the loss, unless one for the same task is kept already.
    pub(super) fn wait(&mut self, waker: &mut Option<SafeWaker>) {
        let wakers = &mut self.wakers;
        wakers.extend(waker.take_if(|it| !wakers.iter().any(|known| known.will_wake(it))));
    }

    /// Compares the door with its path, and records a loss. An error of this look is no loss.
    pub(super) fn look(&mut self, door: &Door, path: &Path, effects: &mut Effects) {
        if self.loss.is_none()
            && let Some(loss) = loss_of(path, door.id())
        {
            self.set(loss, effects);
        }
    }

    /// Records the loss, and wakes all that wait for it.
    pub(super) fn set(&mut self, loss: Loss, effects: &mut Effects) {
        self.loss = Some(loss);
        effects.note(Note::Lost(loss));
        if let Some(latch) = &self.latch {
            latch.get_or_init(|| loss);
        }
        self.wakers.drain(..).for_each(|it| effects.wake(Some(it)));
    }

    /// Ends the present grant. The futures that wait for its loss stay pending.
    pub(super) fn end_grant(&mut self, effects: &mut Effects) {
        self.latch = None;
        let wakers = self.wakers.drain(..);
        wakers.for_each(|it| effects.discard(Some(it)));
    }

    /// Gives the watch back and begins another one. Does nothing if there is none.
    pub(super) fn renew(&mut self, door: &Door, site: Site) {
        if self.watch.is_some() {
            self.stop(site);
            self.watch(door, site);
        }
    }

    /// Gives the watch back.
    pub(super) fn stop(&mut self, site: Site) {
        if let Some(id) = self.watch.take() {
            watch().forget(site.watcher_id, id);
        }
    }
}
