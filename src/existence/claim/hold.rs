//! A claim that is held: its renewal, its loss and its release.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Claims;
use super::baton::{self, Baton};
use super::record::{self, Draft};
use super::renewal::{self, Renew};
use crate::backend;
use crate::backend::Hold as _;
use crate::error::{Error, ErrorKind, Result};
use crate::loss::{Loss, Lost};
use crate::status::Removal;
use crate::step::at_named;
use crate::sys::file;
use crate::sys::fork::Origin;
use crate::sys::id::Id;
use crate::watch::loss_watcher::{LossWatcher, Watched};

/// The held lock. Dropping it releases the lock.
#[doc(hidden)]
pub struct Hold {
    shared: Arc<SharedHold>,
    crashed: bool,
    origin: Origin,
}

/// The part of a hold that the thread that renews and the thread that watches use too.
struct SharedHold {
    id: Id,
    expire: Option<Duration>,
    beats: AtomicU64,
    watcher: Arc<LossWatcher<HeldBaton>>,
    state: Mutex<State>,
}

/// The baton under the name that says that it is ours, and its directory.
struct HeldBaton {
    directory: PathBuf,
    own: Baton,
}

struct State {
    /// `None` once the hold is over.
    draft: Option<Draft>,
    /// When the lock was last seen to be held.
    confirmed: Instant,
    /// Whether the last check found that a renewal is overdue.
    late: bool,
}

impl Hold {
    /// Creates the hold, once the baton has its ID. If it cannot be renewed, the lock is released.
    pub(super) fn new(
        claims: &Claims,
        own: Baton,
        draft: Draft,
        crashed: bool,
    ) -> io::Result<Self> {
        let (id, device) = (draft.id().clone(), draft.device());
        let held = HeldBaton {
            directory: claims.directory.clone(),
            own,
        };
        let shared = Arc::new(SharedHold {
            id,
            expire: claims.expire,
            beats: AtomicU64::new(0),
            watcher: LossWatcher::new(held, claims.config.events()),
            state: Mutex::new(State {
                draft: Some(draft),
                confirmed: Instant::now(),
                late: false,
            }),
        });
        let hold = Self {
            shared,
            crashed,
            origin: Origin::here(),
        };
        if hold.shared.expire.is_some() {
            renewal::begin(&hold.shared, device)?;
        }
        Ok(hold)
    }

    pub(super) fn id(&self) -> &Id {
        &self.shared.id
    }

    fn is_ours(&self) -> bool {
        self.origin.is_here()
    }

    /// Releases the lock. Does nothing if it was released before.
    fn give_back(&mut self) -> Result<()> {
        let Some(draft) = self.shared.end() else {
            return Ok(());
        };
        let held = self.shared.watcher.watched();
        let at = |error| Error::io("release the claim in", &held.directory, error);
        let moved = at_named("FreeBaton").and_then(|()| held.own.release(&held.directory));
        let _ = at_named("DeleteRecord");
        match moved {
            Ok(_) => drop(draft),
            // The baton may still have our ID.
            Err(_) => draft.leave_behind(),
        }
        match moved.map_err(at)? {
            true => Ok(()),
            false => {
                let loss = self.shared.watcher.loss().unwrap_or_else(|| held.why());
                Err(Error::lost(loss, self.place()))
            }
        }
    }

    /// Deletes the lock from disk.
    pub(super) fn remove(self) -> Result<Removal> {
        // On an early return, dropping `self` releases the lock.
        let HeldBaton { directory, own } = self.shared.watcher.watched();
        if baton::has_other_files(directory) {
            return Ok(Removal::InUse);
        }
        let Some(draft) = self.shared.end() else {
            return Ok(Removal::InUse);
        };
        // The baton first: a baton with the ID of a hold without a record could never be taken.
        own.delete(directory);
        let _ = at_named("RemovePlace");
        let _ = baton::delete_empty(baton::place(directory));
        match own.is_there(directory) {
            Ok(false) => drop(draft),
            _ => draft.leave_behind(),
        }
        record::sweep(directory, None);
        baton::sweep_old(directory);
        match baton::delete_empty(directory) {
            Ok(()) => Ok(Removal::Removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Removal::Removed),
            // Another process came, or the directory contains other files.
            Err(_) => Ok(Removal::InUse),
        }
    }
}

impl backend::Hold for Hold {
    fn token(&self) -> Option<u64> {
        Some(self.shared.watcher.watched().own.number())
    }

    /// Returns `true` also if the last holder expired.
    fn predecessor_crashed(&self) -> bool {
        self.crashed
    }

