//! Waits that are not polled, given up, closed, or left behind by their runtime. Also limits of
//! permits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stanchion::redis::{Options, RedisClient};
use stanchion::{ErrorKind, Loss, Removal, acquire_all};

use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime, kind_of};

fn options() -> Options {
    RedisClient::options()
}

fn queued(server: &Server) -> usize {
    server.ask(&["ZCARD", "{stanchion:a}:queue"])
}

fn waits<F: Future>(server: &Server, future: F) -> Polled<F> {
    let before = queued(server);
    let future = Polled::pending(future);
    eventually("queued", || queued(server) > before);
    future
}

#[test]
fn p64_a_future_that_is_not_polled_is_bypassed_and_first_again() {
    let server = need!(Server::start());
    let window = Duration::from_secs(12);
    let client = server.connect(options().claim_window(window).patience(window * 10));
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut frozen = waits(&server, lock.acquire());
    let mut second = waits(&server, lock.acquire());
    let mut third = waits(&server, lock.acquire());
    let released = Instant::now();
    drop(guard);
    let guard = second.finish().expect("the frozen waiter is bypassed");
    assert!(released.elapsed() >= window / 2);
    assert!(frozen.poll().is_pending(), "its turn is over");
    eventually("queued again", || queued(&server) == 2);
    drop(guard);
    let guard = frozen.finish().expect("first again");
    assert!(third.poll().is_pending());
    drop(guard);
    drop(third.finish().expect("its turn"));
}

#[test]
fn p23_an_unused_client_ends() {
    let server = need!(Server::start());
    let client = server.connect(options().client_name("ends"));
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let waiter = waits(&server, lock.acquire());
    drop((client, lock));
    assert_eq!(server.connections("ends"), 1);
    drop(waiter);
    drop(guard);
    eventually("the connection is closed", || {
        server.connections("ends") == 0
    });
    let holds: usize = server.ask(&["ZCARD", "{stanchion:a}:hold"]);
    assert_eq!(
        (holds, queued(&server)),
        (0, 0),
        "everything was released first"
    );
}

#[test]
fn p26_a_runtime_that_ends_frees_what_its_tasks_had() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let held = runtime.block_on(lock.acquire()).expect("free");
    let mine = lock.clone();
    runtime.spawn(async move { mine.acquire().await });
    eventually("queued", || queued(&server) == 1);
    runtime.shutdown_background();
    eventually("its waiter is gone", || queued(&server) == 0);
    assert!(held.is_held(), "the guard belongs to no runtime");
    drop(held);
    drop(
        Polled::new(lock.acquire())
            .finish()
            .expect("free, and no runtime is needed"),
    );
}

#[test]
fn closing_ends_waits_and_leaves_guards() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiter = waits(&server, lock.acquire());
    client.close();
    assert_eq!(kind_of(waiter.finish()), ErrorKind::Closed);
    assert_eq!(kind_of(in_runtime(lock.acquire())), ErrorKind::Closed);
    assert_eq!(kind_of(in_runtime(lock.try_acquire())), ErrorKind::Closed);
    assert!(guard.is_held());
    in_runtime(guard.release()).expect("released");
    eventually("no waiter", || queued(&server) == 0);
}

#[test]
fn too_long_a_queue_is_refused() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let _guard = in_runtime(lock.acquire().max_waiting(0)).expect("there is no other waiter");
    assert_eq!(
        kind_of(in_runtime(lock.acquire().max_waiting(0))),
        ErrorKind::Busy
    );
    let _one = waits(&server, lock.acquire().max_waiting(1));
    let error = in_runtime(lock.acquire().max_waiting(1)).expect_err("one waits");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(queued(&server), 1, "a refused request leaves nothing");
}

#[test]
fn the_position_is_reported() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let _guard = in_runtime(lock.acquire()).expect("free");
    let _first = waits(&server, lock.acquire());
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let second = lock.acquire().on_wait(move |waiting| {
        let _ = tell.send(waiting.position);
    });
    in_runtime(async {
        tokio::select! {
            _ = second => panic!("it is the second"),
            () = async { while heard.recv().await.expect("a place") != Some(2) {} } => {}
        }
    });
}

