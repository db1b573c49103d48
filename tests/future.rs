//! The acquire future, polled by hand: what each poll does, and what dropping it does at each stage.

#![allow(clippy::disallowed_methods)] // The tests play those who do what the crate must not.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures::future::FusedFuture;
use stanchion::{Acquire, ErrorKind, FifoGuard, FifoLock, FifoOptions, Lost, Waiting};

#[path = "conformance/support.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod support;

#[path = "future/histories.rs"]
mod histories;
#[path = "future/limits.rs"]
mod limits;

use support::{Bell, Place, Polled, SAFETY, assert_pending, assert_ready, eventually, kind_of};

type Waiter = Polled<Acquire<FifoGuard>>;

/// Short, so that sleepers are soon passed over.
const WINDOW: Duration = Duration::from_millis(50);

fn queued(lock: &FifoLock) -> Waiter {
    let mut waiter = Polled::new(lock.acquire());
    assert_pending!(waiter.poll());
    waiter
}

fn held(lock: &FifoLock) -> FifoGuard {
    assert_ready!(Polled::new(lock.acquire()).poll()).expect("the lock is free")
}

/// A lock whose sleepers are soon passed over, and who wakes only by events.
fn with_window(place: &Place, window: Duration) -> FifoLock {
    place.open_with(options().claim_window(window))
}

/// No safety net: a wake-up that is lost stays lost.
fn options() -> FifoOptions {
    FifoLock::options().poll_interval(Duration::MAX)
}

