//! The reactor: a task that reads the events of this process inside a runtime of the program.
//!
//! # Why
//!
//! The thread of [`watch`](super) needs two wake-ups for a waiter: one of the thread, and one of
//! the worker that polls the waiter. A task in the waiter's own runtime needs one. The runtime
//! wakes a worker for the descriptor, the worker polls this task, this task calls the watcher, and
//! the waiter runs next on the same worker.
//!
//! # Algorithm
//!
//! - The first task that waits in a runtime spawns the reactor there. A process has one at a time.
//! - Not every runtime has I/O, and Tokio panics if a descriptor is registered in one without. It
//!   has no call that tells. So the task tries it once in each runtime, catches the panic, and
//!   keeps its message from the panic hook. Where a panic ends the process (`panic = "abort"`), no
//!   reactor is used.
//! - The reactor reads the events and calls the watchers until no event is left. It yields only if
//!   more events came meanwhile, so that a flood of them holds back no task. For each yield, Tokio
//!   wakes a second worker, which mostly finds nothing to do.
//! - The reactor is *active* from its registration on. The thread then leaves the events to it and
//!   *stands by*: it still wakes for the first event after a pause, but reads none. It looks again
//!   after [`PATIENCE`], and goes on to look in these steps while events arrive, without being
//!   woken by each of them. Without events it sleeps as before.
//! - If an event was left unread for that long, or if the task was dropped, the reactor is no
//!   longer active. The thread reads the events itself until the task is polled again.
//! - While a reactor is not active, a task that waits in another runtime may replace it.
//!
//! # Invariants
//!
//! 1. Either reader may read at any time, also both at once. So *active* decides about speed only.
//! 2. The thread never sleeps without a limit while it does not listen to the events.
//! 3. Nothing here is called with the mutex of the table held, and the task is spawned with no
//!    mutex of this module held.
//!
//! # After a fork
//!
//! The child shares the runtime's `epoll` instance with its parent. A descriptor that the child
//! registers there would give the parent events of an object that it does not have. So a forked
//! child has no reactor. The copy of the parent's task touches nothing.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, Id};

use super::{DEFERS_TIMERS, Descriptor, News, Reading, Source, Watch};
use crate::foreign::surviving;
use crate::step;
use crate::sys::fork::{Origin, PerProcess};

/// How long the thread leaves an event to the task.
const PATIENCE: Duration = Duration::from_millis(2);
/// How many runtimes without I/O are remembered.
const MAX_REFUSALS: usize = 64;

pub(super) struct Reactor {
    /// How long the thread leaves an event to the task.
    patience: Duration,
    /// Whether the thread leaves the events to the task.
    active: AtomicBool,
    /// How often the task was polled and has read.
    turns: AtomicU64,
    /// How many tasks call watchers now.
    busy: AtomicUsize,
    state: Mutex<State>,
    /// Whether the thread waits for the next look.
    #[cfg(test)]
    waits: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The number of the task that may read, and its runtime.
    task: Option<(u64, Id)>,
    last: u64,
    /// Wakes that task.
    waker: Option<Waker>,
    /// Runtimes without I/O.
    refused: Vec<Id>,
}

impl Default for Reactor {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            active: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            state: Mutex::default(),
            #[cfg(test)]
            waits: AtomicBool::new(false),
        }
    }
}

impl Reactor {
    fn is_active(&self) -> bool {
        self.active.load(Ordering::SeqCst)
    }

