//! The parent's side: starts [`holder`](super::holder) processes and speaks with them line by line.
//!
//! A test waits only for lines, for the ends of processes, and for what can be seen on disk or in `/proc`; the watchdog turns a hang into a failure.
//! Every `held` line is checked: never more permits are out than there are, and a grant that began after another one's end has the greater token.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::holder::NAME;

#[path = "signals.rs"]
mod signals;

/// Longer than anything takes; only to turn a hang into a failure.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// The name of the child program inside this test binary.
const CHILD: &str = "holder::child";

/// One member of the crew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Who(pub(crate) usize);

/// A wait or a hold of a member.
pub(crate) type Place = (Who, u32);

struct Member {
    child: Child,
    gone: bool,
}

/// Processes around one semaphore.
pub(crate) struct Crew {
    home: PathBuf,
    limit: u32,
    members: Vec<Member>,
    to: Sender<(Who, String)>,
    from: Receiver<(Who, String)>,
    early: VecDeque<(Who, String)>,
    /// What each has asked for, and the greatest token of all that had ended by then.
    asked: HashMap<Place, (u32, u64)>,
    /// Who has how many permits, and the token.
    out: HashMap<Place, (u32, u64)>,
    /// Told to let go, with its token; has not said yet that it has.
    leaving: HashMap<Place, u64>,
    ended: u64,
    environment: Vec<(String, String)>,
    _scratch: TempDir,
}

/// A directory of this test alone, on a real disk.
pub(crate) fn scratch() -> TempDir {
    let base = std::env::var("STANCHION_TEST_DIR");
    scratch_in(Path::new(
        base.as_deref().unwrap_or(env!("CARGO_TARGET_TMPDIR")),
    ))
}

fn scratch_in(base: &Path) -> TempDir {
    tempfile::tempdir_in(base).expect("a directory")
}

/// On disk, and in memory where the system has that.
pub(crate) fn everywhere(limit: u32, test: impl Fn(Crew)) {
    test(Crew::in_scratch(scratch(), limit));
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        test(Crew::in_scratch(scratch_in(memory), limit));
    }
}

