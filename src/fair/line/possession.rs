//! The lock in this process: handed from task to task by offers, and released.
//!
//! # Algorithm
//!
//! A process has the whole lock, with the door locked exclusively, or a share of it as one of
//! several readers. It offers what it has to the awake waiters of its cohort that are admitted
//! beside those [inside](super::inside): one writer, or all readers up to the next writer. An offer
//! is claimed when its task is polled. When no task is inside, the process leaves.
//!
//! A tick runs once per claim window. An offer that a tick sees for the second time has lapsed. Its
//! waiter counts as frozen until it is polled, and the offer goes to the next waiter;
//! [`cohort`](super::cohort) says what becomes of the others. When all waiters are frozen, the
//! process marks their ticket, unlocks and closes. Other processes bypass that ticket. It is first
//! again when one of its tasks is polled.
//!
//! # Cost
//!
//! A hand-over from writer to writer touches no disk, allocates nothing, and reads no clock. Every
//! 1024th writes the end of the next block of tokens. A hand-over from writer to reader, or back,
//! costs one short write.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::bypass::marks_gone;
use super::cohort::{CohortId, Key};
use super::contender::Cause;
use super::core::Core;
use super::inside::{Extent, Inside};
use super::{Caller, Settings, Share, Visit};
use crate::error::{Error, ErrorKind, Result};
use crate::fair::disk::{Disk, Entered};
use crate::fair::door::Door;
use crate::fair::state::Flag;
use crate::fair::ticket::{Mode, Ticket};
use crate::loss::Loss;
use crate::sys::file::duplicate_for_exec;
use crate::watch::loss_watcher::loss_of;
use crate::watch::{WatchId, watch};

/// How many tokens are reserved on disk at once for hand-overs in memory.
const BLOCK: u64 = 1024;
/// How often the record of a semaphore is tried while another process has it locked.
const TRIES: u32 = 64;

/// What this process has of the lock.
pub(crate) struct Possession {
    pub(super) cohort: Option<CohortId>,
    pub(super) hold: Hold,
    pub(super) inside: Inside,
    /// The tasks and threads whose guards are out.
    pub(super) holders: Vec<Caller>,
    /// Whether the last offer came from another task of this process.
    pub(super) in_memory: bool,
    pub(super) token: u64,
    pub(super) reserved: u64,
    /// The held flag on disk.
    pub(super) flag: bool,
    /// Whether the last holder died inside and no guard has reported it yet.
    pub(super) crashed: bool,
    pub(super) loss: Option<Loss>,
    pub(super) held_watch: Option<WatchId>,
    /// Set on a loss of the present grant. It exists once a caller waits for a loss.
    pub(super) latch: Option<Arc<OnceLock<Loss>>>,
    /// The tickets that this process bypassed. They are first again as soon as their owners wake.
    pub(super) bypassed: Vec<Ticket>,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) since: Instant,
}

/// What is locked on disk.
pub(super) enum Hold {
    /// The lock file. Guards have it too, as long as they live.
    Door { door: Arc<Door>, extent: Extent },
    /// Slots: those in the disk's hand, and those of guards.
    Slots,
}

impl Hold {
    pub(super) fn door(&self) -> Option<&Arc<Door>> {
        match self {
            Self::Door { door, .. } => Some(door),
            Self::Slots => None,
        }
    }

    /// Returns `None` for slots, because only the disk knows how many there are.
    pub(super) fn extent(&self) -> Option<Extent> {
        match self {
            Self::Door { extent, .. } => Some(*extent),
            Self::Slots => None,
        }
    }

    fn new(door: Option<Door>, shares: bool) -> Self {
        match door {
            Some(door) => Self::Door {
                door: Arc::new(door),
                extent: if shares { Extent::Share } else { Extent::Whole },
            },
            None => Self::Slots,
        }
    }
}

impl Possession {
    /// Returns a possession with no task inside yet. `want` is what the door was locked for. A
    /// semaphore has no door.
    pub(super) fn new(
        door: Option<Door>,
        entered: Entered,
        want: Mode,
        settings: &Settings,
    ) -> Self {
        let shares = want != Mode::Exclusive;
        Self {
            cohort: None,
            hold: Hold::new(door, shares),
            inside: Inside::default(),
            holders: Vec::new(),
            in_memory: false,
            token: entered.token,
            reserved: entered.token,
            flag: !shares || entered.predecessor_crashed,
            crashed: entered.predecessor_crashed,
            loss: None,
            held_watch: None,
            latch: None,
            bypassed: Vec::new(),
            label: settings.label.clone(),
            since: Instant::now(),
        }
    }

