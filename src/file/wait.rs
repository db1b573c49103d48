//! The wait for a lock without a queue: the plain OS lock on a file, or a lock that exists as a
//! name. After a release, the first caller that tries acquires the lock.
//!
//! # Algorithm
//!
//! A [`Target`] can be tried once, without waiting. A refusal names its *event sources*: a file, a
//! directory, the end of a process. An event there means that another attempt may succeed. The wait
//! watches all of them. If a watch is new, the wait tries again, because an event before the watch
//! is lost. Then it sleeps. Three things cause another attempt:
//!
//! - An event. More attempts follow with growing delays (see [`Ladder`]), because the kernel
//!   announces the close of a dying process before it drops the lock. They also follow a new watch.
//! - The poll interval, for processes that unlock a file without closing it.
//! - A jittered delay, if nothing can be watched.
//!
//! With [`Wait::Blocking`] a thread waits in the lock call. The return of that call is the event.
//!
//! Events arrive on the watch thread. It makes the attempt itself, so the task wakes with the lock
//! already granted. The slow part of a grant, [`Target::confirm`], runs while the task wakes up.
//!
//! # Invariants
//!
//! 1. An attempt that was refused came after the watch on the source that it names.
//! 2. A lock that arrives for a dropped wait is released at once. A lock that arrives for a task
//!    that is not polled is released after [`CLAIM_WINDOW`]. That task tries again when it is
//!    polled.
//! 3. No waker is called under the mutex.
//!
//! # After a crash
//!
//! The kernel closes the files of a dead process and announces its end. Both are events.
//!
//! # Fairness
//!
//! None. A release wakes all waiters, and one of them acquires the lock.
//!
//! # Cost
//!
//! A sleeping wait uses no processor time, except for an attempt in each poll interval.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::SafeWaker;
use crate::options::CLAIM_WINDOW;
use crate::status::Owner;
use crate::sys::file::{self, FileId};
use crate::sys::filesystem::FileSystem;
use crate::sys::fork::Origin;
use crate::trace::Note;
use crate::watch::wait::{COARSE, FINE, Ladder, Wait, after};
use crate::watch::{Seen, WatchId, Watcher, WatcherId, watch};

/// How many attempts in a row may each need a new watch before the wait sleeps.
const ROUNDS: usize = 16;

/// How a caller waits for a lock.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct WaitConfig {
    wait: Wait,
    poll_interval: Duration,
    /// Whether file events can be expected.
    events: bool,
}

impl WaitConfig {
    /// Waits in this way for a file on this file system.
    pub(crate) fn new(wait: Wait, poll_interval: Duration, on: FileSystem) -> Self {
        Self {
            wait,
            poll_interval,
            events: on.reports_closes(),
        }
    }

    pub(crate) fn wait(&self) -> &Wait {
        &self.wait
    }

    /// Returns whether file events can be expected.
    pub(crate) fn events(&self) -> bool {
        self.events
    }

    /// Returns whether a release wakes the waiter.
    pub(crate) fn has_push(&self) -> bool {
        match self.wait {
            Wait::Watch => self.events,
            Wait::Poll(_) => false,
            Wait::Blocking => true,
        }
    }
}

/// A lock that can be tried once.
#[doc(hidden)]
pub trait Target: Send + Sync + 'static {
    /// The lock, held.
    type Hold: Send + 'static;

    /// What a waiter keeps from one attempt to the next.
    type Memory: Default + Send + 'static;

    /// Tries once. With a watcher ID, the attempt may start a thread that waits in the lock call
    /// and notifies that watcher.
    fn attempt(
        &self,
        memory: &mut Self::Memory,
        watcher_id: Option<WatcherId>,
    ) -> Result<Outcome<Self::Hold>>;

    /// Checks that a granted lock is still valid. If it is not, releases it and returns `None`.
    fn confirm(&self, hold: Self::Hold) -> Result<Option<Self::Hold>> {
        Ok(Some(hold))
    }

    /// Releases a lock that its task did not take.
    fn give_back(&self, hold: Self::Hold, _memory: &mut Self::Memory) {
        drop(hold);
    }

    /// Begins to watch a source. Returns `None` if the source has changed since the attempt.
    fn watch(
        &self,
        _memory: &Self::Memory,
        watcher_id: WatcherId,
        source: &EventSource,
    ) -> io::Result<Option<WatchId>> {
        source.watch(watcher_id)
    }

    /// Returns the error of a step that failed.
    fn io(&self, step: &'static str, error: io::Error) -> Error;

    /// Returns the path of the lock, if it has one.
    fn place(&self) -> Option<&Path>;

    fn config(&self) -> &WaitConfig;
}

