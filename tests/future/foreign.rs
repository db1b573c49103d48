//! Wakers that panic when they are called, dropped or cloned, and wakers that call the crate: only
//! their own task is affected.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, RawWaker, RawWakerVTable, Wake};

use super::*;
use crate::crew::child::say;
#[cfg(stanchion_test)]
use crate::crew::{last_words, program};
use stanchion::{FifoRwLock, FileLock, LockDir, Memory, Method, PidLock, Reentrant};

/// The forbidden actions of a waker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sin {
    /// Panics when it is called, with a value that panics when it is dropped.
    Wake,
    /// Panics when it is dropped, the same way.
    Drop,
}

const SINS: [Sin; 2] = [Sin::Wake, Sin::Drop];

/// The value of a panic that panics when it is dropped, without end.
struct Chain;

impl Drop for Chain {
    fn drop(&mut self) {
        panic_any(Chain);
    }
}

struct Sinner {
    sin: Sin,
    calls: Arc<AtomicUsize>,
}

impl Wake for Sinner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.sin == Sin::Wake {
            panic_any(Chain);
        }
    }
}

impl Drop for Sinner {
    fn drop(&mut self) {
        if self.sin == Sin::Drop {
            panic_any(Chain);
        }
    }
}

/// Polls once with a waker that only the future keeps. Returns how often it was called.
fn poll_as<F: Future>(sin: Sin, future: &mut Polled<F>) -> (Arc<AtomicUsize>, Poll<F::Output>) {
    let calls = Arc::<AtomicUsize>::default();
    let sinner = Sinner {
        sin,
        calls: calls.clone(),
    };
    let waker = Waker::from(Arc::new(sinner));
    let polled = future.poll_with(&waker);
    // If the future has not kept it, this drop would panic in the test.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(waker))) {
        std::mem::forget(payload);
    }
    (calls, polled)
}

fn waits_as<F: Future>(sin: Sin, future: F) -> (Arc<AtomicUsize>, Polled<F>) {
    let mut future = Polled::new(future);
    let (calls, polled) = poll_as(sin, &mut future);
    assert!(polled.is_pending(), "it has to wait");
    (calls, future)
}

fn called(calls: &AtomicUsize) -> bool {
    calls.load(Ordering::SeqCst) > 0
}

/// The watch still works: an event wakes a waiter without a slow poll. Its ladder ends with the
/// thread that runs it.
fn assert_the_watch_works() {
    let place = Place::new();
    let outsider = place.outsider_holds();
    let lock = place.open_with(options());
    let mut waiter = queued(&lock);
    outsider.release();
    drop(waiter.finish().expect("the watch works"));
}

#[test]
fn one_that_waits_for_an_event_leaves_the_watch_alone() {
    for sin in SINS {
        let place = Place::new();
        let outsider = place.outsider_holds();
        let lock = place.open_with(options());
        let (calls, mut waiter) = waits_as(sin, lock.acquire());
        outsider.release();
        eventually("the call", || called(&calls));
        drop(waiter.finish().expect("the lock all the same"));
        assert_the_watch_works();
        drop(waiter);
        place.assert_idle();
    }
}

#[test]
fn one_that_waits_for_a_file_lock_leaves_the_watch_alone() {
    for sin in SINS {
        let place = Place::new();
        let outsider = place.outsider_holds();
        let options = FileLock::options().poll_interval(Duration::MAX);
        let lock = options.open(place.path()).expect("a lock");
        let (calls, mut waiter) = waits_as(sin, lock.acquire());
        outsider.release();
        eventually("the call", || called(&calls));
        drop(waiter.finish().expect("the lock all the same"));
        assert_the_watch_works();
    }
}

#[test]
fn one_that_waits_for_a_name_leaves_the_watch_alone() {
    for sin in SINS {
        let place = Place::new();
        let lock = PidLock::options().poll_interval(Duration::MAX);
        let lock = lock.open(place.path()).expect("a lock");
        let guard = lock.try_acquire().expect("no error").expect("free");
        let (calls, mut waiter) = waits_as(sin, lock.acquire());
        drop(guard);
        eventually("the call", || called(&calls));
        drop(waiter.finish().expect("the lock all the same"));
        assert_the_watch_works();
    }
}

