//! The wait for a plain file lock, and its guard: the open file.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncSeek, AsyncSeekExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::Shared;
use super::options::REMOVES;
use super::os_lock::{First, Locked, OsLock, Tried};
use super::pool;
use super::wait::FileWait;
use crate::acquire::Attempt;
use crate::address::Address;
use crate::any::AnyGuard;
use crate::backend::{Hold, Pending, Request};
use crate::block;
use crate::door::unlink_if_same;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::sealed::Granted;
use crate::guard::{Downgrade, WriteGuard, guard};
use crate::ledger::Ledger;
use crate::loss::{Loss, Lost};
use crate::options::no_writer;
use crate::owner::holder_of_file;
use crate::status::Waiting;
use crate::sys::file::{AsOpen, FileId, duplicate, lend_file, open_to_read, sync};
use crate::sys::flock;
use crate::sys::fork::{Origin, Private, Slot};
use crate::trace;
use crate::watch::loss_watcher::{LossWatcher, loss_of};

guard! {
    /// A plain lock that is held, as the open file. The guard supports read, write and seek.
    ///
    /// Reads and writes need a runtime, because they go through Tokio's pool of blocking threads,
    /// like those of `tokio::fs::File`. As there, a write may still be running when its call
    /// returns. `flush`, [`sync_all`](FileGuard::sync_all) and [`release`](FileGuard::release) wait
    /// for it and report its result.
    ///
    /// Dropping the guard releases the lock. If a write still runs then, the file stays locked
    /// until the write has ended, and its result is not reported. In a forked child, dropping it
    /// does nothing to the parent's lock.
    ///
    /// The lock is lost when the file is deleted, renamed or replaced. Other callers can lock the
    /// new file then. With a lock in another directory ([`lock_dir`](crate::OpenLocked::lock_dir)),
    /// the loss of that lock is a loss of this one too.
    FileGuard holds FileHold, by FilePending, reader: FileGuard
}

/// An open file with the lock on it.
#[doc(hidden)]
pub struct FileHold {
    // First field: the registration must be dropped before the file is closed.
    entry: Option<Slot>,
    content: Option<Content>,
    /// Whether a read had to wait. If the caller dropped such a read, the file position may be
    /// ahead of what the caller got.
    may_be_ahead: bool,
    shared: Arc<Shared>,
    id: FileId,
    origin: Origin,
    watcher: OnceLock<Arc<LossWatcher>>,
    /// The result of the release so far.
    released: Option<Result<()>>,
    /// A lock that was acquired before this one and is released after it.
    over: Option<AnyGuard>,
    /// Whether the file itself is locked.
    locked: bool,
    /// Whether the lock is shared.
    reads: bool,
}

/// The open file, in the form of its last use.
enum Content {
    Plain(File),
    Async(tokio::fs::File),
}

impl FileHold {
    fn new(shared: &Arc<Shared>, locked: Locked, reads: bool) -> Result<Self> {
        let (file, id) = locked.into_parts();
        let (entry, file) = file.into_parts();
        let hold = Self {
            entry: Some(entry),
            content: Some(Content::Plain(file)),
            may_be_ahead: false,
            shared: shared.clone(),
            id,
            origin: Origin::here(),
            watcher: OnceLock::new(),
            released: None,
            over: None,
            locked: true,
            reads,
        };
        if shared.config.truncate
            && let Some(Content::Plain(file)) = &hold.content
            && let Err(error) = file.set_len(0)
        {
            // The drop of `hold` releases the lock.
            return Err(Error::io("truncate the file", hold.path(), error));
        }
        Ok(hold)
    }

    /// Adds a lock that was acquired before and is held as long as the file. `locked` says whether
    /// the file is locked too.
    fn under(mut self, over: Option<AnyGuard>, locked: bool) -> Self {
        (self.over, self.locked) = (over, locked);
        self
    }

    fn path(&self) -> &Path {
        self.shared.target.path()
    }

    fn loss(&self) -> Option<Loss> {
        loss_of(self.path(), self.id)
    }

    fn lost_by(&self, loss: Loss) -> Error {
        Error::lost(loss, self.path())
    }

    /// Refuses a guard in a forked child: there the file and the lock are the parent's.
    fn refuse_copy(&self) -> Result<()> {
        if !self.origin.is_here() {
            let text = "this guard is from before a fork; open the lock again in the child";
            return Err(Error::at(ErrorKind::Unsupported, text, self.path()));
        }
        Ok(())
    }

