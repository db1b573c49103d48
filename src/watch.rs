//! File events and timers for all waiters and holders in this process.
//!
//! # What it is
//!
//! One thread, and on Linux one inotify instance, for all locks of the process. Both are created at
//! the first contention. Events have two readers:
//!
//! - The [`reactor`], a task in the runtime of a waiter. It calls the [`Watcher`] on a worker of
//!   that runtime, and the waiter that is woken runs next on the same worker.
//! - The thread. It sleeps in the kernel until a timer is due or a watched file has an event. It
//!   calls timers always. It reads events where there is no reactor, and where the reactor does not
//!   read them in time. The thread belongs to no runtime: locks continue to work when the runtime
//!   that first used them is gone or stands still.
//!
//! Both call the watcher on their own stack. So the lock is tried where the event arrives.
//!
//! # Algorithm
//!
//! - A watch is on an *inode*, through an open descriptor (`/proc/self/fd/N`). It fires **once**. A
//!   watcher that wants more events adds a new watch. So a release costs its next waiter no extra
//!   call, and no watch outlives its use.
//! - An inotify instance has one *mark* for each inode. All watches of one inode share it and all
//!   fire together. Most marks end with the event. The marks of tickets and doors, which are
//!   watched again and again, are kept and report nothing meanwhile: [`marks`] says how and why.
//! - Timers are a heap under the same mutex. The thread sleeps until the earliest one. A system
//!   call is needed only if another thread arms an earlier timer during the sleep: it sets a
//!   `timerfd`, which wakes the thread at that time. The reactor makes that call once, after it has
//!   called the watchers.
//! - A reader takes the queued events, sets the flags that they mean, and then makes the slow
//!   calls. Two readers may do this at the same time, and in another order than that of the events.
//!   An event ends the watches that are there when it is looked up, and a watcher looks for itself
//!   at each call. So the order does not matter.
//! - [`Watch::is_quiet`] answers, with one system call (`inotify::unread`), whether an event may be
//!   under way. The kernel queues the event of a new file inside the call that creates it. So if no
//!   event is queued and none is being read, no file was created.
//!
//! # Invariants
//!
//! 1. Each event that the kernel queues for a live watch reaches all its watchers. If the kernel's
//!    queue overflowed, [`Seen::Everything`] reaches them instead.
//! 2. The mutex of the table is never held while a watcher is called. A watcher may call in with
//!    its own mutex held.
//! 3. The flag of a [`Seen::Queue`] watcher is set before [`Watch::is_quiet`] can return `true`
//!    again.
//! 4. A file that no watcher waits for wakes no thread, except once when it is deleted.
//! 5. No panic ends a reader. Each call and each drop of a watcher catches panics. If the loop
//!    itself panics, it begins again, and every watcher gets [`Seen::Everything`], because events
//!    may have been lost.
//!
//! # Where there are no events
//!
//! Without inotify (not Linux, no free instance, watch or descriptor, or refused by a sandbox)
//! [`Watch::add`] fails, and the caller polls. Timers then use a condition variable, which needs no
//! descriptor. [`Watch::failures`] counts failed watches. Without a thread no caller can wait, so
//! every wait fails with an error.
//!
//! # After a fork
//!
//! The child has no such thread and no reactor. It gets a fresh, idle `Watch`, and an instance of
//! its own when it first needs one.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use crate::foreign::surviving;
use crate::step;
use crate::sys::fork::PerProcess;
use crate::sys::host;
use crate::sys::refusal::unsupported;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod inotify;
pub(crate) mod lock_thread;
pub(crate) mod loss_watcher;
mod marks;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod reactor;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "watch/reactor_none.rs"]
mod reactor;
#[cfg(stanchion_test)]
mod settled;
pub(crate) mod ticket_thread;
mod timers;
pub(crate) mod wait;

use marks::Marks;
use reactor::{Guard, Reactor};
use timers::Timers;

/// What a watch is for. It tells the watcher what may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub enum Seen {
    /// A ticket was closed or removed.
    Predecessor,
    /// The door was closed by any process.
    Door,
    /// The name or the attributes of the door changed while it was held.
    Held,
    /// A file was created in the queue directory, or the directory was removed or renamed.
    Queue,
    /// A file was created or removed in the queue directory, or the directory was removed or
    /// renamed.
    Line,
    /// The state record was written, replaced or removed.
    Record,
    /// The record of a holder of a claim or pid file was closed by a process that can write it, or
    /// lost its name.
    Claim,
    /// A name moved in the directory of a claim, or the directory was removed or renamed.
    Baton,
    /// A process has ended.
    Process,
    /// Events were lost: anything may have happened.
    Everything,
}

