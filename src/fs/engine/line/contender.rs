//! How the first waiting cohort of this process stands in the line on disk: wait for the one before, knock, enter.
//!
//! # Algorithm
//!
//! ```text
//!          look: nobody before me                     try-lock: got it, and it is the right door
//!   Fresh ───────────────────────▶ Knocking ─────────────────────────────────▶ Entering ──▶ the lock is ours
//!     │  ▲                            │  ▲                                      │
//!     ▼  │ the one before has gone    └──┘ refused: sleep on the door           └─ the last holder is still dying: soon again
//!    Behind (sleep on its ticket)
//! ```
//!
//! [`Contender::step`] runs at arrival, at every file event and at every timer, and does as much as can be done without
//! waiting. It never blocks: every lock is a try-lock. What it sleeps on is *opened, then watched, then looked at again*, so
//! that nothing can happen unseen in between.
//!
//! After an event it tries along the fine rungs of the [`Ladder`], because the kernel announces the close of a dying
//! process before it drops the lock; after a new watch only along the coarse ones, because there a close can be missed only if
//! its owner is dying in that very instant.
//!
//! # Those who sleep when their turn comes
//!
//! Once per claim window a waiter that is not first looks whether the door is free although somebody is before it. Free,
//! and free again `k` windows later with the same token and the same `k` unmarked tickets before it: they are asleep. It takes the
//! door, marks their tickets, and enters. A sleeper that wakes takes its own mark off and is first again; whoever
//! counted on a mark looks at it once more when it has the door, and gives the door back if the mark is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::disk::{Disk, Entered};
use super::super::door::Door;
use super::super::step::{self, Step};
use super::super::ticket::Ticket;
use super::super::ticket::policy::{self, Place};
use super::super::ticket::queue::{Own, Queue};
use super::super::watch::{Seat, Seen, WatchId, watch};
use super::cohort::CohortId;
use super::{Settings, Wait};
use crate::backoff::Backoff;
use crate::error::{Error, Result};

/// The first rung after an event: the lock of a dead holder was free at most 62 µs after its close was announced.
const FINE: Duration = Duration::from_micros(50);
/// The first rung after a new watch.
const COARSE: Duration = Duration::from_millis(1);
/// With the slow poll switched off, the ladder ends here.
const LAST_RUNG: Duration = Duration::from_secs(1);

/// The place on disk of one cohort.
pub(crate) struct Contender {
    pub(crate) cohort: CohortId,
    settings: Arc<Settings>,
    seat: Seat,
    events: bool,
    stage: Stage,
    ladder: Ladder,
    window_at: Option<Instant>,
    still: Option<Still>,
    /// A door kept open from one window to the next, so that looking at it wakes nobody.
    probe: Option<Door>,
}

/// The door was free although others stood before us: what must not change until we may pass.
struct Still {
    token: u64,
    /// The unmarked tickets before ours: how many, and the first.
    before: (usize, Option<Ticket>),
    windows: usize,
}

enum Stage {
    Fresh,
    Behind {
        ticket: Ticket,
        file: std::fs::File,
        eye: Eye,
    },
    Knocking {
        door: Door,
        eye: Eye,
        passed: Vec<Ticket>,
    },
    /// The door is locked by us.
    Entering {
        door: Door,
    },
}

/// How a waiter learns that something happened.
enum Eye {
    Watching(WatchId),
    /// Nothing is watched now: not yet, or the watch has fired.
    Open,
    Polling(Backoff),
}

/// What came of a step.
pub(crate) enum Outcome {
    /// Nothing to do until an event or [`Contender::due`].
    Sleep,
    /// The lock is ours.
    Entered(Door, Entered),
    /// Our ticket has disappeared; take another.
    TicketGone,
}

enum Flow {
    Again,
    Done(Outcome),
}

/// Why a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Somebody came, left or woke in this process.
    Local,
    Event,
    Timer,
}

impl Contender {
    pub(crate) fn new(
        cohort: CohortId,
        settings: Arc<Settings>,
        seat: Seat,
        events: bool,
        door: Option<Door>,
    ) -> Self {
        let mut ladder = Ladder::new(settings.poll_interval);
        ladder.start(COARSE);
        Self {
            cohort,
            window_at: after(settings.claim_window),
            settings,
            seat,
            events,
            stage: Stage::Fresh,
            ladder,
            still: None,
            probe: door,
        }
    }

