//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, RangedI64ValueParser, StyledStr, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Error, Parser, Subcommand};

use crate::exit::Failure;
use crate::method::{Method, Unlined, Want};

const PLACE: &str = "\
Path of the lock file; the queue is beside it, in LOCK.queue. Or a URL, file:///DIRECTORY#NAME or \
redis://HOST#NAME: the lock that programs open by that URL and NAME";

const KINDS_AND_EXIT_CODES: &str = "\
Without --shared, --exclusive, --permits and --of, the command holds the lock alone; of a
reader-writer lock it is the writer.
With --permits or --of, LOCK is the directory and the name of a semaphore. Its permits are the files
LOCK.00.lock, LOCK.01.lock and so on.

Exit codes:
  0..123  the command's own code
  128+n   signal n ended the command or the wait for the lock
  2       wrong usage; or the lock is of another kind or has another number of permits
  75      busy, with --no-wait
  124     the time limit passed
  125     stanchion itself failed; or the lock was lost while the command ran, and the command
          ended with 0
  126     the command cannot be executed
  127     the command was not found
The command itself may end with any of these codes.";

/// A fair lock for commands: first come, first served, among all processes of a host
#[derive(Debug, Parser)]
#[command(name = "stanchion", version, max_term_width = 100)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) task: Task,
}

impl Options {
    pub(crate) fn read() -> Result<Self, Error> {
        Self::try_parse().map_err(with_tip)
    }
}

/// Adds the missing `--` to clap's message. Similar programs need no `--`, so users leave it out, and
/// clap does not name it.
fn with_tip(mut error: Error) -> Error {
    let is_run = std::env::args_os().nth(1).is_some_and(|it| it == "run");
    let is_word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => !argument.starts_with('-'),
        _ => false,
    };
    if error.kind() == ErrorKind::UnknownArgument && is_run && is_word {
        let tip = StyledStr::from("put '--' before the command");
        let tips = ContextValue::StyledStrs(vec![tip]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a command while holding the lock
    Run(Run),
    /// Show the holder and the waiters of a lock
    Status(Status),
    /// Delete the files of a lock of any kind, if no process uses the lock
    #[command(
        after_help = "Exit codes:\n  0    the files are deleted, or there were none; a lock file with content is kept\n  \
                            2    wrong usage; or the lock is on a server\n  \
                            75   in use, or foreign files in the queue; nothing has changed\n  \
                            125  stanchion itself failed"
    )]
    Remove(Remove),
}