/// Is called when a watched file changes or a timer is due, by a reader of events.
pub(crate) trait Watcher: Send + Sync {
    /// Reports an event. The watch is over. Must be quick for [`Seen::Queue`], because others wait
    /// for the answer.
    fn on_event(&self, id: WatchId);

    fn on_timer(&self);
}

/// A watch. It is given back with [`Watch::forget`], unless it has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct WatchId {
    /// The kernel's number for the mark. Later watches of the same inode may have the same.
    mark: i32,
    /// The number of this watch alone.
    number: u64,
    pub(crate) seen: Seen,
}

impl WatchId {
    /// Returns the ID of an event that comes from no watch.
    pub(crate) fn without_watch(seen: Seen) -> Self {
        let (mark, number) = (-1, 0);
        Self { mark, number, seen }
    }
}

/// The number of a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[doc(hidden)]
pub struct WatcherId(u64);

/// The events and timers of this process.
pub(crate) struct Watch {
    table: Mutex<Table>,
    source: OnceLock<Box<dyn Source>>,
    started: AtomicBool,
    /// How many readers have taken events out of the kernel's queue and have not yet set the flags
    /// that these mean.
    reading: AtomicUsize,
    reactor: Reactor,
    failures: AtomicU64,
}

#[derive(Default)]
struct Table {
    watchers: HashMap<WatcherId, Enrolled>,
    next_id: u64,
    marks: Marks,
    timers: BinaryHeap<Reverse<(Instant, WatcherId)>>,
    /// Until when the thread sleeps, if it sleeps.
    asleep: Option<Sleeping>,
}

/// How long the kernel's mark of an inode lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasts {
    /// Until its first event.
    Briefly,
    /// Until the inode is deleted, or until others need the room.
    Kept,
}

/// The time at which the thread wakes without an event.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sleeping {
    until: Option<Instant>,
}

/// A call to make.
struct Due {
    watcher: Arc<dyn Watcher>,
    id: WatchId,
}

struct Enrolled {
    watcher: Weak<dyn Watcher>,
    armed: Option<Instant>,
}

/// Where there may be something to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    files: bool,
    ends: bool,
    /// Whether the thread was woken for a timer that was set meanwhile.
    alarm: bool,
}

impl News {
    const EVERYWHERE: Self = Self {
        files: true,
        ends: true,
        alarm: true,
    };
}

/// What a reader does now. It counts from before it takes events until their flags are set. If it
/// panics in between, it counts until the next time that it has set flags.
struct Reading<'a> {
    count: &'a AtomicUsize,
    counts: bool,
}

impl<'a> Reading<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        let counts = false;
        Self { count, counts }
    }

    fn begin(&mut self) {
        if !std::mem::replace(&mut self.counts, true) {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.counts) {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The number of an open descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Descriptor(i32);

/// What the kernel reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    mark: i32,
    /// Whether the mark itself is gone. Otherwise there was an event.
    gone: bool,
}

/// What the thread sleeps on. A source without events leaves everything but the sleep to the
/// methods here.
trait Source: Send + Sync {
    /// Sleeps until an event is queued, until `until`, or until the timer that was set has expired.
    /// An event of a file ends the sleep only if the thread `listens`.
    fn sleep(&self, until: Option<Instant>, listens: bool) -> News;

    /// Ends the sleep at this time. Called from another thread.
    fn set_timer(&self, at: Instant) -> io::Result<()>;

    /// Marks an inode, or widens its mark. Returns the number of the mark and, if the mark is kept,
    /// the descriptor with which it can be narrowed.
    fn add(&self, _: &File, _: Seen, _: Lasts) -> io::Result<(i32, Option<Descriptor>)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Narrows the mark of the inode behind a descriptor to the end of that inode. Returns the
    /// number of the mark.
    fn narrow(&self, _: Descriptor) -> io::Result<i32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Watches for the end of the process with this pid. Returns a number that no mark of a file
    /// has, and the same one as long as the process is watched. Returns `None` if there is no such
    /// process.
    fn add_process(&self, _pid: u32) -> io::Result<Option<i32>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a mark, or the watch of a process.
    fn remove(&self, _number: i32) {}

    /// Takes the reports that the kernel has queued. Returns whether some were lost.
    fn take(&self, _: News, _: &mut Vec<Report>) -> bool {
        false
    }

    /// Returns whether there are events of files to read.
    fn is_unread(&self) -> bool {
        false
    }

    /// Returns whether there are none, for callers that ask very often. Returns `false` if the
    /// kernel cannot tell.
    fn is_quiet(&self) -> bool {
        false
    }

    /// Returns the number of the descriptor that is readable when there are events of files.
    fn descriptor(&self) -> Option<Descriptor> {
        None
    }
}

thread_local! {
    /// Whether the reactor calls watchers on this thread. It sets the timer after these calls.
    static DEFERS_TIMERS: Cell<bool> = const { Cell::new(false) };
}

static WATCH: PerProcess<Watch> = PerProcess::new(Watch::new);

/// Returns the watch of this process. It is idle, without thread or descriptor, until it is first
/// used.
pub(crate) fn watch() -> &'static Watch {
    WATCH.get()
}

