//! What the client does about an error of the server or of the connection.
//!
//! One table decides, by the SQLSTATE of an error, never by its text. `docs/protocol.md` has the
//! same table, and a test compares the two.
//!
//! # Invariants
//!
//! 1. No error is read as a grant, as a release, or as "the lock is held".
//! 2. An error that may pass ends no wait before
//!    [`unavailable_after`](super::Config::unavailable_after), and no hold before its lease ends.
//! 3. A code that is not in the table fails the wait, because a repetition may never help.

use tokio_postgres::error::{Error as PgError, SqlState};

use crate::error::{Error, ErrorKind};
use crate::lease::{Failure, Remedy};

type Row = (&'static str, Remedy, ErrorKind, &'static str);

const NOT_INSTALLED: &str = "the locks are not installed in this database and schema: run the output of `stanchion sql --dialect postgres`, or connect with `PgClient::options().install(true)`, or with install=true in the URL of `Locks`";
const REPLICA: &str = "the server does not accept writes: locks need the primary";
const RIGHTS: &str =
    "the role needs the right to the schema of the locks: GRANT USAGE ON SCHEMA stanchion TO role";

/// The verdict for each code, and what the user can do. A code of two letters is a class, and a row
/// before it is an exception. Every other code fails with [`ErrorKind::Unavailable`].
const TABLE: [Row; 38] = [
    ("25006", Remedy::Reconnect, ErrorKind::Unavailable, REPLICA),
    ("57P01", Remedy::Reconnect, ErrorKind::Unavailable, ""),
    ("57P02", Remedy::Reconnect, ErrorKind::Unavailable, ""),
    ("57P03", Remedy::Reconnect, ErrorKind::Unavailable, ""),
    ("57P05", Remedy::Reconnect, ErrorKind::Unavailable, ""),
    ("25P03", Remedy::Reconnect, ErrorKind::Unavailable, ""),
    (
        "53300",
        Remedy::Reconnect,
        ErrorKind::Unavailable,
        "the server is at its connection limit: a client needs two connections",
    ),
    ("3D000", Remedy::Reconnect, ErrorKind::Unavailable, ""),
    ("08", Remedy::Reconnect, ErrorKind::Unavailable, ""),
    // A prepared step is gone, perhaps by `DEALLOCATE ALL`.
    ("26000", Remedy::Reconnect, ErrorKind::Unavailable, ""),
    ("28000", Remedy::Reconnect, ErrorKind::Io, ""),
    ("28P01", Remedy::Reconnect, ErrorKind::Io, ""),
    ("40001", Remedy::Wait, ErrorKind::Unavailable, ""),
    ("40P01", Remedy::Wait, ErrorKind::Unavailable, ""),
    (
        "55P03",
        Remedy::Wait,
        ErrorKind::Unavailable,
        "a step was ended by lock_timeout: set it to 0 or to more than a second for this role",
    ),
    (
        "57014",
        Remedy::Wait,
        ErrorKind::Unavailable,
        "a step was cancelled, perhaps by statement_timeout: set it to 0 or to more than a second for this role",
    ),
    ("53100", Remedy::Wait, ErrorKind::Unavailable, ""),
    ("53200", Remedy::Wait, ErrorKind::Unavailable, ""),
    ("53400", Remedy::Wait, ErrorKind::Unavailable, ""),
    ("53000", Remedy::Wait, ErrorKind::Unavailable, ""),
    ("54000", Remedy::Wait, ErrorKind::Unavailable, ""),
    ("58", Remedy::Wait, ErrorKind::Unavailable, ""),
    ("42501", Remedy::Fail, ErrorKind::Io, RIGHTS),
    ("3F000", Remedy::Fail, ErrorKind::Unsupported, NOT_INSTALLED),
    ("42883", Remedy::Fail, ErrorKind::Unsupported, NOT_INSTALLED),
    ("42P01", Remedy::Fail, ErrorKind::Unsupported, NOT_INSTALLED),
    ("0A000", Remedy::Fail, ErrorKind::Unsupported, ""),
    ("22021", Remedy::Fail, ErrorKind::InvalidInput, ""),
    (
        "22P05",
        Remedy::Fail,
        ErrorKind::InvalidInput,
        "the encoding of the database does not have this character: use UTF8",
    ),
    ("22023", Remedy::Fail, ErrorKind::InvalidInput, ""),
    (
        "SL002",
        Remedy::Fail,
        ErrorKind::Unsupported,
        "ALTER ROLE role SET default_transaction_isolation = 'read committed'",
    ),
    ("SL003", Remedy::Fail, ErrorKind::Incompatible, ""),
    ("55000", Remedy::Reconnect, ErrorKind::Unavailable, REPLICA),
    ("XX001", Remedy::Fail, ErrorKind::Corrupt, ""),
    ("XX002", Remedy::Fail, ErrorKind::Corrupt, ""),
    ("42", Remedy::Fail, ErrorKind::Unsupported, ""),
    ("XX", Remedy::Fail, ErrorKind::Unavailable, ""),
    ("P0", Remedy::Fail, ErrorKind::Unavailable, ""),
];

