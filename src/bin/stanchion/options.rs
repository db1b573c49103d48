//! The command line. That of `run` is in `run/options.rs`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use stanchion::backend::Setting;

use crate::method::Method;
#[cfg(unix)]
use crate::run::options::Run;

/// Help shows only what this build can do.
pub(crate) const PLACE: &str = match (cfg!(feature = "postgres"), cfg!(feature = "redis")) {
    (true, true) => {
        "Path of the lock file; the queue is beside it, in LOCK.queue. Or a URL, file:///DIRECTORY#NAME, \
         redis://HOST#NAME or postgres://HOST/DATABASE#NAME: the lock that programs open by that URL and NAME"
    }
    (true, false) => {
        "Path of the lock file; the queue is beside it, in LOCK.queue. Or a URL, file:///DIRECTORY#NAME or \
         postgres://HOST/DATABASE#NAME: the lock that programs open by that URL and NAME"
    }
    (false, true) => {
        "Path of the lock file; the queue is beside it, in LOCK.queue. Or a URL, file:///DIRECTORY#NAME or \
         redis://HOST#NAME: the lock that programs open by that URL and NAME"
    }
    (false, false) => {
        "Path of the lock file; the queue is beside it, in LOCK.queue. Or a URL, file:///DIRECTORY#NAME: the \
         lock that programs open by that URL and NAME"
    }
};

const STATUS: &str = "\
Examples:
  stanchion status /run/app/deploy.lock
  stanchion status --watch deploy.lock
  stanchion status --json deploy.lock | jq '.waiters[].owner.pid'

Exit codes:
  0    whether or not the lock is held
  2    wrong usage; or --watch of a lock that cannot be watched
  125  stanchion itself failed, or cannot tell whether the lock is held";

const REMOVE: &str = "\
Examples:
  stanchion remove /run/app/deploy.lock

Exit codes:
  0    the files are deleted, or there were none; a lock file with content is kept
  2    wrong usage; or the lock cannot be removed by this program
  75   in use, or foreign files in the queue; nothing has changed
  125  stanchion itself failed";

const SWEEP: &str = "\
Prints one line for each lock: removed, in use, or recent. Plain lock files of other programs, pid
files, and semaphores with a pattern of file names of their own are not touched.

Examples:
  stanchion sweep --older-than 7d /run/app

Exit codes:
  0    every unused lock is removed; others may be in use or recent
  2    wrong usage
  125  stanchion itself failed, or a lock cannot be examined or removed; all other locks are swept";

const COMPLETIONS: &str = "\
Examples:
  stanchion completions bash > ~/.local/share/bash-completion/completions/stanchion
  stanchion completions zsh > ~/.zfunc/_stanchion";

#[cfg(feature = "postgres")]
const SQL: &str = "\
Creates what the locks in a Postgres database need: a schema with tables and functions. Running the
script again changes nothing. To let a role use the locks: GRANT USAGE ON SCHEMA stanchion TO role.

Examples:
  stanchion sql --dialect postgres | psql -1 shop
  stanchion sql --dialect postgres > migrations/20261130_locks.sql";

const MAN: &str = "\
Examples:
  stanchion man run | man -l -
  stanchion man > stanchion.1; stanchion man status > stanchion-status.1";

#[cfg(unix)]
const PROGRAM: &str = "\
Examples:
  stanchion run deploy.lock -- ./deploy --all
  stanchion status deploy.lock

In a script, `stanchion run` replaces flock(1) and takes the same options.
The help of each command has more examples, and its exit codes: stanchion run --help";

#[cfg(not(unix))]
const PROGRAM: &str = "\
Examples:
  stanchion status deploy.lock

The help of each command has more examples, and its exit codes: stanchion status --help";

/// A fair lock for commands: first come, first served, among all processes of a host
#[derive(Debug, Parser)]
#[command(name = "stanchion", version, max_term_width = 100, after_help = PROGRAM)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a command while holding the lock
    #[cfg(unix)]
    Run(Box<Run>),
    /// Show the holder and the waiters of a lock
    #[command(after_help = STATUS)]
    Status(Status),
    /// Delete the files of a lock of any kind, if no process uses the lock
    #[command(after_help = REMOVE)]
    Remove(Remove),
    /// Remove the locks in a directory that no process holds or waits for
    #[command(after_help = SWEEP)]
    Sweep(Sweep),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS)]
    Completions { shell: Shell },
    /// Print the script that installs the locks in a database
    #[cfg(feature = "postgres")]
    #[command(after_help = SQL)]
    Sql(Sql),
    /// Print the manual page of this program, or of one of its commands
    #[command(after_help = MAN)]
    Man {
        #[arg(value_name = "COMMAND")]
        of: Option<String>,
    },
}

#[derive(Debug, Args)]
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
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Remove a lock of this method; needed only for the pid file of another program
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    #[arg(value_name = "LOCK", help = PLACE)]
    pub(crate) lock: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Sweep {
    /// Keep a lock that was used within this time, such as 12h or 7d
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) older_than: Option<Duration>,
    #[arg(value_name = "DIR", help = "The directory of the locks")]
    pub(crate) directory: PathBuf,
}

#[cfg(feature = "postgres")]
#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// The kind of database
    #[arg(long, value_enum)]
    pub(crate) dialect: Dialect,
    /// The schema that gets the tables and functions
    #[arg(long, value_name = "NAME", default_value = "stanchion")]
    pub(crate) schema: String,
}

/// A kind of database.
#[cfg(feature = "postgres")]
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Dialect {
    Postgres,
}

/// Parses a number of seconds, or numbers with units.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    let seconds = || Duration::try_from_secs_f64(text.parse().ok()?).ok();
    let with_units = <Duration as Setting>::read(text);
    with_units
        .or_else(seconds)
        .ok_or("use seconds, as in 5 or 0.25, or units, as in 250ms, 90s, 5m, 1h30m or 7d")
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
    fn every_command_has_examples() {
        let program = Options::command();
        let help = program.get_after_help().expect("help").to_string();
        assert!(help.starts_with("Examples:\n  stanchion "), "{help}");
        for command in program.get_subcommands() {
            let help = command.get_after_help().expect("help").to_string();
            let example = format!("Examples:\n  stanchion {}", command.get_name());
            assert!(help.contains(&example), "{help}");
        }
    }

    #[test]
    fn a_duration_has_units_or_is_in_seconds() {
        for (text, millis) in [
            ("5", 5_000),
            ("0", 0),
            ("0.25", 250),
            (".5", 500),
            ("250ms", 250),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "soon", "5x", "m", "-1", "-5m", "inf", "NaN", "1e300"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