impl Watch {
    fn new() -> Self {
        Self {
            table: Mutex::default(),
            source: OnceLock::new(),
            started: AtomicBool::new(false),
            reading: AtomicUsize::new(0),
            reactor: Reactor::default(),
            failures: AtomicU64::new(0),
        }
    }

    /// Gives a watcher its number. Keeps only a weak reference.
    pub(crate) fn enroll(&self, watcher: Weak<dyn Watcher>) -> WatcherId {
        let mut table = self.table();
        table.next_id += 1;
        let watcher_id = WatcherId(table.next_id);
        let armed = None;
        table
            .watchers
            .insert(watcher_id, Enrolled { watcher, armed });
        watcher_id
    }

    /// Removes a watcher and its timer. The watcher has given back its watches before.
    pub(crate) fn leave(&self, watcher_id: WatcherId) {
        self.table().watchers.remove(&watcher_id);
    }

    /// Calls a watcher on this thread, with an event that comes from no watch.
    pub(crate) fn call(&self, watcher_id: WatcherId, id: WatchId) {
        let watcher = self.table().watcher(watcher_id);
        if let Some(watcher) = watcher {
            surviving(|| watcher.on_event(id));
            drop_watcher(watcher);
        }
    }

    /// Watches the inode behind an open descriptor, for one event.
    ///
    /// # Errors
    ///
    /// Fails if the kernel has no watch or no instance to give. The caller polls instead.
    pub(crate) fn add(
        &'static self,
        watcher_id: WatcherId,
        file: &File,
        seen: Seen,
    ) -> io::Result<WatchId> {
        self.add_mark(watcher_id, file, seen, Lasts::Briefly)
    }

    /// Does the same where the inode will probably be watched again. The caller keeps this
    /// descriptor open until the watch has fired or was given back.
    ///
    /// # Errors
    ///
    /// Those of [`Watch::add`].
    fn add_kept(
        &'static self,
        watcher_id: WatcherId,
        file: &File,
        seen: Seen,
    ) -> io::Result<WatchId> {
        self.add_mark(watcher_id, file, seen, Lasts::Kept)
    }

    fn add_mark(
        &'static self,
        watcher_id: WatcherId,
        file: &File,
        seen: Seen,
        lasts: Lasts,
    ) -> io::Result<WatchId> {
        let result = self.source().and_then(|source| {
            // Under the mutex, so that the thread cannot look for the entry before it exists.
            let mut table = self.table();
            let mut added = source.add(file, seen, lasts);
            // There may be no room because of marks that are kept without a watch.
            if added.is_err() && table.marks.remove_idle(source) {
                added = source.add(file, seen, lasts);
            }
            let (mark, kept_by) = added?;
            let id = table.marks.add(watcher_id, mark, seen, kept_by);
            Ok((id, source.descriptor()))
        });
        match &result {
            Ok((_, Some(events))) => self.reactor.offer(self, *events),
            Ok((_, None)) => {}
            Err(_) => _ = self.failures.fetch_add(1, Ordering::Relaxed),
        }
        result.map(|(id, _)| id)
    }