#[test]
fn several_locks_are_taken_in_one_order() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let (one, other) = (client.lock("one"), client.rwlock("other"));
    in_runtime(async {
        let mut tasks = tokio::task::JoinSet::new();
        for turn in 0..8 {
            let (one, other) = (one.clone(), other.clone());
            tasks.spawn(async move {
                for _ in 0..20 {
                    let (one, other) = (one.acquire().into(), other.write().into());
                    let both: [stanchion::Request; 2] = match turn % 2 {
                        0 => [one, other],
                        _ => [other, one],
                    };
                    let both = acquire_all(both).await.expect("both");
                    both.release().await.expect("released");
                }
            });
        }
        tasks.join_all().await;
    });
    let same = [one.acquire(), one.acquire()];
    assert_eq!(kind_of(in_runtime(acquire_all(same))), ErrorKind::Deadlock);
}

#[test]
fn p52_there_are_never_more_holders_than_the_limit() {
    const LIMIT: usize = 5;
    let server = need!(Server::start());
    let clients = [server.connect(options()), server.connect(options())];
    let inside = Arc::new(AtomicUsize::new(0));
    in_runtime(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..16_u32 {
            let semaphore = clients[number as usize % 2].semaphore("a", LIMIT as u32);
            let (semaphore, inside) = (semaphore.expect("a semaphore"), inside.clone());
            tasks.spawn(async move {
                for round in 0..25 {
                    let wanted = 1 + (number + round) % LIMIT as u32;
                    let permits = semaphore.acquire_many(wanted).await.expect("permits");
                    let now = inside.fetch_add(wanted as usize, Ordering::SeqCst) + wanted as usize;
                    assert!(now <= LIMIT, "{now} holders");
                    tokio::task::yield_now().await;
                    inside.fetch_sub(wanted as usize, Ordering::SeqCst);
                    drop(permits);
                }
            });
        }
        tasks.join_all().await;
    });
}

#[test]
fn p55_a_big_request_is_not_overtaken_by_small_ones() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let semaphore = client.semaphore("a", 3).expect("a semaphore");
    let one = in_runtime(semaphore.acquire()).expect("free");
    let mut all = waits(&server, semaphore.acquire_many(3));
    let tried = in_runtime(semaphore.try_acquire()).expect("an answer");
    assert!(tried.is_none(), "two are free, and there is a waiter");
    let mut small = waits(&server, semaphore.acquire());
    drop(one);
    let permits = all.finish().expect("all of them");
    assert!(small.poll().is_pending());
    drop(permits);
    drop(small.finish().expect("one"));
}

#[test]
fn p54_invalid_requests_are_refused_and_affect_no_other() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let semaphore = client.semaphore("a", 3).expect("a semaphore");
    for wanted in [0, 4, u32::MAX] {
        let refused = kind_of(in_runtime(semaphore.acquire_many(wanted)));
        assert_eq!(refused, ErrorKind::InvalidInput);
        let refused = kind_of(in_runtime(semaphore.try_acquire_many(wanted)));
        assert_eq!(refused, ErrorKind::InvalidInput);
    }
    for permits in [0, u32::MAX] {
        assert_eq!(
            kind_of(client.semaphore("a", permits)),
            ErrorKind::InvalidInput
        );
    }
    drop(in_runtime(semaphore.acquire_many(3)).expect("free"));
}

#[test]
fn p18_options_that_cannot_be_meant_are_refused() {
    let server = need!(Server::start());
    let second = Duration::from_secs(1);
    for wrong in [
        options().lease(Duration::ZERO),
        options().lease(Duration::MAX),
        options().patience(Duration::from_nanos(1)),
        options().claim_window(Duration::MAX),
        options().lock_delay(second * 4000),
        options().poll_interval(Duration::ZERO),
        options().response_timeout(Duration::ZERO),
        options().namespace(""),
        options().namespace("a{b}"),
        options().client_name("with spaces"),
    ] {
        let refused = in_runtime(wrong.clone().connect(server.url()));
        assert_eq!(kind_of(refused), ErrorKind::InvalidInput, "{wrong:?}");
    }
}

