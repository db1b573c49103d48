//! The door in this process's hands: from task to task as an offer, and out.
//!
//! # Algorithm
//!
//! A released door is offered to the first task of the cohort that is awake, or left. An offer is claimed when its task is
//! polled. Once per claim window a tick looks: an offer that is as old as the last tick has lapsed. Its task is asleep until
//! it is polled, the rest of the cohort is called, and the offer goes to the next one; whoever has not answered by the next
//! tick is asleep too. With nobody awake the process marks its ticket, unlocks and closes: it is passed on disk, and first
//! again when one of its tasks is polled.
//!
//! # Cost
//!
//! A hand-over touches no disk, allocates nothing, and reads no clock; every 1024th writes the end of the next
//! block of tokens.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::super::disk::{Entered, TakePlace};
use super::super::door::Door;
use super::super::ticket::Ticket;
use super::super::vigil::loss_of;
use super::super::watch::{WatchId, watch};
use super::Settings;
use super::cohort::{CohortId, Key};
use super::contender::Cause;
use super::core::Core;
use super::passing::marks_gone;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::sys::file::FileId;
use crate::guard::Loss;

/// How many tokens are reserved on disk at once for hand-overs in memory.
const BLOCK: u64 = 1024;

/// The door in this process's hands.
pub(crate) struct Possession {
    pub(super) cohort: Option<CohortId>,
    pub(super) door: FileId,
    pub(super) occupant: Occupant,
    /// Whether the present grant came from another task of this process.
    pub(super) in_memory: bool,
    pub(super) token: u64,
    pub(super) reserved: u64,
    /// The holder before us died inside and no guard here has been told yet.
    pub(super) crashed: bool,
    pub(super) loss: Option<Loss>,
    pub(super) held_watch: Option<WatchId>,
    /// Told of a loss of the present grant; there once somebody asks.
    pub(super) latch: Option<Arc<OnceLock<Loss>>>,
    /// The sleepers' tickets we passed: they are first again as soon as they wake.
    pub(super) passed: Vec<Ticket>,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) since: Instant,
}

pub(super) enum Occupant {
    Guard,
    Offer { to: Key, door: Door },
}

impl Possession {
    /// With an occupant still to be set.
    pub(super) fn new(
        door: &Door,
        entered: Entered,
        cohort: Option<CohortId>,
        settings: &Settings,
    ) -> Self {
        Self {
            cohort,
            door: door.id(),
            occupant: Occupant::Guard,
            in_memory: false,
            token: entered.token,
            reserved: entered.token,
            crashed: entered.predecessor_crashed,
            loss: None,
            held_watch: None,
            latch: None,
            passed: Vec::new(),
            label: settings.label.clone(),
            since: Instant::now(),
        }
    }

    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// Whether a guard is out, or the lock is still on its way to one.
    pub(crate) fn is_claimed(&self) -> bool {
        matches!(self.occupant, Occupant::Guard)
    }
}

impl Core {
    /// A guard is given back. `Lost` when there was nothing left to give back, for a caller who `listens`.
    pub(crate) fn release(&mut self, door: Door, token: u64, listens: bool) -> Result<()> {
        let Some(possession) = self.possession.as_ref() else {
            return door.leave().map_err(|e| self.io("unlock the lock file", e));
        };
        debug_assert_eq!(possession.token, token, "a guard that is not the holder's");
        let next = self.next_in_memory();
        let lost = self.end_grant();
        if let (Some(next), None) = (next, lost) {
            match self.next_token() {
                Ok(()) => {
                    if let Some(possession) = &mut self.possession {
                        possession.in_memory = true;
                    }
                    self.offer(next, door);
                    return Ok(());
                }
                Err(error) => {
                    self.leave(door, false).0.and(Err(error))?;
                }
            }
            return Ok(());
        }
        let (left, seen) = self.leave(door, listens);
        match lost.or(seen) {
            Some(loss) => Err(Error::at(
                ErrorKind::Lost,
                loss.to_string(),
                &self.disk.place().door,
            )),
            None => left,
        }
    }

    /// The present grant is over: forgets who asked about its loss.
    pub(super) fn end_grant(&mut self) -> Option<Loss> {
        self.forget_lost_wakers();
        let possession = self.possession.as_mut()?;
        possession.latch = None;
        possession.loss
    }

    /// Who gets the lock in memory: the first of the cohort in possession, unless somebody who was passed has woken.
    pub(super) fn next_in_memory(&self) -> Option<Key> {
        let possession = self.possession.as_ref()?;
        let cohort = possession.cohort?;
        let first = self.cohorts.first_awake()?;
        if first.id != cohort {
            return None;
        }
        // What cannot be looked at is not known to sleep on.
        if !possession.passed.is_empty()
            && !marks_gone(&self.disk, &possession.passed).is_ok_and(|gone| !gone)
        {
            return None;
        }
        self.cohorts.front(cohort)
    }