    /// Notes that a guard is given back.
    fn forget_holder(&mut self, by: Caller) {
        if let Some(index) = self.holders.iter().rposition(|it| *it == by) {
            self.holders.swap_remove(index);
        }
    }

    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// Returns the share of the lock for a new guard.
    pub(super) fn share(&self, want: Mode, disk: &mut Disk) -> Share {
        let count = match want {
            Mode::Permits(count) => count,
            Mode::Exclusive | Mode::Shared => 0,
        };
        match &self.hold {
            Hold::Door { door, .. } => Share::Door(door.clone()),
            Hold::Slots => {
                let permits = disk.slots().map(|it| it.take(count));
                Share::Permits(permits.unwrap_or_default())
            }
        }
    }
}

impl Core {
    /// Returns how much of the lock this process has.
    pub(super) fn extent(&self) -> Option<Extent> {
        let hold = &self.possession.as_ref()?.hold;
        let of_slots = || {
            let slots = self.disk.slots_seen()?;
            let (ours, limit) = (slots.ours(), slots.limit());
            Some(Extent::Permits { ours, limit })
        };
        hold.extent().or_else(of_slots)
    }

    /// Returns whether no other process can enter.
    pub(super) fn has_whole(&self) -> bool {
        self.extent().is_some_and(Extent::is_whole)
    }

    /// Returns whether one more may enter whose turn has come.
    pub(super) fn admits(&self, want: Mode) -> bool {
        let unlost = |it: &&Possession| it.loss.is_none();
        match (self.possession.as_ref().filter(unlost), self.extent()) {
            (Some(possession), Some(extent)) => possession.inside.admits(extent, want),
            _ => false,
        }
    }

