//! The three ways to wait, and what happens to futures that are not polled.

use std::time::Duration;

use stanchion::{FileLock, Wait};

use crate::support::{Place, Polled, SAFETY, assert_pending, eventually, in_runtime};
use crate::{by_events, held, open, queued};

fn threads_in_the_lock_call() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a list of threads");
    let names = tasks.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("comm")).ok());
    names
        .filter(|name| name.trim() == "stanchion-flock")
        .count()
}

fn unlock(file: &std::fs::File) {
    fs2::FileExt::unlock(file).expect("unlocked");
}

/// An unlock without a close causes no event. Only a thread in the lock call is woken.
#[test]
fn blocking_wakes_at_an_unlock_without_a_close() {
    let place = Place::new();
    let file = std::fs::File::create(place.path()).expect("a file");
    fs2::FileExt::lock_exclusive(&file).expect("locked");
    let lock = open(&place, by_events().wait(Wait::Blocking));
    let mut waiter = queued(&lock);
    eventually("a thread sits in the call", || {
        threads_in_the_lock_call() > 0
    });
    unlock(&file);
    let guard = waiter.finish().expect("its turn");
    assert!(guard.waited().is_some());
    drop(guard);
    eventually("the thread has gone", || threads_in_the_lock_call() == 0);
}

/// A watching waiter finds it by the slow poll.
#[test]
fn watching_finds_an_unlock_without_a_close() {
    let place = Place::new();
    let file = std::fs::File::create(place.path()).expect("a file");
    fs2::FileExt::lock_exclusive(&file).expect("locked");
    let lock = open(&place, FileLock::options());
    let mut waiter = queued(&lock);
    unlock(&file);
    drop(waiter.finish().expect("its turn"));
}

#[test]
fn a_lock_that_comes_for_a_dropped_wait_goes_back() {
    let place = Place::new();
    for wait in [Wait::Watch, Wait::Blocking] {
        let lock = open(&place, by_events().wait(wait));
        let outsider = place.outsider_holds();
        let waiters: Vec<_> = (0..8).map(|_| queued(&lock)).collect();
        drop(waiters);
        outsider.release();
        eventually("free", || lock.try_acquire().expect("no error").is_some());
        eventually("every file is closed", || place.descriptors() == 0);
    }
}

/// Many more waiters than may block a thread: the others poll. Neither the pool nor the shutdown of
/// the runtime waits for any of them.
#[test]
fn a_thousand_blocked_waiters_leave_the_pool_and_the_shutdown_alone() {
    const WAITERS: usize = 1000;
    let place = Place::new();
    let lock = open(&place, FileLock::options().wait(Wait::Blocking));
    let guard = held(&lock);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (began, begun) = std::sync::mpsc::channel();
    for _ in 0..WAITERS {
        let (lock, began) = (lock.clone(), began.clone());
        runtime.spawn(async move {
            let mut waiting = std::pin::pin!(lock.acquire());
            let first = futures::poll!(waiting.as_mut());
            began.send(first.is_pending()).expect("the test listens");
            drop(waiting.await);
        });
    }
    assert!(begun.iter().take(WAITERS).all(|waits| waits));
    assert!(threads_in_the_lock_call() <= 64);
    let beside = place.directory().join("beside");
    runtime.block_on(async {
        let write = tokio::fs::write(&beside, "works");
        tokio::time::timeout(SAFETY, write)
            .await
            .expect("in time")
            .expect("written");
    });
    // The threads are blocked until the guard is dropped, so a shutdown that waited for them would
    // never end.
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        done.send(()).expect("the test listens");
    });
    let ended = is_done.recv_timeout(SAFETY);
    ended.expect("the shutdown does not wait for blocked threads");
    drop(guard);
    eventually("free", || lock.try_acquire().expect("no error").is_some());
    eventually("every file is closed", || place.descriptors() == 0);
}

/// A future that acquired the lock and is not polled releases it after two seconds. It tries again
/// when it is polled.
#[test]
fn a_lock_that_is_not_taken_goes_to_others() {
    let place = Place::new();
    for wait in [Wait::Watch, Wait::Blocking] {
        let lock = open(&place, by_events().wait(wait));
        let guard = held(&lock);
        let mut unpolled = queued(&lock);
        drop(guard);
        unpolled.bell.wait_beyond(0);
        assert!(
            lock.try_acquire().expect("no error").is_none(),
            "kept for it"
        );
        let mut other = queued(&lock);
        let guard = other.finish().expect("the unpolled future released it");
        assert_pending!(unpolled.poll().map(drop));
        drop(guard);
        drop(unpolled.finish().expect("polled again"));
    }
    eventually("every file is closed", || place.descriptors() == 0);
}

