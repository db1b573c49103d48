//! How a waiter bypasses the frozen waiters before it.
//!
//! # Algorithm
//!
//! Once per claim window, a waiter that is not first looks whether the door is free although
//! tickets are before its own. Let `k` be the number of unmarked tickets before it. The owners of
//! these tickets are frozen if the door is free again in each of the next `k + ceil((k-1)/4)`
//! windows, with the same token and the same `k` tickets. Then the waiter keeps the door locked,
//! marks those tickets, and enters.
//!
//! A frozen waiter that wakes removes its mark and is first again. A waiter that counted on a mark
//! looks at it again after it has locked the door. If the mark is gone, it gives the door back.

use std::time::Duration;

use super::at_slots::give_part_back;
use super::contender::{Cause, Contender, Flow, Outcome, Position};
use crate::error::{Error, Result};
use crate::fair::disk::Disk;
use crate::fair::door::Door;
use crate::fair::ticket::queue::{Other, Own, Queue};
use crate::fair::ticket::{Mode, Ticket};
use crate::step::{self, Step};
use crate::watch::wait::{COARSE, after};

/// How often a door that was free may be found locked before it counts as held.
const REFUSALS: u32 = 4;

/// What was found free, and is locked by us.
enum Free {
    Door(Door),
    /// As many slots as the first waiter could have taken. They are in the disk's hand.
    Slots,
}

impl Free {
    fn give_back(self, disk: &mut Disk, reserved: u32) -> Result<()> {
        match self {
            Self::Door(door) => door
                .leave()
                .map_err(|e| Error::io("unlock the lock file", &disk.place().door, e)),
            Self::Slots => give_part_back(disk, reserved),
        }
    }
}

/// How long the door has been free although tickets were before ours. The count starts anew if the
/// token or those tickets change.
pub(super) struct BypassCount {
    token: u64,
    /// How many unmarked tickets are before ours, and the first of them.
    before: (usize, Option<Ticket>),
    windows: usize,
    /// How often in a row the door was found locked since then.
    refusals: u32,
}

impl Contender {
    /// Returns whether this waiter is not first, and the door that was locked a window ago still
    /// is. Then there is nothing to look at. So a waiter that waits long costs one system call a
    /// window.
    pub(super) fn is_door_still_locked(&mut self, disk: &Disk) -> Result<bool> {
        let path = &disk.place().door;
        let Some(door) = &self.probe else {
            return Ok(false);
        };
        if !matches!(self.position, Position::Behind { .. })
            || !door.is_current(path).unwrap_or(false)
        {
            return Ok(false);
        }
        step::at(Step::Probe);
        let free = door
            .try_lock(false)
            .map_err(|e| Error::io("lock the lock file", path, e))?;
        if !free {
            self.count_refusal();
            return Ok(true);
        }
        // It is given back, and the look starts from the beginning: list, then probe.
        step::at(Step::GiveBack);
        if let Some(door) = self.probe.take() {
            let _ = door.leave();
        }
        Ok(false)
    }

    /// Looks once per window whether the waiters before this one are frozen. Reaps marked tickets
    /// of dead owners.
    pub(super) fn look_for_bypass(&mut self, own: &Own, disk: &mut Disk) -> Result<Outcome> {
        let windows_off = self.settings.claim_window == Duration::MAX;
        if windows_off || !matches!(self.position, Position::Behind { .. }) {
            self.bypass_count = None;
            return Ok(Outcome::Sleep);
        }
        disk.list(self.settings.mode)?;
        let Some(queue) = disk.open_queue() else {
            return Ok(Outcome::Sleep);
        };
        if !queue.line().contains(&own.ticket) {
            self.reset();
            return Ok(Outcome::TicketGone);
        }
        let before = awake_before(queue, own.ticket)?;
        if before.0 == 0 {
            self.bypass_count = None;
            return Ok(Outcome::Sleep);
        }
        let Some(free) = self.find_free(before.1, disk)? else {
            return Ok(Outcome::Sleep);
        };
        let token = match disk.peek_token() {
            Ok(token) => token,
            Err(error) => {
                let _ = free.give_back(disk, self.reserved);
                return Err(error);
            }
        };
        let windows = match &self.bypass_count {
            Some(then) if then.token == token && then.before == before => then.windows + 1,
            _ => 0,
        };
        self.bypass_count = Some(BypassCount {
            token,
            before,
            windows,
            refusals: 0,
        });
        if windows < windows_to_bypass(before.0) {
            step::at(Step::GiveBack);
            free.give_back(disk, self.reserved)?;
            return Ok(Outcome::Sleep);
        }
        match free {
            Free::Door(door) => self.bypass(own, disk, door),
            Free::Slots => self.bypass_to_slots(own, disk),
        }
    }