    /// When to step again if nothing happens before.
    pub(crate) fn due(&self) -> Option<Instant> {
        match (self.ladder.at, self.window_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn is_polling(&self) -> bool {
        match &self.stage {
            Stage::Behind { eye, .. } | Stage::Knocking { eye, .. } => {
                matches!(eye, Eye::Polling(_))
            }
            Stage::Fresh | Stage::Entering { .. } => false,
        }
    }

    /// A watch has fired; `false` when it is none of ours.
    pub(crate) fn fired(&mut self, id: WatchId) -> bool {
        let (Stage::Behind { eye, .. } | Stage::Knocking { eye, .. }) = &mut self.stage else {
            return false;
        };
        let ours = matches!(eye, Eye::Watching(own) if *own == id);
        if ours {
            *eye = Eye::Open;
        }
        ours
    }

    /// Events were lost: whatever is watched may have changed, and the watch may be over.
    pub(crate) fn look_again(&mut self) {
        self.look_away();
    }

    /// Leaves the line on disk; the ticket is the caller's business.
    pub(crate) fn retire(mut self) {
        self.look_away();
        if let Stage::Entering { door } = std::mem::replace(&mut self.stage, Stage::Fresh) {
            // Locked, so it is unlocked and closed; a failure to unlock is made good by the close.
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
        } else if cause == Cause::Timer && self.ladder.at.is_some_and(|at| now >= at) {
            self.ladder.climb();
        }
        let at = |step, error| Error::io(step, disk.place().queue.join(own.ticket.name()), error);
        if own
            .is_marked()
            .map_err(|e| at("look at the own ticket", e))?
        {
            own.set_mark(false)
                .map_err(|e| at("unmark the own ticket", e))?;
        }
        loop {
            let flow = match &self.stage {
                Stage::Entering { .. } => self.enter(disk)?,
                // Without listing first: a lower ticket whose owner was stopped on its way out must not hold us up.
                Stage::Knocking { .. } => self.knock(disk)?,
                Stage::Fresh | Stage::Behind { .. } => self.look(own, disk)?,
            };
            if let Flow::Done(outcome) = flow {
                if window && matches!(outcome, Outcome::Sleep) {
                    return self.look_past(own, disk);
                }
                return Ok(outcome);
            }
        }
    }

    /// Finds the place in the line and waits for whoever is next before.
    fn look(&mut self, own: &Own, disk: &mut Disk) -> Result<Flow> {
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
            Place::Head { passed } => self.approach(disk, passed),
        }
    }

    fn wait_behind(&mut self, before: Ticket, queue: &Queue) -> Result<Flow> {
        let same = matches!(&self.stage, Stage::Behind { ticket, .. } if *ticket == before);
        if !same {
            self.reset();
            step::at(Step::OpenPredecessor);
            let Some(file) = queue.open_other(before)? else {
                return Ok(Flow::Again);
            };
            let eye = Eye::Open;
            self.stage = Stage::Behind {
                ticket: before,
                file,
                eye,
            };
            self.ladder.start(COARSE);
        }
        let Stage::Behind { file, eye, .. } = &mut self.stage else {
            return Ok(Flow::Again);
        };
        step::at(Step::WatchPredecessor);
        if eye.watch(self.seat, file, Seen::Predecessor, self.events) {
            return Ok(Flow::Again);
        }
        if queue.reap_if_dead(before, file)? {
            self.reset();
            return Ok(Flow::Again);
        }
        eye.pace(&mut self.ladder);
        Ok(Flow::Done(Outcome::Sleep))
    }

    /// Nobody awake is before us: opens the door, or stays at the one that is open.
    fn approach(&mut self, disk: &mut Disk, now_passed: Vec<Ticket>) -> Result<Flow> {
        if let Stage::Knocking { passed, .. } = &mut self.stage {
            *passed = now_passed;
            return self.knock(disk);
        }
        self.reset();
        let place = disk.place();
        step::at(Step::OpenDoor);
        let door = match self.probe.take() {
            Some(door) => door,
            None => Door::open(&place.door, self.settings.mode)
                .map_err(|e| Error::io("open the lock file", &place.door, e))?,
        };
        let eye = match &self.settings.wait {
            Wait::Watch => Eye::Open,
            Wait::Poll(backoff) => Eye::Polling(backoff.clone()),
        };
        self.ladder.start(COARSE);
        self.stage = Stage::Knocking {
            door,
            eye,
            passed: now_passed,
        };
        self.knock(disk)
    }

    fn knock(&mut self, disk: &mut Disk) -> Result<Flow> {
        let Stage::Knocking { door, eye, passed } = &mut self.stage else {
            return Ok(Flow::Again);
        };
        let path = &disk.place().door;
        let at = |step, error| Error::io(step, path, error);
        // Try before watching: after an event the lock is mostly there. A refusal counts only with a watch in place.
        loop {
            step::at(Step::TryDoor);
            if door.try_lock().map_err(|e| at("lock the lock file", e))? {
                break;
            }
            step::at(Step::WatchDoor);
            let fresh = eye.watch(self.seat, door.file(), Seen::Door, self.events);
            step::at(Step::CheckDoor);
            let current = door.is_current(path);
            if !current.map_err(|e| at("look at the lock file", e))? {
                self.reset();
                return Ok(Flow::Again);
            }
            if !fresh {
                eye.pace(&mut self.ladder);
                return Ok(Flow::Done(Outcome::Sleep));
            }
        }
        step::at(Step::CheckDoor);
        let current = door.is_current(path);
        step::at(Step::CheckMarks);
        let awake = current.as_ref().is_ok_and(|current| *current)
            && match marks_gone(disk, passed) {
                Ok(gone) => !gone,
                Err(error) => {
                    self.give_back();
                    return Err(error);
                }
            };
        self.lock_taken();
        if awake {
            return Ok(Flow::Again);
        }
        self.give_back();
        current.map_err(|e| at("look at the lock file", e))?;
        Ok(Flow::Again)
    }

    /// From knocking to entering: the door in hand is locked.
    fn lock_taken(&mut self) {
        self.look_away();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Fresh) {
            Stage::Knocking { door, .. } => Stage::Entering { door },
            other => other,
        };
    }

