//! The door in this process's hands: from task to task as an offer, and out.
//!
//! # Algorithm
//!
//! A process has the whole lock, with the door locked exclusively, or a share of it, as one of several that read. What it has is
//! offered to those of its cohort who are awake and whom the ones [inside](super::inside) admit: one writer, or all readers up to the next
//! writer. An offer is claimed when its task is polled. With nobody inside the process leaves.
//!
//! Once per claim window a tick looks: an offer that is as old as the last tick has lapsed. Its task is asleep until
//! it is polled, the rest of the cohort is called, and the offer goes to the next one; whoever has not answered by the next
//! tick is asleep too. With nobody awake the process marks its ticket, unlocks and closes: it is passed on disk, and first
//! again when one of its tasks is polled.
//!
//! # Readers under a whole lock
//!
//! After a writer, readers of the same process go in under the exclusive door. So a process that is alone hands the lock
//! from readers to writers and back without the disk, save for the held flag, which says at any time whether a writer would die inside. As
//! soon as another process queues, and no writer of our own comes first, the process [shares](Core::share): it makes its locks
//! shared ones and closes a descriptor of the door, which wakes the readers who wait there.
//!
//! # Cost
//!
//! A hand-over from writer to writer touches no disk, allocates nothing, and reads no clock; every 1024th writes the end of the next
//! block of tokens. From writer to reader and back it costs one short write.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::super::disk::{Entered, TakePlace};
use super::super::door::Door;
use super::super::ticket::{Mode, Ticket};
use super::super::vigil::loss_of;
use super::super::watch::{WatchId, watch};
use super::Settings;
use super::cohort::{Cohort, CohortId, Key};
use super::contender::Cause;
use super::core::Core;
use super::inside::{Extent, Inside};
use super::passing::marks_gone;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Loss;

/// How many tokens are reserved on disk at once for hand-overs in memory.
const BLOCK: u64 = 1024;

