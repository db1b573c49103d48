//! A claim that is held: its renewal, its loss, its end.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::super::step::at_named;
use super::super::watch::{Seat, Seen, WatchId, Watcher, watch};
use super::baton::{self, Baton, Id};
use super::record::{Draft, Record};
use super::{Claims, renewal};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::sys::file;
use crate::fs::sys::fork::generation;
use crate::guard::Loss;
use crate::lock::Removal;

/// How often a hold without an expiry looks whether it still stands, once somebody asks for its loss.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// The lock, held. Dropped, it is given back.
pub(crate) struct Hold {
    tenure: Arc<Tenure>,
    crashed: bool,
    generation: u32,
}

/// What outlives no hold, but is looked at by others than its owner: the thread that renews, the thread that watches.
pub(super) struct Tenure {
    directory: PathBuf,
    own: Baton,
    id: Id,
    expire: Option<Duration>,
    events: bool,
    beats: AtomicU64,
    seat: OnceLock<Seat>,
    latch: OnceLock<Loss>,
    core: Mutex<Core>,
}

struct Core {
    /// Gone when the hold is over.
    draft: Option<Draft>,
    watch: Option<WatchId>,
    wakers: Vec<Waker>,
    /// When the hold was last known to stand.
    stood: Instant,
}

impl Hold {
    /// The baton bears our name. What cannot be renewed is given back.
    pub(super) fn new(
        claims: &Claims,
        own: Baton,
        draft: Draft,
        crashed: bool,
    ) -> std::io::Result<Self> {
        let id = draft.id().clone();
        let tenure = Arc::new(Tenure {
            directory: claims.directory.clone(),
            own,
            id,
            expire: claims.expire,
            events: claims.manner.events,
            beats: AtomicU64::new(0),
            seat: OnceLock::new(),
            latch: OnceLock::new(),
            core: Mutex::new(Core {
                draft: Some(draft),
                watch: None,
                wakers: Vec::new(),
                stood: Instant::now(),
            }),
        });
        let hold = Self {
            tenure,
            crashed,
            generation: generation(),
        };
        if hold.tenure.expire.is_some() {
            renewal::begin(&hold.tenure)?;
        }
        Ok(hold)
    }

    pub(super) fn id(&self) -> &Id {
        &self.tenure.id
    }

    pub(crate) fn token(&self) -> u64 {
        self.tenure.own.number
    }

    /// Whether the holder before died inside, or was silent for too long.
    pub(crate) fn predecessor_crashed(&self) -> bool {
        self.crashed
    }

    /// Whether the baton still says that it is ours: a look at the present.
    pub(crate) fn is_held(&self) -> bool {
        self.is_ours() && self.tenure.compare().is_none()
    }

    fn is_ours(&self) -> bool {
        self.generation == generation()
    }

    /// The loss, if there was one; else whoever asks is woken when there is.
    pub(crate) fn lost(&self) -> impl Future<Output = Loss> + Send + 'static + use<> {
        let tenure = self.tenure.clone();
        let generation = self.generation;
        std::future::poll_fn(move |cx| {
            if generation != crate::fs::sys::fork::generation() {
                return Poll::Pending;
            }
            tenure.poll_lost(cx.waker())
        })
    }

    /// Gives the lock back.
    pub(crate) fn release(mut self) -> Result<()> {
        if !self.is_ours() {
            let text = "this guard was taken before a fork; it is the parent's";
            return Err(Error::at(
                ErrorKind::Unsupported,
                text,
                &self.tenure.directory,
            ));
        }
        self.give_back()
    }

    /// Nothing when it was given back before.
    fn give_back(&mut self) -> Result<()> {
        if !self.is_ours() {
            return Ok(());
        }
        let Some(draft) = self.tenure.end() else {
            return Ok(());
        };
        let tenure = &self.tenure;
        let at = |error| Error::io("give back the claim in", &tenure.directory, error);
        let free = Baton::free(tenure.own.number);
        let moved =
            at_named("FreeBaton").and_then(|()| tenure.own.rename(&free, &tenure.directory));
        let _ = at_named("DeleteRecord");
        match moved {
            Ok(_) => draft.delete(),
            // The baton may still bear our name.
            Err(_) => draft.leave_behind(),
        }
        match moved.map_err(at)? {
            true => Ok(()),
            false => {
                let loss = tenure.latch.get().copied();
                let loss = loss.unwrap_or_else(|| tenure.why());
                Err(Error::at(
                    ErrorKind::Lost,
                    loss.to_string(),
                    &tenure.directory,
                ))
            }
        }
    }

    /// Deletes everything there is of the lock.
    pub(super) fn remove(self) -> Result<Removal> {
        // Dropped, it is given back, and the lock goes on as it was.
        if baton::has_strangers(&self.tenure.directory) {
            return Ok(Removal::InUse);
        }
        let Some(draft) = self.tenure.end() else {
            return Ok(Removal::InUse);
        };
        let directory = &self.tenure.directory;
        // First the baton: one that bears the name of nobody could never be taken.
        self.tenure.own.delete(directory);
        let _ = at_named("RemovePlace");
        let _ = baton::delete_empty(baton::place(directory));
        match self.tenure.own.is_there(directory) {
            Ok(false) => draft.delete(),
            _ => draft.leave_behind(),
        }
        for id in baton::records(directory) {
            Record::delete_if_gone(directory, &id);
        }
        baton::sweep_old(directory);
        match baton::delete_empty(directory) {
            Ok(()) => Ok(Removal::Removed),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Removal::Removed),
            // Somebody came, or there are files of others in it.
            Err(_) => Ok(Removal::InUse),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.tenure.directory
    }
}