    /// Unlocks and closes a door that was locked for nothing, and starts again.
    fn give_back(&mut self) {
        step::at(Step::GiveBack);
        self.look_away();
        match std::mem::replace(&mut self.stage, Stage::Fresh) {
            Stage::Knocking { door, .. } | Stage::Entering { door } => {
                let _ = door.leave();
            }
            Stage::Fresh | Stage::Behind { .. } => {}
        }
    }

    fn enter(&mut self, disk: &mut Disk) -> Result<Flow> {
        let Stage::Entering { door } = &self.stage else {
            return Ok(Flow::Again);
        };
        match disk.enter(door, &self.settings.words) {
            Ok(None) => {
                if self.ladder.at.is_none() {
                    self.ladder.start(FINE);
                }
                Ok(Flow::Done(Outcome::Sleep))
            }
            Ok(Some(entered)) => match std::mem::replace(&mut self.stage, Stage::Fresh) {
                Stage::Entering { door } => Ok(Flow::Done(Outcome::Entered(door, entered))),
                _ => Ok(Flow::Again),
            },
            Err(error) => {
                self.give_back();
                Err(error)
            }
        }
    }

    /// Once per window: clears away the marked dead, and looks whether those before us are asleep.
    fn look_past(&mut self, own: &Own, disk: &mut Disk) -> Result<Outcome> {
        disk.list(self.settings.mode)?;
        let Some(queue) = disk.open_queue() else {
            return Ok(Outcome::Sleep);
        };
        if !queue.line().contains(&own.ticket) {
            self.reset();
            return Ok(Outcome::TicketGone);
        }
        let before = awake_before(queue, own.ticket)?;
        if before.0 == 0 || !matches!(self.stage, Stage::Behind { .. }) {
            self.still = None;
            return Ok(Outcome::Sleep);
        }
        let Some(door) = self.free_door(disk)? else {
            return Ok(Outcome::Sleep);
        };
        let token = match disk.peek_token(&door) {
            Ok(token) => token,
            Err(error) => {
                let _ = door.leave();
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
        });
        if windows < before.0 {
            step::at(Step::GiveBack);
            door.leave()
                .map_err(|e| Error::io("unlock the lock file", &disk.place().door, e))?;
            return Ok(Outcome::Sleep);
        }
        self.pass(own, disk, door)
    }