    /// Returns whether a task calls watchers now.
    #[cfg(stanchion_test)]
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) > 0
    }

    /// Spawns the reactor in the runtime of the calling task, if it is needed and allowed there.
    pub(super) fn offer(&'static self, watch: &'static Watch, events: Descriptor) {
        if self.is_active() || !Origin::in_first_process() || !is_allowed() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let id = runtime.id();
        let mut state = self.state();
        if state.refused.contains(&id) || state.task.is_some_and(|(_, own)| own == id) {
            return;
        }
        state.last += 1;
        let number = state.last;
        state.task = Some((number, id));
        drop(state);
        let task = Task {
            reactor: self,
            number,
        };
        runtime.spawn(task.run(watch, events));
    }

    /// The thread reads the events itself, until the task is polled again. The task is woken for
    /// that: its runtime may never see an event that the thread reads first.
    fn suspend(&self) {
        self.active.store(false, Ordering::SeqCst);
        let waker = self.state().waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Reads events on a worker of the runtime that the reactor belongs to.
    fn serve_in_task(&self) {
        let Some(source) = self.source.get() else {
            return;
        };
        let source = &**source;
        step::begin_round();
        let files_only = News {
            files: true,
            ..News::default()
        };
        let mut lost = false;
        let mut reading = Reading::new(&self.reading);
        DEFERS_TIMERS.set(true);
        while surviving(|| self.turn(source, &mut reading, files_only, lost)).is_none() {
            lost = true;
        }
        DEFERS_TIMERS.set(false);
        self.set_deferred_timer(source);
    }

    /// Returns whether there are events of files to read.
    fn is_unread(&self) -> bool {
        self.source.get().is_some_and(|it| it.is_unread())
    }

    /// Wakes the thread in time for a timer that was armed while the reactor called watchers. The
    /// thread, which uses the same mutexes, does not run beside these calls then.
    fn set_deferred_timer(&self, source: &dyn Source) {
        let mut table = self.table();
        let timer = table.next_timer();
        if let (Some(at), Some(sleeping)) = (timer, &mut table.asleep)
            && sleeping.until.is_none_or(|until| at < until)
        {
            sleeping.until = Some(at);
            // It worked when the source was opened, and needs nothing that could be used up.
            let _ = source.set_timer(at);
        }
    }
}

/// The part of the reactor that lives in a runtime.
struct Task {
    reactor: &'static Reactor,
    number: u64,
}

impl Task {
    async fn run(self, watch: &'static Watch, events: Descriptor) {
        let Some(events) = register(events) else {
            return self.refuse();
        };
        // What was queued before is reported at the registration.
        while poll_fn(|context| self.poll_ready(&events, context)).await {
            self.read(watch);
            // The kernel announces the rest only with the next event, so nothing may be left.
            while watch.is_unread() {
                // The tasks that were woken run first, on this worker.
                tokio::task::yield_now().await;
                if !Origin::in_first_process() {
                    return;
                }
                self.read(watch);
            }
        }
    }

    /// Waits for events. Returns `false` when the task has nothing more to do.
    fn poll_ready(&self, events: &AsyncFd<Descriptor>, context: &mut Context<'_>) -> Poll<bool> {
        if !self.is_in_charge(context.waker()) {
            return Poll::Ready(false);
        }
        let ready = ready!(events.poll_read_ready(context));
        // Before the events are read, so that a later one counts as news.
        Poll::Ready(ready.map(|mut ready| ready.clear_ready()).is_ok())
    }

