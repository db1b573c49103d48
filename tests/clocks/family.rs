//! The parent's side: processes around one lock, and their clocks.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use crate::child::Kind;

/// Longer than anything takes; only to turn a hang into a failure.
const WATCHDOG: Duration = Duration::from_secs(60);
/// So often each waiter must have looked before it counts that nothing has happened.
const LOOKS: u64 = 10;

/// Which clocks are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Wall,
    All,
}

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who(usize);

struct Member {
    child: Child,
    begun: Instant,
    waits: bool,
    stopped: bool,
    gone: bool,
}

pub(crate) struct Family {
    kind: Kind,
    which: Which,
    place: TempDir,
    library: PathBuf,
    seconds: i64,
    members: Vec<Member>,
    to: Sender<(Who, String)>,
    from: Receiver<(Who, String)>,
    early: VecDeque<(Who, String)>,
    inside: Option<Who>,
    token: u64,
    died: bool,
}

impl Family {
    /// `None` where there is no libfaketime.
    pub(crate) fn new(kind: Kind, which: Which) -> Option<Self> {
        let library = crate::skip::faketime()?;
        let base = std::env::var("STANCHION_TEST_DIR");
        let base = base.as_deref().unwrap_or(env!("CARGO_TARGET_TMPDIR"));
        let place = tempfile::tempdir_in(base).expect("a directory");
        let (to, from) = channel();
        let family = Self {
            kind,
            which,
            place,
            library,
            seconds: 0,
            members: Vec::new(),
            to,
            from,
            early: VecDeque::new(),
            inside: None,
            token: 0,
            died: false,
        };
        family.write_clocks();
        Some(family)
    }

    fn file(&self) -> PathBuf {
        self.place.path().join("clocks")
    }

    /// In one step, so that nobody reads half of it.
    fn write_clocks(&self) {
        let new = self.place.path().join("clocks.new");
        std::fs::write(&new, format!("{:+}\n", self.seconds)).expect("written");
        std::fs::rename(new, self.file()).expect("renamed");
    }

    // ---- processes --------------------------------------------------------------------------------------------------