#[test]
fn a_dropped_wait_releases_what_it_has() {
    for sin in SINS {
        let place = Place::new();
        let outsider = place.outsider_holds();
        let lock = place.open_with(options());
        let (_, waiter) = waits_as(sin, lock.acquire());
        drop(waiter);
        outsider.release();
        place.assert_idle();

        let file = FileLock::open(place.path()).expect("a lock");
        let outsider = place.outsider_holds();
        let (_, waiter) = waits_as(sin, file.acquire());
        drop(waiter);
        outsider.release();
        assert!(file.try_acquire().expect("no error").is_some());
        assert_the_watch_works();
    }
}

#[test]
fn one_that_listens_for_a_loss_leaves_the_watch_alone() {
    for sin in SINS {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let (calls, mut lost) = waits_as(sin, guard.lost());
        let mut other = Polled::pending(guard.lost());
        std::fs::remove_file(place.path()).expect("deleted");
        other.finish();
        // A loss can be seen before the wakers are called.
        eventually("the call", || called(&calls));
        assert!(lost.poll().is_ready());
        drop(guard);

        let file = FileLock::open(place.path()).expect("a lock");
        let guard = file.try_acquire().expect("no error").expect("free");
        let (calls, _lost) = waits_as(sin, guard.lost());
        let mut other = Polled::pending(guard.lost());
        std::fs::remove_file(place.path()).expect("deleted");
        other.finish();
        eventually("the call", || called(&calls));
        assert_the_watch_works();
    }
}

/// Readers of one process are woken together, on the thread of the writer that releases.
#[test]
fn the_wakers_behind_it_are_called_and_the_caller_continues() {
    for sin in SINS {
        let place = Place::new();
        let lock = FifoRwLock::open(place.path()).expect("a lock");
        let writer = lock.try_write().expect("no error").expect("free");
        let (calls, mut first) = waits_as(sin, lock.read());
        let mut others = [Polled::new(lock.read()), Polled::new(lock.read())];
        others
            .iter_mut()
            .for_each(|it| assert!(it.poll().is_pending()));
        drop(writer);
        assert!(called(&calls));
        for mut other in others {
            drop(other.finish().expect("a reader"));
        }
        drop(first.finish().expect("a reader"));
    }
}

#[test]
fn a_memory_lock_continues() {
    for sin in SINS {
        let lock = Memory::new().rwlock("a").expect("a lock");
        let writer = lock.try_write().expect("no error").expect("free");
        let (calls, mut first) = waits_as(sin, lock.read());
        let mut others = [Polled::new(lock.read()), Polled::new(lock.read())];
        others
            .iter_mut()
            .for_each(|it| assert!(it.poll().is_pending()));
        drop(writer);
        assert!(called(&calls));
        for mut other in others {
            drop(other.finish().expect("a reader"));
        }
        drop(first.finish().expect("a reader"));
    }
}

/// The thread that ends claim windows calls the wakers of the waiters behind a frozen one.
#[test]
fn the_clock_of_memory_locks_continues() {
    for sin in SINS {
        let lock = Memory::options()
            .claim_window(WINDOW)
            .build()
            .lock("a")
            .expect("a lock");
        let guard = lock.try_acquire().expect("no error").expect("free");
        let _frozen = Polled::pending(lock.acquire());
        let (calls, mut next) = waits_as(sin, lock.acquire());
        drop(guard);
        eventually("the call", || called(&calls));
        drop(next.finish().expect("past the frozen waiter"));
        // Another lock. The same thread bypasses its frozen waiter.
        let lock = Memory::options()
            .claim_window(WINDOW)
            .build()
            .lock("b")
            .expect("a lock");
        let guard = lock.try_acquire().expect("no error").expect("free");
        let _other = Polled::pending(lock.acquire());
        let mut next = Polled::pending(lock.acquire());
        drop(guard);
        drop(next.finish().expect("past the frozen waiter"));
    }
}

