//! Unclaimed offers: how frozen waiters are bypassed, and how they come back.

use super::*;

#[test]
fn p64_an_offer_that_is_never_claimed_goes_to_the_next() {
    let place = Place::new();
    let lock = with_window(&place, WINDOW);
    let guard = held(&lock);
    let (mut frozen, mut next) = (queued(&lock), queued(&lock));
    let begun = Instant::now();
    drop(guard);
    let guard = next.finish().expect("bypassed the frozen waiter");
    assert!(begun.elapsed() >= WINDOW, "not before a window has gone by");
    assert_pending!(frozen.poll());
    drop(guard);
    drop(assert_ready!(frozen.poll()).expect("its place was kept"));
    drop(frozen);
    place.assert_idle();
}

#[test]
fn a_frozen_waiter_that_is_polled_is_first_again() {
    let place = Place::new();
    let lock = with_window(&place, WINDOW);
    let guard = held(&lock);
    let (mut frozen, mut second) = (queued(&lock), queued(&lock));
    drop(guard);
    let guard = second.finish().expect("bypassed the frozen waiter");
    let mut third = queued(&lock);
    assert_pending!(frozen.poll());
    drop(guard);
    assert_pending!(third.poll());
    drop(assert_ready!(frozen.poll()).expect("before the third"));
    drop(assert_ready!(third.poll()).expect("then the third"));
}

/// The bypassing waiter has its own ticket, and other waiters of its process are behind it.
#[test]
fn a_frozen_waiter_with_an_earlier_ticket_is_first_again() {
    let place = Place::new();
    let lock = with_window(&place, WINDOW);
    let outsider = place.outsider_holds();
    let mut frozen = queued(&lock);
    let between = place.outsider_waits(1 << 62);
    let (mut second, mut third) = (queued(&lock), queued(&lock));
    between.leaves_the_queue();
    outsider.release();
    let guard = second.finish().expect("bypassed the frozen waiter");
    assert_pending!(frozen.poll());
    drop(guard);
    assert_pending!(third.poll());
    drop(assert_ready!(frozen.poll()).expect("before the third"));
    drop(third.finish().expect("then the third"));
    drop((frozen, second, third));
    place.assert_idle();
}

#[test]
fn p64_when_all_are_frozen_the_lock_is_free_for_other_processes() {
    let place = Place::new();
    let lock = with_window(&place, WINDOW);
    let guard = held(&lock);
    let mut frozen_waiters: Vec<_> = (0..3).map(|_| queued(&lock)).collect();
    drop(guard);
    let marked = || {
        let tickets = place.tickets();
        let size = |name| std::fs::metadata(place.queue().join(name)).map(|it| it.len());
        tickets.len() == 1 && tickets.iter().all(|it| size(it).is_ok_and(|size| size > 0))
    };
    eventually("one ticket is left, with a mark", marked);
    eventually("the lock file is free", || {
        !lock.is_locked().expect("no error")
    });
    let outsider = place.outsider_holds();
    for frozen in &mut frozen_waiters {
        assert_pending!(frozen.poll());
    }
    outsider.release();
    for frozen in &mut frozen_waiters {
        drop(frozen.finish().expect("in order again"));
    }
    drop(frozen_waiters);
    place.assert_idle();
}

#[test]
fn a_newcomer_bypasses_a_queue_of_frozen_waiters() {
    let place = Place::new();
    let lock = with_window(&place, WINDOW);
    let guard = held(&lock);
    let mut frozen = queued(&lock);
    drop(guard);
    eventually("the frozen waiter was bypassed", || {
        !lock.is_locked().expect("no error")
    });
    let status = lock.status().expect("status");
    assert!(status.waiters[0].bypassed, "{status:?}");
    let guard = Polled::new(lock.acquire())
        .finish()
        .expect("no waiter is polled");
    assert_pending!(frozen.poll());
    drop(guard);
    drop(frozen.finish().expect("polled again"));
    drop(frozen);
    place.assert_idle();
}

#[test]
fn status_shows_which_of_a_cohort_are_bypassed() {
    let place = Place::new();
    let lock = with_window(&place, WINDOW);
    let guard = held(&lock);
    let (mut frozen, mut second) = (queued(&lock), queued(&lock));
    drop(guard);
    let _guard = second.finish().expect("bypassed the frozen waiter");
    let passed = || lock.status().expect("status").waiters[0].bypassed;
    assert!(passed());
    assert_pending!(frozen.poll());
    assert!(!passed(), "it was polled");
}

#[test]
fn p64_a_thousand_frozen_waiters_cost_a_few_windows() {
    let place = Place::new();
    let lock = with_window(&place, WINDOW);
    let guard = held(&lock);
    let frozen_waiters: Vec<_> = (0..1000).map(|_| queued(&lock)).collect();
    let mut awake = queued(&lock);
    drop(guard);
    // A window for each of them would take a thousand seconds.
    drop(awake.finish().expect("bypassed a thousand"));
    drop((awake, frozen_waiters));
    place.assert_idle();
}

