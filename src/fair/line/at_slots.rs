//! The last steps of a contender for permits: it collects slots of a semaphore until it has enough.
//!
//! The first waiter keeps what it gets, even if that is only a part of what it wants. No other
//! process may take permits now. So small requests cannot starve a large one.
//!
//! Two waiters may both believe that they are first: a lower number was linked late, or a bypassed
//! waiter has woken. Each of them could keep a part and wait for the other's part without end. So a
//! waiter that has a part looks at the queue once per claim window, or every two seconds if windows
//! are disabled. If it is not first, it gives its part back.

use std::path::Path;
use std::time::Duration;

use super::bypass::marks_gone;
use super::contender::{Cause, Contender, Entry, Flow, Outcome, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::fair::disk::{Disk, Entered};
use crate::fair::slots::{Look, RefusedSlots};
use crate::fair::ticket::{Mode, Ticket};
use crate::watch::wait::{COARSE, after};

/// How often a waiter that has a part looks whether it is still first, without claim windows.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Contender {
    /// Begins to collect as the first waiter, or goes on.
    pub(super) fn approach_slots(
        &mut self,
        disk: &mut Disk,
        now_bypassed: Vec<Ticket>,
        cause: Cause,
    ) -> Result<Flow> {
        if let Position::AtSlots { bypassed, .. } = &mut self.position {
            *bypassed = now_bypassed;
        } else {
            self.reset();
            self.ladder.start(COARSE);
            self.position = Position::AtSlots {
                refused: RefusedSlots::default(),
                bypassed: now_bypassed,
            };
        }
        self.collect(disk, cause)
    }

    pub(super) fn collect(&mut self, disk: &mut Disk, cause: Cause) -> Result<Flow> {
        let (Mode::Permits(count), Position::AtSlots { refused, bypassed }) =
            (self.want, &mut self.position)
        else {
            return Ok(Flow::Again);
        };
        let wanted = self.reserved.saturating_add(count);
        let had_events = !refused.is_polling();
        loop {
            let look = Look {
                watcher_id: self.watcher_id,
                events: self.events,
                wait: &self.settings.wait,
                mode: self.settings.mode,
                all: cause != Cause::Event,
            };
            let Some(slots) = disk.slots() else {
                return Ok(Flow::Again);
            };
            if slots.gather_waiting(refused, wanted, look)? {
                break;
            }
            if !disk.adopt_limit()? {
                self.news.fell_back |= had_events && refused.is_polling();
                let limit = disk.slots_seen().map_or(0, |it| it.limit());
                if count > limit {
                    return Err(too_many(count, limit, &disk.place().door));
                }
                refused.pace(&mut self.ladder);
                let has_part = disk
                    .slots_seen()
                    .is_some_and(|it| it.in_hand() > self.reserved);
                if has_part && self.window_at.is_none() {
                    self.window_at = after(LOOK_EVERY);
                }
                return Ok(Flow::Done(Outcome::Sleep));
            }
        }
        if marks_gone(disk, bypassed)? {
            give_part_back(disk, self.reserved)?;
            self.reset();
            return Ok(Flow::Again);
        }
        self.enter_with_permits(disk)
    }

    fn enter_with_permits(&mut self, disk: &mut Disk) -> Result<Flow> {
        disk.refresh()?;
        let Some(token) = disk.mint(&self.settings.words, 0)? else {
            return Ok(self.try_again_soon());
        };
        self.forget_watches();
        let Position::AtSlots { bypassed, .. } =
            std::mem::replace(&mut self.position, Position::Fresh)
        else {
            return Ok(Flow::Again);
        };
        let entered = Entered {
            token,
            predecessor_crashed: false,
        };
        Ok(Flow::Done(Outcome::Entered(Entry {
            door: None,
            entered,
            bypassed,
        })))
    }
}

/// Returns the error for more permits than the limit, because that wait could not end.
pub(super) fn too_many(count: u32, limit: u32, path: &Path) -> Error {
    let text = format!("cannot acquire {count} permits: the limit is {limit}");
    Error::at(ErrorKind::InvalidInput, text, path)
}

/// Unlocks and closes the slots in hand, except for those that are `reserved`.
pub(super) fn give_part_back(disk: &mut Disk, reserved: u32) -> Result<()> {
    match disk.slots() {
        Some(slots) => slots.give_back(slots.in_hand().saturating_sub(reserved)),
        None => Ok(()),
    }
}