    /// Refuses a guard that cannot become a reader's.
    fn refuse_to_share(&self) -> Result<()> {
        self.refuse_copy()?;
        let refused = |kind, text| Err(Error::at(kind, text, self.path()));
        match self {
            Self { reads: true, .. } => Err(no_writer(self.path())),
            Self { over: Some(_), .. } => {
                let text = "the lock of this file is another file's, and cannot be shared";
                refused(ErrorKind::Unsupported, text)
            }
            _ if self.shared.config.remove_on_release => {
                let text = format!("this lock cannot be shared: {REMOVES}");
                refused(ErrorKind::InvalidInput, &text)
            }
            _ => Ok(()),
        }
    }

    /// Shares the lock, and wakes the readers that wait for it.
    fn share(&mut self) -> Result<()> {
        let at = |step, error| Error::io(step, self.path(), error);
        // The lock belongs to the open file, which a duplicate shares.
        let copy = match &self.content {
            Some(Content::Plain(file)) => duplicate(file),
            Some(Content::Async(file)) => duplicate(file),
            None => unreachable!("a guard has its file until it is consumed"),
        };
        let copy = Private::new(copy.map_err(|e| at("share the lock of the file", e))?);
        if !flock::share(&copy).map_err(|e| at("share the lock of the file", e))? {
            return Err(self.lost_by(Loss::Unlocked));
        }
        self.reads = true;
        // The change itself causes no event, so a close must wake the waiters. Otherwise they look
        // again at their poll interval.
        drop(open_to_read(self.path()));
        Ok(())
    }

    /// Removes the file if the options ask for it, then unlocks and closes it. While a write still
    /// runs, the write closes the file at its end.
    fn give_back(&mut self) -> Result<()> {
        let entry = self.entry.take();
        let Some(content) = self.content.take() else {
            return Ok(());
        };
        if !self.origin.is_here() {
            return Ok(());
        }
        if let Some(watcher) = self.watcher.get() {
            watcher.end();
        }
        let path = self.shared.target.path();
        let removed = match self.shared.config.remove_on_release {
            true => unlink_if_same(path, self.id),
            false => Ok(()),
        };
        let file = match content {
            Content::Plain(file) => Ok(file),
            Content::Async(file) => file.try_into_std(),
        };
        let unlocked = match (file, entry) {
            (Ok(file), Some(entry)) if self.locked => {
                let file = Private::from_parts(entry, file);
                flock::unlock(&file).map_err(|e| Error::io("unlock the file", path, e))
            }
            (file, entry) => {
                // The registration first: the file closes its descriptor at the end of the write,
                // or here.
                drop(entry);
                drop(file);
                Ok(())
            }
        };
        Error::of_both(removed, unlocked)
    }

    fn file(&self) -> &dyn AsOpen {
        match &self.content {
            Some(Content::Plain(file)) => file,
            Some(Content::Async(file)) => file,
            None => unreachable!("a guard has its file until it is consumed"),
        }
    }

    /// Returns the file in Tokio's form.
    fn tokio_file(&mut self) -> Option<&mut tokio::fs::File> {
        if let Some(Content::Plain(_)) = &self.content
            && let Some(Content::Plain(file)) = self.content.take()
        {
            self.content = Some(Content::Async(tokio::fs::File::from_std(file)));
        }
        match &mut self.content {
            Some(Content::Async(file)) => Some(file),
            _ => None,
        }
    }

