//! Deaths: of holders, of heirs, between any two steps.

use std::time::{Duration, Instant};

use crate::family::{Member, left, place, until};

#[test]
fn p28_the_death_of_a_holder_lets_the_next_one_in() {
    let rounds = std::env::var("STANCHION_KILLS").map_or(20, |it| it.parse().expect("a number"));
    let (_directory, path) = place();
    let mut took = Vec::new();
    let mut holder = Member::start(&path);
    holder.acquire();
    for _ in 0..rounds {
        let mut next = Member::start(&path);
        next.tell("acquire");
        until("it waits", || has_watch(next.pid()));
        let begun = Instant::now();
        holder.kill();
        let line = next.next().expect("it lives");
        took.push(begun.elapsed());
        assert_eq!(
            crate::family::held(&line).1,
            true,
            "the last one died inside"
        );
        // It is asked for only now: a process that has ended frees the lock, not its parent.
        holder.bury();
        holder = next;
    }
    took.sort();
    println!(
        "median {:?}, longest {:?}",
        took[rounds / 2],
        took[rounds - 1]
    );
    assert!(took[rounds / 2] < Duration::from_secs(1), "{took:?}");
}

/// Whether a process watches a file by inotify.
fn has_watch(pid: u32) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo"));
    entries.into_iter().flatten().flatten().any(|it| {
        let info = std::fs::read_to_string(it.path()).unwrap_or_default();
        info.contains("inotify wd:")
    })
}

/// Every step of taking, taking over and giving back.
const STEPS: [(&str, &str); 5] = [
    ("WritePid", "acquire"),
    ("LinkPid", "acquire"),
    ("UnlinkPid", "release"),
    ("SucceedPid", "succeed"),
    ("LinkPid", "succeed"),
];

#[test]
#[cfg(feature = "test-hooks")]
fn p30_a_death_before_any_step_is_healed() {
    for (step, what) in STEPS {
        for passage in 1..=2 {
            let (directory, path) = place();
            if what == "succeed" {
                let mut first = Member::start(&path);
                first.acquire();
                first.kill();
                first.bury();
            }
            let at = format!("kill:{step}:{passage}");
            let mut victim = Member::start_with(&path, &[("STANCHION_AT", &at)]);
            let mut heard = victim.ask("acquire");
            if heard.is_some() {
                heard = victim.ask("release");
            }
            // A step that is passed only once kills nobody at its second passage.
            if heard.is_none() {
                victim.bury();
            }
            let mut next = Member::start(&path);
            next.acquire();
            assert_eq!(next.ask("is-held").as_deref(), Some("yes"), "{at} {what}");
            let mut other = Member::start(&path);
            assert_eq!(other.ask("try").as_deref(), Some("none"), "{at} {what}");
            next.release();
            other.acquire();
            other.release();
            let left = left(directory.path());
            assert!(
                left.iter().all(|it| it.contains(".new.")),
                "{at} {what}: {left:?}"
            );
        }
    }
}

#[test]
#[cfg(feature = "test-hooks")]
fn p32_an_heir_that_is_stopped_is_waited_for_and_then_right() {
    let (_directory, path) = place();
    let mut first = Member::start(&path);
    first.acquire();
    first.kill();
    first.bury();
    let mut heir = Member::start_with(&path, &[("STANCHION_AT", "stop:SucceedPid:1")]);
    heir.tell("acquire");
    until("it is stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", heir.pid()));
        stat.is_ok_and(|it| {
            it.rsplit(')')
                .next()
                .is_some_and(|it| it.trim().starts_with('T'))
        })
    });
    let mut other = Member::start(&path);
    assert_eq!(other.ask("try").as_deref(), Some("none"));
    other.tell("acquire");
    heir.signal(rustix::process::Signal::CONT);
    assert!(crate::family::held(&heir.next().expect("it lives")).1);
    assert!(other.says_nothing());
    assert_eq!(heir.ask("is-held").as_deref(), Some("yes"));
    heir.release();
    assert!(!crate::family::held(&other.next().expect("it lives")).1);
}

#[test]
fn p38_a_release_deletes_nothing_of_others() {
    let (_directory, path) = place();
    let mut holder = Member::start(&path);
    holder.acquire();
    assert_eq!(holder.ask("watch").as_deref(), Some("watching"));
    std::fs::remove_file(&path).expect("a stranger deletes it");
    assert_eq!(holder.next().as_deref(), Some("lost Deleted"));
    let mut next = Member::start(&path);
    next.acquire();
    let told = holder.ask("release").expect("it lives");
    assert!(told.starts_with("failed Lost"), "{told}");
    assert_eq!(next.ask("is-held").as_deref(), Some("yes"));
}

#[test]
fn p34_a_stopped_holder_is_never_passed() {
    let (_directory, path) = place();
    let mut holder = Member::start(&path);
    holder.acquire();
    holder.stop();
    let mut other = Member::start(&path);
    assert_eq!(other.ask("try").as_deref(), Some("none"));
    holder.signal(rustix::process::Signal::CONT);
    holder.release();
    other.acquire();
}
