//! How a waiter finds out that the waiters before it are frozen, and bypasses them.
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

use std::time::{Duration, Instant};

use crate::door::Door;
use crate::error::Result;
use crate::fair::disk::Disk;
use crate::fair::queue_dir::{Other, OwnTicket, QueueDir};
use crate::fair::ticket::{Mode, Ticket};
use crate::step::{self, Step};
use crate::watch::wait::{COARSE, after};

/// How often a door that was free may be found locked before it counts as held.
const REFUSALS: u32 = 4;

/// The claim windows of one waiter.
pub(super) struct Bypass {
    window: Duration,
    /// When the next look is due.
    due: Option<Instant>,
    count: Option<Count>,
    /// A door that is kept open from one window to the next. Closing it would wake other waiters.
    probe: Option<Door>,
    /// The permission bits of files that have to be created.
    bits: Option<u32>,
}

/// How long the door has been free although tickets were before ours. The count starts anew if the
/// token or those tickets change.
struct Count {
    token: u64,
    /// How many unmarked tickets are before ours, and the first of them.
    before: (usize, Option<Ticket>),
    windows: usize,
    /// How often in a row the door was found locked since then.
    refusals: u32,
}

/// The result of a look.
pub(super) enum Look {
    Wait,
    /// Our own ticket has disappeared.
    TicketGone,
    /// All waiters before this one are frozen, and what they leave is locked by us.
    AllFrozen(Free),
}

/// What was found free.
pub(super) enum Free {
    Door(Door),
    /// As many slots as the first waiter could have taken. They are in the disk's hand.
    Slots,
}

impl Free {
    fn give_back(self, disk: &mut Disk, reserved: u32) -> Result<()> {
        match self {
            Self::Door(door) => disk.place().leave(door),
            Self::Slots => disk.keep_in_hand(reserved),
        }
    }
}

impl Bypass {
    /// `door` is open and not locked.
    pub(super) fn new(window: Duration, bits: Option<u32>, door: Option<Door>) -> Self {
        Self {
            window,
            due: after(window),
            count: None,
            probe: door,
            bits,
        }
    }

    /// Returns whether waiters are bypassed at all. A window of `Duration::MAX` switches it off.
    pub(super) fn is_on(&self) -> bool {
        self.window != Duration::MAX
    }

    /// Returns when the next look is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns whether a window has ended. Begins the next one then.
    pub(super) fn ends_window(&mut self, now: Instant) -> bool {
        let ends = self.due.is_some_and(|at| now >= at);
        if ends {
            self.due = after(self.window);
        }
        ends
    }

    /// Makes sure that a look is due after this time at the latest.
    pub(super) fn look_within(&mut self, time: Duration) {
        if self.due.is_none() {
            self.due = after(time);
        }
    }

    /// Begins to count anew.
    pub(super) fn forget(&mut self) {
        self.count = None;
    }

    /// Returns the open door, if there is one.
    pub(super) fn take_door(&mut self) -> Option<Door> {
        self.probe.take()
    }