impl Drop for Hold {
    /// Gives the lock back: a rename and an unlink. In a forked child it is the parent's.
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            crate::trace::unheard(&self.tenure.directory, &error);
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("own", &self.tenure.own)
            .finish_non_exhaustive()
    }
}

impl Tenure {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After which time the next beat is due.
    pub(super) fn pace(&self) -> Option<Duration> {
        Some(self.expire? / 3)
    }

    /// Renews the record, and looks whether the hold still stands; `false` when it is over. On the thread of the renewals.
    pub(super) fn renew(&self) -> bool {
        let begun = Instant::now();
        let Some(pulse) = self.core().draft.as_ref().map(Draft::pulse) else {
            return false;
        };
        // Without the mutex: the file system may take its time.
        let count = self.beats.fetch_add(1, Ordering::Relaxed) + 1;
        let outcome = (pulse.beat(count), self.own.is_there(&self.directory));
        let mut core = self.core();
        let loss = match outcome {
            (_, Ok(false)) => None,
            (Ok(()), Ok(true)) => {
                core.stood = begun;
                return true;
            }
            // What cannot be looked at, or does not hear the beat, may be somebody else's before long.
            _ if self
                .expire
                .is_some_and(|it| core.stood.elapsed() >= it / 4 * 3) =>
            {
                Some(Loss::Expired)
            }
            _ => return true,
        };
        drop(core);
        self.lose(loss.unwrap_or_else(|| self.why()));
        false
    }

    /// The loss that a look at the present shows, if any. What cannot be looked at is not taken for lost.
    fn compare(&self) -> Option<Loss> {
        if let Some(loss) = self.latch.get() {
            return Some(*loss);
        }
        match self.own.is_there(&self.directory) {
            Ok(false) => Some(self.why()),
            _ => None,
        }
    }

    /// What has become of a baton that does not bear our name any more.
    fn why(&self) -> Loss {
        match baton::find(&self.directory) {
            Ok(Some(baton)) if baton.number > self.own.number => Loss::Expired,
            Ok(Some(_)) => Loss::Replaced,
            Ok(None) | Err(_) => Loss::Deleted,
        }
    }

    /// Latches a loss and wakes all who ask.
    fn lose(&self, loss: Loss) {
        let mut core = self.core();
        if core.draft.is_none() {
            return;
        }
        self.latch.get_or_init(|| loss);
        let wakers = std::mem::take(&mut core.wakers);
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The hold is over; its record, if it was not over before. Whoever still asks for a loss that never came stays pending.
    fn end(&self) -> Option<Draft> {
        let mut core = self.core();
        let draft = core.draft.take();
        let wakers = std::mem::take(&mut core.wakers);
        let watched = core.watch.take();
        drop(core);
        drop(wakers);
        if let Some(seat) = self.seat.get() {
            if let Some(id) = watched {
                watch().forget(*seat, id);
            }
            watch().leave(*seat);
        }
        draft
    }

    fn poll_lost(self: &Arc<Self>, waker: &Waker) -> Poll<Loss> {
        self.seat.get_or_init(|| {
            let weak = Arc::downgrade(self);
            watch().enroll(weak)
        });
        {
            let mut core = self.core();
            if let Some(loss) = self.latch.get() {
                return Poll::Ready(*loss);
            }
            if core.draft.is_none() {
                return Poll::Pending;
            }
            if !core.wakers.iter().any(|it| it.will_wake(waker)) {
                core.wakers.push(waker.clone());
            }
        }
        self.watch_over();
        match self.latch.get() {
            Some(loss) => Poll::Ready(*loss),
            None => Poll::Pending,
        }
    }

    /// Makes sure of hearing of the loss, then looks.
    fn watch_over(&self) {
        let Some(seat) = self.seat.get().copied() else {
            return;
        };
        let mut core = self.core();
        if core.draft.is_none() || self.latch.get().is_some() {
            return;
        }
        if core.watch.is_none() && self.events {
            let baton = file::open_to_watch(&self.own.path(&self.directory));
            let baton = baton.ok().flatten();
            core.watch = baton.and_then(|it| watch().add(seat, &it, Seen::Held).ok());
        }
        drop(core);
        match self.compare() {
            Some(loss) => self.lose(loss),
            None => {
                // Without a timer the watch is all there is.
                let _ = watch().arm(seat, Instant::now() + COMPARE_EVERY);
            }
        }
    }
}

impl Watcher for Tenure {
    fn on_event(&self, id: WatchId) {
        let mut core = self.core();
        let over = match core.watch {
            Some(own) if own == id => core.watch.take(),
            // Events were lost: the watch may be over, or not.
            Some(_) if id.seen == Seen::Everything => core.watch.take(),
            _ => None,
        };
        drop(core);
        if let (Some(own), Some(seat)) = (over.filter(|it| *it != id), self.seat.get()) {
            watch().forget(*seat, own);
        }
        self.watch_over();
    }

    fn on_timer(&self) {
        self.watch_over();
    }
}
