//! The locks that allow several holders, behind the same trait: reader-writer locks and semaphores.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stanchion::{FifoPermit, FifoReadGuard, FifoRwLock, FifoSemaphore, FifoWriteGuard};
use tokio::sync::{
    OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore,
};

use crate::subject::{Subject, lock_file};

/// One in so many acquires of a mixed contender writes.
const WRITES: u64 = 5;
/// Permits of the semaphores.
const PERMITS: u32 = 3;

/// Either guard of a reader-writer lock.
#[allow(dead_code)] // held, not read
pub(crate) enum Either<R, W> {
    Reads(R),
    Writes(W),
}

/// [`FifoRwLock`]. Each contender alternates between reading and writing, or only reads.
pub(crate) struct Rw<const MIXED: bool> {
    lock: FifoRwLock,
    turn: u64,
}

impl<const MIXED: bool> Subject for Rw<MIXED> {
    type Guard = Either<FifoReadGuard, FifoWriteGuard>;

    fn open(path: &Path) -> Self {
        let lock = FifoRwLock::open(path).expect("open");
        Self { lock, turn: 0 }
    }

    fn another(&self) -> Self {
        let lock = self.lock.clone();
        Self { lock, turn: 0 }
    }

    async fn acquire(&mut self) -> Self::Guard {
        self.turn += 1;
        match MIXED && self.turn.is_multiple_of(WRITES) {
            true => Either::Writes(self.lock.write().await.expect("write")),
            false => Either::Reads(self.lock.read().await.expect("read")),
        }
    }

    fn release(&mut self, guard: Self::Guard) {
        drop(guard);
    }
}

/// [`tokio::sync::RwLock`], mixed likewise.
pub(crate) struct TokioRw {
    lock: Arc<RwLock<()>>,
    turn: u64,
}

impl Subject for TokioRw {
    type Guard = Either<OwnedRwLockReadGuard<()>, OwnedRwLockWriteGuard<()>>;

    const IN_PROCESS: bool = true;

    fn open(_path: &Path) -> Self {
        let lock = Arc::default();
        Self { lock, turn: 0 }
    }

    fn another(&self) -> Self {
        let lock = self.lock.clone();
        Self { lock, turn: 0 }
    }

    async fn acquire(&mut self) -> Self::Guard {
        self.turn += 1;
        let lock = self.lock.clone();
        match self.turn.is_multiple_of(WRITES) {
            true => Either::Writes(lock.write_owned().await),
            false => Either::Reads(lock.read_owned().await),
        }
    }

    fn release(&mut self, guard: Self::Guard) {
        drop(guard);
    }
}

/// `flock(LOCK_SH)` on a file that is opened each time, as a fair reader opens it.
pub(crate) struct FlockShared(PathBuf);

impl Subject for FlockShared {
    type Guard = File;

    fn open(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    fn another(&self) -> Self {
        Self(self.0.clone())
    }

    async fn acquire(&mut self) -> File {
        let file = lock_file(&self.0);
        fs2::FileExt::try_lock_shared(&file).expect("there is no writer");
        file
    }

    fn release(&mut self, file: File) {
        fs2::FileExt::unlock(&file).expect("unlock");
    }
}

/// [`FifoSemaphore`].
pub(crate) struct Pool(FifoSemaphore);

impl Subject for Pool {
    type Guard = FifoPermit;

    fn open(path: &Path) -> Self {
        let directory = path.parent().expect("a directory");
        let name = path.file_name().and_then(|it| it.to_str()).expect("a name");
        Self(FifoSemaphore::open(directory, name, PERMITS).expect("open"))
    }

    fn another(&self) -> Self {
        Self(self.0.clone())
    }

    async fn acquire(&mut self) -> FifoPermit {
        self.0.acquire().await.expect("acquire")
    }

    fn release(&mut self, guard: FifoPermit) {
        drop(guard);
    }
}

/// [`tokio::sync::Semaphore`].
pub(crate) struct TokioPool(Arc<Semaphore>);

impl Subject for TokioPool {
    type Guard = OwnedSemaphorePermit;

    const IN_PROCESS: bool = true;

    fn open(_path: &Path) -> Self {
        Self(Arc::new(Semaphore::new(PERMITS as usize)))
    }

    fn another(&self) -> Self {
        Self(self.0.clone())
    }

    async fn acquire(&mut self) -> OwnedSemaphorePermit {
        let semaphore = self.0.clone();
        semaphore.acquire_owned().await.expect("never closed")
    }

    fn release(&mut self, guard: OwnedSemaphorePermit) {
        drop(guard);
    }
}