    /// The door, locked, if nobody holds it.
    fn free_door(&mut self, disk: &Disk) -> Result<Option<Door>> {
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
        if !door.try_lock().map_err(|e| at("lock the lock file", e))? {
            self.still = None;
            self.probe = Some(door);
            return Ok(None);
        }
        if !door.is_current(path).unwrap_or(false) {
            self.still = None;
            let _ = door.leave();
            return Ok(None);
        }
        Ok(Some(door))
    }

    /// Those before us are asleep: marks them and goes in.
    fn pass(&mut self, own: &Own, disk: &mut Disk, door: Door) -> Result<Outcome> {
        self.reset();
        self.still = None;
        let marked = mark_all_before(own, disk, self.settings.mode);
        self.stage = Stage::Entering { door };
        if let Err(error) = marked {
            self.give_back();
            return Err(error);
        }
        match self.enter(disk)? {
            Flow::Done(outcome) => Ok(outcome),
            Flow::Again => Ok(Outcome::Sleep),
        }
    }

    fn reset(&mut self) {
        self.look_away();
        self.stage = Stage::Fresh;
    }

    fn look_away(&mut self) {
        if let Stage::Behind { eye, .. } | Stage::Knocking { eye, .. } = &mut self.stage
            && let Eye::Watching(id) = std::mem::replace(eye, Eye::Open)
        {
            watch().forget(self.seat, id);
        }
    }
}

impl Eye {
    /// Makes sure that something is watched; `true` when the watch is new, so that the caller must look again.
    fn watch(&mut self, seat: Seat, file: &std::fs::File, seen: Seen, events: bool) -> bool {
        if !matches!(self, Self::Open) {
            return false;
        }
        let added = if events {
            watch().add(seat, file, seen)
        } else {
            Err(std::io::ErrorKind::Unsupported.into())
        };
        let fresh = added.is_ok();
        *self = added.map_or_else(|_| Self::Polling(Backoff::default()), Self::Watching);
        fresh
    }

    /// Where nothing is watched, the next look comes after a jittered delay.
    fn pace(&mut self, ladder: &mut Ladder) {
        if let Self::Polling(backoff) = self {
            ladder.at = after(backoff.next_delay());
        }
    }
}

/// The unmarked tickets before ours: how many, and the first. Those marked whose owners are dead are cleared away.
fn awake_before(queue: &Queue, own: Ticket) -> Result<(usize, Option<Ticket>)> {
    let (mut count, mut first) = (0, None);
    for &ticket in queue.line().iter().take_while(|it| **it < own) {
        if !queue.is_marked(ticket)? {
            count += 1;
            first = first.or(Some(ticket));
        } else if let Some(file) = queue.open_other(ticket)? {
            queue.reap_if_dead(ticket, &file)?;
        }
    }
    Ok((count, first))
}

/// Whether a ticket that we pass has lost its mark: its owner is awake, and first again.
fn marks_gone(disk: &Disk, passed: &[Ticket]) -> Result<bool> {
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

fn mark_all_before(own: &Own, disk: &mut Disk, mode: Option<u32>) -> Result<()> {
    disk.list(mode)?;
    let Some(queue) = disk.open_queue() else {
        return Ok(());
    };
    for &ticket in queue.line().iter().take_while(|it| **it < own.ticket) {
        if queue.is_unmarked(ticket)?
            && let Some(file) = queue.open_other(ticket)?
            && !queue.reap_if_dead(ticket, &file)?
        {
            queue.mark(ticket, &file)?;
        }
    }
    Ok(())
}

/// When to try again although nothing was announced: doubling delays up to the slow poll.
struct Ladder {
    at: Option<Instant>,
    delay: Duration,
    slowest: Duration,
}

impl Ladder {
    fn new(slowest: Duration) -> Self {
        Self {
            at: None,
            delay: slowest,
            slowest,
        }
    }

    /// Begins anew with this delay.
    fn start(&mut self, first: Duration) {
        self.delay = first.min(self.slowest);
        self.at = after(self.delay);
    }

    /// The next rung; with the slow poll off there is a last one.
    fn climb(&mut self) {
        if self.slowest == Duration::MAX && self.delay >= LAST_RUNG {
            self.at = None;
            return;
        }
        self.delay = self.delay.saturating_mul(2).min(self.slowest);
        self.at = after(self.delay);
    }
}

/// That long from now; never, when the clock does not reach so far.
fn after(delay: Duration) -> Option<Instant> {
    Instant::now().checked_add(delay)
}
