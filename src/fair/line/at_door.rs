//! The last steps of a contender for the exclusive or the shared lock: at the door, and through it.
//!
//! The door is opened and tried. If that is refused, the door is watched, compared with its path,
//! and tried again. With the door locked, the contender checks once more that the door is current
//! and that the waiters it bypasses are still frozen. Then it makes the record its own. Otherwise
//! it gives the door back and starts again.

use super::bypass::marks_gone;
use super::contender::{Contender, Entry, Flow, Outcome, Position};
use crate::error::{Error, Result};
use crate::fair::disk::{Admission, Disk};
use crate::fair::door::Door;
use crate::fair::ticket::{Mode, Ticket};
use crate::step::{self, Step};
use crate::watch::Seen;
use crate::watch::wait::{COARSE, FINE, Wait, WakeSource};

/// After this many rungs of the ladder, the process that has `state` locked counts as alive. The
/// rungs double from 50 µs on, which makes 200 ms.
const MOST_REFUSALS: u32 = 12;

impl Contender {
    /// Opens the door as the first waiter, or keeps the one that is open, and tries it.
    pub(super) fn approach(
        &mut self,
        disk: &mut Disk,
        now_bypassed: Vec<Ticket>,
        on_event: bool,
    ) -> Result<Flow> {
        if let Position::AtDoor { bypassed, .. } = &mut self.position {
            *bypassed = now_bypassed;
            return self.try_door(disk, on_event);
        }
        self.reset();
        let place = disk.place();
        step::at(Step::OpenDoor);
        let door = match self.probe.take() {
            Some(door) => door,
            None => Door::open(&place.door, self.settings.mode)
                .map_err(|e| Error::io("open the lock file", &place.door, e))?,
        };
        let source = WakeSource::new(&self.settings.wait);
        self.ladder.start(COARSE);
        self.position = Position::AtDoor {
            door,
            source,
            bypassed: now_bypassed,
        };
        self.try_door(disk, on_event)
    }

    pub(super) fn try_door(&mut self, disk: &mut Disk, on_event: bool) -> Result<Flow> {
        let Position::AtDoor { door, source, .. } = &mut self.position else {
            return Ok(Flow::Again);
        };
        let path = &disk.place().door;
        let at = |step, error| Error::io(step, path, error);
        // The first attempt comes before the watch, because after an event the lock is mostly free.
        // A refusal counts only with a watch in place.
        loop {
            step::at(Step::TryDoor);
            let locked = match source.lock_thread() {
                Some(lock_thread) => lock_thread.outcome().unwrap_or(Ok(false)),
                None => door.try_lock(self.want == Mode::Shared),
            };
            if locked.map_err(|e| at("lock the lock file", e))? {
                break;
            }
            step::at(Step::WatchDoor);
            let had_events = !source.is_polling();
            if self.settings.wait == Wait::Blocking {
                source.start_thread(self.watcher_id, door.file(), self.want == Mode::Shared);
            }
            let fresh = source.watch(self.watcher_id, door.file(), Seen::Door, self.events);
            self.news.fell_back |= had_events && source.is_polling();
            step::at(Step::CheckDoor);
            let current = door.is_current(path);
            if !current.map_err(|e| at("look at the lock file", e))? {
                self.reset();
                return Ok(Flow::Again);
            }
            if !fresh {
                source.pace(&mut self.ladder);
                return Ok(Flow::Done(Outcome::Sleep));
            }
        }
        self.begin_entering();
        // The task is woken first, and the rest is done meanwhile. To wake a thread takes longer
        // than all of it.
        Ok(if on_event {
            Flow::Done(Outcome::DoorLocked)
        } else {
            Flow::Again
        })
    }

    /// Returns whether the locked door is current and the bypassed waiters are still frozen.
    fn is_ours(&self, disk: &Disk) -> Result<bool> {
        let Position::Entering { door, bypassed, .. } = &self.position else {
            return Ok(false);
        };
        let path = &disk.place().door;
        step::at(Step::CheckDoor);
        let current = door.is_current(path);
        if !current.map_err(|e| Error::io("look at the lock file", path, e))? {
            return Ok(false);
        }
        step::at(Step::CheckMarks);
        Ok(!marks_gone(disk, bypassed)?)
    }

