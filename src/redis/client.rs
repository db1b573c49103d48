//! The client, and the locks that it opens.

use ::redis::aio::ConnectionLike;

use super::options::{Config, Options};
use super::store::{RedisStore, Source};
use crate::error::Result;

crate::lease::locks! {
    module "redis", place "on a Redis server", url "redis://127.0.0.1/";
    /// A connection to a Redis server, and the locks on it.
    ///
    /// Cheap to clone. All clones and all their locks share one connection and one background
    /// thread. The thread renews the holds and receives the grants. It ends with the last clone,
    /// lock, future and guard.
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
    /// In a forked child the client cannot be used: waits fail with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). Connect again in the child.
    client RedisClient;
    lock RedisLock, RedisGuard;
    rwlock RedisRwLock, RedisReadGuard, RedisWriteGuard;
    semaphore RedisSemaphore, RedisPermit;
}

impl RedisClient {
    /// Connects with the default options. The URL is `redis://[user:password@]host[:port][/db]`,
    /// `rediss://…` (with the feature `redis-tls`), `redis+unix:///path[?db=…]`, or
    /// `redis+sentinel://[user:password@]host[:port],…/service[/db]`.
    ///
    /// With the last one, the sentinels at these hosts (port 26379 by default) are asked for the
    /// primary of the service, at the beginning and whenever the connection breaks. User and
    /// password are those of the servers, and of sentinels that ask for one.
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
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an invalid URL, and for a
    ///   service that the sentinels do not know.
    /// - [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the server or all sentinels
    ///   cannot be reached, or the server loads its data or is a replica.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) with
    ///   [`PermissionDenied`](std::io::ErrorKind::PermissionDenied) for a wrong or missing
    ///   password. (A user without the rights is refused by the first acquire.)
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a cluster.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::options().connect(url).await
    }

    /// Uses an existing connection, such as redis-rs's `MultiplexedConnection` or
    /// `ConnectionManager`. The client never closes it.
    ///
    /// `address` is the name of the server in errors. Clients of one server with the same address
    /// recognize each other's locks in [`acquire_all`](crate::acquire_all). If it is the URL of a
    /// Redis server, it becomes what [`address`](RedisClient::address) of a client with this URL
    /// is: `redis://HOST:PORT/DB`. User, password and options are left out.
    ///
    /// The client cannot listen on a connection that it does not own, so waiters
    /// [poll](super::Config::poll_interval). The connection must not be used for commands that
    /// block. It works as long as the runtime on which it was created. Whether it reconnects after
    /// a break depends on the connection.
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
    pub async fn from_connection<C>(connection: C, address: impl AsRef<str>) -> Result<Self>
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        Self::options().from_connection(connection, address).await
    }

    /// Returns the default options.
    pub fn options() -> Options {
        Options::default()
    }

    async fn open(source: Source, config: Config) -> Result<Self> {
        Self::start(RedisStore::new(source, &config), config).await
    }
}

impl Options {
    /// Connects; see [`RedisClient::connect`].
    ///
    /// # Cancel safety
    ///
    /// As for [`RedisClient::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`RedisClient::connect`]. Also
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for invalid options.
    pub async fn connect(self, url: impl AsRef<str>) -> Result<RedisClient> {
        let source = Source::of_url(url.as_ref())?;
        RedisClient::open(source, self.checked()?).await
    }

    /// Connects with a client of redis-rs, for credentials, certificates and addresses that a URL
    /// cannot express. The new client makes its own connection.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use stanchion::redis::RedisClient;
    /// use stanchion::redis::redis::{Client, IntoConnectionInfo};
    ///
    /// let info = "redis://db/".into_connection_info()?;
    /// let password = std::fs::read_to_string("/run/secrets/redis")?;
    /// let settings = info.redis_settings().clone().set_password(password);
    /// let driver = Client::open(info.set_redis_settings(settings))?;
    /// let client = RedisClient::options().connect_with(driver).await?;
    /// let guard = client.lock("deploy").acquire().await?;
    /// # drop(guard);
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As for [`RedisClient::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Options::connect).
    pub async fn connect_with(self, client: ::redis::Client) -> Result<RedisClient> {
        let source = Source::of_client(client);
        RedisClient::open(source, self.checked()?).await
    }

    /// Uses an existing connection; see [`RedisClient::from_connection`].
    ///
    /// # Cancel safety
    ///
    /// As for [`RedisClient::from_connection`].
    ///
    /// # Errors
    ///
    /// Those of [`RedisClient::from_connection`].
    pub async fn from_connection<C>(
        self,
        connection: C,
        address: impl AsRef<str>,
    ) -> Result<RedisClient>
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        let source = Source::of_connection(connection, address.as_ref());
        RedisClient::open(source, self.checked()?).await
    }
}
