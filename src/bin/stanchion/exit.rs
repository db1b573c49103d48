//! Exit codes and error messages of the program.

use std::fmt::Display;
use std::io::{self, Write};
use std::panic::PanicHookInfo;

use stanchion::{Error, ErrorKind};

use crate::text::plain;

/// Wrong usage, as clap has it.
pub(crate) const USAGE: u8 = 2;
/// Another process holds the lock (`EX_TEMPFAIL`).
pub(crate) const BUSY: u8 = 75;
/// The time limit passed, as with `timeout(1)`.
pub(crate) const TIMED_OUT: u8 = 124;
/// And the signal's number.
const BY_SIGNAL: i32 = 128;
/// The program itself failed.
pub(crate) const OWN: u8 = 125;

/// How the program ends, or why it failed.
pub(crate) type Answer = Result<Ended, Failure>;

/// How the program ends without a failure of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(u8),
    /// By this signal, because it ended the wait or the command.
    Signal(i32),
}

impl Ended {
    pub(crate) const WELL: Self = Self::Code(0);

    /// Returns the exit code, as shells number it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => u8::try_from(BY_SIGNAL + number).unwrap_or(OWN),
        }
    }
}

/// What ends the program before its work is done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            text: text.into(),
        }
    }

    pub(crate) fn own(text: impl Into<String>) -> Self {
        Self {
            code: OWN,
            text: text.into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::TimedOut => TIMED_OUT,
            ErrorKind::Busy => BUSY,
            _ => OWN,
        };
        Self {
            code,
            text: error.to_string(),
        }
    }
}

/// Ends the program at a panic of any thread, as `kill -9` would. Unwinding would release the lock
/// while the command runs.
pub(crate) fn panicked(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("no text");
    match panic.location() {
        Some(place) => say(format_args!("internal error at {place}: {text}")),
        None => say(format_args!("internal error: {text}")),
    }
    // This is the program, not the library.
    #[allow(clippy::disallowed_methods)]
    std::process::exit(OWN.into());
}

/// Writes a message to stderr. A closed stderr is not an error.
pub(crate) fn say(text: impl Display) {
    let line = plain(&format!("stanchion: {text}"));
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes to stdout. Returns whether it still has a reader.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<bool, Failure> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_ref());
    match written.and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::own(format!("cannot write: {error}"))),
    }
}