#[test]
fn force_ends_a_hold_and_its_holder_hears_of_it() {
    let server = need!(Server::start());
    let (mine, theirs) = (server.connect(options()), server.connect(options()));
    let guard = in_runtime(mine.lock("a").acquire()).expect("free");
    let other = theirs.lock("a");
    assert_eq!(
        in_runtime(other.force_release(1)).expect("an answer"),
        0,
        "another token"
    );
    let mut waiter = waits(&server, other.acquire());
    let ended = in_runtime(other.force_release(guard.token())).expect("an answer");
    assert_eq!(ended, 1);
    assert_eq!(in_runtime(guard.lost()), Loss::Revoked);
    let next = waiter.finish().expect("its turn");
    assert!(next.predecessor_crashed() && next.token() > guard.token());
    assert_eq!(kind_of(in_runtime(guard.release())), ErrorKind::Lost);
    assert!(next.is_held());
}

#[test]
fn a_delay_follows_a_hold_that_was_not_released() {
    let server = need!(Server::start());
    let delay = Duration::from_millis(400);
    let client = server.connect(options().lock_delay(delay));
    let lock = client.lock("a");
    in_runtime(async {
        lock.acquire()
            .await
            .expect("free")
            .release()
            .await
            .expect("released");
        let guard = lock
            .try_acquire()
            .await
            .expect("an answer")
            .expect("no delay");
        let begun = Instant::now();
        lock.force_release(None).await.expect("ended");
        let next = lock.acquire().await.expect("after the delay");
        assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
        drop((guard, next));
    });
}

#[test]
fn p47_a_hold_is_not_renewed_beyond_its_most() {
    let server = need!(Server::start());
    let (lease, most) = (Duration::from_secs(3), Duration::from_millis(10));
    let client = server.connect(options().lease(lease).max_hold(most));
    let begun = Instant::now();
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    // Its renewal would be due after a third of the lease.
    assert_eq!(in_runtime(guard.lost()), Loss::Expired);
    assert!(begun.elapsed() >= lease * 3 / 4, "as long as its lease");
}

#[test]
fn an_idle_lock_is_removed_with_all_its_keys() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let keys = || server.ask::<Vec<String>>(&["KEYS", "*"]).len();
    let guard = in_runtime(lock.acquire()).expect("free");
    assert_eq!(
        in_runtime(lock.remove()).expect("an answer"),
        Removal::InUse
    );
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    assert_eq!(
        in_runtime(lock.remove()).expect("an answer"),
        Removal::Removed
    );
    assert_eq!(keys(), 0);
    let guard = in_runtime(lock.acquire()).expect("free");
    assert!(guard.token() > token);
}

/// Unused keys expire.
#[test]
fn p59_every_key_but_the_token_ends_by_itself() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.rwlock("a");
    let guard = in_runtime(lock.read()).expect("free");
    let _waiter = waits(&server, lock.write());
    let keys: Vec<String> = server.ask(&["KEYS", "*"]);
    assert_eq!(keys.len(), 6, "{keys:?}");
    for key in &keys {
        let ttl: i64 = server.ask(&["TTL", key]);
        match key.ends_with("fence") {
            true => assert_eq!(ttl, -1),
            false => assert!(ttl > 3600, "{key}: {ttl}"),
        }
    }
    drop(guard);
}

/// A reader, and a holder of a permit, of another client.
#[test]
fn waiters_learn_who_shares_the_lock() {
    let server = need!(Server::start());
    let theirs = server.connect(options().label("theirs"));
    let (reader, permit) = (theirs.rwlock("shared"), theirs.semaphore("two", 2));
    let permit = permit.expect("a semaphore");
    let _reads = in_runtime(reader.read()).expect("free");
    let _one = in_runtime(permit.acquire()).expect("free");

    let mine = server.connect(options());
    let semaphore = mine.semaphore("two", 2).expect("a semaphore");
    fn named<G: stanchion::Guard>(wait: stanchion::Acquire<G>) -> String {
        let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let wait = wait.on_wait(move |waiting| _ = tell.send(waiting.clone()));
        in_runtime(async {
            tokio::select! {
                _ = wait => panic!("it is held"),
                line = heard.recv() => {
                    let line = line.expect("a line");
                    let holder = line.holder.clone().expect("a holder");
                    assert_eq!(holder.label.as_deref(), Some("theirs"), "{line}");
                    line.to_string()
                }
            }
        })
    }
    for line in [
        named(mine.rwlock("shared").write()),
        named(semaphore.acquire_many(2)),
    ] {
        assert!(line.contains("held by pid"), "{line}");
    }
}
