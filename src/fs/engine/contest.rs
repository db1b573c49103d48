//! The wait for a lock that exists as a name: whoever looks first after it is free has it.
//!
//! # Algorithm
//!
//! [`Contest::contend`] tries once, without waiting. Refused, it says what would announce that trying again makes sense: a file, a directory,
//! the end of a process. All that is watched that is not yet, and if anything was new, it is tried again, so that nothing happens unseen in
//! between. Then sleep; every event, and a timer, tries again. Where nothing can be watched: again after jittered delays.
//!
//! It is tried where the event arrives, on the watch thread, so that the task is woken with the lock in hand.
//!
//! # Invariants
//!
//! 1. What stands in the way was seen after it was watched.
//! 2. A lock that comes for a wait that was dropped is given back at once; one that comes for a task that is not polled, after
//!    [`CLAIM_WINDOW`]. That task tries again when it is polled.
//!
//! # Fairness
//!
//! None. A release wakes all, and one of them wins.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::wait::{COARSE, FINE, Ladder, Wait, after};
use super::watch::{Seat, Seen, WatchId, Watcher, watch};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::SafeWaker;
use crate::fs::sys::file::{self, FileId};
use crate::fs::sys::fork::generation;
use crate::fs::sys::process;
use crate::ledger::Ledger;
use crate::options::CLAIM_WINDOW;
use crate::status::Owner;
use crate::trace::Note;

/// How often what is to be watched may turn out to be another thing by then.
const ROUNDS: usize = 16;

/// How a lock of this sort is waited for.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Manner {
    /// Sitting in a lock call there is none.
    pub(crate) wait: Wait,
    pub(crate) poll_interval: Duration,
    /// Whether file events can be expected.
    pub(crate) events: bool,
}

impl Manner {
    pub(crate) fn is_told(&self) -> bool {
        self.events && !matches!(self.wait, Wait::Poll(_))
    }
}

/// A lock that can be tried.
#[doc(hidden)]
pub trait Contest: Send + Sync + 'static {
    /// The lock, held. Dropped, it is given back.
    type Prize: Send + 'static;

    /// What one who tries remembers from one try to the next.
    type Memory: Default + Send + 'static;

    /// Tries once.
    fn contend(&self, memory: &mut Self::Memory) -> Result<Outcome<Self::Prize>>;

    fn path(&self) -> &Path;

    fn manner(&self) -> &Manner;

    fn ledger(&self) -> &Arc<Ledger>;
}

#[doc(hidden)]
pub enum Outcome<P> {
    Won(P),
    Refused(Obstacle),
}

/// Who stands in the way, and what will tell of his leaving.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Obstacle {
    pub(crate) owner: Option<Owner>,
    pub(crate) signs: Vec<Sign>,
    /// Look again after this time at the latest.
    pub(crate) within: Option<Duration>,
}

/// How long something was seen to stand still. The time between two looks counts only up to a step: while this process
/// or the whole machine was suspended, the other could not move either.
#[derive(Debug)]
pub(crate) struct Stillness {
    looked: Instant,
    seen: Duration,
}

impl Stillness {
    /// The first look.
    pub(crate) fn begin() -> Self {
        Self {
            looked: Instant::now(),
            seen: Duration::ZERO,
        }
    }

    /// Another look: how long it has stood still by now.
    pub(crate) fn look(&mut self, step: Duration) -> Duration {
        let now = Instant::now();
        self.seen += now.saturating_duration_since(self.looked).min(step);
        self.looked = now;
        self.seen
    }
}

/// Something that can be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// A name; if it should be a certain file, and is not any more, that is an event too.
    Name(PathBuf, Option<FileId>, Seen),
    /// The end of the process with a pid. Whose pid it is is looked at after it is watched.
    End(u32),
}

/// A wait. Dropped, it gives back what it has.
pub(crate) struct Waiting<C: Contest> {
    contender: Arc<Contender<C>>,
    seat: Seat,
    generation: u32,
}

struct Contender<C: Contest> {
    contest: Arc<C>,
    seat: OnceLock<Seat>,
    core: Mutex<Core<C>>,
}

struct Core<C: Contest> {
    stage: Stage<C::Prize>,
    memory: C::Memory,
    owner: Option<Owner>,
    eyes: Vec<(Sign, WatchId)>,
    /// Delays where something cannot be watched.
    polling: Option<Backoff>,
    ladder: Ladder,
    /// Until when a lock that came is kept for the task.
    claim_by: Option<Instant>,
    waker: Option<SafeWaker>,
}

