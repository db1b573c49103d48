//! The lock lives as long as the command, and no longer.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::crew::until;
use crate::program::{End, Program, Site};
use crate::queue::Crew;

const LOGS: &str = "echo a-in >>$LOG; echo in; read x; echo a-out >>$LOG";

fn kill_the_program(site: &Site, options: &[&str]) -> (Program, Program) {
    let head = [&["run"], options].concat();
    let mut first = site.start(&[&head[..], &["LOCK", "--", "sh", "-c", LOGS]].concat());
    first.expect("in");
    first.kill();
    let second = site.run("echo b >>$LOG; echo b");
    (first, second)
}

#[test]
fn a_killed_program_leaves_the_lock_to_its_command() {
    let site = Site::new();
    let (mut first, second) = kill_the_program(&site, &[]);
    site.until_waiting(1);
    site.end_of(&["run", "--no-wait", "LOCK", "--", "true"])
        .expect(75, "busy");
    site.end_of(&["remove", "LOCK"]).expect(75, "in use");
    let look = site.start(&["status", "--json", "LOCK"]);
    assert!(look.line().contains(r#""state":"locked""#));
    first.tell("go");
    second.expect("b");
    second.end().expect(0, "died while it held the lock");
    assert_eq!(site.log(), "a-in a-out b ");
    site.expect_clean();
}

#[test]
fn without_the_descriptor_the_lock_dies_with_the_program() {
    let site = Site::new();
    let (mut first, second) = kill_the_program(&site, &["--close"]);
    second.expect("b");
    second.end().expect(0, "died while it held the lock");
    first.tell("go");
    until("the command has continued", || {
        site.log() == "a-in b a-out "
    });
}

#[test]
fn the_warning_of_a_crash_can_be_silenced() {
    let site = Site::new();
    let mut first = site.run("echo in; read x");
    first.expect("in");
    first.kill();
    drop(first);
    let next = site.end_of(&["run", "--quiet", "LOCK", "--", "true"]);
    assert_eq!(next, End::quiet(0));
}

#[test]
fn only_the_command_has_the_descriptor() {
    let site = Site::new();
    let count = "ls -l /proc/self/fd | grep -c 'it[.]lock'";
    for (options, expected) in [(&[][..], "1"), (&["--close"], "0")] {
        let program = site.start(&[&["run"], options, &["LOCK", "--", "sh", "-c", count]].concat());
        program.expect(expected);
    }
}

/// Only events wake the next holder: the daemon's copy of the descriptor must not swallow them.
#[test]
fn a_daemon_left_behind_holds_nothing_and_delays_no_waiter() {
    let site = Site::new();
    let mut crew = Crew::at(&site.lock());
    crew.by_events_only();
    let waiter = crew.start();
    let mut first = site.run("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!; read x");
    let daemon = first.line().parse().ok().and_then(Pid::from_raw);
    let daemon = daemon.expect("a process id");
    crew.queue(waiter, 1);
    #[cfg(stanchion_test)]
    crew.until_only_events_wake();
    first.tell("go");
    assert_eq!(first.end(), End::quiet(0));
    crew.expect_held(waiter, 1);
    test_kill_process(daemon).expect("the daemon lives");
    crew.release(waiter, 1);
    let next = site.end_of(&["run", "--no-wait", "LOCK", "--", "true"]);
    assert_eq!(next, End::quiet(0));
    test_kill_process(daemon).expect("the daemon lives");
    kill_process(daemon, Signal::KILL).expect("the daemon lives");
}
