//! What the child program does with `fork`: `fork WHAT` makes a copy of the process that does WHAT
//! and reports on the shared output.
//!
//! | command | what the copy does |
//! |---|---|
//! | `keep` (no fork) | the program takes the lock at once and keeps the guard: `kept token` or `none` |
//! | `let-go` (no fork) | releases that guard: `let-go` or `let-go kind` |
//! | `fork stay` | `forked pid`, then it sleeps until it is killed |
//! | `fork drop` | drops its copy of the guard: `dropped`, then it ends |
//! | `fork end` | ends at once by `_exit`: `ended` |
//! | `fork old` | uses its copy of the handle: `old kind` |
//! | `fork try` | opens the lock again and tries: `none`, or `got token` |
//! | `fork take` | opens the lock again and queues: `waiting`, then `got token` |
//! | `fork list` | one `file target` for each descriptor, then `listed` |
//! | `forks-with-permits` | many copies, while a thread has the mutex of a semaphore: each uses its copy of a permit. `all ended` |
//! | `forks-in-waits` | many copies, while threads wait for a plain lock: each drops the wait of its parent, and ends one of its own by `close`. `all ended` |

#![allow(unsafe_code)]

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::FutureExt as _;
use stanchion::{ErrorKind, FifoGuard, FifoLock, FifoPermit, FifoSemaphore, FileLock};

use crate::crew::child::say;

pub(super) fn act(words: &[&str], lock: &FifoLock, kept: &mut Option<FifoGuard>) {
    match words {
        ["keep"] => {
            *kept = lock.try_acquire().expect("a try");
            match kept {
                Some(guard) => say(format_args!("kept {}", guard.token())),
                None => say("none"),
            }
        }
        ["let-go"] => match kept.take().map(release) {
            Some(Ok(())) => say("let-go"),
            other => say(format_args!("let-go {other:?}")),
        },
        ["fork", what] => in_a_copy(what, lock, kept),
        ["forks-in-waits"] => forks_in_waits(&lock.path().with_extension("plain")),
        ["forks-with-permits"] => {
            let home = lock.path().parent().expect("a directory");
            forks_with_permits(&FifoSemaphore::open(home, "pool", 2).expect("a semaphore"));
        }
        _ => panic!("no such command: {words:?}"),
    }
}

fn release(guard: FifoGuard) -> stanchion::Result<()> {
    let mut released = std::pin::pin!(guard.release());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match released.as_mut().poll(&mut context) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("a release never waits"),
    }
}

fn in_a_copy(what: &str, lock: &FifoLock, kept: &mut Option<FifoGuard>) {
    // SAFETY: the child continues with this one thread and ends by `_exit`. The C library makes
    // `malloc` usable in it.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid != 0 {
        return;
    }
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| copy(what, lock, kept)));
    if done.is_err() {
        say("the copy panicked");
    }
    // SAFETY: ends the process without running the parent's destructors.
    unsafe { libc::_exit(0) };
}

fn copy(what: &str, lock: &FifoLock, kept: &mut Option<FifoGuard>) {
    match what {
        "stay" => {
            say(format_args!("forked {}", std::process::id()));
            std::thread::sleep(Duration::from_secs(60));
        }
        "drop" => {
            drop(kept.take());
            say("dropped");
        }
        "end" => say("ended"),
        "old" => match lock.try_acquire() {
            Ok(guard) => say(format_args!("old {guard:?}")),
            Err(error) => say(format_args!("old {:?} {error}", error.kind())),
        },
        "try" => match anew(lock).try_acquire().expect("a try") {
            Some(guard) => say(format_args!("got {}", guard.token())),
            None => say("none"),
        },
        "take" => {
            let lock = anew(lock);
            say("waiting");
            // On its own thread, because this one is inside the parent's runtime.
            let taken = std::thread::spawn(move || lock.acquire().block());
            let guard = taken.join().expect("a thread").expect("the lock");
            say(format_args!("got {}", guard.token()));
        }
        "list" => list(),
        _ => panic!("no such copy: {what}"),
    }
}

