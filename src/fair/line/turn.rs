//! For which cohort of this process a [`Contender`] waits in the queue on disk, and what comes of
//! it.
//!
//! It is the first cohort with an awake waiter. While the process has the whole lock there is no
//! contender, because there is no more to acquire. While it has a share, with readers inside, later
//! cohorts queue as if they belonged to another process. Readers that become first enter with the
//! readers inside.

use std::sync::Arc;

use super::Settings;
use super::cohort::{Cohort, CohortId};
use super::contender::{Cause, Contender, Entry, Outcome, Setup};
use super::core::Core;
use super::inside::Extent;
use super::possession::Possession;
use crate::error::Result;
use crate::fair::disk::TakePlace;
use crate::fair::door::Door;
use crate::fair::state::Flag;
use crate::fair::ticket::{Mode, Ticket};

impl Core {
    /// Takes the first cohort with an awake waiter as far as it gets without waiting.
    pub(crate) fn drive(&mut self, cause: Cause, mut spare: Option<Door>) {
        loop {
            let first = self.cohorts.first_awake().map(|cohort| cohort.id);
            let Some(cohort) = first.filter(|it| self.may_contend_for(*it)) else {
                self.retire();
                return self.give_surplus();
            };
            let Some((want, settings)) = self.first_wish(cohort) else {
                return;
            };
            let placed = |it: &Cohort| it.ticket.is_some();
            if !self.cohorts.cohort(cohort).is_some_and(placed) {
                // All permits were in this process when the cohort was added. There are more now.
                self.keep_place(cohort);
            }
            let right = |it: &Contender| it.cohort == cohort && it.want == want;
            if !self.contender.as_ref().is_some_and(right) {
                self.retire();
                let setup = Setup {
                    cohort,
                    want,
                    settings,
                    door: spare.take(),
                    guess: self.guess_before(cohort),
                };
                self.contender = Some(Contender::new(setup, self.watcher_id, self.events));
            }
            match self.step(cohort, cause) {
                Ok(true) => {
                    self.yield_slots(cohort);
                    return self.give_surplus();
                }
                Ok(false) => {}
                Err(error) => {
                    self.retire();
                    match self.cohorts.front(cohort) {
                        Some(front) => self.fail(front, error),
                        None => return,
                    }
                }
            }
        }
    }

    /// Returns whether a contender may wait for this cohort. It may not while this process has all
    /// there is, nor for the cohort whose turn comes as soon as the readers inside have left.
    fn may_contend_for(&self, id: CohortId) -> bool {
        let held = self.possession.as_ref();
        match self.extent() {
            None => true,
            Some(Extent::Whole) => false,
            Some(Extent::Share) => held.is_none_or(|it| it.cohort != Some(id)),
            Some(whole @ Extent::Permits { .. }) => !whole.is_whole(),
        }
    }

    /// Returns what the first waiter of a cohort wants.
    fn first_wish(&self, id: CohortId) -> Option<(Mode, Arc<Settings>)> {
        let front = self.cohorts.get(self.cohorts.front(id)?)?;
        Some((front.data.want, front.data.settings.clone()))
    }

    /// Returns the last ticket before this cohort's own in the last listing, if the cohort must
    /// wait for it.
    fn guess_before(&self, cohort: CohortId) -> Option<Ticket> {
        let own = self.cohorts.cohort(cohort)?.ticket.as_ref()?.ticket;
        let last = self.disk.line().last().copied();
        last.filter(|last| *last < own && last.mode.conflicts(own.mode))
    }

