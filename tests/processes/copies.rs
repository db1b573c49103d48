//! A directory with a lock in it is copied: as a container layer or a backup is (`cp -a`), and with
//! hard links (`cp -al`). The lock works on, and the copy is an independent lock as far as the
//! files allow.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::crew::Who;
#[cfg(stanchion_test)]
use crate::crew::until;
use crate::queue::{Crew, everywhere};

/// Copies lock file and queue to another directory, and returns a crew around the copy.
fn copy(crew: &Crew, how: &str) -> Crew {
    let to = crew.lock().with_file_name("copy");
    std::fs::create_dir(&to).expect("a directory");
    copy_to(crew, how, &to);
    let mut copied = Crew::at(&to.join("it.lock"));
    copied.set("CREW_POLL", "20");
    copied
}

fn copy_to(crew: &Crew, how: &str, to: &Path) {
    let mut cp = Command::new("cp");
    let cp = cp.arg(how).arg(crew.lock()).arg(crew.queue_dir()).arg(to);
    assert!(cp.status().expect("cp runs").success());
}

/// What `status` shows: the number of waiters, and the pid of the holder.
fn status(crew: &mut Crew, who: Who) -> (u32, u32) {
    let line = crew.ask(who, "status");
    let words: Vec<&str> = line.split(' ').collect();
    let number = |index: usize| words[index].parse().expect("a number");
    (number(4), number(5))
}

fn names_of(path: &Path) -> u64 {
    std::fs::metadata(path).expect("a file").nlink()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("content")
}

/// Asserts that no file of the lock is left.
fn assert_removed(crew: &mut Crew, who: Who) {
    assert_eq!(crew.ask(who, "remove"), "removed");
    let home = crew.lock().parent().expect("a directory");
    let left: Vec<_> = std::fs::read_dir(home).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The holder, then these, in this order. No crash is reported.
fn serves(crew: &mut Crew, holder: Who, waiters: &[Who]) {
    crew.release(holder, 1);
    for who in waiters {
        assert!(!crew.expect_held(*who, 1).crashed);
        crew.release(*who, 1);
    }
    crew.expect_no_tickets();
}

#[test]
fn p65_a_copy_of_a_held_lock_is_free_and_reports_no_crash() {
    everywhere(|mut crew| {
        let holder = crew.start();
        let waiters = [crew.start(), crew.start()];
        crew.take(holder, 1);
        for who in waiters {
            crew.queue(who, 1);
        }
        let mut copied = copy(&crew, "-a");
        let newcomer = copied.start();
        assert_eq!(status(&mut copied, newcomer), (0, 0));
        assert!(!copied.acquire(newcomer, 1).crashed);
        assert_eq!(status(&mut copied, newcomer).1, copied.pid(newcomer));
        copied.release(newcomer, 1);
        assert_removed(&mut copied, newcomer);
        serves(&mut crew, holder, &waiters);
    });
}

#[test]
fn p65_a_copy_of_a_crashed_lock_reports_no_crash_and_the_lock_does() {
    everywhere(|mut crew| {
        let (holder, next) = (crew.start(), crew.start());
        crew.take(holder, 1);
        crew.kill(holder);
        let mut copied = copy(&crew, "-a");
        let newcomer = copied.start();
        assert!(!copied.take(newcomer, 1).crashed);
        copied.kill(newcomer);
        let another = copied.start();
        assert!(copied.take(another, 1).crashed, "this one died here");
        copied.release(another, 1);
        assert!(crew.take(next, 1).crashed);
    });
}

#[test]
fn p65_a_copy_of_a_crashed_lock_reports_no_crash_to_readers() {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        let (holder, reader) = (crew.start(), crew.start());
        crew.take(holder, 1);
        crew.kill(holder);
        let mut copied = copy(&crew, "-a").with_readers();
        let newcomer = copied.start();
        assert!(!copied.reads(newcomer, 1).crashed);
        assert!(crew.reads(reader, 1).crashed);
    });
}

#[test]
fn p65_a_death_under_a_lock_file_that_was_replaced_is_reported() {
    everywhere(|mut crew| {
        let (holder, next) = (crew.start(), crew.start());
        crew.take(holder, 1);
        std::fs::remove_file(crew.lock()).expect("deleted");
        crew.kill(holder);
        assert!(crew.take(next, 1).crashed, "the record is no copy");
    });
}

