//! The end of the queue: which cohort a newcomer joins, and which tickets of other processes are
//! there.
//!
//! # Which cohort
//!
//! The newcomer joins the last cohort of this process, if its ticket is the last in the directory
//! and asks for all that the newcomer wants. An exclusive ticket conflicts with all others, so any
//! task may share it. A shared ticket conflicts with writers only, so only readers may share it. If
//! the directory is empty, the newcomer joins the cohort in possession of the whole lock. Otherwise
//! it starts a new cohort.
//!
//! From the second task on, the queue directory is watched. One call to the kernel then tells
//! whether a ticket may have come since the last look. If not, the last look is still valid.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Settings;
use super::cohort::CohortId;
use super::core::{Core, Others};
use crate::error::Result;
use crate::fair::disk::TakePlace;
use crate::fair::ticket::{Mode, Ticket};
use crate::watch::{Seen, watch};

impl Core {
    /// Returns the cohort for a newcomer. Creates it if necessary.
    pub(super) fn cohort_to_join(
        &mut self,
        settings: &Arc<Settings>,
        want: Mode,
        quiet: bool,
    ) -> Result<CohortId> {
        if !self.is_idle() {
            if let Some(cohort) = self.known_tail(quiet).filter(|it| self.takes(*it, want)) {
                return Ok(cohort);
            }
            if let Some(cohort) = self.look_at_tail(settings, want)? {
                self.tail.cohort = Some(cohort);
                return Ok(cohort);
            }
        }
        let place = match std::mem::take(&mut self.listed) {
            true => TakePlace::EndAsListed,
            false => TakePlace::End,
        };
        let ticket = self
            .disk
            .take_ticket(want, settings.mode, Some(&settings.words), place)?;
        let cohort = self.cohorts.add_cohort(Some(ticket), want);
        // Only a look that was made after the watch was set is valid later.
        self.tail.cohort = None;
        Ok(cohort)
    }

    /// Returns the cohort of this process that was last at the last look, if no ticket has come
    /// since.
    ///
    /// `quiet` says that no event was under way when this call began. It is read before the flag
    /// `queue_changed`, because the watch thread sets the flag before the kernel can say `quiet`
    /// again. It is read before the mutex is locked, because a process that queues after this call
    /// has begun is not before it.
    pub(super) fn known_tail(&self, quiet: bool) -> Option<CohortId> {
        let cohort = self.tail.cohort?;
        let last = self.cohorts.last().filter(|last| last.id == cohort)?;
        // A cohort without a ticket is before all others. So it must not grow while a bypassed
        // waiter is first.
        let bypasses = self
            .possession
            .as_ref()
            .is_some_and(|it| !it.bypassed.is_empty());
        let first = last.ticket.is_some() || (self.cohorts.count() == 1 && !bypasses);
        (first && quiet && self.last_look_holds()).then_some(cohort)
    }

    /// Returns whether no ticket has come since the last look, as far as events say.
    pub(super) fn last_look_holds(&self) -> bool {
        self.tail.watch.is_some()
            && self.tail.opened == self.disk.opened()
            && !self.queue_changed.load(Ordering::SeqCst)
    }

    fn takes(&self, cohort: CohortId, want: Mode) -> bool {
        self.cohorts.cohort(cohort).is_some_and(|it| it.takes(want))
    }

    /// Returns whether no other process queues.
    pub(super) fn is_alone(&mut self) -> bool {
        if !self.events {
            return false;
        }
        let known = self.last_look_holds() && self.tail.others == Others::None;
        // If the queue cannot be listed, another process may queue.
        let looked = known || self.look_for_others(None).is_ok();
        looked && self.tail.others == Others::None
    }

    /// Looks which tickets of other processes are in the queue.
    pub(super) fn look_for_others(&mut self, bits: Option<u32>) -> Result<()> {
        self.tail.others = Others::Any;
        self.watch_queue(bits)?;
        let own = self.own_tickets();
        let line = self.disk.list(bits)?.iter();
        let modes = line.filter(|it| !own.contains(it)).map(|it| it.mode);
        self.tail.others = others(modes);
        Ok(())
    }

