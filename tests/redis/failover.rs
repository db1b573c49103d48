//! A primary that dies, and a replica that takes over, behind an address that does not change.

use std::time::{Duration, Instant};

use stanchion::redis::{Options, RedisClient, RedisGuard};
use stanchion::{ErrorKind, Loss};

use crate::gate::{Crowd, rounds};
use crate::proxy::Proxy;
use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime, kind_of};

/// Long enough that no hold is lost because the machine is slow.
const LEASE: Duration = Duration::from_secs(12);

fn options() -> Options {
    RedisClient::options().lease(LEASE)
}

fn connect(proxy: &Proxy) -> RedisClient {
    in_runtime(options().connect(proxy.url())).expect("a client")
}

/// A primary, its replica, and the address of both.
struct Pair {
    primary: Server,
    replica: Server,
    proxy: Proxy,
}

impl Pair {
    /// The primary is old enough to grant the lock, and so is the replica.
    fn start() -> Option<Self> {
        let primary = Server::start()?;
        let replica = primary.replica();
        let proxy = Proxy::before(&primary);
        let client = connect(&proxy);
        drop(in_runtime(client.lock("first").acquire()).expect("once it is old enough"));
        Some(Self {
            primary,
            replica,
            proxy,
        })
    }

    /// Waits until the replica has all data of the primary.
    fn catch_up(&self) {
        let offset = |server: &Server, field: &str| {
            let info = server.info("replication");
            let line = info.lines().find_map(|line| line.strip_prefix(field));
            line.map(|it| it.trim().to_owned())
        };
        eventually("the replica has caught up", || {
            let sent = offset(&self.primary, "master_repl_offset:");
            sent.is_some() && sent == offset(&self.replica, "slave_repl_offset:")
        });
    }

    /// From now on the replica receives nothing more, and no client knows that.
    fn part(&self) {
        self.catch_up();
        self.replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    }

    fn fail_over(&mut self) {
        self.primary.kill();
        self.replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
        self.proxy.lead_to(&self.replica);
    }

    /// A new replica follows the promoted one.
    fn swap(&mut self) {
        let next = self.replica.replica();
        self.primary = std::mem::replace(&mut self.replica, next);
    }
}

/// Asserts that nothing is granted for one lease, and then the next waiter acquires.
fn assert_waits_one_lease(
    newcomer: &mut Polled<stanchion::Acquire<RedisGuard>>,
    since: Instant,
    last: u64,
) -> RedisGuard {
    let next = newcomer.finish().expect("after the quarantine");
    let took = since.elapsed();
    assert!(took >= LEASE * 9 / 10, "a lease of quarantine: {took:?}");
    assert!(next.token() > last && next.is_held());
    next
}

#[test]
fn p51_a_hold_that_the_replica_knows_continues() {
    let mut pair = need!(Pair::start());
    let (mine, theirs) = (connect(&pair.proxy), connect(&pair.proxy));
    let guard = in_runtime(mine.lock("first").acquire()).expect("free");
    pair.catch_up();
    // The quarantine begins with the first step on the new primary, which may be any client's.
    let begun = Instant::now();
    pair.fail_over();
    in_runtime(guard.ensure_held()).expect("it is on record");
    let mut newcomer = Polled::pending(theirs.lock("first").acquire());
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    let next = assert_waits_one_lease(&mut newcomer, begun, token);
    assert!(!next.predecessor_crashed());
}

/// The grant was never replicated. The lock itself is on record, so nothing is granted before the
/// holder has come back.
#[test]
fn p51_a_hold_that_the_replica_has_not_heard_of_is_put_back() {
    let mut pair = need!(Pair::start());
    let (mine, theirs) = (connect(&pair.proxy), connect(&pair.proxy));
    pair.part();
    let guard = in_runtime(mine.lock("first").acquire()).expect("free");
    let begun = Instant::now();
    pair.fail_over();
    let mut newcomer = Polled::pending(theirs.lock("first").acquire());
    in_runtime(guard.ensure_held()).expect("put back");
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    drop(assert_waits_one_lease(&mut newcomer, begun, token));
}