fn row(code: &str) -> (Remedy, ErrorKind, &'static str) {
    let row = TABLE.iter().find(|row| code.starts_with(row.0));
    row.map_or((Remedy::Fail, ErrorKind::Unavailable, ""), |it| {
        (it.1, it.2, it.3)
    })
}

/// Returns whether the same step may be repeated at once: it changed nothing.
pub(super) fn is_conflict(error: &PgError) -> bool {
    let code = error.code();
    code == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
        || code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
}

/// Returns the failure for an error of the server or of the connection.
pub(super) fn failure(error: &PgError) -> Failure {
    let (remedy, kind, advice) = match error.code() {
        Some(code) => row(code.code()),
        // Without a code, the connection has failed.
        None => (Remedy::Reconnect, ErrorKind::Unavailable, ""),
    };
    Failure::new(remedy, kind, said(error, advice))
}

/// Returns the error for a connection that cannot be used.
pub(super) fn refusal(step: &'static str, address: &str, error: &PgError) -> Error {
    failure(error).error(step, address)
}

/// The code and text of the server, and what the user can do.
fn said(error: &PgError, advice: &str) -> String {
    let text = match error.as_db_error() {
        Some(said) => format!("{} {}", said.code().code(), said.message()),
        None => with_causes(error),
    };
    match advice {
        "" => text,
        advice => format!("{text} ({advice})"),
    }
}

/// An error of the driver names its cause only in its source.
fn with_causes(error: &PgError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::assert_documented;

    #[test]
    fn p45_each_code_has_its_verdict() {
        use Remedy::{Fail, Reconnect, Wait};
        for (code, remedy, kind) in [
            ("25006", Reconnect, ErrorKind::Unavailable),
            ("57P01", Reconnect, ErrorKind::Unavailable),
            ("57014", Wait, ErrorKind::Unavailable),
            ("08006", Reconnect, ErrorKind::Unavailable),
            ("08P01", Reconnect, ErrorKind::Unavailable),
            ("53300", Reconnect, ErrorKind::Unavailable),
            ("53100", Wait, ErrorKind::Unavailable),
            ("40001", Wait, ErrorKind::Unavailable),
            ("42501", Fail, ErrorKind::Io),
            ("42601", Fail, ErrorKind::Unsupported),
            ("3F000", Fail, ErrorKind::Unsupported),
            ("SL003", Fail, ErrorKind::Incompatible),
            ("99999", Fail, ErrorKind::Unavailable),
            ("", Fail, ErrorKind::Unavailable),
        ] {
            let (has, is, _) = row(code);
            assert_eq!((has, is), (remedy, kind), "{code}");
        }
    }

    /// `docs/protocol.md` says the same of each code, and of no other.
    #[test]
    fn p45_the_documented_table_is_this_one() {
        let rows = TABLE.iter().map(|it| (it.0, it.1, it.2));
        assert_documented("Postgres", rows, |_| None);
    }
}