    /// Returns whether the baton still has our ID.
    fn is_held(&self) -> bool {
        let watcher = &self.shared.watcher;
        self.is_ours() && watcher.loss().is_none() && watcher.watched().loss().is_none()
    }

    fn lost(&self) -> Lost {
        let watcher = self.shared.watcher.clone();
        let listener = watcher.listen();
        Lost::new(std::future::poll_fn(move |cx| {
            watcher.start();
            listener.poll(cx.waker())
        }))
    }

    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.is_ours() {
            let text = "this guard was acquired before a fork and belongs to the parent";
            return Poll::Ready(Err(Error::at(ErrorKind::Unsupported, text, self.place())));
        }
        Poll::Ready(self.give_back())
    }

    fn place(&self) -> &Path {
        &self.shared.watcher.watched().directory
    }
}

impl Drop for Hold {
    /// Releases the lock: a rename and an unlink. In a forked child it belongs to the parent.
    fn drop(&mut self) {
        if self.is_ours()
            && let Err(error) = self.give_back()
        {
            crate::trace::unheard(self.place(), &error);
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("own", &self.shared.watcher.watched().own)
            .finish_non_exhaustive()
    }
}

impl SharedHold {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what writes a beat. Returns `None` if the hold is over or lost.
    fn beat_writer(&self) -> Option<impl Fn(u64) -> io::Result<()> + use<>> {
        let state = self.state();
        let draft = state.draft.as_ref();
        let draft = draft.filter(|_| self.watcher.loss().is_none())?;
        Some(draft.beat_writer())
    }

    /// Returns how long the holder relies on a renewal.
    fn limit(&self) -> Duration {
        self.expire.map_or(Duration::MAX, |it| it / 4 * 3)
    }

    fn is_overdue(&self, state: &State) -> bool {
        state.confirmed.elapsed() >= self.limit()
    }

    /// Ends the hold. Returns its record, unless it was over before. Callers that still wait for a
    /// loss stay pending.
    fn end(&self) -> Option<Draft> {
        let draft = self.state().draft.take();
        self.watcher.end();
        draft
    }
}

impl Renew for SharedHold {
    fn pace(&self) -> Duration {
        self.expire.map_or(Duration::MAX, |it| it / 3)
    }

    /// Renews the record, and checks that the lock is still held. Runs on the thread that renews
    /// the holds on this file system.
    fn renew(&self) -> bool {
        let begun = Instant::now();
        let Some(write) = self.beat_writer() else {
            return false;
        };
        // Not under the mutex, because the file system may take long.
        let count = self.beats.fetch_add(1, Ordering::Relaxed) + 1;
        let held = self.watcher.watched();
        let written = at_named("RenewClaim").and_then(|()| write(count));
        let outcome = (written, held.own.is_there(&held.directory));
        let mut state = self.state();
        let loss = match outcome {
            (_, Ok(false)) => None,
            (Ok(()), Ok(true)) => {
                state.confirmed = begun;
                return true;
            }
            // If the baton cannot be looked at, or the beat cannot be written, another process may
            // soon take over.
            _ if self.is_overdue(&state) => Some(Loss::Expired),
            _ => return true,
        };
        drop(state);
        self.watcher.lose(loss.unwrap_or_else(|| held.why()));
        false
    }

    /// If the renewal is overdue twice in a row, it hangs, or waits behind one that hangs. Once may
    /// be after a pause of the whole process, where the renewal comes next.
    fn check(&self) -> Option<Instant> {
        let mut state = self.state();
        if state.draft.is_none() || self.watcher.loss().is_some() {
            return None;
        }
        let overdue = self.is_overdue(&state);
        if overdue && state.late {
            drop(state);
            self.watcher.lose(Loss::Expired);
            return None;
        }
        state.late = overdue;
        match overdue {
            true => Instant::now().checked_add(self.pace() / 2),
            false => state.confirmed.checked_add(self.limit()),
        }
    }
}

impl HeldBaton {
    /// Returns why the baton no longer has our ID.
    fn why(&self) -> Loss {
        match baton::find(&self.directory) {
            Ok(Some(baton)) if baton.number() > self.own.number() => Loss::Expired,
            Ok(Some(_)) => Loss::Replaced,
            Ok(None) | Err(_) => Loss::Deleted,
        }
    }
}

impl Watched for HeldBaton {
    fn open_to_watch(&self) -> Option<File> {
        file::open_to_watch(&self.own.path(&self.directory)).ok()?
    }

    fn loss(&self) -> Option<Loss> {
        match self.own.is_there(&self.directory) {
            Ok(false) => Some(self.why()),
            _ => None,
        }
    }
}
