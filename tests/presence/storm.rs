//! Many at once: takeovers of one stale lock, and an ordinary crowd.

use std::path::{Path, PathBuf};

use crate::child::numbered;
use crate::crew::{Member, until};
use crate::family::{Kind, left, place};

/// Processes that take over.
const BREAKERS: usize = 8;
/// Stale locks in one race.
const RACE: usize = 50;

fn rounds() -> usize {
    let given = std::env::var("STANCHION_ROUNDS").ok();
    given.map_or(500, |it| it.parse().expect("a number"))
}

/// What a process leaves that is killed while it holds: every file and directory with its text,
/// relative to the lock's directory.
struct Stale {
    kind: Kind,
    files: Vec<(PathBuf, Option<String>)>,
    /// The ID of its hold, as it is in names and texts.
    id: String,
}

impl Stale {
    fn new(kind: Kind) -> Self {
        let (directory, path) = place();
        let mut holder = Member::of(kind, &path);
        holder.acquire();
        holder.kill();
        let mut files = Vec::new();
        let mut directories = vec![directory.path().to_path_buf()];
        while let Some(next) = directories.pop() {
            for entry in std::fs::read_dir(next).expect("a directory") {
                let found = entry.expect("an entry").path();
                let relative = found.strip_prefix(directory.path()).expect("below");
                let text = std::fs::read_to_string(&found).ok();
                files.push((relative.to_path_buf(), text));
                if found.is_dir() {
                    directories.push(found);
                }
            }
        }
        let mut texts = files.iter().filter_map(|(path, text)| {
            let name = path.to_str()?;
            name.split_once("record.")
                .map(|it| it.1.to_owned())
                .or_else(|| {
                    let text = text.as_ref()?;
                    let at = text.find(" id=")? + 4;
                    Some(text[at..at + 32].to_owned())
                })
        });
        let id = texts.next_back().expect("an ID");
        Self { kind, files, id }
    }

    /// Writes it again, as another hold of the same dead process.
    fn lay_down(&self, path: &Path, number: usize) {
        let fresh = format!("{number:032x}");
        let directory = path.parent().expect("a directory");
        let lock = path.file_name().and_then(|it| it.to_str()).expect("a name");
        for (file, text) in &self.files {
            let name = file.to_str().expect("a name").replace(&self.id, &fresh);
            let file = directory.join(name.replacen("it.lock", lock, 1));
            match text {
                Some(text) => std::fs::write(file, text.replace(&self.id, &fresh)),
                None => std::fs::create_dir(file),
            }
            .expect("laid down");
        }
    }

    /// What a released lock leaves.
    fn leaves(&self, directory: &Path) -> usize {
        let left = left(directory);
        match self.kind {
            Kind::Pid => left.len(),
            _ => {
                let inside = |it: &String| crate::family::left(&directory.join(it)).len();
                // The baton of each is all that is left.
                let more = left.iter().map(|it| inside(it) - 1);
                more.sum()
            }
        }
    }
}

fn one_takeover_wins(kind: Kind) {
    let (directory, path) = place();
    let stale = Stale::new(kind);
    let start = |_| Member::of(kind, &path);
    let mut breakers: Vec<_> = (0..BREAKERS).map(start).collect();
    let rounds = rounds();
    for first in (0..rounds).step_by(RACE) {
        let last = (first + RACE).min(rounds);
        for index in first..last {
            stale.lay_down(&numbered(&path, index), index);
        }
        for breaker in &mut breakers {
            breaker.tell(&format!("race {first} {last}"));
        }
        let mut winners = vec![0; last - first];
        for breaker in &breakers {
            let line = breaker.hear();
            let won = line.strip_prefix("won").expect("an answer");
            for word in won.split_whitespace() {
                winners[word.parse::<usize>().expect("a number") - first] += 1;
            }
        }
        assert!(winners.iter().all(|it| *it == 1), "{winners:?}");
        for breaker in &mut breakers {
            breaker.tell("all have tried");
        }
        for breaker in &breakers {
            breaker.expect("let-go");
        }
        assert_eq!(
            stale.leaves(directory.path()),
            0,
            "{:?}",
            left(directory.path())
        );
    }
}

#[test]
fn p32_one_takeover_of_a_stale_pid_file_wins() {
    one_takeover_wins(Kind::Pid);
}

#[test]
fn p32_one_takeover_of_a_stale_directory_wins() {
    one_takeover_wins(Kind::Mkdir);
}

#[test]
fn p32_one_takeover_of_a_stale_file_wins() {
    one_takeover_wins(Kind::CreateNew);
}

fn no_update_is_lost(kind: Kind) {
    let (_directory, path) = place();
    let start = |_| Member::of(kind, &path);
    let mut crowd: Vec<_> = (0..BREAKERS).map(start).collect();
    for member in &mut crowd {
        member.tell("storm 100");
    }
    for member in &crowd {
        member.expect("stormed");
    }
    let counted = std::fs::read_to_string(path.with_extension("counter")).expect("counted");
    assert_eq!(counted, (100 * BREAKERS).to_string());
}

#[test]
fn p01_no_update_is_lost_by_pid_file() {
    no_update_is_lost(Kind::Pid);
}

#[test]
fn p01_no_update_is_lost_by_directory() {
    no_update_is_lost(Kind::Mkdir);
}

#[test]
fn p01_no_update_is_lost_by_file() {
    no_update_is_lost(Kind::CreateNew);
}

fn every_wait_ends_while_processes_are_killed(kind: Kind) {
    let (_directory, path) = place();
    let start = || {
        let mut member = Member::of(kind, &path);
        member.tell("storm 1000000");
        member
    };
    let mut crowd: Vec<_> = (0..BREAKERS).map(|_| start()).collect();
    let counter = path.with_extension("counter");
    let count = || {
        let text = std::fs::read_to_string(&counter).unwrap_or_default();
        text.parse().unwrap_or(0_u64)
    };
    for victim in 0..BREAKERS * 5 {
        // It progresses before each death, so a process has taken over from the last one.
        let before = count();
        until("it progresses", || count() > before + 5);
        std::mem::replace(&mut crowd[victim % BREAKERS], start()).kill();
    }
    for mut member in crowd {
        member.kill();
    }
    let mut last = Member::of(kind, &path);
    last.acquire();
    last.release();
}

#[test]
fn p29_every_wait_at_a_pid_file_ends_while_processes_are_killed() {
    every_wait_ends_while_processes_are_killed(Kind::Pid);
}

#[test]
fn p29_every_wait_at_a_directory_ends_while_processes_are_killed() {
    every_wait_ends_while_processes_are_killed(Kind::Mkdir);
}

#[test]
fn p29_every_wait_at_a_file_ends_while_processes_are_killed() {
    every_wait_ends_while_processes_are_killed(Kind::CreateNew);
}