    /// The token for a hand-over in memory: from the block reserved on disk, or from a new block.
    pub(super) fn next_token(&mut self) -> Result<()> {
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
        if possession.token >= possession.reserved {
            let end = possession.token.saturating_add(BLOCK);
            self.disk.reserve_to(end)?;
            possession.reserved = end;
        }
        possession.token += 1;
        Ok(())
    }

    pub(super) fn offer(&mut self, to: Key, door: Door) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        self.offers += 1;
        possession.occupant = Occupant::Offer { to, door };
        if let Some(waiter) = self.cohorts.get_mut(to) {
            let window = waiter.data.settings.claim_window;
            self.agenda.offered(window);
            waiter
                .waker
                .take()
                .into_iter()
                .for_each(|it| self.wakes.push(it));
        }
    }

    /// The offer that stands was not wanted: to the next one awake, or out.
    pub(super) fn pass_on(&mut self) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        let Occupant::Offer { door, .. } =
            std::mem::replace(&mut possession.occupant, Occupant::Guard)
        else {
            return;
        };
        match self.next_in_memory() {
            Some(next) => self.offer(next, door),
            None => {
                // Nobody is there to hear of a failure; the door is closed whatever happens.
                let _ = self.leave(door, false);
            }
        }
    }

    /// Out: the queue first, then the lock, then whoever waits here behind others.
    ///
    /// With `look`, a loss that nobody asked about is seen here, while the lock still protects the look.
    pub(super) fn leave(&mut self, door: Door, look: bool) -> (Result<()>, Option<Loss>) {
        let Some(mut possession) = self.possession.take() else {
            let left = door.leave().map_err(|e| self.io("unlock the lock file", e));
            return (left, None);
        };
        if let Some(id) = possession.held_watch.take() {
            watch().forget(self.seat, id);
        }
        self.agenda.left();
        if let Some(cohort) = possession.cohort {
            self.keep_place(cohort);
        }
        let cleared = self.disk.clear_held(possession.token, possession.crashed);
        let loss = look
            .then(|| loss_of(&self.disk.place().door, possession.door))
            .flatten();
        let left = self.disk.leave(door);
        if let Some(cohort) = possession.cohort {
            self.drop_if_empty(cohort);
        }
        self.tidy();
        self.drive(Cause::Local, None);
        (cleared.and(left), loss)
    }

    /// Whoever is left in a cohort that leaves the door keeps its place on disk; if all are asleep, with a mark, so that
    /// others pass.
    pub(super) fn keep_place(&mut self, id: CohortId) {
        let Some(cohort) = self.cohorts.cohort(id).filter(|it| it.length > 0) else {
            return;
        };
        let settings = self.settings_of(id);
        let asleep = self.cohorts.front(id).is_none();
        let mut result = Ok(());
        if cohort.ticket.is_none() {
            let mode = settings.as_ref().and_then(|it| it.mode);
            let words = settings.as_ref().map(|it| &it.words);
            match self.disk.take_ticket(mode, words, TakePlace::First) {
                Ok(ticket) => {
                    if let Some(cohort) = self.cohorts.cohort_mut(id) {
                        cohort.ticket = Some(ticket);
                    }
                }
                Err(error) => result = Err(error),
            }
        }
        if asleep && let Some(own) = self.cohorts.cohort(id).and_then(|it| it.ticket.as_ref()) {
            result = result.and(self.disk.mark_own(own));
        }
        if let Err(error) = result {
            self.fail_all(id, error);
        }
    }

    /// Nobody in this cohort can be served. The first one hears the cause, the others that it was not theirs.
    pub(super) fn fail_all(&mut self, id: CohortId, error: Error) {
        let mut keys = Vec::new();
        self.cohorts.for_each(id, |key, _| keys.push(key));
        let mut error = Some(error);
        for key in keys {
            let again = || {
                let text = "the place in line could not be kept";
                Error::at(ErrorKind::Io, text, &self.disk.place().queue)
            };
            let error = error.take().unwrap_or_else(again);
            self.fail(key, error);
        }
    }

    pub(super) fn settings_of(&self, id: CohortId) -> Option<Arc<Settings>> {
        let front = self.cohorts.front(id)?;
        Some(self.cohorts.get(front)?.data.settings.clone())
    }

    /// Once per claim window while offers are made: an offer that has not been claimed since the last tick lapses.
    pub(super) fn tick(&mut self) {
        let Some(Possession {
            occupant: Occupant::Offer { to, .. },
            cohort: Some(cohort),
            ..
        }) = &self.possession
        else {
            self.lapsing = None;
            return;
        };
        let (to, cohort) = (*to, *cohort);
        let window = self.cohorts.get(to).map(|it| it.data.settings.claim_window);
        let window = window.unwrap_or_default();
        if self.lapsing.replace(self.offers) == Some(self.offers) {
            if self.roll_call {
                self.cohorts.end_roll_call(cohort);
            }
            let wakes = &mut self.wakes;
            self.cohorts
                .begin_roll_call(to, |waker| wakes.push(waker.clone()));
            self.roll_call = true;
            self.note_overslept();
            self.pass_on();
            self.lapsing = Some(self.offers);
        }
        if self.possession.is_some() {
            self.agenda.offered(window);
        }
    }
}