/// The result of an attempt.
#[doc(hidden)]
pub enum Outcome<H> {
    Granted(H),
    Refused(Refusal),
}

/// The holder that refused an attempt, and what causes the next attempt.
#[doc(hidden)]
#[derive(Debug)]
pub struct Refusal {
    pub(crate) owner: Option<Owner>,
    pub(crate) wakes: Wakes,
    /// The longest time until the next attempt.
    pub(crate) within: Option<Duration>,
}

/// What wakes the waiter.
#[derive(Debug)]
pub(crate) enum Wakes {
    Events(Vec<EventSource>),
    /// One event. This needs no allocation.
    Event(EventSource),
    /// A thread waits in the lock call.
    Thread,
    Nothing,
}

/// Something that can be watched.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// A path. If a file ID is given and the path leads to another file now, that is an event too.
    Name(PathBuf, Option<FileId>, Seen),
    /// The end of the process with this pid. The caller checks the process after the watch begins,
    /// because the pid may be reused.
    End(u32),
    /// The file that the waiter has open, from its nth opening of the path.
    Opened(u64),
}

impl EventSource {
    /// Begins to watch a path or a process. Returns `None` if it has changed.
    fn watch(&self, watcher_id: WatcherId) -> io::Result<Option<WatchId>> {
        match self {
            Self::Name(path, expected, seen) => {
                let Some(found) = file::open_to_watch(path)? else {
                    return Ok(None);
                };
                if expected.is_some() && file::id_of(&found).ok() != *expected {
                    return Ok(None);
                }
                watch().add(watcher_id, &found, *seen).map(Some)
            }
            Self::End(pid) => watch().add_process(watcher_id, *pid),
            Self::Opened(_) => Ok(None),
        }
    }
}

/// The wait of one caller. Dropping it ends the wait and releases a lock that was granted.
pub(crate) struct FileWait<T: Target> {
    shared: Arc<Shared<T>>,
    watcher_id: WatcherId,
    origin: Origin,
}

struct Shared<T: Target> {
    target: Arc<T>,
    watcher_id: OnceLock<WatcherId>,
    state: Mutex<State<T>>,
}

struct State<T: Target> {
    stage: Stage<T::Hold>,
    memory: T::Memory,
    owner: Option<Owner>,
    watched: Vec<(EventSource, WatchId)>,
    /// The delays, while nothing can be watched.
    polling: Option<Backoff>,
    ladder: Ladder,
    /// The time until which a granted lock is kept for the task.
    claim_by: Option<Instant>,
    waker: Option<SafeWaker>,
}

enum Stage<H> {
    Refused,
    /// Granted on the watch thread, and not yet confirmed. The task is waking up meanwhile.
    Unconfirmed(H),
    /// Confirmed. The task takes it at its next poll.
    Granted(H),
    /// The task did not take the lock in time. It tries again when it is polled.
    Lapsed,
    Failed(Error),
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Begin,
    Event,
    Timer,
}

impl<T: Target> FileWait<T> {
    /// Begins to wait after an attempt was refused. `memory` is that of this attempt.
    pub(crate) fn begin(target: Arc<T>, memory: T::Memory, waker: &Waker) -> Self {
        let config = target.config();
        let polling = match &config.wait {
            Wait::Poll(backoff) => Some(backoff.clone()),
            Wait::Watch | Wait::Blocking => None,
        };
        let mut ladder = Ladder::new(config.poll_interval);
        ladder.start(COARSE);
        let shared = Arc::new(Shared {
            target,
            watcher_id: OnceLock::new(),
            state: Mutex::new(State {
                stage: Stage::Refused,
                memory,
                owner: None,
                watched: Vec::new(),
                polling,
                ladder,
                claim_by: None,
                waker: Some(SafeWaker::of(waker)),
            }),
        });
        let weak = Arc::downgrade(&shared);
        let watcher_id = watch().enroll(weak);
        shared.watcher_id.get_or_init(|| watcher_id);
        shared.act(Cause::Begin);
        shared.report_polling();
        Self {
            shared,
            watcher_id,
            origin: Origin::here(),
        }
    }

