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
//! [`Contender::step`] runs at arrival, at every file event and at every timer. It does as much as
//! it can without waiting: every lock is a try-lock. A file that it sleeps on is *opened, then
//! watched, then looked at again*, so nothing happens unseen in between.
//!
//! After an event it tries along the fine rungs of the [`Ladder`], because the kernel announces the
//! close of a dying process before it drops the lock. After a new watch it tries along the coarse
//! rungs: there it misses a close only if the owner is dying at that very moment.
//!
//! # At the door
//!
//! The door is opened and tried. If that is refused, the door is watched, compared with its path,
//! and tried again. With the door locked, the contender checks once more that the door is current
//! and that the waiters it bypasses are still frozen. Then it makes the record its own. Otherwise
//! it gives the door back and starts again.
//!
//! # At the slots
//!
//! A contender for permits is `AtSlots` instead. It collects slots until it has enough, and enters
//! directly. The first waiter keeps what it gets, even if that is only a part of what it wants. No
//! other process may take permits now. So small requests cannot starve a large one.
//!
//! Two waiters may both believe that they are first: a lower number was linked late, or a bypassed
//! waiter has woken. Each of them could keep a part and wait for the other's part without end. So a
//! waiter that has a part looks at the queue once per claim window, or every two seconds if windows
//! are disabled. If it is not first, it gives its part back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bypass::{Bypass, Free, Look, mark_all_before};
use super::cohorts::CohortId;
use crate::backoff::Backoff;
use crate::door::Door;
use crate::error::{Error, Result};
use crate::fair::disk::{Admission, Disk};
use crate::fair::queue_dir::{Other, OtherTicket, OwnTicket, QueueDir, Standing};
use crate::fair::slots::RefusedSlots;
use crate::fair::ticket::{self, Mode, Rank, Ticket};
use crate::fair::{Entered, Settings, Site};
use crate::step::{self, Step};
use crate::sys::file::FileId;
use crate::trace::Note;
use crate::watch::wait::{BESIDE_THREAD, COARSE, FINE, Ladder, Wait, WakeSource};
use crate::watch::{Seen, WatchId, ticket_thread, watch};

/// After this many rungs of the ladder, the process that has `state` locked counts as alive. The
/// rungs double from 50 µs on, so this takes 200 ms.
const MOST_REFUSALS: u32 = 12;
/// How often a waiter that has a part looks whether it is still first, without claim windows.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The wait of one cohort on disk.
pub(super) struct Contender {
    cohort: CohortId,
    /// What the first task of the cohort wants.
    mode: Mode,
    settings: Arc<Settings>,
    site: Site,
    position: Position,
    /// The marked tickets before ours, if no unmarked one was there at the last look.
    bypassed: Vec<Ticket>,
    ladder: Ladder,
    bypass: Bypass,
    /// The probable predecessor, from the listing that our number was taken from.
    guess: Option<Ticket>,
    /// The last ticket for which a thread was started.
    threaded: Option<Ticket>,
    input: StepInput,
    /// Whether it has stopped with the door locked, so that its task is woken first.
    paused: bool,
    retry: Retry,
    notes: Vec<Note>,
}

/// What the caller of a step knows.
#[derive(Clone, Copy)]
pub(super) struct StepInput {
    pub cause: Cause,
    /// Whether the contender is a reader and readers of this process are inside. Then it may join
    /// them.
    pub joins: bool,
    /// Permits in hand that belong to others.
    pub reserved: u32,
}

/// Why a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A task of this process arrived, left or was polled.
    Local,
    Event,
    Timer,
}

/// How it enters while another process has `state` locked.
#[derive(Default)]
struct Retry {
    /// How often in a row `state` was locked and the record named another door.
    refusals: u32,
    /// Whether it climbs the fine rungs because another process is dying.
    fast: bool,
}

enum Position {
    Fresh,
    Behind(Predecessor),
    AtDoor {
        door: Door,
        source: WakeSource,
    },
    /// First waiter for permits. The permits that it has so far are in the disk's hand.
    AtSlots(RefusedSlots),
    /// The door is locked by us.
    Entering {
        door: Door,
        /// The watch of the door, which is given back later: that would delay the task.
        watch: Option<WatchId>,
    },
}