/// The window is that of the granted handle, not that of an earlier one.
#[test]
fn a_long_window_of_another_handle_delays_no_waiter() {
    let place = Place::new();
    let patient = with_window(&place, Duration::from_secs(86_400));
    let lock = with_window(&place, WINDOW);
    let guard = held(&lock);
    let (mut first, mut frozen, mut third) = (queued(&patient), queued(&lock), queued(&lock));
    drop(guard);
    drop(assert_ready!(first.poll()).expect("claimed"));
    drop(third.finish().expect("bypassed the frozen waiter"));
    drop(frozen.finish().expect("awake"));
}

#[test]
fn a_window_without_end_bypasses_no_waiter() {
    let place = Place::new();
    let lock = with_window(&place, Duration::MAX);
    let guard = held(&lock);
    let (mut frozen, mut second) = (queued(&lock), queued(&lock));
    // A lock with windows that end is the clock here: it shows that enough time has passed.
    let (elsewhere, clock) = (Place::new(), WINDOW);
    let other = with_window(&elsewhere, clock);
    let other_guard = held(&other);
    let (_asleep, mut passes) = (queued(&other), queued(&other));
    drop((guard, other_guard));
    drop(passes.finish().expect("bypassed"));
    assert_pending!(second.poll());
    drop(assert_ready!(frozen.poll()).expect("still offered"));
    drop(assert_ready!(second.poll()).expect("then the second"));
}

/// Two waiters of other processes are stopped before this one, and the lock is free.
#[test]
fn p64_bypassed_waiters_are_counted() {
    let place = Place::new();
    let lock = with_window(&place, Duration::from_millis(50));
    drop(held(&lock));
    let frozen_waiters = [place.outsider_waits(5), place.outsider_waits(6)];
    assert_eq!(lock.stats().bypassed, 0);
    drop(queued(&lock).finish().expect("bypassed both"));
    assert_eq!(lock.stats().bypassed, 2);
    for frozen in frozen_waiters {
        frozen.leaves_the_queue();
    }
}

/// A process opens what is waited for, and closes it. When all retries after that event are over,
/// only the next event wakes the waiter.
#[test]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    ignore = "there are no file events"
)]
fn p63_after_an_event_that_changes_nothing_the_next_one_is_noticed() {
    let places = [Place::new(), Place::new()];
    let options = || options().claim_window(Duration::MAX);
    let locks = places.each_ref().map(|it| it.open_with(options()));
    let before = places[0].outsider_waits(1);
    let outsider = places[1].outsider_holds();
    let [mut behind, mut at_door] = locks.each_ref().map(queued);
    for path in [places[0].ticket(1), places[1].path()] {
        drop(std::fs::File::open(path).expect("it is there"));
    }
    // Two windows of a lock are the clock. The last retry comes after less than four seconds.
    let elsewhere = Place::new();
    let clock = with_window(&elsewhere, Duration::from_secs(2));
    let guard = held(&clock);
    let (_asleep, mut passes) = (queued(&clock), queued(&clock));
    drop(guard);
    drop(passes.finish().expect("bypassed"));
    for lock in &locks {
        assert_eq!(lock.stats().fallbacks, 0, "there are events");
        assert!(!lock.status().expect("status").polling);
    }
    before.leaves_the_queue();
    outsider.release();
    drop(behind.finish().expect("its turn"));
    drop(at_door.finish().expect("its turn"));
}

/// A waiter of another process that does not act: its ticket stands, and nothing else happens.
#[test]
#[cfg_attr(windows, ignore = "a mark is no content there")]
fn p64_a_frozen_waiter_of_another_process_is_bypassed_until_it_wakes() {
    let place = Place::new();
    let lock = with_window(&place, WINDOW);
    drop(held(&lock));
    let (before, ticket) = (place.outsider_waits(1), place.ticket(1));
    let begun = Instant::now();
    let [mut first, mut second, mut third] = [(); 3].map(|()| queued(&lock));
    let guard = first.finish().expect("bypassed the frozen waiter");
    assert!(begun.elapsed() >= 2 * WINDOW, "the door was free in each");
    let size = || std::fs::metadata(&ticket).expect("it stands").len();
    assert!(size() > 0, "it is marked");
    assert_eq!((lock.stats().bypassed, lock.stats().frozen), (1, 0));
    drop(guard);
    let guard = assert_ready!(second.poll()).expect("it is still frozen");
    // It wakes, and removes its mark.
    std::fs::write(&ticket, "").expect("written");
    drop(guard);
    assert_pending!(third.poll());
    before.leaves_the_queue();
    drop(third.finish().expect("its turn"));
    drop((first, second, third));
    place.assert_idle();
}

/// The file of a ticket is used again. Its mark, which another process has set, is not.
#[test]
fn p64_the_mark_of_the_last_ticket_is_not_that_of_the_next() {
    let place = Place::new();
    let lock = with_window(&place, Duration::MAX);
    for round in 0..2 {
        let outsider = place.outsider_holds();
        let mut waiter = queued(&lock);
        assert_eq!(lock.stats().frozen, 0, "round {round}");
        let tickets = place.tickets();
        std::fs::write(place.queue().join(&tickets[0]), "p").expect("marked");
        outsider.release();
        drop(waiter.finish().expect("the lock"));
    }
}