    pub(crate) fn poll(&mut self, waker: &Waker) -> Poll<Result<T::Hold>> {
        if !self.origin.is_here() {
            let text = "this wait began before a fork; begin another one in the child";
            return Poll::Ready(Err(Error::new(ErrorKind::Unsupported, text)));
        }
        let waker = SafeWaker::of(waker);
        let mut state = self.shared.state();
        if matches!(state.stage, Stage::Lapsed) {
            state.stage = Stage::Refused;
            state.ladder.start(COARSE);
            drop(state);
            self.shared.act(Cause::Begin);
        } else {
            drop(state);
            self.shared.confirm();
        }
        let mut state = self.shared.state();
        match std::mem::replace(&mut state.stage, Stage::Over) {
            Stage::Granted(hold) => Poll::Ready(Ok(hold)),
            Stage::Failed(error) => Poll::Ready(Err(error)),
            other => {
                state.stage = other;
                let old = state.waker.replace(waker);
                drop(state);
                drop(old);
                Poll::Pending
            }
        }
    }

    /// Returns the holder at the last attempt, if it is known.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.shared.state().owner.clone()
    }
}

impl<T: Target> Drop for FileWait<T> {
    /// Ends the watches, and releases a lock that was granted. In a forked child, does nothing:
    /// both belong to the parent.
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return;
        }
        let mut state = self.shared.state();
        let stage = std::mem::replace(&mut state.stage, Stage::Over);
        let (watched, waker) = (std::mem::take(&mut state.watched), state.waker.take());
        let mut memory = std::mem::take(&mut state.memory);
        drop(state);
        watch().leave(self.watcher_id);
        for (_, id) in watched {
            watch().forget(self.watcher_id, id);
        }
        if let Stage::Unconfirmed(hold) | Stage::Granted(hold) = stage {
            self.shared.target.give_back(hold, &mut memory);
        }
        drop((memory, waker));
    }
}