    /// Returns whether the door that was locked a window ago is still locked. Then there is nothing
    /// to look at. So a long wait costs two system calls a window.
    pub(super) fn is_door_still_locked(&mut self, disk: &Disk) -> Result<bool> {
        let place = disk.place();
        let Some(door) = &self.probe else {
            return Ok(false);
        };
        if !place.is_current(door).unwrap_or(false) {
            return Ok(false);
        }
        step::at(Step::Probe);
        if !place.try_lock(door, false)? {
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

    /// Looks whether the waiters before this one are frozen. Reaps marked tickets of dead owners.
    /// `reserved` permits in hand belong to others.
    pub(super) fn look(&mut self, own: &OwnTicket, disk: &mut Disk, reserved: u32) -> Result<Look> {
        disk.list(self.bits)?;
        let Some(queue) = disk.open_queue() else {
            return Ok(Look::Wait);
        };
        if !queue.tickets().contains(&own.ticket) {
            return Ok(Look::TicketGone);
        }
        let before = awake_before(queue, own.ticket)?;
        if before.0 == 0 {
            self.count = None;
            return Ok(Look::Wait);
        }
        let Some(free) = self.find_free(before.1, disk, reserved)? else {
            return Ok(Look::Wait);
        };
        let token = match disk.peek_token() {
            Ok(token) => token,
            Err(error) => {
                let _ = free.give_back(disk, reserved);
                return Err(error);
            }
        };
        let windows = match &self.count {
            Some(then) if then.token == token && then.before == before => then.windows + 1,
            _ => 0,
        };
        self.count = Some(Count {
            token,
            before,
            windows,
            refusals: 0,
        });
        if windows < windows_to_bypass(before.0) {
            step::at(Step::GiveBack);
            free.give_back(disk, reserved)?;
            return Ok(Look::Wait);
        }
        self.count = None;
        Ok(Look::AllFrozen(free))
    }

    /// Locks what is free although tickets are before ours; `first` is the first of them.
    fn find_free(
        &mut self,
        first: Option<Ticket>,
        disk: &mut Disk,
        reserved: u32,
    ) -> Result<Option<Free>> {
        let Some(slots) = disk.slots_mut() else {
            return Ok(self.find_free_door(disk)?.map(Free::Door));
        };
        step::at(Step::Probe);
        let needed = match first.map(|it| it.mode) {
            Some(Mode::Permits(count)) => count,
            _ => slots.limit(),
        };
        // This process may never be able to lock as many slots as the first waiter wants. Then
        // nothing shows that the first waiter is frozen.
        let gathered = slots.gather_reachable(reserved.saturating_add(needed), self.bits)?;
        if !gathered {
            disk.keep_in_hand(reserved)?;
            self.count_refusal();
        }
        Ok(gathered.then_some(Free::Slots))
    }

    /// Locks the door if it is free.
    fn find_free_door(&mut self, disk: &Disk) -> Result<Option<Door>> {
        let place = disk.place();
        step::at(Step::Probe);
        let kept = match self.probe.take() {
            Some(door) if place.is_current(&door).unwrap_or(false) => Some(door),
            _ => place.open_existing_door()?,
        };
        let Some(door) = kept else {
            return Ok(None);
        };
        // There must be no readers inside either: the waiters before this one may rightly wait for
        // them.
        if !place.try_lock(&door, false)? {
            self.probe = Some(door);
            self.count_refusal();
            return Ok(None);
        }
        if !place.is_current(&door).unwrap_or(false) {
            self.count = None;
            let _ = door.leave();
            return Ok(None);
        }
        Ok(Some(door))
    }

    /// Counts a refusal. The door may be held, or tried by another waiter at this moment. In the
    /// second case the count must not start anew, or the waiter behind this one would bypass first.
    fn count_refusal(&mut self) {
        let Some(count) = &mut self.count else {
            return;
        };
        count.refusals += 1;
        if count.refusals > REFUSALS {
            self.count = None;
        } else {
            self.due = after(COARSE * count.refusals);
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
fn awake_before(queue: &QueueDir, own: Ticket) -> Result<(usize, Option<Ticket>)> {
    let (mut count, mut first) = (0, None);
    for &ticket in queue.tickets().iter().take_while(|it| **it < own) {
        if !queue.is_marked(ticket)? {
            count += 1;
            first = first.or(Some(ticket));
        } else {
            queue.reap_dead(ticket)?;
        }
    }
    Ok((count, first))
}

/// Marks the tickets before ours whose owners live, those of readers too, because waiters behind us
/// count the unmarked ones. Counts the new marks, also if a step fails. Returns those marked
/// tickets that conflict with ours.
pub(super) fn mark_all_before(
    own: &OwnTicket,
    disk: &mut Disk,
    bits: Option<u32>,
    marked: &mut usize,
) -> Result<Vec<Ticket>> {
    disk.list(bits)?;
    let mut bypassed = Vec::new();
    let Some(queue) = disk.open_queue() else {
        return Ok(bypassed);
    };
    for &ticket in queue.tickets().iter().take_while(|it| **it < own.ticket) {
        if queue.is_unmarked(ticket)? {
            match queue.open_other(ticket)? {
                Other::Open(file) if queue.reap_if_dead(&file)? => {}
                Other::Open(file) if queue.is_linked_elsewhere(&file)? => continue,
                Other::Open(file) if queue.mark(&file)? => *marked += 1,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two waiters whose windows have the same length bypass in their order, although the timer of
    /// the second one may run out up to a window earlier.
    #[test]
    fn p64_each_waiter_needs_more_windows_than_the_one_before_it() {
        let windows: Vec<_> = (1..=9).map(windows_to_bypass).collect();
        assert_eq!(windows, [1, 3, 4, 5, 6, 8, 9, 10, 11]);
    }

    /// Another waiter tries the door at this moment, or it is held.
    #[test]
    fn p64_a_few_refusals_do_not_begin_the_count_anew() {
        let window = Duration::from_secs(3600);
        let mut bypass = Bypass::new(window, None, None);
        let first = bypass.due();
        bypass.count_refusal();
        assert_eq!(bypass.due(), first, "there is no count");
        bypass.count = Some(Count {
            token: 1,
            before: (1, None),
            windows: 1,
            refusals: 0,
        });
        for _ in 0..REFUSALS {
            bypass.count_refusal();
            assert!(bypass.count.is_some());
            assert!(bypass.due() < first, "it looks again soon");
        }
        bypass.count_refusal();
        assert!(bypass.count.is_none(), "it is held");
    }
}
