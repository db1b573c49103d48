//! The wait of this process in the queue on disk: for which cohort a [`Contender`] waits, what
//! comes of its steps, and the tickets of those that still wait when the process leaves.

use std::sync::Arc;

use super::contender::{Entry, Outcome, Setup, StepInput};
use super::{Cause, Cohort, CohortId, Contender, Core, Extent, idle};
use crate::door::Door;
use crate::error::{Error, ErrorKind, Result};
use crate::fair::Settings;
use crate::fair::disk::TakePlace;
use crate::fair::ticket::{Mode, Ticket};

impl Core {
    /// Moves the first cohort with an awake waiter on, as far as that needs no wait. `spare` is a
    /// door that is open and not locked.
    pub(super) fn drive(&mut self, cause: Cause, mut spare: Option<Door>) {
        loop {
            let Some(cohort) = self.cohort_to_drive() else {
                self.retire();
                return self.give_surplus();
            };
            if self.cohorts.ticket(cohort).is_none() {
                // All permits were in this process when the cohort was added. There are more now.
                self.keep_ticket(cohort);
            }
            self.ensure_contender(cohort, &mut spare);
            match self.step(cohort, cause) {
                Ok(true) => {
                    self.yield_slots(cohort);
                    return self.give_surplus();
                }
                Ok(false) => {}
                Err(error) if idle::make_room(&error) => self.retire(),
                Err(error) => {
                    self.retire();
                    // Without a front, the cohort has failed as a whole.
                    if let Some((front, _)) = self.cohorts.front(cohort) {
                        self.fail(front, error);
                    }
                }
            }
        }
    }

    /// Returns the first cohort with an awake waiter, if a contender may wait for it. It may not
    /// while this process has all there is, nor for the cohort whose turn comes as soon as the
    /// readers inside have left.
    fn cohort_to_drive(&self) -> Option<CohortId> {
        let first = self.cohorts.first_awake()?;
        let may = match &self.possession {
            None => true,
            Some(possession) => match possession.extent(&self.disk) {
                Extent::Share => possession.cohort() != Some(first),
                extent => !extent.is_whole(),
            },
        };
        may.then_some(first)
    }

    /// Makes sure that there is a contender for this cohort, and for what its first task wants.
    fn ensure_contender(&mut self, cohort: CohortId, spare: &mut Option<Door>) {
        let Some((_, front)) = self.cohorts.front(cohort) else {
            return;
        };
        let (mode, settings) = (front.want.mode, &front.settings);
        let right = |it: &Contender| it.cohort() == cohort && it.mode() == mode;
        if self.contender.as_ref().is_some_and(right) {
            return;
        }
        let setup = Setup {
            cohort,
            mode,
            settings: settings.clone(),
            door: spare.take(),
            guess: self.guess_before(cohort),
        };
        self.retire();
        self.contender = Some(Contender::new(setup, self.site));
    }

    /// Returns the last ticket before this cohort's own in the last listing, if the cohort must
    /// wait for it.
    fn guess_before(&self, cohort: CohortId) -> Option<Ticket> {
        let own = self.cohorts.ticket(cohort)?.ticket;
        let last = self.disk.open_queue()?.tickets().last().copied();
        last.filter(|last| *last < own && last.mode.conflicts(own.mode))
    }

    /// Runs a step of the contender. Returns `true` if nothing more can be done now.
    fn step(&mut self, cohort: CohortId, cause: Cause) -> Result<bool> {
        let reserved = self.reserved_permits();
        let own = self.cohorts.ticket(cohort);
        let (Some(contender), Some(own)) = (self.contender.as_mut(), own) else {
            return Err(self.confused());
        };
        let input = StepInput {
            cause,
            joins: contender.mode() == Mode::Shared && self.possession.is_some(),
            reserved,
        };
        let outcome = contender.step(own, &mut self.disk, input);
        let (wanted, mode) = (contender.mode(), own.ticket.mode);
        for note in contender.take_notes() {
            self.effects.note(note);
        }
        match outcome? {
            Outcome::Sleep => Ok(true),
            Outcome::DoorLocked => {
                let front = self.cohorts.front(cohort).map(|(key, _)| key);
                let front = front.and_then(|key| self.cohorts.get_mut(key));
                self.effects.wake(front.and_then(|it| it.take_waker()));
                Ok(true)
            }
            Outcome::Entered(entry) => {
                self.retire();
                self.begin_turn(cohort, wanted, entry);
                Ok(self.possession.is_none())
            }
            Outcome::Joins(bypassed) => {
                self.retire();
                self.join_inside(cohort, bypassed);
                Ok(false)
            }
            Outcome::TicketGone => {
                let settings = self.settings_of(cohort);
                let settings = settings.as_deref();
                let ticket = self.disk.take_ticket(mode, settings, TakePlace::End)?;
                self.retire();
                self.tail.ends_with(None);
                self.cohorts.requeue(cohort, ticket);
                Ok(false)
            }
        }
    }

