//! How a holder learns that its lock file was deleted, renamed or replaced.
//!
//! While a task waits for a loss, the inode of the door is watched for changes of its name. The
//! door is compared with its path on every event, on every call of `is_held`, and once a second. A
//! loss is latched: it remains for this grant. No other process enters meanwhile, because the lock
//! on `state` refuses a second holder. So a loss means that newcomers fail, and not that they are
//! inside.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

use super::effects::Effects;
use super::{Core, Line, Site};
use crate::door::Door;
use crate::foreign::SafeWaker;
use crate::loss::{Loss, LossWaiters, WaiterId};
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
    waiters: LossWaiters,
}

impl Line {
    pub(in crate::fair) fn is_held(&self, token: u64) -> bool {
        self.unless_foreign(|core| core.is_held(token))
    }

    /// Prepares [`Line::poll_lost`] for a guard that is out.
    pub(in crate::fair) fn watch_for_loss(&self) -> Arc<OnceLock<Loss>> {
        self.unless_foreign(Core::watch_for_loss)
    }

    pub(in crate::fair) fn poll_lost(
        &self,
        latch: &OnceLock<Loss>,
        token: u64,
        id: WaiterId,
        waker: &Waker,
    ) -> Poll<Loss> {
        match latch.get() {
            Some(loss) => Poll::Ready(*loss),
            None if self.is_foreign() => Poll::Pending,
            None => {
                let mut waker = Some(SafeWaker::of(waker));
                self.run_unchecked(|core| core.poll_lost(latch, token, id, &mut waker))
            }
        }
    }

    /// Forgets a future that waited for a loss. Does nothing after the grant.
    pub(in crate::fair) fn forget_loss_waiter(&self, id: WaiterId) {
        self.unless_foreign(|core| core.forget_loss_waiter(id));
    }
}

impl Core {
    /// Returns whether the guard with this token still has the lock.
    fn is_held(&mut self, token: u64) -> bool {
        self.look_for_loss();
        let possession = self.possession.as_ref();
        possession.is_some_and(|it| it.token() == token && it.loss.get().is_none())
    }

    /// Begins to watch for a loss of the present grant.
    fn watch_for_loss(&mut self) -> Arc<OnceLock<Loss>> {
        self.look_for_loss();
        let Some(possession) = &mut self.possession else {
            return Arc::default();
        };
        let latch = possession.loss.latch();
        if let Some(door) = possession.door().cloned()
            && possession.loss.watch(&door, self.site)
        {
            self.look_for_loss();
        }
        latch
    }

    fn poll_lost(
        &mut self,
        latch: &OnceLock<Loss>,
        token: u64,
        id: WaiterId,
        waker: &mut Option<SafeWaker>,
    ) -> Poll<Loss> {
        if let Some(loss) = latch.get() {
            return Poll::Ready(*loss);
        }
        let possession = self.possession.as_mut();
        if let Some(possession) = possession.filter(|it| it.token() == token) {
            let old = waker
                .take()
                .and_then(|it| possession.loss.waiters.wait(id, it));
            self.effects.discard(old);
            self.agenda.compare_later();
        }
        Poll::Pending
    }

    fn forget_loss_waiter(&mut self, id: WaiterId) {
        let possession = self.possession.as_mut();
        self.effects
            .discard(possession.and_then(|it| it.loss.waiters.leave(id)));
    }

    /// Notes that a watch has fired, and is over. It may be that of an earlier hold.
    pub(super) fn loss_watch_fired(&mut self, id: WatchId) {
        if let Some(possession) = &mut self.possession {
            possession.loss.watch.take_if(|it| *it == id);
        }
        self.look_for_loss();
    }

    /// Watches the door anew, because events were lost.
    pub(super) fn renew_loss_watch(&mut self) {
        if let Some(possession) = &mut self.possession
            && possession.loss.watch.is_some()
            && let Some(door) = possession.door().cloned()
        {
            possession.loss.stop(self.site);
            possession.loss.watch(&door, self.site);
        }
        self.look_for_loss();
    }

    /// Compares the door with its path.
    pub(super) fn look_for_loss(&mut self) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        let Some(door) = possession.door().cloned() else {
            return;
        };
        let path = &self.disk.place().door;
        possession.loss.look(&door, path, &mut self.effects);
        if !possession.loss.waiters.is_empty() {
            self.agenda.compare_later();
        }
    }
}

impl LossState {
    pub(super) fn get(&self) -> Option<Loss> {
        self.loss
    }

    /// Returns the latch of the present grant.
    fn latch(&mut self) -> Arc<OnceLock<Loss>> {
        let latch = self.latch.get_or_insert_default().clone();
        if let Some(loss) = self.loss {
            latch.get_or_init(|| loss);
        }
        latch
    }

    /// Begins to watch the door. Returns whether the watch is new; then the caller must look again,
    /// because the door may have been moved before.
    fn watch(&mut self, door: &Door, site: Site) -> bool {
        if !site.events || self.watch.is_some() || self.loss.is_some() {
            return false;
        }
        self.watch = watch().add(site.watcher_id, door.file(), Seen::Held).ok();
        self.watch.is_some()
    }

    /// Compares the door with its path, and records a loss. An error of this look is no loss.
    fn look(&mut self, door: &Door, path: &Path, effects: &mut Effects) {
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
        self.waiters.take().for_each(|it| effects.wake(Some(it)));
    }

    /// Ends the present grant. The futures that wait for its loss stay pending.
    pub(super) fn end_grant(&mut self, effects: &mut Effects) {
        self.latch = None;
        self.waiters.take().for_each(|it| effects.discard(Some(it)));
    }

    /// Gives the watch back.
    pub(super) fn stop(&mut self, site: Site) {
        if let Some(id) = self.watch.take() {
            watch().forget(site.watcher_id, id);
        }
    }
}
