//! The options of a client, with their defaults.

use std::path::Path;
use std::time::Duration;

use ::redis::aio::ConnectionLike;

use super::client::RedisClient;
use super::link::Source;
use crate::backend::Setting;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{CLAIM_WINDOW, check_pause, setters};

/// The longest lease. It must end before the server deletes the keys of an unused lock, and a crash
/// must not block a lock for too long.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// What happens to a hold when the connection of its holder breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDisconnect {
    /// The hold stays as long as its lease runs: the client connects again and renews it. The
    /// default.
    #[default]
    Keep,
    /// The hold ends. The holder treats every break as a [loss](crate::Loss::Disconnected). About
    /// half a second later, when no process listens on the holder's inbox, a waiter acquires the
    /// lock. Holder and server may notice the break at different times, so for a moment there may
    /// be two holders. Let the resource check [tokens](crate::TokenGate).
    Release,
}

/// The options of a [`RedisClient`] and of all its locks, with their defaults.
/// [`RedisClient::config`] returns them.
///
/// The server keeps durations in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Prefix of the keys of all locks. Default `stanchion`.
    pub namespace: String,
    /// How long the server keeps a hold that is not renewed. This is also how long the crash of a
    /// holder blocks the lock. 100 ms to one hour, default 10 s.
    ///
    /// A hold is renewed after a third of its lease, and counts as lost after three quarters. All
    /// users of a lock at the same time must set the same lease.
    pub lease: Duration,
    /// How long the server keeps the queue entry of a waiter that it does not hear from. A waiter
    /// reports every third of this time. 100 ms to one hour, default 4 s.
    pub patience: Duration,
    /// How long a grant waits for its future to be polled before the next waiter acquires the lock.
    /// 10 ms to one hour, default 2 s.
    pub claim_window: Duration,
    /// The longest time of a hold. After it the hold is no longer renewed, and is lost: a safety
    /// net for tasks that hang. Default `None`: no limit.
    pub max_hold: Option<Duration>,
    /// How long the server grants the lock to no caller after a hold that was not released. Use it
    /// for resources that stay busy after their holder is gone. At most one hour, default 0.
    pub lock_delay: Duration,
    /// What a broken connection means for a hold.
    pub on_disconnect: OnDisconnect,
    /// The name of the connection on the server (`CLIENT LIST`). By default `stanchion:`, host and
    /// process id.
    pub client_name: Option<String>,
    /// The label of holders and waiters in [`Status`](crate::Status). No label by default.
    pub label: Option<String>,
    /// Whether the server grants nothing for one lease after it was restarted or replaced, because
    /// it may have forgotten a holder. As a consequence, a server that has just started grants
    /// nothing until it is as old as the lease. On by default.
    pub quarantine: bool,
    /// How long an answer may take before the request is repeated. Default 1 s. A sixth of the
    /// lease is used instead if that is shorter.
    pub response_timeout: Duration,
    /// How long a wait lasts while the server does not answer, or answers that it cannot serve (a
    /// replica, no memory, no disk, loading). Default 10 s.
    ///
    /// After this time the wait fails, usually with [`ErrorKind::Unavailable`]. The error names the
    /// last answer.
    pub unavailable_after: Duration,
    /// Time limit of an acquire that sets none. Default `None`: waits forever.
    pub timeout: Option<Duration>,
    /// How often a waiter asks where the server cannot notify it: without rights for pub/sub, or on
    /// a connection that was handed in. Default 50 ms.
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

    /// Returns how long the client waits for one answer.
    pub(super) fn answer_within(&self) -> Duration {
        self.response_timeout.min(self.lease / 6)
    }
}

impl Setting for OnDisconnect {
    const TAKES: &'static str = "keep or release";

    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "keep" => Self::Keep,
            "release" => Self::Release,
            _ => return None,
        })
    }
}

/// Builds a [`RedisClient`]; created by [`RedisClient::options`].
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a client is connected with them"]
pub struct Options {
    config: Config,
}

impl Options {
    setters! { Config, in a URL:
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
    /// # Cancel safety
    ///
    /// As for [`RedisClient::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`RedisClient::connect`]. Also [`ErrorKind::InvalidInput`] for invalid options.
    pub async fn connect(self, url: impl AsRef<str>) -> Result<RedisClient> {
        let source = Source::of_url(url.as_ref())?;
        RedisClient::begin(source, self.config).await
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
        RedisClient::begin(Source::of_client(client), self.config).await
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
        RedisClient::begin(source, self.config).await
    }
}
