//! The contender: the first waiting cohort of this process, as it waits in the queue on disk and
//! enters.
//!
//! # Algorithm
//!
//! ```text
//!           look: no unmarked ticket is before ours        try-lock: locked, and the door is current
//!   Fresh ─────────────────────────────────────▶ AtDoor ──────────────────────▶ Entering ──▶ entered
//!     │  ▲                                       │  ▲                            │
//!     ▼  │ the predecessor is gone               └──┘ refused: sleep             └─ the last holder is
//!    Behind (sleep on the predecessor's ticket)                                     dying: try again soon
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

use super::super::disk::{Disk, Entered};
use super::super::door::Door;
use super::super::slots::Siege;
use super::super::step::{self, Step};
use super::super::ticket::policy::{self, Place};
use super::super::ticket::queue::{Other, OtherTicket, Own, Queue, Standing};
use super::super::ticket::{Mode, Ticket};
use super::super::wait::{COARSE, Eye, FINE, Ladder, after};
use super::super::watch::{Seat, Seen, WatchId, watch};
use super::Settings;
use super::cohort::CohortId;
use super::passing::{Still, reap_passed, unmark};
use super::report::News;
use crate::backoff::Backoff;
use crate::error::Result;
use crate::fs::sys::file::FileId;

/// The wait of one cohort on disk.
pub(crate) struct Contender {
    pub(crate) cohort: CohortId,
    /// What the first task of the cohort wants.
    pub(super) want: Mode,
    pub(super) settings: Arc<Settings>,
    pub(super) seat: Seat,
    pub(super) events: bool,
    pub(super) stage: Stage,
    pub(super) ladder: Ladder,
    pub(super) window_at: Option<Instant>,
    pub(super) still: Option<Still>,
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
    pub(super) hurries: bool,
    /// Permits in hand that belong to others.
    pub(super) reserved: u32,
}

pub(super) enum Stage {
    Fresh,
    Behind {
        ticket: Ticket,
        /// The file of that ticket.
        id: FileId,
        /// `None` if this process may not open it. Then it looks whether the name still exists.
        file: Option<OtherTicket>,
        eye: Eye,
    },
    Knocking {
        door: Door,
        eye: Eye,
        passed: Vec<Ticket>,
    },
    /// First waiter for permits. The permits that it has so far are in the disk's hand.
    Collecting {
        siege: Siege,
        passed: Vec<Ticket>,
    },
    /// The door is locked by us.
    Entering {
        door: Door,
        passed: Vec<Ticket>,
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
    AtDoor,
    /// Our ticket has disappeared; a new one is needed.
    TicketGone,
}

/// A contender that has entered.
pub(crate) struct Entry {
    /// `None` for a semaphore, whose slots are in the disk's hand.
    pub(crate) door: Option<Door>,
    pub(crate) entered: Entered,
    /// The marked tickets before ours.
    pub(crate) passed: Vec<Ticket>,
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
pub(super) struct Stand {
    pub(super) cohort: CohortId,
    pub(super) want: Mode,
    pub(super) settings: Arc<Settings>,
    /// A door that is open and not locked.
    pub(super) door: Option<Door>,
    /// The probable predecessor.
    pub(super) guess: Option<Ticket>,
}

impl Contender {
    pub(super) fn new(stand: Stand, seat: Seat, events: bool) -> Self {
        let Stand {
            cohort,
            want,
            settings,
            door,
            guess,
        } = stand;
        let mut ladder = Ladder::new(settings.poll_interval);
        ladder.start(COARSE);
        Self {
            cohort,
            want,
            window_at: after(settings.claim_window),
            settings,
            seat,
            events,
            stage: Stage::Fresh,
            ladder,
            still: None,
            probe: door,
            news: News::default(),
            guess,
            joins: false,
            refusals: 0,
            hurries: false,
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
        match &self.stage {
            Stage::Behind { eye, .. } | Stage::Knocking { eye, .. } => eye.is_polling(),
            Stage::Collecting { siege, .. } => siege.is_polling(),
            Stage::Fresh | Stage::Entering { .. } => false,
        }
    }

    /// Returns whether it is the first waiter for permits, which keeps what it gets.
    pub(super) fn collects(&self) -> bool {
        matches!(self.stage, Stage::Collecting { .. })
    }

    /// Notes that a watch has fired. Returns `false` if the watch is not this contender's.
    pub(crate) fn fired(&mut self, id: WatchId) -> bool {
        if let Stage::Collecting { siege, .. } = &mut self.stage {
            return siege.fired(id);
        }
        let (Stage::Behind { eye, .. } | Stage::Knocking { eye, .. }) = &mut self.stage else {
            return false;
        };
        match eye {
            Eye::Watching(own) if *own == id => {
                *eye = Eye::Open;
                true
            }
            Eye::Sitting(sitter) => sitter.id() == id,
            _ => false,
        }
    }

    pub(crate) fn look_again(&mut self) {
        self.look_away();
    }

    /// Gives up. The caller takes care of the ticket.
    pub(crate) fn retire(mut self) {
        self.look_away();
        if let Stage::Entering { door, .. } = std::mem::replace(&mut self.stage, Stage::Fresh) {
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
        } else if window && cause == Cause::Timer && self.is_held_up(disk)? {
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
                self.news.overslept |= unmark(own, disk)?;
            }
            let flow = match &self.stage {
                Stage::Entering { .. } => self.enter(disk)?,
                // No listing comes first: a lower ticket whose owner was stopped on its way out
                // must not delay us.
                Stage::Knocking { .. } => self.knock(disk, on_event)?,
                Stage::Collecting { .. } if !std::mem::take(&mut look_first) => {
                    self.collect(disk, cause)?
                }
                Stage::Behind { .. } if rung_only => self.try_before(disk)?,
                Stage::Fresh | Stage::Behind { .. } | Stage::Collecting { .. } => {
                    self.look(own, disk, cause)?
                }
            };
            rung_only = false;
            match flow {
                Flow::Again => {}
                Flow::Done(Outcome::Sleep) if self.is_at_the_door() && unmark(own, disk)? => {
                    self.news.overslept = true;
                }
                Flow::Done(Outcome::Sleep) if window => return self.look_past(own, disk),
                Flow::Done(outcome) => return Ok(outcome),
            }
        }
    }

