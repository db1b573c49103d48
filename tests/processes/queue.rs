//! A crew of [`taker`](super::taker) processes around one lock.
//!
//! Every `held` line is checked: there is no other holder, and tokens strictly increase.
#![allow(dead_code)] // Each test binary uses a part.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::crew::{self, Site, Who, program};

#[path = "modes.rs"]
mod modes;
#[cfg(stanchion_test)]
#[path = "settled.rs"]
mod settled;

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

/// A holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inside {
    who: Who,
    slot: u32,
    reads: bool,
}

/// The lock and its holders.
#[derive(Default)]
pub(crate) struct Queue {
    lock: PathBuf,
    inside: Vec<Inside>,
    token: u64,
    /// Since the last writer acquired, a member died that may have had tokens, or did not take a
    /// grant.
    token_may_jump: bool,
    writers_are_unseen: bool,
    _scratch: Option<TempDir>,
}

impl Queue {
    fn directory(&self) -> PathBuf {
        let mut path = self.lock.clone().into_os_string();
        path.push(".queue");
        path.into()
    }
}

impl Site for Queue {
    fn program(&self) -> Command {
        let mut command = program("taker");
        command.env("TAKER_LOCK", &self.lock);
        command
    }

    fn tickets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory()).into_iter().flatten();
        let paths = entries.filter_map(|it| Some(it.ok()?.path()));
        let is_ticket = |it: &PathBuf| it.extension().is_some_and(|it| it == "x" || it == "s");
        let mut tickets: Vec<_> = paths.filter(is_ticket).collect();
        tickets.sort();
        tickets
    }

    fn scene(&self) -> String {
        let state = std::fs::read_to_string(self.directory().join("state")).unwrap_or_default();
        format!(
            "holder: {:?}; tickets: {:?}; state: {:?}",
            self.inside,
            self.tickets(),
            state.lines().take(2).collect::<Vec<_>>(),
        )
    }

    fn forget(&mut self, who: Who) {
        self.inside.retain(|inside| inside.who != who);
    }

    fn killed(&mut self, who: Who) {
        self.forget(who);
        self.token_may_jump = true;
    }
}

/// Processes around one lock.
pub(crate) type Crew = crew::Crew<Queue>;

/// On disk, and in memory if the system has such a directory.
pub(crate) fn everywhere(test: impl Fn(Crew)) {
    crew::everywhere(|scratch| test(Crew::in_scratch(scratch)));
}

impl Crew {
    pub(crate) fn new() -> Self {
        Self::in_scratch(crew::scratch())
    }

    fn in_scratch(scratch: TempDir) -> Self {
        let mut crew = Self::at(&scratch.path().join("it.lock"));
        crew.site._scratch = Some(scratch);
        crew
    }

    /// Around a lock that already exists.
    pub(crate) fn at(lock: &Path) -> Self {
        Self::around(Queue {
            lock: lock.to_owned(),
            ..Queue::default()
        })
    }

    pub(crate) fn lock(&self) -> &Path {
        &self.site.lock
    }

    pub(crate) fn queue_dir(&self) -> PathBuf {
        self.site.directory()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.queue_dir().join("state")
    }

    // ---- lines ----------------------------------------------------------------------------------

    /// Returns whether a member that was ordered to acquire must wait. If not, its line is still to
    /// be read.
    pub(crate) fn must_wait(&mut self, who: Who, slot: u32) -> bool {
        let line = self.line(who);
        let waits = line == format!("queued {slot}");
        if !waits {
            self.said_so_far().push_front((who, line));
        }
        waits
    }

    /// Sends a command about a slot and returns its result, after a wait or at once.
    pub(crate) fn answer(&mut self, who: Who, command: &str, slot: u32) -> String {
        self.tell(who, command);
        self.answer_to_acquire(who, slot)
    }

    pub(crate) fn answer_to_acquire(&mut self, who: Who, slot: u32) -> String {
        let line = self.line(who);
        match line == format!("queued {slot}") {
            true => self.line(who),
            false => line,
        }
    }

    /// The holder has released in a way that the crew could not follow.
    pub(crate) fn no_holder(&mut self) {
        self.site.inside.clear();
    }

    /// Returns whether the record has a death that is still to be reported, and no reader has found
    /// it.
    pub(crate) fn says_held(&self) -> bool {
        let record = std::fs::read(self.state()).expect("the record");
        record.get(70) == Some(&b'1')
    }

    /// A witness waits for a short time: it acquires and releases, or gives up where a stopped
    /// member holds the lock.
    pub(crate) fn waits_briefly(&mut self, witness: Who, command: &str) {
        let line = self.answer(witness, &format!("{command} 1 40"), 1);
        if line.starts_with("held") {
            self.command(witness, "release 1", "released 1");
        } else {
            assert!(line.starts_with("failed 1 TimedOut"), "{line}");
        }
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

    // ---- locks ----------------------------------------------------------------------------------

    /// Queues: must not get the lock at once.
    #[track_caller]
    pub(crate) fn queue(&mut self, who: Who, slot: u32) {
        self.queue_by(who, "acquire", slot);
    }

    /// Must get the lock at once.
    #[track_caller]
    pub(crate) fn take(&mut self, who: Who, slot: u32) -> Held {
        self.take_by(who, "acquire", slot)
    }

    /// Acquires, at once or after a wait, and as the next one.
    #[track_caller]
    pub(crate) fn acquire(&mut self, who: Who, slot: u32) -> Held {
        self.enters_by(who, "acquire", slot)
    }

    /// Waits for the next holder.
    #[track_caller]
    pub(crate) fn next_held(&mut self) -> Held {
        let (who, line) = self.find(|who, line| {
            assert!(!line.starts_with("failed"), "{who:?}: {line}");
            line.starts_with("held")
        });
        self.enter(who, &line)
    }

    /// Asserts that this is the next holder.
    #[track_caller]
    pub(crate) fn expect_held(&mut self, who: Who, slot: u32) -> Held {
        let held = self.next_held();
        assert_eq!((held.who, held.slot), (who, slot), "{}", self.scene());
        held
    }

    /// Asserts that this is the next holder, and lets it release.
    #[track_caller]
    pub(crate) fn serve(&mut self, who: Who, slot: u32) -> Held {
        let held = self.expect_held(who, slot);
        self.release(who, slot);
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
        self.site.check_entry(held);
        held
    }

    /// Orders the holder to release, and waits for it.
    #[track_caller]
    pub(crate) fn release(&mut self, who: Who, slot: u32) {
        self.let_go(who, slot, "release");
        self.expect_released(who, slot);
    }

    pub(crate) fn let_go(&mut self, who: Who, slot: u32, how: &str) {
        self.site.goes_out(who, slot);
        self.tell(who, &format!("{how} {slot}"));
    }

    #[track_caller]
    pub(crate) fn expect_released(&mut self, who: Who, slot: u32) {
        let wanted = format!("released {slot}");
        assert_eq!(self.find_of(who, "released"), wanted);
    }

    /// Acquires and releases at once, without a wait.
    #[track_caller]
    pub(crate) fn take_and_release(&mut self, who: Who) -> Held {
        let held = self.take(who, 99);
        self.release(who, 99);
        held
    }

    /// Makes a member wait for another process once, so that it has everything it needs for
    /// waiting.
    pub(crate) fn contend(&mut self, who: Who) {
        let other = self.start();
        self.take(other, 98);
        self.queue(who, 98);
        self.release(other, 98);
        self.serve(who, 98);
        self.end(other);
    }
}
