//! Several locks at once: the order of guards, all or nothing, and which requests count as one
//! lock.
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use stanchion::{
    AcquireAll, AllGuards, AnyGuard, ErrorKind, FifoGuard, FifoLock, FileGuard, FileLock, Holder,
    Reentrant, Request, acquire_all, open_locked,
};

#[path = "../conformance/support.rs"]
mod support;

mod cancel;
#[path = "../crew/mod.rs"]
mod crew;
mod mixed;
mod storm;

use support::{Place, Polled, SAFETY, assert_pending, assert_ready, in_runtime, kind_of};

/// Locks in one directory, in the order in which they are acquired.
struct Row {
    place: Place,
    locks: Vec<FifoLock>,
}

impl Row {
    fn of(count: usize) -> Self {
        let place = Place::new();
        let open = |number| {
            let path = place.directory().join(format!("{number:03}.lock"));
            // No safety net: a lost wake-up stays lost.
            let options = FifoLock::options().poll_interval(Duration::MAX);
            options.open(path).expect("a lock")
        };
        let locks = (0..count).map(open).collect();
        Self { place, locks }
    }

    /// Requests all of these locks, in this order.
    fn want(&self, which: &[usize]) -> AcquireAll {
        acquire_all(which.iter().map(|it| self.locks[*it].acquire()))
    }

    fn take(&self, which: usize) -> FifoGuard {
        let taken = self.locks[which].try_acquire().expect("no error");
        taken.expect("it is free")
    }

    fn is_free(&self, which: usize) -> bool {
        let taken = self.locks[which].try_acquire().expect("no error");
        taken.is_some()
    }

    /// Returns which of them are free, in a form that can be compared.
    fn free(&self) -> Vec<bool> {
        (0..self.locks.len()).map(|it| self.is_free(it)).collect()
    }

    #[track_caller]
    fn assert_idle(&self) {
        for lock in &self.locks {
            let line = lock.status().expect("a line");
            assert!(line.waiters.is_empty(), "{line:?}");
        }
        assert!(self.free().into_iter().all(|it| it), "{:?}", self.free());
    }
}

fn granted(all: &mut Polled<AcquireAll>) -> AllGuards {
    assert_ready!(all.poll()).expect("all of them")
}

#[test]
fn futures_and_guards_can_be_sent() {
    fn sent<T: Send + 'static>() {}
    fn shared<T: Sync + 'static>() {}
    sent::<AcquireAll>();
    sent::<Request>();
    sent::<AllGuards>();
    shared::<AllGuards>();
    shared::<AnyGuard>();
    fn is_send<T: Send + 'static>(it: T) -> T {
        it
    }
    let row = Row::of(1);
    let all = granted(&mut Polled::new(row.want(&[0])));
    drop(is_send(all.release()));
    row.assert_idle();
}

#[test]
fn it_is_lazy_and_fused() {
    let row = Row::of(2);
    let mut all = Polled::new(row.want(&[1, 0]));
    assert!(row.place.footprint().is_empty(), "nothing before a poll");
    assert!(!all.future().is_terminated());
    let guards = granted(&mut all);
    assert!(all.future().is_terminated());
    assert_pending!(all.poll());
    assert_pending!(all.poll());
    assert!(guards.is_held(), "polling after the end takes nothing away");
    let mut refused = Polled::new(row.want(&[0, 0]));
    assert_eq!(kind_of(assert_ready!(refused.poll())), ErrorKind::Deadlock);
    assert!(refused.future().is_terminated());
    assert_pending!(refused.poll());
    drop((guards, all));
    row.assert_idle();
}

#[test]
fn an_empty_list_is_ready_at_once() {
    let nothing = || acquire_all(Vec::<Request>::new());
    let guards = granted(&mut Polled::new(nothing()));
    assert!(guards.is_empty() && guards.is_held());
    assert_pending!(Polled::new(guards.lost()).poll());
    Polled::new(guards.release()).finish().expect("nothing");
    // Without a runtime too: no wait needs its timer.
    let limited = nothing().timeout(Duration::from_secs(1));
    assert!(granted(&mut Polled::new(limited)).into_vec().is_empty());
}