enum Stage<P> {
    Refused,
    /// To be taken by the task.
    Won(P),
    /// The task did not come for the lock in time; it tries again when it is polled.
    Asleep,
    Failed(Error),
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Begin,
    Event,
    Timer,
}

impl<C: Contest> Waiting<C> {
    /// Goes on after a refusal, with what was remembered of it.
    pub(crate) fn begin(contest: Arc<C>, memory: C::Memory, waker: &Waker) -> Self {
        let manner = contest.manner();
        let polling = match &manner.wait {
            Wait::Poll(backoff) => Some(backoff.clone()),
            Wait::Watch | Wait::Blocking => (!manner.events).then(Backoff::default),
        };
        let ladder = Ladder::new(manner.poll_interval);
        let contender = Arc::new(Contender {
            contest,
            seat: OnceLock::new(),
            core: Mutex::new(Core {
                stage: Stage::Refused,
                memory,
                owner: None,
                eyes: Vec::new(),
                polling,
                ladder,
                claim_by: None,
                waker: Some(SafeWaker::of(waker)),
            }),
        });
        let weak = Arc::downgrade(&contender);
        let seat = watch().enroll(weak);
        contender.seat.get_or_init(|| seat);
        contender.core().ladder.start(COARSE);
        contender.act(Cause::Begin);
        let (contest, polls) = (&contender.contest, contender.core().polling.is_some());
        if polls && !matches!(contest.manner().wait, Wait::Poll(_)) {
            Note::Fallback.tell_alone(contest.path());
        }
        Self {
            contender,
            seat,
            generation: generation(),
        }
    }

    pub(crate) fn poll(&mut self, waker: &Waker) -> Poll<Result<C::Prize>> {
        if self.generation != generation() {
            let text = "this wait began before a fork; begin another one in the child";
            return Poll::Ready(Err(Error::new(ErrorKind::Unsupported, text)));
        }
        let waker = SafeWaker::of(waker);
        let mut core = self.contender.core();
        if matches!(core.stage, Stage::Asleep) {
            core.stage = Stage::Refused;
            core.ladder.start(COARSE);
            drop(core);
            self.contender.act(Cause::Begin);
            core = self.contender.core();
        }
        match std::mem::replace(&mut core.stage, Stage::Over) {
            Stage::Won(prize) => Poll::Ready(Ok(prize)),
            Stage::Failed(error) => Poll::Ready(Err(error)),
            other => {
                core.stage = other;
                let old = core.waker.replace(waker);
                drop(core);
                drop(old);
                Poll::Pending
            }
        }
    }

    /// Who was in the way at the last look.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.contender.core().owner.clone()
    }
}

impl<C: Contest> Drop for Waiting<C> {
    /// Gives back the watches, and a lock that came for nobody. In a forked child they are not ours.
    fn drop(&mut self) {
        if self.generation != generation() {
            return;
        }
        let mut core = self.contender.core();
        let stage = std::mem::replace(&mut core.stage, Stage::Over);
        let (eyes, waker) = (std::mem::take(&mut core.eyes), core.waker.take());
        let memory = std::mem::take(&mut core.memory);
        drop(core);
        watch().leave(self.seat);
        for (_, id) in eyes {
            watch().forget(self.seat, id);
        }
        drop((stage, waker, memory));
    }
}

impl<C: Contest> Contender<C> {
    fn core(&self) -> MutexGuard<'_, Core<C>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries, sets the timer, and wakes the task when there is something for it.
    fn act(&self, cause: Cause) {
        let Some(seat) = self.seat.get().copied() else {
            return;
        };
        let mut core = self.core();
        if cause == Cause::Timer && matches!(core.stage, Stage::Won(_)) {
            let unclaimed = fall_asleep(&mut core, seat);
            drop(core);
            drop(unclaimed);
            return;
        }
        if !matches!(core.stage, Stage::Refused) {
            return;
        }
        let outcome = self.look(&mut core, seat, cause);
        let at = core.ladder.at;
        let armed = |at: Instant| {
            let armed = watch().arm(seat, at);
            armed.map_err(|e| Error::io("set a timer for", self.contest.path(), e))
        };
        core.stage = match outcome.and_then(|stage| match (stage, at) {
            (None, Some(at)) => armed(at).map(|()| None),
            (stage, _) => Ok(stage),
        }) {
            Ok(None) => return,
            Ok(Some(prize)) => Stage::Won(prize),
            Err(error) => Stage::Failed(error),
        };
        core.claim_by = after(CLAIM_WINDOW);
        let eyes = std::mem::take(&mut core.eyes);
        // Without a timer a task that never comes keeps the lock.
        let _ = core.claim_by.map(|at| watch().arm(seat, at));
        let waker = core.waker.take();
        drop(core);
        if cause != Cause::Begin
            && let Some(waker) = waker
        {
            waker.wake();
        }
        for (_, id) in eyes {
            watch().forget(seat, id);
        }
    }