/// The ticket that a contender waits for.
struct Predecessor {
    ticket: Ticket,
    /// The file of that ticket.
    id: FileId,
    /// `None` if this process may not open it. Then it looks whether the name still exists.
    file: Option<OtherTicket>,
    source: WakeSource,
}

/// The result of a step.
pub(super) enum Outcome {
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
pub(super) struct Entry {
    /// `None` for a semaphore, whose slots are in the disk's hand.
    pub door: Option<Door>,
    /// The watch of the door. It must be given back before the door is closed.
    pub watch: Option<WatchId>,
    pub entered: Entered,
    /// The marked tickets before ours.
    pub bypassed: Vec<Ticket>,
}

enum Flow {
    Again,
    Done(Outcome),
}

/// What a new contender starts with.
pub(super) struct Setup {
    pub cohort: CohortId,
    pub mode: Mode,
    pub settings: Arc<Settings>,
    /// A door that is open and not locked.
    pub door: Option<Door>,
    /// The probable predecessor.
    pub guess: Option<Ticket>,
}

impl Contender {
    pub(super) fn new(setup: Setup, site: Site) -> Self {
        let settings = setup.settings;
        let mut ladder = Ladder::new(settings.poll_interval);
        ladder.start(COARSE);
        Self {
            cohort: setup.cohort,
            mode: setup.mode,
            bypass: Bypass::new(settings.claim_window, settings.bits, setup.door),
            settings,
            site,
            position: Position::Fresh,
            bypassed: Vec::new(),
            ladder,
            guess: setup.guess,
            threaded: None,
            input: StepInput {
                cause: Cause::Local,
                joins: false,
                reserved: 0,
            },
            paused: false,
            retry: Retry::default(),
            notes: Vec::new(),
        }
    }

    pub(super) fn cohort(&self) -> CohortId {
        self.cohort
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns when to step again if nothing happens before. A paused contender steps at once, so
    /// there is no timer to set while its task wakes up.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.paused {
            return None;
        }
        let both = [self.ladder.at, self.bypass.due()];
        both.into_iter().flatten().min()
    }

    pub(super) fn is_polling(&self) -> bool {
        match &self.position {
            Position::Behind(Predecessor { source, .. }) | Position::AtDoor { source, .. } => {
                source.is_polling()
            }
            Position::AtSlots(refused) => refused.is_polling(),
            Position::Fresh | Position::Entering { .. } => false,
        }
    }

    /// Returns whether no unmarked ticket was before ours at the last look.
    pub(super) fn is_first(&self) -> bool {
        self.is_at_the_door() || matches!(self.position, Position::Entering { .. })
    }

    fn is_at_the_door(&self) -> bool {
        self.collects() || matches!(self.position, Position::AtDoor { .. })
    }

    /// Returns whether it is the first waiter for permits, which keeps what it gets.
    pub(super) fn collects(&self) -> bool {
        matches!(self.position, Position::AtSlots(_))
    }

    /// Takes what is to be reported to operators.
    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Returns whether it has stopped with the door locked and must step again. Asked once.
    pub(super) fn take_pause(&mut self) -> bool {
        std::mem::take(&mut self.paused)
    }

    /// Notes that a watch has fired. Returns `false` if the watch is not this contender's.
    pub(super) fn fired(&mut self, id: WatchId) -> bool {
        match &mut self.position {
            Position::AtSlots(refused) => refused.fired(id),
            Position::Behind(Predecessor { source, .. }) | Position::AtDoor { source, .. } => {
                source.fired(id)
            }
            Position::Fresh | Position::Entering { .. } => false,
        }
    }

    /// Gives up. The caller takes care of the ticket.
    pub(super) fn retire(mut self) {
        self.forget_watches();
        if let Position::Entering { door, .. } = self.position {
            // If the unlock fails, the close releases the lock.
            let _ = door.leave();
        }
    }

    /// Gives its watches back.
    pub(super) fn forget_watches(&mut self) {
        let watcher_id = self.site.watcher_id;
        match &mut self.position {
            Position::AtSlots(refused) => refused.stop_watching(),
            Position::Behind(Predecessor { source, .. }) | Position::AtDoor { source, .. } => {
                source.stop_watching(watcher_id);
            }
            Position::Entering { watch: own, .. } => {
                if let Some(id) = own.take() {
                    watch().forget(watcher_id, id);
                }
            }
            Position::Fresh => {}
        }
    }

