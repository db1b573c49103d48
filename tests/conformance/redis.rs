//! The locks on a Redis server as subjects. Each place has its own server, each handle its own
//! client.

use std::marker::PhantomData;
use std::time::Duration;

use stanchion::Lock;
use stanchion::redis::{RedisClient, RedisLock, RedisRwLock, RedisSemaphore};

use crate::one_permit::OnePermit;
use crate::server::Server;
use crate::subject::Subject;
use crate::support::{PATIENCE, SAFETY, WINDOW};

/// Long enough that nothing is renewed during a test, so no wake-up comes from a renewal.
const LONG: Duration = Duration::from_secs(3600);

const NAME: &str = "conformance";

/// One of the locks.
pub(crate) trait Remote: Lock + Sized + 'static {
    fn of(client: &RedisClient, name: &str) -> Self;
}

impl Remote for RedisLock {
    fn of(client: &RedisClient, name: &str) -> Self {
        client.lock(name)
    }
}

impl Remote for RedisRwLock {
    fn of(client: &RedisClient, name: &str) -> Self {
        client.rwlock(name)
    }
}

impl Remote for OnePermit<RedisSemaphore> {
    fn of(client: &RedisClient, name: &str) -> Self {
        OnePermit(client.semaphore(name, 1).expect("a semaphore"))
    }
}

pub(crate) struct OnServer<L>(Server, PhantomData<L>);

impl<L> OnServer<L> {
    fn client(&self, patience: Duration, url: &str) -> RedisClient {
        let options = RedisClient::options()
            .quarantine(false)
            .client_name(NAME)
            .lease(LONG)
            .claim_window(WINDOW)
            .response_timeout(SAFETY)
            .patience(patience);
        futures::executor::block_on(options.connect(url)).expect("a client")
    }

    fn key(&self, part: &str) -> String {
        format!("{{stanchion:a}}:{part}")
    }
}

impl<L: Remote> Subject for OnServer<L> {
    type Lock = L;

    const FAIR: bool = true;
    const REMOTE: bool = true;

    fn is_possible() -> bool {
        crate::skip::program("redis-server").is_some()
    }

    fn new() -> Self {
        Self(Server::start().expect("installed"), PhantomData)
    }

    fn open(&self) -> L {
        L::of(&self.client(PATIENCE, &self.0.url()), "a")
    }

    fn open_without_polling(&self) -> L {
        L::of(&self.client(LONG, &self.0.url()), "a")
    }

    fn open_by_other_names(&self) -> Vec<L> {
        let others = ["?db=0", "?protocol=resp3"];
        let open = |more: &str| {
            let url = format!("{}{more}", self.0.url());
            L::of(&self.client(LONG, &url), "a")
        };
        others.into_iter().map(open).collect()
    }

    fn open_another(&self) -> L {
        L::of(&self.client(LONG, &self.0.url()), "b")
    }

    fn places(&self) -> usize {
        self.0.ask(&["ZCARD", &self.key("queue")])
    }

    fn footprint(&self) -> String {
        let list = |words: &[&str]| -> Vec<String> { self.0.ask(words) };
        let mut known = list(&["HKEYS", &self.key("who")]);
        known.sort();
        let queue = list(&["ZRANGE", &self.key("queue"), "0", "-1", "WITHSCORES"]);
        let hold = list(&["ZRANGE", &self.key("hold"), "0", "-1", "WITHSCORES"]);
        let fence: String = self.0.ask(&["GET", &self.key("fence")]);
        let keys = list(&["KEYS", "*"]).len();
        format!("{known:?} {queue:?} {hold:?} {fence} {keys}")
    }

    fn resources(&self) -> usize {
        self.0.connections(NAME)
    }
}
