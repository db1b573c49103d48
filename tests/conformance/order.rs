//! Order: first come, first served.

use std::sync::mpsc;
use std::time::Duration;

use stanchion::{ErrorKind, Lock};

use crate::subject::{Subject, Waiter, answer, assert_idle, held, offered, queued, tried};
use crate::support::{Polled, assert_pending, in_runtime, kind_of};

/// Serves the waiters, and asserts that each acquires in its turn.
fn assert_served_in_order<S: Subject>(waiters: &mut [Waiter<S>]) {
    for index in 0..waiters.len() {
        for later in &mut waiters[index + 1..] {
            assert_pending!(later.poll().map(drop));
        }
        drop(waiters[index].finish().expect("its turn"));
    }
}

pub(crate) fn p09_waiters_are_served_in_order<S: Subject>() {
    let subject = S::new();
    let lock = subject.open_without_polling();
    let guard = held::<S>(&lock);
    let mut waiters: Vec<_> = (0..100).map(|_| queued::<S>(&lock)).collect();
    drop(guard);
    assert_served_in_order::<S>(&mut waiters);
    assert_idle(&subject);
}

pub(crate) fn p09_handles_and_threads_share_one_line<S: Subject>() {
    const WAITERS: usize = 16;
    let subject = S::new();
    let guard = held::<S>(&subject.open());
    let (told, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        for number in 0..WAITERS {
            let (lock, told) = (subject.open(), told.clone());
            let mut waiter = queued::<S>(&lock);
            scope.spawn(move || {
                let guard = waiter.finish().expect("its turn");
                told.send(number).expect("the test listens");
                drop(guard);
            });
        }
        drop(guard);
    });
    let served: Vec<_> = heard.try_iter().collect();
    assert_eq!(served, (0..WAITERS).collect::<Vec<_>>());
    assert_idle(&subject);
}

pub(crate) fn p10_a_newcomer_never_passes_a_waiter<S: Subject>() {
    let subject = S::new();
    let (lock, newcomer) = (subject.open(), subject.open());
    let guard = held::<S>(&lock);
    let mut waiter = queued::<S>(&lock);
    assert!(tried::<S>(&newcomer).is_none(), "held and queued");
    let mut late = queued::<S>(&newcomer);
    drop(guard);
    assert_pending!(late.poll().map(drop));
    drop(waiter.finish().expect("first"));
    drop(late.finish().expect("second"));
    assert_idle(&subject);
}

/// At the moment of a release the lock belongs to the next waiter, although it was not polled yet.
pub(crate) fn p10_a_newcomer_never_overtakes_an_offer<S: Subject>() {
    let subject = S::new();
    let (lock, newcomer) = (subject.open(), subject.open());
    let guard = held::<S>(&lock);
    let mut waiter = queued::<S>(&lock);
    drop(guard);
    offered::<S>(&lock);
    assert!(tried::<S>(&newcomer).is_none(), "it is on offer");
    let mut refused = Polled::new(newcomer.acquire().timeout(Duration::ZERO));
    assert_eq!(kind_of(answer::<S, _>(&mut refused)), ErrorKind::TimedOut);
    let mut late = queued::<S>(&newcomer);
    drop(waiter.finish().expect("first"));
    drop(late.finish().expect("second"));
    assert_idle(&subject);
}

pub(crate) fn p11_leaving_changes_no_order<S: Subject>() {
    for pattern in 0_u32..32 {
        let subject = S::new();
        let lock = subject.open_without_polling();
        let guard = held::<S>(&lock);
        let line: Vec<_> = (0..5).map(|_| queued::<S>(&lock)).collect();
        let leaves = |index: usize| pattern & (1 << index) != 0;
        let mut rest = Vec::new();
        for (index, waiter) in line.into_iter().enumerate() {
            if !leaves(index) {
                rest.push(waiter);
            }
        }
        drop(guard);
        assert_served_in_order::<S>(&mut rest);
        assert_idle(&subject);
    }
}

pub(crate) fn p11_timing_out_changes_no_order<S: Subject>() {
    let subject = S::new();
    let lock = subject.open_without_polling();
    let guard = held::<S>(&lock);
    let mut first = queued::<S>(&lock);
    let leaves = lock.acquire().timeout(Duration::from_millis(5));
    assert_eq!(kind_of(in_runtime(leaves)), ErrorKind::TimedOut);
    let mut rest = vec![queued::<S>(&lock), queued::<S>(&lock)];
    drop(guard);
    drop(first.finish().expect("first"));
    assert_served_in_order::<S>(&mut rest);
    assert_idle(&subject);
}
