//! Programs that were started: their lines of output, and their end.
#![allow(dead_code)] // Each test binary uses a part.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::crew::Member;

/// The examples are in a directory beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(|deps| deps.parent());
    profile
        .expect("a target directory")
        .join("examples")
        .join(name)
}

impl Member {
    pub(crate) fn run<A: AsRef<OsStr>>(program: PathBuf, arguments: &[A]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::foreign(command)
    }

    /// Waits for a line with this text, and returns the rest of the line.
    #[track_caller]
    pub(crate) fn after(&self, begin: &str) -> String {
        loop {
            if let Some((_, rest)) = self.hear().split_once(begin) {
                return rest.to_owned();
            }
        }
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has succeeded, and ignores its output.
    #[track_caller]
    pub(crate) fn ends_well(mut self) {
        while self.next().is_some() {} // the watchdog is there
        assert!(self.end().success());
    }
}
