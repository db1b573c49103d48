//! Changes to the files of a lock while several processes use it: replaced, named in another way,
//! looked up in vain, mixed with foreign files.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::crew::{Who, until};
use crate::queue::{Crew, everywhere};

/// Everything that is visible of a directory: names, inodes, modes, sizes, times of change,
/// contents.
pub(crate) fn snapshot(directory: &Path) -> BTreeMap<PathBuf, (u64, u32, u64, i64, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let it = std::fs::symlink_metadata(&path).expect("a file");
            let content = if it.is_file() {
                std::fs::read(&path).expect("content")
            } else {
                Vec::new()
            };
            if it.is_dir() {
                open.push(path.clone());
            }
            seen.insert(
                path,
                (it.ino(), it.mode(), it.size(), it.mtime_nsec(), content),
            );
        }
    }
    seen
}

pub(crate) fn home(crew: &Crew) -> PathBuf {
    crew.lock().parent().expect("a directory").to_owned()
}

#[test]
fn p12_a_try_in_vain_changes_nothing() {
    everywhere(|mut crew| {
        let (holder, waiter, other) = (crew.start(), crew.start(), crew.start());
        crew.take(holder, 1);
        let held = snapshot(&home(&crew));
        for _ in 0..3 {
            assert_eq!(crew.ask(other, "try 1"), "none");
            assert_eq!(crew.ask(holder, "try 2"), "none");
            assert_eq!(snapshot(&home(&crew)), held);
        }
        crew.queue(waiter, 1);
        let queued = snapshot(&home(&crew));
        for _ in 0..3 {
            assert_eq!(crew.ask(other, "try 1"), "none");
            assert_eq!(crew.ask(waiter, "try 2"), "none");
            assert_eq!(snapshot(&home(&crew)), queued);
        }
    });
}

#[test]
fn p12_a_try_against_a_foreign_holder_changes_nothing() {
    everywhere(|mut crew| {
        let file = std::fs::File::create(crew.lock()).expect("a lock file");
        flock(&file, FlockOperation::LockExclusive).expect("a lock as flock(1) takes it");
        let before = snapshot(&home(&crew));
        let other = crew.start();
        for _ in 0..3 {
            assert_eq!(crew.ask(other, "try 1"), "none");
            assert_eq!(snapshot(&home(&crew)), before, "not even a queue is made");
        }
    });
}

#[test]
fn p46_contenders_never_touch_the_lock_file() {
    everywhere(|mut crew| {
        std::fs::write(crew.lock(), "another program's content").expect("a lock file");
        let facts = |crew: &Crew| snapshot(&home(crew)).remove(crew.lock());
        let before = facts(&crew);
        let members: Vec<Who> = (0..4).map(|_| crew.start()).collect();
        crew.take(members[0], 1);
        crew.queue(members[1], 1);
        crew.queue(members[2], 1);
        assert_eq!(crew.ask(members[3], "try 1"), "none");
        crew.kill(members[2]);
        crew.release(members[0], 1);
        crew.serve(members[1], 1);
        assert_eq!(facts(&crew), before);
    });
}

#[test]
fn p04_waiters_from_before_a_replacement_converge_on_the_new_file() {
    for how in ["delete", "rename", "replace"] {
        everywhere(|mut crew| {
            crew.by_events_only();
            let (holder, newcomer) = (crew.start(), crew.start());
            let waiters = [crew.start(), crew.start(), crew.start()];
            crew.take(holder, 1);
            for who in waiters {
                crew.queue(who, 1);
                crew.stop(who);
            }
            change(crew.lock(), how);
            crew.command(holder, "release 1", "released 1 Lost");
            crew.no_holder();
            // The new lock file is free, but the queue is not empty.
            crew.queue(newcomer, 1);
            for who in waiters.into_iter().rev() {
                crew.resume(who);
            }
            for who in waiters.into_iter().chain([newcomer]) {
                assert!(!crew.expect_held(who, 1).crashed);
                crew.release(who, 1);
            }
            crew.expect_no_tickets();
        });
    }
}

#[test]
fn p05_waiters_learn_of_a_replacement_under_a_live_holder() {
    for how in ["delete", "rename", "replace"] {
        everywhere(|mut crew| {
            crew.set("CREW_POLL", "20");
            let (holder, waiters) = (crew.start(), [crew.start(), crew.start()]);
            crew.take(holder, 1);
            for who in waiters {
                crew.queue(who, 1);
            }
            change(crew.lock(), how);
            for who in waiters {
                let line = crew.line(who);
                assert!(line.starts_with("failed 1 Replaced"), "{how}: {line}");
            }
            crew.expect_no_tickets();
        });
    }
}

