//! A crew of [`holder`](super::holder) processes around one semaphore.
//!
//! Every `held` line is checked. Never more permits are held than there are. A grant that began
//! after the end of another one has the greater token.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::crew::{self, Site, Who, program};
use crate::holder::NAME;

/// A wait or a hold of a member.
pub(crate) type Place = (Who, u32);

/// The semaphore and its holders.
pub(crate) struct Pool {
    home: TempDir,
    limit: u32,
    /// The request of each, and the greatest token of all holds that had ended by then.
    asked: HashMap<Place, (u32, u64)>,
    /// How many permits each holder has, and its token.
    out: HashMap<Place, (u32, u64)>,
    /// Ordered to release, with its token. The member has not answered yet.
    leaving: HashMap<Place, u64>,
    ended: u64,
}

/// What a directory contains. Nothing, if it cannot be read or is gone.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|it| Some(it.ok()?.path()))
}

impl Pool {
    fn slot(&self, number: u32) -> PathBuf {
        self.home.path().join(format!("{NAME}.{number:02}.lock"))
    }

    fn queue_dir(&self) -> PathBuf {
        self.home.path().join(format!("{NAME}.queue"))
    }

    /// How many of the slot files are locked, by what the kernel says of each open file. Asking locks
    /// nothing. The list of all locks, `/proc/locks`, may omit one while other locks are released.
    fn locked_slots(&self) -> usize {
        let file_of = |path: &Path| Some(std::fs::metadata(path).ok()?.ino());
        let slots: Vec<_> = (0..self.limit)
            .filter_map(|it| file_of(&self.slot(it)))
            .collect();
        let mut locked = BTreeSet::new();
        for process in entries("/proc".as_ref()) {
            for descriptor in entries(&process.join("fd")) {
                let number = descriptor.file_name().unwrap_or_default();
                let facts = std::fs::read_to_string(process.join("fdinfo").join(number));
                if facts.is_ok_and(|it| it.contains("lock:"))
                    && let Some(file) = file_of(&descriptor).filter(|it| slots.contains(it))
                {
                    locked.insert(file);
                }
            }
        }
        locked.len()
    }
}

impl Site for Pool {
    fn program(&self) -> Command {
        let mut command = program("holder");
        command.current_dir(self.home.path());
        command.env("HOLDER_HOME", self.home.path());
        command
    }

    fn tickets(&self) -> Vec<PathBuf> {
        let is_ticket = |path: &PathBuf| {
            let name = path.file_name().and_then(|it| it.to_str());
            name.is_some_and(|it| it.starts_with(|it: char| it.is_ascii_digit()))
        };
        let mut tickets: Vec<_> = entries(&self.queue_dir()).filter(is_ticket).collect();
        tickets.sort();
        tickets
    }

    fn scene(&self) -> String {
        let state = std::fs::read_to_string(self.queue_dir().join("state")).unwrap_or_default();
        format!(
            "out: {:?}; tickets: {:?}; {} of {} slots are locked; state: {:?}",
            self.out,
            self.tickets(),
            self.locked_slots(),
            self.limit,
            state.lines().take(2).collect::<Vec<_>>(),
        )
    }

    /// Nothing is known about a grant that it did not report before its death.
    fn forget(&mut self, who: Who) {
        self.out.retain(|place, _| place.0 != who);
        self.asked.retain(|place, _| place.0 != who);
        self.leaving.retain(|place, _| place.0 != who);
    }
}

/// Processes around one semaphore.
pub(crate) type Crew = crew::Crew<Pool>;

/// On disk, and in memory if the system has such a directory.
pub(crate) fn everywhere(limit: u32, test: impl Fn(Crew)) {
    crew::everywhere(|home| test(Crew::in_home(home, limit)));
}

impl Crew {
    pub(crate) fn new(limit: u32) -> Self {
        Self::in_home(crew::scratch(), limit)
    }

    fn in_home(home: TempDir, limit: u32) -> Self {
        let mut crew = Self::around(Pool {
            home,
            limit,
            asked: HashMap::new(),
            out: HashMap::new(),
            leaving: HashMap::new(),
            ended: 0,
        });
        crew.set_limit(limit);
        crew
    }

