//! Fork and exec: a copy of the process cannot affect the lock of its parent.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "crew/mod.rs"]
mod crew;
#[path = "processes/forks_alone.rs"]
mod forks_alone;
#[path = "processes/queue.rs"]
mod queue;
#[path = "processes/taker.rs"]
mod taker;

use std::path::PathBuf;

use crew::Who;
use queue::{Crew, everywhere};
use rustix::process::{Pid, Signal, kill_process};

/// Acquires the lock, and keeps the guard where a forked copy finds it.
fn keep(crew: &mut Crew, who: Who) -> u64 {
    let line = crew.ask(who, "keep");
    let token = line
        .strip_prefix("kept ")
        .unwrap_or_else(|| panic!("{line}"));
    token.parse().expect("a token")
}

/// A process that the crew did not start itself. It ends with the test.
struct Stray(Pid);

impl Stray {
    fn read(line: &str, word: &str) -> Self {
        let pid = line.strip_prefix(word).unwrap_or_else(|| panic!("{line}"));
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
        Self(pid.expect("a pid"))
    }

    fn assert_alive(&self) {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.0.as_raw_pid()));
        let state = state.expect("it is alive");
        let (_, state) = state.rsplit_once(") ").expect("its state");
        assert!(!state.starts_with('Z'), "it has ended");
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn p34_the_end_of_a_forked_child_frees_nothing() {
    everywhere(|mut crew| {
        let (holder, other) = (crew.start(), crew.start());
        keep(&mut crew, holder);
        for _ in 0..5 {
            assert_eq!(crew.ask(holder, "fork end"), "ended");
            assert_eq!(crew.ask(other, "try 1"), "none");
        }
        assert_eq!(crew.ask(holder, "let-go"), "let-go");
        assert!(!crew.take_and_release(other).crashed);
    });
}

#[test]
fn p34_a_guard_dropped_in_a_forked_child_does_not_unlock() {
    everywhere(|mut crew| {
        let (holder, waiter, other) = (crew.start(), crew.start(), crew.start());
        keep(&mut crew, holder);
        crew.queue(waiter, 1);
        assert_eq!(crew.ask(holder, "fork drop"), "dropped");
        assert_eq!(crew.ask(other, "try 1"), "none");
        assert_eq!(crew.ask(other, "is-locked"), "yes");
        assert!(!crew.has_spoken(waiter));
        assert_eq!(crew.ask(holder, "let-go"), "let-go");
        assert!(!crew.expect_held(waiter, 1).crashed);
    });
}

#[test]
fn p34_a_handle_from_before_a_fork_is_refused_in_the_child() {
    let mut crew = Crew::new();
    let holder = crew.start();
    keep(&mut crew, holder);
    let answer = crew.ask(holder, "fork old");
    assert!(answer.starts_with("old Unsupported"), "{answer}");
    assert!(answer.contains("fork"), "{answer}");
    assert_eq!(crew.ask(holder, "let-go"), "let-go");
}

#[test]
fn p34_a_forked_child_is_another_process_in_the_queue() {
    everywhere(|mut crew| {
        let holder = crew.start();
        crew.contend(holder);
        let token = keep(&mut crew, holder);
        assert_eq!(
            crew.ask(holder, "fork try"),
            "none",
            "its parent holds the lock"
        );
        assert_eq!(crew.ask(holder, "fork take"), "waiting");
        crew::until("the child is queued", || crew.tickets().len() == 1);
        crew.tell(holder, "let-go");
        let mut lines = [crew.line(holder), crew.line(holder)];
        lines.sort();
        let got = lines[0].strip_prefix("got ").expect("the child gets it");
        assert!(got.parse::<u64>().expect("a token") > token);
        assert_eq!(lines[1], "let-go");
        // The child ended by `_exit` with its guard: this counts as a crash of a holder, and the
        // lock is free.
        crew.acquire(holder, 1);
        crew.release(holder, 1);
        crew.expect_no_tickets();
    });
}

#[test]
fn p37_a_killed_holder_with_a_live_forked_child_frees_the_lock() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let (holder, waiter) = (crew.start(), crew.start());
        crew.contend(holder);
        keep(&mut crew, holder);
        crew.queue(waiter, 1);
        let stray = Stray::read(&crew.ask(holder, "fork stay"), "forked ");
        crew.kill_now(holder);
        assert!(crew.expect_held(waiter, 1).crashed);
        stray.assert_alive();
    });
}