impl<T: Target> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Emits a `tracing` event if the wait polls although the options ask for events.
    fn report_polling(&self) {
        let polls = self.state().polling.is_some();
        if let Some(path) = self.target.place()
            && polls
            && !matches!(self.target.config().wait, Wait::Poll(_))
        {
            Note::Fallback.tell(path);
        }
    }

    /// Tries, sets the timer, and wakes the task if there is a result.
    fn act(&self, cause: Cause) {
        let Some(watcher_id) = self.watcher_id.get().copied() else {
            return;
        };
        let mut state = self.state();
        if cause == Cause::Timer && matches!(state.stage, Stage::Granted(_)) {
            self.lapse(state, watcher_id);
            return;
        }
        if !matches!(state.stage, Stage::Refused) {
            return;
        }
        let granted = self.look(&mut state, watcher_id, cause).and_then(|hold| {
            let due = state.ladder.at.filter(|_| hold.is_none());
            due.map_or(Ok(()), |at| watch().arm(watcher_id, at))
                .map(|()| hold)
                .map_err(|error| self.target.io("set a timer for", error))
        });
        state.stage = match granted {
            Ok(None) => return,
            Ok(Some(hold)) => Stage::Unconfirmed(hold),
            Err(error) => Stage::Failed(error),
        };
        let watched = std::mem::take(&mut state.watched);
        let waker = state.waker.take();
        drop(state);
        if cause != Cause::Begin
            && let Some(waker) = waker
        {
            waker.wake();
        }
        for (_, id) in watched {
            watch().forget(watcher_id, id);
        }
        // The task wakes up meanwhile, which takes longer than this.
        self.confirm();
    }

    /// Confirms a granted lock, on the thread that made the attempt or in the task. The first of
    /// both does it.
    fn confirm(&self) {
        let mut state = self.state();
        let hold = match std::mem::replace(&mut state.stage, Stage::Over) {
            Stage::Unconfirmed(hold) => hold,
            other => {
                state.stage = other;
                return;
            }
        };
        state.stage = match self.target.confirm(hold) {
            Ok(Some(hold)) => {
                state.claim_by = after(CLAIM_WINDOW);
                if let (Some(watcher_id), Some(at)) = (self.watcher_id.get(), state.claim_by) {
                    // Without the timer, a task that never polls keeps the lock.
                    let _ = watch().arm(*watcher_id, at);
                }
                Stage::Granted(hold)
            }
            Ok(None) => {
                state.stage = Stage::Refused;
                state.ladder.start(COARSE);
                drop(state);
                // Not `Begin`: the task may have been polled in between, so it needs a wake-up.
                return self.act(Cause::Event);
            }
            Err(error) => Stage::Failed(error),
        };
        // The task may have been polled in between with another waker, so it needs a wake-up.
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(SafeWaker::wake);
    }

    /// Releases a lock that the task did not take in time. So a task that is not polled does not
    /// block other callers.
    fn lapse(&self, mut state: MutexGuard<'_, State<T>>, watcher_id: WatcherId) {
        if let Some(at) = state.claim_by.filter(|at| Instant::now() < *at) {
            // An earlier timer of this wait fired.
            let _ = watch().arm(watcher_id, at);
            return;
        }
        let stage = std::mem::replace(&mut state.stage, Stage::Over);
        let mut memory = std::mem::take(&mut state.memory);
        drop(state);
        if let Stage::Granted(hold) = stage {
            self.target.give_back(hold, &mut memory);
        }
        let mut state = self.state();
        state.stage = Stage::Lapsed;
        state.memory = memory;
        // If the task was polled in between, it sleeps again and needs a wake-up.
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(SafeWaker::wake);
    }

    /// Tries, and makes sure that something causes the next attempt.
    fn look(
        &self,
        state: &mut State<T>,
        watcher_id: WatcherId,
        cause: Cause,
    ) -> Result<Option<T::Hold>> {
        match cause {
            Cause::Begin => {}
            Cause::Event => state.ladder.start(FINE),
            Cause::Timer if state.ladder.at.is_some_and(|at| Instant::now() < at) => {
                return Ok(None);
            }
            Cause::Timer => state.ladder.climb(),
        }
        for round in 0.. {
            let refusal = match self.target.attempt(&mut state.memory, Some(watcher_id))? {
                Outcome::Granted(hold) => return Ok(Some(hold)),
                Outcome::Refused(refusal) => refusal,
            };
            state.owner = refusal.owner;
            // If each attempt needs a new watch, the ladder makes the next attempt.
            if self.listen(state, &refusal.wakes, watcher_id) && round < ROUNDS {
                continue;
            }
            if let Some(backoff) = &mut state.polling {
                state.ladder.at = after(backoff.next_delay());
            }
            if let Some(at) = refusal.within.and_then(after)
                && state.ladder.at.is_none_or(|it| at < it)
            {
                state.ladder.at = Some(at);
            }
            break;
        }
        Ok(None)
    }

    /// Makes sure that something wakes the waiter. Returns whether the caller must try again,
    /// because a watch is new or its source has changed.
    fn listen(&self, state: &mut State<T>, wakes: &Wakes, watcher_id: WatcherId) -> bool {
        let sources = match wakes {
            _ if state.polling.is_some() => return false,
            Wakes::Thread => return false,
            Wakes::Events(sources) => sources,
            Wakes::Event(source) => std::slice::from_ref(source),
            Wakes::Nothing => &[],
        };
        if sources.is_empty() || !self.target.config().events {
            state.polling = Some(Backoff::default());
            return false;
        }
        self.watch_exactly(state, sources, watcher_id)
    }

    fn watch_exactly(
        &self,
        state: &mut State<T>,
        sources: &[EventSource],
        watcher_id: WatcherId,
    ) -> bool {
        state.watched.retain(|(source, id)| {
            let kept = sources.contains(source);
            if !kept {
                watch().forget(watcher_id, *id);
            }
            kept
        });
        let mut fresh = false;
        for source in sources {
            if state.watched.iter().any(|(known, _)| known == source) {
                continue;
            }
            match self.target.watch(&state.memory, watcher_id, source) {
                Ok(Some(id)) => {
                    state.watched.push((source.clone(), id));
                    fresh = true;
                }
                Ok(None) => fresh = true,
                // Not needed: the close of the dead process's files is an event too.
                Err(_) if matches!(source, EventSource::End(..)) => {}
                Err(_) => {
                    state.polling = Some(Backoff::default());
                    return false;
                }
            }
        }
        fresh
    }
}