    fn reset(&mut self) {
        drop(self.take_position());
    }

    fn start_again(&mut self) -> Result<Flow> {
        self.reset();
        Ok(Flow::Again)
    }

    /// Goes back to the start. Returns the position until now, without its watches.
    fn take_position(&mut self) -> Position {
        self.forget_watches();
        std::mem::replace(&mut self.position, Position::Fresh)
    }

    /// Goes on as far as that needs no wait.
    pub(super) fn step(
        &mut self,
        own: &OwnTicket,
        disk: &mut Disk,
        input: StepInput,
    ) -> Result<Outcome> {
        self.input = input;
        let (timer, now) = (input.cause == Cause::Timer, Instant::now());
        let window = self.bypass.ends_window(now);
        if input.cause == Cause::Event {
            self.ladder.start(FINE);
        }
        let rung = timer && self.ladder.at.is_some_and(|at| now >= at);
        let slow_poll = rung && self.ladder.is_slowest();
        if rung {
            self.ladder.climb();
        } else if window && timer && self.is_behind() && self.bypass.is_door_still_locked(disk)? {
            return Ok(Outcome::Sleep);
        }
        // On a rung of the ladder nothing was announced, so the predecessor can only have died. The
        // slow poll looks at everything.
        let mut rung_only = timer && !window && !slow_poll;
        // A free door is taken even if our ticket is marked. The mark matters only if the door is
        // locked.
        let mut mark_seen = self.is_first();
        // A ticket with a lower number may have come late, and its owner collects permits too.
        let mut look_first = window && disk.slots().is_some();
        loop {
            if !std::mem::replace(&mut mark_seen, true) {
                self.unmark(own, disk)?;
            }
            let flow = match &self.position {
                Position::Entering { .. } => self.enter(disk)?,
                // No listing comes first: a lower ticket whose owner was stopped on its way out
                // must not delay us.
                Position::AtDoor { .. } => self.try_door(disk)?,
                Position::AtSlots(_) if !std::mem::take(&mut look_first) => self.collect(disk)?,
                Position::Behind(_) if rung_only => self.try_predecessor(disk)?,
                Position::Fresh | Position::Behind(_) | Position::AtSlots(_) => {
                    self.look(own, disk)?
                }
            };
            rung_only = false;
            match flow {
                Flow::Again => {}
                Flow::Done(Outcome::Sleep)
                    if self.is_at_the_door() && self.unmark(own, disk)? => {}
                Flow::Done(Outcome::Sleep) if window => return self.look_for_bypass(own, disk),
                Flow::Done(outcome) => return Ok(outcome),
            }
        }
    }

    fn is_behind(&self) -> bool {
        matches!(self.position, Position::Behind(_))
    }

    /// Removes the mark of our own ticket, because its waiter is awake. Returns `true` if there was
    /// one.
    fn unmark(&mut self, own: &OwnTicket, disk: &Disk) -> Result<bool> {
        let marked = disk.unmark(own)?;
        if marked && !self.notes.iter().any(|it| matches!(it, Note::Frozen)) {
            self.notes.push(Note::Frozen);
        }
        Ok(marked)
    }

    /// Notes that nothing can be watched, if that is new.
    fn note_fallback(&mut self, had_events: bool) {
        if had_events && self.is_polling() {
            self.notes.push(Note::Fallback);
        }
    }

    /// Lists the queue and waits for the predecessor, or goes on as the first waiter.
    fn look(&mut self, own: &OwnTicket, disk: &mut Disk) -> Result<Flow> {
        if let (Position::Fresh, Some(guess), Some(queue)) =
            (&self.position, self.guess.take(), disk.open_queue())
        {
            // The guess is mostly right. So it is opened and watched first, before the look that is
            // needed in any case.
            return self.wait_behind(guess, queue);
        }
        disk.list(self.settings.bits)?;
        let Some(queue) = disk.open_queue() else {
            return Ok(Flow::Again);
        };
        match ticket::rank(queue.tickets(), own.ticket, |ticket| {
            queue.is_marked(ticket)
        })? {
            Rank::Missing => {
                self.reset();
                Ok(Flow::Done(Outcome::TicketGone))
            }
            Rank::Behind(ticket) => self.wait_behind(ticket, queue),
            Rank::Head { bypassed } => {
                if !self.is_at_the_door() {
                    for ticket in &bypassed {
                        queue.reap_dead(*ticket)?;
                    }
                }
                if self.input.joins {
                    self.reset();
                    return Ok(Flow::Done(Outcome::Joins(bypassed)));
                }
                self.bypassed = bypassed;
                match self.mode {
                    Mode::Permits(_) => self.approach_slots(disk),
                    Mode::Exclusive | Mode::Shared => self.approach(disk),
                }
            }
        }
    }

