//! What a test needs that may be missing: programs, rights, file systems.
//!
//! A test takes such a thing by `need!`. Where it is missing the test ends and is *skipped*. The
//! harness has no skip at run time and counts the test as passed, so each skip is reported in two
//! other ways: a line on standard error, which the harness does not capture, and a line
//! `test<TAB>reason` in the file that `STANCHION_SKIPPED` names. `scripts/test` sets that variable
//! and counts the lines at the end. With `STANCHION_NO_SKIP=1` a skip fails.
#![allow(dead_code, unused_macros)] // Each test binary uses a part.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The value of an `Option`. Without one the test returns; [`skip`] has said why.
macro_rules! need {
    ($wanted:expr) => {
        match $wanted {
            Some(it) => it,
            None => return,
        }
    };
}

/// Reports that the running test, or a part of it, is skipped.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a thread");
    let test = concat!(env!("CARGO_CRATE_NAME"), "::");
    let no_skip = std::env::var("STANCHION_NO_SKIP").is_ok_and(|it| it == "1");
    assert!(!no_skip, "{test}{name} cannot run: {reason}");
    let line = format!("SKIPPED {test}{name}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("STANCHION_SKIPPED") {
        let mut options = std::fs::OpenOptions::new();
        let list = options.append(true).create(true).open(path);
        let line = format!("{test}{name}\t{reason}\n");
        let written = list.and_then(|mut it| it.write_all(line.as_bytes()));
        written.expect("the list of skipped tests");
    }
    None
}

/// An installed program.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|it| it.join(name));
    let found = found.find(|it| it.is_file());
    found.or_else(|| skip(&format!("{name} is not installed")))
}

/// The right to become another user.
#[cfg(unix)]
pub(crate) fn root() -> Option<()> {
    let root = rustix::process::geteuid().is_root();
    root.then_some(()).or_else(|| skip("needs root"))
}

/// A command that succeeds.
pub(crate) fn success(command: &mut Command, or: &str) -> Option<()> {
    let output = command.stdin(Stdio::null()).output();
    let success = output.is_ok_and(|it| it.status.success());
    success.then_some(()).or_else(|| skip(or))
}

/// A Python that has this module: the one in `STANCHION_PYTHON`, or `python3`.
pub(crate) fn python(module: &str) -> Option<String> {
    let named = std::env::var("STANCHION_PYTHON").ok();
    let python = named.unwrap_or_else(|| "python3".to_owned());
    let mut import = Command::new(&python);
    import.args(["-c", &format!("import {module}")]);
    success(&mut import, &format!("no Python with {module}"))?;
    Some(python)
}

/// The library that sets the clocks of a process.
pub(crate) fn faketime() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    let mut libraries = directories.map(|it| it.path().join("faketime/libfaketime.so.1"));
    let library = libraries.find(|it| it.exists());
    library.or_else(|| skip("faketime is not installed"))
}