#[test]
fn p37_a_killed_waiter_with_a_live_forked_child_leaves_the_queue() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let (holder, victim, next) = (crew.start(), crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(victim, 1);
        crew.queue(next, 1);
        let stray = Stray::read(&crew.ask(victim, "fork stay"), "forked ");
        crew.kill_now(victim);
        crew.release(holder, 1);
        crew.expect_held(next, 1);
        stray.assert_alive();
    });
}

/// Without file events: the child has copies of no descriptor that a thread waits for, or waits
/// with.
#[cfg(stanchion_test)]
#[test]
fn p37_a_forked_child_keeps_no_thread_waiting() {
    everywhere(|mut crew| {
        crew.by_events_only().set("STANCHION_NO_INOTIFY", "24");
        let (holder, victim) = (crew.start(), crew.start());
        let (next, last) = (crew.start(), crew.start());
        crew.take(holder, 1);
        for who in [victim, next, last] {
            crew.queue(who, 1);
        }
        let strays = [victim, next].map(|who| {
            let answer = crew.ask(who, "fork stay");
            Stray::read(&answer, "forked ")
        });
        crew.kill_now(victim);
        crew.release(holder, 1);
        crew.serve(next, 1);
        crew.expect_held(last, 1);
        strays.iter().for_each(Stray::assert_alive);
    });
}

#[cfg(stanchion_test)]
#[test]
fn p37_a_release_is_heard_although_a_forked_child_lives() {
    everywhere(|mut crew| {
        crew.by_events_only().without_ladder();
        let (holder, waiter) = (crew.start(), crew.start());
        keep(&mut crew, holder);
        crew.queue(waiter, 1);
        let stray = Stray::read(&crew.ask(holder, "fork stay"), "forked ");
        crew.until_only_events_wake();
        assert_eq!(crew.ask(holder, "let-go"), "let-go");
        crew.expect_woken(waiter, 1);
        stray.assert_alive();
    });
}

#[test]
fn p37_a_killed_holder_with_a_live_program_started_by_exec_frees_the_lock() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let (holder, waiter) = (crew.start(), crew.start());
        crew.contend(holder);
        crew.take(holder, 1);
        crew.queue(waiter, 1);
        let stray = Stray::read(&crew.ask(holder, "spawn"), "spawned ");
        crew.kill_now(holder);
        assert!(crew.expect_held(waiter, 1).crashed);
        stray.assert_alive();
    });
}

/// A thread of the parent may have any mutex at the moment of the fork.
#[test]
fn p34_a_wait_dropped_in_a_forked_child_touches_no_mutex_of_the_parent() {
    let mut crew = Crew::new();
    let parent = crew.start();
    assert_eq!(crew.ask(parent, "forks-in-waits"), "all ended");
}

/// The same with a permit.
#[test]
fn p34_a_permit_used_in_a_forked_child_touches_no_mutex_of_the_parent() {
    let mut crew = Crew::new();
    let parent = crew.start();
    assert_eq!(crew.ask(parent, "forks-with-permits"), "all ended");
}

/// Runs a child program that forks by itself.
#[track_caller]
fn forks_alone(what: &str) {
    let place = crew::scratch();
    let mut command = crew::program("alone");
    command.env("FORKS_WHAT", what);
    command.env("FORKS_PATH", place.path().join("it"));
    assert_eq!(crew::last_words(&mut command), ["well"]);
}

/// The task has not learned yet that the commit has ended.
#[test]
fn p34_a_forked_child_keeps_a_file_with_the_number_of_one_that_was_committed() {
    forks_alone("commit");
}

#[test]
fn p34_a_forked_child_neither_writes_nor_commits_the_file_of_its_parent() {
    forks_alone("draft");
}

#[test]
fn p34_a_guard_dropped_in_a_child_without_a_free_descriptor_closes_no_other_file() {
    forks_alone("full");
}

#[test]
fn p34_a_forked_child_has_its_own_locks_in_memory() {
    forks_alone("memory");
}

/// A thread of the parent may have any mutex at the moment of the fork.
#[test]
fn p34_a_forked_child_touches_no_mutex_of_locks_in_memory() {
    forks_alone("storm");
}

