//! The acquire future, polled by hand: what each poll does, and what a drop does at each stage.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use stanchion::{Acquire, ErrorKind, FifoGuard, FifoLock, FifoOptions, Lost, Waiting};

#[path = "../conformance/support.rs"]
mod support;

#[path = "../crew/mod.rs"]
mod crew;
mod foreign;
mod frozen;
mod histories;
mod limits;

use support::{
    Bell, Outsider, Place, Polled, SAFETY, assert_pending, assert_ready, eventually, kind_of,
};

type Waiter = Polled<Acquire<FifoGuard>>;

/// Longer than a running thread ever pauses on a busy machine.
const WINDOW: Duration = Duration::from_secs(1);

fn queued(lock: &FifoLock) -> Waiter {
    Polled::pending(lock.acquire())
}

fn held(lock: &FifoLock) -> FifoGuard {
    assert_ready!(Polled::new(lock.acquire()).poll()).expect("the lock is free")
}

/// A lock with short claim windows, whose waiters wake only by events.
fn with_window(place: &Place, window: Duration) -> FifoLock {
    place.open_with(options().claim_window(window))
}

/// No safety net: a lost wake-up stays lost.
fn options() -> FifoOptions {
    FifoLock::options().poll_interval(Duration::MAX)
}

/// Asserts that dropping `dropped` lets `next` acquire, and leaves nothing behind.
fn assert_moves_up(place: &Place, dropped: Waiter, mut next: Waiter) {
    drop(dropped);
    let guard = next.finish().expect("the next one is served");
    assert!(guard.is_held());
    drop(guard);
    drop(next);
    place.assert_idle();
}

mod shape {
    use super::*;

    fn owned<T: Send + Unpin + 'static>(_: fn() -> T) {}
    fn sent<T: Send + 'static>() {}
    fn shared<T: Sync + 'static>() {}

    #[test]
    fn futures_and_guards_can_be_sent() {
        sent::<Acquire<FifoGuard>>();
        sent::<FifoGuard>();
        sent::<Lost>();
        shared::<FifoLock>();
        shared::<FifoGuard>();
        owned::<FifoLock>(|| unreachable!());
        let place = Place::new();
        let lock = place.open();
        fn is_send(it: impl Future + Send) -> impl Future + Send {
            it
        }
        drop(is_send(lock.acquire().run(async |guard| guard.token())));
        let guard = held(&lock);
        drop(is_send(guard.release()));
        place.assert_idle();
    }

    #[test]
    fn a_future_is_lazy() {
        let place = Place::new();
        let lock = place.open();
        let future = lock.acquire();
        assert!(
            place.footprint().is_empty(),
            "nothing before the first poll"
        );
        drop(held(&lock));
        drop(future);
    }

    #[test]
    fn the_place_counts_from_the_first_poll() {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let mut early = Polled::new(lock.acquire());
        let mut late = queued(&lock);
        assert_pending!(early.poll());
        drop(guard);
        assert_pending!(early.poll());
        let guard = assert_ready!(late.poll()).expect("first polled, first served");
        drop(guard);
        drop(assert_ready!(early.poll()).expect("then the other"));
    }

    #[test]
    fn it_is_fused() {
        let place = Place::new();
        let lock = place.open();
        let mut future = Polled::new(lock.acquire());
        assert!(!future.future().is_terminated());
        let guard = assert_ready!(future.poll()).expect("free");
        assert!(future.future().is_terminated());
        assert_pending!(future.poll());
        assert_pending!(future.poll());
        assert!(guard.is_held(), "polling after the end takes nothing away");
        let mut refused = Polled::new(lock.acquire().timeout(Duration::ZERO));
        assert_eq!(kind_of(assert_ready!(refused.poll())), ErrorKind::TimedOut);
        assert!(refused.future().is_terminated());
        assert_pending!(refused.poll());
        drop(guard);
        drop(future);
        place.assert_idle();
    }

