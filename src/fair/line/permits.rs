//! A semaphore's permits in this process: handed from task to task, kept for the first waiter, or
//! given back.
//!
//! # Algorithm
//!
//! Permits that come back are offered to the cohort that is served, task by task, as long as enough
//! are left for the next one. Small requests do not bypass a large one at the front. If too few are
//! left, they stay in hand while the cohort is the first in the queue on disk, because no other
//! process may take permits then. In all other cases they are given back.
//!
//! # Tokens
//!
//! Each grant has a token of its own. While all permits are in this process, it takes the tokens
//! from a reserved block. Otherwise it takes each one under the lock on the record.

use std::cell::LazyCell;
use std::path::{Path, PathBuf};

use super::arrival::is_in_the_way;
use super::possession::Served;
use super::{Cause, CohortId, Contender, Core, Fast, Line, Possession, Request};
use crate::door::{self, Door, Probed};
use crate::error::{Error, ErrorKind, Result};
use crate::fair::disk::{Disk, Resized, TakePlace};
use crate::fair::slots::{Slot, SlotFiles, Slots};
use crate::fair::ticket::Mode;
use crate::fair::{Entered, Settings, Want};
use crate::step::{self, Step};
use crate::sys::lock_table::LockTable;

impl Line {
    /// Returns the path of a permit's file.
    pub(in crate::fair) fn slot_path(&self, number: u32) -> PathBuf {
        let files = self.slot_files.as_ref();
        files.map(|it| it.path(number)).unwrap_or_default()
    }

    /// Returns how many permits there are, as far as this process knows.
    pub(in crate::fair) fn limit(&self) -> u32 {
        self.slot_files.as_ref().map_or(0, |it| it.limit())
    }

    /// Returns how many permits there are, as the record says now.
    pub(in crate::fair) fn current_limit(&self) -> Result<u32> {
        self.run(Core::adopt_limit)?;
        Ok(self.limit())
    }

    /// Returns how many slots no process has locked.
    pub(in crate::fair) fn available(&self) -> Result<u32> {
        let slots: Vec<_> = self.run(|core| {
            core.adopt_limit()?;
            let slots = core.disk.slots().into_iter();
            Ok(slots.flat_map(Slots::paths_of_others).collect())
        })?;
        let locks = LazyCell::new(LockTable::read);
        let mut free = 0;
        for slot in slots {
            let owners = locks.owners(&slot);
            free += u32::from(match owners.listed.is_empty() {
                true if !owners.all => self.try_slot(&slot)? == Probed::Free,
                is_free => is_free,
            });
        }
        Ok(free)
    }

    /// Tries a slot, under the mutex as [`probe`](Self::probe) does.
    fn try_slot(&self, slot: &Path) -> Result<Probed> {
        let _core = self.core();
        door::probe(slot)
    }

    /// Records another number of permits, and wakes waiters.
    pub(in crate::fair) fn resize(&self, limit: u32, held: u32) -> Result<Resized> {
        self.run(|core| core.resize(limit, held))
    }

    /// Fails if another limit is recorded.
    pub(in crate::fair) fn check_limit(&self, limit: u32) -> Result<()> {
        self.run(|core| core.disk.check_limit(limit))
    }

    /// Fails if the semaphore at this path has other slot files or another limit.
    pub(super) fn check_slots(&self, theirs: Option<&Slots>) -> Result<()> {
        let Some(theirs) = theirs else { return Ok(()) };
        let same = |ours: &SlotFiles| ours.are_as(theirs.files());
        let limit = self.limit();
        let text = match self.slot_files.as_deref().is_some_and(same) {
            true if limit == theirs.limit() => return Ok(()),
            true => format!(
                "this process has a semaphore of {limit} permits open at this path, not of {}",
                theirs.limit()
            ),
            false => {
                "this process has a semaphore with other slot files open at this path".to_owned()
            }
        };
        let kind = ErrorKind::Incompatible;
        Err(Error::at(kind, text, &self.place.door))
    }

    /// Notes that the permits of one guard are now in two.
    pub(in crate::fair) fn split(&self) -> Result<()> {
        self.with_possession(Possession::split)
    }

    /// Notes that the permits of two guards are now in one.
    pub(in crate::fair) fn merge(&self) -> Result<()> {
        self.with_possession(Possession::merge)
    }

    fn with_possession(&self, note: impl FnOnce(&mut Possession)) -> Result<()> {
        self.run(|core| {
            core.possession.as_mut().map(note);
            Ok(())
        })
    }
}

impl Core {
    /// Takes permits, if enough are free and no process queues. As on the fast path of a door, it
    /// takes first and then lists.
    pub(super) fn permits_at_once(&mut self, request: &Request<'_>, count: u32) -> Result<Fast> {
        self.tidy();
        let mode = request.want.mode;
        if !self.all_waiters_have_offers()
            || (self.saw_queue && is_in_the_way(self.disk.list_existing()?, mode))
        {
            return Ok(Fast::Refused);
        }
        let reserved = self.reserved_permits();
        let taken = self.take_free_permits(request.settings, count, reserved);
        self.saw_queue = !matches!(taken, Ok(Some(_)));
        let Ok(Some(token)) = taken else {
            step::at(Step::GiveBack);
            let given = self.disk.keep_in_hand(reserved);
            return taken.and(given.map(|()| Fast::Refused));
        };
        self.possess(None, Entered::without_crash(token), mode);
        Ok(self.grant_at_once(request, false))
    }

