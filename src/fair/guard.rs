//! What the guard of a fair lock contains: its share of the lock, and how it learns of a loss.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use super::slots::Slot;
use super::ticket::Mode;
use super::{Grant, Line, Share, Shared, Want};
use crate::backend::Hold;
use crate::error::{Error, Result};
use crate::loss::{Loss, Lost, WaiterId};
use crate::options::{check_merge, check_split, no_writer};
use crate::sys::file::duplicate_for_exec;
use crate::trace;
use crate::watch::loss_watcher::{LossWatcher, loss_of};

/// A grant of a fair lock.
#[doc(hidden)]
pub struct FairHold {
    shared: Arc<Shared>,
    /// Present until the release.
    share: Option<Share>,
    want: Want,
    token: u64,
    predecessor_crashed: bool,
    /// Present after the first call of `lost`. In a box, because few callers ask, and a guard is
    /// moved from function to function.
    asked: OnceLock<Box<Asked>>,
}

/// How a guard learns of a loss.
enum Asked {
    Door {
        latch: Arc<OnceLock<Loss>>,
        /// Set when the guard is released without a loss. Other callers may still hold the same
        /// lock, and lose it later.
        over: Arc<AtomicBool>,
    },
    /// Each permit has a slot file of its own.
    Permits(Vec<Arc<LossWatcher>>),
}

impl FairHold {
    pub(super) fn new(shared: Arc<Shared>, grant: Grant) -> Self {
        Self {
            share: Some(grant.share),
            shared,
            want: grant.want,
            token: grant.token,
            predecessor_crashed: grant.predecessor_crashed,
            asked: OnceLock::new(),
        }
    }

    /// Returns the loss watchers that have begun.
    fn watchers(&self) -> &[Arc<LossWatcher>] {
        match self.asked.get().map(Box::as_ref) {
            Some(Asked::Permits(watchers)) => watchers,
            _ => &[],
        }
    }

    /// Takes the loss watchers out. Begins them first if no caller has asked yet.
    fn take_watchers(&mut self) -> Vec<Arc<LossWatcher>> {
        match self.asked.take().map(|it| *it) {
            Some(Asked::Permits(watchers)) => watchers,
            _ => self.begin_watchers(),
        }
    }

    /// Returns the first slot file that is lost, and how it was lost.
    fn permit_loss(&self) -> Option<(Loss, PathBuf)> {
        let known = self.watchers().iter();
        let known = known.filter_map(|it| it.loss().map(|loss| (loss, it.path().to_path_buf())));
        let seen = self.slots().filter_map(|slot| {
            let path = self.shared.line.slot_path(slot.number());
            loss_of(&path, slot.id()).map(|loss| (loss, path))
        });
        known.chain(seen).next()
    }

    /// Returns the paths of the slot files of these permits.
    pub(super) fn slot_paths(&self) -> Vec<PathBuf> {
        let path = |slot: &Slot| self.shared.line.slot_path(slot.number());
        self.slots().map(path).collect()
    }

    /// Returns the same slot files, open.
    pub(super) fn slot_files(&self) -> impl Iterator<Item = &File> {
        self.slots().map(Slot::file)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let permits = match &self.share {
            Some(Share::Permits(permits)) => Some(permits),
            _ => None,
        };
        permits.into_iter().flatten()
    }

    /// Resolves when one of the slot files is lost.
    fn permit_lost(&self) -> Lost {
        let begin = || Box::new(Asked::Permits(self.begin_watchers()));
        self.asked.get_or_init(begin);
        let listeners: Vec<_> = self.watchers().iter().map(LossWatcher::listen).collect();
        Lost::new(std::future::poll_fn(move |cx| {
            let lost = listeners.iter().map(|it| it.poll(cx.waker()));
            lost.reduce(|one, other| if one.is_ready() { one } else { other })
                .unwrap_or(Poll::Pending)
        }))
    }

    /// Begins to watch for the loss of each slot file, in the order of the permits.
    fn begin_watchers(&self) -> Vec<Arc<LossWatcher>> {
        let events = self.shared.line.has_events();
        let begin = |slot: &Slot| {
            let path = self.shared.line.slot_path(slot.number());
            LossWatcher::begin(path, slot.id(), events)
        };
        self.slots().map(begin).collect()
    }

    pub(super) fn file(&self) -> &File {
        match &self.share {
            Some(Share::Door(door)) => door.file(),
            _ => unreachable!("the guard of a lock has its door until it is consumed"),
        }
    }

    /// Prepares the lock to outlive this program. Returns the files that carry it across `exec`.
    pub(super) fn keep_across_exec(&self) -> Result<Vec<File>> {
        let locked: Vec<_> = match &self.share {
            Some(Share::Door(door)) => vec![door.file()],
            _ => self.slot_files().collect(),
        };
        let duplicates: io::Result<Vec<_>> = locked.into_iter().map(duplicate_for_exec).collect();
        let path = self.shared.path();
        let mut kept = duplicates.map_err(|e| Error::io("duplicate the lock file", path, e))?;
        // Last, because it clears the held flag: after an error a crash is still reported.
        kept.extend(self.shared.line.prepare_exec()?);
        Ok(kept)
    }

