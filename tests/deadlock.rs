//! A task that waits for a lock that it holds itself gets a report.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stanchion::{ErrorKind, FifoLock, FifoRwLock, FifoSemaphore};

#[path = "conformance/support.rs"]
mod support;

use support::{Place, in_runtime, kind_of};

/// Long enough for the report, short for a test.
const LIMIT: Duration = Duration::from_millis(50);

/// Polls a wait once, in a task, which calls its listener.
async fn begins(wait: impl Future) {
    let wait = std::pin::pin!(wait);
    assert!(futures::poll!(wait).is_pending(), "it has to wait");
}

/// What is reported to a task that holds the lock and waits for it.
fn heard(lock: &FifoLock, handed_over: bool) -> Vec<(bool, String)> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = heard.clone();
    let lock = lock.clone();
    in_runtime(async move {
        let task = tokio::spawn(async move {
            let guard = lock.acquire().await.expect("free");
            let kept = handed_over.then(|| tokio::spawn(std::future::pending::<()>()));
            let waits = lock.acquire().on_wait(move |line| {
                let mut heard = ear.lock().expect("unpoisoned");
                heard.push((line.held_by_this_task(), line.to_string()));
            });
            begins(waits).await;
            drop((guard, kept));
        });
        task.await.expect("no panic");
    });
    heard.lock().expect("unpoisoned").clone()
}

#[test]
fn p42_a_task_that_waits_for_itself_gets_a_report() {
    let place = Place::new();
    let heard = heard(&place.open(), false);
    let (held, text) = heard.first().expect("a word");
    assert!(*held && text.contains("held by this task"), "{text}");
    place.assert_idle();
}

#[test]
fn another_task_is_not_suspected() {
    let place = Place::new();
    let lock = place.open();
    in_runtime(async move {
        let guard = lock.acquire().await.expect("free");
        let told = Arc::new(Mutex::new(None));
        let ear = told.clone();
        let waits = lock.acquire().on_wait(move |line| {
            *ear.lock().expect("unpoisoned") = Some(line.held_by_this_task());
        });
        tokio::spawn(begins(waits)).await.expect("no panic");
        assert_eq!(*told.lock().expect("unpoisoned"), Some(false));
        drop(guard);
    });
    place.assert_idle();
}

/// The lock went from task to task within the process.
#[test]
fn a_task_that_has_released_is_not_suspected() {
    let place = Place::new();
    let lock = place.open();
    let told = Arc::new(Mutex::new(None));
    let ear = told.clone();
    in_runtime(async move {
        let task = tokio::spawn(async move {
            let guard = lock.acquire().await.expect("free");
            let (next, (holds, held)) = (lock.clone(), tokio::sync::oneshot::channel());
            let next = tokio::spawn(async move {
                let guard = next.acquire().await.expect("its turn");
                holds.send(()).expect("the test waits");
                std::future::pending::<()>().await;
                drop(guard);
            });
            while lock.status().expect("status").waiters.is_empty() {
                tokio::task::yield_now().await;
            }
            drop(guard);
            held.await.expect("it holds");
            let waits = lock.acquire().on_wait(move |line| {
                *ear.lock().expect("unpoisoned") = Some(line.held_by_this_task());
            });
            begins(waits).await;
            next.abort();
        });
        task.await.expect("no panic");
    });
    assert_eq!(*told.lock().expect("unpoisoned"), Some(false));
}

#[test]
fn an_error_where_it_is_asked_for() {
    let place = Place::new();
    let options = FifoRwLock::options().deadlock_is_error(true);
    let lock = options.open(place.path()).expect("a lock");
    in_runtime(async move {
        let task = tokio::spawn(async move {
            let reader = lock.read().await.expect("free");
            assert_eq!(kind_of(lock.write().await), ErrorKind::Deadlock);
            let again = lock.read().await.expect("readers do not wait");
            drop((reader, again));
            drop(lock.write().await.expect("free"));
        });
        task.await.expect("no panic");
    });
}

#[test]
fn a_thread_that_blocks_for_itself_without_end_gets_an_error() {
    let place = Place::new();
    let lock = place.open();
    let guard = lock.acquire().block().expect("free");
    assert_eq!(kind_of(lock.acquire().block()), ErrorKind::Deadlock);
    let limited = lock.acquire().timeout(Some(LIMIT)).block();
    assert_eq!(kind_of(limited), ErrorKind::TimedOut, "it ends by itself");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| lock.acquire().block().map(drop));
        support::eventually("it waits", || {
            !place.tickets().is_empty() || lock.status().is_ok_and(|it| it.waiters.len() == 1)
        });
        drop(guard);
        other.join().expect("no panic").expect("its turn");
    });
    place.assert_idle();
}

#[test]
fn to_want_more_permits_is_no_fault() {
    let place = Place::new();
    let semaphore = FifoSemaphore::open(place.directory(), "pool", 2).expect("a semaphore");
    let one = semaphore.acquire().block().expect("free");
    let two = semaphore.acquire_many(1).block().expect("free");
    drop((one, two));
}

#[test]
fn a_wait_for_more_permits_is_no_wait_for_itself() {
    let place = Place::new();
    let semaphore = FifoSemaphore::open(place.directory(), "pool", 2).expect("a semaphore");
    let told = Arc::new(Mutex::new(None));
    let ear = told.clone();
    in_runtime(async move {
        let task = tokio::spawn(async move {
            let one = semaphore.acquire().await.expect("free");
            let more = semaphore.acquire_many(2).on_wait(move |line| {
                *ear.lock().expect("unpoisoned") = Some(line.held_by_this_task());
            });
            begins(more).await;
            drop(one);
        });
        task.await.expect("no panic");
    });
    assert_eq!(*told.lock().expect("unpoisoned"), Some(false));
}

#[test]
fn outside_of_tasks_there_is_no_report() {
    let place = Place::new();
    let lock = FifoLock::options().deadlock_is_error(true);
    let lock = lock.open(place.path()).expect("a lock");
    in_runtime(async move {
        let guard = lock.acquire().await.expect("free");
        let again = lock.acquire().timeout(LIMIT).await;
        assert_eq!(kind_of(again), ErrorKind::TimedOut, "this is no task");
        drop(guard);
    });
    place.assert_idle();
}
