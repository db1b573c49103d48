//! How those who sleep when their turn comes are passed.
//!
//! Once per claim window a waiter that is not first looks whether the door is free although somebody is before it. Free,
//! and free again `k` windows later (a quarter more for `k` above 1) with the same token and the same `k` unmarked tickets before it: they are asleep. It takes the
//! door, marks their tickets, and enters. A sleeper that wakes takes its own mark off and is first again; whoever
//! counted on a mark looks at it once more when it has the door, and gives the door back if the mark is gone.

use std::time::Duration;

use super::super::disk::Disk;
use super::super::door::Door;
use super::super::step::{self, Step};
use super::super::ticket::queue::{Other, Own, Queue};
use super::super::ticket::{Mode, Ticket};
use super::super::wait::{COARSE, after};
use super::at_slots::give_part_back;
use super::contender::{Cause, Contender, Flow, Outcome, Stage};
use crate::error::{Error, Result};

/// How often a door that was free may be found locked before it counts as held.
const REFUSALS: u32 = 4;

/// What was found free.
enum Free {
    Door(Door),
    /// So many slots as whoever is first could have had; in the disk's hand.
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

/// The door was free although others stood before us: what must not change until we may pass.
pub(super) struct Still {
    token: u64,
    /// The unmarked tickets before ours: how many, and the first.
    before: (usize, Option<Ticket>),
    windows: usize,
    /// How often in a row the door was found locked since then.
    refusals: u32,
}

impl Contender {
    /// Behind others, with a door that was locked a window ago and still is: there is nothing to look at. A waiter that has
    /// long been idle pays one system call a window.
    pub(super) fn is_held_up(&mut self, disk: &Disk) -> Result<bool> {
        let path = &disk.place().door;
        let Some(door) = &self.probe else {
            return Ok(false);
        };
        if !matches!(self.stage, Stage::Behind { .. }) || !door.is_current(path).unwrap_or(false) {
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
        // Back, and from the beginning: list, then probe.
        step::at(Step::GiveBack);
        if let Some(door) = self.probe.take() {
            let _ = door.leave();
        }
        Ok(false)
    }

    /// Once per window: clears away the marked dead, and looks whether those before us are asleep.
    pub(super) fn look_past(&mut self, own: &Own, disk: &mut Disk) -> Result<Outcome> {
        let windows_off = self.settings.claim_window == Duration::MAX;
        if windows_off || !matches!(self.stage, Stage::Behind { .. }) {
            self.still = None;
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
            self.still = None;
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
        let windows = match &self.still {
            Some(then) if then.token == token && then.before == before => then.windows + 1,
            _ => 0,
        };
        self.still = Some(Still {
            token,
            before,
            windows,
            refusals: 0,
        });
        if windows < windows_to_pass(before.0) {
            step::at(Step::GiveBack);
            free.give_back(disk, self.reserved)?;
            return Ok(Outcome::Sleep);
        }
        match free {
            Free::Door(door) => self.pass(own, disk, door),
            Free::Slots => self.pass_to_slots(own, disk),
        }
    }

    /// What is free although others stand before us, of whom `first` is the first; locked by us.
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
            // So many as the first one wants there may never be for us: then nothing tells that it
            // sleeps.
            Some(slots) => slots.gather_reachable(wanted, self.settings.mode)?.0,
            None => false,
        };
        if !gathered {
            give_part_back(disk, self.reserved)?;
            self.count_refusal();
        }
        Ok(gathered.then_some(Free::Slots))
    }

    /// Those before us are asleep: marks them, and collects as the first.
    fn pass_to_slots(&mut self, own: &Own, disk: &mut Disk) -> Result<Outcome> {
        self.reset();
        self.still = None;
        let marked = mark_all_before(own, disk, self.settings.mode, &mut self.news.passed);
        let flow = marked.and_then(|passed| self.approach_slots(disk, passed, Cause::Timer));
        match flow {
            Ok(Flow::Done(outcome)) => Ok(outcome),
            Ok(Flow::Again) => Ok(Outcome::Sleep),
            Err(error) => {
                let _ = give_part_back(disk, self.reserved);
                Err(error)
            }
        }
    }

