//! Many tasks of one process wait: they share what they watch.

use std::fs::read_dir;

use crate::crew::{Member, until};
use crate::family::{Kind, place};

/// How many descriptors a process has open.
fn descriptors(pid: u32) -> usize {
    let open = read_dir(format!("/proc/{pid}/fd"));
    open.expect("a process that runs").count()
}

/// How many inodes and processes a process watches.
fn watched(pid: u32) -> usize {
    let entries = read_dir(format!("/proc/{pid}/fdinfo")).expect("a process that runs");
    let texts = entries.flatten().map(|it| {
        let text = std::fs::read_to_string(it.path());
        text.unwrap_or_default()
    });
    // The second word is of a pidfd, and of no other descriptor.
    let is_watch = |line: &&str| line.starts_with("inotify wd:") || line.starts_with("Pid:");
    texts
        .map(|text| text.lines().filter(is_watch).count())
        .sum()
}

fn a_crowd_shares_its_watches(kind: Kind) {
    let (_directory, path) = place();
    let mut holder = Member::of(kind, &path);
    // A waiter that gets no event never acquires.
    let mut crowd = Member::with(kind, &path, &[("STANCHION_LADDER", "off")]);
    holder.acquire();
    let before = descriptors(crowd.pid());
    assert_eq!(crowd.ask("crowd 500"), "waiting");
    let more = descriptors(crowd.pid()) - before;
    assert!(more <= 16, "{kind:?}: {more} descriptors");
    assert!((1..=4).contains(&watched(crowd.pid())), "{kind:?}");
    assert_eq!(crowd.ask("drop 440"), "dropped");
    holder.kill_now();
    assert_eq!(crowd.ask("serve"), "served 60");
    until("it watches nothing", || watched(crowd.pid()) == 0);
    holder.end();
}

#[test]
fn p28_p62_a_crowd_at_a_pid_file_shares_its_watches() {
    a_crowd_shares_its_watches(Kind::Pid);
}

#[test]
fn p28_p62_a_crowd_at_a_directory_shares_its_watches() {
    a_crowd_shares_its_watches(Kind::Mkdir);
}

#[test]
fn p28_p62_a_crowd_at_a_file_shares_its_watches() {
    a_crowd_shares_its_watches(Kind::CreateNew);
}

/// The last one that leaves gives the watches back.
#[test]
fn p05_p62_a_crowd_that_is_dropped_watches_nothing() {
    for kind in [Kind::Pid, Kind::Mkdir, Kind::CreateNew] {
        let (_directory, path) = place();
        let mut holder = Member::of(kind, &path);
        let mut crowd = Member::of(kind, &path);
        holder.acquire();
        assert_eq!(crowd.ask("crowd 500"), "waiting");
        assert_eq!(crowd.ask("drop 499"), "dropped");
        assert!(watched(crowd.pid()) > 0, "{kind:?}: one waits");
        assert_eq!(crowd.ask("drop 1"), "dropped");
        assert_eq!(watched(crowd.pid()), 0, "{kind:?}");
        holder.release();
        assert!(!crowd.acquire().1, "{kind:?}");
        crowd.release();
    }
}
