//! The wait for the operating system's lock on a file, without a queue: whoever tries first after a release has it.
//!
//! # Algorithm
//!
//! Open the file, try the lock. Refused, one of three ways to wait:
//!
//! - *told*: watch the open file for closes, by whomever, then try again; after each event and each new watch also along
//!   the rungs of a [`Ladder`], because the kernel announces the close of a dying process before it drops the
//!   lock. The slow poll at its end finds those who unlock and do not close.
//! - *polling*: try again after jittered delays.
//! - *sitting*: a [`Sitter`](super::blocking::Sitter) waits in the lock call.
//!
//! The lock is tried where the event arrives, on the watch thread, so that the task is woken with the lock in hand.
//!
//! # Invariants
//!
//! 1. What is watched is the open descriptor, opened before and tried again after: nothing happens unseen in between.
//! 2. A lock counts only if its file bears the path's name: found deleted or replaced, it is given back, and the path is
//!    opened anew. Who has waited compares the path; who has not asks only whether the file has a name at all.
//! 3. Whoever had the lock, if only for an instant, unlocks and then closes.
//! 4. A lock that comes for a wait that was dropped is given back at once; one that comes for a task that is not polled, after
//!    [`CLAIM_WINDOW`]. That task tries again when it is polled.
//!
//! # After a crash
//!
//! The kernel closes the files of the dead; that is the event.
//!
//! # Fairness
//!
//! None. The kernel serves those who sit in the call in their order, and a newcomer before all others.
//!
//! # Cost
//!
//! Nobody else there: open, lock, fstat; unlock, close. Waiting by watch: no processor time but the slow poll. A release wakes all
//! who watch, and one of them wins.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use super::wait::{COARSE, Eye, FINE, Ladder, Wait};
use super::watch::{Seat, Seen, WatchId, Watcher, watch};
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::SafeWaker;
use crate::fs::sys::file::{self, FileId};
use crate::fs::sys::flock;
use crate::fs::sys::fork::{Private, generation};
use crate::options::CLAIM_WINDOW;
use crate::trace::Note;

mod target;

use target::give_back;
pub(crate) use target::{First, Locked, Manner, Target};

/// A wait. Dropped, it gives back what it has.
pub(crate) struct Knock {
    knocker: Arc<Knocker>,
    seat: Seat,
    generation: u32,
}

/// Whose lock is waited for.
pub(crate) enum Source {
    /// Of the file at a path, whichever that is when the lock is free; `true` to share it.
    Path(Arc<Target>, bool),
    /// Of a file that the caller has open; `true` to share it.
    Open(Manner, bool),
}

impl Source {
    /// A lock that came for nobody. A file that is the caller's stays open, so that no close tells the others.
    fn give_back(&self, file: Private) {
        match self {
            Self::Path(..) => give_back(file, true),
            Self::Open(..) => hand_back(&file),
        }
    }

    fn manner(&self) -> &Manner {
        match self {
            Self::Path(target, _) => &target.manner,
            Self::Open(manner, _) => manner,
        }
    }

    fn shared(&self) -> bool {
        match self {
            Self::Path(_, shared) | Self::Open(_, shared) => *shared,
        }
    }

    fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        match self {
            Self::Path(target, _) => target.io(step, error),
            Self::Open(..) => Error::pathless_io(step, error),
        }
    }
}

struct Knocker {
    source: Source,
    seat: OnceLock<Seat>,
    core: Mutex<Core>,
}

struct Core {
    stage: Stage,
    ladder: Ladder,
    /// Until when a lock that came is kept for the task.
    claim_by: Option<Instant>,
    waker: Option<SafeWaker>,
}

enum Stage {
    Refused {
        file: Private,
        eye: Eye,
    },
    /// Locked where the event arrived, and not yet compared with the path: the task is being woken meanwhile.
    Unchecked(Private),
    /// To be taken by the task.
    Locked(Locked),
    /// The task did not come for the lock in time; it looks again when it is polled. The file, where that is the caller's.
    Asleep(Option<Private>),
    Failed(Error),
    Over,
}

/// Why somebody looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Begin,
    Event,
    Timer,
}

impl Knock {
    /// Begins to wait for the lock of an open file that was refused.
    pub(crate) fn begin(source: Source, file: Private, waker: &Waker) -> Self {
        let manner = source.manner();
        let eye = Eye::new(&manner.wait);
        let mut ladder = Ladder::new(manner.poll_interval);
        ladder.start(COARSE);
        let knocker = Arc::new(Knocker {
            source,
            seat: OnceLock::new(),
            core: Mutex::new(Core {
                stage: Stage::Refused { file, eye },
                ladder,
                claim_by: None,
                waker: Some(SafeWaker::of(waker)),
            }),
        });
        let weak = Arc::downgrade(&knocker);
        let seat = watch().enroll(weak);
        knocker.seat.get_or_init(|| seat);
        knocker.act(Cause::Begin);
        knocker.tell_fallback();
        Self {
            knocker,
            seat,
            generation: generation(),
        }
    }