/// The door in this process's hands.
pub(crate) struct Possession {
    pub(super) cohort: Option<CohortId>,
    /// Guards have it too, as long as they live.
    pub(super) door: Arc<Door>,
    pub(super) extent: Extent,
    pub(super) inside: Inside,
    /// Whether the last offer came from another task of this process.
    pub(super) in_memory: bool,
    pub(super) token: u64,
    pub(super) reserved: u64,
    /// What the held flag on disk says.
    pub(super) flag: bool,
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

impl Possession {
    /// With nobody inside yet; `want` is what the door was locked for.
    pub(super) fn new(door: Door, entered: Entered, want: Mode, settings: &Settings) -> Self {
        let shares = want == Mode::Shared;
        Self {
            cohort: None,
            door: Arc::new(door),
            extent: if shares { Extent::Share } else { Extent::Whole },
            inside: Inside::default(),
            in_memory: false,
            token: entered.token,
            reserved: entered.token,
            flag: !shares || entered.predecessor_crashed,
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

    pub(super) fn admits(&self, want: Mode) -> bool {
        self.loss.is_none() && self.inside.admits(self.extent, want)
    }
}

impl Core {
    /// A guard is given back. `Lost` when there was nothing left to give back, for a caller who `listens`.
    pub(crate) fn release(&mut self, door: Arc<Door>, want: Mode, listens: bool) -> Result<()> {
        let Some(possession) = &mut self.possession else {
            return Door::leave_last(door).map_err(|e| self.io("unlock the lock file", e));
        };
        drop(door);
        possession.inside.remove(want);
        let lost = possession.loss;
        let alone = possession.inside.is_empty();
        if alone {
            self.end_grant();
        }
        let served = self.serve();
        let still = self
            .possession
            .as_ref()
            .is_some_and(|it| !it.inside.is_empty());
        if still {
            if alone {
                self.share_if_wanted();
            }
            return lost.map_or(served, |loss| Err(self.lost(loss)));
        }
        let (left, seen) = self.leave(listens);
        match lost.or(seen) {
            Some(loss) => Err(self.lost(loss)),
            None => served.and(left),
        }
    }

    fn lost(&self, loss: Loss) -> Error {
        let door = &self.disk.place().door;
        Error::at(ErrorKind::Lost, loss.to_string(), door)
    }

    /// The present grant is over: forgets who asked about its loss.
    pub(super) fn end_grant(&mut self) {
        self.forget_lost_wakers();
        if let Some(possession) = &mut self.possession {
            possession.latch = None;
        }
    }

    /// A writer goes on as a reader, and those who read may come in.
    pub(crate) fn downgrade(&mut self) -> Result<()> {
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
        possession.inside.remove(Mode::Exclusive);
        possession.inside.add(Mode::Shared);
        let flagged = self.set_flag(false);
        let served = self.serve();
        self.settle();
        flagged.and(served)
    }

    /// Offers the lock to all who may have it now, the first in line first.
    pub(super) fn serve(&mut self) -> Result<()> {
        while let Some((next, want)) = self.next_in_memory() {
            match want {
                Mode::Shared => self.set_flag(false)?,
                Mode::Exclusive | Mode::Permits(_) => {
                    self.next_token()?;
                    self.set_flag(true)?;
                }
            }
            if let Some(possession) = &mut self.possession {
                possession.in_memory = true;
            }
            self.offer(next, want);
            if want == Mode::Exclusive {
                break;
            }
        }
        Ok(())
    }

    /// Who gets the lock in memory: the first of the cohort in possession, unless somebody who was passed has woken.
    fn next_in_memory(&self) -> Option<(Key, Mode)> {
        let possession = self.possession.as_ref()?;
        let cohort = possession.cohort?;
        let first = self.cohorts.first_awake()?;
        if first.id != cohort {
            return None;
        }
        let front = self.cohorts.front(cohort)?;
        let want = self.cohorts.get(front)?.data.want;
        // What cannot be looked at is not known to sleep on.
        let asleep = || marks_gone(&self.disk, &possession.passed).is_ok_and(|gone| !gone);
        let admitted = possession.admits(want) && (possession.passed.is_empty() || asleep());
        admitted.then_some((front, want))
    }

    /// The token for a hand-over in memory: from the block reserved on disk, or from a new block.
    fn next_token(&mut self) -> Result<()> {
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

    /// Makes the record say whether a writer is inside. A flag that somebody left stays until it is told.
    pub(super) fn set_flag(&mut self, held: bool) -> Result<()> {
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
        if possession.flag == held || possession.crashed {
            return Ok(());
        }
        match held {
            true => self.disk.set_held(possession.reserved)?,
            false => self.disk.clear_held(possession.reserved, false)?,
        }
        possession.flag = held;
        Ok(())
    }

    pub(super) fn offer(&mut self, to: Key, want: Mode) {
        self.offers += 1;
        let (Some(possession), Some(waiter)) =
            (&mut self.possession, self.cohorts.offer(to, self.offers))
        else {
            return;
        };
        possession.inside.add(want);
        self.agenda.offered(waiter.data.settings.claim_window);
        let waker = waiter.waker.take();
        waker.into_iter().for_each(|it| self.wakes.push(it));
    }

    /// An offer is not wanted any more, or a guard is gone: to the next ones awake, or out; and if only readers are left, perhaps shared.
    pub(super) fn settle(&mut self) {
        // Nobody is there to hear of a failure; who still waits then goes by way of the disk.
        let _ = self.serve();
        match &self.possession {
            Some(it) if it.inside.is_empty() => {
                let _ = self.leave(false);
            }
            Some(_) => {
                self.share_if_wanted();
                self.drive(Cause::Local, None);
            }
            None => self.drive(Cause::Local, None),
        }
    }

    /// Readers are inside under the whole lock: it is shared as soon as another process queues, unless a writer of our own comes first.
    pub(super) fn share_if_wanted(&mut self) {
        let Some(possession) = &self.possession else {
            return;
        };
        if possession.extent == Extent::Share {
            self.line_up_sleepers();
            return;
        }
        let whole = possession.loss.is_none();
        let lends = whole && possession.inside.only_readers();
        if !lends && !self.lends.load(Ordering::Relaxed) {
            return;
        }
        let cohort = possession.cohort;
        // Before the look, so that whoever queues after it is heard.
        self.lends.store(lends, Ordering::SeqCst);
        let first = self.cohorts.first_awake().map(|it| it.id);
        if !lends || (first.is_some() && first == cohort) || self.is_alone() {
            return;
        }
        match self.share() {
            Ok(true) => self.drive(Cause::Local, None),
            // Whether we still have the lock is not known.
            Ok(false) | Err(_) => self.lose(Loss::Unlocked),
        }
    }

    /// Makes our locks shared ones. `false` when one was lost on the way.
    fn share(&mut self) -> Result<bool> {
        // Our own exclusive ticket would hold up those whom we let in.
        self.tidy();
        self.line_up_sleepers();
        let Some(possession) = &mut self.possession else {
            return Ok(true);
        };
        if possession.flag || possession.reserved != possession.token {
            self.disk.clear_held(possession.token, possession.crashed)?;
            possession.reserved = possession.token;
            possession.flag = possession.crashed;
        }
        let path = &self.disk.place().door.clone();
        let at = |e| Error::io("share the lock of the lock file", path, e);
        if !possession.door.share().map_err(at)? || !self.disk.share_state()? {
            return Ok(false);
        }
        possession.extent = Extent::Share;
        self.lends.store(false, Ordering::SeqCst);
        possession.door.ring(path);
        Ok(true)
    }

    /// Where the lock is shared, those of our cohort who sleep stand in line with a mark as if we had left: others pass them, until they
    /// wake. Nobody is there to hear of a failure; then others wait for us to leave.
    fn line_up_sleepers(&mut self) {
        let Some(id) = self.possession.as_ref().and_then(|it| it.cohort) else {
            return;
        };
        let cohort = self.cohorts.cohort(id);
        if !cohort.is_some_and(Cohort::has_only_sleepers_left) || self.place_on_disk(id).is_err() {
            return;
        }
        if let Some(own) = self.cohorts.cohort(id).and_then(|it| it.ticket.as_ref())
            && own.is_marked().is_ok_and(|marked| !marked)
        {
            let _ = self.disk.mark_own(own);
        }
    }

    /// A sleeper of the cohort in possession has woken: nobody may pass it any more.
    pub(super) fn unmark_own(&mut self, key: Key) {
        let held = self.possession.as_ref().and_then(|it| it.cohort);
        let cohort = self.cohorts.get(key).map(|it| it.cohort);
        if let Some(id) = cohort.filter(|_| cohort == held)
            && let Some(own) = self.cohorts.cohort(id).and_then(|it| it.ticket.as_ref())
            && own.is_marked().unwrap_or(true)
        {
            // Should this fail, it is tried again when the cohort stands in line.
            let _ = own.set_mark(false);
        }
    }

    /// Out: the queue first, then the lock, then whoever waits here behind others.
    ///
    /// With `look`, a loss that nobody asked about is seen here, while the lock still protects the look.
    pub(super) fn leave(&mut self, look: bool) -> (Result<()>, Option<Loss>) {
        let Some(mut possession) = self.possession.take() else {
            return (Ok(()), None);
        };
        self.lends.store(false, Ordering::SeqCst);
        if let Some(id) = possession.held_watch.take() {
            watch().forget(self.seat, id);
        }
        self.agenda.left();
        if let Some(cohort) = possession.cohort {
            self.keep_place(cohort);
        }
        self.mark_sleepers(possession.cohort);
        let cleared = match possession.extent {
            Extent::Whole => self.disk.clear_held(possession.token, possession.crashed),
            // In charge of a death, and nobody was told: the next one is to be. If others read already, it is the next writer.
            Extent::Share if possession.crashed && is_last_inside(&possession.door) => {
                self.disk.clear_held(possession.token, true)
            }
            Extent::Share => Ok(()),
        };
        let loss = look
            .then(|| loss_of(&self.disk.place().door, possession.door.id()))
            .flatten();
        let left = self.disk.leave(possession.door);
        if let Some(cohort) = possession.cohort {
            self.drop_if_empty(cohort);
        }
        self.tidy();
        self.drive(Cause::Local, None);
        (cleared.and(left), loss)
    }

    /// Those of other cohorts who had offers and slept: others pass them until they wake.
    fn mark_sleepers(&mut self, but: Option<CohortId>) {
        let asleep = self
            .cohorts
            .iter()
            .filter(|it| it.sleeps() && Some(it.id) != but);
        for own in asleep.filter_map(|it| it.ticket.as_ref()) {
            // Without a mark they are passed all the same, two claim windows later.
            let _ = self.disk.mark_own(own);
        }
    }

    /// Whoever is left in a cohort that leaves the door keeps its place on disk; if all are asleep, with a mark, so that
    /// others pass.
    pub(super) fn keep_place(&mut self, id: CohortId) {
        let Some(cohort) = self.cohorts.cohort(id).filter(|it| it.length > 0) else {
            return;
        };
        let asleep = cohort.sleeps();
        let mut result = self.place_on_disk(id);
        if asleep && let Some(own) = self.cohorts.cohort(id).and_then(|it| it.ticket.as_ref()) {
            result = result.and(self.disk.mark_own(own));
        }
        if let Err(error) = result {
            self.fail_all(id, error);
        }
    }

    /// Gives a cohort that has been in possession a ticket, if it has none.
    fn place_on_disk(&mut self, id: CohortId) -> Result<()> {
        let Some(cohort) = self.cohorts.cohort(id).filter(|it| it.ticket.is_none()) else {
            return Ok(());
        };
        let mode = cohort.mode;
        let settings = self.settings_of(id);
        let bits = settings.as_ref().and_then(|it| it.mode);
        let words = settings.as_ref().map(|it| &it.words);
        let place = TakePlace::First;
        let ticket = self.disk.take_ticket(mode, bits, words, place)?;
        if let Some(cohort) = self.cohorts.cohort_mut(id) {
            cohort.ticket = Some(ticket);
        }
        Ok(())
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
        if self.cohorts.offered() == 0 {
            self.lapsing = None;
            return;
        }
        let seen = self.lapsing.replace(self.offers);
        let lapsed = seen.map(|seen| self.cohorts.offered_up_to(seen));
        let lapsed = lapsed.unwrap_or_default();
        let first = lapsed.first().and_then(|key| self.cohorts.get(*key));
        if let Some(cohort) = first.map(|it| it.cohort) {
            if self.roll_call {
                self.cohorts.end_roll_call(cohort);
            }
            lapsed.into_iter().for_each(|key| self.lapse(key));
            self.roll_call = true;
            self.note_overslept();
            self.settle();
            self.lapsing = Some(self.offers);
        }
        if let Some(window) = self.shortest_offered_window() {
            self.agenda.offered(window);
        }
    }

    fn lapse(&mut self, key: Key) {
        let want = self.cohorts.get(key).map(|it| it.data.want);
        let wakes = &mut self.wakes;
        self.cohorts
            .begin_roll_call(key, |waker| wakes.push(waker.clone()));
        if let (Some(possession), Some(want)) = (&mut self.possession, want) {
            possession.inside.remove(want);
        }
    }

    fn shortest_offered_window(&self) -> Option<Duration> {
        let offered = self.cohorts.offered_up_to(u64::MAX).into_iter();
        let windows = offered.filter_map(|key| self.cohorts.get(key));
        windows.map(|it| it.data.settings.claim_window).min()
    }
}

/// Whether a door that is shared, and is to be left at once, is shared with nobody. Asked by trying to have it alone.
fn is_last_inside(door: &Door) -> bool {
    door.try_lock(false).unwrap_or(false)
}
