//! Programs that were started: what they say, line by line, and their end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Longer than anything takes; only to turn a hang into a failure.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// The examples are built beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(|deps| deps.parent());
    profile
        .expect("a target directory")
        .join("examples")
        .join(name)
}

/// A running program. It is killed when this is dropped, so that a test that fails leaves nothing behind.
pub(crate) struct Started {
    child: Child,
    lines: Receiver<String>,
}

impl Started {
    pub(crate) fn new<A: AsRef<OsStr>>(program: PathBuf, arguments: &[A]) -> Self {
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::piped());
        let mut child = match command.stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => panic!("{}: {error}", program.display()),
        };
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        Self { child, lines }
    }

    /// Its next line; `None` when it says no more.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(WATCHDOG) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing was said for {WATCHDOG:?}"),
        }
    }

    /// Waits for a line with this in it, and returns what stands behind.
    pub(crate) fn after(&self, begin: &str) -> String {
        loop {
            let line = self
                .line()
                .unwrap_or_else(|| panic!("it ended without {begin:?}"));
            if let Some((_, rest)) = line.split_once(begin) {
                return rest.to_owned();
            }
        }
    }

    /// Gives it an empty line to read.
    pub(crate) fn enter(&mut self) {
        use std::io::Write;
        let input = self.child.stdin.as_mut().expect("its input");
        input.write_all(b"\n").expect("it reads");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop.
    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a process to stop");
    }

    /// `kill -9`, and it is gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process to kill");
        self.child.wait().expect("its end");
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> ExitStatus {
        while self.line().is_some() {} // the watchdog is there
        self.child.wait().expect("its end")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
