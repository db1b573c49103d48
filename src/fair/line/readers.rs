//! Readers of one process: how they enter beside each other, and how a whole lock is shared with
//! readers of other processes.
//!
//! A reader tries the shared lock on the door, and only exclusive tickets are in its way. If
//! readers of this process are inside and no waiter is in the way, the reader enters with them,
//! without the door.
//!
//! After a writer, readers of the same process enter under the exclusive lock on the door. So a
//! process that is alone hands the lock from readers to writers and back in memory. Only the held
//! flag is written, because it must always say whether a writer is inside. As soon as another
//! process queues, and no writer of this process comes first, the process shares the lock. It turns
//! its locks into shared ones and closes a descriptor of the door, which wakes the readers that
//! wait there. If the queue cannot be watched, it does so at once.

use std::sync::atomic::Ordering;

use super::{Cause, Cohort, Core, Extent, Fast, Line, Request};
use crate::error::Result;
use crate::fair::ticket::Mode;
use crate::fair::{Grant, Settings};
use crate::kind::LockKind;
use crate::loss::Loss;

impl Line {
    /// Returns whether readers can share this lock.
    pub(in crate::fair) fn shares(&self) -> bool {
        self.kind == LockKind::RwLock
    }

    /// Turns the writer inside into a reader, and admits other readers. Fails if the lock was lost.
    pub(in crate::fair) fn downgrade(&self) -> Result<()> {
        self.run(Core::downgrade)
    }
}

impl Core {
    fn downgrade(&mut self) -> Result<()> {
        self.look_for_loss();
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
        possession.downgrade();
        if let Some(loss) = possession.loss.get() {
            return Err(self.lost(loss));
        }
        let flagged = possession.set_flag(false, &mut self.disk);
        let served = self.serve();
        self.settle();
        flagged.and(served)
    }

    /// Enters with the readers of this process that are inside, if no waiter is in the way.
    pub(super) fn join_readers_at_once(
        &mut self,
        request: &Request<'_>,
        quiet: bool,
    ) -> Result<Fast> {
        let Some(extent) = self.extent().filter(|_| self.admits_readers()) else {
            return Ok(Fast::Refused);
        };
        if !self.tail.knows_readers_may_enter(quiet, &self.disk, extent) {
            self.look_for_others(request.settings)?;
            // If readers of other processes queue, they may enter as well.
            self.share_if_wanted();
            let extent = self.extent().unwrap_or(extent);
            if !self.tail.lets_readers_enter(extent) {
                return Ok(Fast::Refused);
            }
        }
        Ok(self.grant_at_once(request, true))
    }

    /// Looks which tickets of other processes are in the queue.
    fn look_for_others(&mut self, settings: &Settings) -> Result<()> {
        let own = self.own_tickets();
        let (disk, site) = (&mut self.disk, self.site);
        self.tail.look_for_others(&own, settings.bits, disk, site)
    }

    /// Returns whether readers are inside, or have offers, and no waiter of this process is in a
    /// reader's way.
    pub(super) fn admits_readers(&self) -> bool {
        let possession = self.possession.as_ref();
        self.all_waiters_have_offers()
            && possession.is_some_and(|it| it.admits(Mode::Shared, &self.disk))
    }

    /// Notes that a caller has its guard. If a reader has reported a crash, the flag on disk is
    /// cleared. If that fails, the crash is reported again.
    pub(super) fn reader_entered(&mut self, grant: &Grant) {
        if grant.want.mode != Mode::Shared {
            return;
        }
        if let Some(possession) = &mut self.possession
            && grant.predecessor_crashed
        {
            let _ = possession.set_flag(false, &mut self.disk);
        }
        self.share_if_wanted();
    }

    /// Shares the whole lock if only readers are inside and another process queues, unless a writer
    /// of this process comes first.
    pub(super) fn share_if_wanted(&mut self) {
        let Some(possession) = &self.possession else {
            return;
        };
        let extent = possession.extent(&self.disk);
        if extent == Extent::Share {
            self.queue_frozen();
            return;
        }
        let shareable = extent == Extent::Whole
            && possession.loss.get().is_none()
            && possession.has_only_readers();
        if !shareable && !self.shareable.load(Ordering::Relaxed) {
            return;
        }
        let cohort = possession.cohort();
        // This is set before the look, so that a later ticket is noticed.
        self.shareable.store(shareable, Ordering::SeqCst);
        let first = self.cohorts.first_awake();
        if !shareable || (first.is_some() && first == cohort) || self.is_alone() {
            return;
        }
        match self.share() {
            Ok(true) => self.drive(Cause::Local, None),
            // It is not known whether we still have the lock.
            Ok(false) | Err(_) => {
                if let Some(possession) = &mut self.possession {
                    possession.loss.set(Loss::Unlocked, &mut self.effects);
                }
            }
        }
    }

    /// Returns whether no other process queues.
    fn is_alone(&mut self) -> bool {
        let own = self.own_tickets();
        self.tail.is_alone(&own, &mut self.disk, self.site)
    }

    /// Turns our locks into shared ones. Returns `false` if one of them was lost on the way.
    fn share(&mut self) -> Result<bool> {
        // Our own exclusive ticket would delay the readers that may enter now.
        self.tidy();
        self.queue_frozen();
        let Some(possession) = &mut self.possession else {
            return Ok(true);
        };
        let shared = possession.share(&mut self.disk)?;
        if shared {
            self.shareable.store(false, Ordering::SeqCst);
        }
        Ok(shared)
    }

    /// Gives the frozen waiters of the cohort that is served a marked ticket, as if this process
    /// had left. So other processes bypass them until they wake. An error has no caller here; then
    /// other processes wait until this one leaves.
    fn queue_frozen(&mut self) {
        let Some(id) = self.cohort_served() else {
            return;
        };
        let cohort = self.cohorts.cohort(id);
        if !cohort.is_some_and(Cohort::has_only_frozen_left) || self.take_first_ticket(id).is_err()
        {
            return;
        }
        if let Some(own) = self.cohorts.ticket(id)
            && own.is_marked().is_ok_and(|marked| !marked)
        {
            let _ = self.disk.mark_own(own);
        }
    }
}
