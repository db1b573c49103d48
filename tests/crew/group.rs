//! Several programs that use one thing.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use super::process::said;
use super::{Process, WATCHDOG, until};

/// In milliseconds. Longer than a running process ever pauses on a busy machine.
pub(crate) const WINDOW: &str = "800";

/// For a process that must acquire without waiting for a window.
pub(crate) const NO_WINDOW: &[(&str, &str)] = &[("CREW_WINDOW", "never")];

/// A member of a crew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Who(pub(crate) usize);

/// What the members share, as the test sees it.
pub(crate) trait Site {
    /// A member that uses it.
    fn program(&self) -> Command;

    /// What to print when a test fails.
    fn scene(&self) -> String;

    /// The tickets in the queue.
    fn tickets(&self) -> Vec<PathBuf>;

    /// This member ends: what it holds and wants is no longer counted.
    fn forget(&mut self, who: Who);

    /// The same, for a member that is killed.
    fn killed(&mut self, who: Who) {
        self.forget(who);
    }
}

/// Programs around one thing.
pub(crate) struct Crew<S> {
    members: Vec<Process>,
    to: Sender<(Who, String)>,
    from: Receiver<(Who, String)>,
    early: VecDeque<(Who, String)>,
    environment: Vec<(String, String)>,
    pub(crate) site: S,
}

impl<S: Site> Crew<S> {
    pub(crate) fn around(site: S) -> Self {
        let (to, from) = channel();
        Self {
            members: Vec::new(),
            to,
            from,
            early: VecDeque::new(),
            environment: Vec::new(),
            site,
        }
    }