    fn pinned(&mut self) -> io::Result<Pin<&mut tokio::fs::File>> {
        if !self.origin.is_here() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let file = self.tokio_file();
        file.map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl FileGuard {
    /// Waits until all writes have ended, then until content and metadata are on disk.
    ///
    /// # Cancel safety
    ///
    /// The lock stays held. The written data may or may not be on disk.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] when a write since the last flush, or the sync, failed.
    pub async fn sync_all(&mut self) -> Result<()> {
        let this = &mut self.held.hold;
        this.refuse_copy()?;
        let path = this.shared.target.path();
        let at = |step, error| Error::io(step, path, error);
        if let Some(Content::Async(file)) = &mut this.content {
            let flushed = file.flush().await;
            flushed.map_err(|e| at("write to the file", e))?;
        }
        // Through a duplicate: if this future is dropped half way, the file itself stays usable.
        let copy = match &this.content {
            Some(Content::Plain(file)) => duplicate(file),
            Some(Content::Async(file)) => duplicate(file),
            None => return Ok(()),
        };
        let copy = Private::new(copy.map_err(|e| at("sync the file", e))?);
        let synced = pool::run(move || sync(&copy)).await?;
        synced.map_err(|e| at("sync the file", e))
    }

    /// Truncates the file to this many bytes, or extends it with zeros. Waits until all writes have
    /// ended. The position in the file does not change. So rewind before you write new content.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("count");
    /// use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
    ///
    /// let mut file = stanchion::open_locked(&path).await?;
    /// let mut count = String::new();
    /// file.read_to_string(&mut count).await?;
    /// let next = count.parse().unwrap_or(0) + 1;
    /// file.set_len(0).await?;
    /// file.rewind().await?;
    /// file.write_all(next.to_string().as_bytes()).await?;
    /// file.release().await?;
    /// # assert_eq!(std::fs::read(&path)?, b"1");
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The lock stays held. The file has the old or the new length. If the guard is dropped while
    /// the change still runs, the file stays locked until the change has ended.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`] when a write since the last flush failed, or the length cannot be
    ///   changed.
    /// - [`ErrorKind::Unsupported`] outside a runtime.
    pub async fn set_len(&mut self, bytes: u64) -> Result<()> {
        let this = &mut self.held.hold;
        this.refuse_copy()?;
        pool::handle()?;
        let shared = this.shared.clone();
        let at = |step, error| Error::io(step, shared.target.path(), error);
        // By Tokio's file: if this future is dropped half way, the lock outlasts the change.
        let mut file = this.pinned().map_err(|e| at("use the file", e))?;
        let flushed = file.flush().await;
        flushed.map_err(|e| at("write to the file", e))?;
        let changed = file.set_len(bytes).await;
        changed.map_err(|e| at("change the length of the file", e))
    }

    /// Returns the file for the standard library's calls, which block this thread. Waits for reads
    /// and writes that still run.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`] when a write since the last flush failed.
    /// - [`ErrorKind::Unsupported`] outside a runtime when Tokio has read the file before.
    pub async fn as_std(&mut self) -> Result<&mut File> {
        let this = &mut self.held.hold;
        this.refuse_copy()?;
        let path = this.shared.target.path();
        if let Some(Content::Async(file)) = &mut this.content {
            let flushed = file.flush().await;
            flushed.map_err(|e| Error::io("write to the file", path, e))?;
            if this.may_be_ahead {
                // Seeks back to the caller's position. Tokio panics where it has no pool for this.
                pool::handle()?;
                let sought = file.seek(io::SeekFrom::Current(0)).await;
                sought.map_err(|e| Error::io("seek in the file", path, e))?;
                this.may_be_ahead = false;
            }
        }
        if let Some(Content::Async(file)) =
            this.content.take_if(|it| matches!(it, Content::Async(_)))
        {
            match file.try_into_std() {
                Ok(file) => this.content = Some(Content::Plain(file)),
                Err(file) => {
                    this.content = Some(Content::Async(file));
                    let text = "the file is still in use";
                    return Err(Error::at(ErrorKind::Busy, text, path));
                }
            }
        }
        match &mut this.content {
            Some(Content::Plain(file)) => Ok(file),
            _ => unreachable!("a guard has its file until it is consumed"),
        }
    }

    /// Returns the file as [`as_std`](FileGuard::as_std) does, for callers without a runtime. Waits
    /// on this thread.
    ///
    /// # Errors
    ///
    /// Those of [`as_std`](FileGuard::as_std). Also [`ErrorKind::Unsupported`] inside an async
    /// task.
    pub fn blocking_as_std(&mut self) -> Result<&mut File> {
        block::refuse_async(self.path())?;
        block::block_on(self.as_std())
    }

    /// Turns the exclusive lock into a shared one. Other readers may acquire the lock at once. No
    /// writer acquires it in between. Waits until all writes have ended.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before its end, it releases the lock, as a drop of the guard does.
    ///
    /// # Errors
    ///
    /// In each of these cases the lock is released:
    ///
    /// - [`ErrorKind::Io`] when a write since the last flush failed, or the lock could not be
    ///   changed.
    /// - [`ErrorKind::Lost`] when the lock was lost.
    /// - [`ErrorKind::InvalidInput`] when the lock is shared already, and with
    ///   [`remove_on_release`](crate::FileConfig::remove_on_release), which would take the file
    ///   from other readers.
    /// - [`ErrorKind::Unsupported`] when the lock is in another directory
    ///   ([`lock_dir`](crate::OpenLocked::lock_dir)).
    ///
    /// # Platform notes
    ///
    /// The change is one step on Linux since 4.0, on the BSDs, on macOS and on Windows. The manual
    /// page of `flock` does not promise it. A network or user-space file system may do it in two
    /// steps. If it then grants the lock to another caller, the result is [`ErrorKind::Lost`].
    pub fn downgrade(self) -> Downgrade<Self> {
        WriteGuard::downgrade(self)
    }

    /// Returns the path of the file, as its lock has it.
    pub fn path(&self) -> &Path {
        self.held.hold.path()
    }

    /// Returns the open file, still locked. The lock is released when the last duplicate of the
    /// file is closed. Waits for reads and writes that still run.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before its end, it releases the lock, as a drop of the guard does.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`] when a write since the last flush failed.
    /// - [`ErrorKind::Unsupported`] when the lock is in another directory
    ///   ([`lock_dir`](crate::OpenLocked::lock_dir)) and so cannot go with the file.
    ///
    /// After an error the lock is released.
    pub async fn into_std(mut self) -> Result<File> {
        if self.held.hold.over.is_some() {
            let text = "the lock of this file is another file's, and cannot go with it";
            return Err(Error::at(ErrorKind::Unsupported, text, self.path()));
        }
        self.as_std().await?;
        self.held.hold.entry = None;
        match self.held.hold.content.take() {
            Some(Content::Plain(file)) => Ok(file),
            _ => unreachable!("as_std has made it plain"),
        }
    }

    fn file(&self) -> &dyn AsOpen {
        self.held.hold.file()
    }

    fn pinned(self: Pin<&mut Self>) -> io::Result<Pin<&mut tokio::fs::File>> {
        self.get_mut().held.hold.pinned()
    }
}

impl AsyncRead for FileGuard {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let hold = &mut self.get_mut().held.hold;
        let read = hold.pinned()?.poll_read(cx, buffer);
        hold.may_be_ahead |= read.is_pending();
        read
    }
}

impl AsyncWrite for FileGuard {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pinned()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_flush(cx)
    }