    /// Returns whether no unmarked ticket was before ours at the last look.
    pub(super) fn is_first(&self) -> bool {
        self.is_at_the_door() || matches!(self.stage, Stage::Entering { .. })
    }

    fn is_at_the_door(&self) -> bool {
        matches!(
            self.stage,
            Stage::Knocking { .. } | Stage::Collecting { .. }
        )
    }

    /// Lists the queue and waits for the predecessor, or goes on as the first waiter.
    pub(super) fn look(&mut self, own: &Own, disk: &mut Disk, cause: Cause) -> Result<Flow> {
        if let (Stage::Fresh, Some(guess), Some(queue)) =
            (&self.stage, self.guess.take(), disk.open_queue())
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
            Place::Head { passed } => {
                if !self.is_at_the_door() {
                    reap_passed(queue, &passed)?;
                }
                if self.joins {
                    self.reset();
                    return Ok(Flow::Done(Outcome::Joins(passed)));
                }
                match self.want {
                    Mode::Permits(_) => self.approach_slots(disk, passed, cause),
                    Mode::Exclusive | Mode::Shared => {
                        self.approach(disk, passed, cause == Cause::Event)
                    }
                }
            }
        }
    }

    pub(super) fn wait_behind(&mut self, before: Ticket, queue: &Queue) -> Result<Flow> {
        let same = matches!(&self.stage, Stage::Behind { ticket, .. } if *ticket == before);
        if !same {
            self.reset();
            step::at(Step::OpenPredecessor);
            let (id, file) = match queue.open_other(before)? {
                Other::Open(file) => (Some(file.id()), Some(file)),
                Other::Gone => (None, None),
                Other::Shut => (queue.find(before)?.map(|it| it.id), None),
            };
            let Some(id) = id else {
                return Ok(Flow::Again);
            };
            let eye = match &file {
                Some(_) => Eye::Open,
                None => Eye::Polling(Backoff::default()),
            };
            self.news.fell_back |= file.is_none();
            self.stage = Stage::Behind {
                ticket: before,
                id,
                file,
                eye,
            };
            self.ladder.start(COARSE);
        }
        let Stage::Behind { id, file, eye, .. } = &mut self.stage else {
            return Ok(Flow::Again);
        };
        step::at(Step::WatchPredecessor);
        let told = !eye.is_polling();
        let fresh = match file {
            Some(file) => eye.watch(self.seat, file.file(), Seen::Predecessor, self.events),
            None => true,
        };
        self.news.fell_back |= told && eye.is_polling();
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
        match (&self.stage, disk.open_queue()) {
            (Stage::Behind { ticket, id, .. }, Some(queue))
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
        let Stage::Behind {
            ticket, file, eye, ..
        } = &mut self.stage
        else {
            return Ok(Flow::Again);
        };
        if let Some(file) = file
            && queue.reap_if_dead(*ticket, file)?
        {
            self.reset();
            return Ok(Flow::Again);
        }
        eye.pace(&mut self.ladder);
        Ok(Flow::Done(Outcome::Sleep))
    }

    pub(super) fn reset(&mut self) {
        self.look_away();
        self.stage = Stage::Fresh;
    }

    pub(super) fn look_away(&mut self) {
        if let Stage::Collecting { siege, .. } = &mut self.stage {
            siege.look_away(self.seat);
        }
        // A thread in the blocking lock call stays there. A second thread or an attempt would use
        // the same open file.
        if let Stage::Behind { eye, .. } | Stage::Knocking { eye, .. } = &mut self.stage
            && let Eye::Watching(id) = *eye
        {
            *eye = Eye::Open;
            watch().forget(self.seat, id);
        }
    }
}
