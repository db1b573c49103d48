//! How a holder learns that its lock file was deleted, renamed or replaced.
//!
//! While a task waits for a loss, the inode of the door is watched for changes of its name. The
//! door is compared with its path on every event, on every call of `is_held`, and once a second. A
//! loss is latched: it remains for this grant. No other process enters meanwhile, because the lock
//! on `state` refuses a second holder. So a loss means that newcomers fail, and not that they are
//! inside.

use std::sync::{Arc, OnceLock};
use std::task::Poll;

use super::core::Core;
use crate::foreign::SafeWaker;
use crate::loss::Loss;
use crate::trace::Note;
use crate::watch::loss_watcher::loss_of;
use crate::watch::{Seen, watch};

impl Core {
    /// Returns whether the guard with this token still has the lock.
    pub(crate) fn is_held(&mut self, token: u64) -> bool {
        self.look_for_loss(false);
        self.possession
            .as_ref()
            .is_some_and(|it| it.token == token && it.loss.is_none())
    }

    /// Begins to watch for a loss of the present grant.
    pub(super) fn watch_for_loss(&mut self) -> Arc<OnceLock<Loss>> {
        self.look_for_loss(false);
        let (watcher_id, events) = (self.watcher_id, self.events);
        let Some(possession) = &mut self.possession else {
            return Arc::default();
        };
        let latch = possession.latch.get_or_insert_default().clone();
        match possession.loss {
            Some(loss) => {
                latch.get_or_init(|| loss);
            }
            None if possession.held_watch.is_none() && events => {
                possession.held_watch = possession
                    .hold
                    .door()
                    .and_then(|door| watch().add(watcher_id, door.file(), Seen::Held).ok());
                // The door may have been moved before the watch was in place.
                self.look_for_loss(false);
            }
            None => {}
        }
        latch
    }

    pub(super) fn poll_lost(
        &mut self,
        latch: &OnceLock<Loss>,
        token: u64,
        waker: &mut Option<SafeWaker>,
    ) -> Poll<Loss> {
        if let Some(loss) = latch.get() {
            return Poll::Ready(*loss);
        }
        let held = self.possession.as_ref().is_some_and(|it| it.token == token);
        if held && let Some(waker) = waker.take_if(|it| !self.is_known(it)) {
            self.lost_wakers.push(waker);
        }
        if held {
            self.agenda.compare_later();
        }
        Poll::Pending
    }

    fn is_known(&self, waker: &SafeWaker) -> bool {
        self.lost_wakers.iter().any(|it| it.will_wake(waker))
    }

    /// Drops the wakers: the guard is released without a loss, so these futures stay pending.
    pub(super) fn forget_lost_wakers(&mut self) {
        for waker in self.lost_wakers.drain(..) {
            self.wakes.discard(Some(waker));
        }
    }

    /// Compares the door with its path. An error of this look is no loss.
    pub(super) fn look_for_loss(&mut self, watch_fired: bool) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        if watch_fired {
            possession.held_watch = None;
        }
        if possession.loss.is_some() {
            return;
        }
        let Some(door) = possession.hold.door().map(|it| it.id()) else {
            return;
        };
        match loss_of(&self.disk.place().door, door) {
            Some(loss) => self.lose(loss),
            None if !self.lost_wakers.is_empty() => self.agenda.compare_later(),
            None => {}
        }
    }

    /// Records the loss, and wakes all that wait for it.
    pub(super) fn lose(&mut self, loss: Loss) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        possession.loss = Some(loss);
        self.counts.losses.add(1);
        self.notes.push(Note::Lost(loss));
        if let Some(latch) = &possession.latch {
            latch.get_or_init(|| loss);
        }
        for waker in self.lost_wakers.drain(..) {
            self.wakes.push(waker);
        }
    }
}
