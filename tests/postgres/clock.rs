//! A server whose clock is set back and forward. The clocks of the clients are not changed.

use std::time::Duration;

use stanchion::Loss;
use stanchion::postgres::{Options, PgClient};

use crate::fake_clock::FakeClock;
use crate::server::{Server, open_to_all, owned_directory};
use crate::skip::faketime;
use crate::support::{Polled, eventually, in_runtime};

/// Longer than a test: a lease ends by the clock of the server, or not at all.
const LEASE: Duration = Duration::from_secs(600);
const HOUR: i64 = 3600;

fn options() -> Options {
    PgClient::options().lease(LEASE)
}

/// A server with its own clock.
struct Clocked {
    server: Server,
    clock: FakeClock,
}

impl Clocked {
    fn start() -> Option<Self> {
        let library = faketime()?;
        let directory = owned_directory();
        open_to_all(directory.path());
        let clock = FakeClock::create(directory.path());
        let environment = clock.environment(library.to_str().expect("a plain path"));
        let server = Server::start_in(directory, &[], &environment)?;
        Some(Self { server, clock })
    }

    /// Sets the clock this many seconds away from the time of this host.
    fn set(&self, seconds: i64) {
        self.clock.set(&format!("{seconds:+}"));
        let ahead = || {
            let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let here = here.expect("after 1970").as_secs();
            let sql = format!("SELECT (extract(epoch FROM clock_timestamp()) - {here})::bigint");
            self.server.ask(&sql).parse::<i64>().expect("a number")
        };
        eventually("the clock is set", || (ahead() - seconds).abs() < 60);
    }

    fn queued(&self, count: usize) {
        let waiting = || self.server.count("SELECT waiting FROM stanchion.locks");
        eventually("queued", || waiting() == count);
    }
}

#[test]
fn p51_p49_a_clock_that_is_set_back_ends_no_hold_and_keeps_order_and_tokens() {
    let clocked = need!(Clocked::start());
    let client = clocked.server.connect(options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut line = Vec::new();
    for count in 1..4 {
        line.push(Polled::pending(lock.acquire()));
        clocked.queued(count);
    }
    clocked.set(-HOUR);
    in_runtime(guard.ensure_held()).expect("renewed");
    let mut last = guard.token();
    in_runtime(guard.release()).expect("released");
    // Arrives after the change, and is last all the same.
    line.push(Polled::new(lock.acquire()));
    for waiter in &mut line {
        let guard = waiter.finish().expect("in order");
        assert!(guard.token() > last && !guard.predecessor_crashed());
        last = guard.token();
        in_runtime(guard.release()).expect("released");
    }
    // A lock that was never used before has the new time.
    drop(in_runtime(client.lock("b").acquire()).expect("free"));
}

#[test]
fn p51_a_clock_that_is_set_forward_ends_leases_and_the_holder_learns_of_it() {
    let clocked = need!(Clocked::start());
    let (client, other) = (
        clocked.server.connect(options()),
        clocked.server.connect(options()),
    );
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    clocked.set(HOUR);
    let next = in_runtime(other.lock("a").acquire()).expect("the lease is over");
    assert!(next.token() > guard.token() && next.predecessor_crashed());
    assert_eq!(in_runtime(guard.lost()), Loss::Revoked);
    clocked.set(0);
    in_runtime(next.ensure_held()).expect("renewed");
    in_runtime(next.release()).expect("released");
}
