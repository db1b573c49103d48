//! The parent's side: starts [`child`](super::child) processes and speaks with them line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything takes; only to turn a hang into a failure.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A directory of this test alone, on a real disk.
pub(crate) fn scratch() -> TempDir {
    let base = std::env::var("STANCHION_TEST_DIR");
    let base = base.as_deref().unwrap_or(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(base).expect("a directory")
}

/// Which lock it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pid,
    Mkdir,
    CreateNew,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Mkdir => "mkdir",
            Self::CreateNew => "create-new",
        }
    }

    /// What the parent wants of this process.
    pub(crate) fn of_child() -> Self {
        let name = std::env::var("PRESENCE_KIND").expect("a kind");
        let all = [Self::Pid, Self::Mkdir, Self::CreateNew];
        all.into_iter()
            .find(|it| it.name() == name)
            .expect("a known kind")
    }
}

/// A child process. Dropped, it is killed.
pub(crate) struct Member {
    child: Child,
    from: Receiver<String>,
}

impl Member {
    pub(crate) fn start(kind: Kind, path: &Path) -> Self {
        Self::start_with(kind, path, &[])
    }

    pub(crate) fn start_with(kind: Kind, path: &Path, environment: &[(&str, &str)]) -> Self {
        Self::start_under(&[], kind, path, environment)
    }

    /// The same, started by another program, which takes the child's command line as its last
    /// arguments.
    pub(crate) fn start_under(
        starter: &[&str],
        kind: Kind,
        path: &Path,
        environment: &[(&str, &str)],
    ) -> Self {
        let program = std::env::current_exe().expect("this program");
        let program = program.to_str().expect("a path");
        let line = [starter, &[program]].concat();
        let mut command = Command::new(line[0]);
        command
            .args(&line[1..])
            .args(["--ignored", "--exact", "child::child", "--nocapture"])
            .env("PRESENCE_PATH", path)
            .env("PRESENCE_KIND", kind.name())
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("a child");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (to, from) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The harness may have begun a line of its own.
                let said = line.split_once('@').map(|(_, said)| said.to_owned());
                if said.is_some_and(|said| to.send(said).is_err()) {
                    return;
                }
            }
        });
        let member = Self { child, from };
        member.expect("ready");
        member
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("piped");
        // One that is dying does not hear it.
        let _ = writeln!(input, "{line}");
    }

    /// The next line; `None` when the process has ended.
    pub(crate) fn next(&self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.from.recv_timeout(WATCHDOG) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("a child says nothing any more"),
        }
    }

    pub(crate) fn says_nothing(&self) -> bool {
        self.from.try_recv().is_err()
    }

    pub(crate) fn expect(&self, line: &str) {
        assert_eq!(self.next().as_deref(), Some(line));
    }

    pub(crate) fn ask(&mut self, line: &str) -> Option<String> {
        self.tell(line);
        self.next()
    }

    /// Acquires; token, and whether the last holder died inside.
    pub(crate) fn acquire(&mut self) -> (u64, bool) {
        held(&self.ask("acquire").expect("it lives"))
    }

    pub(crate) fn release(&mut self) {
        assert_eq!(self.ask("release").as_deref(), Some("released"));
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("sent");
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    /// Waits until it is stopped.
    pub(crate) fn stop(&self) {
        self.signal(rustix::process::Signal::STOP);
        self.wait_until_stopped();
    }

    pub(crate) fn wait_until_stopped(&self) {
        until("it is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
            stat.is_ok_and(|it| {
                it.rsplit(')')
                    .next()
                    .is_some_and(|it| it.trim().starts_with('T'))
            })
        });
    }

    /// Waits for its end, and takes its pid away.
    pub(crate) fn bury(mut self) {
        let _ = self.child.wait();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a line `held TOKEN CRASHED` says.
pub(crate) fn held(line: &str) -> (u64, bool) {
    let words: Vec<_> = line.split_whitespace().collect();
    let ["held", token, crashed] = words[..] else {
        panic!("not held: {line}");
    };
    (token.parse().expect("a token"), crashed == "true")
}

/// Waits for something that announces itself to nobody, such as a line in `/proc`.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < WATCHDOG, "still not so: {what}");
        std::thread::yield_now();
    }
}

/// What stands beside a lock, by name, without the numbers in them.
pub(crate) fn left(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|it| {
            it.expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .filter(|name| !name.ends_with(".counter"))
        .collect();
    names.sort();
    names
}

/// A lock in a directory of its own.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let directory = scratch();
    let path = directory.path().join("it.lock");
    (directory, path)
}
