//! One program: its input, its output, and its end.

use std::io::{BufRead, BufReader, Write};
use std::ops::{Deref, DerefMut};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

#[cfg(unix)]
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::WATCHDOG;

/// A running program. It is killed on drop.
pub(crate) struct Process {
    child: Child,
    stopped: bool,
    killed: bool,
    gone: bool,
}

impl Process {
    /// Starts a program. Sends each line of its output, and `None` at its end.
    pub(crate) fn start(
        mut command: Command,
        mut heard: impl FnMut(Option<String>) + Send + 'static,
    ) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a child process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .for_each(|it| heard(Some(it)));
            heard(None);
        });
        Self {
            child,
            stopped: false,
            killed: false,
            gone: false,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error, if that was requested.
    pub(crate) fn errors(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("its errors")
    }

    /// Sends a line. A program that was killed does not read it.
    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("its input");
        let _ = writeln!(input, "{line}");
    }

    /// Whether it was neither stopped nor killed, and nothing waits for its end.
    pub(crate) fn runs(&self) -> bool {
        !self.stopped && !self.killed && !self.gone
    }

    pub(crate) fn was_killed(&self) -> bool {
        self.killed
    }

    /// Kills with SIGKILL, or terminates by handle on Windows. Waits for the end.
    pub(crate) fn kill(&mut self) {
        self.kill_now();
        self.end();
    }

    /// Does the same, and does not wait for the end.
    pub(crate) fn kill_now(&mut self) {
        self.killed = true;
        self.child.kill().expect("a process to kill");
    }

    /// Waits for its end. Its input stays open, because a program that it has started may still
    /// read it.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.gone = true;
        let input = self.child.stdin.take();
        let status = self.child.wait().expect("its end");
        self.child.stdin = input;
        status
    }

    /// Waits for its end, and returns whether it was killed, perhaps by itself.
    #[cfg(unix)]
    pub(crate) fn was_ended_by_kill(&mut self) -> bool {
        std::os::unix::process::ExitStatusExt::signal(&self.end()) == Some(9)
    }

    /// Waits for its end, and returns whether it was terminated: with exit code 1 by its parent,
    /// with 9 by itself.
    #[cfg(windows)]
    pub(crate) fn was_ended_by_kill(&mut self) -> bool {
        let expected = if self.killed { 1 } else { 9 };
        self.end().code() == Some(expected)
    }
}

/// What only Unix has.
#[cfg(unix)]
impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a process to signal");
    }

    /// Sends SIGSTOP and waits until it has stopped. Returns `false` if it died before.
    pub(crate) fn stop(&mut self) -> bool {
        self.signal(Signal::STOP);
        self.has_stopped()
    }

    /// Waits until it has stopped. Returns `false` if it has ended.
    pub(crate) fn has_stopped(&mut self) -> bool {
        // The state stays available to a later wait.
        let news = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(Pid::from_child(&self.child)), news).expect("a child");
        self.stopped = status.expect("a change").stopped();
        self.stopped
    }

    pub(crate) fn resume(&mut self) {
        self.stopped = false;
        self.signal(Signal::CONT);
    }

    /// Returns whether it has ended, for whatever reason.
    pub(crate) fn has_ended(&self) -> bool {
        let news = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = || waitid(WaitId::Pid(Pid::from_child(&self.child)), news).expect("a child");
        self.gone || status().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.gone {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Returns what a child program says in a line of its output. The harness may have begun that line.
pub(super) fn said(line: &str) -> Option<String> {
    line.split_once('@').map(|it| it.1.to_owned())
}

/// A program that is controlled alone.
pub(crate) struct Member {
    process: Process,
    lines: Receiver<String>,
}

impl Member {
    /// Starts a child program, which says `ready`.
    #[track_caller]
    pub(crate) fn start(command: Command) -> Self {
        let member = Self::heard(command, said);
        member.expect("ready");
        member
    }

    /// Starts any program.
    pub(crate) fn foreign(command: Command) -> Self {
        Self::heard(command, |line| Some(line.to_owned()))
    }

    fn heard(command: Command, said: fn(&str) -> Option<String>) -> Self {
        let (to, lines) = channel();
        let process = Process::start(command, move |line| {
            let _ = line.and_then(|it| said(&it)).map(|it| to.send(it));
        });
        Self { process, lines }
    }

    /// Returns its next line; `None` when it has ended.
    #[track_caller]
    pub(crate) fn next(&self) -> Option<String> {
        match self.lines.recv_timeout(WATCHDOG) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("a child says nothing any more"),
        }
    }

    /// Asserts that this is the next line.
    #[track_caller]
    pub(crate) fn hear(&self) -> String {
        self.next().expect("the child lives")
    }

    #[track_caller]
    pub(crate) fn expect(&self, line: &str) {
        assert_eq!(self.hear(), line);
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.answer(line).expect("the child lives")
    }

    /// The same, for a program that may end instead.
    #[track_caller]
    pub(crate) fn answer(&mut self, line: &str) -> Option<String> {
        self.tell(line);
        self.next()
    }

    pub(crate) fn says_nothing(&self) -> bool {
        self.lines.try_recv().is_err()
    }
}

impl Deref for Member {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Member {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