    /// From now on there are so many permits.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.site.limit = limit;
        self.set("HOLDER_LIMIT", &limit.to_string());
    }

    pub(crate) fn limit(&self) -> u32 {
        self.site.limit
    }

    pub(crate) fn home(&self) -> &Path {
        self.site.home.path()
    }

    pub(crate) fn slot(&self, number: u32) -> PathBuf {
        self.site.slot(number)
    }

    pub(crate) fn queue_dir(&self) -> PathBuf {
        self.site.queue_dir()
    }

    pub(crate) fn locked_slots(&self) -> usize {
        self.site.locked_slots()
    }

    // ---- permits --------------------------------------------------------------------------------

    fn wants(&mut self, place: Place, permits: u32) {
        self.site.asked.insert(place, (permits, self.site.ended));
    }

    pub(crate) fn request(&mut self, (who, number): Place, permits: u32) {
        self.wants((who, number), permits);
        self.tell(who, &format!("acquire {number} {permits}"));
    }

    /// Queues. Must not acquire at once.
    #[track_caller]
    pub(crate) fn queue(&mut self, place: Place, permits: u32) {
        self.request(place, permits);
        self.expect(place.0, &format!("queued {}", place.1));
    }

    /// Must acquire at once.
    #[track_caller]
    pub(crate) fn take(&mut self, place: Place, permits: u32) {
        self.request(place, permits);
        let line = self.line(place.0);
        let held = self.enter(place.0, &line);
        assert_eq!(held, place);
    }

    /// Acquires, at once or after a wait. Others may acquire before it.
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

    /// Tries, and returns whether it acquired.
    #[track_caller]
    pub(crate) fn tries(&mut self, place: Place, permits: u32) -> bool {
        self.wants(place, permits);
        let line = self.ask(place.0, &format!("try {} {permits}", place.1));
        line != "none" && self.enter(place.0, &line) == place
    }

    /// Waits for the next holder.
    #[track_caller]
    pub(crate) fn next_held(&mut self) -> Place {
        let (who, line) = self.find(|who, line| {
            assert!(!line.starts_with("failed"), "{who:?}: {line}");
            line.starts_with("held")
        });
        self.enter(who, &line)
    }

    /// Asserts that this one is the next to acquire.
    #[track_caller]
    pub(crate) fn expect_held(&mut self, place: Place) {
        let held = self.next_held();
        assert_eq!(held, place, "{}", self.scene());
    }

    /// Asserts that this one is the next to acquire, and lets it release.
    #[track_caller]
    pub(crate) fn serve(&mut self, place: Place) {
        self.expect_held(place);
        self.release(place);
    }

    /// Asserts that this one acquires next, possibly after others that may acquire too.
    #[track_caller]
    pub(crate) fn expect_held_beside(&mut self, place: Place) {
        while !self.is_inside(place) {
            self.next_held();
        }
    }

    /// Asserts that these are the next to acquire. Their lines may arrive in any order.
    #[track_caller]
    pub(crate) fn until_held(&mut self, places: &[Place]) {
        for _ in places {
            let held = self.next_held();
            assert!(places.contains(&held), "{held:?}; {}", self.scene());
        }
    }

    /// The token of a holder.
    pub(crate) fn token(&self, place: Place) -> u64 {
        self.site.out[&place].1
    }

    pub(crate) fn is_inside(&self, place: Place) -> bool {
        self.site.out.contains_key(&place)
    }

    pub(crate) fn permits_out(&self) -> u32 {
        self.site.out.values().map(|it| it.0).sum()
    }

    #[track_caller]
    fn enter(&mut self, who: Who, line: &str) -> Place {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "held", "{who:?} said {line:?}; {}", self.scene());
        let number = |index: usize| words[index].parse::<u64>().expect("a number");
        let (place, token, permits) = ((who, number(1) as u32), number(2), number(3) as u32);
        let (wanted, ended) = self.site.asked.remove(&place).expect("a wish");
        assert_eq!(permits, wanted, "slots of {place:?}");
        assert!(token > ended, "the token went from {ended} to {token}");
        self.site.out.insert(place, (permits, token));
        let (out, limit) = (self.permits_out(), self.site.limit);
        assert!(out <= limit, "{out} of {limit} are out: {}", self.scene());
        place
    }

    /// Orders a holder to release, and waits for it.
    #[track_caller]
    pub(crate) fn release(&mut self, place: Place) {
        self.let_go(place, "release");
        self.expect_released(place);
    }

    #[track_caller]
    pub(crate) fn let_go(&mut self, place: Place, how: &str) {
        let (_, token) = self.site.out.remove(&place).expect("it has permits");
        self.site.leaving.insert(place, token);
        self.tell(place.0, &format!("{how} {}", place.1));
    }

    #[track_caller]
    pub(crate) fn expect_released(&mut self, place: Place) {
        let line = self.find_of(place.0, "released");
        assert_eq!(line, format!("released {}", place.1));
        let token = self.site.leaving.remove(&place).expect("it was ordered to");
        self.site.ended = self.site.ended.max(token);
    }

    /// Cancels, whatever this member says before.
    #[track_caller]
    pub(crate) fn cancel(&mut self, place: Place) {
        self.site.asked.remove(&place);
        self.tell(place.0, &format!("cancel {}", place.1));
        let line = self.find_of(place.0, "cancelled");
        assert_eq!(line, format!("cancelled {}", place.1));
    }

    /// Asserts that all permits can be acquired at once. This also removes the tickets of dead
    /// waiters.
    #[track_caller]
    pub(crate) fn expect_idle(&mut self, who: Who) {
        let limit = self.site.limit;
        self.acquire((who, 90), limit);
        self.release((who, 90));
        self.expect_no_tickets();
        assert!(self.tries((who, 91), limit), "{}", self.scene());
        self.release((who, 91));
        self.expect_no_tickets();
        self.expect_silence();
    }

    /// Makes a member wait for another process once, so that it has everything it needs for
    /// waiting.
    pub(crate) fn contend(&mut self, who: Who) {
        let (other, limit) = (self.start(), self.site.limit);
        self.take((other, 98), limit);
        self.queue((who, 98), limit);
        self.release((other, 98));
        self.serve((who, 98));
        self.end(other);
    }
}