/// How many copies. Each one meets another moment of the threads.
const COPIES: usize = 400;

/// A wake-up that is remembered.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn forks_in_waits(path: &Path) {
    let lock = FileLock::open(path).expect("a lock");
    let held = lock.try_acquire().expect("a try").expect("free");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut wait = pin!(lock.acquire());
                while !over.load(Ordering::SeqCst) {
                    // Another waker each time.
                    let waker = Waker::from(Arc::new(Woken::default()));
                    assert!(
                        wait.as_mut()
                            .poll(&mut Context::from_waker(&waker))
                            .is_pending()
                    );
                }
            });
        }
        for copy in 0..COPIES {
            let ended = copy_with_a_wait(&lock);
            if ended != 0 {
                over.store(true, Ordering::SeqCst);
                say(format_args!("copy {copy} ended with status {ended}"));
                return;
            }
        }
        over.store(true, Ordering::SeqCst);
        say("all ended");
    });
    drop(held);
}

fn copy_with_a_wait(lock: &FileLock) -> i32 {
    let mut wait = Box::pin(lock.acquire());
    let mut context = Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    status_of_a_copy(|| {
        drop(wait);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut own = pin!(lock.acquire());
        assert!(
            own.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        lock.close();
        assert!(woken.0.load(Ordering::SeqCst), "closed");
    })
}

fn forks_with_permits(semaphore: &FifoSemaphore) {
    let over = AtomicBool::new(false);
    let take = || {
        let taken = semaphore.try_acquire().expect("a try");
        taken.expect("a free permit")
    };
    // So the thread never gets two.
    let kept = take();
    std::thread::scope(|scope| {
        let hammer = semaphore.clone();
        scope.spawn(|| {
            let semaphore = hammer;
            while !over.load(Ordering::SeqCst) {
                // Each try lists the queue under the mutex.
                let _ = semaphore.try_acquire_many(2);
            }
        });
        for copy in 0..COPIES {
            let permit = take();
            let changes = semaphore.changes();
            let ended = status_of_a_copy(|| use_permit(semaphore, permit, changes));
            if ended != 0 {
                over.store(true, Ordering::SeqCst);
                say(format_args!("copy {copy} ended with status {ended}"));
                return;
            }
        }
        over.store(true, Ordering::SeqCst);
        say("all ended");
    });
    drop(kept);
}

/// What a copy of the process does with its copy of a permit: nothing works, and nothing hangs.
fn use_permit(semaphore: &FifoSemaphore, permit: FifoPermit, changes: stanchion::Changes) {
    assert_eq!(semaphore.limit(), 2);
    assert_eq!(permit.slot_paths().len(), 1);
    assert!(!permit.is_held());
    assert!(permit.lost().now_or_never().is_none());
    for mut changes in [changes, semaphore.changes()] {
        let look = changes.next().now_or_never().flatten();
        let error = look.expect("an answer").expect_err("it is the parent's");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    let released = permit.release().now_or_never().expect("no wait");
    let error = released.expect_err("it is the parent's");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// Returns the status with which a copy of the process ended that did this. A copy that hangs is
/// killed by a signal.
pub(crate) fn status_of_a_copy(work: impl FnOnce()) -> i32 {
    // SAFETY: as in `in_a_copy`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        // SAFETY: a plain system call.
        unsafe { libc::alarm(20) };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: as in `in_a_copy`.
        unsafe { libc::_exit(i32::from(done.is_err())) };
    }
    let mut status = 0;
    // SAFETY: waits for the child, with a pointer to a local.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

fn anew(lock: &FifoLock) -> FifoLock {
    FifoLock::open(lock.path()).expect("the lock, opened in the copy")
}

fn list() {
    for entry in std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd") {
        let entry = entry.expect("an entry");
        if let Ok(target) = std::fs::read_link(entry.path()) {
            say(format_args!("file {}", target.display()));
        }
    }
    say("listed");
}