#[test]
fn a_copy_is_removed_with_all_that_came_with_it() {
    everywhere(|mut crew| {
        let (holder, waiter) = (crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(waiter, 1);
        let spare = crew.queue_dir().join("spare.7");
        std::fs::write(&spare, "").expect("a spare file of another directory");
        let mut copied = copy(&crew, "-a");
        let newcomer = copied.start();
        assert_removed(&mut copied, newcomer);
        serves(&mut crew, holder, &[waiter]);
        let newcomer = crew.start();
        crew.contend(newcomer);
        assert!(
            !spare.exists(),
            "it has no owner, and is deleted with the first ticket of a process"
        );
    });
}

#[test]
fn p14_files_that_are_called_a_little_like_spare_files_are_foreign() {
    everywhere(|mut crew| {
        let (holder, waiter) = (crew.start(), crew.start());
        let foreign =
            ["spare.", "spare.7x", "spare", "xspare.7"].map(|it| crew.queue_dir().join(it));
        crew.take_and_release(holder);
        for path in &foreign {
            std::fs::write(path, "mine").expect("a foreign file");
        }
        crew.contend(waiter);
        assert_eq!(crew.ask(holder, "remove"), "in-use");
        assert!(foreign.iter().all(|it| read(it) == b"mine"));
    });
}

#[test]
fn p38_removal_of_a_linked_copy_leaves_the_record_of_the_lock() {
    everywhere(|mut crew| {
        let (holder, waiter) = (crew.start(), crew.start());
        crew.take(holder, 1);
        let mut copied = copy(&crew, "-al");
        let other = copied.start();
        assert_eq!(
            copied.ask(other, "remove"),
            "in-use",
            "the lock file is the same"
        );
        crew.release(holder, 1);
        let before = read(&crew.state());
        assert_removed(&mut copied, other);
        assert_eq!(read(&crew.state()), before, "no tombstone");
        crew.take(holder, 1);
        crew.queue(waiter, 1);
        serves(&mut crew, holder, &[waiter]);
    });
}

#[test]
fn p38_a_holder_in_a_linked_copy_writes_into_its_own_record() {
    for kind in ["lock", "rwlock"] {
        everywhere(|mut crew| {
            if kind == "rwlock" {
                crew = crew.with_readers();
            }
            let holder = crew.start();
            crew.take_and_release(holder);
            let mut copied = copy(&crew, "-al");
            copied.set("TAKER_KIND", kind);
            let other = copied.start();
            let before = read(&crew.state());
            copied.take(other, 1);
            assert_eq!(
                crew.ask(holder, "try 1"),
                "none",
                "the lock file is the same"
            );
            copied.release(other, 1);
            assert_eq!(read(&crew.state()), before);
            assert_eq!((names_of(&crew.state()), names_of(&copied.state())), (1, 1));
            crew.take_and_release(holder);
            assert_ne!(read(&crew.state()), read(&copied.state()));
        });
    }
}

#[test]
fn p38_the_lock_itself_leaves_its_linked_copy_alone() {
    everywhere(|mut crew| {
        let holder = crew.start();
        crew.take_and_release(holder);
        let copied = copy(&crew, "-al");
        let before = read(&copied.state());
        for _ in 0..3 {
            assert!(!crew.take_and_release(holder).crashed);
        }
        assert_eq!(read(&copied.state()), before);
        assert_eq!(names_of(&crew.state()), 1);
    });
}

#[test]
fn p65_a_crash_is_reported_through_a_record_that_was_linked_meanwhile() {
    everywhere(|mut crew| {
        let (holder, next) = (crew.start(), crew.start());
        crew.take(holder, 1);
        let copied = copy(&crew, "-al");
        crew.kill(holder);
        let before = read(&copied.state());
        assert!(crew.take(next, 1).crashed);
        crew.release(next, 1);
        assert!(!crew.take_and_release(next).crashed);
        assert_eq!(read(&copied.state()), before);
    });
}

#[test]
fn p09_a_lock_with_a_linked_copy_keeps_its_order() {
    everywhere(|mut crew| {
        let holder = crew.start();
        let waiters = [crew.start(), crew.start(), crew.start()];
        crew.take(holder, 1);
        for who in waiters {
            crew.queue(who, 1);
        }
        let mut copied = copy(&crew, "-al");
        let other = copied.start();
        assert_eq!(copied.ask(other, "remove"), "in-use");
        assert_eq!(copied.ask(other, "try 1"), "none");
        serves(&mut crew, holder, &waiters);
        for who in waiters {
            crew.end(who);
        }
        // Their tickets are still in the copy, without a lock.
        assert!(!copied.acquire(other, 1).crashed);
        copied.release(other, 1);
        assert_removed(&mut copied, other);
        crew.take_and_release(holder);
    });
}

#[test]
fn p38_a_ticket_with_a_name_elsewhere_is_not_used_again() {
    everywhere(|mut crew| {
        let (holder, waiter) = (crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(waiter, 1);
        let copied = copy(&crew, "-al");
        let inode = |crew: &Crew| {
            let ticket = crew.tickets().remove(0);
            std::fs::metadata(ticket).expect("a ticket").ino()
        };
        crew.release(holder, 1);
        crew.expect_held(waiter, 1);
        crew.queue(holder, 1);
        crew.release(waiter, 1);
        crew.expect_held(holder, 1);
        crew.expect_no_tickets();
        crew.queue(waiter, 1);
        assert_ne!(
            inode(&crew),
            inode(&copied),
            "otherwise it would be there forever"
        );
        crew.release(holder, 1);
        crew.expect_held(waiter, 1);
    });
}

#[test]
fn p64_a_ticket_with_a_name_elsewhere_is_bypassed_and_not_marked() {
    everywhere(|mut crew| {
        crew.set("CREW_POLL", "never").set("CREW_WINDOW", "100");
        let (holder, frozen) = (crew.start(), crew.start());
        let others = [crew.start(), crew.start()];
        crew.take(holder, 1);
        crew.queue(frozen, 1);
        let ticket = crew.tickets().remove(0);
        let copied = copy(&crew, "-al");
        crew.stop(frozen);
        for who in others {
            crew.queue(who, 1);
        }
        crew.release(holder, 1);
        for who in others {
            crew.expect_held(who, 1);
            assert_eq!(read(&ticket), b"", "others would see the mark as well");
            crew.release(who, 1);
        }
        crew.resume(frozen);
        crew.serve(frozen, 1);
        assert!(copied.tickets().iter().all(|it| read(it).is_empty()));
    });
}

#[test]
fn p38_files_of_others_with_names_in_the_queue_are_not_written_into() {
    everywhere(|mut crew| {
        let (one, other) = (crew.start(), crew.start());
        crew.take_and_release(one);
        let names = ["state", "spare", "00000000000000000007.x"];
        let data: Vec<PathBuf> = names.map(|it| crew.lock().with_extension(it)).into();
        for path in &data {
            std::fs::write(path, "my data").expect("a file");
        }
        std::fs::remove_file(crew.state()).expect("deleted");
        let inode = std::fs::metadata(&data[1]).expect("a file").ino();
        let spare = format!("spare.{inode}");
        for (path, name) in data.iter().zip(["state", &spare, "00000000000000000007.x"]) {
            std::fs::hard_link(path, crew.queue_dir().join(name)).expect("linked");
        }
        crew.contend(other);
        crew.contend(one);
        crew.take_and_release(one);
        assert_eq!(crew.ask(one, "remove"), "removed");
        for path in &data {
            assert_eq!(read(path), b"my data", "{}", path.display());
        }
    });
}

/// The steps of a process that replaces a record with a private copy, and those around it.
#[cfg(stanchion_test)]
const STEPS: [&str; 5] = [
    "LockState",
    "CopyState",
    "ReplaceState",
    "UnlockState",
    "WriteHeld",
];

#[cfg(stanchion_test)]
#[test]
fn p30_p65_death_between_the_steps_of_a_private_copy_loses_nothing() {
    for step in STEPS {
        everywhere(|mut crew| {
            let (dead, next) = (crew.start(), crew.start());
            let token = crew.take(dead, 1).token;
            crew.kill(dead);
            let copied = copy(&crew, "-al");
            let before = read(&copied.state());
            let order = format!("kill:{step}:1");
            let victim = crew.start_with(&[("STANCHION_AT", &order)]);
            assert_eq!(crew.ask(victim, "acquire 1"), "gone", "{step}");
            let held = crew.take(next, 1);
            assert!(held.crashed && held.token > token, "{step}");
            crew.release(next, 1);
            assert_eq!(read(&copied.state()), before, "{step}");
            assert_eq!(names_of(&crew.state()), 1, "{step}");
            crew.contend(next);
            until("no draft is left", || spares(&crew) <= 2);
            assert_eq!(crew.ask(next, "remove"), "removed");
            assert!(!crew.queue_dir().exists());
        });
    }
}

#[cfg(stanchion_test)]
fn spares(crew: &Crew) -> usize {
    let entries = std::fs::read_dir(crew.queue_dir()).expect("a directory");
    let names = entries.map(|it| it.expect("an entry").file_name());
    names
        .filter(|it| it.as_encoded_bytes().starts_with(b"spare."))
        .count()
}