    /// Continues a step that stopped at the locked door. It is called after the wakers were called,
    /// or when a task is polled.
    pub(super) fn continue_entry(&mut self) {
        if self.contender.as_mut().is_some_and(Contender::take_pause) {
            self.drive(Cause::Local, None);
        }
    }

    /// Takes possession for a cohort whose contender has entered, and serves it.
    fn begin_turn(&mut self, cohort: CohortId, mode: Mode, entry: Entry) {
        let possession = self.possess(entry.door, entry.entered, mode);
        possession.keep_watch(entry.watch);
        let before = possession.begin_turn(cohort, entry.bypassed);
        match self.cohorts.front(cohort).map(|(key, _)| key) {
            Some(front) => {
                self.offer(front, mode, false);
                self.serve_behind(mode);
            }
            None => self.settle(),
        }
        if let Some(before) = before.filter(|it| *it != cohort) {
            self.drop_if_empty(before);
        }
    }

    /// Offers the lock to the waiters behind the first one too, unless that is a writer. After an
    /// error they try again.
    fn serve_behind(&mut self, mode: Mode) {
        if mode != Mode::Exclusive {
            let _ = self.serve();
        }
    }

    /// Serves a cohort whose turn has come while readers of this process are inside: its readers
    /// enter with them.
    fn join_inside(&mut self, cohort: CohortId, bypassed: Vec<Ticket>) {
        if let Some(possession) = &mut self.possession {
            let before = possession.begin_turn(cohort, bypassed);
            self.serve_behind(Mode::Shared);
            before.into_iter().for_each(|it| self.drop_if_empty(it));
        }
    }

    /// Marks the tickets of all cohorts except `but` whose waiters are all frozen, so that other
    /// processes bypass them.
    pub(super) fn mark_frozen(&mut self, but: Option<CohortId>) {
        let frozen = self.cohorts.iter().filter(|it| it.is_frozen());
        let others = frozen.filter(|it| Some(it.id()) != but);
        for own in others.filter_map(Cohort::ticket) {
            // Without a mark they are bypassed all the same, after some claim windows.
            let _ = self.disk.mark_own(own);
        }
    }

    /// Makes sure that a cohort with waiters has a ticket, before its process leaves. If all its
    /// waiters are frozen, marks the ticket, so that other processes bypass it.
    pub(super) fn keep_ticket(&mut self, id: CohortId) {
        let Some(cohort) = self.cohorts.cohort(id).filter(|it| !it.is_empty()) else {
            return;
        };
        let frozen = cohort.is_frozen();
        let mut result = self.take_first_ticket(id);
        if result.as_ref().is_err_and(idle::make_room) {
            result = self.take_first_ticket(id);
        }
        if frozen && let Some(own) = self.cohorts.ticket(id) {
            result = result.and(self.disk.mark_own(own));
        }
        if let Err(error) = result {
            self.fail_all(id, error);
        }
    }

    /// Gives a cohort that has no ticket one before all others. A ticket for permits asks for as
    /// many as its most demanding waiter wants. Otherwise other processes would find fewer permits
    /// free and take that waiter for frozen.
    pub(super) fn take_first_ticket(&mut self, id: CohortId) -> Result<()> {
        let Some(cohort) = self.cohorts.cohort(id).filter(|it| it.ticket().is_none()) else {
            return Ok(());
        };
        let permits = |mode| matches!(mode, Mode::Permits(_)).then_some(mode);
        let wants = self.cohorts.members(id).map(|(_, it)| it.want.mode);
        let greatest = wants.filter_map(permits).max();
        let mode = greatest.unwrap_or_else(|| cohort.mode());
        let settings = self.settings_of(id);
        let settings = settings.as_deref();
        let ticket = self.disk.take_ticket(mode, settings, TakePlace::First)?;
        self.cohorts.set_ticket(id, ticket);
        Ok(())
    }

    /// Returns the settings that apply to a cohort: those of its first task that is awake, or of
    /// its first task.
    fn settings_of(&self, id: CohortId) -> Option<Arc<Settings>> {
        let front = self.cohorts.front(id);
        let any = front.or_else(|| self.cohorts.members(id).next());
        any.map(|(_, waiter)| waiter.settings.clone())
    }

    /// Ends all waits of a cohort with an error, except those that have an offer and need no place
    /// any more. The first waiter gets the cause, the others an error that says only what failed.
    fn fail_all(&mut self, id: CohortId, error: Error) {
        let waiters = self.cohorts.members(id);
        let without_offer = waiters.filter(|(_, it)| it.offer().is_none());
        let keys: Vec<_> = without_offer.map(|(key, _)| key).collect();
        let mut error = Some(error);
        for key in keys {
            let again = || {
                let text = "could not keep the ticket of this wait";
                Error::at(ErrorKind::Io, text, &self.disk.place().queue)
            };
            let error = error.take().unwrap_or_else(again);
            self.fail(key, error);
        }
    }
}