    /// A wait that met the holder of a replaced lock file, and then acquired, does not affect a
    /// later try.
    #[test]
    fn p40_a_try_after_a_wait_for_a_replaced_file_has_a_guard() {
        let place = Place::new();
        let lock = place.open();
        drop(held(&lock));
        // The old file keeps its inode number, so the new lock file has another one.
        std::fs::rename(place.path(), place.directory().join("other")).expect("renamed");
        let outsider = Outsider::locks(&place.queue().join("state"));
        let mut waiter = Polled::new(lock.acquire());
        assert_pending!(waiter.poll());
        outsider.release();
        drop(waiter.finish().expect("its turn"));
        let tried = lock.try_acquire().expect("the file is the only one");
        drop(tried.expect("the lock is free"));
        assert!(!lock.is_locked().expect("no error"));
    }

    #[test]
    fn the_last_waker_counts() {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let mut waiter = queued(&lock);
        let second = Arc::new(Bell::default());
        assert_pending!(waiter.poll_with(&Waker::from(second.clone())));
        drop(guard);
        assert_eq!((waiter.rings(), second.rings()), (0, 1));
        drop(assert_ready!(waiter.poll()).expect("granted"));
    }

    #[test]
    fn a_hand_over_wakes_exactly_the_next_one() {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let mut waiters: Vec<_> = (0..10).map(|_| queued(&lock)).collect();
        drop(guard);
        for turn in 0..waiters.len() {
            for (index, waiter) in waiters.iter().enumerate() {
                assert_eq!(waiter.rings(), usize::from(index <= turn), "turn {turn}");
            }
            drop(assert_ready!(waiters[turn].poll()).expect("its turn"));
        }
    }

    #[test]
    fn an_offer_has_no_holder_before_it_is_claimed() {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let mut waiter = queued(&lock);
        let has_holder = || lock.status().expect("status").holder.is_some();
        assert!(has_holder());
        drop(guard);
        assert!(!has_holder());
        assert!(lock.is_locked().expect("no error"), "it is on its way");
        drop(assert_ready!(waiter.poll()).expect("its turn"));
    }

    #[test]
    fn what_is_released_is_unlocked_on_disk() {
        let place = Place::new();
        let lock = place.open();
        drop(held(&lock));
        for file in [place.path(), place.queue().join("state")] {
            Outsider::locks(&file).release();
        }
    }

    /// The lock on the state record excludes callers that come through another lock file.
    #[cfg(unix)]
    #[test]
    fn both_locks_are_kept_across_exec() {
        use std::os::unix::fs::MetadataExt;
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let kept = guard.keep_across_exec().expect("kept");
        let kept = kept.iter().map(|it| it.metadata().expect("facts").ino());
        let files = [place.path(), place.queue().join("state")];
        let files = files.map(|it| std::fs::metadata(it).expect("facts").ino());
        assert_eq!(kept.collect::<Vec<_>>(), files);
    }

    /// A waker may own anything, also another wait for the same lock.
    #[test]
    fn a_waker_that_owns_a_waiter_can_be_dropped() {
        struct Owner(#[allow(dead_code)] Mutex<Waiter>);
        impl std::task::Wake for Owner {
            fn wake(self: Arc<Self>) {}
        }
        let (done, waited) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let place = Place::new();
            let lock = place.open();
            let guard = held(&lock);
            for replace in [true, false] {
                let owner = Waker::from(Arc::new(Owner(Mutex::new(queued(&lock)))));
                let mut waiter = Polled::new(lock.acquire());
                assert_pending!(waiter.poll_with(&owner));
                drop(owner);
                if replace {
                    assert_pending!(waiter.poll());
                }
            }
            assert_eq!(lock.status().expect("status").waiters.len(), 0);
            drop(guard);
            done.send(()).expect("the test waits");
        });
        waited
            .recv_timeout(SAFETY)
            .expect("the lock hangs on a waker that it dropped");
    }
}

mod dropped {
    use super::*;

    #[test]
    fn p23_before_the_first_poll() {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let waiter = Polled::new(lock.acquire());
        let mut next = queued(&lock);
        drop(waiter);
        drop(guard);
        drop(assert_ready!(next.poll()).expect("served"));
        place.assert_idle();
    }

