//! A wait that is given up, at each of its stages: the next waiter acquires at once, and nothing is
//! left on the server.

use std::time::Duration;

use stanchion::redis::{Options, RedisClient};
use stanchion::{AnyLock, Removal};

use crate::gate::rounds;
use crate::one_permit::OnePermit;
use crate::proxy::Proxy;
use crate::server::Server;
use crate::support::{Polled, Random, eventually, in_runtime};

/// Long enough that nothing ends by itself during a test, so it was released.
const LONG: Duration = Duration::from_secs(600);

fn options() -> Options {
    let options = RedisClient::options().quarantine(false);
    let options = options.lease(LONG).patience(LONG).claim_window(LONG);
    // A timeout would give up a request, and the server might receive it after the release, which
    // costs a lease. So there is no timeout here.
    options.response_timeout(LONG)
}

/// A server, a client behind a controlled network, and another client beside it.
struct Stage {
    server: Server,
    proxy: Proxy,
    far: RedisClient,
    near: RedisClient,
}

/// A way to request all shares of one lock.
type Way = fn(&RedisClient) -> AnyLock;

const WAYS: [Way; 3] = [
    |client| AnyLock::new(client.lock("a")),
    |client| AnyLock::new(client.rwlock("b")),
    |client| AnyLock::new(OnePermit(client.semaphore("c", 1).expect("a semaphore"))),
];

impl Stage {
    fn set() -> Option<Self> {
        Self::with(options())
    }

    fn with(far: Options) -> Option<Self> {
        let server = Server::start()?;
        let proxy = Proxy::before(&server);
        let far = in_runtime(far.connect(proxy.url())).expect("a client");
        let near = server.connect(options());
        Some(Self {
            server,
            proxy,
            far,
            near,
        })
    }

    fn queued(&self) -> usize {
        let queue = |name: &str| {
            self.server
                .ask::<usize>(&["ZCARD", &format!("{{stanchion:{name}}}:queue")])
        };
        queue("a") + queue("b") + queue("c")
    }

    /// Waits until the server has received everything that the far client sent about a wait that
    /// was given up. One connection keeps its order. The first answer arrives after that of the
    /// wait, which makes the client release the lock. The second answer arrives after the release.
    fn until_heard(&self, way: Way) {
        for _ in 0..2 {
            in_runtime(way(&self.far).status()).expect("a status");
        }
    }

    /// The next waiter acquires it, and no lease or window ends in the time of a test.
    fn assert_free(&self, way: Way) {
        let guard = in_runtime(way(&self.near).acquire()).expect("free");
        in_runtime(guard.release()).expect("released");
    }

    /// Asserts that nothing is left.
    fn assert_empty(&self) {
        let semaphore = self.near.semaphore("c", 1).expect("a semaphore");
        let removed = in_runtime(async {
            [
                self.near.lock("a").remove().await,
                self.near.rwlock("b").remove().await,
                semaphore.remove().await,
            ]
        });
        for removed in removed {
            assert_eq!(removed.expect("an answer"), Removal::Removed);
        }
        let keys: Vec<String> = self.server.ask(&["KEYS", "*"]);
        assert_eq!(keys, [""; 0]);
    }
}

#[test]
fn p17_a_future_that_was_never_polled_asks_for_nothing() {
    let stage = need!(Stage::set());
    stage.server.forget_counts();
    for way in WAYS {
        drop(Polled::new(way(&stage.far).acquire()));
    }
    assert_eq!(
        stage.server.calls("evalsha") + stage.server.calls("eval"),
        0
    );
    WAYS.iter().for_each(|way| stage.assert_free(*way));
    stage.assert_empty();
}

/// The request has been sent, or is about to be. The server has not received it.
#[test]
fn p17_given_up_while_the_request_is_on_its_way() {
    let stage = need!(Stage::set());
    for way in WAYS {
        stage.proxy.stop();
        let waiter = Polled::pending(way(&stage.far).acquire());
        drop(waiter);
        stage.proxy.resume();
        stage.until_heard(way);
        stage.assert_free(way);
    }
    stage.assert_empty();
}

/// The server has granted it. The answer does not arrive before the wait is given up.
#[test]
fn p17_given_up_while_the_answer_is_on_its_way() {
    let stage = need!(Stage::set());
    for way in WAYS {
        stage.proxy.delay(Duration::from_millis(60));
        let waiter = Polled::pending(way(&stage.far).acquire());
        let status = way(&stage.near);
        eventually("the server has granted it", || {
            let status = in_runtime(status.status()).expect("a status");
            status.holder.is_some() || !status.shared_by.is_empty()
        });
        drop(waiter);
        stage.proxy.delay(Duration::ZERO);
        stage.until_heard(way);
        stage.assert_free(way);
    }
    stage.assert_empty();
}

/// The server is stopped with the request in its buffer.
#[test]
fn p17_given_up_while_the_server_does_nothing() {
    let stage = need!(Stage::set());
    for way in WAYS {
        stage.server.ask::<()>(&["CLIENT", "PAUSE", "300", "ALL"]);
        let waiter = Polled::pending(way(&stage.far).acquire());
        drop(waiter);
        stage.until_heard(way);
        stage.assert_free(way);
    }
    stage.assert_empty();
}

