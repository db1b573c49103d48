//! What the suites share: a future polled by hand, a place for locks, and an outsider that holds or
//! waits.
#![allow(dead_code, unused_imports, unused_macros)] // Each test binary uses a part.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use stanchion::{ErrorKind, FifoLock, FifoOptions};

/// Far longer than anything here takes. It only keeps a broken lock from hanging the run.
pub(crate) const SAFETY: Duration = Duration::from_secs(300);

/// The claim window of the suites. A future that a test does not poll keeps its turn, however slow
/// the machine is.
pub(crate) const WINDOW: Duration = Duration::from_secs(3600);

/// The patience of the suites on servers: longer than a slow machine stands still. Clients send a
/// heartbeat in each third of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the value of a future that must be ready.
macro_rules! assert_ready {
    ($polled:expr) => {
        match $polled {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("{} is pending", stringify!($polled)),
        }
    };
}
pub(crate) use assert_ready;

/// Asserts that a future is not ready.
macro_rules! assert_pending {
    ($polled:expr) => {
        match $polled {
            std::task::Poll::Pending => {}
            std::task::Poll::Ready(value) => panic!("{} is {value:?}", stringify!($polled)),
        }
    };
}
pub(crate) use assert_pending;

/// A waker that counts, and that a thread can wait for.
#[derive(Default)]
pub(crate) struct Bell {
    rings: Mutex<usize>,
    rung: Condvar,
}

impl Bell {
    pub(crate) fn rings(&self) -> usize {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until the bell has rung more than `before` times.
    pub(crate) fn wait_beyond(&self, before: usize) {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let (rings, limit) = self
            .rung
            .wait_timeout_while(rings, SAFETY, |rings| *rings <= before)
            .unwrap_or_else(PoisonError::into_inner);
        drop(rings);
        assert!(!limit.timed_out(), "no wake-up came");
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.rung.notify_all();
    }
}

/// A future that is polled by hand only.
pub(crate) struct Polled<F> {
    future: Pin<Box<F>>,
    pub(crate) bell: Arc<Bell>,
}

impl<F: Future> Polled<F> {
    pub(crate) fn new(future: F) -> Self {
        let (future, bell) = (Box::pin(future), Arc::default());
        Self { future, bell }
    }

    /// Polls once, and asserts that it must wait.
    #[track_caller]
    pub(crate) fn pending(future: F) -> Self {
        let mut polled = Self::new(future);
        assert!(polled.poll().is_pending(), "ready at the first poll");
        polled
    }

    pub(crate) fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(self.bell.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Polls with another waker than its own.
    pub(crate) fn poll_with(&mut self, waker: &Waker) -> Poll<F::Output> {
        self.future.as_mut().poll(&mut Context::from_waker(waker))
    }

    pub(crate) fn future(&self) -> &F {
        &self.future
    }

    pub(crate) fn rings(&self) -> usize {
        self.bell.rings()
    }

    /// Polls whenever the bell rings, until the future is ready.
    pub(crate) fn finish(&mut self) -> F::Output {
        let begun = Instant::now();
        loop {
            let before = self.rings();
            if let Poll::Ready(output) = self.poll() {
                return output;
            }
            assert!(begun.elapsed() < SAFETY, "never ready");
            self.bell.wait_beyond(before);
        }
    }
}

/// Checks a condition again and again, and yields in between, until it is true.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SAFETY, "never came: {what}");
        std::thread::yield_now();
    }
}

/// Runs a future on its own runtime with several threads.
pub(crate) fn in_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(SAFETY, future)
            .await
            .expect("the test hangs")
    })
}