fn claims_of(path: &std::path::Path) -> std::path::PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".claim");
    path.into()
}

/// A claim that is taken away reports its loss on the thread that renews all other claims.
#[test]
fn the_renewal_of_claims_continues() {
    let expire = Duration::from_millis(300);
    for sin in SINS {
        let place = Place::new();
        let take = |name: &str, expire| {
            let options = LockDir::options().method(Method::Mkdir).expire(expire);
            let locks = options.open(place.directory()).expect("a directory");
            let lock = locks.lock(None, name).expect("a lock");
            let guard = assert_ready!(Polled::new(lock.acquire()).poll());
            (guard.expect("free"), lock.path().to_path_buf())
        };
        let (guard, path) = take("a", 10 * expire);
        let (calls, mut lost) = waits_as(sin, guard.lost());
        std::fs::remove_dir_all(claims_of(&path)).expect("deleted");
        eventually("the call", || called(&calls));
        assert!(lost.poll().is_ready());
        drop(guard);

        // On a busy machine, a claim that expires this soon may be lost.
        let mut names = (0..).map(|number| format!("{number}"));
        eventually("another beat", || {
            let (guard, path) = take(&names.next().expect("a name"), expire);
            let before = beats(&path);
            while guard.is_held() && beats(&path) == before {
                std::thread::yield_now();
            }
            guard.is_held()
        });
    }
}

/// What the claims of a lock contain.
fn beats(lock: &std::path::Path) -> Vec<Vec<u8>> {
    let names = std::fs::read_dir(claims_of(lock)).into_iter().flatten();
    let names = names.flatten().map(|it| it.path());
    names.filter_map(|it| std::fs::read(it).ok()).collect()
}

#[test]
fn other_waits_of_a_reentrant_holder_acquire() {
    for sin in SINS {
        let place = Place::new();
        let lock = Reentrant::new(place.open_with(options()));
        let other = stanchion::Holder::new();
        let holder = stanchion::Holder::new();
        let guard = Polled::new(lock.acquire_as(&other)).poll();
        let guard = assert_ready!(guard).expect("free");
        let mut winner = Polled::pending(lock.acquire_as(&holder));
        let (calls, mut second) = waits_as(sin, lock.acquire_as(&holder));
        let mut third = Polled::pending(lock.acquire_as(&holder));
        drop(guard);
        let inside = winner.finish().expect("its turn");
        assert!(called(&calls));
        drop(third.finish().expect("the same holder"));
        drop(second.finish().expect("the same holder"));
        drop(inside);
    }
}

#[test]
fn an_observer_leaves_the_watch_alone() {
    for sin in SINS {
        let place = Place::new();
        let lock = place.open_with(options());
        let mut line = lock.changes();
        let mut first = Polled::new(line.next());
        assert!(first.poll().is_ready());
        drop(first);
        let (calls, next) = waits_as(sin, line.next());
        let guard = held(&lock);
        eventually("the call", || called(&calls));
        drop((guard, next));
        drop(line);
        assert_the_watch_works();
    }
}

/// A panic of a clone reaches the task that is polled, and no other.
mod clone {
    use super::*;

    /// Whether clones panic.
    static PANICS: AtomicBool = AtomicBool::new(false);

    const TABLE: RawWakerVTable = RawWakerVTable::new(
        |_| {
            assert!(!PANICS.load(Ordering::SeqCst), "a clone that panics");
            RAW
        },
        |_| {},
        |_| {},
        |_| {},
    );
    const RAW: RawWaker = RawWaker::new(std::ptr::null(), &TABLE);