#[test]
fn a_wait_follows_the_path_to_another_file() {
    let place = Place::new();
    for wait in [Wait::Watch, Wait::Blocking] {
        let options = FileLock::options().poll_interval(Duration::from_millis(20));
        let lock = open(&place, options.wait(wait));
        let first = held(&lock);
        let mut waiter = queued(&lock);
        std::fs::rename(place.path(), place.directory().join("aside")).expect("renamed");
        std::fs::write(place.path(), "").expect("written");
        let guard = waiter.finish().expect("the new one is free");
        assert!(guard.is_held() && !first.is_held());
        drop((guard, first));
    }
}

#[test]
fn the_wait_is_reported_without_a_position() {
    let place = Place::new();
    let lock = open(&place, FileLock::options());
    let _guard = held(&lock);
    let (tell, told) = std::sync::mpsc::channel();
    in_runtime(async {
        let heard = move |line: &stanchion::Waiting| {
            let _ = tell.send((line.position, line.holder.clone(), line.to_string()));
        };
        let wait = std::pin::pin!(lock.acquire().on_wait(heard));
        assert!(futures::poll!(wait).is_pending(), "it is held");
    });
    let (place, holder, text) = told.recv().expect("told");
    assert_eq!(place, None);
    assert_eq!(holder.and_then(|it| it.pid), Some(std::process::id()));
    assert!(text.starts_with("waiting for "), "{text}");
}

#[test]
fn threads_without_a_runtime_can_wait() {
    let place = Place::new();
    let lock = open(&place, by_events());
    let guard = held(&lock);
    let late = lock
        .acquire()
        .timeout(Some(Duration::from_millis(5)))
        .block();
    assert_eq!(
        crate::support::kind_of(late),
        stanchion::ErrorKind::TimedOut
    );
    let other = lock.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(()).expect("the test listens");
        drop(other.acquire().block().expect("its turn"));
    });
    told.recv().expect("it begins");
    drop(guard);
    thread.join().expect("a thread");
    // Reads and writes work without a runtime too.
    let mut file = held(&lock);
    let plain = file.blocking_as_std().expect("plain");
    std::io::Write::write_all(plain, b"words").expect("written");
    file.release().block().expect("released");
    assert_eq!(std::fs::read(place.path()).expect("read"), b"words");
    let inside = in_runtime(async { lock.acquire().block() });
    assert_eq!(
        crate::support::kind_of(inside),
        stanchion::ErrorKind::Unsupported
    );
}

/// Polled once more after the end, for example by a `select!` in a loop.
#[test]
fn a_finished_wait_stays_pending() {
    let place = Place::new();
    let lock = open(&place, FileLock::options());
    let mut done = Polled::new(lock.acquire());
    drop(done.finish().expect("free"));
    assert_pending!(done.poll().map(drop));
}

/// A waker is foreign code and may panic. Only its own task is affected.
#[test]
fn a_waker_that_panics_stops_no_other() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: std::sync::Arc<Self>) {
            std::panic::resume_unwind(Box::new("a bad waker"));
        }
    }
    for wait in [Wait::Watch, Wait::Blocking] {
        let place = Place::new();
        let lock = open(&place, by_events().wait(wait));
        let guard = held(&lock);
        let bad = std::task::Waker::from(std::sync::Arc::new(Panics));
        let mut victim = Polled::new(lock.acquire());
        assert_pending!(victim.poll_with(&bad).map(drop));
        drop(guard);
        eventually("it came for the victim", || {
            lock.try_acquire().expect("no error").is_none()
        });
        let mut other = queued(&lock);
        drop(victim);
        drop(other.finish().expect("its turn"));
        let fair = place.open();
        let guard = fair.try_acquire().expect("no error").expect("free");
        let mut waiter = queued(&lock);
        drop(guard);
        drop(waiter.finish().expect("its turn"));
    }
}

/// A wait that was idle checks what is at the path, as at its beginning.
#[test]
fn p33_an_idle_waiter_takes_nothing_but_a_file() {
    let place = Place::new();
    let lock = open(&place, by_events().create_new(true));
    let guard = held(&lock);
    let plain = open(&place, by_events());
    let mut unpolled = queued(&plain);
    drop(guard);
    unpolled.bell.wait_beyond(0);
    let mut other = queued(&plain);
    drop(other.finish().expect("the unpolled future released it"));
    std::fs::remove_file(place.path()).expect("removed");
    std::fs::create_dir(place.path()).expect("a directory");
    unpolled.finish().expect_err("it is a directory");
}