/// A directory with one lock in it.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory().join("a.lock")
    }

    pub(crate) fn queue(&self) -> PathBuf {
        self.directory().join("a.lock.queue")
    }

    /// Other names of the lock file.
    pub(crate) fn other_names(&self) -> [PathBuf; 4] {
        let directory = self.directory();
        let deep = directory.join("deep");
        std::fs::create_dir_all(&deep).expect("a directory");
        let link = directory_link(directory);
        let again = if cfg!(unix) {
            link.join("link")
        } else {
            link.join("DEEP/..")
        };
        [
            directory.join(".").join("a.lock"),
            deep.join("..").join("a.lock"),
            link.join("a.lock"),
            again.join("deep/../a.lock"),
        ]
    }

    pub(crate) fn open(&self) -> FifoLock {
        self.open_with(FifoLock::options())
    }

    pub(crate) fn open_with(&self, options: FifoOptions) -> FifoLock {
        options.open(self.path()).expect("a lock")
    }

    /// The tickets in the queue on disk, in order.
    pub(crate) fn tickets(&self) -> Vec<String> {
        let names = file_names(&self.queue());
        let is_ticket = |name: &String| name.starts_with(|it: char| it.is_ascii_digit());
        names.into_iter().filter(is_ticket).collect()
    }

    /// The names of all files.
    pub(crate) fn footprint(&self) -> BTreeSet<String> {
        let mut names = file_names(self.directory());
        for name in file_names(&self.queue()) {
            names.insert(format!("queue/{name}"));
        }
        names
    }

    /// How many descriptors of this process refer to files in here, deleted or not.
    pub(crate) fn descriptors(&self) -> usize {
        open_files()
            .iter()
            .filter(|target| target.starts_with(self.directory()))
            .count()
    }

    /// A holder that ignores the queue.
    pub(crate) fn outsider_holds(&self) -> Outsider {
        Outsider::locks(&self.path())
    }

    /// A waiter of another process: its ticket, locked.
    pub(crate) fn outsider_waits(&self, number: u64) -> Outsider {
        std::fs::create_dir_all(self.queue()).expect("the queue directory");
        Outsider::locks(&self.ticket(number))
    }

    /// The same, for this many permits.
    pub(crate) fn outsider_waits_for(&self, number: u64, permits: u32) -> Outsider {
        std::fs::create_dir_all(self.queue()).expect("the queue directory");
        Outsider::locks(&self.queue().join(format!("{number:020}.p{permits}")))
    }

    /// The same, for a reader.
    pub(crate) fn outsider_waits_to_read(&self, number: u64) -> Outsider {
        std::fs::create_dir_all(self.queue()).expect("the queue directory");
        Outsider::locks(&self.queue().join(format!("{number:020}.s")))
    }

    /// What a killed waiter leaves behind.
    pub(crate) fn outsider_died_waiting(&self, number: u64) {
        std::fs::create_dir_all(self.queue()).expect("the queue directory");
        drop(open_file(&self.ticket(number)));
    }

    /// The same, for a waiter whose ticket's file was to be used again: the file has a second name.
    #[cfg(unix)]
    pub(crate) fn outsider_died_waiting_with_a_spare(&self, number: u64) {
        use std::os::unix::fs::MetadataExt;
        self.outsider_died_waiting(number);
        let ticket = self.ticket(number);
        let inode = std::fs::metadata(&ticket).expect("there").ino();
        let spare = self.queue().join(format!("spare.{inode}"));
        std::fs::hard_link(ticket, spare).expect("a second name");
    }

    pub(crate) fn ticket(&self, number: u64) -> PathBuf {
        self.queue().join(format!("{number:020}.x"))
    }

    /// Asserts that no wait has left anything: there is no ticket, and the lock is free.
    pub(crate) fn assert_idle(&self) {
        assert_eq!(self.tickets(), Vec::<String>::new(), "tickets are left");
        let lock = self.open();
        let guard = lock.try_acquire().expect("no error");
        assert!(guard.is_some(), "the lock is not free");
    }
}

/// A lock of the operating system on a file, held through a descriptor that the crate does not
/// know.
pub(crate) struct Outsider {
    file: File,
    path: PathBuf,
}

impl Outsider {
    pub(crate) fn locks(path: &Path) -> Self {
        let file = open_file(path);
        fs2::FileExt::try_lock_exclusive(&file).expect("the file is free");
        let path = path.to_path_buf();
        Self { file, path }
    }

    /// Unlocks, then closes.
    pub(crate) fn release(self) {
        fs2::FileExt::unlock(&self.file).expect("unlocked");
    }

    /// Deletes its ticket, then unlocks and closes.
    pub(crate) fn leaves_the_queue(self) {
        std::fs::remove_file(&self.path).expect("its ticket is there");
        self.release();
    }
}

fn open_file(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).expect("the file opens")
}

/// Returns another name of this directory: a link in it. Not every user may make one on Windows,
/// which has other names without links.
fn directory_link(directory: &Path) -> PathBuf {
    #[cfg(unix)]
    {
        let link = directory.join("link");
        std::os::unix::fs::symlink(".", &link).expect("a link");
        link
    }
    #[cfg(not(unix))]
    directory.join("DEEP").join("..")
}

/// Returns the URL of a directory: `file:///run/app`, or `file:///C:/app` on Windows.
pub(crate) fn url_of(directory: &Path) -> String {
    let path = directory.display().to_string().replace('\\', "/");
    format!("file:///{}", path.trim_start_matches('/'))
}

fn file_names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return BTreeSet::new();
    };
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("a plain name"))
        .collect()
}

/// The targets of this process's descriptors. Only Linux tells.
pub(crate) fn open_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd");
    assert!(entries.is_ok() || !cfg!(any(target_os = "linux", target_os = "android")));
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .collect()
}

/// Returns the kind of the error that a call must have returned.
pub(crate) fn kind_of<T>(result: stanchion::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it went well"),
        Err(error) => error.kind(),
    }
}

/// xorshift64: the same numbers for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}
