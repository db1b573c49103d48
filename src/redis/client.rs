//! A client: the handle on the actor, and the thread on which the actor runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use ::redis::Value;
use ::redis::aio::ConnectionLike;
use tokio::sync::{mpsc, oneshot};

use super::actor::{Actor, Call, Command, Parts};
use super::link::Source;
use super::options::{Config, Options};
use super::scripts::{self, Keys, Script};
use super::session::{Session, Target};
use super::{RedisLock, RedisRwLock, RedisSemaphore};
use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::shielded;
use crate::ledger::Ledger;
use crate::sys::fork::{PerProcess, generation};
use crate::sys::host as platform;
use crate::sys::id::Id;

/// The number of shares of a reader-writer lock. A writer takes all of them.
pub(super) const ALL: u32 = 1_000_000_000;

/// A connection to a Redis server, and the locks on it.
///
/// Cheap to clone. All clones and all their locks share one connection and one background thread.
/// The thread renews the holds and receives the grants. It ends with the last clone, lock, future
/// and guard.
///
/// ```no_run
/// # async fn example() -> stanchion::Result<()> {
/// use stanchion::redis::RedisClient;
///
/// let client = RedisClient::connect("redis://127.0.0.1/").await?;
/// let guard = client.lock("deploy").acquire().await?;
/// println!("fencing token {}", guard.token());
/// guard.release().await?;
/// # Ok(()) }
/// ```
///
/// In a forked child the client cannot be used: waits fail with [`ErrorKind::Unsupported`]. Connect
/// again in the child.
#[derive(Clone)]
pub struct RedisClient {
    core: Arc<Core>,
}

pub(super) struct Core {
    commands: mpsc::UnboundedSender<Command>,
    pub(super) config: Arc<Config>,
    pub(super) address: PathBuf,
    pub(super) inbox: String,
    pub(super) listens: bool,
    closed: AtomicBool,
    generation: u32,
}

/// The name of this process on the server. No two processes have the same name.
static PROCESS: PerProcess<String> = PerProcess::new(|| Id::fresh().to_string());
static CLIENTS: AtomicU64 = AtomicU64::new(0);
static HOST: LazyLock<String> = LazyLock::new(|| platform::host_name().unwrap_or_default());

pub(super) fn host() -> &'static str {
    &HOST
}

impl RedisClient {
    /// Connects with the default options. The URL is `redis://[user:password@]host[:port][/db]`,
    /// `rediss://…` (with the feature `redis-tls`), or `redis+unix:///path[?db=…]`.
    ///
    /// Needs Redis 7 or newer; tested with 7.0. Other servers may work if they speak its protocol
    /// and run Lua scripts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection that it has opened.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`] for an invalid URL.
    /// - [`ErrorKind::Unavailable`] when the server cannot be reached, loads its data or is a
    ///   replica.
    /// - [`ErrorKind::Io`] with [`PermissionDenied`](std::io::ErrorKind::PermissionDenied) for a
    ///   wrong or missing password. (A user without the rights is refused by the first acquire.)
    /// - [`ErrorKind::Unsupported`] for a cluster.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::options().connect(url).await
    }

    /// Uses an existing connection, such as redis-rs's `MultiplexedConnection` or
    /// `ConnectionManager`. The client never closes it.
    ///
    /// `address` is the name of the server in errors. Clients of one server with the same address
    /// recognize each other's locks in [`acquire_all`](crate::acquire_all).
    ///
    /// The client cannot listen on a connection that it does not own, so waiters
    /// [poll](Config::poll_interval). The connection must not be used for commands that block. It
    /// works as long as the runtime on which it was created. Whether it reconnects after a break
    /// depends on the connection.
    ///
    /// To let the client make its own connection, with settings that a URL cannot express, use
    /// [`Options::connect_with`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the connection as it is.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](RedisClient::connect).
    pub async fn from_connection<C>(connection: C, address: impl AsRef<Path>) -> Result<Self>
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        Self::options().from_connection(connection, address).await
    }

    /// Returns the default options.
    pub fn options() -> Options {
        Options::default()
    }

    /// Starts the thread of the actor, and waits until the actor is connected.
    pub(super) async fn begin(source: Source, config: Config) -> Result<Self> {
        config.check()?;
        let config = Arc::new(config);
        let (commands, hears) = mpsc::unbounded_channel();
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let inbox = format!("stanchion:inbox:{}:{number}", PROCESS.get());
        let address = source.address.clone();
        let name = format!("stanchion:{}:{}", host(), std::process::id());
        let parts = Parts {
            config: config.clone(),
            source,
            inbox: inbox.clone(),
            client_name: config.client_name.clone().unwrap_or(name),
            commands: hears,
            pushes: commands.downgrade(),
        };
        let (report, begun) = oneshot::channel();
        start(parts, report)?;
        let listens = shielded(begun).await.map_err(|_| gone(&address))??;
        let core = Core {
            commands,
            config,
            address,
            inbox,
            listens,
            closed: AtomicBool::new(false),
            generation: generation(),
        };
        Ok(Self {
            core: Arc::new(core),
        })
    }

    /// Returns the capabilities of the locks on this server.
    pub fn capabilities(&self) -> crate::lock::Capabilities {
        self.core.capabilities()
    }

    /// Returns the lock with this name. Nothing is sent before the first acquire.
    pub fn lock(&self, name: impl AsRef<str>) -> RedisLock {
        RedisLock::new(self.line(name.as_ref(), "lock", 1))
    }

    /// Returns the reader-writer lock with this name.
    pub fn rwlock(&self, name: impl AsRef<str>) -> RedisRwLock {
        RedisRwLock::new(self.line(name.as_ref(), "rwlock", ALL))
    }

    /// Returns the semaphore with this name and this many permits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for 0 permits, and for more than 999,999,999.
    pub fn semaphore(&self, name: impl AsRef<str>, permits: u32) -> Result<RedisSemaphore> {
        let line = self.line(name.as_ref(), "semaphore", permits);
        if !(1..ALL).contains(&permits) {
            let text = "a semaphore has 1 to 999,999,999 permits";
            return Err(Error::at(ErrorKind::InvalidInput, text, line.path()));
        }
        Ok(RedisSemaphore::new(line))
    }

    fn line(&self, name: &str, kind: &'static str, limit: u32) -> Arc<Line> {
        let full = format!("{}:{name}", self.core.config.namespace);
        let target = Target {
            keys: Keys::new(&self.core.config.namespace, name),
            limit,
            card: scripts::card(kind, limit, self.core.config.lease),
            place: self.core.address.join(&full),
        };
        let address = Address::new("redis", &self.core.address, &full);
        Arc::new(Line {
            core: self.core.clone(),
            target: Arc::new(target),
            ledger: Ledger::new(kind, address),
            name: full,
        })
    }

    /// Returns the options of this client.
    pub fn config(&self) -> &Config {
        &self.core.config
    }

    /// Returns the address of the server, without user and password.
    pub fn address(&self) -> &Path {
        &self.core.address
    }

    /// Ends every wait through this client, its clones and its locks with [`ErrorKind::Closed`],
    /// and refuses new waits. Use it for a graceful shutdown. Guards stay valid.
    pub fn close(&self) {
        self.core.closed.store(true, Ordering::Release);
        // Without an actor there is no waiter.
        let _ = self.core.send(Command::Close);
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient")
            .field("address", &self.core.address)
            .field("config", &self.core.config)
            .finish()
    }
}

