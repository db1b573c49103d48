//! The options of a client.

use std::path::Path;

use ::redis::aio::ConnectionLike;

use super::client::RedisClient;
use super::store::{RedisStore, Source};
use crate::error::{Error, ErrorKind, Result};

crate::lease::config! {
    /// The options of a [`RedisClient`] and of all its locks, with their defaults.
    /// [`RedisClient::config`] returns them.
    ///
    /// The server keeps durations in microseconds.
    Config;
    /// Builds a [`RedisClient`]; created by [`RedisClient::options`].
    Options;
    /// Prefix of the keys of all locks. Default `stanchion`.
    namespace (word): String = "stanchion".to_owned();
    /// The name of the connection on the server (`CLIENT LIST`). By default `stanchion:`, host and
    /// process id.
    client_name (text): Option<String> = None;
    /// Whether the server grants nothing for one lease after it was restarted or replaced, because
    /// it may have forgotten a holder. As a consequence, a server that has just started grants
    /// nothing until it is as old as the lease. On by default.
    quarantine (plain bool): bool = true;
}

impl Config {
    /// Returns the name of a lock with its namespace.
    pub(super) fn full_name(&self, name: &str) -> String {
        format!("{}:{name}", self.namespace)
    }

    fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::new(ErrorKind::InvalidInput, text));
        if self.namespace.is_empty() || self.namespace.contains(['{', '}']) {
            return wrong("a namespace needs a character, and no braces");
        }
        let name = self.client_name.as_deref().unwrap_or("-");
        if name.is_empty() || !name.bytes().all(|it| it.is_ascii_graphic()) {
            return wrong("a client name takes printable ASCII without spaces");
        }
        Ok(())
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
    /// Those of [`RedisClient::connect`]. Also [`ErrorKind::InvalidInput`] for invalid options.
    pub async fn connect(self, url: impl AsRef<str>) -> Result<RedisClient> {
        let source = Source::of_url(url.as_ref())?;
        self.start(source).await
    }

    /// Connects with a client of redis-rs, for credentials, certificates and addresses that a URL
    /// cannot express. The new client makes its own connection.
    ///
    /// # Cancel safety
    ///
    /// As for [`RedisClient::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Options::connect).
    pub async fn connect_with(self, client: ::redis::Client) -> Result<RedisClient> {
        self.start(Source::of_client(client)).await
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
        address: impl AsRef<Path>,
    ) -> Result<RedisClient>
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        let source = Source::of_connection(connection, address.as_ref());
        self.start(source).await
    }

    async fn start(self, source: Source) -> Result<RedisClient> {
        self.config.check()?;
        RedisClient::start(RedisStore::new(source, &self.config), self.config).await
    }
}
