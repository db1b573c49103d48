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
use std::fmt;
use std::io;
use std::path::Path;

use ::redis::{ErrorKind as Kind, RedisError};

use crate::error::{Error, ErrorKind};

/// What the client does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The server does not know the script: sends its text.
    Resend,
    /// Not this server, or not on this connection: connects again and repeats the request there.
    Reconnect,
    /// Not now: repeats the request a little later.
    Wait,
    /// The same request would fail again: the wait fails. A hold lasts until its lease ends.
    Fail,
}

/// What an error means: what the client does, and what the caller gets if that does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) remedy: Remedy,
    pub(super) kind: ErrorKind,
}

type Row = (&'static str, Remedy, ErrorKind);

/// The verdict for each code. Every other code fails with [`ErrorKind::Unavailable`].
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
    ("NOSCRIPT", Remedy::Resend, ErrorKind::Unavailable),
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

impl Verdict {
    pub(super) fn of(error: &RedisError) -> Self {
        let unavailable = |remedy| Self {
            remedy,
            kind: ErrorKind::Unavailable,
        };
        let fails = |kind| Self {
            remedy: Remedy::Fail,
            kind,
        };
        match (error.code(), error.kind()) {
            (Some(code), _) => Self::of_code(code),
            (_, Kind::Io) if error.is_timeout() => unavailable(Remedy::Wait),
            // After bytes that are not the protocol of Redis, the connection is useless.
            (_, Kind::Io | Kind::Parse) => unavailable(Remedy::Reconnect),
            (_, Kind::AuthenticationFailed) => Self::of_code("WRONGPASS"),
            (_, Kind::RESP3NotSupported) => Self::of_code("NOPROTO"),
            // From a connection that was handed in and chooses its server itself.
            (
                _,
                Kind::MasterNameNotFoundBySentinel
                | Kind::NoValidReplicasFoundBySentinel
                | Kind::ClusterConnectionNotFound,
            ) => unavailable(Remedy::Wait),
            (_, Kind::InvalidClientConfig) => fails(ErrorKind::InvalidInput),
            (_, Kind::UnexpectedReturnType) => fails(ErrorKind::Corrupt),
            _ => fails(ErrorKind::Unavailable),
        }
    }

    fn of_code(code: &str) -> Self {
        let row = TABLE.iter().find(|row| row.0 == code);
        let (remedy, kind) = row.map_or((Remedy::Fail, ErrorKind::Unavailable), |it| (it.1, it.2));
        Self { remedy, kind }
    }
}

/// Returns whether the same request may succeed later, here or on another connection.
pub(super) fn is_passing(error: &RedisError) -> bool {
    Verdict::of(error).remedy != Remedy::Fail
}

/// Returns whether the user may not use the command, or the server does not know it. Locks work
/// without the commands at the beginning of a connection.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOPERM" | "ERR"))
}

/// Converts an error of the server or of the connection.
pub(super) fn failure(step: &'static str, place: &Path, error: RedisError) -> Error {
    let kind = Verdict::of(&error).kind;
    let io_kind = match error.is_timeout() {
        true => io::ErrorKind::TimedOut,
        false => io_kind(kind),
    };
    Error::caused_by(kind, step, place, io::Error::new(io_kind, Said(error)))
}