    pub(crate) fn poll(&mut self, waker: &Waker) -> Poll<Result<Locked>> {
        if self.generation != generation() {
            let text = "this wait began before a fork; begin another one in the child";
            return Poll::Ready(Err(Error::new(ErrorKind::Unsupported, text)));
        }
        let waker = SafeWaker::of(waker);
        self.knocker.wake_up();
        self.knocker.check();
        let mut core = self.knocker.core();
        match std::mem::replace(&mut core.stage, Stage::Over) {
            Stage::Locked(locked) => Poll::Ready(Ok(locked)),
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
}

impl Drop for Knock {
    /// Gives back the watch, and a lock that came for nobody. In a forked child they are not ours.
    fn drop(&mut self) {
        if self.generation != generation() {
            return;
        }
        let mut core = self.knocker.core();
        let stage = std::mem::replace(&mut core.stage, Stage::Over);
        let waker = core.waker.take();
        drop(core);
        drop(waker);
        watch().leave(self.seat);
        match stage {
            Stage::Refused { file, eye } => {
                if let Eye::Watching(id) = eye {
                    watch().forget(self.seat, id);
                }
                drop(file);
            }
            Stage::Locked(Locked { file, .. }) | Stage::Unchecked(file) => {
                self.knocker.source.give_back(file);
            }
            Stage::Asleep(_) | Stage::Failed(_) | Stage::Over => {}
        }
    }
}

impl Knocker {
    /// Tells an operator when the wait polls although it was to be woken.
    fn tell_fallback(&self) {
        let polls = matches!(&self.core().stage, Stage::Refused { eye, .. } if eye.is_polling());
        if let Source::Path(target, _) = &self.source
            && polls
            && !matches!(target.manner.wait, Wait::Poll(_))
        {
            Note::Fallback.tell_alone(&target.path);
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks, sets the timer, and wakes the task when there is something for it.
    fn act(&self, cause: Cause) {
        let Some(seat) = self.seat.get().copied() else {
            return;
        };
        let mut core = self.core();
        let core_mut = &mut *core;
        if cause == Cause::Timer && matches!(core_mut.stage, Stage::Locked(_)) {
            self.fall_asleep(core_mut);
        }
        if !matches!(core_mut.stage, Stage::Refused { .. }) {
            return;
        }
        let looked = self.look(core_mut, seat, cause).and_then(|stage| {
            let due = core_mut.ladder.at.filter(|_| stage.is_none());
            let armed = due.map_or(Ok(()), |at| watch().arm(seat, at));
            armed
                .map(|()| stage)
                .map_err(|e| self.source.io("set a timer for", e))
        });
        match looked {
            Ok(None) => return,
            Ok(Some(stage)) => core_mut.stage = stage,
            Err(error) => core_mut.stage = Stage::Failed(error),
        }
        let waker = core.waker.take();
        drop(core);
        if cause != Cause::Begin
            && let Some(waker) = waker
        {
            waker.wake();
        }
        // The task wakes up meanwhile: that takes longer than this.
        self.check();
    }

    /// Compares what was locked with the path. By whoever comes first, the thread that locked it or the task.
    fn check(&self) {
        let Some(seat) = self.seat.get().copied() else {
            return;
        };
        let mut core = self.core();
        let file = match std::mem::replace(&mut core.stage, Stage::Over) {
            Stage::Unchecked(file) => file,
            other => {
                core.stage = other;
                return;
            }
        };
        match self.id_if_current(&file) {
            Ok(Some(id)) => {
                core.stage = Stage::Locked(Locked { file, id });
                core.claim_by = Instant::now().checked_add(CLAIM_WINDOW);
                // Without a timer a task that never comes keeps the lock.
                let _ = core.claim_by.map(|at| watch().arm(seat, at));
                return;
            }
            Ok(None) => {
                give_back(file, true);
                self.begin_anew(&mut core);
            }
            Err(error) => {
                give_back(file, true);
                core.stage = Stage::Failed(error);
                return;
            }
        }
        drop(core);
        // Not as a beginning: the task may have been polled in between, and then it sleeps again.
        self.act(Cause::Event);
    }

    /// A lock that nobody has come for in time goes back, so that a task that is not polled holds up nobody.
    fn fall_asleep(&self, core: &mut Core) {
        if let Some(at) = core.claim_by.filter(|at| Instant::now() < *at) {
            // An earlier timer, of the wait.
            let _ = self.seat.get().map(|seat| watch().arm(*seat, at));
            return;
        }
        core.stage = match std::mem::replace(&mut core.stage, Stage::Over) {
            Stage::Locked(locked) => match self.source {
                Source::Path(..) => {
                    give_back(locked.file, true);
                    Stage::Asleep(None)
                }
                Source::Open(..) => {
                    hand_back(&locked.file);
                    Stage::Asleep(Some(locked.file))
                }
            },
            other => other,
        };
    }

    /// The task is polled: one that had fallen asleep begins anew.
    fn wake_up(&self) {
        let mut core = self.core();
        match std::mem::replace(&mut core.stage, Stage::Over) {
            Stage::Asleep(Some(file)) => self.refused(&mut core, file),
            Stage::Asleep(None) => self.begin_anew(&mut core),
            other => {
                core.stage = other;
                return;
            }
        }
        drop(core);
        self.act(Cause::Begin);
    }

    /// Opens what the path means by now.
    fn begin_anew(&self, core: &mut Core) {
        let Source::Path(target, _) = &self.source else {
            return;
        };
        match target.open_again() {
            Ok(file) => self.refused(core, file),
            Err(error) => core.stage = Stage::Failed(error),
        }
    }

    /// The wait goes on with this file.
    fn refused(&self, core: &mut Core, file: Private) {
        let eye = Eye::new(&self.source.manner().wait);
        core.stage = Stage::Refused { file, eye };
        core.ladder.start(COARSE);
    }

    /// Tries the lock, and makes sure of being told when to try again. The stage that follows, unless it is the same.
    fn look(&self, core: &mut Core, seat: Seat, cause: Cause) -> Result<Option<Stage>> {
        let manner = self.source.manner();
        match cause {
            Cause::Begin => {}
            Cause::Event => core.ladder.start(FINE),
            Cause::Timer if core.ladder.at.is_some_and(|at| Instant::now() < at) => {
                return Ok(None);
            }
            Cause::Timer => core.ladder.climb(),
        }
        loop {
            let Stage::Refused { file, eye } = &mut core.stage else {
                // Opened anew, and that failed.
                return Ok(Some(std::mem::replace(&mut core.stage, Stage::Over)));
            };
            let locked = match eye.sitter() {
                Some(sitter) => sitter.outcome().unwrap_or(Ok(false)),
                None => flock::try_lock(file, self.source.shared()),
            };
            let locked = locked.map_err(|e| self.source.io("lock the file", e))?;
            if locked {
                look_away(seat, eye);
                return Ok(self.take(core));
            }
            let fresh = {
                if manner.wait == Wait::Blocking {
                    eye.sit(seat, file, self.source.shared());
                }
                eye.watch(seat, file, Seen::Door, manner.events)
            };
            match self.id_if_current(file) {
                Ok(Some(_)) if fresh => {}
                Ok(Some(_)) => {
                    eye.pace(&mut core.ladder);
                    return Ok(None);
                }
                Ok(None) => {
                    look_away(seat, eye);
                    self.begin_anew(core);
                }
                Err(error) => {
                    look_away(seat, eye);
                    return Err(error);
                }
            }
        }
    }

    fn id_if_current(&self, file: &Private) -> Result<Option<FileId>> {
        match &self.source {
            Source::Path(target, _) => target.is_current(file),
            Source::Open(..) => {
                let id = file::id_of(file);
                id.map(Some)
                    .map_err(|e| self.source.io("look at the file", e))
            }
        }
    }

    /// The open file, which is locked, as the end of the wait.
    fn take(&self, core: &mut Core) -> Option<Stage> {
        match std::mem::replace(&mut core.stage, Stage::Over) {
            Stage::Refused { file, .. } => Some(Stage::Unchecked(file)),
            other => Some(other),
        }
    }
}

/// Unlocks a file that stays open.
fn hand_back(file: &Private) {
    let _ = flock::unlock(file);
    file::announce(file);
}

fn look_away(seat: Seat, eye: &mut Eye) {
    if let Eye::Watching(id) = *eye {
        watch().forget(seat, id);
        *eye = Eye::Open;
    }
}

impl Watcher for Knocker {
    fn on_event(&self, id: WatchId) {
        let mut core = self.core();
        if let Stage::Refused { eye, .. } = &mut core.stage {
            match eye {
                Eye::Watching(own) if *own == id => *eye = Eye::Open,
                // Events were lost: a watch may be over, or not.
                Eye::Watching(own) if id.seen == Seen::Everything => {
                    let own = *own;
                    *eye = Eye::Open;
                    if let Some(seat) = self.seat.get() {
                        watch().forget(*seat, own);
                    }
                }
                Eye::Sitting(_) => {}
                _ => return,
            }
        }
        drop(core);
        self.act(Cause::Event);
    }

    fn on_timer(&self) {
        self.act(Cause::Timer);
    }
}
