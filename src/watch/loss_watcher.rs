//! Tells a holder that it has lost its lock: a locked file was deleted, renamed or replaced, or a
//! claim was taken over.
//!
//! The file that stands for the hold is watched for changes of its name, through a descriptor that
//! neither reads nor locks. After every event, and once a second, it is compared with what it
//! should be. The first loss stays.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::{Seen, WatchId, Watcher, WatcherId, watch};
use crate::foreign::SafeWaker;
use crate::loss::{Loss, LossWaiters, WaiterId};
use crate::sys::file::{self, FileId};
use crate::sys::fork::Origin;

/// How often the file is compared with its path without an event.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// What is held.
pub(crate) trait Watched: Send + Sync + 'static {
    /// Opens the file whose name changes when the lock is lost. Returns `None` if it is not the
    /// expected file.
    fn open_to_watch(&self) -> Option<File>;

    /// Returns the loss that is visible now, if any. If the file cannot be looked at, that is no
    /// loss.
    fn loss(&self) -> Option<Loss>;
}

/// A file that was locked under its name.
pub(crate) struct Named {
    path: PathBuf,
    id: FileId,
}

/// Watches what is held. Begins when a caller first asks for losses.
pub(crate) struct LossWatcher<S = Named> {
    watched: S,
    events: bool,
    origin: Origin,
    watcher_id: OnceLock<WatcherId>,
    latch: OnceLock<Loss>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watch: Option<WatchId>,
    waiters: LossWaiters,
    over: bool,
}

/// Returns the loss of the file that was locked as `id` at this path. If the path cannot be looked
/// at, that is no loss.
pub(crate) fn loss_of(path: &Path, id: FileId) -> Option<Loss> {
    match file::id_at(path) {
        Ok(Some(found)) if found == id => None,
        Ok(Some(_)) => Some(Loss::Replaced),
        Ok(None) => Some(Loss::Deleted),
        Err(_) => None,
    }
}

impl Watched for Named {
    fn open_to_watch(&self) -> Option<File> {
        let file = file::open_to_watch(&self.path).ok().flatten();
        file.filter(|it| file::id_of(it).ok() == Some(self.id))
    }

    fn loss(&self) -> Option<Loss> {
        loss_of(&self.path, self.id)
    }
}

impl LossWatcher {
    pub(crate) fn begin(path: PathBuf, id: FileId, events: bool) -> Arc<Self> {
        let watcher = Self::new(Named { path, id }, events);
        watcher.start();
        watcher
    }

    pub(crate) fn path(&self) -> &Path {
        &self.watched.path
    }
}

impl<S: Watched> LossWatcher<S> {
    pub(crate) fn new(watched: S, events: bool) -> Arc<Self> {
        Arc::new(Self {
            watched,
            events,
            origin: Origin::here(),
            watcher_id: OnceLock::new(),
            latch: OnceLock::new(),
            state: Mutex::default(),
        })
    }

    /// Begins to watch, at the first call.
    pub(crate) fn start(self: &Arc<Self>) {
        // In a forked child the watch belongs to the parent.
        if self.is_here() && self.watcher_id.get().is_none() {
            let weak = Arc::downgrade(self);
            self.watcher_id.get_or_init(|| watch().enroll(weak));
            self.look();
        }
    }

    pub(crate) fn watched(&self) -> &S {
        &self.watched
    }

    /// Returns the loss that was seen before.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.latch.get().copied()
    }

    /// Returns a future's part of this. Dropping it drops the future's waker.
    pub(crate) fn listen(self: &Arc<Self>) -> Listener<S> {
        Listener {
            watcher: self.clone(),
            id: WaiterId::fresh(),
        }
    }

    fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    /// Reports a loss that was found elsewhere. Does nothing after the release.
    pub(crate) fn lose(&self, loss: Loss) {
        let mut state = self.state();
        if state.over {
            return;
        }
        self.latch.get_or_init(|| loss);
        let wakers = state.waiters.take();
        drop(state);
        wakers.for_each(SafeWaker::wake);
    }

    /// Ends the watch at the release. Callers that still wait for a loss stay pending.
    pub(crate) fn end(&self) {
        if !self.is_here() {
            return;
        }
        let mut state = self.state();
        state.over = true;
        let wakers = state.waiters.take();
        let watched = state.watch.take();
        drop(state);
        drop(wakers);
        if let Some(watcher_id) = self.watcher_id.get() {
            if let Some(id) = watched {
                watch().forget(*watcher_id, id);
            }
            watch().leave(*watcher_id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let Some(watcher_id) = self.watcher_id.get().copied() else {
            return;
        };
        let mut state = self.state();
        if state.over || self.latch.get().is_some() {
            return;
        }
        if state.watch.is_none() && self.events {
            // Before the comparison, so that no change is missed in between.
            let file = self.watched.open_to_watch();
            state.watch = file.and_then(|it| watch().add(watcher_id, &it, Seen::Held).ok());
        }
        drop(state);
        match self.watched.loss() {
            Some(loss) => self.lose(loss),
            None => {
                // If there is no timer, the watch must suffice.
                let _ = watch().arm(watcher_id, Instant::now() + COMPARE_EVERY);
            }
        }
    }
}

/// A future that waits for the loss.
pub(crate) struct Listener<S: Watched = Named> {
    watcher: Arc<LossWatcher<S>>,
    id: WaiterId,
}

impl<S: Watched> Listener<S> {
    /// Polls for the loss. A waker of an earlier poll is replaced.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Loss> {
        let watcher = &self.watcher;
        // In a forked child nothing of this is ours, and the mutex may stay locked forever.
        if !watcher.is_here() {
            return Poll::Pending;
        }
        // The waker that is not kept is dropped after the mutex is unlocked.
        let waker = SafeWaker::of(waker);
        let mut state = watcher.state();
        let (loss, unused) = match watcher.latch.get() {
            Some(loss) => (Poll::Ready(*loss), Some(waker)),
            None if state.over => (Poll::Pending, Some(waker)),
            None => (Poll::Pending, state.waiters.wait(self.id, waker)),
        };
        drop(state);
        drop(unused);
        loss
    }
}

