//! [`Line`]: one lock in this process, shared by all its handles, futures and guards.
//!
//! A line is a mutex around [`core::Core`]. Its callers are futures that are polled or dropped,
//! guards that are released, and the watch thread. Wakers are called after the mutex is free.
//!
//! All handles on one path share one line. It is found by the canonical path of the directory and
//! the name of the file, so two spellings of one path lead to the same line.
//!
//! # The parts
//!
//! - [`core`]: the state, and everything that changes it. Read it first.
//! - [`cohorts`]: the waiters of this process. [`contender`], [`bypass`]: its wait on disk.
//! - [`possession`]: what this process has of the lock. [`loss`]: how it learns that it lost it.
//! - [`request`]: what a caller asks for and gets. [`effects`]: what a step leaves to do.
//! - [`tail`]: the last look at the queue. [`agenda`]: the timers. [`idle`]: lines with open files.
//! - [`holders`], [`observer`]: the status, seen from outside.
//!
//! # After a fork
//!
//! A line belongs to the process that created it. In a forked child its files lead to `/dev/null`,
//! and its mutex may be locked by a thread that does not exist. So every call asks
//! [`Line::is_foreign`] first and touches nothing: handles fail, and guards do nothing.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Instant;

use self::core::Core;
use self::core::view::{self, Outsiders};
use self::holders::Locks;
use self::observer::Observers;
use self::request::Request;
use self::tail::Flags;
use super::disk::{Cleared, Disk, Place, Resized};
use super::door::{self, Probed};
use super::record::Kind;
use super::slots::Slots;
use super::ticket::Mode;
use crate::backend;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::SafeWaker;
use crate::loss::Loss;
use crate::path::canonical;
use crate::stats::{Counts, Stats};
use crate::status::{Status, Waiting};
use crate::sys::filesystem::FileSystem;
use crate::sys::fork::{PerProcess, generation};
use crate::watch::{Seen, WatchId, Watcher, WatcherId, watch};

mod agenda;
mod bypass;
mod cohorts;
mod contender;
mod core;
mod effects;
mod holders;
mod idle;
mod loss;
mod observer;
mod possession;
mod request;
mod tail;

pub(crate) use cohorts::Key;
pub(crate) use core::Arrived;
pub(crate) use observer::Observer;
pub(crate) use request::{Caller, Grant, Settings, Share, Want};

/// The lines of this process, by path.
static LINES: PerProcess<Mutex<HashMap<PathBuf, Weak<Line>>>> = PerProcess::new(Mutex::default);

fn lines() -> MutexGuard<'static, HashMap<PathBuf, Weak<Line>>> {
    LINES.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a line needs to watch files.
#[derive(Clone, Copy)]
struct Site {
    watcher_id: WatcherId,
    /// Whether file events can be expected here.
    events: bool,
    /// Whether threads in the blocking lock call may wait instead.
    threads: bool,
}

/// One lock in this process.
pub(crate) struct Line {
    this: Weak<Self>,
    place: Arc<Place>,
    kind: Kind,
    generation: u32,
    site: Site,
    flags: Arc<Flags>,
    shareable: Arc<AtomicBool>,
    counts: Arc<Counts>,
    observers: Observers,
    core: Mutex<Core>,
}

impl Line {
    /// Returns the line of the lock file at this path. All callers in this process share it.
    pub(crate) fn of(path: &Path, kind: Kind, slots: Option<Slots>) -> Result<Arc<Self>> {
        let door = canonical(path)?;
        let mut lines = lines();
        let Some(line) = lines.get(&door).and_then(Weak::upgrade) else {
            let line = Self::new(door.clone(), kind, slots);
            lines.insert(door, Arc::downgrade(&line));
            return Ok(line);
        };
        // The map is unlocked first, because the drop of a line locks it.
        drop(lines);
        if line.kind == kind {
            line.check_slots(slots.as_ref())?;
            return Ok(line);
        }
        let (theirs, ours) = (line.kind.name(), kind.name());
        let text = format!("this process has a {theirs} open at this path, not a {ours}");
        Err(Error::at(ErrorKind::Incompatible, text, door))
    }

