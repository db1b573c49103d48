//! A child program that forks by itself, in a state that it has made before. Its last line is `well`.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::FutureExt as _;
use stanchion::{AtomicFile, ErrorKind, FileLock, Locks, Memory, PidLock, Reentrant};
use tokio::io::AsyncWriteExt;

use crate::crew::child::{limit_files, path, say, variable};
use crate::crew::until;
use crate::taker::fork::status_of_a_copy;

/// How many copies meet the threads of their parent.
const COPIES: usize = 300;

pub(crate) fn main() {
    let path = path("FORKS_PATH");
    match &*variable("FORKS_WHAT") {
        "commit" => after_a_commit(&path),
        "draft" => with_a_draft(&path),
        "full" => without_a_free_descriptor(&path),
        "memory" => locks_in_memory(),
        "storm" => mutexes_of_memory(),
        "wrappers" => mutexes_around_locks(&path),
        other => panic!("{other}?"),
    }
    say("well");
}

/// Forks. Runs this in the child, and asserts that it ends well. A child that hangs is killed.
#[track_caller]
fn in_a_copy(work: impl FnOnce()) {
    let status = status_of_a_copy(work);
    assert_eq!(status, 0, "the copy did not end well");
}

/// The open files under this path, by number.
fn numbers_of(path: &Path) -> Vec<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd");
    let found = entries.filter_map(|it| {
        let entry = it.expect("an entry");
        let target = std::fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        target.starts_with(path).then_some(number)
    });
    found.collect()
}

/// The inode of what is open under this number.
fn inode_of(number: RawFd) -> u64 {
    let path = format!("/proc/self/fd/{number}");
    std::fs::metadata(path).expect("an open file").ino()
}

/// Opens a file under this number, which is free.
fn open_under(number: RawFd) -> Vec<File> {
    let mut files = Vec::new();
    while files.last().map(File::as_raw_fd) != Some(number) {
        // Each one gets the lowest free number.
        files.push(File::open("/proc/self/exe").expect("this program"));
    }
    files
}

fn after_a_commit(path: &Path) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let directory = path.parent().expect("a directory");
    runtime.block_on(async {
        let mut file = AtomicFile::create(path).await.expect("a file");
        file.write_all(b"x").await.expect("written");
        file.flush().await.expect("written");
        let numbers = numbers_of(directory);
        let [number] = numbers[..] else {
            panic!("{numbers:?}")
        };
        let mut commit = Box::pin(file.commit());
        assert!(futures::poll!(&mut commit).is_pending());
        until("the pool has closed it", || {
            path.exists() && numbers_of(directory).is_empty()
        });
        let other = open_under(number);
        let expected = inode_of(number);
        in_a_copy(|| assert_eq!(inode_of(number), expected));
        drop(other);
        commit.await.expect("in place");
    });
}

/// No file is at the path. So a child that commits sets no rights of its `/dev/null`.
fn with_a_draft(path: &Path) {
    let runtime = || tokio::runtime::Builder::new_current_thread().build();
    let of_parent = runtime().expect("a runtime");
    let mut file = of_parent.block_on(async {
        let mut file = AtomicFile::create(path).await.expect("a file");
        file.write_all(b"whole").await.expect("written");
        file.flush().await.expect("written");
        Some(file)
    });
    in_a_copy(|| {
        let mut file = file.take().expect("the copy of the file");
        runtime().expect("a runtime").block_on(async move {
            let error = file.write_all(b"x").await.expect_err("the parent's");
            assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
            let error = file.flush().await.expect_err("the parent's");
            assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
            let error = file.commit().await.expect_err("the parent's");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        });
    });
    assert!(!path.exists());
    let file = file.expect("the parent's");
    of_parent.block_on(file.commit()).expect("in place");
    assert_eq!(std::fs::read(path).expect("a file"), b"whole");
}

fn without_a_free_descriptor(path: &Path) {
    let lock = FileLock::open(path).expect("a lock");
    let mut guard = lock.try_acquire().expect("a try");
    assert!(guard.is_some());
    limit_files(64);
    let mut files = Vec::new();
    while let Ok(file) = File::open("/proc/self/exe") {
        files.push(file);
    }
    in_a_copy(|| {
        // If the number of the lock is free, this takes it.
        drop(files.pop());
        let own = File::open("/proc/self/exe").expect("one is free");
        drop(guard.take());
        own.metadata().expect("it is still open");
    });
    drop(files);
    assert!(lock.try_acquire().expect("a try").is_none());
}

fn window(milliseconds: u64) -> Memory {
    let window = Duration::from_millis(milliseconds);
    Memory::options().claim_window(window).build()
}

