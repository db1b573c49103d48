//! The end of the line: which cohort a newcomer joins, and who of other processes stands there.
//!
//! # Which cohort
//!
//! The last one, if its ticket is the last in the directory and asks for all that the newcomer wants (an exclusive one holds up everybody, so
//! anybody may stand behind it; a shared one only those who share); the one in possession of the whole lock, if the directory is empty; else a new
//! one. From the second task on the queue directory is watched, and one question to the kernel tells that nobody has come
//! since the last look, which then still holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::disk::TakePlace;
use super::super::ticket::{Mode, Ticket};
use super::super::watch::{Seen, watch};
use super::Settings;
use super::cohort::CohortId;
use super::core::{Core, Others};
use crate::error::Result;

impl Core {
    /// The cohort a newcomer belongs to.
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
        // Only a look made after the watch was set can be relied on.
        self.tail.cohort = None;
        Ok(cohort)
    }

    /// Our cohort that was last at the last look, if nothing has been queued since.
    ///
    /// `quiet` is the kernel's word that no event was on its way when this call began. It comes before the flag, which is set before
    /// the kernel can say so again; and before the mutex, because whoever queues after this call has begun is not
    /// before it.
    pub(super) fn known_tail(&self, quiet: bool) -> Option<CohortId> {
        let cohort = self.tail.cohort?;
        let last = self.cohorts.last().filter(|last| last.id == cohort)?;
        // Without a ticket it stands before everybody, so it must not grow while a sleeper is first.
        let passing = self
            .possession
            .as_ref()
            .is_some_and(|it| !it.passed.is_empty());
        let first = last.ticket.is_some() || (self.cohorts.count() == 1 && !passing);
        (first && quiet && self.last_look_holds()).then_some(cohort)
    }

    /// Whether nothing has been queued since the last look, as far as this process has been told.
    pub(super) fn last_look_holds(&self) -> bool {
        self.tail.watch.is_some()
            && self.tail.opened == self.disk.opened()
            && !self.queue_changed.load(Ordering::SeqCst)
    }

    fn takes(&self, cohort: CohortId, want: Mode) -> bool {
        self.cohorts.cohort(cohort).is_some_and(|it| it.takes(want))
    }

    /// Whether no other process queues.
    pub(super) fn is_alone(&mut self) -> bool {
        if !self.events {
            return false;
        }
        let known = self.last_look_holds() && self.tail.others == Others::Nobody;
        // What cannot be looked at may be there.
        let looked = known || self.look_who_else_queues(None).is_ok();
        looked && self.tail.others == Others::Nobody
    }

    /// Looks who of other processes stands in line.
    pub(super) fn look_who_else_queues(&mut self, bits: Option<u32>) -> Result<()> {
        self.tail.others = Others::Somebody;
        self.watch_queue(bits)?;
        let own = self.own_tickets();
        let line = self.disk.list(bits)?.iter();
        let modes = line.filter(|it| !own.contains(it)).map(|it| it.mode);
        self.tail.others = others(modes);
        Ok(())
    }

    /// Looks who stands last: one of our cohorts, or the one in possession when nobody stands at all. None if it does not take a
    /// newcomer with this wish.
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
            Some(ours) if self.somebody_came_late(ours)? => Ok(None),
            ours => Ok(ours),
        }
    }

    /// Whether a foreign ticket stands before this cohort although the cohort was first: it holds the door, or knocks. The other one had
    /// chosen his number before we came, and linked it after we had looked. We may go in before him, but who comes from
    /// now on comes after him.
    fn somebody_came_late(&self, ours: CohortId) -> Result<bool> {
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

    /// The cohort that holds the whole lock; made when the first task joins it. None if another one of ours stands behind it.
    fn cohort_in_possession(&mut self) -> Option<CohortId> {
        // From where others can get in, a place must be seen on disk.
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

    /// From the second task of a process on, the queue directory is watched, so that most joins need no look.
    fn watch_queue(&mut self, bits: Option<u32>) -> Result<()> {
        if self.queue_changed.swap(false, Ordering::SeqCst) {
            self.tail.watch = None;
        }
        // A removed directory announces nothing as long as anybody has it open.
        if self.tail.opened != self.disk.opened()
            && let Some(id) = self.tail.watch.take()
        {
            watch().forget(self.seat, id);
        }
        if self.tail.watch.is_some() || !self.events {
            return Ok(());
        }
        // Opens the directory if it is not open yet.
        self.disk.list(bits)?;
        self.tail.opened = self.disk.opened();
        let directory = self.disk.open_queue().and_then(|it| it.dir().descriptor());
        if let Some(directory) = directory {
            self.tail.others = Others::Somebody;
            self.tail.watch = watch().add(self.seat, directory, Seen::Queue).ok();
            self.tail_watched
                .store(self.tail.watch.is_some(), Ordering::Relaxed);
        }
        Ok(())
    }
}

fn others(mut modes: impl Iterator<Item = Mode>) -> Others {
    match modes.try_fold(Others::Nobody, |_, mode| {
        (mode == Mode::Shared).then_some(Others::OnlyReaders)
    }) {
        Some(others) => others,
        None => Others::Somebody,
    }
}