fn io_kind(kind: ErrorKind) -> io::ErrorKind {
    match kind {
        ErrorKind::Io => io::ErrorKind::PermissionDenied,
        ErrorKind::Incompatible | ErrorKind::Corrupt => io::ErrorKind::InvalidData,
        ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::Other,
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

/// The last failure that may pass: the reason why the server does not serve.
#[derive(Debug)]
pub(super) struct Trouble {
    kind: ErrorKind,
    io_kind: io::ErrorKind,
    text: String,
}

impl Trouble {
    /// Makes it from an error answer, or from a missing one.
    pub(super) fn of(error: &RedisError) -> Self {
        let kind = Verdict::of(error).kind;
        Self {
            kind,
            io_kind: io_kind(kind),
            text: Said(error.clone()).to_string(),
        }
    }

    /// Makes it from a connection that could not be made.
    pub(super) fn of_connecting(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            io_kind: error
                .io_error()
                .map_or(io::ErrorKind::Other, io::Error::kind),
            text: error.to_string(),
        }
    }

    /// Returns the error of a request that was repeated for too long.
    pub(super) fn end(trouble: Option<&Self>, step: &'static str, place: &Path) -> Error {
        let (kind, io_kind, last) = match trouble {
            Some(it) => (it.kind, it.io_kind, &*it.text),
            None => (ErrorKind::Unavailable, io::ErrorKind::Other, "no answer"),
        };
        let text = format!("the server did not serve the request in time; last answer: {last}");
        Error::caused_by(kind, step, place, io::Error::new(io_kind, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as it comes from the wire.
    fn said(line: &str) -> RedisError {
        let wire = format!("-{line}\r\n");
        let value = ::redis::parse_redis_value(wire.as_bytes()).expect("an error");
        let Err(error) = value.extract_error() else {
            panic!("{line}")
        };
        error
    }

    fn verdict(line: &str) -> (Remedy, ErrorKind) {
        let Verdict { remedy, kind } = Verdict::of(&said(line));
        (remedy, kind)
    }

    #[test]
    fn p45_each_code_of_a_server_has_its_verdict() {
        use Remedy::{Fail, Reconnect, Resend, Wait};
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
            ("NOSCRIPT No matching script.", Resend, unavailable),
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
            assert_eq!(verdict(line), (remedy, kind), "{line}");
        }
    }

    #[test]
    fn p45_failures_of_the_connection_have_their_verdicts() {
        let of = |error: RedisError| {
            let Verdict { remedy, kind } = Verdict::of(&error);
            (remedy, kind)
        };
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
        assert_eq!(of(late), (Remedy::Wait, unavailable));
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
        let text = include_str!("../../docs/protocol.md");
        let rows = text.lines().filter_map(|line| {
            let cells: Vec<_> = line.strip_prefix("| `")?.split(" | ").collect();
            let [codes, _, remedy, kind] = cells[..] else {
                return None;
            };
            let known = ["sends the text", "connects again", "waits", "fails"];
            known.contains(&remedy).then_some((codes, remedy, kind))
        });
        let mut documented: Vec<(String, String, String)> = Vec::new();
        for (codes, remedy, kind) in rows {
            let kind = kind.split('`').nth(1).expect("a kind");
            for code in codes
                .split('`')
                .filter(|it| it.chars().all(char::is_uppercase))
            {
                if !code.is_empty() {
                    documented.push((code.into(), remedy.into(), kind.into()));
                }
            }
        }
        let mut expected: Vec<_> = TABLE
            .iter()
            .map(|(code, remedy, kind)| {
                let remedy = match remedy {
                    Remedy::Resend => "sends the text",
                    Remedy::Reconnect => "connects again",
                    Remedy::Wait => "waits",
                    Remedy::Fail => "fails",
                };
                ((*code).to_owned(), remedy.to_owned(), format!("{kind:?}"))
            })
            .collect();
        documented.sort();
        expected.sort();
        assert_eq!(documented, expected);
    }

    #[test]
    fn an_error_has_the_text_of_the_server() {
        let line = "MISCONF Redis is configured to save RDB snapshots";
        let error = failure("wait for", Path::new("a"), said(line));
        assert!(error.to_string().contains(line), "{error}");
        let end = Trouble::end(Some(&Trouble::of(&said(line))), "wait for", Path::new("a"));
        assert_eq!(end.kind(), ErrorKind::Unavailable);
        assert!(end.to_string().contains(line), "{end}");
        let denied = Trouble::of(&said("WRONGPASS invalid"));
        let end = Trouble::end(Some(&denied), "wait for", Path::new("a"));
        let io = end.io_error().map(io::Error::kind);
        assert_eq!(
            (end.kind(), io),
            (ErrorKind::Io, Some(io::ErrorKind::PermissionDenied))
        );
    }
}
