//! The program `stanchion`, as a shell sees it: real processes, exit codes, signals, terminals.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::disallowed_methods)] // The tests play those who do what the crate must not.

#[path = "crew/skip.rs"]
#[macro_use]
mod skip;

#[allow(dead_code)]
#[path = "processes/crew.rs"]
mod crew;
#[path = "cli/far.rs"]
mod far;
#[path = "cli/flock.rs"]
mod flock;
#[path = "cli/inherit.rs"]
mod inherit;
#[path = "cli/kinds.rs"]
mod kinds;
#[path = "cli/kinds_look.rs"]
mod kinds_look;
#[path = "cli/look.rs"]
mod look;
#[path = "cli/methods.rs"]
mod methods;
#[cfg(target_os = "linux")]
#[path = "cli/namespaces.rs"]
mod namespaces;
#[path = "cli/process.rs"]
mod process;
#[path = "cli/program.rs"]
mod program;
#[cfg(feature = "redis")]
#[path = "redis/server.rs"]
#[allow(dead_code)]
mod redis_server;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/signals.rs"]
mod signals;
#[path = "cli/sweep.rs"]
mod sweep;
#[allow(dead_code)]
#[path = "processes/taker.rs"]
mod taker;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/url.rs"]
mod url;
#[path = "cli/wrong.rs"]
mod wrong;