    fn new(door: PathBuf, kind: Kind, slots: Option<Slots>) -> Arc<Self> {
        let file_system = FileSystem::around(&door);
        let events = file_system.reports_closes();
        let threads = file_system.wakes_lock_calls();
        let place = Arc::new(Place::new(door));
        Arc::new_cyclic(|line: &Weak<Self>| {
            let watcher_id = watch().enroll(line.clone());
            let site = Site {
                watcher_id,
                events,
                threads,
            };
            let core = Core::new(Disk::new(place.clone(), kind, slots), site);
            Self {
                this: line.clone(),
                place,
                kind,
                generation: generation(),
                site,
                flags: core.flags().clone(),
                shareable: core.shareable().clone(),
                counts: core.counts().clone(),
                observers: Observers::default(),
                core: Mutex::new(core),
            }
        })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns what this line has done so far.
    pub(crate) fn stats(&self) -> Stats {
        self.counts.snapshot()
    }

    /// Returns whether file events wake waiters here. Otherwise they poll.
    pub(crate) fn has_events(&self) -> bool {
        self.site.events
    }

    /// Fails if there can be no lock of this kind at the path.
    pub(crate) fn check(&self) -> Result<()> {
        let path = &self.place.door;
        if let Err(error) = crate::sys::file::check_lock_path(path) {
            let kind = match error.kind() {
                std::io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
                _ => return Err(Error::io("look at the lock file", path, error)),
            };
            return Err(Error::at(
                kind,
                format!("no lock can be here: {error}"),
                path,
            ));
        }
        self.with(|core| core.disk().check_kind())
    }

    /// Returns whether this line was created by the parent, before a fork.
    pub(crate) fn is_foreign(&self) -> bool {
        self.generation != generation()
    }

    /// Returns the path of a permit's file.
    pub(crate) fn slot_path(&self, number: u32) -> PathBuf {
        let path = self.with(|core| core.disk().slots().map(|it| it.path(number)));
        path.unwrap_or_default()
    }

    /// Returns how many permits there are, as far as this process knows.
    pub(crate) fn limit(&self) -> u32 {
        let limit = self.with(|core| core.disk().slots().map(Slots::limit));
        limit.unwrap_or(0)
    }

    /// Returns how many permits there are, as the record says now.
    pub(crate) fn current_limit(&self) -> Result<u32> {
        self.refuse_foreign()?;
        self.with(|core| core.disk().adopt_limit())?;
        Ok(self.limit())
    }

    /// Returns how many slots no process has locked.
    pub(crate) fn available(&self) -> Result<u32> {
        self.current_limit()?;
        let slots = self.with(|core| core.slots_of_others());
        let locks = Locks::new();
        let mut free = 0;
        for slot in slots {
            let owners = locks.table().owners(&slot);
            free += u32::from(match owners.listed.is_empty() {
                true if !owners.all => self.try_slot(&slot)? == Probed::Free,
                is_free => is_free,
            });
        }
        Ok(free)
    }

    /// Tries a slot, under the mutex as [`probe`](Self::probe) does.
    fn try_slot(&self, slot: &Path) -> Result<Probed> {
        let _core = self.core();
        door::probe(slot)
    }

    /// Records another number of permits, and wakes waiters.
    pub(crate) fn resize(&self, limit: u32, held: u32) -> Result<Resized> {
        self.refuse_foreign()?;
        self.with(|core| core.resize(limit, held))
    }

    /// Fails if another limit is recorded.
    pub(crate) fn check_limit(&self, limit: u32) -> Result<()> {
        self.with(|core| core.disk().check_limit(limit))
    }

    /// Fails if the semaphore at this path has other slot files or another limit.
    fn check_slots(&self, theirs: Option<&Slots>) -> Result<()> {
        let Some(theirs) = theirs else { return Ok(()) };
        let (same, limit) = self.with(|core| {
            let ours = core.disk().slots();
            ours.map_or((false, 0), |it| (it.are_as(theirs), it.limit()))
        });
        let text = match same {
            true if limit == theirs.limit() => return Ok(()),
            true => format!(
                "this process has a semaphore of {limit} permits open at this path, not of {}",
                theirs.limit()
            ),
            false => {
                "this process has a semaphore with other slot files open at this path".to_owned()
            }
        };
        let kind = ErrorKind::Incompatible;
        Err(Error::at(kind, text, &self.place.door))
    }

    fn refuse_foreign(&self) -> Result<()> {
        if self.is_foreign() {
            let text = "this handle was opened before a fork; open the lock again in the child";
            return Err(Error::at(ErrorKind::Unsupported, text, &self.place.door));
        }
        Ok(())
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one step under the mutex, sets the timer, and does what the step leaves to do. If the
    /// timer cannot be set, the next step sets it.
    fn with<R>(&self, step: impl FnOnce(&mut Core) -> R) -> R {
        self.with_timer(step).0
    }

    /// Does the same, and reports whether the timer could be set.
    fn with_timer<R>(&self, step: impl FnOnce(&mut Core) -> R) -> (R, Result<()>) {
        let mut core = self.core();
        let result = step(&mut core);
        let armed = self.arm(&mut core);
        let deferred = core.take_effects();
        let keeps = core.begins_to_keep();
        drop(core);
        if keeps {
            idle::add(&self.this);
        }
        if self.observers.any() {
            self.observers.notify();
        }
        deferred.perform(&self.place.door);
        (result, armed)
    }

    /// Runs a step, and once more if no descriptor was left and idle lines have given some back.
    fn with_room<R>(
        &self,
        mut step: impl FnMut(&mut Core) -> Result<R>,
    ) -> (Result<R>, Result<()>) {
        match self.with_timer(&mut step) {
            (Err(error), _) if idle::make_room(&error) => self.with_timer(step),
            other => other,
        }
    }

    fn arm(&self, core: &mut Core) -> Result<()> {
        if let Some(due) = core.must_arm() {
            watch()
                .arm(self.site.watcher_id, due)
                .map_err(|e| Error::io("set a timer for", &self.place.door, e))?;
            core.armed(due);
        }
        Ok(())
    }

    /// Acquires the lock at once, or begins to wait. The key of a wait must be polled or cancelled.
    pub(crate) fn enter(
        &self,
        settings: &Arc<Settings>,
        mode: Mode,
        asked: &backend::Request,
        waker: &Waker,
    ) -> Result<Arrived> {
        self.refuse_foreign()?;
        let mut waker = Some(SafeWaker::of(waker));
        let by = asked.thread.map_or_else(Caller::of_here, Caller::Thread);
        let request = Request {
            settings,
            want: Want { mode, by },
            most: asked.max_waiting,
            quiet: self.flags.are_quiet(),
            now: asked.now(),
        };
        let enter = |core: &mut Core| core.enter(&request, &mut waker);
        let (arrived, armed) = self.with_room(enter);
        match (arrived?, armed) {
            (Arrived::Waiting(key), Err(error)) => {
                self.cancel(key);
                Err(error)
            }
            (arrived, _) => Ok(arrived),
        }
    }

    /// Acquires the lock if that needs no wait.
    pub(crate) fn try_enter(&self, settings: &Arc<Settings>, mode: Mode) -> Result<Option<Grant>> {
        self.refuse_foreign()?;
        let by = Caller::of_here();
        let request = Request {
            settings,
            want: Want { mode, by },
            most: None,
            quiet: false,
            now: Instant::now(),
        };
        self.with_room(|core| core.try_enter(&request)).0
    }

    pub(crate) fn closed(&self) -> Error {
        Error::at(ErrorKind::Closed, "the lock was closed", &self.place.door)
    }

    pub(crate) fn poll(&self, key: Key, waker: &Waker, now: Instant) -> Poll<Result<Grant>> {
        if let Err(error) = self.refuse_foreign() {
            return Poll::Ready(Err(error));
        }
        // A task that was woken mostly has an offer, and then no waker is cloned.
        let result = self.with(|core| core.poll(key, &mut None, now));
        if result.is_ready() {
            return result;
        }
        let mut waker = Some(SafeWaker::of(waker));
        self.with(|core| core.poll(key, &mut waker, now))
    }

    pub(crate) fn cancel(&self, key: Key) {
        if !self.is_foreign() {
            self.with(|core| core.cancel(key));
        }
    }

    /// Releases the lock. In a forked child this only closes the descriptor. If the caller
    /// `listens`, a look at the path also finds a loss that was not noticed before.
    pub(crate) fn release(&self, share: Share, want: Want, listens: bool) -> Result<()> {
        if self.is_foreign() {
            return self.refuse_foreign();
        }
        self.with(|core| core.release(share, want, listens))
    }

    /// Notes that the permits of one guard are now in two.
    pub(crate) fn split(&self) -> Result<()> {
        self.refuse_foreign()?;
        self.with(|core| core.split());
        Ok(())
    }

    /// Notes that the permits of two guards are now in one.
    pub(crate) fn merge(&self) -> Result<()> {
        self.refuse_foreign()?;
        self.with(|core| core.merge());
        Ok(())
    }

    /// Returns whether readers can share this lock.
    pub(crate) fn shares(&self) -> bool {
        self.kind == Kind::RwLock
    }

    /// Turns the writer inside into a reader.
    pub(crate) fn downgrade(&self) -> Result<()> {
        self.refuse_foreign()?;
        self.with(Core::downgrade)
    }

    /// Prepares a hold of this process to outlive its program.
    pub(crate) fn prepare_exec(&self) -> Result<Option<File>> {
        self.refuse_foreign()?;
        self.with(Core::prepare_exec)
    }

    /// Deletes the spare files when the last handle goes. The drop of the line is too late for
    /// that: the watch thread may have the last reference, and the process may end before that
    /// thread is done.
    pub(crate) fn rest(self: &Arc<Self>) {
        // The caller has one reference, and that thread may have another.
        if !self.is_foreign() && Arc::strong_count(self) <= 2 {
            self.with(Core::rest);
        }
    }

    /// Ends the waits of one handle and its clones, and refuses new ones.
    pub(crate) fn close(&self, closed: &Arc<AtomicBool>) {
        closed.store(true, Ordering::Release);
        if !self.is_foreign() {
            self.with(|core| core.close(closed));
        }
    }

    pub(crate) fn remove(&self, keep_crash: bool) -> Result<Cleared> {
        self.refuse_foreign()?;
        self.with(|core| core.remove(keep_crash))
    }

    pub(crate) fn is_locked(&self) -> Result<bool> {
        self.refuse_foreign()?;
        self.with(|core| core.is_locked())
    }

    pub(crate) fn status(&self) -> Result<Status> {
        self.look_at(Outsiders::Look, || self.probe())
    }

    fn look_at(
        &self,
        outsiders: Outsiders,
        probe: impl FnOnce() -> Result<Probed>,
    ) -> Result<Status> {
        self.refuse_foreign()?;
        let snapshot = self.core().snapshot();
        view::status(&self.place, self.kind, snapshot, outsiders, probe)
    }

    /// Tries the locks that other processes may hold. This happens under the mutex, so that no task
    /// of this process meets the probe.
    fn probe(&self) -> Result<Probed> {
        self.refuse_foreign()?;
        self.core().probe()
    }

    pub(crate) fn waiting(&self, key: Key) -> Option<Waiting> {
        if self.is_foreign() {
            return None;
        }
        let progress = self.with(|core| core.progress(key));
        Some(view::waiting(&self.place, self.kind, progress?))
    }

    pub(crate) fn is_held(&self, token: u64) -> bool {
        !self.is_foreign() && self.with(|core| core.is_held(token))
    }

    /// Prepares [`Line::poll_lost`] for a guard that is out.
    pub(crate) fn watch_for_loss(&self) -> Arc<OnceLock<Loss>> {
        if self.is_foreign() {
            return Arc::default();
        }
        self.with(Core::watch_for_loss)
    }

    pub(crate) fn poll_lost(
        &self,
        latch: &OnceLock<Loss>,
        token: u64,
        waker: &Waker,
    ) -> Poll<Loss> {
        match latch.get() {
            Some(loss) => Poll::Ready(*loss),
            None if self.is_foreign() => Poll::Pending,
            None => {
                let mut waker = Some(SafeWaker::of(waker));
                self.with(|core| core.poll_lost(latch, token, &mut waker))
            }
        }
    }
}

impl Watcher for Line {
    fn on_event(&self, id: WatchId) {
        match id.seen {
            // The flag is set without the mutex, which may be held during several system calls.
            Seen::Queue => {
                self.flags.queue_changed();
                if self.shareable.load(Ordering::SeqCst) && !self.is_foreign() {
                    self.with(Core::share_if_wanted);
                }
                if self.kind == Kind::Semaphore && !self.is_foreign() {
                    self.with(Core::look_for_more);
                }
            }
            _ if self.is_foreign() => {}
            _ => {
                self.with(|core| core.on_event(id));
                self.with(Core::continue_entry);
            }
        }
    }

    fn after_events(&self) {
        if !self.is_foreign() {
            self.with(Core::give_watch_back);
        }
    }

    fn on_timer(&self) {
        if !self.is_foreign() {
            self.with(Core::on_timer);
        }
    }
}

impl Drop for Line {
    /// Gives back the watches and the descriptors, and removes the line from the map. No task holds
    /// or waits any more.
    fn drop(&mut self) {
        if !self.is_foreign() {
            let core = self.core.get_mut().unwrap_or_else(PoisonError::into_inner);
            core.end();
            watch().leave(self.site.watcher_id);
            // A new line may have the path by now.
            let mut lines = lines();
            if lines
                .get(&self.place.door)
                .is_some_and(|it| it.strong_count() == 0)
            {
                lines.remove(&self.place.door);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair::record::Kind;

    #[test]
    fn p62_a_line_that_is_gone_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let line = Line::of(&directory.path().join("one"), Kind::Lock, None);
        let line = line.expect("a line");
        let path = line.place().door.clone();
        assert!(lines().contains_key(&path));
        drop(line);
        assert!(!lines().contains_key(&path));
    }

    /// Where the kernel's list of locks is incomplete, the status of a semaphore is found this way.
    #[test]
    fn a_probe_of_slots_finds_the_first_that_is_locked() {
        let directory = tempfile::tempdir().expect("a directory");
        let names = crate::fair::slots::Names::parse("{name}.{number}", "a").expect("names");
        let slots = Slots::new(directory.path().to_path_buf(), names, 2);
        let line = Line::of(&directory.path().join("a"), Kind::Semaphore, Some(slots));
        let line = line.expect("a line");
        let probe = || line.probe().expect("no error");
        assert_eq!(probe(), Probed::Free);
        let second = crate::fair::door::Door::open(&line.slot_path(1), None).expect("a slot");
        assert_eq!(probe(), Probed::Free, "open and not locked");
        assert!(second.try_lock(false).expect("no error"));
        assert_eq!(probe(), Probed::Exclusive);
        second.leave().expect("unlocked");
        assert_eq!(probe(), Probed::Free);
        // This process collects.
        let gathered = line.with(|core| {
            let slots = core.disk().slots_mut().expect("it has slots");
            slots.gather(1, None)
        });
        assert!(gathered.expect("no error"));
        assert_eq!(probe(), Probed::Exclusive);
    }
}
