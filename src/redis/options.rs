//! The options of a client, with their defaults.

use std::path::Path;
use std::time::Duration;

use ::redis::aio::ConnectionLike;

use super::client::RedisClient;
use super::link::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{CLAIM_WINDOW, check_pause, setters};

/// How long a lease may be: longer than a server stores what it is not asked about, and nobody would wait for a crash to heal.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// What happens to a hold when the connection of its holder breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDisconnect {
    /// Nothing as long as its lease runs: the client connects again and renews it. The default.
    #[default]
    Keep,
    /// It ends: the holder takes every break for a [loss](crate::Loss::Disconnected), and a waiter that finds nobody listening on the holder's
    /// inbox is let in, half a second later or so. In between both may be inside for as long as the news travels: the resource has to
    /// check [tokens](crate::TokenGate).
    Release,
}

/// The options of a [`RedisClient`] and of all its locks, with their defaults; [`RedisClient::config`] reads them back.
///
/// Durations on the server have microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// What the keys of all locks begin with; default `stanchion`.
    pub namespace: String,
    /// How long the server keeps a hold that is not renewed: the time that a crash of a holder costs. 100 ms to one hour, default 10 s. It is
    /// renewed after a third, and counts as lost after three quarters. All who use a lock at the same time must say the same.
    pub lease: Duration,
    /// How long the server keeps the place of a waiter that is not heard of; default 4 s. Heard of it is every third of that.
    pub patience: Duration,
    /// How long a grant waits for its future to be polled before the next in line is let in; default 2 s.
    pub claim_window: Duration,
    /// After so long a hold is renewed no more, and is lost: a net under tasks that hang. None by default.
    pub max_hold: Option<Duration>,
    /// How long nobody is let in after a hold that was not given back; default 0. For resources that go on for a while after their holder.
    pub lock_delay: Duration,
    /// What a broken connection means for a hold.
    pub on_disconnect: OnDisconnect,
    /// What the connection is called on the server (`CLIENT LIST`); by default `stanchion:`, host and process id.
    pub client_name: Option<String>,
    /// What holders and waiters are called in [`Status`](crate::Status); none by default.
    pub label: Option<String>,
    /// Whether nobody is let in for one lease after the server was restarted or replaced, because it may have forgotten who is inside. On by
    /// default. For this a server that has just been started lets in nobody before it is as old as the lease.
    pub quarantine: bool,
    /// How long an answer may take before the request is repeated; default 1 s, at most a sixth of the lease.
    pub response_timeout: Duration,
    /// How long a wait lasts while the server does not answer, or answers that it cannot serve (a replica, no memory, no disk, loading); default 10 s. Then it fails,
    /// as a rule with [`ErrorKind::Unavailable`], and the error names the last answer.
    pub unavailable_after: Duration,
    /// Time limit of an acquire that sets none; `None`, the default, waits for ever.
    pub timeout: Option<Duration>,
    /// How often a waiter asks where the server may not tell it (no rights for pub/sub, or a connection that was handed in); default 50 ms.
    pub poll_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: "stanchion".to_owned(),
            lease: Duration::from_secs(10),
            patience: Duration::from_secs(4),
            claim_window: CLAIM_WINDOW,
            max_hold: None,
            lock_delay: Duration::ZERO,
            on_disconnect: OnDisconnect::Keep,
            client_name: None,
            label: None,
            quarantine: true,
            response_timeout: Duration::from_secs(1),
            unavailable_after: Duration::from_secs(10),
            timeout: None,
            poll_interval: Duration::from_millis(50),
        }
    }
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::new(ErrorKind::InvalidInput, text));
        if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&self.lease) {
            return wrong("a lease takes 100 ms to one hour");
        }
        if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&self.patience) {
            return wrong("patience takes 100 ms to one hour");
        }
        if !(Duration::from_millis(10)..=LONGEST_LEASE).contains(&self.claim_window) {
            return wrong("a claim window takes 10 ms to one hour");
        }
        if self.lock_delay > LONGEST_LEASE {
            return wrong("a lock delay takes at most one hour");
        }
        check_pause("poll_interval", self.poll_interval, "")?;
        check_pause("response_timeout", self.response_timeout, "")?;
        if self.namespace.is_empty() || self.namespace.contains(['{', '}']) {
            return wrong("a namespace needs a character, and no braces");
        }
        let name = self.client_name.as_deref().unwrap_or("-");
        if name.is_empty() || !name.bytes().all(|it| it.is_ascii_graphic()) {
            return wrong("a client name takes printable ASCII without spaces");
        }
        Ok(())
    }

    /// How long one answer is waited for.
    pub(super) fn answer_within(&self) -> Duration {
        self.response_timeout.min(self.lease / 6)
    }
}

/// Builds a [`RedisClient`]; made by [`RedisClient::options`].
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a client is connected with them"]
pub struct Options {
    config: Config,
}

impl Options {
    setters! { Config:
        namespace word;
        lease plain Duration;
        patience plain Duration;
        claim_window plain Duration;
        max_hold limit;
        lock_delay plain Duration;
        on_disconnect plain OnDisconnect;
        client_name text;
        label text;
        quarantine plain bool;
        response_timeout plain Duration;
        unavailable_after plain Duration;
        timeout limit;
        poll_interval plain Duration;
    }

    /// Connects; see [`RedisClient::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`RedisClient::connect`]; [`ErrorKind::InvalidInput`] for options that cannot be meant.
    pub async fn connect(self, url: impl AsRef<str>) -> Result<RedisClient> {
        let source = Source::of_url(url.as_ref())?;
        RedisClient::begin(source, self.config).await
    }

    /// Connects a socket of its own with a client of redis-rs: for credentials, certificates and addresses that no URL can say.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Options::connect).
    pub async fn connect_with(self, client: ::redis::Client) -> Result<RedisClient> {
        RedisClient::begin(Source::of_client(client), self.config).await
    }

    /// Uses a connection that is there already; see [`RedisClient::from_connection`].
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
        RedisClient::begin(source, self.config).await
    }
}