#[test]
fn p34_a_forked_child_touches_no_mutex_around_a_lock() {
    forks_alone("wrappers");
}

/// The open files of the lock, its queue and its events.
fn open_files(crew: &mut Crew, who: Who, command: &str) -> Vec<String> {
    crew.tell(who, command);
    let mut files = Vec::new();
    loop {
        let line = crew.line(who);
        if line == "listed" {
            return files;
        }
        let file = line
            .strip_prefix("file ")
            .unwrap_or_else(|| panic!("{line}"));
        files.push(file.to_owned());
    }
}

fn concerns_the_lock(file: &str) -> bool {
    ["it.lock", "inotify", "timerfd"]
        .iter()
        .any(|it| file.contains(it))
}

#[test]
fn p36_no_descriptor_leaks_through_exec() {
    everywhere(|mut crew| {
        let (holder, other) = (crew.start(), crew.start());
        crew.contend(holder);
        crew.contend(other);
        crew.take(holder, 1);
        crew.queue(other, 1);
        for who in [holder, other] {
            let leaked = open_files(&mut crew, who, "list-files");
            assert!(
                !leaked.iter().any(|file| concerns_the_lock(file)),
                "{leaked:?}"
            );
        }
    });
}

#[test]
fn p34_a_forked_child_has_no_file_that_carries_a_lock() {
    everywhere(|mut crew| {
        let (holder, other) = (crew.start(), crew.start());
        crew.contend(holder);
        crew.take(holder, 1);
        crew.queue(other, 1);
        crew.queue(holder, 2);
        for who in [holder, other] {
            let open = open_files(&mut crew, who, "fork list");
            let lock = crew.lock().to_string_lossy().into_owned();
            let locked = |file: &&String| {
                **file == lock || file.ends_with("/state") || file.contains("inotify")
            };
            assert_eq!(open.iter().find(locked), None, "{open:?}");
        }
        crew.release(holder, 1);
        crew.expect_held(other, 1);
    });
}

/// Returns the only child of a process.
fn child_of(pid: u32) -> u32 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let children =
        threads.map(|it| std::fs::read_to_string(it.expect("a thread").path().join("children")));
    let children = children.map(|it| it.expect("a list of children"));
    children
        .collect::<String>()
        .trim()
        .parse()
        .expect("one child")
}

/// See the test of this number in `tests/runtimes`, `handles::descriptors`.
#[test]
fn p28_the_death_of_a_forked_child_closes_the_files_of_locks_before_the_file_events() {
    let mut crew = Crew::new();
    let holder = crew.start();
    crew.contend(holder);
    keep(&mut crew, holder);
    assert_eq!(crew.ask(holder, "fork take"), "waiting");
    crew::until("the child is queued", || crew.tickets().len() == 1);
    let files = std::fs::read_dir(format!("/proc/{}/fd", child_of(crew.pid(holder))));
    let files = files
        .expect("its files")
        .map(|it| it.expect("a file").path());
    let files: Vec<_> = files.collect();
    let numbers_of = |is_one: &dyn Fn(&str) -> bool| -> Vec<u32> {
        let open = |file: &&PathBuf| std::fs::read_link(file).expect("an open file");
        let ones = files
            .iter()
            .filter(|file| is_one(&open(file).to_string_lossy()));
        let number = |file: &PathBuf| file.file_name()?.to_str()?.parse().ok();
        ones.map(|file| number(file).expect("a number")).collect()
    };
    let lock = crew.lock().to_string_lossy().into_owned();
    let events = numbers_of(&|it| it == "anon_inode:inotify");
    // It has inherited the directory, whose close nobody waits for.
    let of_locks = numbers_of(&|it| it.starts_with(&lock) && !it.ends_with(".queue"));
    assert!(!events.is_empty() && !of_locks.is_empty());
    assert!(
        events.iter().max() < of_locks.iter().min(),
        "{events:?} {of_locks:?}"
    );
    // The child acquires, and ends.
    crew.tell(holder, "let-go");
    let lines = [crew.line(holder), crew.line(holder)];
    assert!(lines.iter().any(|it| it.starts_with("got ")), "{lines:?}");
}

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("taker", taker::main), ("alone", forks_alone::main)]);
}
