//! Time limits, limits on the length of the queue, and the reports to a waiter.

use super::*;

/// Polls inside a runtime with a timer, whose clock only moves when the test moves it.
fn in_paused_time<T>(body: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(body())
}

async fn moves_on(by: Duration) {
    tokio::time::advance(by).await;
}

#[test]
fn p16_zero_is_exactly_one_attempt() {
    let place = Place::new();
    let lock = place.open();
    let mut free = Polled::new(lock.acquire().timeout(Duration::ZERO));
    let guard = assert_ready!(free.poll()).expect("one attempt is made");
    let mut refused = Polled::new(lock.acquire().timeout(Duration::ZERO));
    let error = assert_ready!(refused.poll()).expect_err("held");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.path(), Some(lock.path()));
    assert_eq!(lock.status().expect("status").waiters.len(), 0);
    drop(guard);
    drop(refused);
    place.assert_idle();
}

#[test]
fn p16_zero_leaves_no_ticket() {
    let place = Place::new();
    let lock = place.open();
    let outsider = place.outsider_holds();
    let mut refused = Polled::new(lock.acquire().timeout(Duration::ZERO));
    assert_eq!(kind_of(assert_ready!(refused.poll())), ErrorKind::TimedOut);
    assert_eq!(place.tickets(), Vec::<String>::new());
    outsider.release();
    place.assert_idle();
}

/// One attempt skips the tickets of all dead processes.
#[test]
fn p16_zero_clears_the_dead_away() {
    let place = Place::new();
    let lock = place.open();
    (1..20).for_each(|number| place.outsider_died_waiting(number));
    let mut future = Polled::new(lock.acquire().timeout(Duration::ZERO));
    drop(assert_ready!(future.poll()).expect("no living waiter is before it"));
    place.assert_idle();
}

/// A process that takes over a dead waiter's spare file must not make that waiter look alive.
#[cfg(unix)] // Spare files exist on Linux only.
#[test]
fn p29_a_dead_waiter_with_a_spare_file_delays_no_waiter() {
    let place = Place::new();
    let lock = with_window(&place, Duration::MAX);
    place.outsider_died_waiting_with_a_spare(1);
    let mut future = Polled::new(lock.acquire().timeout(Duration::ZERO));
    drop(assert_ready!(future.poll()).expect("no living waiter is before it"));
    place.assert_idle();
}

#[test]
fn the_limit_counts_from_its_call() {
    in_paused_time(async || {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let mut waiter = Polled::new(lock.acquire().timeout(Duration::from_secs(10)));
        moves_on(Duration::from_secs(9)).await;
        assert_pending!(waiter.poll());
        moves_on(Duration::from_secs(2)).await;
        assert_eq!(waiter.rings(), 1, "the timer wakes it");
        assert_eq!(kind_of(assert_ready!(waiter.poll())), ErrorKind::TimedOut);
        drop(guard);
    });
}

#[test]
fn p17_neither_early_nor_late() {
    in_paused_time(async || {
        let place = Place::new();
        let lock = place.open();
        let _guard = held(&lock);
        for limit in [1_u64, 7, 1_000, 3_600_000].map(Duration::from_millis) {
            let begun = tokio::time::Instant::now();
            let error = lock.acquire().timeout(limit).await.expect_err("held");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            let waited = begun.elapsed();
            assert!(waited >= limit && waited <= limit + Duration::from_millis(2));
        }
    });
}

#[test]
fn granted_in_time_is_granted_however_late_it_is_polled() {
    in_paused_time(async || {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let mut waiter = Polled::pending(lock.acquire().timeout(Duration::from_secs(1)));
        drop(guard);
        moves_on(Duration::from_secs(5)).await;
        drop(assert_ready!(waiter.poll()).expect("offered before the limit"));
    });
}