impl<T: Target> Watcher for Shared<T> {
    fn on_event(&self, id: WatchId) {
        let mut state = self.state();
        match id.seen {
            // Events were lost, so any of the watches may have fired.
            Seen::Everything => {
                let watched = std::mem::take(&mut state.watched);
                if let Some(watcher_id) = self.watcher_id.get() {
                    for (_, id) in watched {
                        watch().forget(*watcher_id, id);
                    }
                }
            }
            _ => state.watched.retain(|(_, own)| *own != id),
        }
        drop(state);
        self.act(Cause::Event);
    }

    fn on_timer(&self) {
        self.act(Cause::Timer);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::task::Wake;

    use super::*;

    /// A lock that is free or not. Only a call of the watcher announces that it is free.
    #[derive(Default)]
    struct Gate(AtomicBool);

    static CONFIG: WaitConfig = WaitConfig {
        wait: Wait::Watch,
        poll_interval: Duration::MAX,
        events: true,
    };

    impl Target for Gate {
        type Hold = ();
        type Memory = ();

        fn attempt(&self, (): &mut (), _: Option<WatcherId>) -> Result<Outcome<()>> {
            Ok(match self.0.swap(false, Ordering::SeqCst) {
                true => Outcome::Granted(()),
                false => Outcome::Refused(Refusal {
                    owner: None,
                    wakes: Wakes::Thread,
                    within: None,
                }),
            })
        }

        fn io(&self, step: &'static str, error: io::Error) -> Error {
            Error::pathless_io(step, error)
        }

        fn place(&self) -> Option<&Path> {
            None
        }

        fn config(&self) -> &WaitConfig {
            &CONFIG
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// The task is polled with another waker while the lock is granted on another thread. How the
    /// two meet is chance, so they meet often.
    #[test]
    fn a_task_that_moves_during_a_grant_is_woken() {
        const MEETINGS: usize = 20_000;
        let gates: Vec<_> = (0..MEETINGS).map(|_| Arc::new(Gate::default())).collect();
        let (to, from) = mpsc::channel::<(Arc<Gate>, WatcherId)>();
        let (round, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (meeting, (gate, watcher_id)) in from.into_iter().enumerate() {
                    gate.0.store(true, Ordering::SeqCst);
                    round.store(meeting + 1, Ordering::SeqCst);
                    watch().call(watcher_id, WatchId::without_watch(Seen::Door));
                    done.store(meeting + 1, Ordering::SeqCst);
                }
            });
            let to = to;
            let until = |count: &AtomicUsize, end| {
                while count.load(Ordering::SeqCst) < end {
                    std::hint::spin_loop();
                }
            };
            for (meeting, gate) in gates.iter().enumerate() {
                let mut wait = FileWait::begin(gate.clone(), (), Waker::noop());
                assert!(wait.poll(Waker::noop()).is_pending());
                to.send((gate.clone(), wait.watcher_id))
                    .expect("it listens");
                let woken = Arc::new(Woken::default());
                let waker = Waker::from(woken.clone());
                until(&round, meeting + 1);
                for _ in 0..meeting % 200 {
                    std::hint::spin_loop();
                }
                let granted = wait.poll(&waker).is_ready();
                until(&done, meeting + 1);
                assert!(
                    granted || woken.0.load(Ordering::SeqCst),
                    "meeting {meeting}"
                );
            }
        });
    }

    /// A lock on a file that can be watched. It says when it is tried, watched and given back.
    struct Door {
        file: tempfile::NamedTempFile,
        free: AtomicBool,
        /// It becomes free just before the next watch begins, so that the event is lost.
        opens_at_watch: AtomicBool,
        /// It becomes free just after the next refusal, without an event.
        opens_after_refusal: AtomicBool,
        /// The attempts of the thread that made it. The watch thread may try at any time.
        tried_here: AtomicUsize,
        watched: AtomicUsize,
        given_back: AtomicUsize,
        here: std::thread::ThreadId,
        /// A message for each attempt of another thread.
        tried_elsewhere: (mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>),
    }

    impl Door {
        fn new() -> Arc<Self> {
            let (sender, receiver) = mpsc::channel();
            Arc::new(Self {
                file: tempfile::NamedTempFile::new().expect("a file"),
                free: AtomicBool::new(false),
                opens_at_watch: AtomicBool::new(false),
                opens_after_refusal: AtomicBool::new(false),
                tried_here: AtomicUsize::new(0),
                watched: AtomicUsize::new(0),
                given_back: AtomicUsize::new(0),
                here: std::thread::current().id(),
                tried_elsewhere: (sender, Mutex::new(receiver)),
            })
        }