    pub(crate) fn start(&mut self) -> Who {
        let who = Who(self.members.len());
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["--ignored", "--exact", "child::child", "--nocapture"])
            .env("CLOCKS_PATH", self.place.path().join("it.lock"))
            .env("CLOCKS_KIND", self.kind.name())
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            // The times of files are the kernel's.
            .env("NO_FAKE_STAT", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if self.which == Which::Wall {
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let begun = Instant::now();
        let mut child = command.spawn().expect("a child");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let to = self.to.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The harness may have begun a line of its own.
                if let Some((_, said)) = line.split_once('@') {
                    let _ = to.send((who, said.to_owned()));
                }
            }
            let _ = to.send((who, "gone".to_owned()));
        });
        self.members.push(Member {
            child,
            begun,
            waits: false,
            stopped: false,
            gone: false,
        });
        assert_eq!(self.line(who), "ready");
        who
    }

    fn running(&self) -> Vec<Who> {
        let runs = |it: &usize| !self.members[*it].gone && !self.members[*it].stopped;
        (0..self.members.len()).filter(runs).map(Who).collect()
    }

    fn ask(&mut self, who: Who, line: &str) {
        let input = self.members[who.0].child.stdin.as_mut().expect("piped");
        writeln!(input, "{line}").expect("it lives");
    }

    fn find(&mut self, what: &str, fits: impl Fn(Who, &str) -> bool) -> (Who, String) {
        let early = self.early.iter().position(|it| fits(it.0, &it.1));
        if let Some(event) = early.and_then(|it| self.early.remove(it)) {
            return event;
        }
        loop {
            let event = self.from.recv_timeout(WATCHDOG);
            let event = event.unwrap_or_else(|_| panic!("never came: {what}; {:?}", self.early));
            if fits(event.0, &event.1) {
                return event;
            }
            self.early.push_back(event);
        }
    }

    fn line(&mut self, who: Who) -> String {
        self.find("a line", |it, _| it == who).1
    }

    /// The answer to a question that may be asked at any time.
    fn answer(&mut self, who: Who, question: &str, begins: &str) -> String {
        self.ask(who, question);
        self.find(begins, |it, line| it == who && line.starts_with(begins))
            .1
    }

    fn signal(&self, who: Who, signal: Signal) {
        let pid = Pid::from_child(&self.members[who.0].child);
        kill_process(pid, signal).expect("sent");
    }

    /// The process stands still when this returns.
    pub(crate) fn stop(&mut self, who: Who) {
        self.signal(who, Signal::STOP);
        let news = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let pid = Pid::from_child(&self.members[who.0].child);
        let status = waitid(WaitId::Pid(pid), news).expect("a child");
        assert!(status.expect("a change").stopped(), "{who:?} is dead");
        self.members[who.0].stopped = true;
    }

    pub(crate) fn go_on(&mut self, who: Who) {
        self.members[who.0].stopped = false;
        self.signal(who, Signal::CONT);
    }

    // ---- clocks -----------------------------------------------------------------------------------------------------

    /// Sets the clocks so many seconds away from this process's, and waits until all have seen it.
    pub(crate) fn set_clocks(&mut self, seconds: i64) {
        self.seconds = seconds;
        self.write_clocks();
        for who in self.running() {
            self.check_clocks(who);
        }
    }

    fn check_clocks(&mut self, who: Who) {
        let line = self.answer(who, "clocks", "clocks ");
        let numbers = line.split(' ').skip(1).map(|it| it.parse::<i64>());
        let numbers: Vec<i64> = numbers.map(|it| it.expect("a number")).collect();
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let here = i64::try_from(here.expect("after 1970").as_secs()).expect("before 3000");
        let near = |found: i64, meant: i64| (found - meant).abs() < 600;
        assert!(near(numbers[0], here + self.seconds), "{line}");
        let lived = self.members[who.0].begun.elapsed().as_secs();
        let lived = i64::try_from(lived).expect("not so long");
        match self.which {
            Which::Wall => assert!(near(numbers[1], lived), "{line}"),
            Which::All => assert!(numbers[1] > 600, "{line}"),
        }
    }

    /// All processes stand still while the clocks go forward.
    pub(crate) fn suspend(&mut self, seconds: i64) {
        let running = self.running();
        for &who in &running {
            self.stop(who);
        }
        self.set_clocks(seconds);
        for &who in &running {
            self.go_on(who);
        }
        for who in running {
            self.check_clocks(who);
        }
    }

    /// Each waiter that runs looks again, often.
    pub(crate) fn everybody_looks(&mut self) {
        let waiters = self.running().into_iter();
        let waiters: Vec<Who> = waiters.filter(|it| self.members[it.0].waits).collect();
        for who in waiters {
            let enough = self.looks(who) + LOOKS;
            let begun = Instant::now();
            while self.looks(who) < enough {
                assert!(begun.elapsed() < WATCHDOG, "{who:?} does not look");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn looks(&mut self, who: Who) -> u64 {
        let line = self.answer(who, "looks", "looks ");
        let number = line.strip_prefix("looks ").and_then(|it| it.parse().ok());
        number.expect("a number")
    }

    // ---- the lock ---------------------------------------------------------------------------------------------------

    /// Enters at once.
    pub(crate) fn enters(&mut self, who: Who) {
        self.ask(who, "acquire");
        let line = self.line(who);
        self.entered(who, &line);
    }

    pub(crate) fn queues(&mut self, who: Who) {
        self.ask(who, "acquire");
        assert_eq!(self.line(who), "queued");
        self.members[who.0].waits = true;
    }

    /// The next to enter is one of these; where there is a line, the first of those who still wait.
    pub(crate) fn next_of(&mut self, waiters: &[Who]) -> Who {
        let (who, line) = self.find("a holder", |_, line| {
            line.starts_with("held") || line.starts_with("failed")
        });
        self.entered(who, &line);
        let mut waiting = waiters.iter().filter(|it| self.members[it.0].waits);
        match self.kind.is_fair() {
            true => assert_eq!(waiting.next(), Some(&who)),
            false => assert!(waiting.any(|it| *it == who)),
        }
        self.members[who.0].waits = false;
        who
    }

    fn entered(&mut self, who: Who, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let ["held", token, crashed] = words[..] else {
            panic!("{who:?} said {line:?}");
        };
        assert_eq!(self.inside, None, "two are inside: {who:?}");
        let token: u64 = token.parse().expect("a token");
        if self.kind.has_tokens() {
            assert!(token > self.token, "{token} after {}", self.token);
        }
        let told = std::mem::take(&mut self.died) && self.kind.tells_deaths();
        assert_eq!(crashed == "true", told, "{who:?}: {line}");
        self.token = token;
        self.inside = Some(who);
    }

    /// It holds the lock, and has been told of nothing.
    pub(crate) fn still_holds(&mut self, who: Who) {
        assert_eq!(self.inside, Some(who));
        self.ask(who, "is-held");
        assert_eq!(self.line(who), "true", "{who:?} has lost the lock");
        for waiter in self.running() {
            self.says_nothing(waiter);
        }
    }

    pub(crate) fn says_nothing(&mut self, who: Who) {
        self.early.extend(self.from.try_iter());
        let said = self.early.iter().find(|it| it.0 == who);
        assert_eq!(said, None);
    }

    pub(crate) fn releases(&mut self, who: Who) {
        assert_eq!(self.inside.take(), Some(who));
        self.ask(who, "release");
        assert_eq!(self.line(who), "released");
    }

    /// It dies inside.
    pub(crate) fn kills(&mut self, who: Who) {
        assert_eq!(self.inside.take(), Some(who));
        self.died = true;
        self.signal(who, Signal::KILL);
        self.members[who.0].gone = true;
        let _ = self.members[who.0].child.wait();
        clear_shared(self.members[who.0].child.id());
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        for member in self.members.iter_mut().filter(|it| !it.gone) {
            let _ = member.child.kill();
            let _ = member.child.wait();
            clear_shared(member.child.id());
        }
    }
}

/// What the library leaves of a process that was killed.
fn clear_shared(pid: u32) {
    for name in ["faketime_shm_", "sem.faketime_sem_"] {
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(format!("{name}{pid}")));
    }
}
