//! The options of a client.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Socket};

use super::client::PgClient;
use super::link::PgStore;
use super::source::Source;
use super::sql;
use crate::error::{Error, ErrorKind, Result};

crate::lease::config! {
    /// The options of a [`PgClient`] and of all its locks, with their defaults.
    /// [`PgClient::config`] returns them.
    ///
    /// The server keeps durations in microseconds.
    Config;
    /// Builds a [`PgClient`]; created by [`PgClient::options`].
    Options;
    /// Prefix of the names of all locks. Default `stanchion`. In SQL it is the third argument of
    /// [`assert_held`](crate::postgres#inside-your-own-transaction).
    namespace (word): String = "stanchion".to_owned();
    /// The schema that has the tables and functions of the locks. Default `stanchion`. Locks in
    /// different schemas are different locks.
    schema (word): String = sql::SCHEMA.to_owned();
    /// Whether `connect` creates the tables and functions if the schema does not have them. The
    /// role needs the right to create the schema, or to create in it. Off by default.
    install (plain bool): bool = false;
    /// Whether each step waits until its commit is on disk. Without it, a crash of the server may
    /// lose the last half a second, and [`quarantine`](Self::quarantine) covers that. Off by
    /// default.
    durable (plain bool): bool = false;
    /// Whether the server grants nothing for one lease after a crash or a failover, because it may
    /// have lost a grant. A clean restart keeps everything. On by default.
    quarantine (plain bool): bool = true;
    /// The URL for the steps, if it differs from the URL for listening: that of PgBouncer, also in
    /// its transaction mode. `None` by default: one URL for both.
    steps (text): Option<String> = None;
}

impl Config {
    /// Returns the name of a lock with its namespace. Postgres has no text with a zero byte. Such a
    /// name is written in hexadecimal digits, and has a prefix that no namespace has.
    pub(super) fn full_name(&self, name: &str) -> String {
        match name.contains('\0') {
            false => format!("{}:{name}", self.namespace),
            true => {
                let digits: String = name.bytes().map(|it| format!("{it:02x}")).collect();
                format!("{}%:{digits}", self.namespace)
            }
        }
    }

    fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::new(ErrorKind::InvalidInput, text));
        if self.namespace.is_empty() || self.namespace.contains([':', '%', '\0']) {
            return wrong("a namespace needs a character, and no : and %");
        }
        if self.label.as_deref().unwrap_or_default().contains('\0') {
            return wrong("a label takes no zero byte");
        }
        sql::check_schema(&self.schema)
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
    /// Those of [`PgClient::connect`]. Also [`ErrorKind::InvalidInput`] for invalid options.
    pub async fn connect(self, url: impl AsRef<str>) -> Result<PgClient> {
        let (steps, schema) = (self.config.steps.as_deref(), &self.config.schema);
        let source = Source::of_url(url.as_ref(), steps, schema);
        self.start(source).await
    }

    /// Connects with a configuration and TLS of your own, for passwords, certificates and addresses
    /// that a URL cannot express. The client makes its own connections. `tls` is what
    /// [`Config::connect`](tokio_postgres::Config::connect) takes.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use stanchion::postgres::PgClient;
    /// use tokio_postgres::{Config, NoTls};
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
        let (steps, schema) = (self.config.steps.as_deref(), &self.config.schema);
        let source = Source::of_config(config, tls, steps, schema);
        self.start(source).await
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
    pub async fn from_client<C>(self, client: C, address: impl AsRef<Path>) -> Result<PgClient>
    where
        C: Deref<Target = Client> + Send + Sync + 'static,
    {
        let source = Source::Lent(Arc::new(client), address.as_ref().to_path_buf());
        self.start(Ok(source)).await
    }

    async fn start(self, source: Result<Source>) -> Result<PgClient> {
        self.config.check()?;
        let store = PgStore::new(source?, &self.config)?;
        PgClient::start(store, self.config).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p07_different_names_stay_different() {
        let config = Config::default();
        let names = ["a", "a\0", ":6100", "6100", "", "\0"];
        let mut full: Vec<_> = names.iter().map(|it| config.full_name(it)).collect();
        assert!(full.iter().all(|it| !it.contains('\0')));
        full.sort();
        full.dedup();
        assert_eq!(full.len(), names.len(), "{full:?}");
    }
}