    /// Takes a guard back. Fails with `Lost` if the lock was lost; a loss that was not noticed
    /// before is reported only if the caller `listens`.
    pub(crate) fn release(&mut self, share: Share, visit: Visit, listens: bool) -> Result<()> {
        let Visit { want, by } = visit;
        if let Some(possession) = &mut self.possession {
            possession.forget_holder(by);
        }
        match share {
            Share::Permits(permits) => return self.release_permits(permits, want),
            // The possession has a reference of its own.
            Share::Door(door) => drop(door),
        }
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
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

    /// Ends the present grant, and forgets the callers that wait for its loss.
    pub(super) fn end_grant(&mut self) {
        self.forget_lost_wakers();
        if let Some(possession) = &mut self.possession {
            possession.latch = None;
        }
    }

    /// Turns the writer inside into a reader, and admits other readers. Fails if the lock was lost.
    pub(crate) fn downgrade(&mut self) -> Result<()> {
        self.look_for_loss(false);
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
        possession.inside.remove(Mode::Exclusive);
        possession.inside.add(Mode::Shared);
        if let Some(loss) = possession.loss {
            return Err(self.lost(loss));
        }
        let flagged = self.set_flag(false);
        let served = self.serve();
        self.settle();
        flagged.and(served)
    }

    /// Does all that this process would still do for its hold, except to unlock: `exec` is about to
    /// replace its program. Returns a duplicate of the state file, which carries a lock too.
    pub(crate) fn prepare_exec(&mut self) -> Result<Option<File>> {
        self.set_flag(false)?;
        self.tidy();
        self.disk.drop_spares();
        let state = match self.possession.as_ref().map(|it| &it.hold) {
            Some(Hold::Door { .. }) => self.disk.state_file(),
            Some(Hold::Slots) | None => None,
        };
        let duplicate = state.map(duplicate_for_exec).transpose();
        duplicate.map_err(|e| Error::io("duplicate the state file", self.disk.place().state(), e))
    }

    /// Offers the lock to all waiters that are admitted now, in order.
    pub(super) fn serve(&mut self) -> Result<()> {
        let mut tries = 0;
        while let Some((next, want)) = self.next_in_memory() {
            match want {
                Mode::Shared => self.set_flag(false)?,
                Mode::Exclusive => {
                    self.next_token()?;
                    self.set_flag(true)?;
                }
                Mode::Permits(_) if self.next_permits_token(next)? => {}
                // Another process has the record locked for a moment, or the permits were beyond a
                // new limit.
                Mode::Permits(_) if tries < TRIES => {
                    tries += 1;
                    std::thread::yield_now();
                    continue;
                }
                // Its contender, or the next release of permits, tries again.
                Mode::Permits(_) => break,
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

    /// Returns the next waiter in memory, which is the first of the cohort in possession. There is
    /// none if a bypassed waiter has woken.
    fn next_in_memory(&self) -> Option<(Key, Mode)> {
        let possession = self.possession.as_ref()?;
        let cohort = possession.cohort?;
        let first = self.cohorts.first_awake()?;
        if first.id != cohort {
            return None;
        }
        let front = self.cohorts.front(cohort)?;
        let want = self.cohorts.get(front)?.data.want;
        // If the marks cannot be read, a bypassed waiter may have woken.
        let still_frozen = || marks_gone(&self.disk, &possession.bypassed).is_ok_and(|gone| !gone);
        let admitted = self.admits(want) && (possession.bypassed.is_empty() || still_frozen());
        admitted.then_some((front, want))
    }

    /// Sets the token of a hand-over in memory. It is taken from the reserved block, or from a new
    /// one.
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

    /// Makes the record say whether a writer is inside. The flag of a dead holder stays until it is
    /// reported.
    pub(super) fn set_flag(&mut self, held: bool) -> Result<()> {
        let Some(possession) = &mut self.possession else {
            return Ok(());
        };
        if possession.flag == held || possession.crashed {
            return Ok(());
        }
        match held {
            true => self.disk.set_held(possession.reserved)?,
            false => self.disk.clear_held(possession.reserved, Flag::Clear)?,
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
        waiter.data.token = possession.token;
        self.agenda.offered(waiter.data.settings.claim_window);
        let waker = waiter.waker.take();
        waker.into_iter().for_each(|it| self.wakes.push(it));
    }

    /// Moves on after an offer or a guard has gone: offers the lock to the next waiters, or leaves
    /// if no task is inside. If only readers are left, the lock may be shared.
    pub(super) fn settle(&mut self) {
        // An error has no caller here. The remaining waiters contend on disk then.
        let _ = self.serve();
        match &self.possession {
            Some(it) if it.inside.is_empty() => {
                let _ = self.leave(false);
            }
            Some(_) => {
                self.share_if_wanted();
                self.give_surplus();
                self.drive(Cause::Local, None);
            }
            None => self.drive(Cause::Local, None),
        }
    }

    /// Leaves. First the waiters get their tickets, then the lock is released, then the next cohort
    /// contends on disk.
    ///
    /// With `look`, a loss that was not noticed before is found here, while the lock still protects
    /// the look.
    pub(super) fn leave(&mut self, look: bool) -> (Result<()>, Option<Loss>) {
        let Some(mut possession) = self.possession.take() else {
            return (Ok(()), None);
        };
        self.shareable.store(false, Ordering::SeqCst);
        if let Some(id) = possession.held_watch.take() {
            watch().forget(self.watcher_id, id);
        }
        self.agenda.left();
        if let Some(cohort) = possession.cohort {
            self.keep_place(cohort);
        }
        self.mark_frozen(possession.cohort);
        let (cleared, left, loss) = match possession.hold {
            Hold::Door { door, extent } => {
                let (token, unreported) = (possession.token, possession.crashed);
                let cleared = match (extent, unreported) {
                    (Extent::Whole, true) => self.disk.clear_held(token, Flag::Held),
                    (Extent::Whole, false) => self.disk.clear_held(token, Flag::Clear),
                    (_, true) => self.disk.untake_charge(&door),
                    (_, false) => Ok(()),
                };
                let path = &self.disk.place().door;
                let loss = look.then(|| loss_of(path, door.id())).flatten();
                (cleared, self.disk.leave(door), loss)
            }
            Hold::Slots => {
                let settled = self.settle_tokens(possession.token, possession.reserved);
                (settled, self.give_back_surplus(0, possession.cohort), None)
            }
        };
        if let Some(cohort) = possession.cohort {
            self.drop_if_empty(cohort);
        }
        self.tidy();
        self.drive(Cause::Local, None);
        (cleared.and(left), loss)
    }

    pub(super) fn settings_of(&self, id: CohortId) -> Option<Arc<Settings>> {
        let front = self.cohorts.front(id)?;
        Some(self.cohorts.get(front)?.data.settings.clone())
    }

    /// Looks once per claim window whether offers are claimed. An offer that was there at the last
    /// tick lapses.
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
            if self.cohort_woken {
                self.cohorts.freeze_unpolled(cohort);
            }
            lapsed.into_iter().for_each(|key| self.lapse(key));
            self.cohort_woken = true;
            self.note_frozen();
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
        self.cohorts.lapse(key, |waker| wakes.push(waker));
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