        fn opens_if(&self, when: &AtomicBool) {
            if when.swap(false, Ordering::SeqCst) {
                self.free.store(true, Ordering::SeqCst);
            }
        }
    }

    impl Target for Door {
        type Hold = ();
        type Memory = ();

        fn attempt(&self, (): &mut (), _: Option<WatcherId>) -> Result<Outcome<()>> {
            match std::thread::current().id() == self.here {
                true => _ = self.tried_here.fetch_add(1, Ordering::SeqCst),
                false => _ = self.tried_elsewhere.0.send(()),
            }
            if self.free.swap(false, Ordering::SeqCst) {
                return Ok(Outcome::Granted(()));
            }
            self.opens_if(&self.opens_after_refusal);
            let path = self.file.path().to_path_buf();
            Ok(Outcome::Refused(Refusal {
                owner: None,
                wakes: Wakes::Event(EventSource::Name(path, None, Seen::Door)),
                within: None,
            }))
        }

        fn give_back(&self, (): (), (): &mut ()) {
            self.given_back.fetch_add(1, Ordering::SeqCst);
        }

        fn watch(
            &self,
            (): &(),
            watcher_id: WatcherId,
            source: &EventSource,
        ) -> io::Result<Option<WatchId>> {
            self.opens_if(&self.opens_at_watch);
            self.watched.fetch_add(1, Ordering::SeqCst);
            source.watch(watcher_id)
        }

        fn io(&self, step: &'static str, error: io::Error) -> Error {
            Error::pathless_io(step, error)
        }

        fn place(&self) -> Option<&Path> {
            None
        }

        fn config(&self) -> &WaitConfig {
            &CONFIG
        }
    }

    fn event(wait: &FileWait<Door>, seen: Seen) {
        watch().call(wait.watcher_id, WatchId::without_watch(seen));
    }

    #[test]
    fn a_release_before_the_watch_begins_is_found_at_once() {
        let door = Door::new();
        door.opens_at_watch.store(true, Ordering::SeqCst);
        let mut wait = FileWait::begin(door.clone(), (), Waker::noop());
        assert_eq!(door.tried_here.load(Ordering::SeqCst), 2);
        assert!(wait.poll(Waker::noop()).is_ready());
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn lost_events_renew_the_watches() {
        let door = Door::new();
        let mut wait = FileWait::begin(door.clone(), (), Waker::noop());
        assert_eq!(door.watched.load(Ordering::SeqCst), 1);
        event(&wait, Seen::Everything);
        assert_eq!(door.watched.load(Ordering::SeqCst), 2);
        assert!(wait.poll(Waker::noop()).is_pending());
    }

    #[test]
    fn an_event_before_the_release_is_followed_by_attempts() {
        struct Bell(mpsc::Sender<()>);
        impl Wake for Bell {
            fn wake(self: Arc<Self>) {
                let _ = self.0.send(());
            }
        }
        let door = Door::new();
        let (bell, rings) = mpsc::channel();
        let waker = Waker::from(Arc::new(Bell(bell)));
        let mut wait = FileWait::begin(door.clone(), (), &waker);
        let tried = door.tried_elsewhere.1.lock().expect("the test's own");
        // As if this had been the last rung after the watch began. Its timer is still armed.
        let mut state = wait.shared.state();
        state.ladder = Ladder::new(Duration::MAX);
        while tried.try_recv().is_ok() {}
        drop(state);
        let last = tried.recv_timeout(Duration::from_secs(60));
        last.expect("the last rung");
        door.opens_after_refusal.store(true, Ordering::SeqCst);
        event(&wait, Seen::Door);
        let rung = rings.recv_timeout(Duration::from_secs(60));
        rung.expect("the next rung finds it free");
        assert!(wait.poll(&waker).is_ready());
    }

    #[test]
    fn p34_a_wait_from_before_a_fork_ends_and_gives_nothing_back() {
        let door = Door::new();
        let mut wait = FileWait::begin(door.clone(), (), Waker::noop());
        door.free.store(true, Ordering::SeqCst);
        event(&wait, Seen::Door);
        // As a forked child sees it.
        wait.origin = Origin::elsewhere();
        match wait.poll(Waker::noop()) {
            Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::Unsupported),
            other => panic!("{other:?}"),
        }
        drop(wait);
        assert_eq!(door.given_back.load(Ordering::SeqCst), 0);
    }
}
