//! A server whose clock is set: back, forward by less than a lease, forward by more. The clocks of
//! the clients are not changed.

use std::time::Duration;

use stanchion::redis::{Options, RedisClient, RedisGuard};
use stanchion::{Acquire, ErrorKind, Loss};

use crate::fake_clock::FakeClock;
use crate::server::{Server, directory};
use crate::skip::faketime;
use crate::support::{Polled, eventually, in_runtime, kind_of};

/// Longer than a test: a lease ends by the clock of the server, or not at all.
const LEASE: Duration = Duration::from_secs(600);
const HOUR: i64 = 3600;

fn options() -> Options {
    RedisClient::options().lease(LEASE)
}

/// A server with its own clock.
struct Clocked {
    server: Server,
    clock: FakeClock,
}

impl Clocked {
    fn start() -> Option<Self> {
        let library = faketime()?;
        // The memory allocator of the server asks for the time before the library is ready, which
        // loops forever. So another allocator is loaded before it.
        let libraries = format!("{} libc.so.6", library.display());
        let directory = directory();
        let clock = FakeClock::create(directory.path());
        let environment = clock.environment(&libraries);
        let everyday = ["--save", "", "--appendonly", "no"];
        let server = Server::start_in(directory, &everyday, &environment)?;
        Some(Self { server, clock })
    }

    /// Sets the clock this many milliseconds away from the time of this host.
    fn set(&self, milliseconds: i64) {
        let before = self.ahead();
        let sign = if milliseconds < 0 { '-' } else { '+' };
        let by = milliseconds.unsigned_abs();
        self.clock
            .set(&format!("{sign}{}.{:03}", by / 1000, by % 1000));
        if (milliseconds - before).abs() > 100 {
            let arrived = || (self.ahead() - milliseconds).abs() < 100;
            eventually("the clock is set", arrived);
        }
    }

    /// Returns how many milliseconds the clock is ahead of this host.
    fn ahead(&self) -> i64 {
        let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let here = i64::try_from(here.expect("after 1970").as_millis()).expect("before 3000");
        let (seconds, micros): (i64, i64) = self.server.ask(&["TIME"]);
        seconds * 1000 + micros / 1000 - here
    }

    fn queued(&self) -> usize {
        self.server.ask(&["ZCARD", "{stanchion:a}:queue"])
    }
}

fn in_line(
    clocked: &Clocked,
    client: &RedisClient,
    count: usize,
) -> Vec<Polled<Acquire<RedisGuard>>> {
    let waiter = |_| {
        let before = clocked.queued();
        let waiter = Polled::pending(client.lock("a").acquire());
        eventually("queued", || clocked.queued() > before);
        waiter
    };
    (0..count).map(waiter).collect()
}

/// All of them acquire, in order, with rising tokens.
fn assert_in_order(guard: RedisGuard, waiters: &mut [Polled<Acquire<RedisGuard>>]) -> u64 {
    let mut last = guard.token();
    in_runtime(guard.release()).expect("released");
    for waiter in waiters {
        let next = waiter.finish().expect("its turn");
        assert!(next.token() > last && !next.predecessor_crashed());
        last = next.token();
        in_runtime(next.release()).expect("released");
    }
    last
}

#[test]
fn p51_a_clock_that_is_set_back_loses_nothing_and_keeps_the_order() {
    let clocked = need!(Clocked::start());
    // Waits until the server has run for longer than the clock is set back.
    clocked.set(2 * HOUR * 1000);
    let client = in_runtime(options().connect(clocked.server.url())).expect("a client");
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    let early = guard.token();
    let mut waiters = in_line(&clocked, &client, 2);
    clocked.set(HOUR * 1000);
    waiters.extend(in_line(&clocked, &client, 2));
    // Renewals continue, and the holder keeps its hold.
    for _ in 0..3 {
        let until = guard.held_until();
        in_runtime(guard.ensure_held()).expect("held");
        assert!(guard.held_until() > until, "renewed");
    }
    let last = assert_in_order(guard, &mut waiters);
    assert!(last > early);
    // Not by an hour, but by the number of grants since.
    assert!(last < early + 1_000_000_000, "{early} to {last}");
    let next = in_runtime(client.lock("a").try_acquire()).expect("an answer");
    assert!(next.expect("free").token() > last);
}

/// A new lock on a server that seems to have started in the future.
fn assert_grants(connect_first: bool) {
    let clocked = need!(Clocked::start());
    let connect = || in_runtime(options().connect(clocked.server.url())).expect("a client");
    let early = connect_first.then(connect);
    clocked.set(-HOUR * 1000);
    let client = early.unwrap_or_else(connect);
    let mut waiter = Polled::pending(client.lock("a").acquire());
    eventually("queued", || clocked.queued() == 1);
    assert!(waiter.poll().is_pending());
    let lease = i64::try_from(LEASE.as_millis()).expect("a lease");
    clocked.set(lease + 2000 - HOUR * 1000);
    let guard = waiter.finish().expect("it is old enough");
    in_runtime(guard.release()).expect("released");
}

#[test]
fn p51_a_clock_that_is_set_back_before_the_start_of_the_server_still_grants() {
    assert_grants(true);
}

#[test]
fn p51_a_client_that_connects_while_the_uptime_is_negative_acquires() {
    assert_grants(false);
}

#[test]
fn p51_a_clock_that_is_set_forward_by_less_than_a_lease_loses_nothing() {
    let clocked = need!(Clocked::start());
    clocked.set(HOUR * 1000);
    let options = options().patience(LEASE);
    let client = in_runtime(options.connect(clocked.server.url())).expect("a client");
    let guard = in_runtime(client.lock("a").acquire()).expect("it is old enough");
    let mut waiters = in_line(&clocked, &client, 3);
    for step in 1..=4 {
        // Just after a renewal two thirds or more are left.
        in_runtime(guard.ensure_held()).expect("held");
        clocked.set(HOUR * 1000 + step * 100_000);
        in_runtime(guard.ensure_held()).expect("still held");
        assert_eq!(clocked.queued(), waiters.len());
    }
    assert_in_order(guard, &mut waiters);
}

/// The documented limit: the lease ends early by as much. The holder is informed, and its token is
/// the smaller one.
#[test]
fn p51_a_clock_that_is_set_forward_by_more_than_a_lease_is_a_loss() {
    let clocked = need!(Clocked::start());
    clocked.set(HOUR * 1000);
    let (mine, theirs) = (options(), options());
    let mine = in_runtime(mine.connect(clocked.server.url())).expect("a client");
    let theirs = in_runtime(theirs.connect(clocked.server.url())).expect("a client");
    let guard = in_runtime(mine.lock("a").acquire()).expect("it is old enough");
    let mut next = in_line(&clocked, &theirs, 1);
    clocked.set(2 * HOUR * 1000);
    let taken = next[0].finish().expect("its turn");
    assert!(taken.token() > guard.token() && taken.predecessor_crashed());
    let loss = in_runtime(guard.lost());
    assert!(matches!(loss, Loss::Revoked | Loss::Superseded), "{loss:?}");
    assert_eq!(kind_of(in_runtime(guard.release())), ErrorKind::Lost);
    // And back again: no token goes back, and no waiter is stuck for an hour.
    clocked.set(0);
    in_runtime(taken.ensure_held()).expect("held");
    let mut waiters = in_line(&clocked, &mine, 2);
    assert_in_order(taken, &mut waiters);
}
