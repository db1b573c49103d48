//! A record of this process: before it is published, and while it is at the path.

use std::io::{self, ErrorKind::AlreadyExists, ErrorKind::NotFound, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::SystemTime;

use super::{LONGEST, PidFile, VERSION, unlink};
use crate::backend::Hold;
use crate::error::{Error, ErrorKind, Result};
use crate::loss::{Loss, Lost};
use crate::owner::identity;
use crate::step::at_named;
use crate::sys::dir::{Dir, Directory};
use crate::sys::file::{self, FileId};
use crate::sys::fork::{Private, generation};
use crate::sys::id::Id;
use crate::sys::replace;
use crate::watch::loss_watcher::LossWatcher;

/// The held lock: our record, open, at the path. Dropping it releases the lock.
#[doc(hidden)]
pub struct PidHold {
    path: PathBuf,
    file: Option<Private>,
    id: FileId,
    /// Whether it was taken over from a holder that died.
    crashed: bool,
    /// Whether file events can be expected.
    events: bool,
    watcher: OnceLock<Arc<LossWatcher>>,
    generation: u32,
}

/// Our record under a name of its own. Dropping it deletes it.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    file: Option<Private>,
    id: FileId,
    generation: u32,
}

impl Draft {
    pub(super) fn write(lock: &PidFile) -> io::Result<Self> {
        let id = Id::fresh();
        let path = lock.beside("new", &id.to_string());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since = now.map_or(0, |it| it.as_micros());
        let pid = std::process::id();
        let program = std::env::args_os().next().unwrap_or_default();
        let program = program.to_string_lossy().replace(['\n', '\r'], " ");
        let program: String = program.chars().take(LONGEST / 8).collect();
        let words = identity().words(lock.label.as_deref());
        at_named("WritePid")?;
        let file = Private::new(Dir::make_record(&path)?);
        let mut draft = Self {
            path,
            id: file::id_of(&file)?,
            file: None,
            generation: generation(),
        };
        let inode = draft.id.inode;
        let text =
            format!("{pid}\n{program}\n{VERSION} id={id} since={since}\n{words} file={inode}\n");
        let written = (&*file).write_all(text.as_bytes());
        draft.file = Some(file);
        written.map(|()| draft)
    }

    /// Links the record to a name where nothing is. Returns `false` if something is there.
    pub(super) fn link(&self, at: &Path) -> io::Result<bool> {
        match at_named("LinkPid").and_then(|()| replace::publish(&self.path, at)) {
            Ok(()) => Ok(true),
            // A server may have done it, and its answer was lost.
            Err(error) if error.kind() == AlreadyExists => Ok(file::id_at(at)? == Some(self.id)),
            Err(error) => Err(error),
        }
    }

    /// Returns the hold, once the record is at the path.
    pub(super) fn into_hold(mut self, lock: &PidFile, crashed: bool) -> PidHold {
        PidHold {
            path: lock.path.clone(),
            file: self.file.take(),
            id: self.id,
            crashed,
            events: lock.config.events(),
            watcher: OnceLock::new(),
            generation: self.generation,
        }
    }
}

impl Drop for Draft {
    /// Deletes the draft. In a forked child it belongs to the parent.
    fn drop(&mut self) {
        if self.generation == generation() {
            let _ = unlink(&self.path);
        }
    }
}

impl PidHold {
    /// Releases the lock. Does nothing if it was released before.
    pub(in crate::existence::pid) fn give_back(&mut self) -> Result<()> {
        if let Some(watcher) = self.watcher.take() {
            watcher.end();
        }
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        if self.generation != generation() {
            let text = "this guard was acquired before a fork and belongs to the parent";
            return Err(Error::at(ErrorKind::Unsupported, text, &self.path));
        }
        let at = |step, error| Error::io(step, &self.path, error);
        let found = file::id_at(&self.path).map_err(|e| at("look at the pid file", e))?;
        if found != Some(self.id) {
            let loss = match found {
                Some(_) => Loss::Replaced,
                None => Loss::Deleted,
            };
            return Err(Error::lost(loss, &self.path));
        }
        let deleted = at_named("UnlinkPid").and_then(|()| unlink(&self.path));
        drop(file);
        match deleted {
            Err(error) if error.kind() != NotFound => Err(at("delete the pid file", error)),
            _ => Ok(()),
        }
    }
}

impl Hold for PidHold {
    fn token(&self) -> Option<u64> {
        None
    }

    fn predecessor_crashed(&self) -> bool {
        self.crashed
    }

    fn is_held(&self) -> bool {
        self.generation == generation()
            && self.file.is_some()
            && file::id_at(&self.path).is_ok_and(|it| it == Some(self.id))
    }

    fn lost(&self) -> Lost {
        let begin = || LossWatcher::begin(self.path.clone(), self.id, self.events);
        let watcher = self.watcher.get_or_init(begin).clone();
        Lost::new(std::future::poll_fn(move |cx| watcher.poll(cx.waker())))
    }

    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.give_back())
    }

    fn place(&self) -> &Path {
        &self.path
    }
}

impl Drop for PidHold {
    /// Releases the lock: a look and an unlink. In a forked child it belongs to the parent.
    fn drop(&mut self) {
        if self.generation == generation()
            && let Err(error) = self.give_back()
        {
            crate::trace::unheard(&self.path, &error);
        }
    }
}
