//! The client, and the locks that it opens.

use std::ops::Deref;

use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Socket};

use super::link::PgStore;
use super::options::{Config, Options};
use super::source::Source;
use crate::error::Result;

crate::lease::locks! {
    module "postgres", place "in a Postgres database", url "postgres://app@db/shop";
    /// Connections to a Postgres server, and the locks in one of its databases.
    ///
    /// Cheap to clone. All clones and all their locks share two connections and one background
    /// thread, however many callers wait. The thread renews the holds and receives the grants. It
    /// ends with the last clone, lock, future and guard.
    ///
    /// ```no_run
    /// # async fn example() -> stanchion::Result<()> {
    /// use stanchion::postgres::PgClient;
    ///
    /// let client = PgClient::options().install(true).connect("postgres://app@db/shop").await?;
    /// let guard = client.lock("deploy").acquire().await?;
    /// println!("fencing token {}", guard.token());
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// In a forked child the client cannot be used: waits fail with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). Connect again in the child.
    client PgClient;
    lock PgLock, PgGuard;
    rwlock PgRwLock, PgReadGuard, PgWriteGuard;
    semaphore PgSemaphore, PgPermit;
}

impl PgClient {
    /// Connects with the default options. The URL is
    /// `postgres://[user[:password]@]host[:port]/database`, or
    /// `postgres:///database?host=/socket/directory`. The scheme may also be `postgresql`.
    ///
    /// The URL takes the options of `tokio-postgres`, such as `application_name`. The options of
    /// this crate, such as `lease` and `install`, are methods of [`Options`]; only a URL of
    /// [`Locks`](crate::Locks) takes them too.
    ///
    /// With the feature `postgres-tls` the connections have TLS:
    ///
    /// - `sslmode=prefer`, the default: if the server has it. As in libpq, the certificate is not
    ///   checked.
    /// - `sslmode=require`, `verify-ca` and `verify-full`: always. In all three, the certificate
    ///   and its name are checked with the certificates of the system.
    /// - `sslmode=disable`: never.
    ///
    /// The database must have the tables and functions of the locks; see the
    /// [module](crate::postgres#installation). Tested with Postgres 15.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connections that it has opened.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an invalid URL. The error
    ///   names the option that is wrong.
    /// - [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the server cannot be
    ///   reached, is a replica, or is at its connection limit.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) with
    ///   [`PermissionDenied`](std::io::ErrorKind::PermissionDenied) for a wrong user or password,
    ///   and for a missing right to the schema.
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the locks are not
    ///   installed, when transactions are not read committed by default, and for `sslmode=require`,
    ///   `verify-ca` and `verify-full` without the feature `postgres-tls`.
    /// - [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when another version of the
    ///   locks is installed.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::options().connect(url).await
    }

    /// Runs the steps on an existing connection: an `Arc<tokio_postgres::Client>`, or a connection
    /// of a pool that dereferences to the client. The client never closes it.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use stanchion::postgres::PgClient;
    ///
    /// let url = "postgres://app@db/shop";
    /// let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    /// tokio::spawn(connection);
    /// let client = Arc::new(client);
    /// let locks = PgClient::from_client(client.clone(), "postgres://db:5432/shop").await?;
    /// let guard = locks.lock("deploy").acquire().await?;
    /// client.execute("UPDATE releases SET deployed = now()", &[]).await?;
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// `address` is the name of the server in errors. Clients of one server with the same address
    /// recognize each other's locks in [`acquire_all`](crate::acquire_all). If it is the URL of a
    /// Postgres server, it becomes what [`address`](PgClient::address) of a client with this URL
    /// is: `postgres://HOST:PORT/DATABASE`. User, password and options are left out.
    ///
    /// The messages of the server go to the owner of the connection, so waiters
    /// [poll](super::Config::poll_interval). Do not begin a transaction on the connection: steps
    /// would become a part of it. Transactions, also those that
    /// [assert a hold](crate::postgres#inside-your-own-transaction), need a second connection.
    ///
    /// The connection works as long as the runtime that drives it. The client cannot replace it
    /// when it breaks, and no other client notices that it broke.
    ///
    /// To let the client make its own connections, use [`Options::connect_with`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the connection as it is.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](PgClient::connect).
    pub async fn from_client<C>(client: C, address: impl AsRef<str>) -> Result<Self>
    where
        C: Deref<Target = Client> + Send + Sync + 'static,
    {
        Self::options().from_client(client, address).await
    }

    /// Returns the default options.
    pub fn options() -> Options {
        Options::default()
    }

    async fn open(source: Source, config: Config) -> Result<Self> {
        Self::start(PgStore::new(source, &config)?, config).await
    }
}

impl Options {
    /// Connects; see [`PgClient::connect`].
    ///
    /// # Cancel safety
    ///
    /// As for [`PgClient::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`PgClient::connect`]. Also
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for invalid options.
    pub async fn connect(self, url: impl AsRef<str>) -> Result<PgClient> {
        let config = self.checked()?;
        let (steps, schema) = (config.steps.as_deref(), &config.schema);
        let source = Source::of_url(url.as_ref(), steps, schema)?;
        PgClient::open(source, config).await
    }

    /// Connects with a configuration and TLS of your own, for passwords, certificates and addresses
    /// that a URL cannot express. The client makes its own connections. `tls` is what
    /// [`Config::connect`](tokio_postgres::Config::connect) takes.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use stanchion::postgres::PgClient;
    /// use stanchion::postgres::tokio_postgres::{Config, NoTls};
    ///
    /// let mut config = Config::new();
    /// config.host("db").user("app").dbname("shop").password(std::fs::read("/run/secrets/db")?);
    /// let client = PgClient::options().connect_with(config, NoTls).await?;
    /// let guard = client.lock("deploy").acquire().await?;
    /// # drop(guard);
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As for [`PgClient::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Options::connect).
    pub async fn connect_with<T>(self, config: tokio_postgres::Config, tls: T) -> Result<PgClient>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let options = self.checked()?;
        let (steps, schema) = (options.steps.as_deref(), &options.schema);
        let source = Source::of_config(config, tls, steps, schema)?;
        PgClient::open(source, options).await
    }

    /// Uses an existing connection; see [`PgClient::from_client`].
    ///
    /// # Cancel safety
    ///
    /// As for [`PgClient::from_client`].
    ///
    /// # Errors
    ///
    /// Those of [`PgClient::from_client`].
    pub async fn from_client<C>(self, client: C, address: impl AsRef<str>) -> Result<PgClient>
    where
        C: Deref<Target = Client> + Send + Sync + 'static,
    {
        let config = self.checked()?;
        let source = Source::of_client(client, address.as_ref(), &config.schema);
        PgClient::open(source, config).await
    }
}
