//! Waiting, with and without limits.

use std::time::{Duration, Instant};

use stanchion::{ErrorKind, Guard, Lock};

use crate::subject::{Subject, answer, assert_idle, assert_soon, held, queued, tried, turn};
use crate::support::{Polled, assert_ready, in_runtime, kind_of};

pub(crate) fn p12_a_failed_try_changes_nothing<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let guard = held::<S>(&lock);
    let waiter = queued::<S>(&lock);
    let before = subject.footprint();
    for _ in 0..3 {
        assert!(tried::<S>(&lock).is_none());
        assert!(tried::<S>(&subject.open()).is_none());
        assert_eq!(subject.footprint(), before);
    }
    drop((guard, waiter));
    assert_idle(&subject);
}

pub(crate) fn p16_zero_is_one_attempt<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let at_once = || Polled::new(lock.acquire().timeout(Duration::ZERO));
    let guard = answer::<S, _>(&mut at_once()).expect("one attempt is made");
    assert_eq!(kind_of(answer::<S, _>(&mut at_once())), ErrorKind::TimedOut);
    assert_eq!(subject.places(), 0);
    drop(guard);
    assert_idle(&subject);
}

pub(crate) fn p17_a_limit_is_kept<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let _guard = held::<S>(&lock);
    for limit in [1, 20, 50].map(Duration::from_millis) {
        let begun = Instant::now();
        let waited = lock.acquire().timeout(limit);
        assert_eq!(kind_of(in_runtime(waited)), ErrorKind::TimedOut);
        assert!(begun.elapsed() >= limit, "too early");
    }
}

pub(crate) fn p18_extreme_limits_are_honoured<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let limits = [Duration::MAX, Duration::from_nanos(1)];
    for limit in limits {
        let guard = in_runtime(lock.acquire().timeout(limit)).expect("the lock is free");
        let short = lock.acquire().timeout(Duration::from_nanos(1));
        assert_eq!(kind_of(in_runtime(short)), ErrorKind::TimedOut);
        in_runtime(async {
            let mut waits = Polled::new(lock.acquire().timeout(Duration::MAX));
            assert!(waits.poll().is_pending());
            drop(guard);
            drop(turn::<S>(&mut waits));
        });
    }
    assert_idle(&subject);
}

/// Ready at the first poll: there is nothing to wait for.
pub(crate) fn p20_a_free_lock_is_entered_at_once<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    for _ in 0..100 {
        let mut future = Polled::new(lock.acquire());
        let guard = answer::<S, _>(&mut future).expect("free");
        assert_eq!(guard.waited(), None, "there was no other holder");
        // On a server, only the answer wakes it.
        assert_eq!(future.rings(), usize::from(S::REMOTE));
        drop(guard);
    }
    assert_idle(&subject);
}

pub(crate) fn p21_a_release_wakes_the_next_one_only<S: Subject>() {
    let subject = S::new();
    let lock = subject.open_without_polling();
    let mut guard = held::<S>(&lock);
    let mut line: Vec<_> = (0..8).map(|_| queued::<S>(&lock)).collect();
    while !line.is_empty() {
        drop(guard);
        line[0].bell.wait_beyond(0);
        let woken = line.iter().filter(|waiter| waiter.rings() > 0).count();
        assert_eq!(woken, 1);
        guard = assert_ready!(line.remove(0).poll()).expect("woken for good reason");
        assert!(guard.waited().is_some(), "it was queued");
    }
    drop(guard);
    assert_idle(&subject);
}

pub(crate) fn p21_no_wake_up_is_lost_without_polling<S: Subject>() {
    const TASKS: usize = 20;
    let subject = S::new();
    in_runtime(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..TASKS {
            let lock = subject.open_without_polling();
            tasks.spawn(async move {
                for _ in 0..50 {
                    drop(lock.acquire().await.expect("the lock"));
                    tokio::task::yield_now().await;
                }
            });
        }
        tasks.join_all().await;
    });
    assert_idle(&subject);
}

/// A limit that the lock cannot count is refused at once, also while the lock is free.
pub(crate) fn a_limit_of_waiters_is_kept_or_refused_at_once<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let limited = |most| Polled::new(lock.acquire().max_waiting(most));
    let free = answer::<S, _>(&mut limited(3));
    match S::FAIR {
        true => drop(free.expect("there is no waiter")),
        false => assert_eq!(kind_of(free), ErrorKind::Unsupported),
    }
    assert_idle(&subject);
    let mut guard = None;
    assert_soon::<S>("it is free", || {
        guard = answer::<S, _>(&mut limited(0)).ok();
        guard.is_some()
    });
    assert_eq!(kind_of(answer::<S, _>(&mut limited(0))), ErrorKind::Busy);
    if !S::FAIR {
        assert_eq!(
            kind_of(answer::<S, _>(&mut limited(3))),
            ErrorKind::Unsupported
        );
    }
    drop(guard);
    assert_idle(&subject);
}