    /// Returns the token for the permits, which are in hand then. Returns `None` if too few are
    /// free or another process queues.
    fn take_free_permits(
        &mut self,
        settings: &Settings,
        count: u32,
        reserved: u32,
    ) -> Result<Option<u64>> {
        let wanted = reserved.saturating_add(count);
        let gather = |disk: &mut Disk| match disk.slots_mut() {
            Some(slots) => slots.gather(wanted, settings.bits),
            None => Ok(false),
        };
        // The recorded limit may be higher by now.
        let gathered =
            gather(&mut self.disk)? || self.disk.adopt_limit()? && gather(&mut self.disk)?;
        if !gathered {
            return Ok(None);
        }
        step::at(Step::FastList);
        let own = self.own_tickets();
        let line = self.disk.list_if_changed(settings.bits)?;
        if line.iter().any(|it| !own.contains(it)) {
            return Ok(None);
        }
        self.disk.mint(&settings.words, 0)
    }

    /// Takes the permits of a guard back.
    pub(super) fn release_permits(&mut self, permits: Vec<Slot>, want: Want) -> Result<()> {
        let returned = match self.disk.slots_mut() {
            Some(slots) => slots.put_back(permits),
            None => Ok(()),
        };
        let Some(possession) = &mut self.possession else {
            return returned.and(self.give_back_surplus(Served::default()));
        };
        possession.give_back(want);
        let served = self.serve();
        let done = match self.is_someone_inside() {
            true => self.try_give_surplus(),
            false => self.leave(false).0,
        };
        self.drive(Cause::Local, None);
        returned.and(served).and(done)
    }

    /// Gives back the permits in hand that no task of this process needs. An error has no caller
    /// here.
    pub(super) fn give_surplus(&mut self) {
        let _ = self.try_give_surplus();
    }

    fn try_give_surplus(&mut self) -> Result<()> {
        let possession = self.possession.as_ref();
        let served = possession.map(Possession::served);
        self.give_back_surplus(served.unwrap_or_default())
    }

    /// Gives back all permits that are not used, unless the first waiter of this process collects
    /// them.
    pub(super) fn give_back_surplus(&mut self, Served { used, cohort }: Served) -> Result<()> {
        let Some(slots) = self.disk.slots() else {
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
            self.keep_ticket(cohort);
        }
        let settled = match &mut self.possession {
            Some(possession) => possession.settle_tokens(&mut self.disk),
            None => Ok(()),
        };
        let given = match self.disk.slots_mut() {
            Some(slots) => slots.give_back(surplus),
            None => Ok(()),
        };
        settled.and(given)
    }

    /// Returns whether the first waiter of this process is the first of all processes, and so keeps
    /// what it gets.
    fn collects(&self, cohort: Option<CohortId>) -> bool {
        let Some(first) = self.cohorts.first_awake() else {
            return false;
        };
        let stands = |it: &Contender| it.cohort() == first && it.collects();
        cohort == Some(first) || self.contender.as_ref().is_some_and(stands)
    }

    /// Serves a cohort no longer if its contender is not first any more. Its permits in hand are
    /// surplus then.
    pub(super) fn yield_slots(&mut self, cohort: CohortId) {
        let behind = self.contender.as_ref().is_some_and(|it| !it.is_first());
        if let Some(possession) = &mut self.possession
            && possession.door().is_none()
            && possession.cohort() == Some(cohort)
            && behind
        {
            possession.serve(None);
        }
    }

    /// Returns how many permits in hand belong to offers.
    pub(super) fn reserved_permits(&self) -> u32 {
        let possession = self.possession.as_ref();
        let used = possession.map_or(0, Possession::permits);
        let slots = self.disk.slots();
        let out = slots.map_or(0, |it| it.ours() - it.in_hand());
        used.saturating_sub(out)
    }

    /// Changes the number of permits, for a caller that has `held` of them.
    fn resize(&mut self, limit: u32, held: u32) -> Result<Resized> {
        match self.disk.record_limit(limit, held)? {
            Resized::Done => {}
            other => return Ok(other),
        }
        // The close of a slot wakes the first waiter.
        if let Some(path) = self.disk.slots().map(|it| it.path(0)) {
            let at = |e| Error::io("open the slot file", &path, e);
            drop(Door::open(&path, None).map_err(at)?);
        }
        // A process that has all the former permits is notified only of new tickets. This ticket
        // announces the change to it.
        let mode = Mode::Permits(1);
        let ticket = self.disk.take_ticket(mode, None, TakePlace::End)?;
        self.disk.give_up(ticket);
        self.settle();
        Ok(Resized::Done)
    }

    /// Watches the queue directory. A new watch does not report a limit that was raised before.
    pub(super) fn watch_tail(&mut self, bits: Option<u32>) -> Result<()> {
        let fresh = self.tail.watch(bits, &mut self.disk, self.site)?;
        if fresh && self.disk.slots().is_some() {
            self.disk.adopt_limit()?;
        }
        Ok(())
    }

    /// Looks for more permits: another process has queued, perhaps only to announce them.
    pub(super) fn queue_changed(&mut self) {
        if self.waits_for_more() {
            // The watch has fired. If it cannot be set again, a timer looks.
            let _ = self.tail.watch(None, &mut self.disk, self.site);
            self.look_for_more();
        }
    }

    /// Does the same without an event.
    pub(super) fn look_for_more(&mut self) {
        if self.waits_for_more() {
            // If this fails, the next look comes when permits come back.
            let _ = self.adopt_limit();
        }
    }

    /// Adopts the recorded limit. If it is higher, the waiters go on.
    pub(super) fn adopt_limit(&mut self) -> Result<()> {
        if self.disk.adopt_limit()? {
            self.settle();
        }
        Ok(())
    }

    /// Returns whether a task waits although this process has all permits that it knows. Nothing
    /// but a ticket of another process tells it that there are more.
    pub(super) fn waits_for_more(&self) -> bool {
        self.disk.slots().is_some() && self.has_whole() && !self.all_waiters_have_offers()
    }
}