    #[test]
    fn p23_while_queued_in_memory() {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let (first, mut next) = (queued(&lock), queued(&lock));
        drop(first);
        assert_pending!(next.poll());
        drop(guard);
        drop(assert_ready!(next.poll()).expect("served"));
        place.assert_idle();
    }

    #[test]
    fn p23_at_the_head_while_trying() {
        let place = Place::new();
        let lock = place.open_with(options());
        let outsider = place.outsider_holds();
        let waiter = queued(&lock);
        assert_eq!(place.tickets().len(), 1);
        drop(waiter);
        assert_eq!(place.tickets().len(), 0, "the ticket goes with the future");
        let mut next = queued(&lock);
        outsider.release();
        drop(next.finish().expect("served"));
        place.assert_idle();
    }

    #[test]
    fn p23_behind_another_process() {
        let place = Place::new();
        let lock = place.open_with(options());
        let (outsider, before) = (place.outsider_holds(), place.outsider_waits(1));
        let waiter = queued(&lock);
        assert_eq!(place.tickets().len(), 2);
        drop(waiter);
        assert_eq!(place.tickets().len(), 1);
        let next = queued(&lock);
        before.leaves_the_queue();
        outsider.release();
        assert_moves_up(&place, queued(&lock), next);
    }

    /// The first of two cohorts leaves. The second one, behind another process, must keep its own
    /// ticket.
    #[test]
    fn p23_between_other_processes() {
        let place = Place::new();
        let lock = place.open_with(options());
        let outsider = place.outsider_holds();
        let first = queued(&lock);
        let behind = place.outsider_waits(1 << 62);
        let mut second = queued(&lock);
        assert_eq!(place.tickets().len(), 3);
        drop(first);
        assert_eq!(place.tickets().len(), 2);
        outsider.release();
        assert_pending!(second.poll());
        behind.leaves_the_queue();
        drop(second.finish().expect("served"));
        place.assert_idle();
    }

    #[test]
    fn p23_with_the_offer_unclaimed() {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let (first, next) = (queued(&lock), queued(&lock));
        drop(guard);
        assert_eq!(first.rings(), 1, "offered");
        assert_eq!(next.rings(), 0);
        assert_moves_up(&place, first, next);
    }

    #[test]
    fn p23_with_the_offer_unclaimed_and_no_waiter_behind() {
        let place = Place::new();
        let lock = place.open_with(options());
        let outsider = place.outsider_holds();
        let waiter = queued(&lock);
        outsider.release();
        waiter.bell.wait_beyond(0);
        drop(waiter);
        drop(place.outsider_holds());
        place.assert_idle();
    }

    /// The ticket is deleted with its last waiter, also while a holder still shares it.
    #[test]
    fn p23_last_of_a_cohort_that_holds() {
        let place = Place::new();
        let lock = place.open_with(options());
        let outsider = place.outsider_holds();
        let (mut first, second) = (queued(&lock), queued(&lock));
        outsider.release();
        let guard = first.finish().expect("served");
        assert_eq!(place.tickets().len(), 1, "the second one's");
        drop(second);
        assert_eq!(place.tickets(), Vec::<String>::new());
        drop(guard);
        place.assert_idle();
    }

    #[test]
    fn the_ticket_goes_soon_after_the_claim() {
        let place = Place::new();
        let lock = place.open_with(options());
        let outsider = place.outsider_holds();
        let mut waiter = queued(&lock);
        outsider.release();
        let guard = waiter.finish().expect("served");
        eventually("the ticket is removed", || place.tickets().is_empty());
        assert!(guard.is_held());
    }

    #[test]
    fn p24_a_finished_future_releases_nothing() {
        let place = Place::new();
        let lock = place.open();
        let mut first = Polled::new(lock.acquire());
        drop(assert_ready!(first.poll()).expect("free"));
        let guard = held(&lock);
        let mut refused = Polled::new(lock.acquire().timeout(Duration::ZERO));
        assert_eq!(kind_of(assert_ready!(refused.poll())), ErrorKind::TimedOut);
        drop((first, refused));
        assert!(guard.is_held());
        assert!(lock.try_acquire().expect("no error").is_none());
    }
}