    fn wait_behind(&mut self, before: Ticket, queue: &QueueDir) -> Result<Flow> {
        let stays = self.stays_behind(before);
        if !stays && !self.go_behind(before, queue)? {
            return Ok(Flow::Again);
        }
        let had_events = !self.is_polling();
        let Position::Behind(predecessor) = &mut self.position else {
            return Ok(Flow::Again);
        };
        step::at(Step::WatchPredecessor);
        let Predecessor { file, source, .. } = predecessor;
        let Site {
            watcher_id, events, ..
        } = self.site;
        let fresh = match file {
            Some(file) => source.watch(watcher_id, file.file(), Seen::Predecessor, events),
            None => source.is_polling(),
        };
        let threads = self.site.threads && self.threaded != Some(before);
        let begins_thread = threads && source.is_polling() && file.is_some();
        let by_thread = matches!(source, WakeSource::TicketThread);
        let standing = if fresh || !stays {
            step::at(Step::CheckPredecessor);
            queue.still_stands(before, predecessor.id)?
        } else {
            Standing::Unmarked
        };
        if self.input.cause == Cause::Event && by_thread {
            // The event was another thread's.
            self.ladder.start(BESIDE_THREAD);
        }
        self.note_fallback(had_events);
        match standing {
            Standing::Unmarked if begins_thread => self.reap_or_start_thread(queue),
            Standing::Unmarked => self.reap_or_sleep(queue),
            Standing::Marked => Ok(Flow::Again),
            Standing::Gone => self.start_again(),
        }
    }

    /// Returns whether it waits for this ticket already. A thread that waited for it may have
    /// ended.
    fn stays_behind(&self, before: Ticket) -> bool {
        let Position::Behind(it) = &self.position else {
            return false;
        };
        let ended = || !ticket_thread::waits_for(self.site.watcher_id, (it.ticket.number, it.id));
        it.ticket == before && !(matches!(it.source, WakeSource::TicketThread) && ended())
    }

    /// Opens the ticket of the predecessor. Returns `false` if it is gone.
    fn go_behind(&mut self, before: Ticket, queue: &QueueDir) -> Result<bool> {
        self.reset();
        step::at(Step::OpenPredecessor);
        if ticket_thread::any()
            && let Some(found) = queue.find(before)?
            && ticket_thread::waits_for(self.site.watcher_id, (before.number, found.id))
        {
            self.leave_to_thread(before, found.id);
            return Ok(true);
        }
        let (id, file) = match queue.open_other(before)? {
            Other::Open(file) => (Some(file.id()), Some(file)),
            Other::Gone => (None, None),
            Other::Denied => (queue.find(before)?.map(|it| it.id), None),
        };
        let Some(id) = id else {
            return Ok(false);
        };
        let source = match &file {
            Some(_) => WakeSource::Nothing,
            None => WakeSource::Poll(Backoff::default()),
        };
        if file.is_none() {
            self.notes.push(Note::Fallback);
        }
        self.position = Position::Behind(Predecessor {
            ticket: before,
            id,
            file,
            source,
        });
        self.ladder.start(COARSE);
        Ok(true)
    }

    /// Sleeps until the thread that waits for this ticket calls.
    fn leave_to_thread(&mut self, ticket: Ticket, id: FileId) {
        self.threaded = Some(ticket);
        self.position = Position::Behind(Predecessor {
            ticket,
            id,
            file: None,
            source: WakeSource::TicketThread,
        });
        self.ladder.start(BESIDE_THREAD);
    }

    /// Tries the predecessor's ticket without listing, as long as that ticket stands.
    fn try_predecessor(&mut self, disk: &Disk) -> Result<Flow> {
        if let (Position::Behind(it), Some(queue)) = (&self.position, disk.open_queue())
            && queue.still_stands(it.ticket, it.id)? == Standing::Unmarked
        {
            return self.reap_or_sleep(queue);
        }
        self.start_again()
    }