    /// The door, locked, if nobody holds it.
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
        // Not even readers may be inside: else those before us may rightly wait for them.
        if !door
            .try_lock(false)
            .map_err(|e| at("lock the lock file", e))?
        {
            self.probe = Some(door);
            self.count_refusal();
            return Ok(None);
        }
        if !door.is_current(path).unwrap_or(false) {
            self.still = None;
            let _ = door.leave();
            return Ok(None);
        }
        Ok(Some(door))
    }

    /// A door found locked may be held, or only tried by somebody like us in this instant: that must not start the count
    /// afresh, or the one behind us would be first to pass.
    fn count_refusal(&mut self) {
        let Some(still) = &mut self.still else { return };
        still.refusals += 1;
        if still.refusals > REFUSALS {
            self.still = None;
        } else {
            self.window_at = after(COARSE * still.refusals);
        }
    }

    /// Those before us are asleep: marks them and goes in.
    pub(super) fn pass(&mut self, own: &Own, disk: &mut Disk, door: Door) -> Result<Outcome> {
        self.reset();
        self.still = None;
        let marked = mark_all_before(own, disk, self.settings.mode, &mut self.news.passed);
        let (passed, result) = match marked {
            Ok(passed) => (passed, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        let path = disk.place().door.clone();
        let shared = match self.shares() {
            true => door.share(),
            false => Ok(true),
        };
        if self.shares() {
            // Other readers may have found it locked in this instant.
            door.ring(&path);
        }
        self.stage = Stage::Entering { door, passed };
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

/// How long the door must have been free for the one with so many live tickets before it. Beyond one window each, a
/// quarter more for everyone but the first, so that two with the same window pass in their order whatever their timers do.
fn windows_to_pass(before: usize) -> usize {
    before + before.saturating_sub(1).div_ceil(4)
}

/// The unmarked tickets before ours: how many, and the first. Those marked whose owners are dead are cleared away.
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

/// Marks everybody before us who lives, readers too: those behind us count from what still stands unmarked. Returns
/// all who are marked then, save those whom we may meet inside.
fn mark_all_before(
    own: &Own,
    disk: &mut Disk,
    mode: Option<u32>,
    marked: &mut usize,
) -> Result<Vec<Ticket>> {
    disk.list(mode)?;
    let mut passed = Vec::new();
    let Some(queue) = disk.open_queue() else {
        return Ok(passed);
    };
    for &ticket in queue.line().iter().take_while(|it| **it < own.ticket) {
        if queue.is_unmarked(ticket)? {
            match queue.open_other(ticket)? {
                Other::Open(file) if queue.reap_if_dead(ticket, &file)? => {}
                Other::Open(file) if queue.is_linked_elsewhere(ticket, &file)? => continue,
                Other::Open(file) if queue.mark(ticket, &file)? => *marked += 1,
                Other::Gone => {}
                // It is passed without a mark, so there is none to look at once more.
                Other::Open(_) | Other::Shut => continue,
            }
        }
        if ticket.mode.conflicts(own.ticket.mode) {
            passed.push(ticket);
        }
    }
    Ok(passed)
}

/// We are awake: takes the mark off our ticket; `true` when there was one.
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

/// Clears away those marked tickets whose owners are dead. Nobody watches a marked ticket, so this wakes nobody.
pub(super) fn reap_passed(queue: &Queue, passed: &[Ticket]) -> Result<()> {
    for &ticket in passed {
        if let Other::Open(file) = queue.open_other(ticket)? {
            queue.reap_if_dead(ticket, &file)?;
        }
    }
    Ok(())
}

/// Whether a ticket that we pass has lost its mark: its owner is awake, and first again.
pub(super) fn marks_gone(disk: &Disk, passed: &[Ticket]) -> Result<bool> {
    let Some(queue) = disk.open_queue() else {
        return Ok(false);
    };
    for &ticket in passed {
        if queue.is_unmarked(ticket)? {
            return Ok(true);
        }
    }
    Ok(false)
}