/// The directory has not changed for a while when the newcomer arrives, but it has changed since the
/// last listing.
#[cfg(unix)]
#[test]
fn p10_a_newcomer_sees_a_ticket_that_came_long_ago() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let lock = place.open_with(options());
    let rests = || {
        let changed = std::fs::metadata(place.queue()).expect("facts");
        let since = Duration::new(changed.ctime() as u64, changed.ctime_nsec() as u32);
        let age = (std::time::UNIX_EPOCH + since).elapsed();
        age.is_ok_and(|age| age > Duration::from_millis(50))
    };
    drop(held(&lock));
    eventually("the directory rests", rests);
    drop(held(&lock));
    let before = place.outsider_waits(1);
    eventually("the directory rests again", rests);
    let mut newcomer = queued(&lock);
    before.leaves_the_queue();
    drop(newcomer.finish().expect("its turn"));
    place.assert_idle();
}

/// The number of a ticket may be ahead of the clock. The newcomer meets a locked lock file, before
/// it has looked at the queue.
#[test]
fn p09_a_newcomer_takes_a_number_after_all_that_wait() {
    let place = Place::new();
    let lock = place.open_with(options());
    let outsider = place.outsider_holds();
    let before = place.outsider_waits(1 << 62);
    let mut newcomer = queued(&lock);
    let first = place.queue().join(&place.tickets()[0]);
    assert_eq!(first, place.ticket(1 << 62));
    assert_eq!(place.tickets().len(), 2);
    outsider.release();
    before.leaves_the_queue();
    drop(newcomer.finish().expect("its turn"));
}

#[test]
fn p43_an_error_at_the_door_ends_each_wait() {
    let place = Place::new();
    let lock = place.open_with(options());
    let before = place.outsider_waits(1);
    let [mut first, mut second] = [(); 2].map(|()| queued(&lock));
    let _ = std::fs::remove_file(place.path());
    std::fs::create_dir(place.path()).expect("no lock file");
    before.leaves_the_queue();
    first.finish().expect_err("a directory is no lock file");
    second.finish().expect_err("nor for the next one");
    assert_eq!(place.tickets(), Vec::<String>::new());
    std::fs::remove_dir(place.path()).expect("removed");
    drop(held(&lock));
    place.assert_idle();
}

/// The queue is watched, and the watch has taken the event of another process's ticket.
#[test]
fn p09_a_newcomer_stands_behind_a_ticket_that_was_reported() {
    let place = Place::new();
    let lock = place.open_with(options());
    let outsider = place.outsider_holds();
    let own = [(); 3].map(|()| queued(&lock));
    assert_eq!(place.tickets().len(), 1, "they share it");
    let behind = place.outsider_waits(1 << 62);
    // Events are taken in order, so this one comes after that of the ticket.
    let elsewhere = Place::new();
    let other = elsewhere.outsider_holds();
    let mut waiter = queued(&elsewhere.open_with(options()));
    other.release();
    drop(waiter.finish().expect("its turn"));
    let mut newcomer = queued(&lock);
    assert_eq!(place.tickets().len(), 3);
    drop(own);
    outsider.release();
    assert_pending!(newcomer.poll());
    behind.leaves_the_queue();
    drop(newcomer.finish().expect("its turn"));
}

/// A waiter is queued from its first poll on, also in a task that has used up its share of the
/// runtime.
#[tokio::test]
async fn p09_a_task_that_must_yield_has_its_place_all_the_same() {
    use std::future::Future;
    let dir = tempfile::tempdir().expect("a directory");
    let lock = stanchion::FifoLock::open(dir.path().join("it.lock")).expect("a lock");
    // Acquires without waiting until the runtime asks for a pause. The poll after that is the
    // tested one.
    for _ in 0..1000 {
        let mut acquire = Box::pin(lock.acquire());
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(acquire.as_mut().poll(cx)));
        if first.await.is_pending() {
            assert!(
                lock.try_acquire().expect("no error").is_none(),
                "it is ours"
            );
            drop(acquire.await.expect("the lock"));
            return;
        }
    }
    panic!("a thousand acquires without a pause");
}

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("watch", foreign::main)]);
}