    /// Reaps the predecessor if its owner is dead. Otherwise sleeps.
    fn reap_or_sleep(&mut self, queue: &QueueDir) -> Result<Flow> {
        let Position::Behind(it) = &mut self.position else {
            return Ok(Flow::Again);
        };
        if let Some(file) = &it.file
            && queue.reap_if_dead(file)?
        {
            return self.start_again();
        }
        it.source.pace(&mut self.ladder);
        Ok(Flow::Done(Outcome::Sleep))
    }

    /// Does the same without file events: a thread waits for the ticket.
    ///
    /// There is one thread for each ticket. A ticket that still stands after that is reaped. If its
    /// owner is alive, it has no wake lock, and the contender polls.
    fn reap_or_start_thread(&mut self, queue: &QueueDir) -> Result<Flow> {
        let flow = self.reap_or_sleep(queue)?;
        if let Flow::Done(_) = flow
            && let Position::Behind(it) = &mut self.position
            && let Some(file) = it.file.take()
        {
            let (ticket, id) = (it.ticket, it.id);
            let key = (ticket.number, id);
            let started = ticket_thread::start(self.site.watcher_id, key, file.into_file());
            self.leave_to_thread(ticket, id);
            if !started {
                // It opens the ticket again, and polls.
                return self.start_again();
            }
        }
        Ok(flow)
    }

    /// Opens the door as the first waiter, or keeps the one that is open, and tries it.
    fn approach(&mut self, disk: &mut Disk) -> Result<Flow> {
        if let Position::AtDoor { .. } = self.position {
            return self.try_door(disk);
        }
        self.reset();
        step::at(Step::OpenDoor);
        let door = match self.bypass.take_door() {
            Some(door) => door,
            None => disk.place().open_door(self.settings.bits)?,
        };
        let source = WakeSource::new(&self.settings.wait);
        self.ladder.start(COARSE);
        self.position = Position::AtDoor { door, source };
        self.try_door(disk)
    }

    fn try_door(&mut self, disk: &mut Disk) -> Result<Flow> {
        let mut had_events = !self.is_polling();
        let shared = self.mode == Mode::Shared;
        let Position::AtDoor { door, source, .. } = &mut self.position else {
            return Ok(Flow::Again);
        };
        let place = disk.place();
        // The first attempt comes before the watch, because after an event the lock is mostly free.
        // A refusal counts only with a watch in place.
        loop {
            step::at(Step::TryDoor);
            let locked = match source.lock_thread() {
                Some(lock_thread) => lock_thread.outcome().unwrap_or(Ok(false)),
                None => door.try_lock(shared),
            };
            if locked.map_err(|e| Error::io("lock the lock file", &place.door, e))? {
                break;
            }
            step::at(Step::WatchDoor);
            let Site {
                watcher_id,
                events,
                threads,
            } = self.site;
            if self.settings.wait == Wait::Blocking {
                source.start_thread(watcher_id, door.file(), shared);
            }
            let fresh = source.watch(watcher_id, door.file(), Seen::Door, events);
            if had_events && threads && self.settings.wait == Wait::Watch && source.is_polling() {
                self.notes.push(Note::Fallback);
                source.thread_instead(watcher_id, door.file(), shared);
                had_events = false;
            }
            step::at(Step::CheckDoor);
            if !place.is_current(door)? {
                self.note_fallback(had_events);
                return self.start_again();
            }
            if !fresh {
                source.pace(&mut self.ladder);
                self.note_fallback(had_events);
                return Ok(Flow::Done(Outcome::Sleep));
            }
        }
        self.begin_to_enter();
        // The task is woken first, and the rest is done meanwhile. To wake a thread takes longer
        // than all of it.
        self.paused = self.input.cause == Cause::Event;
        Ok(match self.paused {
            true => Flow::Done(Outcome::DoorLocked),
            false => Flow::Again,
        })
    }

    /// Goes on with the door locked.
    fn begin_to_enter(&mut self) {
        let position = std::mem::replace(&mut self.position, Position::Fresh);
        self.position = match position {
            Position::AtDoor { door, source } => Position::Entering {
                door,
                watch: source.watch_id(),
            },
            other => other,
        };
    }

