//! The options of a client.

use super::sql;
use crate::error::{Error, ErrorKind, Result};

crate::lease::config! {
    /// The options of a [`PgClient`](super::PgClient) and of all its locks, with their defaults.
    /// [`PgClient::config`](super::PgClient::config) returns them.
    ///
    /// The server keeps durations in microseconds.
    Config;
    /// Builds a [`PgClient`](super::PgClient); created by
    /// [`PgClient::options`](super::PgClient::options).
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
