//! Two servers, and a lock that the test can acquire itself: on files, or on its own Redis server.

use futures::executor::block_on;
use stanchion::{AnyGuard, AnyLock, Locks};
use tempfile::TempDir;

use crate::crew::Member;
use crate::http::{Asked, ask};
use crate::started::example;

pub(crate) struct Scene {
    pub(crate) a: Server,
    pub(crate) b: Server,
    pub(crate) lock: AnyLock,
    /// Dropped last.
    place: Place,
}

pub(crate) struct Server {
    pub(crate) program: Member,
    pub(crate) port: u16,
}

/// Where the locks are.
pub(crate) enum Place {
    Files(TempDir),
    #[cfg(feature = "redis")]
    Redis(crate::redis_server::Server),
}

impl Place {
    pub(crate) fn files() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        Self::Files(directory.expect("a directory"))
    }

    /// A server that has just been started does not know the lock, and grants nothing for a lease.
    /// So the first acquire has a short lease.
    #[cfg(feature = "redis")]
    pub(crate) fn redis() -> Option<Self> {
        let server = crate::redis_server::Server::start()?;
        let short = std::time::Duration::from_secs(3);
        let first = async {
            let options = stanchion::redis::RedisClient::options().lease(short);
            let client = options.connect(server.url()).await?;
            client.lock("web").acquire().await?.release().await
        };
        block_on(first).expect("the first to hold the lock");
        Some(Self::Redis(server))
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Files(directory) => format!("file://{}", directory.path().display()),
            #[cfg(feature = "redis")]
            Self::Redis(server) => server.url(),
        }
    }
}

impl Scene {
    pub(crate) fn new(place: Place, most: usize) -> Self {
        let url = place.url();
        let locks = block_on(Locks::connect(&url)).expect("locks");
        Self {
            a: Server::start(&url, most),
            b: Server::start(&url, most),
            lock: locks.lock("web").expect("the servers' lock"),
            place,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.place.url()
    }

    pub(crate) fn is_on_files(&self) -> bool {
        matches!(self.place, Place::Files(_))
    }

    /// The server of the locks has ended.
    #[cfg(feature = "redis")]
    pub(crate) fn kill_redis(&mut self) {
        match &mut self.place {
            Place::Redis(server) => server.kill(),
            Place::Files(_) => unreachable!("files have no server"),
        }
    }

    pub(crate) fn hold(&self) -> AnyGuard {
        block_on(self.lock.acquire()).expect("the lock")
    }
}

impl Server {
    fn start(url: &str, most: usize) -> Self {
        let program = Member::run(example("web"), &[url, "0", &most.to_string()]);
        let told = program.after("listening on http://127.0.0.1:");
        let port = told.split(',').next().and_then(|it| it.parse().ok());
        Self {
            port: port.unwrap_or_else(|| panic!("no port: {told}")),
            program,
        }
    }

    pub(crate) fn work(&self, ms: u64) -> Asked {
        ask("POST", self.port, &format!("/work?ms={ms}"), "")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }
}
