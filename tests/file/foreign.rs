//! Other programs that lock the same file: `flock(1)`, Python's `fcntl.flock`, `portalocker`. Only
//! events wake the waits.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use stanchion::FileLock;

use crate::Polled;
use crate::crew::child::{path, say};
use crate::crew::{Member, last_words};
use crate::skip::{program, python, success};
use crate::support::{Place, eventually};
use crate::{by_events, held, open, queued};

/// A program that prints `in` when it has the lock, and releases when it gets a line.
fn start(command: Command) -> Member {
    let foreign = Member::foreign(command);
    foreign.expect("in");
    foreign
}

fn flock(path: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("flock");
    command.args(options).arg(path);
    // With `exec`, so that no shell keeps the lock when the program is killed.
    command.args(["sh", "-c", "echo in; read x; echo out"]);
    command
}

fn script(program: &str, path: &Path, text: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-u", "-c", text]).arg(path);
    command
}

const FCNTL: &str = "
import fcntl, sys
f = open(sys.argv[1], MODE)
fcntl.flock(f, fcntl.LOCK_EX)
print('in'); sys.stdin.readline()
f.close()
print('out'); sys.stdin.readline()
";

const PORTALOCKER: &str = "
import portalocker, sys
lock = portalocker.Lock(sys.argv[1], 'a', timeout=30)
with lock:
    print('in'); sys.stdin.readline()
print('out'); sys.stdin.readline()
";

/// Excluded while the program holds the lock. Woken when it releases and when it is killed.
fn excludes_and_wakes(place: &Place, command: &dyn Fn() -> Command) {
    for killed in [false, true] {
        let mut foreign = start(command());
        let lock = open(place, by_events());
        assert!(lock.try_acquire().expect("no error").is_none());
        let mut waiter = queued(&lock);
        match killed {
            true => foreign.kill(),
            false => foreign.tell(""),
        }
        drop(waiter.finish().expect("its turn"));
    }
}

#[test]
fn flock_of_the_shell() {
    need!(program("flock"));
    let place = Place::new();
    excludes_and_wakes(&place, &|| {
        let mut command = Command::new("sh");
        // The shell itself is the holder, so killing it ends the hold.
        let text = "exec 9>>\"$0\"; flock 9; echo in; read x";
        command.args(["-c", text]).arg(place.path());
        command
    });
}

/// The other way round: the program waits for our lock, or is refused.
#[test]
fn flock_waits_for_us_and_shares_with_us() {
    need!(program("flock"));
    let place = Place::new();
    let lock = open(&place, FileLock::options());
    let guard = held(&lock);
    let refused = flock(&place.path(), &["-n"]).status().expect("it runs");
    assert_eq!(refused.code(), Some(1));
    let thread = std::thread::spawn({
        let command = flock(&place.path(), &[]);
        move || start(command)
    });
    let inode = format!(
        ":{} ",
        std::fs::metadata(place.path()).expect("there").ino()
    );
    eventually("it waits in the lock call", || {
        let locks = std::fs::read_to_string("/proc/locks").expect("the kernel's list");
        let ours = |line: &str| line.contains("->") && line.contains(&inode);
        locks.lines().any(ours)
    });
    drop(guard);
    let foreign = thread.join().expect("it gets in");
    drop(foreign);
    eventually("free", || lock.try_acquire().expect("no error").is_some());
    let reading = || {
        Polled::new(lock.acquire_shared())
            .finish()
            .expect("no writer")
    };
    let guard = reading();
    let foreign = start(flock(&place.path(), &["-s"]));
    let beside = reading();
    assert!(lock.try_acquire().expect("no error").is_none());
    drop((guard, beside, foreign));
}

/// A holder that opened the file read-only causes another kind of close event.
#[test]
fn fcntl_of_python() {
    let program = need!(python("fcntl"));
    let place = Place::new();
    std::fs::write(place.path(), "content").expect("written");
    for mode in ["'r'", "'r+'", "'a'"] {
        let text = FCNTL.replace("MODE", mode);
        excludes_and_wakes(&place, &|| script(&program, &place.path(), &text));
    }
    let content = std::fs::read_to_string(place.path()).expect("read");
    assert_eq!(content, "content", "p46: it is unchanged");
}

#[test]
fn portalocker_of_python() {
    let program = need!(python("portalocker"));
    let place = Place::new();
    excludes_and_wakes(&place, &|| script(&program, &place.path(), PORTALOCKER));
    let guard = held(&open(&place, FileLock::options()));
    let text = "
import portalocker, sys
try:
    portalocker.Lock(sys.argv[1], 'a', timeout=0, fail_when_locked=True).acquire()
except portalocker.exceptions.LockException:
    print('refused')
";
    let refused = script(&program, &place.path(), text)
        .output()
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&refused.stdout).trim(), "refused");
    drop(guard);
}

/// The fair lock and the plain one on one path.
#[test]
fn the_fair_lock_is_excluded_both_ways() {
    let place = Place::new();
    let (fair, plain) = (place.open(), open(&place, by_events()));
    let guard = held(&plain);
    assert!(fair.try_acquire().expect("no error").is_none());
    drop(guard);
    let guard = fair.try_acquire().expect("no error").expect("free");
    let mut waiter = queued(&plain);
    drop(guard);
    drop(waiter.finish().expect("woken by the close"));
}

/// Prints the status of `$LOOK_AT`, and the result of a try.
pub(crate) fn main() {
    let lock = FileLock::open(path("LOOK_AT")).expect("a lock");
    let status = lock.status().expect("a status");
    let found = lock.try_acquire().expect("no error").is_some();
    let (held, all) = (status.held, status.names_all);
    say(format_args!(
        "{held:?} {all} {} {found}",
        status.outsider.is_some()
    ));
}

/// There the kernel's list of locks is empty, although the file is locked. Needs root.
#[test]
fn the_status_agrees_with_a_try_in_another_pid_namespace() {
    let place = Place::new();
    let namespace = ["-pf", "--mount-proc"];
    let mut probe = Command::new("unshare");
    probe.args(namespace).arg("true");
    need!(success(&mut probe, "no pid namespace"));
    need!(program("flock"));
    let look = || {
        let inside: Vec<_> = ["unshare"].into_iter().chain(namespace).collect();
        let mut child = crate::crew::program_under(&inside, "look");
        child.env("LOOK_AT", place.path());
        last_words(&mut child).pop().expect("an answer")
    };
    for options in [&[][..], &["-s"]] {
        let mut foreign = start(flock(&place.path(), options));
        assert_eq!(look(), "Yes false true false");
        foreign.tell("");
        foreign.expect("out");
        eventually("it is free", || look() == "No true false true");
    }
}