pub(crate) fn change(lock: &Path, how: &str) {
    let elsewhere = lock.with_extension("elsewhere");
    match how {
        "delete" => std::fs::remove_file(lock).expect("deleted"),
        "rename" => std::fs::rename(lock, elsewhere).expect("renamed"),
        _ => {
            std::fs::write(&elsewhere, "another").expect("another file");
            std::fs::rename(elsewhere, lock).expect("replaced");
        }
    }
}

#[test]
fn p05_a_replaced_lock_file_is_never_a_second_lock() {
    for how in ["delete", "rename", "replace"] {
        everywhere(|mut crew| {
            let (holder, other) = (crew.start(), crew.start());
            crew.take(holder, 1);
            change(crew.lock(), how);
            for command in ["try 1", "acquire 1"] {
                let answer = crew.answer(other, command, 1);
                assert!(
                    answer.starts_with("failed 1 Replaced"),
                    "{how}, {command}: {answer}"
                );
            }
            let answer = crew.ask(other, "remove");
            assert!(
                answer.starts_with("not-removed Replaced"),
                "{how}: {answer}"
            );
            crew.command(holder, "release 1", "released 1 Lost");
            crew.no_holder();
            crew.take_and_release(other);
        });
    }
}

#[test]
fn p05_a_deleted_queue_is_never_a_second_lock() {
    everywhere(|mut crew| {
        crew.set("CREW_POLL", "50");
        let (holder, waiter, other) = (crew.start(), crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(waiter, 1);
        std::fs::remove_dir_all(crew.queue_dir()).expect("deleted");
        assert_eq!(crew.ask(other, "try 1"), "none");
        crew.queue(other, 1);
        crew.release(holder, 1);
        let first = crew.next_held();
        crew.release(first.who, 1);
        let second = crew.next_held();
        assert_ne!(first.who, second.who);
        crew.release(second.who, 1);
        crew.expect_no_tickets();
    });
}

#[test]
fn p05_a_deleted_ticket_costs_the_place_and_nothing_else() {
    everywhere(|mut crew| {
        crew.set("CREW_POLL", "20");
        let holder = crew.start();
        crew.take(holder, 1);
        let waiters = [crew.start(), crew.start(), crew.start()];
        for who in waiters {
            crew.queue(who, 1);
        }
        let ticket = crew.tickets().remove(1);
        std::fs::remove_file(&ticket).expect("deleted");
        until("it has taken another", || crew.tickets().len() == 3);
        assert!(!ticket.exists(), "numbers never come back");
        crew.release(holder, 1);
        for who in [waiters[0], waiters[2], waiters[1]] {
            crew.serve(who, 1);
        }
        crew.expect_no_tickets();
    });
}

#[test]
fn p06_opening_and_closing_the_file_frees_nothing() {
    everywhere(|mut crew| {
        let (holder, waiter) = (crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(waiter, 1);
        for who in [holder, waiter, holder] {
            assert_eq!(crew.ask(who, "touch"), "touched");
            drop(std::fs::File::open(crew.lock()).expect("opened"));
            assert_eq!(crew.ask(waiter, "is-locked"), "yes");
        }
        crew.release(holder, 1);
        crew.expect_held(waiter, 1);
    });
}

#[test]
fn p07_spellings_and_symlinked_parents_are_one_lock() {
    everywhere(|mut crew| {
        let home = home(&crew);
        std::fs::create_dir(home.join("side")).expect("a directory");
        symlink(&home, home.join("link")).expect("a link to the directory");
        let spellings = [
            "./it.lock",
            "side/../it.lock",
            "link/it.lock",
            "link/./link//it.lock",
        ];
        let plain = crew.start();
        crew.take(plain, 1);
        let mut others = Vec::new();
        for spelling in spellings {
            let path = home.join(spelling);
            let who = crew.start_with(&[("TAKER_LOCK", path.to_str().expect("a path"))]);
            crew.queue(who, 1);
            others.push(who);
        }
        crew.release(plain, 1);
        for who in others {
            crew.serve(who, 1);
        }
    });
}

#[test]
fn p07_different_paths_never_contend() {
    everywhere(|mut crew| {
        let one = crew.start();
        crew.take(one, 1);
        let path = home(&crew).join("other.lock");
        let two = crew.start_with(&[("TAKER_LOCK", path.to_str().expect("a path"))]);
        let answer = crew.answer(two, "acquire 1", 1);
        assert!(answer.starts_with("held"), "{answer}");
    });
}

#[test]
fn p07_names_of_any_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let home = crate::crew::scratch();
    let name = std::ffi::OsStr::from_bytes(b" \xff\n-*'\"%");
    let lock = stanchion::FifoLock::open(home.path().join(name)).expect("a lock");
    let guard = lock.try_acquire().expect("no error").expect("free");
    let other = home.path().join(".").join(name);
    let other = stanchion::FifoLock::open(other).expect("a lock");
    assert!(other.try_acquire().expect("no error").is_none());
    drop(guard);
    assert_eq!(
        lock.remove().expect("no error"),
        stanchion::Removal::Removed
    );
    assert_eq!(
        std::fs::read_dir(home.path()).expect("a directory").count(),
        0
    );
}

#[test]
fn p10_every_process_sees_the_holder_and_the_number_of_waiters() {
    everywhere(|mut crew| {
        let (holder, waiter, witness) = (crew.start(), crew.start(), crew.start());
        let look = |crew: &mut Crew| -> (usize, u32) {
            let line = crew.ask(witness, "status");
            let words: Vec<&str> = line.split(' ').collect();
            let number = |index: usize| words[index].parse::<u32>().expect("a number");
            (number(4) as usize, number(5))
        };
        assert_eq!(look(&mut crew), (0, 0));
        crew.take(holder, 1);
        assert_eq!(look(&mut crew), (0, crew.pid(holder)));
        crew.queue(waiter, 1);
        assert_eq!(look(&mut crew), (1, crew.pid(holder)));
        crew.kill(holder);
        crew.expect_held(waiter, 1);
        until("its ticket is gone", || crew.tickets().is_empty());
        assert_eq!(look(&mut crew), (0, crew.pid(waiter)));
        crew.kill(waiter);
        assert_eq!(
            look(&mut crew),
            (0, 0),
            "a holder that died is not reported"
        );
    });
}

#[test]
fn p14_foreign_files_in_the_queue_are_ignored_and_kept() {
    everywhere(|mut crew| {
        let user = crew.start();
        crew.take_and_release(user);
        let queue = crew.queue_dir();
        let foreign = rubbish(&queue);
        let (holder, waiters) = (crew.start(), [crew.start(), crew.start()]);
        crew.take(holder, 1);
        for who in waiters {
            crew.queue(who, 1);
        }
        crew.kill(waiters[0]);
        crew.release(holder, 1);
        crew.serve(waiters[1], 1);
        assert_eq!(
            crew.ask(holder, "remove"),
            "in-use",
            "the files of others are in it"
        );
        for path in foreign {
            assert!(path.symlink_metadata().is_ok(), "{path:?} is gone");
        }
        crew.take_and_release(user);
    });
}

/// Files that are no tickets, some of them almost.
fn rubbish(queue: &Path) -> Vec<PathBuf> {
    let at = |name: &str| queue.join(name);
    let plain = [
        ".hidden",
        "README",
        "1.x",
        "99999999999999999999.x",
        "00000000000000000001.X",
        "00000000000000000001.x.swp",
        "00000000000000000001",
        "-0000000000000000001.x",
    ];
    let mut all: Vec<_> = plain.map(at).into();
    for path in &all {
        std::fs::write(path, "rubbish").expect("a file");
    }
    std::fs::create_dir(at("00000000000000000002.x")).expect("a directory");
    symlink("/nowhere", at("00000000000000000003.x")).expect("a dangling link");
    symlink("README", at("00000000000000000004.x")).expect("a link");
    let pipe = at("00000000000000000005.x");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    all.extend((2..=5).map(|number| at(&format!("{number:020}.x"))));
    all
}

#[test]
fn p14_tickets_of_the_dead_are_deleted_with_any_number() {
    for name in [
        "00000000000000000000.x",
        "00000000000000000007.s",
        "09223372036854775808.x",
        "09223372036854775807.p3",
    ] {
        everywhere(|mut crew| {
            let (user, other) = (crew.start(), crew.start());
            crew.take_and_release(user);
            std::fs::write(crew.queue_dir().join(name), "").expect("a ticket without an owner");
            crew.take(user, 1);
            crew.queue(other, 1);
            crew.release(user, 1);
            crew.serve(other, 1);
            assert_eq!(
                crew.ask(user, "remove"),
                "removed",
                "nothing is left of {name}"
            );
        });
    }
}

/// Kept for the next ticket, and closed if none comes. The same if the process has waited or held
/// for longer than that.
#[cfg(stanchion_test)]
#[test]
fn p59_what_is_kept_for_the_next_ticket_goes_without_a_next_ticket() {
    everywhere(|mut crew| {
        let (holder, waiter) = (crew.start(), crew.start());
        let spares = |crew: &Crew| {
            let entries = std::fs::read_dir(crew.queue_dir()).expect("the queue");
            let name = |it: std::io::Result<std::fs::DirEntry>| it.expect("an entry").file_name();
            let spare = |it: &std::ffi::OsString| it.to_string_lossy().starts_with("spare.");
            entries.map(name).filter(spare).count()
        };
        crew.by_events_only().without_ladder();
        crew.take(holder, 1);
        crew.queue(waiter, 1);
        crew.release(holder, 1);
        crew.expect_held(waiter, 1);
        // Its timer has fired while it held, and does not wake the thread again.
        crew.until_only_events_wake();
        assert_eq!(spares(&crew), 1);
        crew.release(waiter, 1);
        until("the spare file is gone", || spares(&crew) == 0);
    });
}
