//! The error type of this crate, and the kinds of failure.
//!
//! Contention is a value: `None`, [`ErrorKind::Busy`] or [`ErrorKind::TimedOut`]. A failure is an
//! error, and so is doubt. No error of the operating system is ever read as "held by another
//! process" or as "held by this caller".

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::duration::Readable;
use crate::loss::Loss;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed: a [kind](Error::kind), the [path](Error::path) it concerns, and the cause.
///
/// The text names the step that failed and the path: `cannot open the lock file "/run/app.lock":
/// Permission denied (os error 13)`. An `Error` converts to [`std::io::Error`] without loss: it is
/// the inner error of the result, and [`std::io::Error::downcast`] returns it.
///
/// The `source` is `None`, because the text already includes the cause.
/// [`io_error`](Error::io_error) returns the cause.
#[derive(thiserror::Error)]
#[error("{0}")]
pub struct Error(Box<Inner>);

/// The kind of failure of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The time limit passed before the lock was free.
    TimedOut,
    /// The queue is longer than the caller allows, and the caller asked to fail instead of waiting.
    Busy,
    /// The handle was closed with `close()`, so no caller can wait for the lock through it any
    /// more.
    Closed,
    /// The lock was lost while it was held, or a [`TokenGate`](crate::TokenGate) has seen a newer
    /// token.
    Lost,
    /// The lock file was deleted or replaced, and a process still holds the lock through the old
    /// file.
    Replaced,
    /// The caller would wait for itself.
    Deadlock,
    /// Another protocol version, another kind of lock, or another limit is in use at this path.
    Incompatible,
    /// An argument is invalid.
    InvalidInput,
    /// The platform, the file system, or the place of the call does not support the operation.
    Unsupported,
    /// The content on disk cannot be understood, and must not be replaced.
    Corrupt,
    /// The server of the lock cannot be reached, or grants nothing at the moment.
    Unavailable,
    /// A call of the operating system failed. [`Error::io_error`] has its error number.
    Io,
}

/// Writes the kind as a short phrase in lower case, such as `timed out`.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TimedOut => "timed out",
            Self::Busy => "busy",
            Self::Closed => "closed",
            Self::Lost => "lock lost",
            Self::Replaced => "lock file replaced",
            Self::Deadlock => "deadlock",
            Self::Incompatible => "incompatible lock",
            Self::InvalidInput => "invalid input",
            Self::Unsupported => "unsupported",
            Self::Corrupt => "corrupt lock data",
            Self::Unavailable => "server unavailable",
            Self::Io => "input or output failed",
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum Inner {
    #[error("cannot {step} {path:?}: {cause}")]
    Io {
        kind: ErrorKind,
        step: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    #[error("timed out after {} waiting for {path:?}{}", Readable(*.waited), Because(.why))]
    TimedOut {
        path: PathBuf,
        waited: Duration,
        why: Option<String>,
    },
    #[error("{text}: {path:?}")]
    Plain {
        kind: ErrorKind,
        text: String,
        path: PathBuf,
    },
    #[error("{loss}: {path:?}")]
    Lost { loss: Loss, path: PathBuf },
    #[error("{text}")]
    Pathless { kind: ErrorKind, text: String },
    #[error("cannot {step} the open file: {cause}")]
    PathlessIo {
        kind: ErrorKind,
        step: &'static str,
        cause: io::Error,
    },
    /// An error of the caller's own input and output.
    #[error("{cause}")]
    Foreign { kind: ErrorKind, cause: io::Error },
    #[error("{first}; then {second}")]
    Both { first: Error, second: Error },
}

impl Error {
    /// Returns the kind of this failure.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Inner::Io { kind, .. }
            | Inner::Plain { kind, .. }
            | Inner::Pathless { kind, .. }
            | Inner::PathlessIo { kind, .. }
            | Inner::Foreign { kind, .. } => *kind,
            Inner::TimedOut { .. } => ErrorKind::TimedOut,
            Inner::Lost { .. } => ErrorKind::Lost,
            Inner::Both { first, .. } => first.kind(),
        }
    }

    /// Returns the file or directory that the failed step was about. For a lock on a server,
    /// returns its address and name.
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Inner::Io { path, .. }
            | Inner::TimedOut { path, .. }
            | Inner::Lost { path, .. }
            | Inner::Plain { path, .. } => Some(path),
            Inner::Pathless { .. } | Inner::PathlessIo { .. } | Inner::Foreign { .. } => None,
            Inner::Both { first, second } => first.path().or(second.path()),
        }
    }

    /// Returns the operating system's error behind this one, with its number.
    pub fn io_error(&self) -> Option<&io::Error> {
        match &*self.0 {
            Inner::Io { cause, .. }
            | Inner::PathlessIo { cause, .. }
            | Inner::Foreign { cause, .. } => Some(cause),
            Inner::Both { first, second } => first.io_error().or(second.io_error()),
            _ => None,
        }
    }

    /// Makes an error of this kind that is about no place.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self(Box::new(Inner::Pathless {
            kind,
            text: text.into(),
        }))
    }

    /// Makes an error of this kind about a place: a path, or an address on a server.
    pub fn at(kind: ErrorKind, text: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self(Box::new(Inner::Plain {
            kind,
            text: text.into(),
            path: path.into(),
        }))
    }

    /// Makes an error of this kind with a cause: `cannot STEP "PLACE": CAUSE`.
    pub fn caused_by(
        kind: ErrorKind,
        step: &'static str,
        place: impl Into<PathBuf>,
        cause: io::Error,
    ) -> Self {
        Self(Box::new(Inner::Io {
            kind,
            step,
            path: place.into(),
            cause,
        }))
    }

    pub(crate) fn io(step: &'static str, path: impl Into<PathBuf>, cause: io::Error) -> Self {
        Self::caused_by(kind_of(&cause), step, path, cause)
    }

    pub(crate) fn pathless_io(step: &'static str, cause: io::Error) -> Self {
        let kind = kind_of(&cause);
        Self(Box::new(Inner::PathlessIo { kind, step, cause }))
    }

    /// Combines the results of two steps that both ran. If both failed, the first determines the
    /// kind.
    pub(crate) fn of_both(first: Result<()>, second: Result<()>) -> Result<()> {
        match (first, second) {
            (Err(first), Err(second)) => Err(Self(Box::new(Inner::Both { first, second }))),
            (first, second) => first.and(second),
        }
    }

    /// Returns an [`ErrorKind::Lost`].
    pub(crate) fn lost(loss: Loss, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self(Box::new(Inner::Lost { loss, path }))
    }

    /// Returns how the lock was lost, if this error knows it.
    pub(crate) fn loss(&self) -> Option<Loss> {
        match &*self.0 {
            Inner::Lost { loss, .. } => Some(*loss),
            Inner::Both { first, .. } => first.loss(),
            _ => None,
        }
    }

    /// Returns an [`ErrorKind::TimedOut`]. `why` is what the caller waited for.
    pub(crate) fn timed_out(
        path: impl Into<PathBuf>,
        waited: Duration,
        why: Option<String>,
    ) -> Self {
        Self(Box::new(Inner::TimedOut {
            path: path.into(),
            waited,
            why,
        }))
    }
}

