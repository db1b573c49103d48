//! How readers under a whole lock share it with readers of other processes.
//!
//! After a writer, readers of the same process enter under the exclusive lock on the door. So a
//! process that is alone hands the lock from readers to writers and back without the disk, except
//! for the held flag: it always says whether a writer would die inside. As soon as another process
//! queues, and no writer of this process comes first, the process shares the lock. It turns its
//! locks into shared ones and closes a descriptor of the door, which wakes the readers that wait
//! there.

use std::sync::atomic::Ordering;

use super::cohort::Cohort;
use super::contender::Cause;
use super::core::Core;
use super::inside::Extent;
use super::possession::Hold;
use crate::error::{Error, Result};
use crate::fair::state::Flag;
use crate::loss::Loss;

impl Core {
    /// Shares the whole lock if only readers are inside and another process queues, unless a writer
    /// of this process comes first.
    pub(super) fn share_if_wanted(&mut self) {
        let Some(possession) = &self.possession else {
            return;
        };
        if possession.hold.extent() == Some(Extent::Share) {
            self.queue_frozen();
            return;
        }
        let whole = possession.hold.extent().is_some() && possession.loss.is_none();
        let shareable = whole && possession.inside.only_readers();
        if !shareable && !self.shareable.load(Ordering::Relaxed) {
            return;
        }
        let cohort = possession.cohort;
        // This is set before the look, so that a later ticket is noticed.
        self.shareable.store(shareable, Ordering::SeqCst);
        let first = self.cohorts.first_awake().map(|it| it.id);
        if !shareable || (first.is_some() && first == cohort) || self.is_alone() {
            return;
        }
        match self.share() {
            Ok(true) => self.drive(Cause::Local, None),
            // It is not known whether we still have the lock.
            Ok(false) | Err(_) => self.lose(Loss::Unlocked),
        }
    }

    /// Turns our locks into shared ones. Returns `false` if one of them was lost on the way.
    fn share(&mut self) -> Result<bool> {
        // Our own exclusive ticket would delay the readers that may enter now.
        self.tidy();
        self.queue_frozen();
        let Some(possession) = &mut self.possession else {
            return Ok(true);
        };
        if possession.flag || possession.reserved != possession.token {
            // A crash that no guard has reported yet stays with this process, which is in charge of
            // the record then.
            let flag = match possession.crashed {
                true => Flag::Found,
                false => Flag::Clear,
            };
            self.disk.clear_held(possession.token, flag)?;
            possession.reserved = possession.token;
            possession.flag = possession.crashed;
        }
        let path = &self.disk.place().door.clone();
        let at = |e| Error::io("share the lock of the lock file", path, e);
        let Hold::Door { door, extent } = &mut possession.hold else {
            return Ok(true);
        };
        if !door.share().map_err(at)? || !self.disk.share_state()? {
            return Ok(false);
        }
        *extent = Extent::Share;
        self.shareable.store(false, Ordering::SeqCst);
        door.ring(path);
        Ok(true)
    }

    /// Gives the frozen waiters of the cohort in possession a marked ticket, as if this process had
    /// left. So other processes bypass them until they wake. An error has no caller here; then
    /// other processes wait until this one leaves.
    fn queue_frozen(&mut self) {
        let Some(id) = self.possession.as_ref().and_then(|it| it.cohort) else {
            return;
        };
        let cohort = self.cohorts.cohort(id);
        if !cohort.is_some_and(Cohort::has_only_frozen_left) || self.place_on_disk(id).is_err() {
            return;
        }
        if let Some(own) = self.cohorts.cohort(id).and_then(|it| it.ticket.as_ref())
            && own.is_marked().is_ok_and(|marked| !marked)
        {
            let _ = self.disk.mark_own(own);
        }
    }
}