    /// Watches for the end of the process with this pid. Returns `None` if there is no such
    /// process. All watches of one process share a descriptor.
    ///
    /// # Errors
    ///
    /// Those of [`Watch::add`].
    pub(crate) fn add_process(
        &'static self,
        watcher_id: WatcherId,
        pid: u32,
    ) -> io::Result<Option<WatchId>> {
        let source = self.source()?;
        // Under the mutex, so that no watch of the same process is given back in between.
        let mut table = self.table();
        let mark = source.add_process(pid)?;
        Ok(mark.map(|mark| table.marks.add(watcher_id, mark, Seen::Process, None)))
    }

    /// Gives a watch back. Does nothing if it has fired.
    pub(crate) fn forget(&self, watcher_id: WatcherId, id: WatchId) {
        if let Some(source) = self.source.get() {
            self.table().marks.forget(watcher_id, id, &**source);
        }
    }

    /// Calls the watcher's timer at `at`, or earlier if an earlier call is due already. Each
    /// watcher has one timer.
    pub(crate) fn arm(&'static self, watcher_id: WatcherId, at: Instant) -> io::Result<()> {
        let source = self.source()?;
        let mut table = self.table();
        let Some(enrolled) = table.watchers.get_mut(&watcher_id) else {
            return Ok(());
        };
        if enrolled.armed.is_some_and(|armed| armed <= at) {
            return Ok(());
        }
        enrolled.armed = Some(at);
        table.timers.push(Reverse((at, watcher_id)));
        if let Some(sleeping) = &mut table.asleep
            && sleeping.until.is_none_or(|until| at < until)
            && !DEFERS_TIMERS.get()
        {
            sleeping.until = Some(at);
            source.set_timer(at)?;
        }
        Ok(())
    }

    /// Returns whether no event is queued and none is being delivered. Returns `false` if the
    /// kernel cannot tell.
    pub(crate) fn is_quiet(&self) -> bool {
        // In this order: an event leaves the kernel's queue only while its reader counts, and that
        // ends only after the flags that the event sets.
        let quiet = self.source.get().is_some_and(|it| it.is_quiet());
        quiet && self.reading.load(Ordering::SeqCst) == 0
    }

