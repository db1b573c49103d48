//! What a network can do between locks and their server: lose messages, cut connections, be slow,
//! stop.

use std::time::{Duration, Instant};

use stanchion::redis::{Options, RedisClient};
use stanchion::{ErrorKind, Loss};

use crate::crew::Member;
use crate::gate::{Crowd, rounds};
use crate::place::waiting;
use crate::proxy::Proxy;
use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime, kind_of};

/// Long enough that no hold is lost because the machine is slow.
const LEASE: Duration = Duration::from_secs(12);
/// Waiters report in each third of it. Long enough that no queue entry is lost because the machine
/// is slow.
const PATIENCE: Duration = Duration::from_secs(12);

fn options() -> Options {
    let options = RedisClient::options().quarantine(false).lease(LEASE);
    // Longer than a lease: a waiter that is disconnected for one is still queued.
    options.unavailable_after(LEASE * 10)
}

fn connect(proxy: &Proxy, options: Options) -> RedisClient {
    in_runtime(options.connect(proxy.url())).expect("a client")
}

fn through(proxy: &Proxy) -> [(&'static str, String); 3] {
    let millis = |it: Duration| it.as_millis().to_string();
    [
        ("CHILD_URL", proxy.url()),
        ("CHILD_PATIENCE", millis(PATIENCE)),
        ("CHILD_LEASE", millis(LEASE)),
    ]
}

fn as_words<'a>(environment: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    environment
        .iter()
        .map(|(name, value)| (*name, &value[..]))
        .collect()
}

fn queued(server: &Server) -> usize {
    server.ask(&["ZCARD", "{stanchion:a}:queue"])
}

/// A lost message costs no more than a heartbeat: no waiter is forgotten or overtaken.
#[test]
fn p09_lost_messages_cost_a_heartbeat_and_no_place() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let environment = through(&proxy);
    let environment = as_words(&environment);
    let mut crew: Vec<_> = (0..6)
        .map(|_| Member::spawn_with(&server, &environment))
        .collect();
    let (mut last, _) = crew[0].hold("lock");
    proxy.lose(30);
    let (mut holder, mut longest) = (0, Duration::ZERO);
    for _ in 0..rounds(4) {
        // All others are queued, in this order.
        let line: Vec<_> = (0..crew.len())
            .map(|it| (holder + 1 + it) % crew.len())
            .collect();
        let line = &line[..crew.len() - 1];
        for &next in line {
            crew[next].queue(&server, "lock");
        }
        for &next in line {
            let released = Instant::now();
            crew[holder].tell("release");
            let (token, crashed) = crew[next].hear_held();
            longest = longest.max(released.elapsed());
            assert_eq!(crew[holder].hear(), "released");
            assert!(token > last && !crashed, "one by one");
            (last, holder) = (token, next);
        }
        assert_eq!(waiting(&server), 0);
    }
    let (messages, swallowed) = proxy.messages();
    assert!(
        swallowed > 0 && swallowed < messages,
        "{swallowed} of {messages}"
    );
    println!("{swallowed} of {messages} messages lost, longest hand-over {longest:?}");
}

#[test]
fn p01_connections_that_break_again_and_again_allow_no_two_holders() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let environment = through(&proxy);
    let crowd = Crowd::begin(6, &server, &as_words(&environment));
    for _ in 0..rounds(12) {
        proxy.cut();
        crowd.make_progress();
    }
    let all = crowd.end();
    assert_eq!((all.overlaps, all.fallen), (0, 0), "{all:?}");
    assert_eq!(all.unavailable, 0, "{all:?}");
}

#[test]
fn p47_a_slow_network_is_slow_and_nothing_else() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    proxy.delay(Duration::from_millis(50));
    let client = connect(&proxy, options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiters: Vec<_> = (0..4).map(|_| Polled::new(lock.acquire())).collect();
    waiters
        .iter_mut()
        .for_each(|it| assert!(it.poll().is_pending()));
    eventually("queued", || queued(&server) == waiters.len());
    // Longer than a lease, by the clock of the server.
    let begun = Instant::now();
    eventually("more than a lease", || {
        std::thread::sleep(Duration::from_millis(20));
        assert!(guard.is_held());
        begun.elapsed() > LEASE + Duration::from_secs(1)
    });
    let mut last = guard.token();
    in_runtime(guard.release()).expect("released");
    for waiter in &mut waiters {
        let next = waiter.finish().expect("its turn");
        assert!(next.token() > last && next.is_held() && !next.predecessor_crashed());
        last = next.token();
        in_runtime(next.release()).expect("released");
    }
}

/// Answers that arrive later than a sixth of the lease do not count.
#[test]
fn p48_a_network_too_slow_for_the_lease_is_a_loss_in_time() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let client = connect(&proxy, options().unavailable_after(LEASE));
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    proxy.delay(LEASE / 2);
    assert_eq!(in_runtime(guard.lost()), Loss::Expired);
    assert!(!guard.is_held());
    assert_eq!(
        kind_of(in_runtime(client.lock("b").acquire())),
        ErrorKind::Unavailable
    );
    proxy.delay(Duration::ZERO);
    let next = in_runtime(client.lock("a").acquire()).expect("connected again");
    assert!(next.token() > guard.token());
}