/// Dropping `dropped` must let `next` in, and leave nothing behind.
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
        drop(is_send(lock.run(async |guard| guard.token())));
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

    /// A waker may own anything, also another place in the same line.
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
    fn p23_at_the_head_while_knocking() {
        let place = Place::new();
        let lock = place.open_with(options());
        let outsider = place.outsider_holds();
        let waiter = queued(&lock);
        assert_eq!(place.tickets().len(), 1);
        drop(waiter);
        assert_eq!(place.tickets().len(), 0, "the ticket goes with the future");
        let mut next = queued(&lock);
        outsider.lets_go();
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
        before.leaves_the_line();
        outsider.lets_go();
        assert_moves_up(&place, queued(&lock), next);
    }

    /// The first of two cohorts goes: the second, behind another process, must not lose its own place.
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
        outsider.lets_go();
        assert_pending!(second.poll());
        behind.leaves_the_line();
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
    fn p23_with_the_offer_unclaimed_and_nobody_behind() {
        let place = Place::new();
        let lock = place.open_with(options());
        let outsider = place.outsider_holds();
        let waiter = queued(&lock);
        outsider.lets_go();
        waiter.bell.wait_beyond(0);
        drop(waiter);
        drop(place.outsider_holds());
        place.assert_idle();
    }

    /// The ticket goes with its last waiter, also while the one who shared it is inside.
    #[test]
    fn p23_last_of_a_cohort_that_is_inside() {
        let place = Place::new();
        let lock = place.open_with(options());
        let outsider = place.outsider_holds();
        let (mut first, second) = (queued(&lock), queued(&lock));
        outsider.lets_go();
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
        outsider.lets_go();
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

mod sleepers {
    use super::*;

    #[test]
    fn p64_an_offer_that_is_never_claimed_goes_on() {
        let place = Place::new();
        let lock = with_window(&place, WINDOW);
        let guard = held(&lock);
        let (mut sleeper, mut next) = (queued(&lock), queued(&lock));
        let begun = Instant::now();
        drop(guard);
        let guard = next.finish().expect("passed the sleeper");
        assert!(begun.elapsed() >= WINDOW, "not before a window has gone by");
        assert_pending!(sleeper.poll());
        drop(guard);
        drop(assert_ready!(sleeper.poll()).expect("its place was kept"));
        drop(sleeper);
        place.assert_idle();
    }

    #[test]
    fn a_sleeper_that_wakes_is_first_again() {
        let place = Place::new();
        let lock = with_window(&place, WINDOW);
        let guard = held(&lock);
        let (mut sleeper, mut second) = (queued(&lock), queued(&lock));
        drop(guard);
        let guard = second.finish().expect("passed the sleeper");
        let mut third = queued(&lock);
        assert_pending!(sleeper.poll());
        drop(guard);
        assert_pending!(third.poll());
        drop(assert_ready!(sleeper.poll()).expect("before the third"));
        drop(assert_ready!(third.poll()).expect("then the third"));
    }

    /// The one who passed has a ticket of its own, and others of its process stand behind it.
    #[test]
    fn a_sleeper_with_an_earlier_ticket_is_first_again() {
        let place = Place::new();
        let lock = with_window(&place, WINDOW);
        let outsider = place.outsider_holds();
        let mut sleeper = queued(&lock);
        let between = place.outsider_waits(1 << 62);
        let (mut second, mut third) = (queued(&lock), queued(&lock));
        between.leaves_the_line();
        outsider.lets_go();
        let guard = second.finish().expect("passed the sleeper");
        assert_pending!(sleeper.poll());
        drop(guard);
        assert_pending!(third.poll());
        drop(assert_ready!(sleeper.poll()).expect("before the third"));
        drop(third.finish().expect("then the third"));
        drop((sleeper, second, third));
        place.assert_idle();
    }

    #[test]
    fn p64_when_all_sleep_the_lock_is_free_for_other_processes() {
        let place = Place::new();
        let lock = with_window(&place, WINDOW);
        let guard = held(&lock);
        let mut sleepers: Vec<_> = (0..3).map(|_| queued(&lock)).collect();
        drop(guard);
        let marked = || {
            let tickets = place.tickets();
            let size = |name| std::fs::metadata(place.queue().join(name)).map(|it| it.len());
            tickets.len() == 1 && tickets.iter().all(|it| size(it).is_ok_and(|size| size > 0))
        };
        eventually("one ticket stands, with a mark", marked);
        eventually("the lock file is free", || {
            !lock.is_locked().expect("no error")
        });
        let outsider = place.outsider_holds();
        for sleeper in &mut sleepers {
            assert_pending!(sleeper.poll());
        }
        outsider.lets_go();
        for sleeper in &mut sleepers {
            drop(sleeper.finish().expect("in order again"));
        }
        drop(sleepers);
        place.assert_idle();
    }

    #[test]
    fn a_newcomer_passes_a_line_of_sleepers() {
        let place = Place::new();
        let lock = with_window(&place, WINDOW);
        let guard = held(&lock);
        let mut sleeper = queued(&lock);
        drop(guard);
        eventually("the sleeper was passed over", || {
            !lock.is_locked().expect("no error")
        });
        let status = lock.status().expect("status");
        assert!(status.waiters[0].passed_over, "{status:?}");
        let guard = Polled::new(lock.acquire())
            .finish()
            .expect("nobody is awake");
        assert_pending!(sleeper.poll());
        drop(guard);
        drop(sleeper.finish().expect("awake again"));
        drop(sleeper);
        place.assert_idle();
    }

    #[test]
    fn status_tells_who_of_a_cohort_was_passed_over() {
        let place = Place::new();
        let lock = with_window(&place, WINDOW);
        let guard = held(&lock);
        let (mut sleeper, mut second) = (queued(&lock), queued(&lock));
        drop(guard);
        let _guard = second.finish().expect("passed the sleeper");
        let passed = || lock.status().expect("status").waiters[0].passed_over;
        assert!(passed());
        assert_pending!(sleeper.poll());
        assert!(!passed(), "it is awake");
    }

    #[test]
    fn p64_a_thousand_sleepers_cost_a_few_windows() {
        let place = Place::new();
        let lock = with_window(&place, WINDOW);
        let guard = held(&lock);
        let sleepers: Vec<_> = (0..1000).map(|_| queued(&lock)).collect();
        let mut awake = queued(&lock);
        let begun = Instant::now();
        drop(guard);
        drop(awake.finish().expect("passed a thousand"));
        let windows = begun.elapsed().as_millis() / WINDOW.as_millis();
        assert!(windows < 100, "{windows} windows for a thousand sleepers");
        drop((awake, sleepers));
        place.assert_idle();
    }

    /// The window is the one of the handle that was granted, not of those before it.
    #[test]
    fn a_long_window_of_another_handle_delays_nobody() {
        let place = Place::new();
        let patient = with_window(&place, Duration::from_secs(86_400));
        let lock = with_window(&place, WINDOW);
        let guard = held(&lock);
        let (mut first, mut sleeper, mut third) = (queued(&patient), queued(&lock), queued(&lock));
        drop(guard);
        drop(assert_ready!(first.poll()).expect("claimed"));
        drop(third.finish().expect("passed the sleeper"));
        drop(sleeper.finish().expect("awake"));
    }

    #[test]
    fn a_window_without_end_passes_nobody() {
        let place = Place::new();
        let lock = with_window(&place, Duration::MAX);
        let guard = held(&lock);
        let (mut sleeper, mut second) = (queued(&lock), queued(&lock));
        // The clock of a lock whose windows do end shows how long "for ever" has lasted.
        let (elsewhere, clock) = (Place::new(), WINDOW);
        let other = with_window(&elsewhere, clock);
        let other_guard = held(&other);
        let (_asleep, mut passes) = (queued(&other), queued(&other));
        drop((guard, other_guard));
        drop(passes.finish().expect("passed"));
        assert_pending!(second.poll());
        drop(assert_ready!(sleeper.poll()).expect("still offered"));
        drop(assert_ready!(second.poll()).expect("then the second"));
    }
}
