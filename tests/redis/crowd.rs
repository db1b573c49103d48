//! Many waiters: all acquire, in order, whatever happens to some of them. Also what they cost the
//! server.

use std::time::{Duration, Instant};

use stanchion::Acquire;
use stanchion::redis::{Options, RedisClient, RedisGuard};

use crate::child::{NAME, assert_listeners};
use crate::crew::Member;
use crate::place::{LEASE, waiting};
use crate::proxy::Proxy;
use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime};

/// Each of 200 dead waiters would delay the next one by a claim window, 2 s.
const HANG: Duration = Duration::from_secs(60);

/// Longer than a test.
const SLOW: Duration = Duration::from_secs(600);
/// Few enough that a client sends them at once.
const HANDFUL: usize = 25;

fn options() -> Options {
    RedisClient::options().lease(LEASE)
}

fn queued(server: &Server) -> usize {
    server.ask(&["ZCARD", "{stanchion:a}:queue"])
}

/// Queues this many waits of one client, behind all that are queued. They begin in groups, so that
/// they arrive in the order of their polls.
fn in_line(
    server: &Server,
    client: &RedisClient,
    count: usize,
) -> Vec<Polled<Acquire<RedisGuard>>> {
    let before = queued(server);
    let lock = client.lock("a");
    let mut line: Vec<_> = (0..count).map(|_| Polled::new(lock.acquire())).collect();
    let mut arrived = before;
    for handful in line.chunks_mut(HANDFUL) {
        arrived += handful.len();
        for waiter in handful {
            assert!(waiter.poll().is_pending());
        }
        eventually("queued", || queued(server) == arrived);
    }
    line
}

/// Serves the waiters in turn. Returns the last token, and the longest time from a release to the
/// next grant.
fn serve(
    guard: RedisGuard,
    line: impl IntoIterator<Item = Polled<Acquire<RedisGuard>>>,
) -> (u64, Duration) {
    let (mut last, mut longest) = (guard.token(), Duration::ZERO);
    let mut released = Instant::now();
    in_runtime(async {
        guard.release().await.expect("released");
        for mut waiter in line {
            let next = std::future::poll_fn(|context| waiter.poll_with(context.waker()));
            let next = next.await.expect("its turn");
            longest = longest.max(released.elapsed());
            assert!(
                next.token() > last && !next.predecessor_crashed(),
                "in order"
            );
            last = next.token();
            released = Instant::now();
            next.release().await.expect("released");
        }
    });
    (last, longest)
}

#[test]
fn p09_a_thousand_waiters_of_one_client_acquire_in_order() {
    let server = need!(Server::start());
    // A waiter without a message would notice much later.
    let client = server.connect(RedisClient::options().patience(SLOW).claim_window(SLOW));
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    let line = in_line(&server, &client, 1000);
    let begun = Instant::now();
    let (_, longest) = serve(guard, line);
    println!("1,000 in {:?}, the longest {longest:?}", begun.elapsed());
    assert_eq!(queued(&server), 0);
}

/// All at once: they acquire in the order of their first polls, however many there are.
#[test]
fn p09_a_thousand_at_once_acquire_as_they_were_polled() {
    let server = need!(Server::start());
    let client = server.connect(options().patience(SLOW).claim_window(SLOW));
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut line: Vec<_> = (0..1000).map(|_| Polled::new(lock.acquire())).collect();
    line.iter_mut()
        .for_each(|it| assert!(it.poll().is_pending()));
    eventually("queued", || queued(&server) == line.len());
    in_runtime(async {
        guard.release().await.expect("released");
        let one = |(number, mut waiter): (usize, Polled<Acquire<RedisGuard>>)| async move {
            let next = std::future::poll_fn(|context| waiter.poll_with(context.waker()));
            let next = next.await.expect("its turn");
            let token = next.token();
            next.release().await.expect("released");
            (token, number)
        };
        let mut order = futures::future::join_all(line.into_iter().enumerate().map(one)).await;
        order.sort();
        let early = order.windows(2).find(|it| it[0].1 > it[1].1);
        assert_eq!(
            early, None,
            "one came in before another that was polled earlier"
        );
    });
}

const EACH: usize = 200;

/// Queues this many waits of this child, behind all that are queued.
fn queue_handful(server: &Server, child: &mut Member) {
    for first in (0..EACH).step_by(HANDFUL) {
        let before = waiting(server);
        child.tell(&format!("crowd {first} {HANDFUL}"));
        eventually("queued", || waiting(server) == before + HANDFUL);
    }
}

/// Waits for the next grant of a child. Returns its token, and its number among the child's waits.
fn next_grant(child: &mut Member) -> (u64, usize) {
    let line = child.hear();
    let (token, number) = line
        .strip_prefix("in ")
        .and_then(|it| it.split_once(' '))
        .expect("a token");
    (
        token.parse().expect("a token"),
        number.parse().expect("a number"),
    )
}

