//! The parent's side of the process tests: starts [`taker`](super::taker) processes and speaks with them line by line.
//!
//! A test waits only for lines and for the ends of processes, never for time to pass; the watchdog turns a hang into a
//! failure. Every `held` line is checked: nobody else may be inside, and tokens strictly increase.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

#[path = "modes.rs"]
mod modes;
#[cfg(stanchion_test)]
#[path = "settled.rs"]
mod settled;
#[path = "signals.rs"]
mod signals;

/// Longer than anything takes; only to turn a hang into a failure.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// The name of the child program inside this test binary.
const CHILD: &str = "taker::child";

/// One member of the crew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Who(pub(crate) usize);

/// A lock that a member holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) who: Who,
    pub(crate) slot: u32,
    pub(crate) token: u64,
    pub(crate) crashed: bool,
    pub(crate) waited: Duration,
    pub(crate) reads: bool,
}

/// Somebody inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inside {
    who: Who,
    slot: u32,
    reads: bool,
}

struct Member {
    child: Child,
    gone: bool,
    killed: bool,
    stopped: bool,
}

/// Processes around one lock.
pub(crate) struct Crew {
    lock: PathBuf,
    members: Vec<Member>,
    to: Sender<(Who, String)>,
    from: Receiver<(Who, String)>,
    early: VecDeque<(Who, String)>,
    inside: Vec<Inside>,
    token: u64,
    /// Since the last writer came in, one died who may have had a token or many, or did not take what it was granted.
    token_may_jump: bool,
    writers_are_unseen: bool,
    environment: Vec<(String, String)>,
    _scratch: Option<TempDir>,
}

/// A directory of this test alone, on a real disk.
pub(crate) fn scratch() -> TempDir {
    let base = std::env::var("STANCHION_TEST_DIR");
    scratch_in(Path::new(
        base.as_deref().unwrap_or(env!("CARGO_TARGET_TMPDIR")),
    ))
}

pub(crate) fn scratch_in(base: &Path) -> TempDir {
    tempfile::tempdir_in(base).expect("a directory")
}

/// On disk, and in memory where the system has that.
pub(crate) fn everywhere(test: impl Fn(Crew)) {
    test(Crew::new());
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        test(Crew::in_scratch(scratch_in(memory)));
    }
}

/// Waits for something that announces itself to nobody, such as a file or a line in `/proc`.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_ok(|| condition().then_some(()).ok_or(what));
}