    /// Returns whether the locked door is current and the bypassed waiters are still frozen.
    fn is_ours(&self, disk: &Disk) -> Result<bool> {
        let Position::Entering { door, .. } = &self.position else {
            return Ok(false);
        };
        step::at(Step::CheckDoor);
        if !disk.place().is_current(door)? {
            return Ok(false);
        }
        step::at(Step::CheckMarks);
        Ok(!disk.marks_gone(&self.bypassed)?)
    }

    /// Gives the locked door back and starts again.
    fn give_back(&mut self) {
        step::at(Step::GiveBack);
        if let Position::AtDoor { door, .. } | Position::Entering { door, .. } =
            self.take_position()
        {
            let _ = door.leave();
        }
    }

    fn enter(&mut self, disk: &mut Disk) -> Result<Flow> {
        let entered = self.try_to_enter(disk);
        if entered.is_err() {
            self.give_back();
        }
        entered
    }

    fn try_to_enter(&mut self, disk: &mut Disk) -> Result<Flow> {
        let ours = self.is_ours(disk)?;
        let Position::Entering { door, .. } = &self.position else {
            return Ok(Flow::Again);
        };
        if !ours {
            self.give_back();
            return Ok(Flow::Again);
        }
        let shared = self.mode == Mode::Shared;
        let admission = match shared {
            true => {
                disk.refresh()?;
                disk.enter_shared(door)?
            }
            false => disk.enter(door, &self.settings.words)?,
        };
        match admission {
            Admission::In(entered) => Ok(self.entered(entered)),
            Admission::Dying => {
                self.retry.refusals = 0;
                Ok(self.try_again_soon())
            }
            Admission::Elsewhere if shared => self.check_replaced(disk),
            Admission::Elsewhere if self.retry.refusals >= MOST_REFUSALS => Err(disk.replaced()),
            // The door stays locked.
            Admission::Elsewhere => {
                self.retry.refusals += 1;
                Ok(self.try_again_soon())
            }
        }
    }

    /// Hands over the door, with its watch.
    fn entered(&mut self, entered: Entered) -> Flow {
        match std::mem::replace(&mut self.position, Position::Fresh) {
            Position::Entering { door, watch } => Flow::Done(Outcome::Entered(Entry {
                door: Some(door),
                watch,
                entered,
                bypassed: std::mem::take(&mut self.bypassed),
            })),
            other => {
                self.position = other;
                Flow::Again
            }
        }
    }

    /// Handles a refusal of `state` to a reader, under a record that does not name its door.
    ///
    /// The other process is about to make the record name this door, or came through another door.
    /// After `MOST_REFUSALS` rungs the reader tries to be alone at the door. Only then, and after
    /// as many rungs again, it knows that the lock file was replaced.
    fn check_replaced(&mut self, disk: &mut Disk) -> Result<Flow> {
        let asks = self.retry.refusals >= MOST_REFUSALS;
        let elsewhere = match &self.position {
            Position::Entering { door, .. } if asks => is_alone_and_refused(door, disk),
            _ => Ok(true),
        };
        self.give_back();
        self.retry.refusals = match elsewhere? {
            true if self.retry.refusals >= 2 * MOST_REFUSALS => return Err(disk.replaced()),
            true => self.retry.refusals + 1,
            false => 0,
        };
        let flow = self.try_again_soon();
        if self.retry.refusals == MOST_REFUSALS {
            self.ladder.start(FINE);
        }
        Ok(flow)
    }

    fn try_again_soon(&mut self) -> Flow {
        // The door may have been locked without an event, on a rung that is seconds long.
        if !std::mem::replace(&mut self.retry.fast, true) || self.ladder.at.is_none() {
            self.ladder.hurry(FINE);
        }
        Flow::Done(Outcome::Sleep)
    }

    /// Begins to collect as the first waiter for permits, or goes on.
    fn approach_slots(&mut self, disk: &mut Disk) -> Result<Flow> {
        if !self.collects() {
            self.reset();
            self.ladder.start(COARSE);
            let refused = RefusedSlots::new(self.site, self.settings.clone());
            self.position = Position::AtSlots(refused);
        }
        self.collect(disk)
    }