    /// Tries, and makes sure of being told when to try again.
    fn look(&self, core: &mut Core<C>, seat: Seat, cause: Cause) -> Result<Option<C::Prize>> {
        match cause {
            Cause::Begin => {}
            Cause::Event => core.ladder.start(FINE),
            Cause::Timer if core.ladder.at.is_some_and(|at| Instant::now() < at) => {
                return Ok(None);
            }
            Cause::Timer => core.ladder.climb(),
        }
        for round in 0.. {
            let obstacle = match self.contest.contend(&mut core.memory)? {
                Outcome::Won(prize) => return Ok(Some(prize)),
                Outcome::Refused(obstacle) => obstacle,
            };
            let fresh = core.polling.is_none() && core.look_at(&obstacle.signs, seat);
            core.owner = obstacle.owner;
            // Whatever changes so often is looked at again by the ladder.
            if fresh && round < ROUNDS {
                continue;
            }
            if let Some(backoff) = &mut core.polling {
                core.ladder.at = after(backoff.next_delay());
            }
            if let Some(at) = obstacle.within.and_then(after)
                && core.ladder.at.is_none_or(|it| at < it)
            {
                core.ladder.at = Some(at);
            }
            break;
        }
        Ok(None)
    }
}

impl<C: Contest> Core<C> {
    /// Watches exactly these; `true` if anything is watched now that was not, or is not any more what it should be.
    fn look_at(&mut self, signs: &[Sign], seat: Seat) -> bool {
        self.eyes.retain(|(sign, id)| {
            let kept = signs.contains(sign);
            if !kept {
                watch().forget(seat, *id);
            }
            kept
        });
        let mut fresh = false;
        for sign in signs {
            if self.eyes.iter().any(|(known, _)| known == sign) {
                continue;
            }
            match add(seat, sign) {
                Ok(Some(id)) => {
                    self.eyes.push((sign.clone(), id));
                    fresh = true;
                }
                Ok(None) => fresh = true,
                // The end of a process is one sign of two: its files are closed then.
                Err(_) if matches!(sign, Sign::End(..)) => {}
                Err(_) => {
                    self.polling = Some(Backoff::default());
                    return false;
                }
            }
        }
        fresh
    }
}

/// Begins to watch something; `None` when it is not any more what it should be.
fn add(seat: Seat, sign: &Sign) -> std::io::Result<Option<WatchId>> {
    match sign {
        Sign::Name(path, expected, seen) => {
            let Some(found) = file::open_to_watch(path)? else {
                return Ok(None);
            };
            if expected.is_some() && file::id_of(&found).ok() != *expected {
                return Ok(None);
            }
            watch().add(seat, &found, *seen).map(Some)
        }
        Sign::End(pid) => match process::open(*pid)? {
            Some(process) => watch().add_process(seat, process).map(Some),
            None => Ok(None),
        },
    }
}

/// A lock that nobody has come for in time goes back, so that a task that is not polled holds up nobody.
fn fall_asleep<C: Contest>(core: &mut Core<C>, seat: Seat) -> Option<C::Prize> {
    if let Some(at) = core.claim_by.filter(|at| Instant::now() < *at) {
        // An earlier timer, of the wait.
        let _ = watch().arm(seat, at);
        return None;
    }
    match std::mem::replace(&mut core.stage, Stage::Asleep) {
        Stage::Won(prize) => Some(prize),
        other => {
            core.stage = other;
            None
        }
    }
}

impl<C: Contest> Watcher for Contender<C> {
    fn on_event(&self, id: WatchId) {
        let mut core = self.core();
        match id.seen {
            Seen::Everything => {
                let eyes = std::mem::take(&mut core.eyes);
                if let Some(seat) = self.seat.get() {
                    for (_, id) in eyes {
                        watch().forget(*seat, id);
                    }
                }
            }
            _ => core.eyes.retain(|(_, own)| *own != id),
        }
        drop(core);
        self.act(Cause::Event);
    }

    fn on_timer(&self) {
        self.act(Cause::Timer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p19_a_pause_between_two_looks_counts_one_step() {
        let step = Duration::from_secs(1);
        let mut still = Stillness::begin();
        for looks in 1..=3 {
            // As if the clock had gone on while the process stood still.
            let before = still.looked.checked_sub(Duration::from_secs(60));
            still.looked = before.expect("the machine has been up for a minute");
            assert_eq!(still.look(step), step * looks);
        }
    }
}