#[test]
fn p17_given_up_in_the_queue() {
    let stage = need!(Stage::set());
    for way in WAYS {
        let guard = in_runtime(way(&stage.near).acquire()).expect("free");
        let mut waiter = Polled::pending(way(&stage.far).acquire());
        eventually("queued", || stage.queued() == 1);
        // Whatever the number of polls.
        for _ in 0..3 {
            assert!(waiter.poll().is_pending());
        }
        drop(waiter);
        eventually("it has left", || stage.queued() == 0);
        in_runtime(guard.release()).expect("released");
        stage.assert_free(way);
    }
    stage.assert_empty();
}

/// Its turn has come, and it has not received the offer.
#[test]
fn p17_given_up_when_it_was_offered() {
    let stage = need!(Stage::set());
    for way in WAYS {
        let guard = in_runtime(way(&stage.near).acquire()).expect("free");
        let mut waiter = Polled::pending(way(&stage.far).acquire());
        eventually("queued", || stage.queued() == 1);
        stage.proxy.lose(100);
        in_runtime(guard.release()).expect("released");
        assert_eq!(stage.queued(), 0, "its turn has come");
        let tried = in_runtime(way(&stage.near).try_acquire()).expect("an answer");
        assert!(tried.is_none(), "it is kept for it");
        assert!(waiter.poll().is_pending());
        drop(waiter);
        stage.proxy.lose(0);
        stage.assert_free(way);
    }
    stage.assert_empty();
}

/// It has received the offer, and its claim is under way. The offer is so old that it must be
/// claimed first.
#[test]
fn p17_given_up_while_it_claims() {
    let stage = need!(Stage::with(
        options().claim_window(Duration::from_millis(40))
    ));
    for way in WAYS {
        let guard = in_runtime(way(&stage.near).acquire()).expect("free");
        let mut waiter = Polled::pending(way(&stage.far).acquire());
        eventually("queued", || stage.queued() == 1);
        stage.server.forget_counts();
        stage.proxy.delay(Duration::from_millis(60));
        in_runtime(guard.release()).expect("released");
        // The release, and then the claim.
        eventually("the claim has come", || stage.server.calls("evalsha") >= 2);
        // On a slow machine the answer may have arrived already.
        drop(waiter.poll());
        drop(waiter);
        stage.proxy.delay(Duration::ZERO);
        stage.until_heard(way);
        stage.assert_free(way);
        // Its message may arrive after the window.
        let alive = ["a", "b", "c"].map(|name| format!("{{stanchion:{name}}}:alive"));
        eventually("it has left", || {
            alive
                .iter()
                .all(|key| stage.server.ask::<usize>(&["ZCARD", key]) == 0)
        });
    }
    stage.assert_empty();
}

/// It was granted, and its future was not polled since.
#[test]
fn p17_given_up_when_it_was_granted_and_not_taken() {
    let stage = need!(Stage::set());
    for way in WAYS {
        // Free from the beginning.
        let waiter = Polled::pending(way(&stage.far).acquire());
        waiter.bell.wait_beyond(0);
        drop(waiter);
        stage.assert_free(way);
        // And after some time in the queue.
        let guard = in_runtime(way(&stage.near).acquire()).expect("free");
        let waiter = Polled::pending(way(&stage.far).acquire());
        eventually("queued", || stage.queued() == 1);
        let rings = waiter.rings();
        in_runtime(guard.release()).expect("released");
        waiter.bell.wait_beyond(rings);
        drop(waiter);
        stage.until_heard(way);
        stage.assert_free(way);
    }
    stage.assert_empty();
}

/// A release that is given up continues from its first poll on. If it was never polled, the guard's
/// drop releases.
#[test]
fn p17_a_release_that_is_given_up_releases() {
    let stage = need!(Stage::set());
    for way in WAYS {
        for polls in 0..2 {
            let guard = in_runtime(way(&stage.far).acquire()).expect("free");
            let mut release = Polled::new(guard.release());
            for _ in 0..polls {
                // The answer may arrive before the poll ends.
                drop(release.poll());
            }
            drop(release);
            stage.assert_free(way);
        }
    }
    stage.assert_empty();
}

/// At any point.
#[test]
fn p17_given_up_at_any_time() {
    let stage = need!(Stage::set());
    let mut random = Random::new(17);
    let (rounds, mut given_up) = (rounds(300), 0);
    for round in 0..rounds {
        let way = WAYS[round % WAYS.len()];
        let (far, near) = (way(&stage.far), way(&stage.near));
        let within = match round % 20 {
            0 => Duration::ZERO,
            1 => LONG,
            _ => Duration::from_micros(random.below(6000)),
        };
        let hold = Duration::from_micros(random.below(1000));
        in_runtime(async {
            let one = async {
                let taken = tokio::time::timeout(within, far.acquire()).await;
                match taken {
                    Ok(guard) => guard.expect("a guard").release().await.expect("released"),
                    Err(_) => given_up += 1,
                }
            };
            let other = async {
                let guard = near.acquire().await.expect("its turn");
                tokio::time::sleep(hold).await;
                drop(guard);
            };
            futures::join!(one, other);
        });
    }
    println!("{given_up} of {rounds} given up");
    assert!(given_up > 0 && given_up < rounds, "always the same");
    WAYS.iter().for_each(|way| stage.assert_free(*way));
    stage.assert_empty();
}