/// The same, with the reason why it is not so.
pub(crate) fn until_ok<E: std::fmt::Debug>(mut condition: impl FnMut() -> Result<(), E>) {
    let begun = Instant::now();
    while let Err(reason) = condition() {
        assert!(begun.elapsed() < WATCHDOG, "still not so: {reason:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Crew {
    pub(crate) fn new() -> Self {
        Self::in_scratch(scratch())
    }

    pub(crate) fn in_scratch(scratch: TempDir) -> Self {
        let mut crew = Self::at(&scratch.path().join("it.lock"));
        crew._scratch = Some(scratch);
        crew
    }

    /// Around a lock that is somewhere already.
    pub(crate) fn at(lock: &Path) -> Self {
        let (to, from) = channel();
        Self {
            lock: lock.to_owned(),
            members: Vec::new(),
            to,
            from,
            early: VecDeque::new(),
            inside: Vec::new(),
            token: 0,
            token_may_jump: false,
            writers_are_unseen: false,
            environment: Vec::new(),
            _scratch: None,
        }
    }

    /// For everybody who starts from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// No safety net: everything happens by events or not at all.
    pub(crate) fn by_events_only(&mut self) -> &mut Self {
        self.set("TAKER_POLL", "never").set("TAKER_WINDOW", "never")
    }

    /// Nobody who starts from now on looks again after its first try (under `--cfg stanchion_test`). Not for tests that
    /// kill: the kernel announces the close of a dying process before it drops the lock.
    pub(crate) fn without_ladder(&mut self) -> &mut Self {
        self.set("STANCHION_LADDER", "off")
    }

    /// Members look again after an event, not after a new watch. For tests that kill where nothing else happens.
    pub(crate) fn ladder_after_events(&mut self) -> &mut Self {
        self.set("STANCHION_LADDER", "event")
    }

    pub(crate) fn lock(&self) -> &Path {
        &self.lock
    }

    pub(crate) fn queue_dir(&self) -> PathBuf {
        let mut path = self.lock.clone().into_os_string();
        path.push(".queue");
        path.into()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.queue_dir().join("state")
    }

    /// The tickets that stand in line.
    pub(crate) fn tickets(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.queue_dir()) else {
            return Vec::new();
        };
        let mut tickets: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|it| it == "x" || it == "s"))
            .collect();
        tickets.sort();
        tickets
    }

    /// The place in line is free as soon as the ticket is gone; it goes a moment after its owner is in.
    pub(crate) fn expect_no_tickets(&self) {
        until("no ticket is left", || self.tickets().is_empty());
    }

    // ---- members ----------------------------------------------------------------------------------------------------

    /// Starts a process that has opened the lock.
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
        let who = Who(self.members.len());
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args([
                CHILD,
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("TAKER_LOCK", &self.lock)
            .envs(self.environment.iter().cloned())
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("a child process");
        let output = child.stdout.take().expect("its output");
        let to = self.to.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix('@') {
                    let _ = to.send((who, line.to_owned()));
                }
            }
            let _ = to.send((who, "gone".to_owned()));
        });
        self.members.push(Member {
            child,
            gone: false,
            killed: false,
            stopped: false,
        });
        who
    }

    pub(crate) fn pid(&self, who: Who) -> u32 {
        self.members[who.0].child.id()
    }

    /// Sends a command.
    pub(crate) fn tell(&mut self, who: Who, command: &str) {
        let input = self.members[who.0].child.stdin.as_mut().expect("its input");
        // Who was killed cannot listen.
        let _ = writeln!(input, "{command}");
    }

    /// Sends a command and returns the next line.
    pub(crate) fn ask(&mut self, who: Who, command: &str) -> String {
        self.tell(who, command);
        self.line(who)
    }

    // ---- lines ------------------------------------------------------------------------------------------------------

    fn receive(&mut self) -> (Who, String) {
        match self.from.recv_timeout(WATCHDOG) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("nothing happens; {}", self.scene()),
            Err(RecvTimeoutError::Disconnected) => unreachable!("the crew keeps a sender"),
        }
    }

    /// What to print when a test fails.
    fn scene(&self) -> String {
        let state = std::fs::read_to_string(self.state()).unwrap_or_default();
        format!(
            "inside: {:?}; early: {:?}; tickets: {:?}; state: {:?}",
            self.inside,
            self.early,
            self.tickets(),
            state.lines().take(2).collect::<Vec<_>>(),
        )
    }

    fn find(&mut self, mut fits: impl FnMut(&(Who, String)) -> bool) -> (Who, String) {
        if let Some(event) = self.early.iter().position(&mut fits) {
            return self.early.remove(event).expect("just found");
        }
        loop {
            let event = self.receive();
            if fits(&event) {
                return event;
            }
            self.early.push_back(event);
        }
    }

    /// The next line of one member.
    pub(crate) fn line(&mut self, who: Who) -> String {
        self.find(|event| event.0 == who).1
    }

    /// Whether a line of this member has come that nobody has asked for yet.
    pub(crate) fn has_spoken(&mut self, who: Who) -> bool {
        self.early.extend(self.from.try_iter());
        self.early.iter().any(|event| event.0 == who)
    }

    /// Whether a member that was told to go in must wait; else what it has said instead is still to be asked for.
    pub(crate) fn must_wait(&mut self, who: Who, slot: u32) -> bool {
        let line = self.line(who);
        let waits = line == format!("queued {slot}");
        if !waits {
            self.early.push_front((who, line));
        }
        waits
    }

    /// All lines that nobody has asked for yet.
    pub(crate) fn said_so_far(&mut self) -> &VecDeque<(Who, String)> {
        self.early.extend(self.from.try_iter());
        &self.early
    }

    /// This very line must be the next of this member.
    #[track_caller]
    pub(crate) fn expect(&mut self, who: Who, line: &str) {
        let found = self.line(who);
        assert_eq!(found, line, "from {who:?}; {}", self.scene());
    }

    /// The next line of whoever speaks first.
    pub(crate) fn line_of_anyone(&mut self) -> (Who, String) {
        self.find(|_| true)
    }

    /// Sends a command about a slot and returns what came of it, after a wait or at once.
    pub(crate) fn answer(&mut self, who: Who, command: &str, slot: u32) -> String {
        self.tell(who, command);
        self.answer_to_acquire(who, slot)
    }

    pub(crate) fn answer_to_acquire(&mut self, who: Who, slot: u32) -> String {
        let line = self.line(who);
        if line == format!("queued {slot}") {
            return self.line(who);
        }
        line
    }

    /// The one inside has gone in a way that the crew could not follow.
    pub(crate) fn nobody_inside(&mut self) {
        self.inside.clear();
    }

    /// How often a member's watch thread has slept.
    pub(crate) fn wake_ups(&self, who: Who) -> u64 {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.pid(who))).expect("its threads");
        let count = |task: PathBuf| {
            let name = std::fs::read_to_string(task.join("comm")).ok()?;
            let status = std::fs::read_to_string(task.join("status")).ok()?;
            let line = status.lines().find(|it| it.starts_with("voluntary_ctxt"))?;
            let number = line.split_whitespace().last()?;
            name.starts_with("stanchion")
                .then(|| number.parse::<u64>().ok())?
        };
        let tasks = tasks.map(|it| it.expect("a thread").path());
        tasks.filter_map(count).sum::<u64>()
    }

    /// How many entries of `/proc/self/<what>` a member has.
    pub(crate) fn count(&mut self, who: Who, what: &str) -> usize {
        let line = self.ask(who, &format!("count {what}"));
        let number = line.strip_prefix("count ").and_then(|it| it.parse().ok());
        number.unwrap_or_else(|| panic!("{line}"))
    }

    // ---- locks ------------------------------------------------------------------------------------------------------

    /// Queues: must not get the lock at once.
    #[track_caller]
    pub(crate) fn queue(&mut self, who: Who, slot: u32) {
        self.tell(who, &format!("acquire {slot}"));
        self.expect(who, &format!("queued {slot}"));
    }

    /// Must get the lock at once.
    #[track_caller]
    pub(crate) fn take(&mut self, who: Who, slot: u32) -> Held {
        self.tell(who, &format!("acquire {slot}"));
        let line = self.line(who);
        self.enter(who, &line)
    }

    /// Gets the lock, at once or after a wait, and as the next of all.
    #[track_caller]
    pub(crate) fn acquire(&mut self, who: Who, slot: u32) -> Held {
        self.tell(who, &format!("acquire {slot}"));
        let mut line = self.line(who);
        if line == format!("queued {slot}") {
            line = self.line(who);
        }
        self.enter(who, &line)
    }

    /// Who is the next to hold the lock?
    #[track_caller]
    pub(crate) fn next_held(&mut self) -> Held {
        let (who, line) = self.find(|event| {
            assert!(!event.1.starts_with("failed"), "{event:?}");
            event.1.starts_with("held")
        });
        self.enter(who, &line)
    }

    /// The next to hold the lock must be this one.
    #[track_caller]
    pub(crate) fn expect_held(&mut self, who: Who, slot: u32) -> Held {
        let held = self.next_held();
        assert_eq!((held.who, held.slot), (who, slot), "{}", self.scene());
        held
    }

    #[track_caller]
    fn enter(&mut self, who: Who, line: &str) -> Held {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "held", "{who:?} said {line:?}; {}", self.scene());
        let number = |index: usize| words[index].parse::<u64>().expect("a number");
        let held = Held {
            who,
            slot: number(1) as u32,
            token: number(2),
            crashed: number(3) == 1,
            waited: Duration::from_millis(number(4)),
            reads: words[5] == "read",
        };
        self.check_entry(held);
        held
    }

    /// Lets the one inside go and waits until it is out.
    #[track_caller]
    pub(crate) fn release(&mut self, who: Who, slot: u32) {
        self.let_go(who, slot, "release");
        self.expect_released(who, slot);
    }

    pub(crate) fn let_go(&mut self, who: Who, slot: u32, how: &str) {
        self.goes_out(who, slot);
        self.tell(who, &format!("{how} {slot}"));
    }

    #[track_caller]
    pub(crate) fn expect_released(&mut self, who: Who, slot: u32) {
        let wanted = format!("released {slot}");
        let (_, line) = self.find(|event| event.0 == who && event.1.starts_with("released"));
        assert_eq!(line, wanted);
    }

    /// Takes and releases at once, without a wait.
    #[track_caller]
    pub(crate) fn take_and_release(&mut self, who: Who) -> Held {
        let held = self.take(who, 99);
        self.release(who, 99);
        held
    }

    /// Makes a member wait for another process once, so that everything it needs for waiting is there.
    pub(crate) fn contend(&mut self, who: Who) {
        let other = self.start();
        self.take(other, 98);
        self.queue(who, 98);
        self.release(other, 98);
        self.expect_held(who, 98);
        self.release(who, 98);
        self.end(other);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in self.members.iter_mut().filter(|member| !member.gone) {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}