impl<S: Watched> Drop for Listener<S> {
    fn drop(&mut self) {
        if self.watcher.is_here() {
            let waker = self.watcher.state().waiters.leave(self.id);
            drop(waker);
        }
    }
}

impl<S: Watched> Watcher for LossWatcher<S> {
    fn on_event(&self, id: WatchId) {
        let mut state = self.state();
        let over = match state.watch {
            Some(own) if own == id => state.watch.take(),
            // Events were lost, so the watch may be over or not.
            Some(_) if id.seen == Seen::Everything => state.watch.take(),
            _ => None,
        };
        drop(state);
        if let (Some(own), Some(watcher_id)) = (over.filter(|it| *it != id), self.watcher_id.get())
        {
            watch().forget(*watcher_id, own);
        }
        self.look();
    }

    fn on_timer(&self) {
        self.look();
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::disallowed_methods)] // The tests play the other processes.
mod tests {
    use super::*;

    struct Place {
        directory: tempfile::TempDir,
        watcher: Arc<LossWatcher>,
    }

    impl Place {
        fn new(events: bool) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("it");
            let id = file::id_of(&File::create(&path).expect("a file")).expect("an id");
            let watcher = LossWatcher::begin(path, id, events);
            Self { directory, watcher }
        }

        /// How many watches the process has for this hold.
        fn watches(&self) -> usize {
            let watcher_id = self.watcher.watcher_id.get().expect("it has begun");
            watch().table().marks.count(*watcher_id)
        }

        fn own(&self) -> Option<WatchId> {
            self.watcher.state().watch
        }
    }

    #[test]
    fn after_each_event_it_watches_anew() {
        let place = Place::new(true);
        let first = place.own().expect("a watch");
        place.watcher.on_event(first);
        let second = place.own().expect("a watch");
        assert_ne!(second, first);
        place.watcher.on_event(first);
        assert_eq!(place.own(), Some(second), "that one was over");
        place.watcher.end();
    }

    #[test]
    fn it_has_one_watch_and_gives_it_back() {
        let place = Place::new(true);
        assert_eq!(place.watches(), 1);
        place.watcher.on_timer();
        assert_eq!(place.watches(), 1, "the same");
        let own = place.own();
        let lost = WatchId::without_watch(Seen::Everything);
        place.watcher.on_event(lost);
        assert_eq!(place.watches(), 1);
        assert_ne!(place.own(), own, "another one in its place");
        place.watcher.on_event(WatchId::without_watch(Seen::Held));
        assert_eq!(place.watches(), 1, "that was another one's");
        place.watcher.end();
        assert_eq!(place.watches(), 0);
    }

    #[test]
    fn p62_a_future_that_is_dropped_leaves_no_waker() {
        struct Bell;
        impl std::task::Wake for Bell {
            fn wake(self: Arc<Self>) {}
        }
        let (place, bell) = (Place::new(true), Arc::new(Bell));
        let listener = place.watcher.listen();
        for _ in 0..3 {
            assert!(listener.poll(&bell.clone().into()).is_pending());
            assert_eq!(Arc::strong_count(&bell), 2);
        }
        let other = place.watcher.listen();
        assert!(other.poll(&bell.clone().into()).is_pending());
        assert_eq!(Arc::strong_count(&bell), 3);
        drop((listener, other));
        assert_eq!(Arc::strong_count(&bell), 1);
        place.watcher.end();
    }

    #[test]
    fn without_events_it_only_compares() {
        let place = Place::new(false);
        assert_eq!(place.watches(), 0);
        place.watcher.on_timer();
        assert_eq!((place.watches(), place.watcher.loss()), (0, None));
        std::fs::remove_file(place.watcher.path()).expect("deleted");
        place.watcher.on_timer();
        assert_eq!(place.watcher.loss(), Some(Loss::Deleted));
    }

    #[test]
    fn another_file_in_its_place_is_a_loss() {
        let place = Place::new(true);
        let other = place.directory.path().join("other");
        std::fs::write(&other, "").expect("written");
        std::fs::rename(other, place.watcher.path()).expect("replaced");
        place.watcher.on_timer();
        assert_eq!(place.watcher.loss(), Some(Loss::Replaced));
    }
}
