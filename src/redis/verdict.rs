//! What the client does about an error: an error answer of the server, or a failure of the
//! connection.
//!
//! One table decides, by the code at the beginning of an error (`-READONLY You can't write…`),
//! never by its text. `docs/protocol.md` has the same table, and a test compares the two.
//!
//! # Invariants
//!
//! 1. No error is read as a grant, as a release, or as "the lock is held".
//! 2. An error that may pass ends no wait before
//!    [`unavailable_after`](super::Config::unavailable_after), and no hold before its lease ends.
//! 3. A code that is not in the table fails the wait, because a repetition may never help.

use std::error::Error as StdError;
use std::time::Duration;
use std::{fmt, io};

use ::redis::{ErrorKind as Kind, RedisError, RedisResult};

use crate::error::ErrorKind;
use crate::lease::{Failure, Remedy};

type Row = (&'static str, Remedy, ErrorKind);

/// The verdict for each code: what the client does, and what the caller gets if that does not help.
/// For an unknown script, the remedy counts only if its text does not help either. Every other code
/// fails with [`ErrorKind::Unavailable`].
const TABLE: [Row; 25] = [
    ("READONLY", Remedy::Reconnect, ErrorKind::Unavailable),
    ("MASTERDOWN", Remedy::Reconnect, ErrorKind::Unavailable),
    ("LOADING", Remedy::Reconnect, ErrorKind::Unavailable),
    ("UNBLOCKED", Remedy::Reconnect, ErrorKind::Unavailable),
    ("REDIRECT", Remedy::Reconnect, ErrorKind::Unavailable),
    ("NOAUTH", Remedy::Reconnect, ErrorKind::Io),
    ("WRONGPASS", Remedy::Reconnect, ErrorKind::Io),
    ("MISCONF", Remedy::Wait, ErrorKind::Unavailable),
    ("OOM", Remedy::Wait, ErrorKind::Unavailable),
    ("NOREPLICAS", Remedy::Wait, ErrorKind::Unavailable),
    ("BUSY", Remedy::Wait, ErrorKind::Unavailable),
    ("UNKILLABLE", Remedy::Wait, ErrorKind::Unavailable),
    ("TRYAGAIN", Remedy::Wait, ErrorKind::Unavailable),
    ("CLUSTERDOWN", Remedy::Wait, ErrorKind::Unavailable),
    ("NOSCRIPT", Remedy::Wait, ErrorKind::Unavailable),
    ("NOPERM", Remedy::Fail, ErrorKind::Io),
    ("DENIED", Remedy::Fail, ErrorKind::Io),
    ("MOVED", Remedy::Fail, ErrorKind::Unsupported),
    ("ASK", Remedy::Fail, ErrorKind::Unsupported),
    ("CROSSSLOT", Remedy::Fail, ErrorKind::Unsupported),
    ("NOPROTO", Remedy::Fail, ErrorKind::Unsupported),
    ("WRONGTYPE", Remedy::Fail, ErrorKind::Incompatible),
    ("INCOMPATIBLE", Remedy::Fail, ErrorKind::Incompatible),
    ("EXECABORT", Remedy::Fail, ErrorKind::Unavailable),
    ("ERR", Remedy::Fail, ErrorKind::Unavailable),
];

/// The verdict on an error.
type Verdict = (Remedy, ErrorKind);

fn verdict(error: &RedisError) -> Verdict {
    let unavailable = ErrorKind::Unavailable;
    match (error.code(), error.kind()) {
        (Some(code), _) => of_code(code),
        (_, Kind::Io) if error.is_timeout() => (Remedy::Late, unavailable),
        // After bytes that are not the protocol of Redis, the connection is useless.
        (_, Kind::Io | Kind::Parse) => (Remedy::Reconnect, unavailable),
        (_, Kind::AuthenticationFailed) => of_code("WRONGPASS"),
        (_, Kind::RESP3NotSupported) => of_code("NOPROTO"),
        // From a connection that was handed in and chooses its server itself.
        (
            _,
            Kind::MasterNameNotFoundBySentinel
            | Kind::NoValidReplicasFoundBySentinel
            | Kind::ClusterConnectionNotFound,
        ) => (Remedy::Wait, unavailable),
        (_, Kind::InvalidClientConfig) => (Remedy::Fail, ErrorKind::InvalidInput),
        (_, Kind::UnexpectedReturnType) => (Remedy::Fail, ErrorKind::Corrupt),
        _ => (Remedy::Fail, unavailable),
    }
}

fn of_code(code: &str) -> Verdict {
    let row = TABLE.iter().find(|row| row.0 == code);
    row.map_or((Remedy::Fail, ErrorKind::Unavailable), |it| (it.1, it.2))
}

/// Returns whether the server does not know the script. Then it gets the text of the script.
pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// Returns whether the user may not use the command, or the server does not know it. Locks work
/// without the commands at the beginning of a connection.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOPERM" | "ERR"))
}

/// Converts an error of the server or of the connection.
pub(super) fn failure(error: RedisError) -> Failure {
    let (remedy, kind) = verdict(&error);
    Failure::new(remedy, kind, Said(error))
}

/// Waits for an answer, and fails if it does not come in time.
pub(super) async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(late().into()),
    }
}

