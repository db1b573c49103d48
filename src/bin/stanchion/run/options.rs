//! The command line of `stanchion run`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, RangedI64ValueParser, TypedValueParser};

use crate::exit::Failure;
use crate::method::{Method, Unlined, Want};
use crate::options::{PLACE, duration};

const AFTER: &str = "\
Examples:
  stanchion run deploy.lock ./deploy --all
  stanchion run -w 5m --label 'nightly backup' /run/app/backup.lock -- ./backup
  stanchion run -n -E 0 backup.lock -c './backup && ./report'
  stanchion run -s catalogue.lock ./export
  stanchion run --of 4 /run/app/workers ./worker

Options stand before COMMAND. Without --shared, --exclusive, --permits and --of, the command holds
the lock alone; of a reader-writer lock it is the writer.
With --permits or --of, LOCK is the directory and the name of a semaphore. Its permits are the files
LOCK.00.lock, LOCK.01.lock and so on.

Exit codes:
  0..123  the command's own code
  128+n   signal n ended the command or the wait for the lock
  2       wrong usage; or the lock is of another kind or has another number of permits
  75      busy, with --no-wait (flock: 1); see --conflict-exit-code
  124     the time limit passed (flock: 1); see --conflict-exit-code
  125     stanchion itself failed; or the lock was lost while the command ran, and the command
          ended with 0
  126     the command cannot be executed
  127     the command was not found

The command itself may end with any of these codes.";

#[derive(Debug, Args)]
#[command(after_help = AFTER, override_usage = "stanchion run [OPTIONS] <LOCK> [--] <COMMAND>...\n       stanchion run [OPTIONS] <LOCK> -c <COMMAND>")]
pub(crate) struct Run {
    /// Fail with code 75 instead of waiting
    #[arg(long, short = 'n', aliases = ["nonblock", "nb"])]
    pub(crate) no_wait: bool,
    /// Give up after this time: seconds, as in 5 or 0.25, or units, as in 250ms, 5m or 1h30m; 0 is
    /// exactly one attempt
    #[arg(long, short = 'w', alias = "wait", value_name = "DURATION", value_parser = duration, conflicts_with = "no_wait", allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// The exit code in place of 75 and 124, if the lock is not acquired because of --no-wait or
    /// --timeout
    #[arg(long, short = 'E', value_name = "CODE")]
    conflict_exit_code: Option<u8>,
    /// Print only errors: no line while waiting, no warnings, no message if the lock is not
    /// acquired because of --no-wait or --timeout
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Text that other processes see beside the process id
    #[arg(long, value_name = "TEXT", value_parser = OsStringValueParser::new().try_map(utf8))]
    pub(crate) label: Option<String>,
    /// Share the lock with other readers; a new lock becomes a reader-writer lock
    #[arg(long, short, conflicts_with_all = ["exclusive", "permits", "of"])]
    pub(crate) shared: bool,
    /// Hold the lock alone, of a reader-writer lock as the writer; a new lock becomes a
    /// reader-writer lock
    #[arg(long, short = 'x', short_alias = 'e', conflicts_with_all = ["permits", "of"])]
    pub(crate) exclusive: bool,
    /// Take this many permits of a semaphore; 1 if only --of is given
    #[arg(long, value_name = "K", value_parser = permits())]
    pub(crate) permits: Option<u32>,
    /// Number of permits of the semaphore; not needed once it is recorded
    #[arg(long, value_name = "N", value_parser = permits())]
    pub(crate) of: Option<u32>,
    /// Take a lock that is not fair and does not use the file locks of the operating system: it has
    /// no queue, and the command does not inherit it
    #[arg(long, value_name = "METHOD", conflicts_with_all = ["shared", "exclusive", "permits", "of", "mode", "close"])]
    pub(crate) method: Option<Method>,
    /// With mkdir and create-new: let other processes take the lock over from a holder that has
    /// been silent for this time; a living holder renews the lock in time
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "method", allow_negative_numbers = true)]
    pub(crate) expire: Option<Duration>,
    /// Permission bits of a lock file that run creates, whatever the umask: 660 for the group, 666
    /// for all users
    #[arg(long, value_name = "OCTAL", value_parser = permissions)]
    pub(crate) mode: Option<u32>,
    /// Do not let the command inherit the lock: if stanchion is killed, the lock becomes free
    /// although the command continues
    #[arg(long, short = 'o')]
    pub(crate) close: bool,
    /// Execute the command in place of stanchion, in the same process; the lock is held until the
    /// command and all processes that inherited the lock from it have ended
    #[arg(long, short = 'F', conflicts_with_all = ["close", "method"])]
    pub(crate) no_fork: bool,
    /// Refused; see [`Run::words`].
    #[arg(long, short = 'u', hide = true)]
    unlock: bool,
    /// Run this command in a shell: that of the variable SHELL, or /bin/sh
    #[arg(
        long = "command",
        short = 'c',
        value_name = "COMMAND",
        conflicts_with = "command"
    )]
    shell: Option<OsString>,
    #[arg(value_name = "LOCK", help = PLACE)]
    pub(crate) lock: PathBuf,
    /// The lock on a server, if LOCK is the URL of one.
    #[arg(skip)]
    pub(crate) far: Option<Unlined>,
    /// The command and its arguments; its environment has the fencing token in STANCHION_TOKEN, the
    /// lock in STANCHION_LOCK, its slot files in STANCHION_SLOTS and all held locks in
    /// STANCHION_HELD
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    /// Returns the program to execute and its arguments. Refuses what `flock` does to a descriptor
    /// that it inherits: the lock would not be fair, and `stanchion` could not release it.
    pub(super) fn words(&self) -> Result<(OsString, Vec<OsString>), Failure> {
        if self.unlock {
            let text = "--unlock is not possible: a lock of `stanchion run` ends with its command; \
                        a lock that flock(1) took on an inherited descriptor is released by `flock -u`";
            return Err(Failure::usage(text));
        }
        match (&self.shell, self.command.split_first()) {
            (Some(script), _) => {
                let shell = env::var_os("SHELL").filter(|it| !it.is_empty());
                let shell = shell.unwrap_or_else(|| "/bin/sh".into());
                Ok((shell, vec![OsStr::new("-c").to_owned(), script.clone()]))
            }
            (None, Some((program, arguments))) => Ok((program.clone(), arguments.to_vec())),
            (None, None) => Err(Failure::usage(
                "COMMAND is missing after LOCK; a descriptor that is inherited, as in `flock 9`, cannot be locked",
            )),
        }
    }

    /// Returns the exit code if the lock was not acquired because of `--no-wait` or `--timeout`.
    pub(super) fn conflict(&self, code: u8) -> u8 {
        self.conflict_exit_code.unwrap_or(code)
    }

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

/// Parses a number of permits. No process can open more than 65,535 files.
fn permits() -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(1..=65_535)
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

    #[test]
    fn permissions_are_octal_and_let_the_owner_in() {
        assert_eq!(permissions("660"), Ok(0o660));
        assert_eq!(permissions("0666"), Ok(0o666));
        for wrong in ["", "rw", "668", "1666", "440", "-660"] {
            assert!(permissions(wrong).is_err(), "{wrong}");
        }
    }
}