    /// Flushes the file. The lock stays held.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_shutdown(cx)
    }
}

impl AsyncSeek for FileGuard {
    fn start_seek(self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        self.pinned()?.start_seek(position)
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        self.pinned()?.poll_complete(cx)
    }
}

lend_file!(FileGuard);

impl Hold for FileHold {
    /// Returns the token of the lock in another directory, if there is one.
    fn token(&self) -> Option<u64> {
        self.over.as_ref().and_then(AnyGuard::token)
    }

    fn predecessor_crashed(&self) -> bool {
        let over = self.over.as_ref();
        over.is_some_and(AnyGuard::predecessor_crashed)
    }

    fn poll_downgrade(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.refuse_to_share()?;
        if let Some(Content::Async(file)) = &mut self.content {
            let flushed = ready!(Pin::new(file).poll_flush(cx));
            flushed.map_err(|e| Error::io("write to the file", self.path(), e))?;
        }
        if let Some(loss) = self.loss() {
            return Poll::Ready(Err(self.lost_by(loss)));
        }
        Poll::Ready(self.share())
    }

    fn is_held(&self) -> bool {
        let over = self.over.as_ref().is_none_or(AnyGuard::is_held);
        over && self.origin.is_here() && self.loss().is_none()
    }

    fn lost(&self) -> Lost {
        let target = &self.shared.target;
        let begin =
            || LossWatcher::begin(target.path().to_owned(), self.id, target.config().events());
        let listener = self.watcher.get_or_init(begin).listen();
        let mut over = self.over.as_ref().map(AnyGuard::lost);
        Lost::new(std::future::poll_fn(move |cx| {
            let over = over.as_mut().map(|it| Pin::new(it).poll(cx));
            match over {
                Some(lost @ Poll::Ready(_)) => lost,
                _ => listener.poll(cx.waker()),
            }
        }))
    }

    /// Waits until all writes have ended, releases the lock, then the lock that was acquired before
    /// it.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.released.is_none() {
            self.refuse_copy()?;
            let flushed = match &mut self.content {
                Some(Content::Async(file)) => ready!(Pin::new(file).poll_flush(cx)),
                _ => Ok(()),
            };
            let flushed = flushed.map_err(|e| Error::io("write to the file", self.path(), e));
            let lost = self.loss().map(|loss| self.lost_by(loss));
            let released = self.give_back().and(lost.map_or(Ok(()), Err));
            self.released = Some(Error::of_both(flushed, released));
        }
        let over = match &mut self.over {
            Some(over) => ready!(over.hold_mut().poll_release(cx)),
            None => Ok(()),
        };
        self.over = None;
        let released = self.released.take().unwrap_or(Ok(()));
        Poll::Ready(Error::of_both(released, over))
    }

    fn place(&self) -> &Path {
        self.path()
    }
}

