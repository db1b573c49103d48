//! The parent's side: processes that use one lock, and their clocks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use tempfile::TempDir;

use crate::child::Kind;
use crate::crew::{Crew, Site, Who, program, scratch, until};

/// How often each waiter must have polled before the test concludes that nothing happens.
const LOOKS: u64 = 10;

/// Which clocks are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Wall,
    All,
}

/// The lock, the clocks, and the holders.
pub(crate) struct Clocks {
    kind: Kind,
    which: Which,
    place: TempDir,
    library: PathBuf,
    seconds: i64,
    /// When each member began, and whether it waits.
    members: Vec<(Instant, bool)>,
    inside: Option<Who>,
    token: u64,
    died: bool,
}

impl Clocks {
    fn file(&self) -> PathBuf {
        self.place.path().join("clocks")
    }
}

impl Site for Clocks {
    fn program(&self) -> Command {
        let mut command = program("clocks");
        command
            .env("CREW_THREADS", "1")
            .env("CLOCKS_PATH", self.place.path().join("it.lock"))
            .env("CLOCKS_KIND", self.kind.name())
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            // The times of files come from the kernel.
            .env("NO_FAKE_STAT", "1");
        if self.which == Which::Wall {
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
    }

    fn tickets(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn scene(&self) -> String {
        format!("holder: {:?}", self.inside)
    }

    /// It dies while it holds the lock.
    fn forget(&mut self, who: Who) {
        assert_eq!(self.inside.take(), Some(who));
        self.died = true;
    }
}

pub(crate) struct Family(Crew<Clocks>);

impl Family {
    /// `None` without libfaketime.
    pub(crate) fn new(kind: Kind, which: Which) -> Option<Self> {
        let family = Self(Crew::around(Clocks {
            kind,
            which,
            place: scratch(),
            library: crate::skip::faketime()?,
            seconds: 0,
            members: Vec::new(),
            inside: None,
            token: 0,
            died: false,
        }));
        family.write_clocks();
        Some(family)
    }

    /// In one step, so that no process reads a part of it.
    fn write_clocks(&self) {
        let new = self.0.site.place.path().join("clocks.new");
        std::fs::write(&new, format!("{:+}\n", self.0.site.seconds)).expect("written");
        std::fs::rename(new, self.0.site.file()).expect("renamed");
    }

    // ---- processes ------------------------------------------------------------------------------

    pub(crate) fn start(&mut self) -> Who {
        self.0.site.members.push((Instant::now(), false));
        self.0.start()
    }

    /// The answer to a question that may be asked at any time.
    fn answer(&mut self, who: Who, question: &str, begins: &str) -> String {
        self.0.tell(who, question);
        self.0.find_of(who, begins)
    }

    /// Stops a process, and waits until it has stopped.
    pub(crate) fn stop(&mut self, who: Who) {
        self.0.stop(who);
    }

    pub(crate) fn resume(&mut self, who: Who) {
        self.0.resume(who);
    }

    // ---- clocks ---------------------------------------------------------------------------------

    /// Sets the clocks this many seconds away from those of this process, and waits until all
    /// processes see that.
    pub(crate) fn set_clocks(&mut self, seconds: i64) {
        self.0.site.seconds = seconds;
        self.write_clocks();
        for who in self.0.running() {
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
        assert!(near(numbers[0], here + self.0.site.seconds), "{line}");
        let lived = self.0.site.members[who.0].0.elapsed().as_secs();
        let lived = i64::try_from(lived).expect("not so long");
        match self.0.site.which {
            Which::Wall => assert!(near(numbers[1], lived), "{line}"),
            Which::All => assert!(numbers[1] > 600, "{line}"),
        }
    }

    /// Stops all processes while the clocks are set forward.
    pub(crate) fn suspend(&mut self, seconds: i64) {
        let running = self.0.running();
        for &who in &running {
            self.stop(who);
        }
        self.set_clocks(seconds);
        for &who in &running {
            self.resume(who);
        }
        for who in running {
            self.check_clocks(who);
        }
    }

    /// Waits until each running waiter has polled many times.
    pub(crate) fn all_waiters_poll(&mut self) {
        let waiters = self.0.running().into_iter();
        let waiters: Vec<Who> = waiters.filter(|it| self.0.site.members[it.0].1).collect();
        for who in waiters {
            let enough = self.looks(who) + LOOKS;
            until("it polls again", || self.looks(who) >= enough);
        }
    }

    fn looks(&mut self, who: Who) -> u64 {
        self.0.number(who, "looks", "looks ")
    }

    // ---- the lock -------------------------------------------------------------------------------

    /// Acquires at once.
    pub(crate) fn enters(&mut self, who: Who) {
        let line = self.0.ask(who, "acquire");
        self.entered(who, &line);
    }

    pub(crate) fn queues(&mut self, who: Who) {
        self.0.command(who, "acquire", "queued 0");
        self.0.site.members[who.0].1 = true;
    }

    /// The next holder is one of these. With a queue, it is the first of the remaining waiters.
    pub(crate) fn next_of(&mut self, waiters: &[Who]) -> Who {
        let result = |line: &str| line.starts_with("held") || line.starts_with("failed");
        let (who, line) = self.0.find(|_, line| result(line));
        self.entered(who, &line);
        let mut waiting = waiters.iter().filter(|it| self.0.site.members[it.0].1);
        match self.0.site.kind.is_fair() {
            true => assert_eq!(waiting.next(), Some(&who)),
            false => assert!(waiting.any(|it| *it == who)),
        }
        self.0.site.members[who.0].1 = false;
        who
    }

    fn entered(&mut self, who: Who, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let ["held", token, crashed] = words[..] else {
            panic!("{who:?} said {line:?}");
        };
        assert_eq!(self.0.site.inside, None, "two holders: {who:?}");
        let token: u64 = token.parse().expect("a token");
        if self.0.site.kind.has_tokens() {
            assert!(
                token > self.0.site.token,
                "{token} after {}",
                self.0.site.token
            );
        }
        let told = std::mem::take(&mut self.0.site.died) && self.0.site.kind.tells_deaths();
        assert_eq!(crashed == "true", told, "{who:?}: {line}");
        self.0.site.token = token;
        self.0.site.inside = Some(who);
    }

    /// It holds the lock, and no loss is reported.
    pub(crate) fn still_holds(&mut self, who: Who) {
        assert_eq!(self.0.site.inside, Some(who));
        self.0.command(who, "is-held", "true");
        for waiter in self.0.running() {
            self.says_nothing(waiter);
        }
    }

    pub(crate) fn says_nothing(&mut self, who: Who) {
        assert!(!self.0.has_spoken(who), "{}", self.0.scene());
    }

    pub(crate) fn releases(&mut self, who: Who) {
        assert_eq!(self.0.site.inside.take(), Some(who));
        self.0.command(who, "release", "released");
    }

    pub(crate) fn kills(&mut self, who: Who) {
        self.0.kill(who);
        clear_shared(self.0.pid(who));
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        for who in 0..self.0.site.members.len() {
            let process = self.0.process_mut(Who(who));
            if !process.was_killed() {
                process.kill();
                clear_shared(process.pid());
            }
        }
    }
}

/// What the library leaves after a process was killed.
fn clear_shared(pid: u32) {
    for name in ["faketime_shm_", "sem.faketime_sem_"] {
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(format!("{name}{pid}")));
    }
}
