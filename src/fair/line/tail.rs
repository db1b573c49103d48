//! The end of the queue, as this process saw it last.
//!
//! From the second task of a process on, the queue directory is watched. One call to the kernel
//! then tells whether a ticket may have come since the last look. If not, the last look is still
//! valid, and a newcomer joins without a listing.
//!
//! A newcomer is *quiet* if no event was under way when it arrived. This is read before the flag
//! `changed`, because the watch thread sets the flag before the kernel can say quiet again. It is
//! read before the mutex is locked, because a process that queues after the newcomer has begun is
//! not before it.
//!
//! # Invariant
//!
//! A newcomer joins the cohort that was last without a look only if no ticket of another process
//! has come between that look and the arrival of the newcomer.
//!
//! 1. The look came after the present watch was set. A new watch forgets every earlier look.
//! 2. If a ticket was linked after the watch was set and before the newcomer arrived, its event was
//!    queued inside that `link`. When the newcomer arrived, the event was unread or being read, and
//!    the newcomer is not quiet, or the flag was set.
//! 3. The flag is cleared only together with the watch, and 1 applies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Site;
use super::cohorts::CohortId;
use super::possession::Extent;
use crate::error::Result;
use crate::fair::disk::Disk;
use crate::fair::ticket::{Mode, Ticket};
use crate::sys::dir::Directory;
use crate::watch::{Seen, WatchId, watch};

/// The last look at the queue, as far as it saves the next one.
#[derive(Default)]
pub(super) struct Tail {
    /// The cohort of this process that was last.
    cohort: Option<CohortId>,
    watch: Option<WatchId>,
    /// Which opening of the directory is watched.
    opened: u64,
    /// The tickets of other processes.
    others: Others,
    flags: Arc<Flags>,
}

/// What the watch thread and the newcomers of a line see without its mutex, which may be held
/// during several system calls.
#[derive(Default)]
pub(super) struct Flags {
    /// Whether the queue directory has changed.
    changed: AtomicBool,
    /// Whether it is watched. Only then it is worthwhile to ask the kernel for quiet.
    watched: AtomicBool,
}

/// Which tickets of other processes are in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Others {
    /// Tickets of any mode, or it is not known.
    #[default]
    Any,
    OnlyReaders,
    None,
}

impl Flags {
    /// Notes that the queue directory has changed.
    pub(super) fn queue_changed(&self) {
        self.changed.store(true, Ordering::SeqCst);
    }

    /// Returns whether no event is under way.
    pub(super) fn are_quiet(&self) -> bool {
        self.watched.load(Ordering::Relaxed) && watch().is_quiet()
    }
}

impl Tail {
    pub(super) fn flags(&self) -> &Arc<Flags> {
        &self.flags
    }

    /// Notes which cohort is the last. `None` means that the next newcomer must look: a ticket was
    /// taken, and only a look that is made after the watch was set is valid later.
    pub(super) fn ends_with(&mut self, cohort: Option<CohortId>) {
        self.cohort = cohort;
    }

    /// Returns the cohort that was last, if no ticket has come since.
    pub(super) fn cohort(&self, quiet: bool, disk: &Disk) -> Option<CohortId> {
        self.cohort.filter(|_| quiet && self.holds(disk))
    }

    /// Returns whether no ticket has come since the last look, as far as events say.
    fn holds(&self, disk: &Disk) -> bool {
        let changed = || self.flags.changed.load(Ordering::SeqCst);
        self.watch.is_some() && self.opened == disk.opened() && !changed()
    }

    /// Returns whether the last look is still valid and found no ticket in a reader's way.
    pub(super) fn knows_readers_may_enter(&self, quiet: bool, disk: &Disk, of: Extent) -> bool {
        quiet && self.holds(disk) && self.lets_readers_enter(of)
    }

    /// Returns whether the tickets of other processes leave the way free for a reader of this one,
    /// which has this much of the lock.
    pub(super) fn lets_readers_enter(&self, extent: Extent) -> bool {
        match self.others {
            Others::None => true,
            Others::OnlyReaders => extent == Extent::Share,
            Others::Any => false,
        }
    }

    /// Returns whether no other process queues, and an event will tell when one does. If the queue
    /// cannot be listed, one may.
    pub(super) fn is_alone(&mut self, own: &[Ticket], disk: &mut Disk, site: Site) -> bool {
        if !site.events {
            return false;
        }
        let known = self.holds(disk) && self.others == Others::None;
        let looked = known || self.look_for_others(own, None, disk, site).is_ok();
        looked && self.watch.is_some() && self.others == Others::None
    }

    /// Looks which tickets of other processes are in the queue.
    pub(super) fn look_for_others(
        &mut self,
        own: &[Ticket],
        bits: Option<u32>,
        disk: &mut Disk,
        site: Site,
    ) -> Result<()> {
        self.others = Others::Any;
        self.watch(bits, disk, site)?;
        let line = disk.list(bits)?.iter();
        let mut modes = line.filter(|it| !own.contains(it)).map(|it| it.mode);
        self.others = match modes.next() {
            None => Others::None,
            Some(Mode::Shared) if modes.all(|it| it == Mode::Shared) => Others::OnlyReaders,
            Some(_) => Others::Any,
        };
        Ok(())
    }

    /// Watches the queue directory, from the second task of a process on. Returns whether the watch
    /// is new.
    pub(super) fn watch(&mut self, bits: Option<u32>, disk: &mut Disk, site: Site) -> Result<bool> {
        // The watch has fired, or events were lost. A removed directory causes no event while a
        // process has it open.
        let changed = self.flags.changed.swap(false, Ordering::SeqCst);
        if changed || self.opened != disk.opened() {
            self.stop(site);
        }
        if self.watch.is_some() || !site.events {
            return Ok(false);
        }
        // This opens the directory if it is not open yet.
        disk.list(bits)?;
        self.opened = disk.opened();
        let directory = disk.open_queue().and_then(|it| it.dir().descriptor());
        if let Some(directory) = directory {
            // What the former watch has reported is forgotten with it.
            self.cohort = None;
            self.others = Others::Any;
            self.watch = watch().add(site.watcher_id, directory, Seen::Queue).ok();
            let watched = self.watch.is_some();
            self.flags.watched.store(watched, Ordering::Relaxed);
        }
        Ok(self.watch.is_some())
    }

    /// Returns whether the queue directory is watched.
    pub(super) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Gives the watch back.
    pub(super) fn stop(&mut self, site: Site) {
        if let Some(id) = self.watch.take() {
            watch().forget(site.watcher_id, id);
        }
    }
}