/// Waits for something that announces itself to nobody, such as a file or a line in `/proc`.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < WATCHDOG, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Crew {
    pub(crate) fn new(limit: u32) -> Self {
        Self::in_scratch(scratch(), limit)
    }

    fn in_scratch(scratch: TempDir, limit: u32) -> Self {
        let (to, from) = channel();
        Self {
            home: scratch.path().to_owned(),
            limit,
            members: Vec::new(),
            to,
            from,
            early: VecDeque::new(),
            asked: HashMap::new(),
            out: HashMap::new(),
            leaving: HashMap::new(),
            ended: 0,
            environment: vec![("HOLDER_LIMIT".into(), limit.to_string())],
            _scratch: scratch,
        }
    }

    /// For everybody who starts from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// No safety net: everything happens by events or not at all.
    pub(crate) fn by_events_only(&mut self) -> &mut Self {
        self.set("HOLDER_POLL", "never")
            .set("HOLDER_WINDOW", "never")
    }

    /// Nobody who starts from now on looks again after its first try (under `--cfg stanchion_test`).
    pub(crate) fn without_ladder(&mut self) -> &mut Self {
        self.set("STANCHION_LADDER", "off")
    }

    /// There are so many permits now.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
        self.set("HOLDER_LIMIT", &limit.to_string());
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn slot(&self, number: u32) -> PathBuf {
        self.home.join(format!("{NAME}.{number:02}.lock"))
    }

    pub(crate) fn queue_dir(&self) -> PathBuf {
        self.home.join(format!("{NAME}.queue"))
    }

    /// The tickets that stand in line.
    pub(crate) fn tickets(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.queue_dir()) else {
            return Vec::new();
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_ticket = |path: &PathBuf| {
            let name = path.file_name().and_then(|it| it.to_str());
            name.is_some_and(|it| it.starts_with(|it: char| it.is_ascii_digit()))
        };
        let mut tickets: Vec<_> = paths.filter(is_ticket).collect();
        tickets.sort();
        tickets
    }

    /// The place in line is free as soon as the ticket is gone; it goes a moment after its owner is in.
    pub(crate) fn expect_no_tickets(&self) {
        until("no ticket is left", || self.tickets().is_empty());
    }

    /// How many of the slot files somebody has locked, as the kernel lists it: to look disturbs nobody.
    pub(crate) fn locked_slots(&self) -> usize {
        let locks = std::fs::read_to_string("/proc/locks").expect("the kernel's list");
        let inode = |number: u32| std::fs::metadata(self.slot(number)).map(|it| it.ino());
        let slots: Vec<_> = (0..self.limit).flat_map(inode).collect();
        let held = locks.lines().filter(|line| !line.contains("->"));
        let inodes = held.filter_map(|line| {
            let place = line.split_whitespace().nth(5)?;
            place.rsplit(':').next()?.parse().ok()
        });
        inodes.filter(|inode: &u64| slots.contains(inode)).count()
    }

    // ---- members ----------------------------------------------------------------------------------------------------

    /// Starts a process that has opened the semaphore.
    pub(crate) fn start(&mut self) -> Who {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&mut self, environment: &[(&str, &str)]) -> Who {
        let who = self.start_unready(environment);
        self.expect(who, "ready");
        who
    }

    /// Starts a process that may fail before it says that it is ready.
    pub(crate) fn start_unready(&mut self, environment: &[(&str, &str)]) -> Who {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args([
                CHILD,
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .current_dir(&self.home)
            .env("HOLDER_HOME", &self.home)
            .envs(self.environment.iter().cloned())
            .envs(environment.iter().copied());
        self.start_program(command)
    }

    /// Any program that speaks like a member.
    pub(crate) fn start_program(&mut self, mut command: Command) -> Who {
        let who = Who(self.members.len());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
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
        self.members.push(Member { child, gone: false });
        who
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

    /// Sends a command and insists on the next line.
    #[track_caller]
    pub(crate) fn command(&mut self, who: Who, command: &str, answer: &str) {
        self.tell(who, command);
        self.expect(who, answer);
    }

    /// How many entries of `/proc/self/<what>` a member has.
    pub(crate) fn count(&mut self, who: Who, what: &str) -> usize {
        let line = self.ask(who, &format!("count {what}"));
        let number = line.strip_prefix("count ").and_then(|it| it.parse().ok());
        number.unwrap_or_else(|| panic!("{line}"))
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
    pub(crate) fn scene(&self) -> String {
        let state = std::fs::read_to_string(self.queue_dir().join("state")).unwrap_or_default();
        format!(
            "out: {:?}; early: {:?}; tickets: {:?}; {} of {} slots are locked; state: {:?}",
            self.out,
            self.early,
            self.tickets(),
            self.locked_slots(),
            self.limit,
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

    /// What this member says is not to come, or has come already.
    pub(crate) fn has_spoken(&mut self, who: Who) -> bool {
        self.early.extend(self.from.try_iter());
        self.early.iter().any(|event| event.0 == who)
    }

    /// This very line must be the next of this member.
    #[track_caller]
    pub(crate) fn expect(&mut self, who: Who, line: &str) {
        let found = self.line(who);
        assert_eq!(found, line, "from {who:?}; {}", self.scene());
    }

    /// Nobody has said that it is in, or that something failed, without being asked for it.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        self.early.extend(self.from.try_iter());
        assert!(self.early.is_empty(), "{}", self.scene());
    }

    // ---- permits ----------------------------------------------------------------------------------------------------

    fn wants(&mut self, place: Place, permits: u32) {
        self.asked.insert(place, (permits, self.ended));
    }

    pub(crate) fn request(&mut self, (who, number): Place, permits: u32) {
        self.wants((who, number), permits);
        self.tell(who, &format!("acquire {number} {permits}"));
    }

    /// Queues: must not get its permits at once.
    #[track_caller]
    pub(crate) fn queue(&mut self, place: Place, permits: u32) {
        self.request(place, permits);
        self.expect(place.0, &format!("queued {}", place.1));
    }

    /// Must get its permits at once.
    #[track_caller]
    pub(crate) fn take(&mut self, place: Place, permits: u32) {
        self.request(place, permits);
        let line = self.line(place.0);
        let held = self.enter(place.0, &line);
        assert_eq!(held, place);
    }

    /// Gets its permits, at once or after a wait, whoever else gets some.
    #[track_caller]
    pub(crate) fn acquire(&mut self, place: Place, permits: u32) {
        self.request(place, permits);
        let mut line = self.line(place.0);
        if line == format!("queued {}", place.1) {
            line = self.line(place.0);
        }
        let held = self.enter(place.0, &line);
        assert_eq!(held, place);
    }

    /// Tries, and tells whether it got what it wants.
    #[track_caller]
    pub(crate) fn tries(&mut self, place: Place, permits: u32) -> bool {
        self.wants(place, permits);
        let line = self.ask(place.0, &format!("try {} {permits}", place.1));
        line != "none" && self.enter(place.0, &line) == place
    }

    /// Who is the next to get permits?
    #[track_caller]
    pub(crate) fn next_held(&mut self) -> Place {
        let (who, line) = self.find(|event| {
            assert!(!event.1.starts_with("failed"), "{event:?}");
            event.1.starts_with("held")
        });
        self.enter(who, &line)
    }

    /// The next to get permits must be this one.
    #[track_caller]
    pub(crate) fn expect_held(&mut self, place: Place) {
        let held = self.next_held();
        assert_eq!(held, place, "{}", self.scene());
    }

    /// This one gets permits, as the next but for others whose turn it is as well.
    #[track_caller]
    pub(crate) fn expect_held_beside(&mut self, place: Place) {
        while !self.is_inside(place) {
            self.next_held();
        }
    }

    /// These are the next to get permits; their lines may come in any order.
    #[track_caller]
    pub(crate) fn until_held(&mut self, places: &[Place]) {
        for _ in places {
            let held = self.next_held();
            assert!(places.contains(&held), "{held:?}; {}", self.scene());
        }
    }

    /// The token of who has permits.
    pub(crate) fn token(&self, place: Place) -> u64 {
        self.out[&place].1
    }

    pub(crate) fn is_inside(&self, place: Place) -> bool {
        self.out.contains_key(&place)
    }

    pub(crate) fn permits_out(&self) -> u32 {
        self.out.values().map(|it| it.0).sum()
    }

    #[track_caller]
    fn enter(&mut self, who: Who, line: &str) -> Place {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "held", "{who:?} said {line:?}; {}", self.scene());
        let number = |index: usize| words[index].parse::<u64>().expect("a number");
        let (place, token, permits) = ((who, number(1) as u32), number(2), number(3) as u32);
        let (wanted, ended) = self.asked.remove(&place).expect("a wish");
        assert_eq!(permits, wanted, "slots of {place:?}");
        assert!(token > ended, "the token went from {ended} to {token}");
        self.out.insert(place, (permits, token));
        let (out, limit) = (self.permits_out(), self.limit);
        assert!(out <= limit, "{out} of {limit} are out: {}", self.scene());
        place
    }

    /// Lets somebody go and waits until it is out.
    #[track_caller]
    pub(crate) fn release(&mut self, place: Place) {
        self.let_go(place, "release");
        self.expect_released(place);
    }

    #[track_caller]
    pub(crate) fn let_go(&mut self, place: Place, how: &str) {
        let (_, token) = self.out.remove(&place).expect("it has permits");
        self.leaving.insert(place, token);
        self.tell(place.0, &format!("{how} {}", place.1));
    }

    #[track_caller]
    pub(crate) fn expect_released(&mut self, place: Place) {
        let (_, line) = self.find(|event| event.0 == place.0 && event.1.starts_with("released"));
        assert_eq!(line, format!("released {}", place.1));
        let token = self.leaving.remove(&place).expect("it was told to");
        self.ended = self.ended.max(token);
    }

    /// Gives up, whatever else this member says before it has.
    #[track_caller]
    pub(crate) fn cancel(&mut self, place: Place) {
        self.asked.remove(&place);
        self.tell(place.0, &format!("cancel {}", place.1));
        let (_, line) = self.find(|event| event.0 == place.0 && event.1.starts_with("cancelled"));
        assert_eq!(line, format!("cancelled {}", place.1));
    }

    /// All permits can be had at once; whoever died in line is cleared away by this.
    #[track_caller]
    pub(crate) fn expect_idle(&mut self, who: Who) {
        let limit = self.limit;
        self.acquire((who, 90), limit);
        self.release((who, 90));
        self.expect_no_tickets();
        assert!(self.tries((who, 91), limit), "{}", self.scene());
        self.release((who, 91));
        self.expect_no_tickets();
        self.expect_silence();
    }

    /// Makes a member wait for another process once, so that everything it needs for waiting is there.
    pub(crate) fn contend(&mut self, who: Who) {
        let (other, limit) = (self.start(), self.limit);
        self.take((other, 98), limit);
        self.queue((who, 98), limit);
        self.release((other, 98));
        self.expect_held((who, 98));
        self.release((who, 98));
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
