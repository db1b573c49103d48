//! A semaphore's permits in this process: handed from task to task, kept for the first waiter, or
//! given back.
//!
//! # Algorithm
//!
//! Permits that come back are offered to the cohort in possession, task by task, as long as enough
//! are left for the next one. Small requests do not bypass a large one at the front. If too few are
//! left, they stay in hand while the cohort is the first in the queue on disk, because no other
//! process may take permits then. In all other cases they are given back.
//!
//! # Tokens
//!
//! Each grant has a token of its own. While all permits are in this process, it takes the tokens
//! from a reserved block. Otherwise it takes each one under the lock on the record.

use super::cohort::{CohortId, Key};
use super::contender::{Cause, Contender};
use super::core::Core;
use super::inside::Inside;
use super::possession::{Hold, Possession};
use crate::error::{Error, Result};
use crate::fair::disk::{Resized, TakePlace};
use crate::fair::door::Door;
use crate::fair::slots::Permits;
use crate::fair::ticket::Mode;

/// How many tokens are reserved on disk at once for hand-overs in memory.
const BLOCK: u64 = 1024;

impl Core {
    /// Takes the permits of a guard back.
    pub(super) fn release_permits(&mut self, permits: Permits, want: Mode) -> Result<()> {
        if let Some(slots) = self.disk.slots() {
            slots.put_back(permits);
        }
        let Some(possession) = &mut self.possession else {
            return self.give_back_surplus(0, None);
        };
        possession.inside.remove(want);
        let served = self.serve();
        let done = match &self.possession {
            Some(it) if it.inside.is_empty() => self.leave(false).0,
            _ => self.try_give_surplus(),
        };
        self.drive(Cause::Local, None);
        served.and(done)
    }

    /// Notes that the same permits are in more or fewer guards now.
    pub(super) fn recount(&mut self, change: impl FnOnce(&mut Inside)) {
        if let Some(possession) = &mut self.possession {
            change(&mut possession.inside);
        }
    }

    /// Sets the token of a hand-over in memory. Returns `false` while another process has the
    /// record locked, or if the permits are beyond a new limit.
    pub(super) fn next_permits_token(&mut self, to: Key) -> Result<bool> {
        let whole = self.has_whole();
        let (Some(possession), Some(waiter)) = (&mut self.possession, self.cohorts.get(to)) else {
            return Ok(false);
        };
        if possession.token < possession.reserved {
            possession.token += 1;
            return Ok(true);
        }
        let block = if whole { BLOCK } else { 0 };
        let Some(token) = self.disk.mint(&waiter.data.settings.words, block)? else {
            return Ok(false);
        };
        possession.token = token;
        possession.reserved = token + block;
        Ok(true)
    }

    pub(super) fn settle_tokens(&mut self, token: u64, reserved: u64) -> Result<()> {
        match token < reserved {
            true => self.disk.settle_token(token, reserved),
            false => Ok(()),
        }
    }

    /// Gives back the permits in hand that no task of this process needs. An error has no caller
    /// here.
    pub(super) fn give_surplus(&mut self) {
        let _ = self.try_give_surplus();
    }

    fn try_give_surplus(&mut self) -> Result<()> {
        let possession = self.possession.as_ref();
        let used = possession.map_or(0, |it| it.inside.permits());
        let cohort = possession.and_then(|it| it.cohort);
        self.give_back_surplus(used, cohort)
    }

    /// Gives back all permits except those `used`, unless the first waiter of this process collects
    /// them. `cohort` is the one in possession.
    pub(super) fn give_back_surplus(&mut self, used: u32, cohort: Option<CohortId>) -> Result<()> {
        let Some(slots) = self.disk.slots_seen() else {
            return Ok(());
        };
        let surplus = slots.ours().saturating_sub(used);
        if surplus == 0 || self.collects(cohort) {
            return Ok(());
        }
        // Others can enter from now on. So the cohort needs a ticket, and the reserved tokens are
        // given back.
        if self.has_whole()
            && let Some(cohort) = cohort
        {
            self.keep_place(cohort);
        }
        let mut settled = Ok(());
        if let Some(possession) = &mut self.possession {
            let (token, reserved) = (possession.token, possession.reserved);
            possession.reserved = token;
            settled = self.settle_tokens(token, reserved);
        }
        let given = match self.disk.slots() {
            Some(slots) => slots.give_back(surplus),
            None => Ok(()),
        };
        settled.and(given)
    }

    /// Returns whether the first waiter of this process is the first of all, and keeps what it
    /// gets.
    fn collects(&self, cohort: Option<CohortId>) -> bool {
        let Some(first) = self.cohorts.first_awake().map(|it| it.id) else {
            return false;
        };
        let stands = |it: &Contender| it.cohort == first && it.collects();
        cohort == Some(first) || self.contender.as_ref().is_some_and(stands)
    }

    /// Changes the number of permits, for a caller that has `held` of them.
    pub(super) fn resize(&mut self, limit: u32, held: u32) -> Result<Resized> {
        match self.disk.record_limit(limit, held)? {
            Resized::Done => {}
            other => return Ok(other),
        }
        // The close of a slot wakes the first waiter.
        if let Some(path) = self.disk.slots_seen().map(|it| it.path(0)) {
            let at = |e| Error::io("open the slot file", &path, e);
            drop(Door::open(&path, None).map_err(at)?);
        }
        // A process that has all the former permits is notified only of new tickets. This ticket
        // announces the change to it.
        let ticket = self
            .disk
            .take_ticket(Mode::Permits(1), None, None, TakePlace::End)?;
        self.disk.give_up(ticket);
        self.settle();
        Ok(Resized::Done)
    }

    /// Adopts a new limit: another process has queued, perhaps only to announce more permits.
    pub(super) fn look_for_more(&mut self) {
        if self.has_whole() && self.cohorts.waiting() > self.cohorts.offered() {
            // If this fails, the next look comes when permits come back.
            if self.disk.adopt_limit().is_ok_and(|more| more) {
                self.settle();
            }
        }
    }

    /// Returns how many permits in hand belong to offers.
    pub(super) fn reserved_permits(&self) -> u32 {
        let used = self.possession.as_ref().map_or(0, |it| it.inside.permits());
        let out = self
            .disk
            .slots_seen()
            .map_or(0, |it| it.ours() - it.in_hand());
        used.saturating_sub(out)
    }

    /// Ends the possession of permits by a cohort whose contender is no longer first.
    pub(super) fn yield_slots(&mut self, cohort: CohortId) {
        let behind = self.contender.as_ref().is_some_and(|it| !it.is_first());
        if let Some(Possession {
            hold: Hold::Slots,
            cohort: held,
            ..
        }) = &mut self.possession
            && *held == Some(cohort)
            && behind
        {
            *held = None;
        }
    }
}
