//! Child programs and the tests that control them.
//!
//! A child program is the test binary itself. It runs one ignored test, `child`, which calls
//! [`child::run`] with the programs of that binary. The parent writes commands to its standard
//! input, one a line. The child answers in lines that begin with `@`, because the test harness
//! prints on the same output. [`Member`] is one program, [`Crew`] several that share something.
//!
//! A test waits for lines, for the end of a process and for what can be seen on disk or in `/proc`.
//! It never waits for time to pass. The watchdog turns a hang into a failure.
#![allow(dead_code, unused_imports)] // Each test binary uses a part.

pub(crate) mod child;
mod group;
mod process;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use group::{Crew, NO_WINDOW, Site, WINDOW, Who};
pub(crate) use process::{Member, Process};

/// Longer than anything takes.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// A child program of this test binary.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(child::ARGUMENTS).env(child::NAME, name);
    command
}

/// The same, started by another program, whose last arguments are the child's command line.
pub(crate) fn program_under(starter: &[&str], name: &str) -> Command {
    let child = program(name);
    let [starter, arguments @ ..] = starter else {
        return child;
    };
    let mut command = Command::new(starter);
    command.args(arguments).arg(child.get_program());
    command.args(child.get_args()).env(child::NAME, name);
    command
}

/// Returns all lines of a child program that gets no orders.
pub(crate) fn last_words(command: &mut Command) -> Vec<String> {
    let command = command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(process::said).collect()
}

/// A directory for this test only, on a real disk.
pub(crate) fn scratch() -> TempDir {
    let base = std::env::var("STANCHION_TEST_DIR");
    scratch_in(Path::new(
        base.as_deref().unwrap_or(env!("CARGO_TARGET_TMPDIR")),
    ))
}

pub(crate) fn scratch_in(base: &Path) -> TempDir {
    tempfile::tempdir_in(base).expect("a directory")
}

/// On disk, and in memory if the system has such a directory.
pub(crate) fn everywhere(test: impl Fn(TempDir)) {
    test(scratch());
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        test(scratch_in(memory));
    }
}

/// The same numbers for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below<N: TryInto<u64> + TryFrom<u64>>(&mut self, end: N) -> N {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        let end = end.try_into().ok().expect("a small number");
        let number = (self.0 >> 33) % end;
        number.try_into().ok().expect("a smaller number")
    }
}

/// Waits for something that sends no line, such as a file or a line in `/proc`.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_ok(|| condition().then_some(()).ok_or(what));
}

/// The same, with the reason why the condition is false.
#[track_caller]
pub(crate) fn until_ok<E: std::fmt::Debug>(mut condition: impl FnMut() -> Result<(), E>) {
    let begun = Instant::now();
    while let Err(reason) = condition() {
        assert!(begun.elapsed() < WATCHDOG, "still not so: {reason:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
