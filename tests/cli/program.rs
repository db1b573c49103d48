//! Starts the program with its own lock, and exchanges lines with it. Waits only for lines, ends
//! and conditions.

use std::ffi::OsStr;
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use stanchion::{FifoLock, Status};
use tempfile::TempDir;

use crate::crew::{Member, scratch, until};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_stanchion");

/// A lock in its own directory.
pub(crate) struct Site {
    directory: TempDir,
}

/// How a program ended, as a shell says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) code: i32,
    pub(crate) errors: String,
}

pub(crate) struct Program {
    member: Member,
    errors: JoinHandle<String>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            directory: scratch(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.directory().join("it.lock")
    }

    pub(crate) fn is_empty(&self) -> bool {
        let mut entries = std::fs::read_dir(self.directory()).expect("a directory");
        entries.next().is_none()
    }

    /// What the commands write to `$LOG`.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory().join("log"));
        text.unwrap_or_default().replace('\n', " ")
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // In its own session, apart from a terminal that may run the tests.
        command.process_group(0).current_dir(self.directory());
        command.env("LOCK", self.lock()).env("PROGRAM", PROGRAM);
        command.env("LOG", self.directory().join("log"));
        command
    }

    /// `stanchion` with these arguments; `LOCK` among them is the lock.
    pub(crate) fn start(&self, arguments: &[&str]) -> Program {
        let mut command = self.command(PROGRAM);
        let lock = self.lock();
        command.args(arguments.iter().map(|it| match *it {
            "LOCK" => lock.as_os_str(),
            other => OsStr::new(other),
        }));
        Program::start(command)
    }

    /// `stanchion run LOCK -- sh -c SCRIPT`.
    pub(crate) fn run(&self, script: &str) -> Program {
        self.start(&["run", "LOCK", "--", "sh", "-c", script])
    }

    pub(crate) fn shell(&self, script: &str) -> Program {
        let mut command = self.command("sh");
        command.args(["-c", script]);
        Program::start(command)
    }

    /// Holds the lock until it gets a line.
    pub(crate) fn holder(&self) -> Program {
        let program = self.run("echo in; read x");
        program.expect("in");
        program
    }

    /// Returns how a program with these arguments ends.
    pub(crate) fn end_of(&self, arguments: &[&str]) -> End {
        self.start(arguments).end()
    }

    pub(crate) fn status(&self) -> Status {
        let lock = FifoLock::open(self.lock()).expect("open");
        lock.status().expect("a status")
    }

    pub(crate) fn until_waiting(&self, count: usize) {
        until("so many wait", || self.status().waiters.len() == count);
    }

    /// No ticket is left, there is no holder, and no crash is left for the next holder.
    pub(crate) fn expect_clean(&self) {
        let queue = self.directory().join("it.lock.queue");
        let entries = std::fs::read_dir(queue).expect("a queue");
        let names = entries.map(|it| it.expect("an entry").file_name());
        let names: Vec<_> = names.collect();
        assert_eq!(names, ["state"], "what is left in the queue");
        let next = self.end_of(&["run", "--no-wait", "LOCK", "--", "true"]);
        assert_eq!(next, End::quiet(0));
    }
}

impl End {
    pub(crate) fn quiet(code: i32) -> Self {
        Self {
            code,
            errors: String::new(),
        }
    }

    /// It ended with this code and a message that contains this text.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, about: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.errors.contains(about), "{about:?} in {self:?}");
    }
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        let mut member = Member::foreign(command);
        let mut errors = member.errors();
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { member, errors }
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid()
    }

    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.member.hear()
    }

    /// Returns the first line that contains these words.
    pub(crate) fn line_with(&self, words: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(words) {
                return line;
            }
        }
    }

    /// The exit code. For a signal that ended the program itself, minus its number.
    pub(crate) fn code(&mut self) -> i32 {
        until("the program has ended", || self.member.has_ended());
        let status = self.member.end();
        let signal = status.signal().map(|it| -it);
        status.code().or(signal).expect("a code or a signal")
    }

    pub(crate) fn end(mut self) -> End {
        let code = self.code();
        let errors = self.errors.join().expect("its messages");
        End { code, errors }
    }
}

impl Deref for Program {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.member
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Member {
        &mut self.member
    }
}