#[test]
fn p18_extreme_limits() {
    in_paused_time(async || {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let days = |days: u64| Duration::from_secs(days * 86_400);
        for limit in [Duration::MAX, days(3_650), days(365_000)] {
            let mut waiter = Polled::pending(lock.acquire().timeout(limit));
            moves_on(days(1_000)).await;
            assert_pending!(waiter.poll());
        }
        let tiny = Duration::from_nanos(1);
        let mut waiter = Polled::pending(lock.acquire().timeout(tiny));
        moves_on(Duration::from_millis(2)).await;
        assert_eq!(kind_of(assert_ready!(waiter.poll())), ErrorKind::TimedOut);
        drop(guard);
        let mut free = Polled::new(lock.acquire().timeout(tiny));
        drop(assert_ready!(free.poll()).expect("one attempt at least"));
    });
}

#[test]
fn deadlines() {
    in_paused_time(async || {
        let place = Place::new();
        let lock = place.open();
        let now = Instant::now();
        let past = now.checked_sub(Duration::from_secs(1)).expect("a past");
        let mut free = Polled::new(lock.acquire().deadline(past));
        let guard = assert_ready!(free.poll()).expect("one attempt is made");
        let mut late = Polled::new(lock.acquire().deadline(past));
        assert_eq!(kind_of(assert_ready!(late.poll())), ErrorKind::TimedOut);
        let mut waiter = Polled::pending(lock.acquire().deadline(now + Duration::from_secs(60)));
        moves_on(Duration::from_secs(61)).await;
        assert_eq!(kind_of(assert_ready!(waiter.poll())), ErrorKind::TimedOut);
        drop(guard);
    });
}

#[test]
fn the_limit_of_the_options_and_how_a_call_overrides_it() {
    in_paused_time(async || {
        let place = Place::new();
        let limited = options().timeout(Duration::from_secs(1));
        let lock = place.open_with(limited);
        assert_eq!(lock.config().timeout, Some(Duration::from_secs(1)));
        let _guard = held(&lock);
        let mut plain = Polled::new(lock.acquire());
        let mut for_ever = Polled::new(lock.acquire().timeout(None));
        let mut longer = Polled::new(lock.acquire().timeout(Duration::from_secs(3)));
        assert_pending!(plain.poll());
        assert_pending!(for_ever.poll());
        assert_pending!(longer.poll());
        moves_on(Duration::from_secs(2)).await;
        assert_eq!(kind_of(assert_ready!(plain.poll())), ErrorKind::TimedOut);
        assert_pending!(longer.poll());
        moves_on(Duration::from_secs(2)).await;
        assert_eq!(kind_of(assert_ready!(longer.poll())), ErrorKind::TimedOut);
        moves_on(Duration::from_secs(1_000_000)).await;
        assert_pending!(for_ever.poll());
    });
}

/// A waiter that times out leaves the queue as a dropped one does.
#[test]
fn p11_timing_out_moves_the_rest_up() {
    in_paused_time(async || {
        let place = Place::new();
        let lock = place.open();
        let guard = held(&lock);
        let mut first = Polled::pending(lock.acquire().timeout(Duration::from_secs(1)));
        let (mut second, mut third) = (queued(&lock), queued(&lock));
        moves_on(Duration::from_secs(2)).await;
        assert_eq!(kind_of(assert_ready!(first.poll())), ErrorKind::TimedOut);
        drop(guard);
        assert_pending!(third.poll());
        drop(assert_ready!(second.poll()).expect("served"));
        drop(assert_ready!(third.poll()).expect("served"));
        place.assert_idle();
    });
}

#[test]
fn a_limit_without_a_runtime_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let lock = place.open();
    let guard = held(&lock);
    let mut waiter = Polled::new(lock.acquire().timeout(Duration::from_secs(1)));
    assert_eq!(
        kind_of(assert_ready!(waiter.poll())),
        ErrorKind::Unsupported
    );
    assert_eq!(lock.status().expect("status").waiters.len(), 0);
    drop(guard);
    drop(waiter);
    place.assert_idle();
}

#[test]
fn max_waiting_refuses_a_queue_that_is_too_long() {
    let place = Place::new();
    let lock = place.open();
    let guard = held(&lock);
    let most = |most| Polled::new(lock.acquire().max_waiting(most));
    assert_eq!(kind_of(assert_ready!(most(0).poll())), ErrorKind::Busy);
    let mut first = most(1);
    assert_pending!(first.poll());
    assert_eq!(kind_of(assert_ready!(most(1).poll())), ErrorKind::Busy);
    let mut second = most(2);
    assert_pending!(second.poll());
    drop(first);
    let mut third = most(2);
    assert_pending!(third.poll());
    drop(guard);
    drop(assert_ready!(second.poll()).expect("served"));
    drop(assert_ready!(third.poll()).expect("served"));
    drop(assert_ready!(most(0).poll()).expect("no line, no refusal"));
    place.assert_idle();
}