    /// Returns how often a watch could not be added or events were lost.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the source of events. The first call opens it and starts the thread.
    fn source(&'static self) -> io::Result<&'static dyn Source> {
        if self.started.load(Ordering::Acquire)
            && let Some(source) = self.source.get()
        {
            return Ok(&**source);
        }
        // Under the mutex: of several first users, one opens the source and starts the thread.
        let _table = self.table();
        let source = &**self.source.get_or_init(open_source);
        if !self.started.load(Ordering::Acquire) {
            let thread = std::thread::Builder::new().name("stanchion-watch".into());
            let started = thread.spawn(move || self.run(source));
            started.map_err(|error| unsupported("cannot start a thread", error))?;
            self.started.store(true, Ordering::Release);
        }
        Ok(source)
    }

    /// Runs the thread.
    fn run(&'static self, source: &'static dyn Source) {
        host::prepare_helper_thread();
        let mut lost = false;
        let mut reading = Reading::new(&self.reading);
        while surviving(|| self.serve(source, &mut reading, lost)).is_none() {
            lost = true;
        }
    }

    /// Sleeps and calls watchers, without end. `lost` says that events may have been lost before.
    fn serve(&self, source: &dyn Source, reading: &mut Reading<'_>, mut lost: bool) {
        let mut guard = Guard::Listens;
        loop {
            step::begin_round();
            let news = match lost {
                true => News::EVERYWHERE,
                false => self.sleep(source, &mut guard),
            };
            if self.has_work(news) {
                self.turn(source, reading, news, std::mem::take(&mut lost));
            }
            for watcher in self.take_due_timers() {
                surviving(|| watcher.on_timer());
                drop_watcher(watcher);
            }
        }
    }

    /// Sleeps until there is something to take or a timer may be due.
    fn sleep(&self, source: &dyn Source, guard: &mut Guard) -> News {
        let mut timer = self.fall_asleep(*guard);
        loop {
            let look_at = guard.look_at();
            let until = timer.into_iter().chain(look_at).min();
            let mut news = source.sleep(until, *guard == Guard::Listens);
            let unread = || news.files || source.is_unread();
            news.files = guard.reads(&self.reactor, unread);
            let now = Instant::now();
            if news != News::default() || timer.is_some_and(|at| at <= now) {
                return news;
            }
            // A timer that was armed meanwhile counts on this look. When an event has just woken
            // the thread, it uses no mutex that the reactor waits for.
            if look_at.is_some_and(|at| at <= now) {
                timer = self.fall_asleep(*guard);
            }
        }
    }

    /// Notes that the thread is awake. Returns whether it must make a turn.
    fn has_work(&self, news: News) -> bool {
        let mut table = self.table();
        table.asleep = None;
        news.files || news.ends || table.marks.has_reports()
    }

    /// Takes the queued events and calls their watchers.
    fn turn(&self, source: &dyn Source, reading: &mut Reading<'_>, take: News, lost: bool) {
        reading.begin();
        let mut reports = Vec::new();
        let lost = source.take(take, &mut reports) || lost;
        let mut due = self.collect(source, &mut reports, lost);
        step::watch_turns();
        // Flags first, so that `is_quiet` is right as soon as the reading ends. Then the slow
        // calls.
        let quick = |it: &&Due| it.id.seen == Seen::Queue;
        for Due { watcher, id, .. } in due.iter().filter(quick) {
            surviving(|| watcher.on_event(*id));
        }
        reading.end();
        for Due { watcher, id } in due.drain(..) {
            if id.seen != Seen::Queue {
                surviving(|| watcher.on_event(id));
            }
            drop_watcher(watcher);
        }
    }

    /// Returns the next timer. From here on an earlier one wakes the thread, unless the thread
    /// looks before it is due.
    fn fall_asleep(&self, guard: Guard) -> Option<Instant> {
        let mut table = self.table();
        let timer = table.next_timer();
        let until = timer.into_iter().chain(guard.look_at()).min();
        table.asleep = Some(Sleeping { until });
        timer
    }

    /// Turns the kernel's reports into calls to make.
    fn collect(
        &self,
        source: &dyn Source,
        reports: &mut Vec<Report>,
        overflowed: bool,
    ) -> Vec<Due> {
        let mut due = Vec::new();
        let mut table = self.table();
        for (watcher_id, id) in table.marks.fire(reports, source) {
            if !step::is_deaf_to(id.seen)
                && let Some(watcher) = table.watcher(watcher_id)
            {
                due.push(Due { watcher, id });
            }
        }
        if overflowed {
            self.failures.fetch_add(1, Ordering::Relaxed);
            let ids: Vec<_> = table.watchers.keys().copied().collect();
            for watcher_id in ids {
                for seen in [Seen::Queue, Seen::Everything] {
                    let id = WatchId::without_watch(seen);
                    due.extend(table.watcher(watcher_id).map(|watcher| Due { watcher, id }));
                }
            }
        }
        due
    }

    fn take_due_timers(&self) -> Vec<Arc<dyn Watcher>> {
        let mut due = Vec::new();
        let mut table = self.table();
        if table.timers.is_empty() {
            return due;
        }
        let now = Instant::now();
        while let Some(Reverse((at, watcher_id))) = table.timers.peek().copied() {
            if at > now {
                break;
            }
            table.timers.pop();
            // An entry is void if an earlier one of the same watcher has replaced it.
            let armed = table
                .watchers
                .get_mut(&watcher_id)
                .is_some_and(|enrolled| enrolled.armed.take_if(|armed| *armed <= now).is_some());
            if armed && let Some(watcher) = table.watcher(watcher_id) {
                due.push(watcher);
            }
        }
        due
    }
}

/// Drops what may be the last reference to a watcher, and with it everything that the watcher owns.
fn drop_watcher(watcher: Arc<dyn Watcher>) {
    surviving(|| drop(watcher));
}

/// Opens a source with events, if there is one.
fn open_source() -> Box<dyn Source> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Ok(events) = inotify::Events::open() {
        return Box::new(events);
    }
    Box::new(Timers::default())
}