struct Because<'a>(&'a Option<String>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

fn kind_of(source: &io::Error) -> ErrorKind {
    match source.kind() {
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Io,
    }
}

/// Writes what `main` prints when it returns an error: the kind, and the text for people.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())
    }
}

/// Lets `?` work on the caller's own input and output too. An [`Error`] that was converted to an
/// `io::Error` before is returned unchanged.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(cause) => Self(Box::new(Inner::Foreign {
                kind: kind_of(&cause),
                cause,
            })),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::TimedOut => io::ErrorKind::TimedOut,
            ErrorKind::Busy => io::ErrorKind::WouldBlock,
            ErrorKind::Closed | ErrorKind::Lost => io::ErrorKind::BrokenPipe,
            ErrorKind::Deadlock => io::ErrorKind::Deadlock,
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Corrupt | ErrorKind::Incompatible => io::ErrorKind::InvalidData,
            ErrorKind::Unavailable => io::ErrorKind::NotConnected,
            ErrorKind::Replaced => io::ErrorKind::Other,
            ErrorKind::Io => error
                .io_error()
                .map_or(io::ErrorKind::Other, io::Error::kind),
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_shown_as_a_phrase() {
        assert_eq!(ErrorKind::TimedOut.to_string(), "timed out");
        assert_eq!(format!("{:>10}", ErrorKind::Busy), "      busy");
    }

    #[test]
    fn conversion_to_io_error_is_lossless() {
        let source = io::Error::from_raw_os_error(13);
        let expected = source.kind();
        let error = Error::io("open the lock file", "/x/y", source);
        let io_error = io::Error::from(error);
        assert_eq!(io_error.kind(), expected);
        let back = io_error
            .downcast::<Error>()
            .expect("the error is kept inside");
        assert_eq!(back.kind(), ErrorKind::Io);
        assert_eq!(back.path(), Some(Path::new("/x/y")));
        assert_eq!(
            back.io_error().and_then(io::Error::raw_os_error),
            Some(13),
            "the error number survives"
        );
    }

    #[test]
    fn conversion_from_io_error_is_lossless() {
        let error = Error::new(ErrorKind::Busy, "busy");
        let back = Error::from(io::Error::from(error));
        assert_eq!(back.kind(), ErrorKind::Busy);
        let foreign = Error::from(io::Error::from_raw_os_error(13));
        assert_eq!(foreign.kind(), ErrorKind::Io);
        let number = foreign.io_error().and_then(io::Error::raw_os_error);
        assert_eq!(number, Some(13));
    }

    #[test]
    fn the_cause_is_told_once() {
        let cause = io::Error::from_raw_os_error(13);
        let text = cause.to_string();
        let error = Error::io("open the lock file", "/x/y", cause);
        assert!(std::error::Error::source(&error).is_none());
        assert_eq!(error.to_string().matches(&text).count(), 1);
    }

    #[test]
    fn text_names_step_and_path() {
        let error = Error::io(
            "open the lock file",
            "/x/y",
            io::Error::from(io::ErrorKind::PermissionDenied),
        );
        let text = error.to_string();
        assert!(text.contains("open the lock file") && text.contains("/x/y"));
    }
}