    fn polls<F: Future>(future: &mut Polled<F>) {
        #[allow(unsafe_code)]
        // SAFETY: the functions of the table use no data at all.
        let waker = unsafe { Waker::from_raw(RAW) };
        PANICS.store(true, Ordering::SeqCst);
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll_with(&waker).is_ready()));
        PANICS.store(false, Ordering::SeqCst);
        assert!(!polled.unwrap_or(false), "it has to wait");
    }

    #[test]
    fn leaves_no_queue_entry() {
        let place = Place::new();
        let outsider = place.outsider_holds();
        let lock = place.open_with(options());
        let mut first = Polled::new(lock.acquire());
        polls(&mut first);
        drop(first);
        assert_eq!(place.tickets(), Vec::<String>::new());
        let mut second = queued(&lock);
        polls(&mut second);
        outsider.release();
        drop(second.finish().expect("its turn"));
        place.assert_idle();

        let memory = Memory::new().lock("a").expect("a lock");
        let guard = memory.try_acquire().expect("no error").expect("free");
        polls(&mut Polled::new(memory.acquire()));
        drop(guard);
        assert!(memory.try_acquire().expect("no error").is_some());
    }
}

/// Calls the crate wherever a waker is called, cloned or dropped. The crate must hold no mutex
/// then.
mod callback {
    use super::*;

    struct Caller {
        lock: FifoLock,
        calls: AtomicUsize,
    }

    impl Caller {
        fn call(&self) {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let _ = self.lock.status();
            let _ = self.lock.is_locked();
            drop(Polled::new(self.lock.acquire().max_waiting(0)).poll());
        }
    }

    /// Clones as a caller does, and their drops too.
    static CALLER: Mutex<Option<Arc<Caller>>> = Mutex::new(None);

    fn call() {
        let caller = CALLER.lock().expect("no panic").clone();
        caller.iter().for_each(|it| it.call());
    }

    const TABLE: RawWakerVTable = RawWakerVTable::new(
        |_| {
            call();
            RAW
        },
        |_| call(),
        |_| call(),
        |_| call(),
    );
    const RAW: RawWaker = RawWaker::new(std::ptr::null(), &TABLE);

    fn waker() -> Waker {
        #[allow(unsafe_code)]
        // SAFETY: the functions of the table use only shared data.
        unsafe {
            Waker::from_raw(RAW)
        }
    }

    #[test]
    fn finds_the_lock_unlocked() {
        let place = Place::new();
        let lock = place.open_with(options());
        let caller = Arc::new(Caller {
            lock: lock.clone(),
            calls: AtomicUsize::new(0),
        });
        *CALLER.lock().expect("no panic") = Some(caller.clone());
        let outsider = place.outsider_holds();
        let waker = waker();
        let mut waiter = Polled::new(lock.acquire());
        assert!(waiter.poll_with(&waker).is_pending());
        assert!(waiter.poll_with(&waker).is_pending());
        let mut behind = Polled::new(lock.acquire());
        assert!(behind.poll_with(&waker).is_pending());
        let before = caller.calls.load(Ordering::SeqCst);
        outsider.release();
        eventually("the call", || caller.calls.load(Ordering::SeqCst) > before);
        let guard = waiter.finish().expect("its turn");
        let mut lost = Polled::new(guard.lost());
        assert!(lost.poll_with(&waker).is_pending());
        assert!(lost.poll_with(&waker).is_pending());
        drop(guard);
        drop(behind.finish().expect("its turn"));
        drop((lost, waiter, behind, waker));
        *CALLER.lock().expect("no panic") = None;
        drop(caller);
        place.assert_idle();
    }
}

/// The watch thread starts again after a panic, and every waiter tries again. So no event is lost.
#[cfg(stanchion_test)]
#[test]
fn a_watch_that_panics_begins_again() {
    let mut child = program("watch");
    child
        .env("STANCHION_WATCH_PANICS", "1")
        .env("STANCHION_LADDER", "off");
    assert_eq!(last_words(&mut child), ["done"]);
}

/// The child program of the test above.
pub(crate) fn main() {
    assert_the_watch_works();
    assert_the_watch_works();
    say("done");
}