    fn read(&self, watch: &'static Watch) {
        let _busy = Busy::new(&self.reactor.busy);
        watch.serve_in_task();
        self.reactor.turns.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns `false` if another task has replaced this one.
    fn is_in_charge(&self, waker: &Waker) -> bool {
        if !Origin::in_first_process() {
            return false;
        }
        let mut state = self.reactor.state();
        let own = state.task.is_some_and(|(number, _)| number == self.number);
        if own {
            self.reactor.active.store(true, Ordering::SeqCst);
            if !state.waker.as_ref().is_some_and(|it| it.will_wake(waker)) {
                state.waker = Some(waker.clone());
            }
        }
        own
    }

    /// Notes that this runtime has no I/O.
    fn refuse(self) {
        let mut state = self.reactor.state();
        let own = state.task.filter(|(number, _)| *number == self.number);
        if let Some((_, id)) = own {
            if state.refused.len() == MAX_REFUSALS {
                state.refused.remove(0);
            }
            state.refused.push(id);
        }
    }
}

impl Drop for Task {
    /// The runtime has ended, or another task is in charge.
    fn drop(&mut self) {
        // In a forked child the mutex may stay locked forever.
        if !Origin::in_first_process() {
            return;
        }
        let mut state = self.reactor.state();
        if state.task.is_some_and(|(number, _)| number == self.number) {
            state.task = None;
            state.waker = None;
            self.reactor.active.store(false, Ordering::SeqCst);
        }
    }
}

struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// Registers the descriptor, which this process never closes, with the current runtime. Returns
/// `None` if it has no I/O.
fn register(events: Descriptor) -> Option<AsyncFd<Descriptor>> {
    // The successor of this function is unsafe, because the descriptor must stay open. It does.
    #[allow(deprecated)]
    let registered = silently(|| AsyncFd::with_interest(events, Interest::READABLE));
    registered?.ok()
}

/// Runs a call that may panic. The panic hook of the program does not learn of that panic, but of
/// those of other threads.
///
/// A hook that another thread sets during this call may be lost.
fn silently<T>(call: impl FnOnce() -> io::Result<T>) -> Option<io::Result<T>> {
    static ONE_AT_A_TIME: PerProcess<Mutex<()>> = PerProcess::new(Mutex::default);
    if std::thread::panicking() {
        return None;
    }
    let one = ONE_AT_A_TIME.get().lock();
    let _one = one.unwrap_or_else(PoisonError::into_inner);
    let usual = std::sync::Arc::new(std::panic::take_hook());
    let (kept, own) = (usual.clone(), std::thread::current().id());
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() != own {
            kept(panic);
        }
    }));
    let result = surviving(call);
    drop(std::panic::take_hook());
    std::panic::set_hook(match std::sync::Arc::try_unwrap(usual) {
        Ok(usual) => usual,
        // A thread that panics is in it.
        Err(usual) => Box::new(move |panic| usual(panic)),
    });
    result
}

#[cfg(not(stanchion_test))]
fn is_allowed() -> bool {
    cfg!(panic = "unwind")
}

/// `STANCHION_REACTOR=off` leaves all events to the thread.
#[cfg(stanchion_test)]
fn is_allowed() -> bool {
    static OFF: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let off = || std::env::var_os("STANCHION_REACTOR").is_some_and(|it| it == "off");
    cfg!(panic = "unwind") && !OFF.get_or_init(off)
}

/// What the thread does about events while it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Any event ends its sleep.
    Listens,
    /// It looks again at this time. Until then the reactor had so many turns.
    Waits { look_at: Instant, turns: u64 },
}

impl Guard {
    pub(super) fn look_at(self) -> Option<Instant> {
        match self {
            Self::Listens => None,
            Self::Waits { look_at, .. } => Some(look_at),
        }
    }

    fn set(&mut self, next: Self, _reactor: &Reactor) {
        *self = next;
        #[cfg(test)]
        _reactor
            .waits
            .store(next != Self::Listens, Ordering::SeqCst);
    }