#[derive(Debug, Args)]
#[command(after_help = KINDS_AND_EXIT_CODES, override_usage = "stanchion run [OPTIONS] <LOCK> -- <COMMAND>...")]
pub(crate) struct Run {
    /// Give up after this time, decimals allowed; 0 is exactly one attempt
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "no_wait", allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// Fail with code 75 instead of waiting
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Print only errors: no line while waiting, no warnings, no message with the codes 75 and 124
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Text that other processes see beside the process id
    #[arg(long, value_name = "TEXT", value_parser = OsStringValueParser::new().try_map(utf8))]
    pub(crate) label: Option<String>,
    /// Share the lock with other readers; a new lock becomes a reader-writer lock
    #[arg(long, short, conflicts_with_all = ["exclusive", "permits", "of"])]
    pub(crate) shared: bool,
    /// Hold the lock alone, of a reader-writer lock as the writer; a new lock becomes a reader-writer
    /// lock
    #[arg(long, short = 'x', conflicts_with_all = ["permits", "of"])]
    pub(crate) exclusive: bool,
    /// Take this many permits of a semaphore; 1 if only --of is given
    #[arg(long, value_name = "K", value_parser = permits())]
    pub(crate) permits: Option<u32>,
    /// Number of permits of the semaphore; not needed once it is recorded
    #[arg(long, value_name = "N", value_parser = permits())]
    pub(crate) of: Option<u32>,
    /// Take a lock that is not fair and does not use the file locks of the operating system: it has no
    /// queue, and the command does not inherit it
    #[arg(long, value_name = "METHOD", conflicts_with_all = ["shared", "exclusive", "permits", "of", "mode", "close"])]
    pub(crate) method: Option<Method>,
    /// With mkdir and create-new: let other processes take the lock over from a holder that has been
    /// silent for this time; a living holder renews the lock in time
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "method", allow_negative_numbers = true)]
    pub(crate) expire: Option<Duration>,
    /// Permission bits of a lock file that run creates, whatever the umask: 660 for the group, 666 for
    /// all users
    #[arg(long, value_name = "OCTAL", value_parser = permissions)]
    pub(crate) mode: Option<u32>,
    /// Do not let the command inherit the lock: if stanchion is killed, the lock becomes free although
    /// the command continues
    #[arg(long)]
    pub(crate) close: bool,
    /// Execute the command in place of stanchion, in the same process; the lock is held until the
    /// command and all processes that inherited the lock from it have ended
    #[arg(long, short = 'F', conflicts_with_all = ["close", "method"])]
    pub(crate) no_fork: bool,
    #[arg(value_name = "LOCK", help = PLACE)]
    pub(crate) lock: PathBuf,
    /// The lock on a server, if LOCK is the URL of one.
    #[arg(skip)]
    pub(crate) far: Option<Unlined>,
    /// The command and its arguments; its environment has the fencing token in STANCHION_TOKEN, the
    /// lock in STANCHION_LOCK, its slot files in STANCHION_SLOTS and all held locks in STANCHION_HELD
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl Run {
    /// Returns how to take a lock on a server. Fails for options that only locks on files have.
    pub(crate) fn want(&self) -> Result<Want, Failure> {
        let files = [
            ("--method", self.method.is_some()),
            ("--expire", self.expire.is_some()),
            ("--mode", self.mode.is_some()),
            ("--close", self.close),
            ("--no-fork", self.no_fork),
        ];
        if let Some((option, _)) = files.iter().find(|(_, given)| *given) {
            let text = format!("{option} is for locks on files, not on a server");
            return Err(Failure::usage(text));
        }
        match (self.permits, self.of) {
            (None, None) if self.shared => Ok(Want::Shared),
            (None, None) if self.exclusive => Ok(Want::Exclusive),
            (None, None) => Ok(Want::Alone),
            (Some(_), None) => Err(Failure::usage(
                "on a server --permits needs --of N, the same N as in all other programs",
            )),
            (some, Some(of)) => match some.unwrap_or(1) {
                some if some > of => {
                    let text = format!("--permits {some} is more than there are: {of}");
                    Err(Failure::usage(text))
                }
                some => Ok(Want::Permits { some, of }),
            },
        }
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0    whether or not the lock is held\n  2    wrong usage; or --watch of a lock that cannot be watched\n  \
                  125  stanchion itself failed, or cannot tell whether the lock is held"
)]
pub(crate) struct Status {
    /// Print one JSON object per line; docs/cli.md describes it
    #[arg(long)]
    pub(crate) json: bool,
    /// Continue until interrupted: redraw on a terminal, otherwise print one line for each change
    #[arg(long, conflicts_with = "method")]
    pub(crate) watch: bool,
    /// Show a lock of this method; needed only for the pid file of another program
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    #[arg(value_name = "LOCK", help = PLACE)]
    pub(crate) lock: PathBuf,
    /// The lock on a server, if LOCK is the URL of one.
    #[arg(skip)]
    pub(crate) far: Option<Unlined>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Remove a lock of this method; needed only for the pid file of another program
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    #[arg(value_name = "LOCK", help = PLACE)]
    pub(crate) lock: PathBuf,
    /// The lock on a server, if LOCK is the URL of one.
    #[arg(skip)]
    pub(crate) far: Option<Unlined>,
}

/// Parses a number of permits. No process can open more than 65,535 files.
fn permits() -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(1..=65_535)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    if number < 0.0 {
        return Err("a time limit is not negative; 0 is exactly one attempt".into());
    }
    let limit = Duration::try_from_secs_f64(number);
    limit.map_err(|_| "not a length of time; without --timeout the wait has no limit".into())
}

fn permissions(text: &str) -> Result<u32, String> {
    let bits = u32::from_str_radix(text, 8).map_err(|_| "not an octal number")?;
    if bits > 0o777 || bits & 0o600 != 0o600 {
        return Err("between 600 and 777, and the owner must be able to read and write".into());
    }
    Ok(bits)
}

/// Parses UTF-8 by hand, because clap's own message does not name the argument.
fn utf8(text: OsString) -> Result<String, &'static str> {
    text.into_string().map_err(|_| "not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_makes_sense() {
        Options::command().debug_assert();
    }

    #[test]
    fn seconds_have_decimals_and_no_sign() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["", "soon", "-1", "inf", "NaN", "1e300"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn permissions_are_octal_and_let_the_owner_in() {
        assert_eq!(permissions("660"), Ok(0o660));
        assert_eq!(permissions("0666"), Ok(0o666));
        for wrong in ["", "rw", "668", "1666", "440", "-660"] {
            assert!(permissions(wrong).is_err(), "{wrong}");
        }
    }
}