impl Drop for FileHold {
    /// Releases the lock with two short system calls, or with none while a write still runs. Errors
    /// cannot be returned from here. The closed file frees the lock in any case.
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            trace::unheard(self.path(), &error);
        }
    }
}

/// The wait of one caller.
#[doc(hidden)]
pub struct FilePending {
    /// An error when the lock could not even be opened.
    lock: Result<Arc<Shared>, Option<Error>>,
    reads: bool,
    over: Over,
    wait: Option<FileWait<OsLock>>,
}

/// A lock that is acquired before the file's own, and held as long.
enum Over {
    None,
    /// `locks` says whether the file itself is locked too.
    Waiting {
        attempt: Box<Attempt<AnyGuard>>,
        locks: bool,
    },
    Held {
        guard: AnyGuard,
        locks: bool,
    },
}

impl FilePending {
    pub(super) fn new(shared: &Arc<Shared>, reads: bool) -> Self {
        Self {
            lock: Ok(shared.clone()),
            reads,
            over: Over::None,
            wait: None,
        }
    }

    /// Waits for the file after the lock `over`. `locks` says whether the file itself is locked
    /// too.
    pub(super) fn under(shared: &Arc<Shared>, over: Attempt<AnyGuard>, locks: bool) -> Self {
        let attempt = Box::new(over);
        Self {
            over: Over::Waiting { attempt, locks },
            ..Self::new(shared, false)
        }
    }

    /// Creates a wait that fails with this error at its first poll.
    pub(crate) fn failed(error: Error) -> Self {
        Self {
            lock: Err(Some(error)),
            reads: false,
            over: Over::None,
            wait: None,
        }
    }

    /// Polls for the file. Called when the lock `over` is held, or when there is none.
    fn poll_file(
        &mut self,
        shared: &Arc<Shared>,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<FileHold>>> {
        let target = &shared.target;
        let locked = match &mut self.wait {
            _ if matches!(self.over, Over::Held { locks: false, .. }) => target.open_unlocked()?,
            Some(wait) => ready!(wait.poll(cx.waker()))?,
            none => match target.try_once(self.reads)? {
                First::Locked(locked) => locked,
                First::Refused(_) if request.try_only => return Poll::Ready(Ok(None)),
                First::Refused(file) => {
                    let lock = Arc::new(OsLock::Path(target.clone()));
                    let tried = Tried::new(file, self.reads);
                    let wait = none.insert(FileWait::begin(lock, tried, cx.waker()));
                    ready!(wait.poll(cx.waker()))?
                }
            },
        };
        let hold = FileHold::new(shared, locked, self.reads)?;
        Poll::Ready(Ok(Some(
            match std::mem::replace(&mut self.over, Over::None) {
                Over::Held { guard, locks } => hold.under(Some(guard), locks),
                _ => hold,
            },
        )))
    }
}

impl Pending for FilePending {
    type Grant = FileHold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<FileHold>>> {
        let shared = match &mut self.lock {
            Ok(shared) => shared.clone(),
            Err(error) => {
                return error
                    .take()
                    .map_or(Poll::Pending, |it| Poll::Ready(Err(it)));
            }
        };
        if let Over::Waiting { attempt, locks } = &mut self.over {
            let locks = *locks;
            let Some(guard) = ready!(attempt.poll(request, cx))? else {
                return Poll::Ready(Ok(None));
            };
            self.over = Over::Held { guard, locks };
        }
        let polled = self.poll_file(&shared, request, cx);
        if polled.is_ready() {
            self.leave();
        }
        polled
    }

    fn leave(&mut self) {
        self.wait = None;
        self.over = Over::None;
    }

    fn waiting(&self) -> Option<Waiting> {
        if let Over::Waiting { attempt, .. } = &self.over {
            return attempt.waiting();
        }
        let shared = self.lock.as_ref().ok()?;
        Some(Waiting::behind(holder_of_file(shared.target.path())))
    }

    fn address(&self) -> Option<Address> {
        if let Over::Waiting { attempt, .. } = &self.over {
            return attempt.address();
        }
        let shared = self.lock.as_ref().ok()?;
        Some(Address::of_file(shared.target.path()))
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.lock.as_ref().ok().map(|it| &it.ledger)
    }

    fn counts_waiters(&self) -> bool {
        match &self.over {
            Over::Waiting { attempt, .. } => attempt.counts_waiters(),
            // A failed wait reports its own error.
            _ => self.lock.is_err(),
        }
    }
}