/// A thousand waits of five processes, two of which are killed: one before its first grant, one
/// during its first grants.
#[test]
fn p29_processes_killed_in_the_middle_of_a_thousand_delay_no_waiter() {
    let server = need!(Server::start());
    let mut crew: Vec<_> = (0..5).map(|_| Member::spawn(&server)).collect();
    let holder = server.connect(options());
    let guard = in_runtime(holder.lock(NAME).acquire()).expect("free");
    crew.iter_mut()
        .for_each(|child| queue_handful(&server, child));
    crew[1].kill();
    assert_listeners(&server, 5);
    let mut last = guard.token();
    let mut moved = Instant::now();
    in_runtime(guard.release()).expect("released");
    for (child, count) in [(0, EACH), (2, EACH), (3, 3), (4, EACH)] {
        for expected in 0..count {
            let (token, number) = next_grant(&mut crew[child]);
            assert!(token > last && number == expected, "in order");
            // Also behind the killed one, perhaps while it held the lock: that costs a lease.
            let delay = moved.elapsed();
            assert!(delay < HANG, "{delay:?} before {number} of {child}");
            (last, moved) = (token, Instant::now());
        }
        if child == 3 {
            crew[child].kill();
        }
    }
    assert_eq!(waiting(&server), 0);
}

#[test]
fn p29_the_last_of_a_hundred_processes_is_not_kept_waiting_by_ninety_eight_dead() {
    let server = need!(Server::start());
    let holder = server.connect(options());
    let guard = in_runtime(holder.lock(NAME).acquire()).expect("free");
    let mut line: Vec<_> = (0..100)
        .map(|_| Member::spawn_with(&server, &[("CHILD_PATIENCE", "600000")]))
        .collect();
    line.iter_mut().for_each(|it| it.queue(&server, "lock"));
    line[1..99].iter_mut().for_each(|it| it.kill());
    // From now on a wait for one of them would last longer than the test.
    assert_listeners(&server, 3);
    let mut last = guard.token();
    for index in [0, 99] {
        match index {
            0 => in_runtime(holder.lock(NAME).force_release(None))
                .map(drop)
                .expect("ended"),
            _ => line[0].tell("release"),
        }
        let (token, _) = line[index].hear_held();
        assert!(token > last);
        last = token;
    }
    drop(guard);
}

/// A host that vanishes closes no connection. Its waiters look alive until their patience is over.
#[test]
fn p29_fifty_waiters_of_a_host_that_vanished_cost_no_more_than_their_patience() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let near = server.connect(options());
    let far = in_runtime(options().quarantine(false).connect(proxy.url())).expect("a client");
    let guard = in_runtime(near.lock("a").acquire()).expect("free");
    let mut first = in_line(&server, &near, 1);
    let vanished = in_line(&server, &far, 50);
    let mut last = in_line(&server, &near, 1);
    proxy.stop();
    let begun = Instant::now();
    let (token, _) = serve(guard, first.pop());
    // Each dead waiter gets an offer, until all of them are overdue.
    let next = last[0].finish().expect("its turn");
    let took = begun.elapsed();
    println!("behind 50 of a host that vanished: {took:?}");
    assert!(took < HANG, "50 claim windows: {took:?}");
    assert!(next.token() > token);
    drop(vanished);
}

/// One message and two requests for each hand-over: the release, and the claim.
#[test]
fn a_hand_over_costs_one_message() {
    let server = need!(Server::start());
    // Nothing is due during this.
    let quiet = || {
        let options = RedisClient::options().lease(SLOW).patience(SLOW);
        options.claim_window(SLOW).response_timeout(SLOW)
    };
    let clients = [server.connect(quiet()), server.connect(quiet())];
    let guard = in_runtime(clients[0].lock("a").acquire()).expect("free");
    let line: Vec<_> = (0..40)
        .flat_map(|it| in_line(&server, &clients[it % 2], 1))
        .collect();
    server.forget_counts();
    let hand_overs = line.len() as u64;
    serve(guard, line);
    assert_eq!(server.calls("publish"), hand_overs);
    // And the last release.
    let requests = server.calls("evalsha") + server.calls("eval");
    assert!(
        requests <= hand_overs * 2 + 1,
        "{requests} for {hand_overs}"
    );
}

/// All waiters of a client send one request in each third of their patience, not one each.
#[test]
fn waiters_cost_one_request_for_each_heartbeat() {
    let server = need!(Server::start());
    let patience = Duration::from_millis(1500);
    let holder = server.connect(RedisClient::options().lease(SLOW));
    let waiters = RedisClient::options().lease(SLOW).patience(patience);
    let waiters = server.connect(waiters.response_timeout(SLOW));
    let _guard = in_runtime(holder.lock("a").acquire()).expect("free");
    for count in [1, 99] {
        let _line = in_line(&server, &waiters, count);
        let begun = Instant::now();
        server.forget_counts();
        let requests = || server.calls("evalsha") + server.calls("eval") + server.calls("ping");
        eventually("some heartbeats", || {
            assert_eq!(queued(&server), count, "all of them stay queued");
            std::thread::sleep(Duration::from_millis(50));
            requests() >= 5
        });
        let requests = requests();
        let heartbeats = begun.elapsed().as_millis() / (patience / 3).as_millis() + 1;
        assert!(
            u128::from(requests) <= heartbeats,
            "{requests} by {count}, for {heartbeats}"
        );
        assert_eq!(server.calls("publish"), 0);
        drop(_line);
        eventually("all have left", || queued(&server) == 0);
    }
}