    /// Makes the writer a reader.
    pub(super) fn downgrade(&mut self) -> Result<()> {
        if self.want.mode != Mode::Exclusive || !self.shared.line.shares() {
            return Err(no_writer(self.place()));
        }
        let downgraded = self.shared.line.downgrade();
        // Set even when the downgrade failed: the drop then releases a reader.
        self.want.mode = Mode::Shared;
        downgraded
    }

    fn give_back(&mut self, listens: bool) -> Result<()> {
        // Checked now, while there are files to compare. A drop has no caller to inform.
        let lost = listens.then(|| self.permit_loss()).flatten();
        let Some(share) = self.share.take() else {
            return Ok(());
        };
        self.watchers().iter().for_each(|it| it.end());
        if let Some(Asked::Door { latch, over }) = self.asked.get().map(Box::as_ref) {
            over.store(latch.get().is_none(), Ordering::Relaxed);
        }
        let released = self.shared.line.release(share, self.want, listens);
        match lost {
            Some((loss, path)) => Err(Error::lost(loss, path)),
            None => released,
        }
    }
}

impl Hold for FairHold {
    fn token(&self) -> Option<u64> {
        Some(self.token)
    }

    fn predecessor_crashed(&self) -> bool {
        self.predecessor_crashed
    }

    fn permits(&self) -> u32 {
        match self.want.mode {
            Mode::Permits(count) => count,
            Mode::Exclusive | Mode::Shared => 0,
        }
    }

    fn split(&mut self, permits: u32) -> Result<Self> {
        let left = check_split(permits, self.permits(), self.place())?;
        self.shared.line.split()?;
        let part = match &mut self.share {
            Some(Share::Permits(all)) => Some(Share::Permits(all.split_off(left as usize))),
            _ => None,
        };
        self.want.mode = Mode::Permits(left);
        let asked = match self.asked.get_mut().map(Box::as_mut) {
            Some(Asked::Permits(all)) => {
                OnceLock::from(Box::new(Asked::Permits(all.split_off(left as usize))))
            }
            _ => OnceLock::new(),
        };
        Ok(Self {
            shared: self.shared.clone(),
            share: part,
            want: Want {
                mode: Mode::Permits(permits),
                ..self.want
            },
            asked,
            ..*self
        })
    }

    fn merge(&mut self, mut other: Self) -> Result<()> {
        let same = Arc::ptr_eq(&self.shared.line, &other.shared.line);
        let more = check_merge(same, self.permits(), other.permits(), self.place())?;
        self.shared.line.merge()?;
        if self.asked.get().is_some() || other.asked.get().is_some() {
            let mut all = self.take_watchers();
            all.extend(other.take_watchers());
            self.asked = OnceLock::from(Box::new(Asked::Permits(all)));
        }
        if let (Some(Share::Permits(all)), Some(Share::Permits(added))) =
            (&mut self.share, other.share.take())
        {
            all.extend(added);
        }
        self.want.mode = Mode::Permits(more);
        self.token = self.token.max(other.token);
        Ok(())
    }

    fn poll_downgrade(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.downgrade())
    }

    fn is_held(&self) -> bool {
        match &self.share {
            Some(Share::Permits(_)) => {
                !self.shared.line.is_foreign() && self.permit_loss().is_none()
            }
            _ => self.shared.line.is_held(self.token),
        }
    }

    fn lost(&self) -> Lost {
        let line = self.shared.line.clone();
        // In a forked child, `asked` may stay locked forever.
        if line.is_foreign() {
            return Lost::new(std::future::pending());
        }
        let latch = match &self.share {
            Some(Share::Permits(_)) => return self.permit_lost(),
            Some(Share::Door(_)) => line.watch_for_loss(),
            None => Arc::default(),
        };
        let asked = self.asked.get_or_init(|| {
            Box::new(Asked::Door {
                latch: latch.clone(),
                over: Arc::default(),
            })
        });
        let over = match &**asked {
            Asked::Door { over, .. } => over.clone(),
            Asked::Permits(_) => Arc::default(),
        };
        Lost::new(LostDoor {
            line,
            token: self.token,
            latch,
            over,
            id: WaiterId::fresh(),
        })
    }

    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.give_back(true))
    }

    fn place(&self) -> &Path {
        self.shared.path()
    }
}

/// Resolves when the lock file of a hold is lost. Dropping it drops its waker.
struct LostDoor {
    line: Arc<Line>,
    token: u64,
    latch: Arc<OnceLock<Loss>>,
    over: Arc<AtomicBool>,
    id: WaiterId,
}

impl Future for LostDoor {
    type Output = Loss;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Loss> {
        match self.over.load(Ordering::Relaxed) {
            true => Poll::Pending,
            false => self
                .line
                .poll_lost(&self.latch, self.token, self.id, cx.waker()),
        }
    }
}

impl Drop for LostDoor {
    fn drop(&mut self) {
        self.line.forget_loss_waiter(self.id);
    }
}

impl Drop for FairHold {
    /// Releases the lock with a few short system calls, or with none when a task of this process is
    /// next. Errors cannot be returned from here. The closed descriptor frees the lock in any case.
    fn drop(&mut self) {
        if let Err(error) = self.give_back(false) {
            trace::unheard(&self.shared.line.place().door, &error);
        }
    }
}
