//! The locks that are measured, behind one trait.
//!
//! A value of a [`Subject`] is one contender: every process, and every task of a process, has its
//! own. The trait is used by static dispatch only, so no box and no other subject's future affects
//! the figures.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_fd_lock::{LockWrite, RwLockWriteGuard};
use stanchion::{Backoff, FifoGuard, FifoLock, FileGuard, FileLock, Wait};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Which lock is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stanchion,
    /// The plain lock with its three ways to wait.
    FileWatch,
    FilePoll,
    FileBlocking,
    AsyncFdLock,
    FdLock,
    Fs2,
    Tokio,
    /// Locks that allow several holders.
    RwMixed,
    RwReads,
    TokioRw,
    FlockShared,
    Pool,
    TokioPool,
    /// The least that a hand-over can cost, see [`floor`](crate::floor).
    PipeThread,
    PipeTask,
    EventTask,
}

impl Kind {
    pub(crate) const ALL: [Self; 17] = [
        Self::Stanchion,
        Self::FileWatch,
        Self::FilePoll,
        Self::FileBlocking,
        Self::AsyncFdLock,
        Self::FdLock,
        Self::Fs2,
        Self::Tokio,
        Self::RwMixed,
        Self::RwReads,
        Self::TokioRw,
        Self::FlockShared,
        Self::Pool,
        Self::TokioPool,
        Self::PipeThread,
        Self::PipeTask,
        Self::EventTask,
    ];

    /// The locks that exclude other processes.
    pub(crate) const FILES: [Self; 4] =
        [Self::Stanchion, Self::AsyncFdLock, Self::FdLock, Self::Fs2];

    /// The peers of the fair lock.
    pub(crate) const FAIR: [Self; 5] = [
        Self::Stanchion,
        Self::AsyncFdLock,
        Self::FdLock,
        Self::Fs2,
        Self::Tokio,
    ];

    /// The locks that allow several holders.
    pub(crate) const SHARED: [Self; 6] = [
        Self::RwMixed,
        Self::TokioRw,
        Self::Pool,
        Self::TokioPool,
        Self::RwReads,
        Self::FlockShared,
    ];

    /// The locks without a queue of their own.
    pub(crate) const PLAIN: [Self; 6] = [
        Self::FileWatch,
        Self::FilePoll,
        Self::FileBlocking,
        Self::AsyncFdLock,
        Self::FdLock,
        Self::Fs2,
    ];

    /// What a hand-over costs at least.
    pub(crate) const FLOOR: [Self; 3] = [Self::PipeThread, Self::PipeTask, Self::EventTask];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stanchion => "stanchion",
            Self::FileWatch => "file-watch",
            Self::FilePoll => "file-poll",
            Self::FileBlocking => "file-blocking",
            Self::AsyncFdLock => "async-fd-lock",
            Self::FdLock => "fd-lock",
            Self::Fs2 => "fs2-backoff",
            Self::Tokio => "tokio-mutex",
            Self::RwMixed => "rwlock",
            Self::RwReads => "rwlock-read",
            Self::TokioRw => "tokio-rwlock",
            Self::FlockShared => "flock-shared",
            Self::Pool => "semaphore",
            Self::TokioPool => "tokio-semaphore",
            Self::PipeThread => "pipe-thread",
            Self::PipeTask => "pipe-task",
            Self::EventTask => "event-task",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One contender for a lock. If a lock fails, the round ends with a panic, because there is nothing
/// to measure.
pub(crate) trait Subject: Sized + Send + Sync + 'static {
    type Guard: Send + 'static;

    /// Whether other processes are not excluded.
    const IN_PROCESS: bool = false;

    fn open(path: &Path) -> Self;

    /// A contender of this process for the same lock.
    fn another(&self) -> Self;

    fn acquire(&mut self) -> impl Future<Output = Self::Guard> + Send;

    fn release(&mut self, guard: Self::Guard);
}

/// [`FifoLock`] with its default options.
pub(crate) struct Stanchion(FifoLock);

impl Subject for Stanchion {
    type Guard = FifoGuard;

    fn open(path: &Path) -> Self {
        Self(FifoLock::open(path).expect("open"))
    }

    fn another(&self) -> Self {
        Self(self.0.clone())
    }

    async fn acquire(&mut self) -> FifoGuard {
        self.0.acquire().await.expect("acquire")
    }

    fn release(&mut self, guard: FifoGuard) {
        drop(guard);
    }
}

/// The difference between the three ways to wait.
pub(crate) trait Way: Send + Sync + 'static {
    fn wait() -> Wait;
}

pub(crate) struct Watched;
pub(crate) struct Polled;
pub(crate) struct Blocked;

