//! The options of a client.

use crate::error::{Error, ErrorKind, Result};

crate::lease::config! {
    /// The options of a [`RedisClient`](super::RedisClient) and of all its locks, with their
    /// defaults. [`RedisClient::config`](super::RedisClient::config) returns them.
    ///
    /// The server keeps durations in microseconds.
    Config;
    /// Builds a [`RedisClient`](super::RedisClient); created by
    /// [`RedisClient::options`](super::RedisClient::options).
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
