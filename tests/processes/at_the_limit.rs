//! When a resource is missing: space, the right to write, descriptors, watches.

use std::path::{Path, PathBuf};
use std::process::Command;

use stanchion::{ErrorKind, FifoLock};

use crate::crew::scratch;
use crate::queue::Crew;
use crate::skip::success;

/// A small file system. `None` if mounting is not allowed.
struct Mount(PathBuf, #[allow(dead_code)] tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let home = scratch();
        let point = home.path().join("mount");
        std::fs::create_dir(&point).expect("a directory");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&point);
        success(&mut mount, "no right to mount")?;
        Some(Self(point, home))
    }

    fn again(&self, options: &str) {
        let mut mount = Command::new("mount");
        let done = mount
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .status();
        assert!(done.expect("mount").success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn number(error: &stanchion::Error) -> Option<i32> {
    error.io_error().and_then(std::io::Error::raw_os_error)
}

#[test]
fn p60_a_read_only_file_system_is_a_clear_error() {
    let mount = need!(Mount::new("size=1m"));
    let path = mount.0.join("it.lock");
    let used = mount.0.join("used.lock");
    drop(
        FifoLock::open(&used)
            .expect("a lock")
            .try_acquire()
            .expect("no error")
            .expect("free"),
    );
    mount.again("ro");
    for path in [path, used] {
        let lock = FifoLock::open(&path).expect("opening changes nothing");
        let error = lock.acquire().block().map(|_| ()).expect_err("read-only");
        assert_eq!(
            (error.kind(), number(&error)),
            (ErrorKind::Io, Some(libc::EROFS)),
            "{error}"
        );
        assert!(error.to_string().contains("open the lock file"), "{error}");
    }
    mount.again("rw");
    let names: Vec<_> = std::fs::read_dir(&mount.0).expect("a directory").collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

/// How many more files fit on the mounted file system.
fn fill(directory: &Path) -> Vec<PathBuf> {
    let paths = (0..).map(|index| directory.join(format!("filler{index}")));
    paths
        .take_while(|path| std::fs::write(path, "").is_ok())
        .collect()
}

#[test]
fn p60_p43_a_full_disk_is_an_error_at_every_file_and_heals() {
    let mount = need!(Mount::new("size=1m,nr_inodes=40"));
    let path = mount.0.join("it.lock");
    // One file after the other becomes possible: lock file, queue, record.
    for spare in 0..6 {
        let mut fillers = fill(&mount.0);
        for filler in fillers.drain(..spare) {
            std::fs::remove_file(filler).expect("removed");
        }
        let lock = FifoLock::open(&path).expect("a lock");
        match lock.acquire().block() {
            Ok(guard) => assert!(spare >= 3, "with {spare} files: {guard:?}"),
            Err(error) => {
                assert!(spare < 4, "{spare} files are enough: {error}");
                assert_eq!(
                    (error.kind(), number(&error)),
                    (ErrorKind::Io, Some(libc::ENOSPC))
                );
                assert!(error.to_string().contains("it.lock"), "{error}");
                assert!(
                    !lock.is_locked().expect("an answer"),
                    "what was taken is released"
                );
            }
        }
        for filler in fillers {
            std::fs::remove_file(filler).expect("removed");
        }
        drop(lock.acquire().block().expect("healed"));
        assert_eq!(
            lock.remove().expect("no error"),
            stanchion::Removal::Removed
        );
        assert_eq!(std::fs::read_dir(&mount.0).expect("a directory").count(), 0);
    }
}

#[test]
fn p60_p43_no_room_for_a_ticket_fails_the_newcomer_alone() {
    let mount = need!(Mount::new("size=1m,nr_inodes=40"));
    let mut crew = Crew::at(&mount.0.join("it.lock"));
    let (holder, waiter, newcomer) = (crew.start(), crew.start(), crew.start());
    crew.take(holder, 1);
    crew.queue(waiter, 1);
    let fillers = fill(&mount.0);
    for _ in 0..3 {
        let answer = crew.answer(newcomer, "acquire 1", 1);
        assert!(
            answer.starts_with("failed 1 Io cannot take a ticket"),
            "{answer}"
        );
        assert!(answer.contains("No space left"), "{answer}");
        assert_eq!(crew.tickets().len(), 1);
    }
    for filler in fillers {
        std::fs::remove_file(filler).expect("removed");
    }
    crew.queue(newcomer, 2);
    crew.release(holder, 1);
    crew.serve(waiter, 1);
    crew.expect_held(newcomer, 2);
}

#[test]
fn p60_p43_no_room_for_the_record_gives_the_lock_back() {
    let mount = need!(Mount::new("size=64k"));
    let lock = FifoLock::open(mount.0.join("it.lock")).expect("a lock");
    let filler = mount.0.join("filler");
    let _ = std::fs::write(&filler, vec![0; 1 << 20]);
    let error = lock.acquire().block().map(|_| ()).expect_err("no room");
    assert_eq!(number(&error), Some(libc::ENOSPC), "{error}");
    assert!(error.to_string().contains("state"), "{error}");
    assert!(!lock.is_locked().expect("an answer"));
    std::fs::remove_file(filler).expect("removed");
    drop(lock.acquire().block().expect("healed"));
}

#[test]
fn p62_p43_without_descriptors_errors_are_typed_and_nothing_leaks() {
    let mut crew = Crew::new();
    let (holder, waiter) = (crew.start(), crew.start());
    crew.contend(holder);
    crew.take(holder, 1);
    // From no descriptor at all to enough: each limit makes another step fail.
    for most in 5..24 {
        let poor = crew.start_unready(&[("CREW_FILES", &most.to_string())]);
        let line = crew.line(poor);
        if line == "gone" || line.starts_with("unopened Io") {
            continue;
        }
        assert_eq!(line, "ready");
        let answer = crew.ask(poor, "acquire 1");
        let typed = answer == "queued 1" || answer.starts_with("failed 1 Io");
        assert!(typed, "with {most} descriptors: {answer}");
        if answer == "queued 1" {
            crew.release(holder, 1);
            let line = crew.line(poor);
            if line.starts_with("held 1") {
                crew.command(poor, "release 1", "released 1");
            } else {
                assert!(
                    line.starts_with("failed 1 Io"),
                    "with {most} descriptors: {line}"
                );
            }
            crew.take(holder, 1);
        } else {
            assert!(answer.contains("Too many open files"), "{answer}");
        }
        crew.end(poor);
        assert!(
            crew.tickets().is_empty(),
            "with {most} descriptors a ticket is left"
        );
    }
    crew.queue(waiter, 1);
    crew.release(holder, 1);
    crew.expect_held(waiter, 1);
}

#[test]
fn p43_a_wait_that_fails_at_the_door_returns_the_error_and_the_next_one_acquires() {
    let mut crew = Crew::new();
    let (holder, next) = (crew.start(), crew.start());
    for _ in 0..20 {
        let poor = crew.start();
        crew.take(holder, 1);
        crew.queue(poor, 1);
        crew.queue(next, 1);
        // The record cannot be opened any more.
        assert_eq!(crew.ask(poor, "limit 3"), "limited");
        crew.release(holder, 1);
        let line = crew.line(poor);
        assert!(line.starts_with("failed 1 Io"), "{line}");
        assert!(line.contains("Too many open files"), "{line}");
        crew.serve(next, 1);
        crew.end(poor);
        crew.expect_no_tickets();
    }
}

#[test]
fn p62_a_process_recovers_from_having_no_descriptors() {
    let mut crew = Crew::new();
    let (other, poor) = (crew.start(), crew.start());
    crew.contend(poor);
    let open = crew.count(poor, "fd");
    crew.take(other, 1);
    for most in std::iter::once(3).chain(open - 2..open + 8) {
        assert_eq!(crew.ask(poor, &format!("limit {most}")), "limited");
        let answer = crew.ask(poor, "acquire 1");
        if answer == "queued 1" {
            assert!(most > 3, "there is no descriptor for a ticket");
            assert_eq!(crew.ask(poor, "cancel 1"), "cancelled 1");
        } else {
            let typed = answer.starts_with("failed 1 Io");
            assert!(typed && answer.contains("Too many open files"), "{answer}");
        }
        assert!(crew.tickets().is_empty());
    }
    assert_eq!(crew.ask(poor, "limit 200"), "limited");
    crew.queue(poor, 3);
    crew.release(other, 1);
    crew.serve(poor, 3);
    crew.contend(poor);
    let after = crew.count(poor, "fd");
    assert!(
        after <= open + 2,
        "it may keep two files for its next tickets: {open}, {after}"
    );
}

#[cfg(stanchion_test)]
mod without_inotify {
    use crate::crew::Who;
    use crate::queue::{Crew, everywhere};

    fn status(crew: &mut Crew, who: Who) -> (bool, u64) {
        let line = crew.ask(who, "status");
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "status", "{line}");
        (words[1] == "true", words[2].parse().expect("a number"))
    }

    #[test]
    fn p63_without_file_events_threads_wait_and_the_failures_are_counted() {
        for errno in ["24", "28"] {
            everywhere(|mut crew| {
                let holder = crew.start();
                crew.by_events_only().set("STANCHION_NO_INOTIFY", errno);
                let waiters: Vec<Who> = (0..4).map(|_| crew.start()).collect();
                assert_eq!(status(&mut crew, waiters[0]), (false, 0));
                crew.take(holder, 1);
                for &who in &waiters {
                    crew.queue(who, 1);
                    let (polling, failures) = status(&mut crew, who);
                    assert!(!polling && failures > 0, "{polling} {failures}");
                }
                assert_eq!(status(&mut crew, holder), (false, 0));
                crew.kill(waiters[1]);
                crew.release(holder, 1);
                for index in [0, 2, 3] {
                    crew.serve(waiters[index], 1);
                }
                crew.expect_no_tickets();
            });
        }
    }

    #[test]
    fn p28_a_waiter_without_events_takes_over_from_a_killed_holder() {
        everywhere(|mut crew| {
            crew.by_events_only().set("STANCHION_NO_INOTIFY", "24");
            let (holder, next) = (crew.start(), crew.start());
            crew.take(holder, 1);
            crew.queue(next, 1);
            crew.kill_now(holder);
            let held = crew.expect_held(next, 1);
            assert!(held.crashed);
        });
    }
}
