//! The program `stanchion`: runs a command while it holds a lock, shows holders and waiters, and
//! removes locks.
//!
//! `docs/cli.md` describes the options, the exit codes and the JSON, on which scripts may rely.

// Much of it is for `run` alone.
#![cfg_attr(not(unix), allow(dead_code))]

use std::process::ExitCode;

use clap::Parser;

mod exit;
mod lock;
mod method;
mod options;
#[cfg(unix)]
#[cfg_attr(any(target_os = "linux", target_os = "android"), path = "orphans.rs")]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    path = "orphans_none.rs"
)]
mod orphans;
mod picture;
mod place;
mod remove;
#[cfg(unix)]
mod run;
#[cfg(feature = "postgres")]
mod sql;
mod status;
mod sweep;
mod table;
#[cfg_attr(not(unix), path = "terminal_none.rs")]
mod terminal;
mod text;
mod texts;

use exit::{Answer, Ended, Failure};
use options::{Options, Task};

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(exit::panicked));
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version come this way too, with code 0.
            let _ = error.print();
            // The first word of flock(1) is the lock.
            if error.kind() == clap::error::ErrorKind::InvalidSubcommand {
                exit::say("to run a command under a lock: stanchion run LOCK COMMAND");
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    let ended = start(options).unwrap_or_else(|failure| {
        exit::say(&failure.text);
        Ended::Code(failure.code)
    });
    #[cfg(unix)]
    if let Ended::Signal(number) = ended {
        run::die_of(number);
    }
    ExitCode::from(ended.code())
}

fn start(options: Options) -> Answer {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::own(format!("cannot start: {error}")))?;
    // The only runtime of the program. This is not inside an async task, so it may block.
    #[allow(clippy::disallowed_methods)]
    runtime.block_on(async {
        match options.task {
            #[cfg(unix)]
            Task::Run(options) => run::run(*options).await,
            Task::Status(options) => status::status(options).await,
            Task::Remove(options) => remove::remove(options).await,
            Task::Sweep(options) => sweep::sweep(&options),
            Task::Completions { shell } => texts::completions(shell),
            #[cfg(feature = "postgres")]
            Task::Sql(options) => sql::script(&options),
            Task::Man { of } => texts::manual(of.as_deref()),
        }
    })
}