#[test]
fn guards_come_in_the_order_of_the_requests() {
    let row = Row::of(4);
    let wanted = [2, 0, 3, 1];
    let guards = granted(&mut Polled::new(row.want(&wanted)));
    assert_eq!(row.free(), [false; 4]);
    for (guard, which) in guards.into_iter().zip(wanted) {
        assert!(!row.is_free(which));
        drop(guard);
        assert!(row.is_free(which), "it was the guard of another one");
    }
    // The same after waiting for each.
    let others: Vec<_> = (0..4).map(|it| row.take(it)).collect();
    let mut all = Polled::new(row.want(&wanted));
    for other in others {
        assert_pending!(all.poll());
        drop(other);
    }
    let guards = granted(&mut all);
    assert!(guards.iter().all(|it| it.waited().is_some()));
    for (guard, which) in guards.into_vec().into_iter().zip(wanted) {
        drop(guard);
        assert!(row.is_free(which), "it was the guard of another one");
    }
}

#[test]
fn locks_are_taken_in_their_own_order_and_held_meanwhile() {
    let row = Row::of(3);
    for wanted in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let other = row.take(1);
        let mut all = Polled::pending(row.want(&wanted));
        assert_eq!(row.free(), [false, false, true]);
        drop(other);
        assert!(granted(&mut all).is_held());
        row.assert_idle();
    }
}

/// Adds its number to a shared list when it is called.
struct Named(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Named {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("a mutex").push(self.0);
    }
}

#[test]
fn the_last_taken_is_released_first() {
    let row = Row::of(4);
    type End = fn(AllGuards);
    let ends: [End; 2] = [drop, |all| {
        Polled::new(all.release()).finish().expect("released");
    }];
    for end in ends {
        let guards = granted(&mut Polled::new(row.want(&[2, 0, 3, 1])));
        let woken = Arc::<Mutex<Vec<_>>>::default();
        let mut next: Vec<_> = row
            .locks
            .iter()
            .map(|it| Polled::new(it.acquire()))
            .collect();
        for (number, waiter) in next.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(Named(number, woken.clone())));
            assert_pending!(waiter.poll_with(&waker));
        }
        end(guards);
        assert_eq!(*woken.lock().expect("a mutex"), [3, 2, 1, 0]);
        drop(next);
        row.assert_idle();
    }
}

#[test]
fn an_array_takes_all_of_them_or_none() {
    let row = Row::of(2);
    let guards = granted(&mut Polled::new(row.want(&[1, 0])));
    let back = <[AnyGuard; 3]>::try_from(guards).expect_err("there are two");
    assert!(back.is_held() && back.len() == 2);
    let [one, zero] = <[AnyGuard; 2]>::try_from(back).expect("two");
    drop(one);
    assert_eq!(row.free(), [false, true]);
    drop(zero);
    row.assert_idle();
}

#[test]
fn one_lock_twice_is_refused_before_anything_is_locked() {
    let row = Row::of(3);
    let again = FifoLock::open(row.locks[1].path()).expect("another handle");
    let requests = [&row.locks[0], &row.locks[1], &row.locks[2], &again];
    let refused = acquire_all(requests.map(FifoLock::acquire));
    let error = assert_ready!(Polled::new(refused).poll()).expect_err("twice");
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    assert_eq!(error.path(), Some(row.locks[1].path()));
    assert!(row.place.footprint().is_empty(), "something was locked");
    // Also if an earlier lock is held, or has a limit that needs a runtime.
    let other = row.take(0);
    let refused = row.want(&[0, 1, 1]).timeout(Duration::from_secs(1));
    let refused = assert_ready!(Polled::new(refused).poll());
    assert_eq!(kind_of(refused), ErrorKind::Deadlock);
    drop(other);
}

#[test]
fn p07_other_spellings_are_the_same_lock() {
    let place = Place::new();
    let lock = place.open();
    let before = place.footprint();
    for name in place.other_names() {
        let other = FifoLock::open(&name).expect("a lock");
        let twice = acquire_all([other.acquire(), lock.acquire()]);
        let refused = assert_ready!(Polled::new(twice).poll());
        assert_eq!(kind_of(refused), ErrorKind::Deadlock, "{name:?}");
        // Any spelling of the path, also a link at the end, whether the file exists or not.
        let link = place.directory().join("to-it");
        #[cfg(unix)]
        let _ = std::os::unix::fs::symlink(&name, &link);
        #[cfg(not(unix))]
        let link = if link.exists() { link } else { name.clone() };
        let file = FileLock::options().follow_symlinks(true).open(link);
        let file = file.expect("a lock");
        let both = [Request::from(file.acquire()), lock.acquire().into()];
        let refused = assert_ready!(Polled::new(acquire_all(both)).poll());
        assert_eq!(kind_of(refused), ErrorKind::Deadlock, "{name:?}");
    }
    assert!(!place.path().exists() && before.is_empty());
    place.assert_idle();
}