    /// Locks what is free although tickets are before ours; `first` is the first of them.
    fn find_free(&mut self, first: Option<Ticket>, disk: &mut Disk) -> Result<Option<Free>> {
        if disk.slots_seen().is_none() {
            return Ok(self.free_door(disk)?.map(Free::Door));
        }
        step::at(Step::Probe);
        let limit = disk.slots_seen().map_or(1, |it| it.limit());
        let needed = match first.map(|it| it.mode) {
            Some(Mode::Permits(count)) => count,
            _ => limit,
        };
        let wanted = self.reserved.saturating_add(needed);
        let gathered = match disk.slots() {
            // This process may never be able to lock as many slots as the first waiter wants. Then
            // nothing shows that the first waiter is frozen.
            Some(slots) => slots.gather_reachable(wanted, self.settings.mode)?.0,
            None => false,
        };
        if !gathered {
            give_part_back(disk, self.reserved)?;
            self.count_refusal();
        }
        Ok(gathered.then_some(Free::Slots))
    }

    /// Marks the tickets of the frozen waiters before this one, and collects as the first waiter.
    fn bypass_to_slots(&mut self, own: &Own, disk: &mut Disk) -> Result<Outcome> {
        self.reset();
        self.bypass_count = None;
        let marked = mark_all_before(own, disk, self.settings.mode, &mut self.news.bypassed);
        let flow = marked.and_then(|bypassed| self.approach_slots(disk, bypassed, Cause::Timer));
        match flow {
            Ok(Flow::Done(outcome)) => Ok(outcome),
            Ok(Flow::Again) => Ok(Outcome::Sleep),
            Err(error) => {
                let _ = give_part_back(disk, self.reserved);
                Err(error)
            }
        }
    }

    /// Locks the door if it is free.
    pub(super) fn free_door(&mut self, disk: &Disk) -> Result<Option<Door>> {
        let path = &disk.place().door;
        let at = |step, error| Error::io(step, path, error);
        step::at(Step::Probe);
        let kept = match self.probe.take() {
            Some(door) if door.is_current(path).unwrap_or(false) => Some(door),
            _ => Door::open_existing(path).map_err(|e| at("open the lock file", e))?,
        };
        let Some(door) = kept else {
            return Ok(None);
        };
        // There must be no readers inside either: the waiters before this one may rightly wait for
        // them.
        if !door
            .try_lock(false)
            .map_err(|e| at("lock the lock file", e))?
        {
            self.probe = Some(door);
            self.count_refusal();
            return Ok(None);
        }
        if !door.is_current(path).unwrap_or(false) {
            self.bypass_count = None;
            let _ = door.leave();
            return Ok(None);
        }
        Ok(Some(door))
    }

    /// Counts a refusal. The door may be held, or tried by another waiter at this moment. In the
    /// second case the count must not start anew, or the waiter behind this one would bypass first.
    fn count_refusal(&mut self) {
        let Some(count) = &mut self.bypass_count else {
            return;
        };
        count.refusals += 1;
        if count.refusals > REFUSALS {
            self.bypass_count = None;
        } else {
            self.window_at = after(COARSE * count.refusals);
        }
    }