    /// Goes from waiting at the door to entering: the door is locked now.
    pub(super) fn begin_entering(&mut self) {
        self.forget_watches();
        self.position = match std::mem::replace(&mut self.position, Position::Fresh) {
            Position::AtDoor { door, bypassed, .. } => Position::Entering { door, bypassed },
            other => other,
        };
    }

    /// Gives the locked door back and starts again.
    pub(super) fn give_back(&mut self) {
        step::at(Step::GiveBack);
        self.forget_watches();
        match std::mem::replace(&mut self.position, Position::Fresh) {
            Position::AtDoor { door, .. } | Position::Entering { door, .. } => {
                let _ = door.leave();
            }
            Position::Fresh | Position::Behind { .. } | Position::AtSlots { .. } => {}
        }
    }

    pub(super) fn enter(&mut self, disk: &mut Disk) -> Result<Flow> {
        match self
            .is_ours(disk)
            .and_then(|ours| disk.refresh().map(|()| ours))
        {
            Ok(true) => {}
            Ok(false) => {
                self.give_back();
                return Ok(Flow::Again);
            }
            Err(error) => {
                self.give_back();
                return Err(error);
            }
        }
        let Position::Entering { door, .. } = &self.position else {
            return Ok(Flow::Again);
        };
        let admission = match self.want {
            Mode::Shared => disk.enter_shared(door),
            Mode::Exclusive | Mode::Permits(_) => disk.enter(door, &self.settings.words),
        };
        match admission {
            Ok(Admission::In(entered)) => {
                match std::mem::replace(&mut self.position, Position::Fresh) {
                    Position::Entering { door, bypassed } => {
                        let entry = Entry {
                            door: Some(door),
                            entered,
                            bypassed,
                        };
                        Ok(Flow::Done(Outcome::Entered(entry)))
                    }
                    _ => Ok(Flow::Again),
                }
            }
            Ok(Admission::Dying) => {
                self.refusals = 0;
                Ok(self.try_again_soon())
            }
            Ok(Admission::Elsewhere) if self.shares() => self.check_replaced(disk),
            Ok(Admission::Elsewhere) if self.refusals >= MOST_REFUSALS => {
                self.give_back();
                Err(disk.replaced())
            }
            // The door stays locked.
            Ok(Admission::Elsewhere) => {
                self.refusals += 1;
                Ok(self.try_again_soon())
            }
            Err(error) => {
                self.give_back();
                Err(error)
            }
        }
    }

    /// Handles a refusal of `state` to a reader, under a record that does not name its door.
    ///
    /// The other process is about to make the record name this door, or came through another door.
    /// After `MOST_REFUSALS` rungs the reader tries to be alone at the door. Only then, and after
    /// as many rungs again, it knows that the lock file was replaced.
    fn check_replaced(&mut self, disk: &mut Disk) -> Result<Flow> {
        let asks = self.refusals >= MOST_REFUSALS;
        let elsewhere = match &self.position {
            Position::Entering { door, .. } if asks => is_alone_and_refused(door, disk),
            _ => Ok(true),
        };
        self.give_back();
        self.refusals = match elsewhere? {
            true if self.refusals >= 2 * MOST_REFUSALS => return Err(disk.replaced()),
            true => self.refusals + 1,
            false => 0,
        };
        let flow = self.try_again_soon();
        if self.refusals == MOST_REFUSALS {
            self.ladder.start(FINE);
        }
        Ok(flow)
    }

    pub(super) fn try_again_soon(&mut self) -> Flow {
        // The door may have been locked without an event, on a rung that is seconds long.
        if !std::mem::replace(&mut self.retries_fast, true) || self.ladder.at.is_none() {
            self.ladder.hurry(FINE);
        }
        Flow::Done(Outcome::Sleep)
    }
}

/// Gives up the share of the door to be alone there. Returns whether that succeeded and `state` is
/// locked all the same.
fn is_alone_and_refused(door: &Door, disk: &mut Disk) -> Result<bool> {
    let path = disk.place().door.clone();
    let at = |step, error| Error::io(step, &path, error);
    let alone = door.try_alone().map_err(|e| at("lock the lock file", e))?;
    let current = || {
        door.is_current(&path)
            .map_err(|e| at("look at the lock file", e))
    };
    Ok(alone && current()? && disk.is_held_elsewhere(door)?)
}