impl Way for Watched {
    fn wait() -> Wait {
        Wait::Watch
    }
}

impl Way for Polled {
    fn wait() -> Wait {
        Wait::Poll(Backoff::default())
    }
}

impl Way for Blocked {
    fn wait() -> Wait {
        Wait::Blocking
    }
}

/// [`FileLock`] with one of its ways to wait.
pub(crate) struct Plain<W>(FileLock, PhantomData<W>);

impl<W: Way> Subject for Plain<W> {
    type Guard = FileGuard;

    fn open(path: &Path) -> Self {
        let lock = FileLock::options().wait(W::wait()).open(path);
        Self(lock.expect("open"), PhantomData)
    }

    fn another(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }

    async fn acquire(&mut self) -> FileGuard {
        self.0.acquire().await.expect("acquire")
    }

    fn release(&mut self, guard: FileGuard) {
        drop(guard);
    }
}

pub(crate) fn lock_file(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    options.open(path).expect("open the lock file")
}

/// `async-fd-lock`: its future takes the file, and its release gives the file back.
pub(crate) struct AsyncFdLock {
    path: PathBuf,
    /// Absent while locked, and after a future was dropped.
    file: Option<tokio::fs::File>,
}

impl Subject for AsyncFdLock {
    type Guard = RwLockWriteGuard<tokio::fs::File>;

    fn open(path: &Path) -> Self {
        let file = Some(lock_file(path).into());
        let path = path.to_path_buf();
        Self { path, file }
    }

    fn another(&self) -> Self {
        Self::open(&self.path)
    }

    async fn acquire(&mut self) -> Self::Guard {
        let file = self.file.take();
        let file = file.unwrap_or_else(|| lock_file(&self.path).into());
        file.lock_write().await.expect("lock_write")
    }

    fn release(&mut self, guard: Self::Guard) {
        self.file = Some(guard.release().expect("release"));
    }
}

/// `fd-lock` in `spawn_blocking`.
///
/// Its guard borrows the lock and cannot leave the blocking thread. So the thread forgets the
/// guard, and the lock stays held. The release locks the held lock once more, which is one short
/// system call, and drops that guard to unlock.
pub(crate) struct FdLock {
    path: PathBuf,
    lock: Option<fd_lock::RwLock<File>>,
}

impl Subject for FdLock {
    type Guard = fd_lock::RwLock<File>;

    fn open(path: &Path) -> Self {
        let lock = Some(fd_lock::RwLock::new(lock_file(path)));
        let path = path.to_path_buf();
        Self { path, lock }
    }

    fn another(&self) -> Self {
        Self::open(&self.path)
    }

    async fn acquire(&mut self) -> Self::Guard {
        let lock = self.lock.take();
        let mut lock = lock.unwrap_or_else(|| fd_lock::RwLock::new(lock_file(&self.path)));
        let locked = tokio::task::spawn_blocking(move || {
            std::mem::forget(lock.write().expect("write"));
            lock
        });
        locked.await.expect("the blocking thread")
    }

    fn release(&mut self, mut guard: Self::Guard) {
        drop(guard.try_write().expect("the lock is held"));
        self.lock = Some(guard);
    }
}

/// The try-lock of `fs2`, with the usual way to wait for it: sleep, double, try again.
pub(crate) struct Fs2 {
    path: PathBuf,
    file: File,
}

impl Subject for Fs2 {
    type Guard = ();

    fn open(path: &Path) -> Self {
        let file = lock_file(path);
        let path = path.to_path_buf();
        Self { path, file }
    }

    fn another(&self) -> Self {
        Self::open(&self.path)
    }

    async fn acquire(&mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
        while let Err(error) = fs2::FileExt::try_lock_exclusive(&self.file) {
            let held = fs2::lock_contended_error().kind();
            assert_eq!(error.kind(), held, "try_lock_exclusive: {error}");
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    fn release(&mut self, (): ()) {
        fs2::FileExt::unlock(&self.file).expect("unlock");
    }
}

/// [`tokio::sync::Mutex`]: what a fair lock costs that excludes only tasks.
pub(crate) struct Tokio(Arc<Mutex<()>>);

impl Subject for Tokio {
    type Guard = OwnedMutexGuard<()>;

    const IN_PROCESS: bool = true;

    fn open(_path: &Path) -> Self {
        Self(Arc::default())
    }

    fn another(&self) -> Self {
        Self(self.0.clone())
    }

    async fn acquire(&mut self) -> Self::Guard {
        self.0.clone().lock_owned().await
    }

    fn release(&mut self, guard: Self::Guard) {
        drop(guard);
    }
}