    /// Marks the tickets of the frozen waiters before this one, and enters.
    pub(super) fn bypass(&mut self, own: &Own, disk: &mut Disk, door: Door) -> Result<Outcome> {
        self.reset();
        self.bypass_count = None;
        let marked = mark_all_before(own, disk, self.settings.mode, &mut self.news.bypassed);
        let (bypassed, result) = match marked {
            Ok(bypassed) => (bypassed, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        let path = disk.place().door.clone();
        let shared = match self.shares() {
            true => door.share(),
            false => Ok(true),
        };
        if self.shares() {
            // Other readers may have found the door locked exclusively at this moment.
            door.ring(&path);
        }
        self.position = Position::Entering { door, bypassed };
        let shared = shared.map_err(|e| Error::io("share the lock of the lock file", path, e));
        let result = match result.and(shared) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.give_back();
                return Ok(Outcome::Sleep);
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.give_back();
            return Err(error);
        }
        match self.enter(disk)? {
            Flow::Done(outcome) => Ok(outcome),
            Flow::Again => Ok(Outcome::Sleep),
        }
    }
}

/// Returns for how many windows the door must have been free, with this many unmarked tickets
/// before ours: one for each, and a quarter more for all but the first. So two waiters with the
/// same window bypass in their order, however their timers run.
fn windows_to_bypass(before: usize) -> usize {
    before + before.saturating_sub(1).div_ceil(4)
}

/// Returns how many unmarked tickets are before ours, and the first of them. Reaps marked tickets
/// of dead owners.
fn awake_before(queue: &Queue, own: Ticket) -> Result<(usize, Option<Ticket>)> {
    let (mut count, mut first) = (0, None);
    for &ticket in queue.line().iter().take_while(|it| **it < own) {
        if !queue.is_marked(ticket)? {
            count += 1;
            first = first.or(Some(ticket));
        } else if let Other::Open(file) = queue.open_other(ticket)? {
            queue.reap_if_dead(ticket, &file)?;
        }
    }
    Ok((count, first))
}

/// Marks the tickets before ours whose owners live, those of readers too, because waiters behind us
/// count the unmarked ones. Returns those marked tickets that conflict with ours.
fn mark_all_before(
    own: &Own,
    disk: &mut Disk,
    mode: Option<u32>,
    marked: &mut usize,
) -> Result<Vec<Ticket>> {
    disk.list(mode)?;
    let mut bypassed = Vec::new();
    let Some(queue) = disk.open_queue() else {
        return Ok(bypassed);
    };
    for &ticket in queue.line().iter().take_while(|it| **it < own.ticket) {
        if queue.is_unmarked(ticket)? {
            match queue.open_other(ticket)? {
                Other::Open(file) if queue.reap_if_dead(ticket, &file)? => {}
                Other::Open(file) if queue.is_linked_elsewhere(ticket, &file)? => continue,
                Other::Open(file) if queue.mark(ticket, &file)? => *marked += 1,
                Other::Gone => {}
                // It is bypassed without a mark, so there is no mark to look at later.
                Other::Open(_) | Other::Denied => continue,
            }
        }
        if ticket.mode.conflicts(own.ticket.mode) {
            bypassed.push(ticket);
        }
    }
    Ok(bypassed)
}

/// Removes the mark of our own ticket, because its waiter is awake. Returns `true` if there was
/// one.
pub(super) fn unmark(own: &Own, disk: &Disk) -> Result<bool> {
    let at = |step, error| Error::io(step, disk.place().queue.join(own.ticket.name()), error);
    let marked = own
        .is_marked()
        .map_err(|e| at("look at the own ticket", e))?;
    if marked {
        own.set_mark(false)
            .map_err(|e| at("unmark the own ticket", e))?;
    }
    Ok(marked)
}

/// Reaps those of the marked tickets whose owners are dead. No process watches a marked ticket, so
/// this wakes no waiter.
pub(super) fn reap_bypassed(queue: &Queue, bypassed: &[Ticket]) -> Result<()> {
    for &ticket in bypassed {
        if let Other::Open(file) = queue.open_other(ticket)? {
            queue.reap_if_dead(ticket, &file)?;
        }
    }
    Ok(())
}

/// Returns whether a bypassed ticket has lost its mark: its owner is awake, and first again.
pub(super) fn marks_gone(disk: &Disk, bypassed: &[Ticket]) -> Result<bool> {
    let Some(queue) = disk.open_queue() else {
        return Ok(false);
    };
    for &ticket in bypassed {
        if queue.is_unmarked(ticket)? {
            return Ok(true);
        }
    }
    Ok(false)
}
