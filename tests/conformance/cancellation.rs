//! Cancelling at every point: nothing is left.

use std::sync::Arc;

use stanchion::{Guard, Lock};

use crate::subject::{Subject, answer, assert_idle, held, queued, tried, turn};
use crate::support::{Polled, Random, assert_pending, eventually, in_runtime};

pub(crate) fn p23_dropping_at_every_stage_frees_the_place<S: Subject>() {
    // Before the first poll, while queued, and with an offer that is not claimed.
    for stage in 0..3 {
        let subject = S::new();
        let lock = subject.open_without_polling();
        let guard = held::<S>(&lock);
        let mut dropped = Polled::new(lock.acquire());
        if stage > 0 {
            assert_pending!(dropped.poll().map(drop));
        }
        let mut next = queued::<S>(&lock);
        if stage < 2 {
            drop(dropped);
            drop(guard);
        } else {
            drop(guard);
            // Without a queue the other waiter may be next.
            let turn_of_either = || dropped.rings() > 0 || (!S::FAIR && next.rings() > 0);
            eventually("an offer", turn_of_either);
            drop(dropped);
        }
        drop(next.finish().expect("moved up"));
        drop(next);
        assert_idle(&subject);
    }
}

pub(crate) fn p24_a_cancelled_acquire_never_releases_a_later_claim<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let mut done = Polled::new(lock.acquire());
    drop(answer::<S, _>(&mut done).expect("free"));
    let guard = held::<S>(&lock);
    let cancelled = queued::<S>(&lock);
    let mut next = queued::<S>(&lock);
    drop(guard);
    drop(cancelled);
    let guard = turn::<S>(&mut next);
    drop((done, next));
    assert!(guard.is_held());
    assert!(tried::<S>(&lock).is_none());
    drop(guard);
    assert_idle(&subject);
}

pub(crate) fn p25_a_cancelled_release_completes<S: Subject>() {
    let subject = S::new();
    let lock = subject.open_without_polling();
    let guard = held::<S>(&lock);
    let mut next = queued::<S>(&lock);
    drop(guard.release());
    let guard = next.finish().expect("released by the drop");
    let mut release = Polled::new(guard.release());
    let _ = release.poll();
    drop(release);
    eventually("released", || tried::<S>(&lock).is_some());
    assert_idle(&subject);
}

pub(crate) fn p25_an_aborted_holder_releases<S: Subject>() {
    let subject = S::new();
    let lock = Arc::new(subject.open_without_polling());
    in_runtime(async {
        let (inside, is_inside) = tokio::sync::oneshot::channel();
        let mine = lock.clone();
        let task = tokio::spawn(async move {
            let _guard = mine.acquire().await.expect("free");
            inside.send(()).expect("the test listens");
            std::future::pending::<()>().await;
        });
        is_inside.await.expect("inside");
        task.abort();
        drop(lock.acquire().await.expect("released"));
        assert!(task.await.expect_err("aborted").is_cancelled());
    });
    assert_idle(&subject);
}

/// A hold may last for days, and each task of a service may ask for its loss.
pub(crate) fn p62_a_future_of_a_loss_that_is_dropped_keeps_no_waker<S: Subject>() {
    let subject = S::new();
    let lock = subject.open_without_polling();
    let guard = held::<S>(&lock);
    let mut kept = Polled::new(guard.lost());
    let mut dropped = Polled::new(guard.lost());
    for lost in [&mut kept, &mut dropped] {
        assert_pending!(lost.poll());
        assert_pending!(lost.poll());
    }
    let bell = dropped.bell.clone();
    drop(dropped);
    assert_eq!(Arc::strong_count(&bell), 1, "its waker is gone");
    assert_pending!(kept.poll());
    drop((kept, guard));
    assert_idle(&subject);
}

/// Many waiters begin, many leave early. In the end the lock uses as many resources as before.
pub(crate) fn p62_a_storm_leaves_nothing<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    drop(held::<S>(&lock));
    let quiet = subject.resources();
    let mut random = Random::new(62);
    for _ in 0..50 {
        let guard = held::<S>(&lock);
        let mut line: Vec<_> = (0..20).map(|_| queued::<S>(&lock)).collect();
        while line.len() > 10 {
            let index = random.below(line.len() as u64) as usize;
            drop(line.swap_remove(index));
        }
        drop(guard);
        // In any order of drops and grants: a waiter that is dropped passes on its offer.
        let kept = line.split_off(5);
        drop(line);
        drop(kept);
    }
    assert_idle(&subject);
    // The first contention may open what is kept for the next: a bounded number, not one for each
    // of a thousand.
    eventually("few descriptors", || subject.resources() <= quiet + 4);
    drop(lock);
    eventually("everything is released", || subject.resources() == 0);
}
