//! The program `stanchion`: run a command under the fair lock, look at the line, remove a lock.
//!
//! What it promises to scripts, exit codes and JSON, stands in `docs/cli.md`.

use std::process::ExitCode;

mod exit;
mod lock;
mod method;
mod options;
#[cfg(unix)]
#[cfg_attr(target_os = "linux", path = "orphans.rs")]
#[cfg_attr(not(target_os = "linux"), path = "orphans_none.rs")]
mod orphans;
mod picture;
mod place;
mod remove;
#[cfg_attr(not(unix), path = "run_none.rs")]
mod run;
mod status;
mod table;
#[cfg_attr(not(unix), path = "terminal_none.rs")]
mod terminal;
mod text;

use exit::{Answer, Ended, Failure};
use method::Want;
use options::{Options, Task};
use place::{FarAway, Purpose};

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(exit::panicked));
    let options = match Options::read() {
        Ok(options) => options,
        Err(error) => {
            // Help and version come this way too, with code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    let ended = start(options).unwrap_or_else(|failure| {
        exit::say(&failure.text);
        Ended::Code(failure.code)
    });
    if let Ended::Signal(number) = ended {
        run::die_of(number);
    }
    ExitCode::from(ended.code())
}

fn start(options: Options) -> Answer {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::own(format!("cannot start: {error}")))?;
    // This is where the program's one runtime lives; nothing is inside it yet.
    #[allow(clippy::disallowed_methods)]
    runtime.block_on(async {
        match options.task {
            Task::Run(mut options) => {
                if let Some(far) = FarAway::meant(&options.lock)? {
                    let far = far.connect(options.want()?, options.label.as_deref());
                    options.far = Some(far.await?);
                    return run::run(options).await;
                }
                let permits = options.permits.is_some() || options.of.is_some();
                let purpose = match options.method {
                    Some(_) => Purpose::Name,
                    None => Purpose::Take { permits },
                };
                options.lock = place::path(options.lock, purpose)?;
                run::run(options).await
            }
            Task::Status(mut options) => {
                match FarAway::meant(&options.lock)? {
                    Some(far) => options.far = Some(far.connect(Want::Alone, None).await?),
                    None => options.lock = place::path(options.lock, Purpose::Look)?,
                }
                status::status(options).await
            }
            Task::Remove(mut options) => {
                match FarAway::meant(&options.lock)? {
                    Some(far) => options.far = Some(far.connect(Want::Alone, None).await?),
                    None => options.lock = place::path(options.lock, Purpose::Look)?,
                }
                remove::remove(&options)
            }
        }
    })
}