/// An error as the server sent it: its code, then its text.
#[derive(Debug)]
struct Said(RedisError);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.detail()) {
            (Some(code), Some(text)) => write!(f, "{code} {text}"),
            (Some(code), None) => f.write_str(code),
            (None, _) => self.0.fmt(f),
        }
    }
}

impl StdError for Said {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::lease::assert_documented;

    /// An error as it comes from the wire.
    fn said(line: &str) -> RedisError {
        let wire = format!("-{line}\r\n");
        let value = ::redis::parse_redis_value(wire.as_bytes()).expect("an error");
        let Err(error) = value.extract_error() else {
            panic!("{line}")
        };
        error
    }

    #[test]
    fn p45_each_code_of_a_server_has_its_verdict() {
        use Remedy::{Fail, Reconnect, Wait};
        let unavailable = ErrorKind::Unavailable;
        for (line, remedy, kind) in [
            (
                "READONLY You can't write against a read only replica.",
                Reconnect,
                unavailable,
            ),
            (
                "READONLY You can't write. script: a60f, on @user_script:1.",
                Reconnect,
                unavailable,
            ),
            (
                "MASTERDOWN Link with MASTER is down",
                Reconnect,
                unavailable,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                Reconnect,
                unavailable,
            ),
            ("UNBLOCKED force unblock", Reconnect, unavailable),
            ("REDIRECT 10.0.0.1:6379", Reconnect, unavailable),
            ("NOAUTH Authentication required.", Reconnect, ErrorKind::Io),
            (
                "WRONGPASS invalid username-password pair",
                Reconnect,
                ErrorKind::Io,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                Wait,
                unavailable,
            ),
            ("OOM command not allowed", Wait, unavailable),
            (
                "NOREPLICAS Not enough good replicas to write.",
                Wait,
                unavailable,
            ),
            ("BUSY Redis is busy running a script.", Wait, unavailable),
            ("UNKILLABLE Sorry", Wait, unavailable),
            (
                "TRYAGAIN Multiple keys request during rehashing",
                Wait,
                unavailable,
            ),
            ("CLUSTERDOWN The cluster is down", Wait, unavailable),
            ("NOSCRIPT No matching script.", Wait, unavailable),
            ("NOPERM this user has no permissions", Fail, ErrorKind::Io),
            (
                "DENIED Redis is running in protected mode",
                Fail,
                ErrorKind::Io,
            ),
            ("MOVED 3999 127.0.0.1:6381", Fail, ErrorKind::Unsupported),
            ("ASK 3999 127.0.0.1:6381", Fail, ErrorKind::Unsupported),
            (
                "CROSSSLOT Keys don't hash to the same slot",
                Fail,
                ErrorKind::Unsupported,
            ),
            (
                "NOPROTO unsupported protocol version",
                Fail,
                ErrorKind::Unsupported,
            ),
            (
                "WRONGTYPE Operation against a key",
                Fail,
                ErrorKind::Incompatible,
            ),
            (
                "INCOMPATIBLE the protocol version",
                Fail,
                ErrorKind::Incompatible,
            ),
            ("EXECABORT Transaction discarded", Fail, unavailable),
            ("ERR max number of clients reached", Fail, unavailable),
            // Prose decides nothing.
            ("ERR this says READONLY and LOADING", Fail, unavailable),
            ("SOMETHING new", Fail, unavailable),
        ] {
            assert_eq!(verdict(&said(line)), (remedy, kind), "{line}");
        }
    }

    #[test]
    fn p45_failures_of_the_connection_have_their_verdicts() {
        let of = |error: RedisError| verdict(&error);
        let io = |kind| RedisError::from(io::Error::from(kind));
        let unavailable = ErrorKind::Unavailable;
        for kind in [
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::UnexpectedEof,
        ] {
            assert_eq!(of(io(kind)), (Remedy::Reconnect, unavailable), "{kind:?}");
        }
        let late = io(io::ErrorKind::TimedOut);
        assert_eq!(of(late), (Remedy::Late, unavailable));
        for (kind, remedy, expected) in [
            (Kind::Parse, Remedy::Reconnect, unavailable),
            (Kind::AuthenticationFailed, Remedy::Reconnect, ErrorKind::Io),
            (
                Kind::RESP3NotSupported,
                Remedy::Fail,
                ErrorKind::Unsupported,
            ),
            (
                Kind::MasterNameNotFoundBySentinel,
                Remedy::Wait,
                unavailable,
            ),
            (
                Kind::InvalidClientConfig,
                Remedy::Fail,
                ErrorKind::InvalidInput,
            ),
            (Kind::UnexpectedReturnType, Remedy::Fail, ErrorKind::Corrupt),
            (Kind::Client, Remedy::Fail, unavailable),
        ] {
            assert_eq!(of((kind, "a test").into()), (remedy, expected), "{kind:?}");
        }
    }

    /// `docs/protocol.md` says the same of each code, and of no other.
    #[test]
    fn p45_the_documented_table_is_this_one() {
        assert_documented("Redis", TABLE, |code| {
            (code == "NOSCRIPT").then_some("sends the text")
        });
    }

    #[test]
    fn an_error_has_the_text_of_the_server() {
        let line = "MISCONF Redis is configured to save RDB snapshots";
        let error = failure(said(line)).error("wait for", "a");
        assert!(error.to_string().contains(line), "{error}");
        let source = error.io_error().and_then(StdError::source);
        assert!(source.is_some_and(|it| it.is::<RedisError>()), "{error:?}");
    }
}