/// Nothing is refused and nothing arrives. The holder has lost the lock before the next grant, and
/// both continue when the network does.
#[test]
fn p48_a_holder_behind_a_stopped_network_has_lost_in_time() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let (far, near) = (connect(&proxy, options()), server.connect(options()));
    let guard = in_runtime(far.lock("a").acquire()).expect("free");
    let mut waiter = Polled::pending(far.lock("a").acquire());
    eventually("queued", || queued(&server) == 1);
    let mut next = Polled::pending(near.lock("a").acquire());
    eventually("queued", || queued(&server) == 2);
    proxy.stop();
    let taken = next.finish().expect("its turn");
    assert!(!guard.is_held(), "first the loss, then the next");
    assert_eq!(in_runtime(guard.lost()), Loss::Expired);
    assert!(taken.token() > guard.token() && taken.predecessor_crashed());
    proxy.resume();
    drop(in_runtime(far.lock("b").acquire()).expect("connected again"));
    assert_eq!(kind_of(in_runtime(guard.release())), ErrorKind::Lost);
    // The bypassed waiter comes back, and acquires after this one.
    eventually("queued again", || queued(&server) == 1);
    assert!(waiter.poll().is_pending() && taken.is_held());
    in_runtime(taken.release()).expect("released");
    drop(waiter.finish().expect("its turn"));
}

#[test]
fn p45_a_server_that_accepts_and_says_nothing_is_unavailable() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    proxy.stop();
    let error = in_runtime(options().connect(proxy.url())).expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // Also when it stops answering later.
    proxy.resume();
    let patient = Duration::from_secs(2);
    let client = connect(&proxy, options().unavailable_after(patient));
    proxy.stop();
    let begun = Instant::now();
    assert_eq!(
        kind_of(in_runtime(client.lock("a").acquire())),
        ErrorKind::Unavailable
    );
    assert!(begun.elapsed() >= patient);
    proxy.resume();
    drop(in_runtime(client.lock("a").acquire()).expect("connected again"));
}

/// Shorter than its patience, so it stays queued.
#[test]
fn p29_a_waiter_behind_a_stopped_network_keeps_its_place() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let patient = options().patience(Duration::from_secs(600));
    let (far, near) = (connect(&proxy, patient), server.connect(options()));
    let guard = in_runtime(near.lock("a").acquire()).expect("free");
    let mut first = Polled::pending(far.lock("a").acquire());
    eventually("queued", || queued(&server) == 1);
    let mut second = Polled::pending(near.lock("a").acquire());
    eventually("queued", || queued(&server) == 2);
    // The numbers of the connections that listen.
    let listening = || -> Vec<String> {
        let list: String = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        let numbers = list.lines().filter_map(|it| it.split(' ').next());
        numbers.map(str::to_owned).collect()
    };
    let before = listening();
    assert_eq!(before.len(), 2);
    proxy.stop();
    proxy.cut();
    proxy.resume();
    in_runtime(guard.ensure_held()).expect("held");
    eventually("it listens again", || {
        let now = listening();
        now.len() == 2 && now.iter().any(|it| !before.contains(it))
    });
    in_runtime(guard.release()).expect("released");
    let guard = first.finish().expect("still the first");
    assert!(second.poll().is_pending());
    in_runtime(guard.release()).expect("released");
    drop(second.finish().expect("its turn"));
}

/// The loss is known without asking the server.
#[test]
fn p48_a_release_of_a_lost_hold_says_so_without_a_server() {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let client = connect(&proxy, options());
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    proxy.stop();
    assert_eq!(in_runtime(guard.lost()), Loss::Expired);
    assert_eq!(kind_of(in_runtime(guard.release())), ErrorKind::Lost);
}

/// A writer becomes a reader, whatever `befalls` does after its request. A reader then shares the
/// lock, and a writer follows both.
fn downgrades_though(befalls: impl FnOnce(&Server, &Proxy), patience: Duration) {
    let server = need!(Server::start());
    let proxy = Proxy::before(&server);
    let client = connect(&proxy, options());
    let other = in_runtime(options().patience(patience).connect(server.url())).expect("a client");
    let (lock, other) = (client.rwlock("a"), other.rwlock("a"));
    let writer = Polled::new(lock.write()).finish().expect("free");
    let token = writer.token();
    let mut reader = Polled::new(other.read());
    assert!(reader.poll().is_pending());
    eventually("it waits", || queued(&server) == 1);
    let mut next = Polled::new(other.write());
    assert!(next.poll().is_pending());
    eventually("it waits", || queued(&server) == 2);
    proxy.stop();
    let mut downgrade = Polled::new(writer.downgrade());
    assert!(downgrade.poll().is_pending());
    befalls(&server, &proxy);
    let shared = downgrade.finish().expect("a reader");
    let reader = reader.finish().expect("another one");
    assert_eq!((shared.token(), reader.token()), (token, token));
    assert!(next.poll().is_pending());
    assert!(shared.is_held());
    drop(shared);
    drop(reader);
    drop(next.finish().expect("the last"));
}

/// Its request is lost with the connection. A heartbeat on the next connection does not replace it.
#[test]
fn p47_a_downgrade_is_asked_for_again_on_the_next_connection() {
    downgrades_though(
        |_, proxy| {
            proxy.cut();
            proxy.resume();
        },
        LEASE * 10,
    );
}

/// The hold is asserted as that of a reader, and each waiter asks again.
#[test]
fn p47_a_downgrade_of_a_hold_that_was_forgotten() {
    downgrades_though(
        |server, proxy| {
            let parts = ["state", "who", "hold"].map(|it| format!("{{stanchion:a}}:{it}"));
            let _: usize = server.ask(&["DEL", &parts[0], &parts[1], &parts[2]]);
            proxy.resume();
        },
        PATIENCE / 12,
    );
}