/// Releases a lock while a future waits that is not polled. Returns when it is bypassed, with
/// `ends`.
fn bypass(memory: &Memory, ends: bool) {
    let lock = memory.lock("bypass").expect("a lock");
    let guard = lock.try_acquire().expect("no error").expect("free");
    let mut frozen = Box::pin(lock.acquire());
    let mut context = Context::from_waker(Waker::noop());
    assert!(frozen.as_mut().poll(&mut context).is_pending());
    drop(guard);
    if ends {
        let is_free = || lock.try_acquire().expect("no error").is_some();
        until("it is bypassed", is_free);
    } else {
        std::mem::forget(frozen);
    }
}

fn locks_in_memory() {
    PidLock::set_defaults(PidLock::options().timeout(Duration::from_secs(5)));
    let shared = Memory::named("shared");
    let lock = shared.lock("a").expect("a lock");
    let permits = shared.semaphore("p", 3).expect("a semaphore");
    let mut guard = lock.try_acquire().expect("no error");
    let mut two = permits.try_acquire_many(2).expect("no error");
    let mut wait = Some(Box::pin(lock.acquire()));
    let mut context = Context::from_waker(Waker::noop());
    let mut poll = |it: &mut Option<std::pin::Pin<Box<_>>>| {
        let wait: &mut std::pin::Pin<Box<stanchion::Acquire<_>>> = it.as_mut().expect("there");
        wait.as_mut().poll(&mut context)
    };
    assert!(poll(&mut wait).is_pending());
    // From here on the parent has a thread for claim windows. The child has none.
    let long = window(600_000);
    bypass(&long, false);
    in_a_copy(|| {
        let refused = |error: stanchion::Error| assert_eq!(error.kind(), ErrorKind::Unsupported);
        refused(lock.try_acquire().expect_err("the parent's"));
        refused(shared.lock("b").expect_err("the parent's"));
        refused(lock.status().expect_err("the parent's"));
        refused(permits.available().expect_err("the parent's"));
        match poll(&mut wait) {
            std::task::Poll::Ready(polled) => refused(polled.expect_err("the parent's")),
            std::task::Poll::Pending => panic!("it waits for its parent"),
        }
        let held = two.as_mut().expect("two permits");
        refused(held.split(1).expect_err("the parent's"));
        assert!(!guard.as_ref().expect("held").is_held());
        drop((guard.take(), two.take(), wait.take()));
        // A name means another world here, and claim windows end.
        let own = Memory::named("shared");
        let own = own.lock("a").expect("a lock").try_acquire();
        assert!(own.expect("no error").is_some());
        bypass(&window(50), true);
        assert_eq!(PidLock::defaults().timeout, Some(Duration::from_secs(5)));
    });
    assert!(guard.as_ref().is_some_and(stanchion::MemGuard::is_held));
    assert!(lock.try_acquire().expect("no error").is_none());
    assert_eq!(permits.available().expect("no error"), 1);
    drop((guard, wait));
    assert!(lock.try_acquire().expect("no error").is_some());
}

/// A thread of the parent uses a re-entrant lock, its guard and `Locks` all the time.
fn mutexes_around_locks(path: &Path) {
    let open =
        |name: &str| Reentrant::new(FileLock::open(path.with_extension(name)).expect("a lock"));
    let (kept, busy) = (open("kept"), open("busy"));
    let guard = kept.acquire().block().expect("free");
    let url = format!("file://{}", path.display());
    let connected = Locks::connect(url).now_or_never().expect("no wait");
    let locks = connected.expect("locks in a directory");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(guard.is_held());
                drop(busy.try_acquire().now_or_never());
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                locks.close();
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..COPIES {
                in_a_copy(|| {
                    assert!(!guard.is_held());
                    assert!(guard.lend().is_none());
                    assert!(guard.lost().now_or_never().is_none());
                    let tried = busy.try_acquire().now_or_never().expect("no wait");
                    drop(tried.expect("no error"));
                    locks.close();
                });
            }
        }));
        over.store(true, Ordering::Relaxed);
        ended.expect("all copies end well");
    });
}

fn mutexes_of_memory() {
    let shared = Memory::named("shared");
    let semaphore = shared.semaphore("a", 2).expect("a semaphore");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = |work: &dyn Fn()| {
            while !over.load(Ordering::Relaxed) {
                work();
            }
        };
        scope.spawn(move || {
            busy(&|| drop(Memory::named("other")));
        });
        scope.spawn(move || {
            busy(&|| drop(PidLock::defaults()));
        });
        let semaphore = &semaphore;
        scope.spawn(move || {
            busy(&|| drop(semaphore.try_acquire()));
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..COPIES {
                let mut permit = semaphore.acquire().block().ok();
                in_a_copy(|| {
                    drop(permit.take());
                    drop(PidLock::defaults());
                    let other = Memory::named("other").lock("a").expect("a lock");
                    assert!(other.try_acquire().expect("no error").is_some());
                });
            }
        }));
        over.store(true, Ordering::Relaxed);
        ended.expect("all copies end well");
    });
}