    /// Decides after a sleep whether the thread reads the events now. `unread` says whether there
    /// are any.
    pub(super) fn reads(&mut self, reactor: &Reactor, unread: impl FnOnce() -> bool) -> bool {
        if !reactor.is_active() {
            self.set(Self::Listens, reactor);
            return unread();
        }
        let turns = reactor.turns.load(Ordering::SeqCst);
        let news = match *self {
            Self::Waits { look_at, .. } if Instant::now() < look_at => return false,
            Self::Waits { turns: before, .. } => {
                let unread = unread();
                if unread && before == turns {
                    reactor.suspend();
                    self.set(Self::Listens, reactor);
                    return true;
                }
                unread || before != turns
            }
            Self::Listens => unread(),
        };
        let look_at = Instant::now() + reactor.patience;
        let next = match news {
            true => Self::Waits { look_at, turns },
            false => Self::Listens,
        };
        self.set(next, reactor);
        false
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The tests play the other processes.
mod tests {
    use std::fs::File;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Weak};

    use tokio::runtime::{Builder, Runtime};

    use super::super::{Seen, WatchId, Watcher, WatcherId};
    use super::*;

    /// Longer than any test takes: the thread never loses its patience.
    const LONG: Duration = Duration::from_secs(3600);
    /// Only a hang takes so long.
    const SAFETY: Duration = Duration::from_secs(300);

    /// Reports each event with the name of the thread that called it.
    struct Reporter {
        to: Mutex<Sender<(Seen, String)>>,
        panics: AtomicU32,
        /// The timer that an event arms, and what it reports to.
        timer: Mutex<Option<(Arm, Sender<Instant>)>>,
    }

    type Arm = Box<dyn Fn() + Send>;

    impl Watcher for Reporter {
        fn on_event(&self, id: WatchId) {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default().to_owned();
            let _ = self.to.lock().expect("no panic").send((id.seen, name));
            if let Some((arm, _)) = &*self.timer.lock().expect("no panic") {
                arm();
            }
            if self.panics.load(Ordering::SeqCst) > 0 {
                self.panics.fetch_sub(1, Ordering::SeqCst);
                panic!("a watcher");
            }
        }

        fn on_timer(&self) {
            if let Some((_, to)) = &*self.timer.lock().expect("no panic") {
                let _ = to.send(Instant::now());
            }
        }
    }

    struct Place {
        watch: &'static Watch,
        reporter: Arc<Reporter>,
        watcher_id: WatcherId,
        from: Receiver<(Seen, String)>,
        directory: tempfile::TempDir,
    }

    impl Place {
        /// A watch of its own, whose thread has this patience.
        fn new(patience: Duration) -> Self {
            let mut watch = Watch::new();
            watch.reactor.patience = patience;
            let watch: &'static Watch = Box::leak(Box::new(watch));
            let (to, from) = channel();
            let (to, panics) = (Mutex::new(to), AtomicU32::new(0));
            let timer = Mutex::default();
            let reporter = Arc::new(Reporter { to, panics, timer });
            let watcher_id = watch.enroll(Arc::downgrade(&reporter) as Weak<dyn Watcher>);
            let directory = tempfile::tempdir().expect("a directory");
            Self {
                watch,
                reporter,
                watcher_id,
                from,
                directory,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn open(&self, name: &str) -> File {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(self.path(name)).expect("a file")
        }

        fn add(&self, file: &File) {
            let added = self.watch.add_kept(self.watcher_id, file, Seen::Door);
            added.expect("a watch");
        }

        /// Adds a watch in this runtime, and waits until the reactor is there.
        fn add_in(&self, runtime: &Runtime, file: &File) {
            runtime.block_on(async {
                self.add(file);
                while !self.watch.reactor.is_active() {
                    tokio::task::yield_now().await;
                }
            });
        }

        /// Returns which thread reported the next event.
        #[track_caller]
        fn reported(&self) -> (Seen, String) {
            self.from.recv_timeout(SAFETY).expect("an event")
        }

        fn reported_by(&self) -> String {
            self.reported().1
        }

        fn until_thread_listens(&self) {
            while self.watch.reactor.waits.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
    }

    fn close(path: &Path) {
        drop(File::options().write(true).open(path).expect("opened"));
    }

    fn workers(name: &str) -> Runtime {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name(name).enable_io();
        builder.build().expect("a runtime")
    }

    fn current_thread() -> Runtime {
        let built = Builder::new_current_thread().enable_io().build();
        built.expect("a runtime")
    }

    const THREAD: &str = "stanchion-watch";

    #[cfg(stanchion_test)]
    #[test]
    fn nothing_is_settled_while_it_calls_watchers() {
        let place = Place::new(LONG);
        let file = place.open("a");
        place.add(&file);
        let is_settled = || place.watch.settled().is_some();
        while !is_settled() {
            std::thread::yield_now();
        }
        let busy = Busy::new(&place.watch.reactor.busy);
        assert!(!is_settled());
        drop(busy);
        assert!(is_settled());
    }

    #[test]
    fn a_worker_of_the_waiting_runtime_calls_the_watcher() {
        let place = Place::new(LONG);
        let (file, path) = (place.open("a"), place.path("a"));
        let runtime = workers("worker");
        place.add_in(&runtime, &file);
        for _ in 0..3 {
            close(&path);
            assert_eq!(place.reported_by(), "worker");
            place.add(&file);
        }
    }

    /// Each event causes the next one.
    #[test]
    fn a_flood_of_events_lets_other_tasks_run() {
        const FLOOD: u32 = 10_000;
        let place = Place::new(LONG);
        let (file, path) = (place.open("a"), place.path("a"));
        let runtime = current_thread();
        place.add_in(&runtime, &file);
        let events = Arc::new(AtomicU32::new(0));
        let (watch, watcher_id, counted) = (place.watch, place.watcher_id, events.clone());
        let causes_next: Arm = Box::new(move || {
            if counted.fetch_add(1, Ordering::SeqCst) < FLOOD {
                let added = watch.add_kept(watcher_id, &file, Seen::Door);
                added.expect("a watch");
                close(&path);
            }
        });
        let timer = (causes_next, channel().0);
        *place.reporter.timer.lock().expect("no panic") = Some(timer);
        close(&place.path("a"));
        runtime.block_on(async {
            while events.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        });
        assert!(events.load(Ordering::SeqCst) < FLOOD, "it ran last");
    }

    #[test]
    fn the_thread_goes_back_to_sleep() {
        let place = Place::new(PATIENCE);
        let (file, path) = (place.open("a"), place.path("a"));
        let runtime = workers("worker");
        place.add_in(&runtime, &file);
        for _ in 0..3 {
            close(&path);
            place.reported();
            place.until_thread_listens();
            place.add(&file);
        }
    }

    #[test]
    fn a_runtime_without_io_is_asked_once_and_in_silence() {
        static PANICS: AtomicU32 = AtomicU32::new(0);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(
                u32::from(panic.to_string().contains("IO")),
                Ordering::SeqCst,
            );
            hook(panic);
        }));
        let place = Place::new(LONG);
        let (file, path) = (place.open("a"), place.path("a"));
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        for _ in 0..3 {
            runtime.block_on(async {
                place.add(&file);
                tokio::task::yield_now().await;
            });
            assert_eq!(place.watch.reactor.state().refused, [runtime.handle().id()]);
            assert_eq!(place.watch.reactor.state().last, 1, "asked once");
            assert!(!place.watch.reactor.is_active());
            close(&path);
            assert_eq!(place.reported_by(), THREAD);
        }
        assert_eq!(PANICS.load(Ordering::SeqCst), 0);
        let _ = std::thread::spawn(|| panic!("IO")).join();
        assert_eq!(PANICS.load(Ordering::SeqCst), 1, "the hook is back");
    }

    #[test]
    fn without_a_runtime_there_is_no_reactor() {
        let place = Place::new(LONG);
        let (file, path) = (place.open("a"), place.path("a"));
        place.add(&file);
        close(&path);
        assert_eq!(place.reported_by(), THREAD);
        assert_eq!(place.watch.reactor.state().last, 0);
    }

    #[test]
    fn the_thread_reads_when_the_runtime_has_ended() {
        for runtime in [workers("worker"), current_thread()] {
            let place = Place::new(LONG);
            let (file, path) = (place.open("a"), place.path("a"));
            place.add_in(&runtime, &file);
            drop(runtime);
            assert!(!place.watch.reactor.is_active());
            close(&path);
            assert_eq!(place.reported_by(), THREAD);
            // The next runtime has the next reactor.
            let next = workers("next");
            place.add_in(&next, &file);
            close(&path);
            assert_eq!(place.reported_by(), "next");
        }
    }

    #[test]
    fn the_thread_reads_while_the_runtime_stands_still() {
        let place = Place::new(PATIENCE);
        let (file, path) = (place.open("a"), place.path("a"));
        let runtime = current_thread();
        place.add_in(&runtime, &file);
        // Nobody runs it.
        for _ in 0..3 {
            close(&path);
            assert_eq!(place.reported_by(), THREAD);
            assert!(!place.watch.reactor.is_active());
            place.add(&file);
        }
        // It goes on when it runs again.
        place.add_in(&runtime, &file);
    }

    #[test]
    fn a_runtime_that_stands_still_is_replaced() {
        let place = Place::new(PATIENCE);
        let (file, path) = (place.open("a"), place.path("a"));
        let still = current_thread();
        place.add_in(&still, &file);
        close(&path);
        assert_eq!(place.reported_by(), THREAD);
        let other = workers("worker");
        place.add_in(&other, &file);
        // The old task leaves when it is polled.
        still.block_on(async {
            while Handle::current().metrics().num_alive_tasks() > 0 {
                tokio::task::yield_now().await;
            }
        });
        assert!(place.watch.reactor.is_active(), "the new one stays");
        close(&path);
        place.reported();
    }

    #[test]
    fn lost_events_are_everything() {
        let place = Place::new(LONG);
        let (a, b) = (place.open("a"), place.open("b"));
        let runtime = current_thread();
        place.add_in(&runtime, &a);
        place.add(&b);
        // Nobody reads meanwhile. Two files, because the kernel merges equal events.
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
        let limit: usize = limit.expect("a limit").trim().parse().expect("a number");
        for _ in 0..limit / 2 + 1 {
            close(&place.path("a"));
            close(&place.path("b"));
        }
        let mut seen = Vec::new();
        runtime.block_on(async {
            while !seen.contains(&Seen::Everything) {
                tokio::task::yield_now().await;
                seen.extend(place.from.try_iter().map(|(seen, _)| seen));
            }
        });
        assert_eq!(seen.iter().filter(|it| **it == Seen::Door).count(), 2);
        assert_eq!(place.watch.failures(), 1);
        assert!(place.watch.is_quiet(), "all was read");
    }

    #[test]
    fn a_watcher_that_panics_does_not_end_it() {
        let place = Place::new(LONG);
        let (file, path) = (place.open("a"), place.path("a"));
        let runtime = workers("worker");
        place.add_in(&runtime, &file);
        place.reporter.panics.store(2, Ordering::SeqCst);
        for _ in 0..3 {
            close(&path);
            assert_eq!(place.reported(), (Seen::Door, "worker".to_owned()));
            place.add(&file);
        }
        assert_eq!(place.watch.failures(), 0, "no event was lost");
        assert_eq!(place.reporter.panics.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_timer_that_a_watcher_sets_there_is_called() {
        let place = Place::new(LONG);
        let (file, path) = (place.open("a"), place.path("a"));
        let runtime = workers("worker");
        place.add_in(&runtime, &file);
        let (to, from) = channel();
        let (watch, watcher_id) = (place.watch, place.watcher_id);
        let arm = move || {
            let at = Instant::now() + Duration::from_millis(20);
            watch.arm(watcher_id, at).expect("a timer");
        };
        *place.reporter.timer.lock().expect("no panic") = Some((Box::new(arm), to));
        for _ in 0..3 {
            let before = Instant::now();
            close(&path);
            assert_eq!(place.reported_by(), "worker");
            let called = from.recv_timeout(SAFETY).expect("the timer");
            assert!(called >= before + Duration::from_millis(20));
            place.add(&file);
        }
    }

    #[test]
    fn the_thread_waits_while_the_reactor_reads() {
        let reactor = Reactor {
            patience: Duration::ZERO,
            ..Reactor::default()
        };
        let mut guard = Guard::Listens;
        assert!(guard.reads(&reactor, || true), "there is no reactor");
        reactor.active.store(true, Ordering::SeqCst);
        assert!(!guard.reads(&reactor, || true));
        assert!(guard.look_at().is_some(), "it looks again");
        reactor.turns.fetch_add(1, Ordering::SeqCst);
        assert!(!guard.reads(&reactor, || true), "there was a turn");
        assert!(guard.look_at().is_some());
        reactor.turns.fetch_add(1, Ordering::SeqCst);
        assert!(!guard.reads(&reactor, || false));
        assert!(guard.look_at().is_some(), "events arrive");
        assert!(!guard.reads(&reactor, || false));
        assert_eq!(guard, Guard::Listens, "no more events arrive");
        assert!(!guard.reads(&reactor, || true));
        assert!(guard.reads(&reactor, || true), "there was no turn");
        assert_eq!(guard, Guard::Listens);
        assert!(!reactor.is_active());
        let mut waits = Guard::Waits {
            look_at: Instant::now() + LONG,
            turns: 0,
        };
        reactor.active.store(true, Ordering::SeqCst);
        assert!(!waits.reads(&reactor, || panic!("it does not look yet")));
    }
}
