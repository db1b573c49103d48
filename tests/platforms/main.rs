//! What holds on every platform, without signals: deaths of holders, files that are open elsewhere,
//! names of files.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod child;
#[path = "../crew/mod.rs"]
mod crew;
mod deaths;
mod names;
mod open_files;

use std::path::Path;

use crew::Member;

/// A child program with a lock of this kind.
fn member(kind: &str, path: &Path) -> Member {
    let mut command = crew::program("holder");
    command
        .env("PLATFORMS_KIND", kind)
        .env("PLATFORMS_PATH", path);
    Member::start(command)
}

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("holder", child::main)]);
}