impl Core {
    /// Sends a command to the actor. Fails when the actor has ended, or in a forked child.
    pub(super) fn send(&self, command: Command) -> Result<()> {
        self.check()?;
        self.commands.send(command).map_err(|_| gone(&self.address))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.generation != generation() {
            let text = "this client was connected before a fork: connect again in the child";
            return Err(Error::at(ErrorKind::Unsupported, text, &self.address));
        }
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// A handle on one lock of any kind.
pub(super) struct Line {
    pub(super) core: Arc<Core>,
    pub(super) target: Arc<Target>,
    /// Namespace and name.
    pub(super) name: String,
    pub(super) ledger: Arc<Ledger>,
}

impl Line {
    pub(super) fn path(&self) -> &Path {
        &self.target.place
    }

    /// Runs a script on this lock, once.
    pub(super) async fn call(&self, script: Script, arguments: Vec<String>) -> Result<Value> {
        let (reply, answer) = oneshot::channel();
        self.core.send(Command::Call(Call {
            script,
            target: self.target.clone(),
            arguments,
            reply,
        }))?;
        shielded(answer).await.map_err(|_| gone(self.path()))?
    }

    /// Releases a hold or gives up a wait, in the background.
    pub(super) fn leave(&self, session: &Arc<Session>) {
        // In a forked child, and without an actor, there is nothing to release.
        let _ = self.core.send(Command::Leave(session.clone(), None));
    }
}

pub(super) fn gone(place: &Path) -> Error {
    let text = "the background thread of the client has ended";
    Error::at(ErrorKind::Unavailable, text, place)
}

/// Starts the thread of a client's actor, with its own runtime.
fn start(parts: Parts, report: oneshot::Sender<Result<bool>>) -> Result<()> {
    let fails = |error| Error::pathless_io("start the thread of a Redis client and", error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(fails)?;
    let live = async move {
        match Actor::begin(parts).await {
            Ok(actor) => {
                let reported = report.send(Ok(actor.listens()));
                if reported.is_ok() {
                    actor.run().await;
                }
            }
            Err(error) => _ = report.send(Err(error)),
        }
    };
    let thread = std::thread::Builder::new().name("stanchion-redis".to_owned());
    #[allow(clippy::disallowed_methods)] // The thread belongs to this crate.
    let thread = thread.spawn(move || runtime.block_on(live));
    thread.map(drop).map_err(fails)
}