    /// For all members that start after this call.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub(crate) fn has_set(&self, name: &str, value: &str) -> bool {
        let mut all = self.environment.iter();
        all.any(|it| it.0 == name && it.1 == value)
    }

    /// No safety net: only events wake a waiter.
    pub(crate) fn by_events_only(&mut self) -> &mut Self {
        self.set("CREW_POLL", "never").set("CREW_WINDOW", "never")
    }

    /// Members try once, without the ladder (under `--cfg stanchion_test`). Not for tests that
    /// kill: the kernel announces the close of a dying process before it drops the lock.
    pub(crate) fn without_ladder(&mut self) -> &mut Self {
        self.set("STANCHION_LADDER", "off")
    }

    /// Members try again after an event, and not after a new watch. For tests that kill a process
    /// while nothing else happens.
    pub(crate) fn ladder_after_events(&mut self) -> &mut Self {
        self.set("STANCHION_LADDER", "event")
    }

    /// Claim windows bypass a frozen waiter, and nothing else does.
    pub(crate) fn with_windows(mut self) -> Self {
        self.set("CREW_POLL", "never").set("CREW_WINDOW", WINDOW);
        self
    }

    /// The tickets in the queue.
    pub(crate) fn tickets(&self) -> Vec<PathBuf> {
        self.site.tickets()
    }

    /// Waits until no ticket is left. A ticket is deleted a moment after its owner has acquired.
    pub(crate) fn expect_no_tickets(&self) {
        until("no ticket is left", || self.tickets().is_empty());
    }

    /// Waits until no ticket has a mark. A member that wakes removes its mark before it tries, and
    /// is first from then on.
    pub(crate) fn until_awake(&self) {
        until("no ticket bears a mark", || {
            let marked = |ticket: &PathBuf| std::fs::metadata(ticket).is_ok_and(|it| it.len() > 0);
            !self.tickets().iter().any(marked)
        });
    }

    // ---- members --------------------------------------------------------------------------------

    /// Starts a process that is ready.
    pub(crate) fn start(&mut self) -> Who {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&mut self, environment: &[(&str, &str)]) -> Who {
        let who = self.start_unready(environment);
        self.expect(who, "ready");
        who
    }

    /// Starts a process that may die or fail before it says that it is ready.
    pub(crate) fn start_unready(&mut self, environment: &[(&str, &str)]) -> Who {
        self.start_program(self.site.program(), environment)
    }

    /// Starts any program that speaks like a member.
    pub(crate) fn start_program(&mut self, mut command: Command, more: &[(&str, &str)]) -> Who {
        let who = Who(self.members.len());
        let to = self.to.clone();
        command.envs(self.environment.iter().cloned());
        command.envs(more.iter().copied());
        self.members.push(Process::start(command, move |line| {
            let said = line.map_or(Some("gone".to_owned()), |it| said(&it));
            let _ = said.map(|it| to.send((who, it)));
        }));
        who
    }

    pub(crate) fn process(&self, who: Who) -> &Process {
        &self.members[who.0]
    }

    pub(crate) fn process_mut(&mut self, who: Who) -> &mut Process {
        &mut self.members[who.0]
    }

    pub(crate) fn pid(&self, who: Who) -> u32 {
        self.process(who).pid()
    }

    /// Returns the members that are neither stopped nor dead.
    pub(crate) fn running(&self) -> Vec<Who> {
        let all = (0..self.members.len()).filter(|it| self.members[*it].runs());
        all.map(Who).collect()
    }

    // ---- lines ----------------------------------------------------------------------------------

    /// Sends a command.
    pub(crate) fn tell(&mut self, who: Who, command: &str) {
        self.process_mut(who).tell(command);
    }

    /// Sends a command and returns the next line.
    #[track_caller]
    pub(crate) fn ask(&mut self, who: Who, command: &str) -> String {
        self.tell(who, command);
        self.line(who)
    }

    /// Sends a command and asserts the next line.
    #[track_caller]
    pub(crate) fn command(&mut self, who: Who, command: &str, answer: &str) {
        self.tell(who, command);
        self.expect(who, answer);
    }

    #[track_caller]
    fn receive(&mut self) -> (Who, String) {
        match self.from.recv_timeout(WATCHDOG) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("nothing happens; {}", self.scene()),
            Err(RecvTimeoutError::Disconnected) => unreachable!("the crew keeps a sender"),
        }
    }

    /// What to print when a test fails.
    pub(crate) fn scene(&self) -> String {
        format!("early: {:?}; {}", self.early, self.site.scene())
    }

    /// Returns the first line that matches.
    #[track_caller]
    pub(crate) fn find(&mut self, mut fits: impl FnMut(Who, &str) -> bool) -> (Who, String) {
        let early = self.early.iter().position(|it| fits(it.0, &it.1));
        if let Some(event) = early.and_then(|it| self.early.remove(it)) {
            return event;
        }
        loop {
            let event = self.receive();
            if fits(event.0, &event.1) {
                return event;
            }
            self.early.push_back(event);
        }
    }

    /// Returns the first line of a member that begins like this.
    #[track_caller]
    pub(crate) fn find_of(&mut self, who: Who, begins: &str) -> String {
        self.find(|it, line| it == who && line.starts_with(begins))
            .1
    }

    /// The next line of one member.
    #[track_caller]
    pub(crate) fn line(&mut self, who: Who) -> String {
        self.find(|it, _| it == who).1
    }

    /// The next line of any member.
    #[track_caller]
    pub(crate) fn line_of_any_member(&mut self) -> (Who, String) {
        self.find(|_, _| true)
    }

    /// All lines that the test has not read yet.
    pub(crate) fn said_so_far(&mut self) -> &mut VecDeque<(Who, String)> {
        self.early.extend(self.from.try_iter());
        &mut self.early
    }

    /// Whether there is a line of this member that the test has not read yet.
    pub(crate) fn has_spoken(&mut self, who: Who) -> bool {
        self.said_so_far().iter().any(|it| it.0 == who)
    }

    /// Asserts that the test has read every line.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        assert!(self.said_so_far().is_empty(), "{}", self.scene());
    }

    /// Asserts that this is the next line of this member.
    #[track_caller]
    pub(crate) fn expect(&mut self, who: Who, line: &str) {
        let found = self.line(who);
        assert_eq!(found, line, "from {who:?}; {}", self.scene());
    }

    /// Returns the number in the answer to a command, after this beginning.
    #[track_caller]
    pub(crate) fn number(&mut self, who: Who, command: &str, begins: &str) -> u64 {
        self.tell(who, command);
        let line = self.find_of(who, begins);
        let number = line.strip_prefix(begins).and_then(|it| it.parse().ok());
        number.unwrap_or_else(|| panic!("{line}"))
    }

    /// How many entries of `/proc/self/<what>` a member has.
    #[track_caller]
    pub(crate) fn count(&mut self, who: Who, what: &str) -> usize {
        self.number(who, &format!("count {what}"), "count ") as usize
    }

    // ---- ends -----------------------------------------------------------------------------------

    /// Kills with SIGKILL, and waits for the end.
    #[track_caller]
    pub(crate) fn kill(&mut self, who: Who) {
        self.kill_now(who);
        self.bury(who);
    }

    /// Sends SIGKILL and does not wait for the end.
    pub(crate) fn kill_now(&mut self, who: Who) {
        self.site.killed(who);
        self.process_mut(who).kill_now();
    }

    /// Waits for the end of a killed member, and returns all its lines.
    #[track_caller]
    pub(crate) fn bury(&mut self, who: Who) {
        self.expect_killed(who);
        while self.line(who) != "gone" {}
    }

    /// Waits for the end of a member that was killed, perhaps by itself.
    #[track_caller]
    pub(crate) fn expect_killed(&mut self, who: Who) {
        let killed = self.process_mut(who).was_ended_by_kill();
        assert!(killed, "{who:?} died of another cause");
    }

    /// Ends a process regularly.
    #[track_caller]
    pub(crate) fn end(&mut self, who: Who) {
        self.tell(who, "end");
        self.site.forget(who);
        let status: ExitStatus = self.process_mut(who).end();
        assert_eq!(status.code(), Some(0), "{who:?} ended regularly");
        while self.line(who) != "gone" {}
    }
}

/// What only Unix has.
#[cfg(unix)]
impl<S: Site> Crew<S> {
    /// Sends SIGSTOP, and waits until the process has stopped.
    #[track_caller]
    pub(crate) fn stop(&mut self, who: Who) {
        assert!(self.process_mut(who).stop(), "{who:?} is dead");
    }

    /// Waits until a process has stopped itself, at a fail point.
    #[track_caller]
    pub(crate) fn expect_stopped(&mut self, who: Who) {
        let stopped = self.process_mut(who).has_stopped();
        assert!(stopped, "{who:?} died instead of stopping");
    }

    pub(crate) fn resume(&mut self, who: Who) {
        self.process_mut(who).resume();
    }
}