#[test]
fn max_waiting_counts_other_processes() {
    let place = Place::new();
    let lock = place.open();
    let outsider = place.outsider_holds();
    let waiting = place.outsider_waits(1);
    let mut refused = Polled::new(lock.acquire().max_waiting(1));
    assert_eq!(kind_of(assert_ready!(refused.poll())), ErrorKind::Busy);
    let mut joins = Polled::pending(lock.acquire().max_waiting(2));
    waiting.leaves_the_queue();
    outsider.release();
    drop(joins.finish().expect("served"));
    place.assert_idle();
}

#[test]
fn max_waiting_counts_own_tasks_and_the_living_of_other_processes_together() {
    let place = Place::new();
    let lock = place.open();
    let outsider = place.outsider_holds();
    let mut first = Polled::pending(lock.acquire());
    place.outsider_died_waiting(1);
    let mut second = Polled::pending(lock.acquire().max_waiting(2));
    place.outsider_died_waiting(2);
    let mut refused = Polled::new(lock.acquire().max_waiting(2));
    assert_eq!(kind_of(assert_ready!(refused.poll())), ErrorKind::Busy);
    outsider.release();
    drop(first.finish().expect("served"));
    drop(second.finish().expect("served"));
    place.assert_idle();
}

#[test]
fn max_waiting_does_not_count_the_dead() {
    let place = Place::new();
    let lock = place.open();
    place.outsider_died_waiting(1);
    let mut future = Polled::new(lock.acquire().max_waiting(0));
    drop(assert_ready!(future.poll()).expect("the lock is free"));
    place.assert_idle();
}

#[test]
fn on_wait_reports_the_position_once_a_second() {
    in_paused_time(async || {
        let place = Place::new();
        let lock = place.open_with(FifoLock::options().label("builder"));
        let guard = held(&lock);
        let (_first, heard) = (queued(&lock), Arc::new(Mutex::new(Vec::<Waiting>::new())));
        let ear = heard.clone();
        let told = move |line: &Waiting| ear.lock().expect("no panic").push(line.clone());
        let mut waiter = Polled::new(lock.acquire().on_wait(told));
        let heard = || heard.lock().expect("no panic").clone();
        assert_pending!(waiter.poll());
        assert_eq!(heard().len(), 1, "when the wait begins");
        assert_pending!(waiter.poll());
        assert_eq!(heard().len(), 1, "not with every poll");
        moves_on(Duration::from_millis(1001)).await;
        assert_eq!(waiter.rings(), 1);
        assert_pending!(waiter.poll());
        assert_eq!(heard().len(), 2);
        let last = heard().pop().expect("two");
        let holder = last.holder.clone().expect("a holder");
        assert_eq!(
            (last.position, holder.pid),
            (Some(2), Some(std::process::id()))
        );
        assert_eq!(holder.label.as_deref(), Some("builder"));
        assert!(
            last.to_string().starts_with("position 2 in the queue"),
            "{last}"
        );
        drop(guard);
    });
}

#[test]
fn on_wait_is_silent_when_the_lock_is_free() {
    in_paused_time(async || {
        let place = Place::new();
        let lock = place.open();
        let mut future = Polled::new(lock.acquire().on_wait(|line| panic!("{line}")));
        drop(assert_ready!(future.poll()).expect("free"));
    });
}

#[test]
fn on_wait_counts_other_processes_as_places() {
    in_paused_time(async || {
        let place = Place::new();
        let lock = place.open();
        let (_outsider, _before) = (place.outsider_holds(), place.outsider_waits(1));
        let (told, heard) = std::sync::mpsc::channel();
        let tell = move |line: &Waiting| told.send(line.position).expect("the test listens");
        let _waiter = Polled::pending(lock.acquire().on_wait(tell));
        assert_eq!(heard.try_recv(), Ok(Some(2)));
    });
}