    /// Returns the cohort whose ticket is the last, or the one in possession if there is no ticket.
    /// Returns `None` if a newcomer with this wish must not join it.
    fn look_at_tail(&mut self, settings: &Settings, want: Mode) -> Result<Option<CohortId>> {
        self.watch_queue(settings.mode)?;
        let leftovers = &self.leftovers;
        let line = self.disk.list(settings.mode)?;
        let last = line
            .iter()
            .rfind(|ticket| leftovers.iter().all(|own| own.ticket != **ticket))
            .copied();
        let Some(last) = last else {
            return Ok(self.cohort_in_possession());
        };
        let ours = self.cohorts.last();
        let ours = ours.filter(|it| it.ticket.as_ref().is_some_and(|own| own.ticket == last));
        let ours = ours.filter(|it| it.takes(want));
        match ours.map(|it| it.id) {
            Some(ours) if self.a_ticket_came_late(ours)? => Ok(None),
            ours => Ok(ours),
        }
    }

    /// Returns whether a ticket of another process is before this cohort although the cohort was
    /// first: it holds the door or tries it. The other process chose its number before we queued,
    /// and linked the ticket after we looked. The cohort may still enter first, but newcomers must
    /// come after that ticket.
    fn a_ticket_came_late(&self, ours: CohortId) -> Result<bool> {
        let holds = self.possession.as_ref().map(|it| it.cohort == Some(ours));
        let knocks = self
            .contender
            .as_ref()
            .map(|it| it.cohort == ours && it.is_first());
        let was_first = holds.unwrap_or(false) || knocks.unwrap_or(false);
        let Some(queue) = self.disk.open_queue().filter(|_| was_first) else {
            return Ok(false);
        };
        let own = self.own_tickets();
        let mine = self.cohorts.cohort(ours).and_then(|it| it.ticket.as_ref());
        let earlier = |it: &&Ticket| {
            mine.is_none_or(|own| **it < own.ticket && it.mode.conflicts(own.ticket.mode))
        };
        let before = queue.line().iter().filter(earlier);
        for ticket in before.filter(|it| !own.contains(it)) {
            if queue.is_unmarked(*ticket)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the cohort in possession of the whole lock. Creates it when the first task joins.
    /// Returns `None` if another cohort of this process is behind it.
    fn cohort_in_possession(&mut self) -> Option<CohortId> {
        // Where others can enter, the cohort needs a ticket.
        let whole = self.has_whole();
        let possession = self.possession.as_mut().filter(|_| whole)?;
        let known = possession.cohort;
        match (known, self.cohorts.last()) {
            (Some(known), Some(last)) => (last.id == known).then_some(known),
            (None, None) => {
                let fresh = self.cohorts.add_cohort(None, Mode::Exclusive);
                possession.cohort = Some(fresh);
                Some(fresh)
            }
            _ => None,
        }
    }

    /// Watches the queue directory, from the second task of a process on. So most joins need no
    /// look.
    fn watch_queue(&mut self, bits: Option<u32>) -> Result<()> {
        if self.queue_changed.swap(false, Ordering::SeqCst) {
            self.tail.watch = None;
        }
        // A removed directory causes no event while a process has it open.
        if self.tail.opened != self.disk.opened()
            && let Some(id) = self.tail.watch.take()
        {
            watch().forget(self.watcher_id, id);
        }
        if self.tail.watch.is_some() || !self.events {
            return Ok(());
        }
        // This opens the directory if it is not open yet.
        self.disk.list(bits)?;
        self.tail.opened = self.disk.opened();
        let directory = self.disk.open_queue().and_then(|it| it.dir().descriptor());
        if let Some(directory) = directory {
            self.tail.others = Others::Any;
            self.tail.watch = watch().add(self.watcher_id, directory, Seen::Queue).ok();
            self.tail_watched
                .store(self.tail.watch.is_some(), Ordering::Relaxed);
        }
        Ok(())
    }
}

fn others(mut modes: impl Iterator<Item = Mode>) -> Others {
    match modes.try_fold(Others::None, |_, mode| {
        (mode == Mode::Shared).then_some(Others::OnlyReaders)
    }) {
        Some(others) => others,
        None => Others::Any,
    }
}