impl Table {
    /// Returns when the next timer is due.
    fn next_timer(&mut self) -> Option<Instant> {
        // Skip timers of watchers that have left, or that were called earlier.
        while let Some(Reverse((at, watcher_id))) = self.timers.peek().copied()
            && self.watchers.get(&watcher_id).and_then(|it| it.armed) != Some(at)
        {
            self.timers.pop();
        }
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    fn watcher(&self, watcher_id: WatcherId) -> Option<Arc<dyn Watcher>> {
        self.watchers.get(&watcher_id)?.watcher.upgrade()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;

    struct Caller(Mutex<Sender<Instant>>);

    impl Watcher for Caller {
        fn on_event(&self, _: WatchId) {}

        fn on_timer(&self) {
            let to = self.0.lock().expect("no panic");
            let _ = to.send(Instant::now());
        }
    }

    /// The thread sleeps until a late timer, and another watcher sets an earlier one.
    #[test]
    fn an_earlier_timer_wakes_the_thread_in_time() {
        let late = Instant::now() + Duration::from_secs(3600);
        let (to, from) = channel();
        let callers = [(); 2].map(|()| Arc::new(Caller(Mutex::new(to.clone()))));
        let enroll = |it: &Arc<Caller>| watch().enroll(Arc::downgrade(it) as Weak<dyn Watcher>);
        let [one, other] = [enroll(&callers[0]), enroll(&callers[1])];
        watch().arm(one, late).expect("a timer");
        while watch().table().asleep.is_none() {
            std::thread::yield_now();
        }
        let at = Instant::now() + Duration::from_millis(20);
        watch().arm(other, at).expect("a timer");
        // Only a hang takes longer.
        let called = from.recv_timeout(Duration::from_secs(60));
        assert!(called.expect("the earlier timer") >= at);
        watch().leave(one);
        watch().leave(other);
    }

    /// Reports whether its watch is quiet while its flag is set.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    struct Flag(&'static Watch, Mutex<Sender<bool>>);

    #[cfg(any(target_os = "linux", target_os = "android"))]
    impl Watcher for Flag {
        fn on_event(&self, _: WatchId) {
            let to = self.1.lock().expect("no panic");
            let _ = to.send(self.0.is_quiet());
        }

        fn on_timer(&self) {}
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    #[allow(clippy::disallowed_methods)] // The test plays another process.
    fn it_is_not_quiet_before_the_flag_is_set() {
        let watch: &'static Watch = Box::leak(Box::new(Watch::new()));
        let (to, from) = channel();
        let flag = Arc::new(Flag(watch, Mutex::new(to)));
        let watcher_id = watch.enroll(Arc::downgrade(&flag) as Weak<dyn Watcher>);
        let place = tempfile::tempdir().expect("a directory");
        let directory = File::open(place.path()).expect("opened");
        let added = watch.add(watcher_id, &directory, Seen::Queue);
        added.expect("a watch");
        assert!(watch.is_quiet());
        std::fs::write(place.path().join("ticket"), "").expect("a file");
        let quiet = from.recv_timeout(Duration::from_secs(60));
        assert!(!quiet.expect("an event"));
        while !watch.is_quiet() {
            std::thread::yield_now();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[allow(clippy::disallowed_methods)] // It reads what the kernel says.
    fn a_watch_that_is_given_back_ends_in_the_kernel() {
        let watch: &'static Watch = Box::leak(Box::new(Watch::new()));
        let (to, _from) = channel();
        let caller = Arc::new(Caller(Mutex::new(to)));
        let watcher_id = watch.enroll(Arc::downgrade(&caller) as Weak<dyn Watcher>);
        let file = tempfile::tempfile().expect("a file");
        let id = watch.add(watcher_id, &file, Seen::Door).expect("a watch");
        let source = watch.source.get().expect("a source");
        let Descriptor(number) = source.descriptor().expect("events");
        let marks = || {
            let path = format!("/proc/self/fdinfo/{number}");
            let text = std::fs::read_to_string(path).expect("a text");
            text.lines().filter(|it| it.starts_with("inotify")).count()
        };
        assert_eq!(marks(), 1);
        watch.forget(watcher_id, id);
        assert_eq!(marks(), 0);
    }

    #[test]
    fn a_reader_that_panicked_counts_until_it_has_set_flags() {
        let count = AtomicUsize::new(0);
        let [mut one, mut other] = [Reading::new(&count), Reading::new(&count)];
        one.begin();
        other.begin();
        other.end();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        // As after a panic: it begins again without an end.
        one.begin();
        one.end();
        one.end();
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn an_event_without_a_watch_has_no_number_of_a_watch() {
        assert!(WatchId::without_watch(Seen::Door).mark < 0);
    }
}