/// The replica has never heard of the name, or of any name of the namespace. It was a replica until
/// now, so its age says nothing.
#[test]
fn p51_a_name_that_the_replica_has_not_heard_of_is_put_back() {
    let mut pair = need!(Pair::start());
    let other = options().namespace("other");
    let other = in_runtime(other.connect(pair.proxy.url())).expect("a client");
    let (mine, theirs) = (connect(&pair.proxy), connect(&pair.proxy));
    pair.part();
    let locks = [mine.lock("second"), other.lock("second")];
    let holds = locks.map(|it| in_runtime(it.acquire()).expect("free"));
    let begun = Instant::now();
    pair.fail_over();
    let mut newcomer = Polled::pending(theirs.lock("second").acquire());
    let lock = other.lock("second");
    let mut stranger = Polled::pending(lock.acquire());
    for guard in holds {
        in_runtime(guard.ensure_held()).expect("put back");
        in_runtime(guard.release()).expect("released");
    }
    for wait in [&mut newcomer, &mut stranger] {
        drop(wait.finish().expect("after the quarantine"));
        let took = begun.elapsed();
        assert!(took >= LEASE * 9 / 10, "a lease of quarantine: {took:?}");
    }
}

/// The replica knows an earlier holder only, which has released since. A record of another server
/// does not count; the newer token does.
#[test]
fn p51_a_hold_continues_though_an_earlier_one_is_on_record() {
    let mut pair = need!(Pair::start());
    let (mine, theirs) = (connect(&pair.proxy), connect(&pair.proxy));
    let early = in_runtime(mine.lock("first").acquire()).expect("free");
    pair.part();
    in_runtime(early.release()).expect("released");
    let guard = in_runtime(theirs.lock("first").acquire()).expect("free");
    let begun = Instant::now();
    pair.fail_over();
    in_runtime(guard.ensure_held()).expect("put back");
    let mut newcomer = Polled::pending(mine.lock("first").acquire());
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    let next = newcomer.finish().expect("after the quarantine");
    assert!(begun.elapsed() >= LEASE * 9 / 10 && next.token() > token);
}

#[test]
fn p51_waiters_come_back_in_order_after_a_failover() {
    let mut pair = need!(Pair::start());
    let client = connect(&pair.proxy);
    let lock = client.lock("first");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiters: Vec<_> = (0..5).map(|_| Polled::new(lock.acquire())).collect();
    waiters
        .iter_mut()
        .for_each(|it| assert!(it.poll().is_pending()));
    let queue = ["ZCARD", "{stanchion:first}:queue"];
    eventually("queued", || {
        pair.primary.ask::<usize>(&queue) == waiters.len()
    });
    pair.catch_up();
    pair.fail_over();
    in_runtime(guard.ensure_held()).expect("on record");
    assert_eq!(pair.replica.ask::<usize>(&queue), waiters.len());
    let mut last = guard.token();
    in_runtime(guard.release()).expect("released");
    for waiter in &mut waiters {
        let next = waiter.finish().expect("its turn");
        assert!(next.token() > last);
        last = next.token();
        in_runtime(next.release()).expect("released");
    }
}

#[test]
fn p45_a_replica_that_is_not_promoted_grants_nothing() {
    let mut pair = need!(Pair::start());
    let client = connect(&pair.proxy);
    let guard = in_runtime(client.lock("first").acquire()).expect("free");
    pair.catch_up();
    pair.primary.kill();
    pair.proxy.lead_to(&pair.replica);
    assert_eq!(
        in_runtime(guard.lost()),
        Loss::Expired,
        "it cannot be renewed there"
    );
    let refused = kind_of(in_runtime(client.lock("first").acquire()));
    assert_eq!(refused, ErrorKind::Unavailable);
    pair.replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    let next = in_runtime(client.lock("first").acquire()).expect("promoted");
    assert!(next.token() > guard.token());
}

#[test]
fn p51_failovers_in_a_storm_allow_no_two_holders() {
    let mut pair = need!(Pair::start());
    let lease = LEASE.as_millis().to_string();
    let url = pair.proxy.url();
    let environment = [
        ("CHILD_QUARANTINE", "1"),
        ("CHILD_LEASE", &lease),
        ("CHILD_URL", &url),
    ];
    let crowd = Crowd::begin(6, &pair.primary, &environment);
    for _ in 0..rounds(2) {
        pair.fail_over();
        crowd.make_progress();
        pair.swap();
    }
    let all = crowd.end();
    println!("{all:?}");
    assert_eq!((all.overlaps, all.fallen), (0, 0), "{all:?}");
}
