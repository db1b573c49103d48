//! Completion scripts and manual pages, generated from the definition of the command line.

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::exit::{Answer, Ended, Failure, print};
use crate::options::Options;

pub(crate) fn completions(shell: Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "stanchion", &mut script);
    print(&script).map(|_| Ended::WELL)
}

pub(crate) fn manual(of: Option<&str>) -> Answer {
    let mut command = Options::command().disable_help_subcommand(true);
    command.build();
    if let Some(name) = of {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| Failure::usage(format!("there is no command {name:?}")))?;
    }
    let mut page = Vec::new();
    let written = Man::new(command).render(&mut page);
    written.map_err(|error| Failure::own(format!("cannot write: {error}")))?;
    print(&page).map(|_| Ended::WELL)
}