#[test]
fn p16_a_limit_of_zero_is_one_attempt_at_each() {
    let row = Row::of(3);
    let at_once = || Polled::new(row.want(&[2, 0, 1]).timeout(Duration::ZERO));
    drop(granted(&mut at_once()));
    for held in 0..3 {
        let other = row.take(held);
        let error = assert_ready!(at_once().poll()).expect_err("one is held");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.path(), Some(row.locks[held].path()));
        drop(other);
        row.assert_idle();
    }
}

/// A task that has used up its share of a poll still gets all free locks.
#[test]
fn p16_a_limit_of_zero_holds_beyond_the_budget_of_a_task() {
    let row = Row::of(200);
    let wanted: Vec<_> = (0..200).rev().collect();
    let all = row.want(&wanted).timeout(Duration::ZERO);
    let guards = in_runtime(async { tokio::spawn(all).await.expect("a task") });
    assert_eq!(guards.expect("all are free").len(), 200);
    row.assert_idle();
}

fn in_paused_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(future)
}

#[test]
fn p17_one_limit_counts_through_all_waits() {
    in_paused_time(async {
        let row = Row::of(3);
        let (first, second) = (row.take(0), row.take(1));
        let limited = row.want(&[1, 0, 2]).timeout(Duration::from_secs(10));
        let mut all = Polled::pending(limited);
        tokio::time::advance(Duration::from_secs(9)).await;
        drop(first);
        assert_pending!(all.poll());
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_pending!(all.poll());
        tokio::time::advance(Duration::from_millis(1)).await;
        let refused = assert_ready!(all.poll());
        assert_eq!(kind_of(refused), ErrorKind::TimedOut);
        drop(second);
        row.assert_idle();
    });
}

#[test]
fn p17_a_limit_ends_the_wait_in_time_and_frees_all() {
    let row = Row::of(3);
    let other = row.take(1);
    in_runtime(async {
        let limit = Duration::from_millis(50);
        for by_deadline in [false, true] {
            let begun = Instant::now();
            let all = row.want(&[2, 1, 0]);
            let all = match by_deadline {
                true => all.deadline(begun + limit),
                false => all.timeout(limit),
            };
            assert_eq!(kind_of(all.await), ErrorKind::TimedOut);
            assert!(begun.elapsed() >= limit);
            assert_eq!(row.free(), [true, false, true]);
        }
    });
    drop(other);
    row.assert_idle();
}

#[test]
fn the_limits_of_single_requests_count_beside_the_whole() {
    let row = Row::of(2);
    let [one, two] = [0, 1].map(|it| &row.locks[it]);
    let other = row.take(1);
    let own = [one.acquire(), two.acquire().timeout(Duration::ZERO)];
    let all = acquire_all(own).timeout(None);
    let refused = assert_ready!(Polled::new(all).poll());
    assert_eq!(kind_of(refused), ErrorKind::TimedOut);
    let own = [one.acquire(), two.acquire().max_waiting(0)];
    let refused = assert_ready!(Polled::new(acquire_all(own)).poll());
    assert_eq!(kind_of(refused), ErrorKind::Busy);
    assert!(row.is_free(0));
    // If its limit is over while another lock is waited for, one attempt is left.
    in_paused_time(async {
        let first = row.take(0);
        let brief = || two.acquire().timeout(Duration::from_millis(1));
        let mut all = Polled::pending(acquire_all([brief(), one.acquire()]));
        let unlucky = Polled::pending(acquire_all([brief(), one.acquire()]));
        tokio::time::advance(Duration::from_millis(5)).await;
        drop((first, other));
        let guards = granted(&mut all);
        let waiter = Polled::new(two.acquire()).poll();
        assert!(waiter.is_pending());
        drop(guards);
        drop(unlucky);
    });
    row.assert_idle();
}

#[test]
fn on_wait_reports_the_lock_that_is_waited_for() {
    let row = Row::of(2);
    in_runtime(async {
        let told = Arc::<Mutex<Vec<_>>>::default();
        let request = |which: usize| {
            let told = told.clone();
            let tell = move |_: &_| told.lock().expect("a mutex").push(which);
            row.locks[which].acquire().on_wait(tell)
        };
        let (first, second) = (row.take(0), row.take(1));
        let mut all = Polled::pending(acquire_all([request(1), request(0)]));
        assert_eq!(*told.lock().expect("a mutex"), [0]);
        drop(first);
        assert_pending!(all.poll());
        assert_eq!(*told.lock().expect("a mutex"), [0, 1]);
        drop(second);
        drop(granted(&mut all));
    });
    row.assert_idle();
}

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("dies", mixed::dies_inside)]);
}
