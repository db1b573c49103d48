//! The contender: the first waiting cohort of this process, as it waits in the queue on disk and
//! enters.
//!
//! # Algorithm
//!
//! ```text
//!          no unmarked ticket before ours        the door is locked
//!   Fresh ───────────────────────────────▶ AtDoor ─────────────────▶ Entering ──▶ entered
//!     │  ▲                                  │  ▲                       │  ▲
//!     ▼  │ the predecessor is gone          └──┘ refused: sleep        └──┘ `state` is locked:
//!    Behind (sleep on its ticket)                                           try again soon
//! ```
//!
//! A contender for permits is `AtSlots` instead, see [`at_slots`](super::at_slots). From there it
//! enters directly.
//!
//! [`Contender::step`] runs at arrival, at every file event and at every timer. It does as much as
//! it can without waiting: every lock is a try-lock. A file that it sleeps on is *opened, then
//! watched, then looked at again*, so nothing happens unseen in between.
//!
//! After an event it tries along the fine rungs of the [`Ladder`], because the kernel announces the
//! close of a dying process before it drops the lock. After a new watch it tries along the coarse
//! rungs: there it misses a close only if the owner is dying at that very moment.

use std::sync::Arc;
use std::time::Instant;

use super::Settings;
use super::bypass::{BypassCount, reap_bypassed, unmark};
use super::cohort::CohortId;
use super::report::News;
use crate::backoff::Backoff;
use crate::error::Result;
use crate::fair::disk::{Disk, Entered};
use crate::fair::door::Door;
use crate::fair::slots::RefusedSlots;
use crate::fair::ticket::policy::{self, Place};
use crate::fair::ticket::queue::{Other, OtherTicket, Own, Queue, Standing};
use crate::fair::ticket::{Mode, Ticket};
use crate::step::{self, Step};
use crate::sys::file::FileId;
use crate::watch::wait::{COARSE, FINE, Ladder, WakeSource, after};
use crate::watch::{Seen, WatchId, WatcherId, watch};

/// The wait of one cohort on disk.
pub(crate) struct Contender {
    pub(crate) cohort: CohortId,
    /// What the first task of the cohort wants.
    pub(super) want: Mode,
    pub(super) settings: Arc<Settings>,
    pub(super) watcher_id: WatcherId,
    pub(super) events: bool,
    pub(super) position: Position,
    pub(super) ladder: Ladder,
    pub(super) window_at: Option<Instant>,
    pub(super) bypass_count: Option<BypassCount>,
    /// A door that is kept open from one window to the next. Closing it would wake other waiters.
    pub(super) probe: Option<Door>,
    pub(super) news: News,
    /// The probable predecessor, from the listing that our number was taken from.
    guess: Option<Ticket>,
    /// Whether readers of this process are inside, which this waiter may join.
    pub(super) joins: bool,
    /// How often in a row another process had `state` locked under a record that names another
    /// door.
    pub(super) refusals: u32,
    /// Whether it climbs the fine rungs because another process is dying.
    pub(super) retries_fast: bool,
    /// Permits in hand that belong to others.
    pub(super) reserved: u32,
}

pub(super) enum Position {
    Fresh,
    Behind {
        ticket: Ticket,
        /// The file of that ticket.
        id: FileId,
        /// `None` if this process may not open it. Then it looks whether the name still exists.
        file: Option<OtherTicket>,
        source: WakeSource,
    },
    AtDoor {
        door: Door,
        source: WakeSource,
        bypassed: Vec<Ticket>,
    },
    /// First waiter for permits. The permits that it has so far are in the disk's hand.
    AtSlots {
        refused: RefusedSlots,
        bypassed: Vec<Ticket>,
    },
    /// The door is locked by us.
    Entering {
        door: Door,
        bypassed: Vec<Ticket>,
    },
}

/// The result of a step.
pub(crate) enum Outcome {
    /// There is nothing to do until an event or [`Contender::due`].
    Sleep,
    /// The lock is ours.
    Entered(Entry),
    /// A reader is first, and readers of this process are inside. With the marked tickets before
    /// it.
    Joins(Vec<Ticket>),
    /// The door is locked by us, and the task can be woken. Another step must follow at once, to
    /// enter.
    DoorLocked,
    /// Our ticket has disappeared; a new one is needed.
    TicketGone,
}

/// A contender that has entered.
pub(crate) struct Entry {
    /// `None` for a semaphore, whose slots are in the disk's hand.
    pub(crate) door: Option<Door>,
    pub(crate) entered: Entered,
    /// The marked tickets before ours.
    pub(crate) bypassed: Vec<Ticket>,
}

pub(super) enum Flow {
    Again,
    Done(Outcome),
}

/// Why a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A task of this process arrived, left or was polled.
    Local,
    Event,
    Timer,
}

/// What a new contender starts with.
pub(super) struct Setup {
    pub(super) cohort: CohortId,
    pub(super) want: Mode,
    pub(super) settings: Arc<Settings>,
    /// A door that is open and not locked.
    pub(super) door: Option<Door>,
    /// The probable predecessor.
    pub(super) guess: Option<Ticket>,
}