    fn collect(&mut self, disk: &mut Disk) -> Result<Flow> {
        let had_events = !self.is_polling();
        let (Mode::Permits(count), Position::AtSlots(refused)) = (self.mode, &mut self.position)
        else {
            return Ok(Flow::Again);
        };
        let wanted = self.input.reserved.saturating_add(count);
        let all = self.input.cause != Cause::Event;
        loop {
            let Some(slots) = disk.slots_mut() else {
                return Ok(Flow::Again);
            };
            if slots.gather_waiting(refused, wanted, all)? {
                break;
            }
            if !disk.adopt_limit()? {
                disk.check_count(count)?;
                refused.pace(&mut self.ladder);
                if disk
                    .slots()
                    .is_some_and(|it| it.in_hand() > self.input.reserved)
                {
                    self.bypass.look_within(LOOK_EVERY);
                }
                self.note_fallback(had_events);
                return Ok(Flow::Done(Outcome::Sleep));
            }
        }
        self.enter_with_permits(disk)
    }

    fn enter_with_permits(&mut self, disk: &mut Disk) -> Result<Flow> {
        if disk.marks_gone(&self.bypassed)? {
            disk.keep_in_hand(self.input.reserved)?;
            return self.start_again();
        }
        let Some(token) = disk.mint(&self.settings.words, 0)? else {
            return Ok(self.try_again_soon());
        };
        self.reset();
        Ok(Flow::Done(Outcome::Entered(Entry {
            door: None,
            watch: None,
            entered: Entered::without_crash(token),
            bypassed: std::mem::take(&mut self.bypassed),
        })))
    }

    /// Looks whether the waiters before this one are frozen, and bypasses them if they are.
    fn look_for_bypass(&mut self, own: &OwnTicket, disk: &mut Disk) -> Result<Outcome> {
        if !self.bypass.is_on() || !self.is_behind() {
            self.bypass.forget();
            return Ok(Outcome::Sleep);
        }
        let free = match self.bypass.look(own, disk, self.input.reserved)? {
            Look::Wait => return Ok(Outcome::Sleep),
            Look::TicketGone => {
                self.reset();
                return Ok(Outcome::TicketGone);
            }
            Look::AllFrozen(free) => free,
        };
        self.reset();
        let mut tickets = 0;
        let marked = mark_all_before(own, disk, self.settings.bits, &mut tickets)
            .map(|bypassed| self.bypassed = bypassed);
        if tickets > 0 {
            self.notes.push(Note::Bypassed { tickets });
        }
        let flow = match free {
            Free::Door(door) => self.enter_as_bypasser(disk, door, marked),
            Free::Slots => {
                let flow = marked.and_then(|()| self.approach_slots(disk));
                if flow.is_err() {
                    let _ = disk.keep_in_hand(self.input.reserved);
                }
                flow
            }
        };
        Ok(match flow? {
            Flow::Done(outcome) => outcome,
            Flow::Again => Outcome::Sleep,
        })
    }

    /// Enters with a door that was locked exclusively to find out whether it was free.
    fn enter_as_bypasser(
        &mut self,
        disk: &mut Disk,
        door: Door,
        marked: Result<()>,
    ) -> Result<Flow> {
        let path = disk.place().door.clone();
        let shared = if self.mode == Mode::Shared {
            let shared = door.share();
            // Other readers may have found the door locked exclusively at this moment.
            door.ring(&path);
            shared
        } else {
            Ok(true)
        };
        self.position = Position::Entering { door, watch: None };
        let shared = shared.map_err(|e| Error::io("share the lock of the lock file", path, e));
        match marked.and(shared) {
            Ok(true) => self.enter(disk),
            Ok(false) => {
                self.give_back();
                Ok(Flow::Done(Outcome::Sleep))
            }
            Err(error) => {
                self.give_back();
                Err(error)
            }
        }
    }
}

/// Gives up the share of the door to be alone there. Returns whether that succeeded and `state` is
/// locked all the same.
fn is_alone_and_refused(door: &Door, disk: &mut Disk) -> Result<bool> {
    let place = disk.place();
    let alone = door.try_alone();
    let alone = alone.map_err(|e| Error::io("lock the lock file", &place.door, e))?;
    Ok(alone && place.is_current(door)? && disk.is_held_elsewhere(door)?)
}