    /// Returns `true` if nothing more can be done now.
    pub(super) fn step(&mut self, cohort: CohortId, cause: Cause) -> Result<bool> {
        let reserved = self.reserved_permits();
        let (Some(contender), Some(own)) = (
            self.contender.as_mut(),
            self.cohorts
                .cohort(cohort)
                .and_then(|it| it.ticket.as_ref()),
        ) else {
            return Err(self.confused());
        };
        contender.joins = contender.shares() && self.possession.is_some();
        contender.reserved = reserved;
        let outcome = contender.step(own, &mut self.disk, cause);
        let news = std::mem::take(&mut contender.news);
        let (want, mode) = (contender.want, own.ticket.mode);
        self.note(news);
        match outcome? {
            Outcome::Sleep => Ok(true),
            Outcome::DoorLocked => {
                self.door_locked = true;
                self.wake_front(cohort);
                Ok(true)
            }
            Outcome::Entered(entry) => {
                self.retire();
                self.possess(cohort, want, entry);
                Ok(self.possession.is_none())
            }
            Outcome::Joins(bypassed) => {
                self.retire();
                self.join_own_readers(cohort, bypassed);
                Ok(false)
            }
            Outcome::TicketGone => {
                let settings = self.settings_of(cohort);
                let bits = settings.as_ref().and_then(|it| it.mode);
                let words = settings.as_ref().map(|it| &it.words);
                let ticket = self.disk.take_ticket(mode, bits, words, TakePlace::End)?;
                self.retire();
                self.tail.cohort = None;
                self.cohorts.requeue(cohort, ticket);
                Ok(false)
            }
        }
    }

    fn wake_front(&mut self, cohort: CohortId) {
        let front = self.cohorts.front(cohort);
        if let Some(waiter) = front.and_then(|it| self.cohorts.get_mut(it))
            && let Some(waker) = waiter.waker.take()
        {
            self.wakes.push(waker);
        }
    }

    /// Continues a step that stopped at the locked door. It is called after the wakers were called,
    /// or when a task is polled.
    pub(crate) fn continue_entry(&mut self) {
        if std::mem::take(&mut self.door_locked) {
            self.drive(Cause::Local, None);
        }
    }

    fn possess(&mut self, cohort: CohortId, want: Mode, entry: Entry) {
        let Entry {
            door,
            entered,
            bypassed,
        } = entry;
        let (Some(front), Some(settings)) = (self.cohorts.front(cohort), self.settings_of(cohort))
        else {
            if let Some(door) = door {
                let _ = match (want, entered.predecessor_crashed) {
                    (Mode::Exclusive, true) => self.disk.clear_held(entered.token, Flag::Held),
                    (Mode::Exclusive, false) => self.disk.clear_held(entered.token, Flag::Clear),
                    (_, true) => self.disk.untake_charge(&door),
                    (_, false) => Ok(()),
                };
                let _ = self.disk.leave(Arc::new(door));
            }
            return;
        };
        self.note_crash(entered);
        let before = match (&mut self.possession, &door) {
            // Permits in addition to those that this process has already.
            (Some(possession), None) => {
                possession.token = entered.token;
                possession.reserved = entered.token;
                possession.in_memory = false;
                possession.bypassed = bypassed;
                possession.cohort.replace(cohort)
            }
            _ => {
                let possession = Possession::new(door, entered, want, &settings);
                self.possession = Some(Possession {
                    cohort: Some(cohort),
                    bypassed,
                    ..possession
                });
                self.cohort_woken = false;
                self.lapsing = None;
                None
            }
        };
        self.offer(front, want);
        if want != Mode::Exclusive {
            // Waiters behind the front may be admitted too. After an error they try again.
            let _ = self.serve();
        }
        if let Some(before) = before.filter(|it| *it != cohort) {
            self.drop_if_empty(before);
        }
    }

    /// Lets the readers of a cohort whose turn has come enter with the readers of this process that
    /// are inside.
    fn join_own_readers(&mut self, cohort: CohortId, bypassed: Vec<Ticket>) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        let before = possession.cohort.replace(cohort);
        possession.bypassed.extend(bypassed);
        let _ = self.serve();
        if let Some(before) = before {
            self.drop_if_empty(before);
        }
    }
}