impl Contender {
    pub(super) fn new(setup: Setup, watcher_id: WatcherId, events: bool) -> Self {
        let Setup {
            cohort,
            want,
            settings,
            door,
            guess,
        } = setup;
        let mut ladder = Ladder::new(settings.poll_interval);
        ladder.start(COARSE);
        Self {
            cohort,
            want,
            window_at: after(settings.claim_window),
            settings,
            watcher_id,
            events,
            position: Position::Fresh,
            ladder,
            bypass_count: None,
            probe: door,
            news: News::default(),
            guess,
            joins: false,
            refusals: 0,
            retries_fast: false,
            reserved: 0,
        }
    }

    pub(super) fn shares(&self) -> bool {
        self.want == Mode::Shared
    }

    /// Returns when to step again if nothing happens before.
    pub(crate) fn due(&self) -> Option<Instant> {
        match (self.ladder.at, self.window_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn is_polling(&self) -> bool {
        match &self.position {
            Position::Behind { source, .. } | Position::AtDoor { source, .. } => {
                source.is_polling()
            }
            Position::AtSlots { refused, .. } => refused.is_polling(),
            Position::Fresh | Position::Entering { .. } => false,
        }
    }

    /// Returns whether it is the first waiter for permits, which keeps what it gets.
    pub(super) fn collects(&self) -> bool {
        matches!(self.position, Position::AtSlots { .. })
    }

    /// Notes that a watch has fired. Returns `false` if the watch is not this contender's.
    pub(crate) fn fired(&mut self, id: WatchId) -> bool {
        if let Position::AtSlots { refused, .. } = &mut self.position {
            return refused.fired(id);
        }
        let (Position::Behind { source, .. } | Position::AtDoor { source, .. }) =
            &mut self.position
        else {
            return false;
        };
        match source {
            WakeSource::Watch(own) if *own == id => {
                *source = WakeSource::Nothing;
                true
            }
            WakeSource::Thread(lock_thread) => lock_thread.id() == id,
            _ => false,
        }
    }

    /// Gives up. The caller takes care of the ticket.
    pub(crate) fn retire(mut self) {
        self.forget_watches();
        if let Position::Entering { door, .. } =
            std::mem::replace(&mut self.position, Position::Fresh)
        {
            // If the unlock fails, the close releases the lock.
            let _ = door.leave();
        }
    }

    /// Does all that can be done now.
    pub(crate) fn step(&mut self, own: &Own, disk: &mut Disk, cause: Cause) -> Result<Outcome> {
        let now = Instant::now();
        let window = self.window_at.is_some_and(|at| now >= at);
        if window {
            self.window_at = after(self.settings.claim_window);
        }
        if cause == Cause::Event {
            self.ladder.start(FINE);
        }
        let rung = cause == Cause::Timer && self.ladder.at.is_some_and(|at| now >= at);
        let slow_poll = rung && self.ladder.is_slowest();
        if rung {
            self.ladder.climb();
        } else if window && cause == Cause::Timer && self.is_door_still_locked(disk)? {
            return Ok(Outcome::Sleep);
        }
        let on_event = cause == Cause::Event;
        // On a rung of the ladder nothing was announced, so the predecessor can only have died. The
        // slow poll looks at everything.
        let mut rung_only = cause == Cause::Timer && !window && !slow_poll;
        // A free door is taken even if our ticket is marked. The mark matters only if the door is
        // locked.
        let mut mark_seen = self.is_first();
        // A ticket with a lower number may have come late, and its owner collects permits too.
        let mut look_first = window && disk.slots_seen().is_some();
        loop {
            if !std::mem::replace(&mut mark_seen, true) {
                self.news.was_bypassed |= unmark(own, disk)?;
            }
            let flow = match &self.position {
                Position::Entering { .. } => self.enter(disk)?,
                // No listing comes first: a lower ticket whose owner was stopped on its way out
                // must not delay us.
                Position::AtDoor { .. } => self.try_door(disk, on_event)?,
                Position::AtSlots { .. } if !std::mem::take(&mut look_first) => {
                    self.collect(disk, cause)?
                }
                Position::Behind { .. } if rung_only => self.try_before(disk)?,
                Position::Fresh | Position::Behind { .. } | Position::AtSlots { .. } => {
                    self.look(own, disk, cause)?
                }
            };
            rung_only = false;
            match flow {
                Flow::Again => {}
                Flow::Done(Outcome::Sleep) if self.is_at_the_door() && unmark(own, disk)? => {
                    self.news.was_bypassed = true;
                }
                Flow::Done(Outcome::Sleep) if window => return self.look_for_bypass(own, disk),
                Flow::Done(outcome) => return Ok(outcome),
            }
        }
    }

    /// Returns whether no unmarked ticket was before ours at the last look.
    pub(super) fn is_first(&self) -> bool {
        self.is_at_the_door() || matches!(self.position, Position::Entering { .. })
    }

    fn is_at_the_door(&self) -> bool {
        matches!(
            self.position,
            Position::AtDoor { .. } | Position::AtSlots { .. }
        )
    }

    /// Lists the queue and waits for the predecessor, or goes on as the first waiter.
    pub(super) fn look(&mut self, own: &Own, disk: &mut Disk, cause: Cause) -> Result<Flow> {
        if let (Position::Fresh, Some(guess), Some(queue)) =
            (&self.position, self.guess.take(), disk.open_queue())
        {
            // The guess is mostly right. So it is opened and watched first, before the look that is
            // needed in any case.
            return self.wait_behind(guess, queue);
        }
        disk.list(self.settings.mode)?;
        let Some(queue) = disk.open_queue() else {
            return Ok(Flow::Again);
        };
        match policy::place(queue.line(), own.ticket, |ticket| queue.is_marked(ticket))? {
            Place::Missing => {
                self.reset();
                Ok(Flow::Done(Outcome::TicketGone))
            }
            Place::Behind(ticket) => self.wait_behind(ticket, queue),
            Place::Head { bypassed } => {
                if !self.is_at_the_door() {
                    reap_bypassed(queue, &bypassed)?;
                }
                if self.joins {
                    self.reset();
                    return Ok(Flow::Done(Outcome::Joins(bypassed)));
                }
                match self.want {
                    Mode::Permits(_) => self.approach_slots(disk, bypassed, cause),
                    Mode::Exclusive | Mode::Shared => {
                        self.approach(disk, bypassed, cause == Cause::Event)
                    }
                }
            }
        }
    }

    pub(super) fn wait_behind(&mut self, before: Ticket, queue: &Queue) -> Result<Flow> {
        let same = matches!(&self.position, Position::Behind { ticket, .. } if *ticket == before);
        if !same {
            self.reset();
            step::at(Step::OpenPredecessor);
            let (id, file) = match queue.open_other(before)? {
                Other::Open(file) => (Some(file.id()), Some(file)),
                Other::Gone => (None, None),
                Other::Denied => (queue.find(before)?.map(|it| it.id), None),
            };
            let Some(id) = id else {
                return Ok(Flow::Again);
            };
            let source = match &file {
                Some(_) => WakeSource::Nothing,
                None => WakeSource::Poll(Backoff::default()),
            };
            self.news.fell_back |= file.is_none();
            self.position = Position::Behind {
                ticket: before,
                id,
                file,
                source,
            };
            self.ladder.start(COARSE);
        }
        let Position::Behind {
            id, file, source, ..
        } = &mut self.position
        else {
            return Ok(Flow::Again);
        };
        step::at(Step::WatchPredecessor);
        let had_events = !source.is_polling();
        let fresh = match file {
            Some(file) => {
                source.watch(self.watcher_id, file.file(), Seen::Predecessor, self.events)
            }
            None => true,
        };
        self.news.fell_back |= had_events && source.is_polling();
        if fresh {
            step::at(Step::CheckPredecessor);
            match queue.still_stands(before, *id)? {
                Standing::Unmarked => {}
                Standing::Marked => return Ok(Flow::Again),
                Standing::Gone => {
                    self.reset();
                    return Ok(Flow::Again);
                }
            }
        }
        self.try_in(queue)
    }

    /// Tries the predecessor's ticket without listing, as long as that ticket stands.
    fn try_before(&mut self, disk: &Disk) -> Result<Flow> {
        match (&self.position, disk.open_queue()) {
            (Position::Behind { ticket, id, .. }, Some(queue))
                if queue.still_stands(*ticket, *id)? == Standing::Unmarked =>
            {
                self.try_in(queue)
            }
            _ => {
                self.reset();
                Ok(Flow::Again)
            }
        }
    }

    fn try_in(&mut self, queue: &Queue) -> Result<Flow> {
        let Position::Behind {
            ticket,
            file,
            source,
            ..
        } = &mut self.position
        else {
            return Ok(Flow::Again);
        };
        if let Some(file) = file
            && queue.reap_if_dead(*ticket, file)?
        {
            self.reset();
            return Ok(Flow::Again);
        }
        source.pace(&mut self.ladder);
        Ok(Flow::Done(Outcome::Sleep))
    }

    pub(super) fn reset(&mut self) {
        self.forget_watches();
        self.position = Position::Fresh;
    }

    pub(super) fn forget_watches(&mut self) {
        if let Position::AtSlots { refused, .. } = &mut self.position {
            refused.stop_watching(self.watcher_id);
        }
        // A thread in the blocking lock call stays there. A second thread or an attempt would use
        // the same open file.
        if let Position::Behind { source, .. } | Position::AtDoor { source, .. } =
            &mut self.position
            && let WakeSource::Watch(id) = *source
        {
            *source = WakeSource::Nothing;
            watch().forget(self.watcher_id, id);
        }
    }
}
