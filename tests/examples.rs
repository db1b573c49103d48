//! The examples do what they say. Most check themselves, so it is enough that they succeed. `web`
//! has its own tests.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::process::Command;

#[path = "crew/mod.rs"]
mod crew;
#[path = "web/started.rs"]
mod started;

use crew::Member;
use started::example;

fn run(name: &str, last_line: &str) {
    run_in(name, None, last_line);
}

fn run_in(name: &str, argument: Option<&std::path::Path>, last_line: &str) {
    let output = Command::new(example(name))
        .args(argument)
        .output()
        .expect("the example is built");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert_eq!(text.lines().last(), Some(last_line), "{text}\n{errors}");
}

#[test]
fn queue_serves_in_order() {
    run("queue", "all acquired in order of arrival");
}

#[test]
fn select_leaves_nothing_behind() {
    run("select", "closed for the night");
}

#[test]
fn atomic_write_shows_whole_versions() {
    run("atomic_write", "each of them whole");
}

#[test]
fn transfer_loses_nothing() {
    run("transfer", "after 200 transfers they have 200 together");
}

#[test]
fn locks_are_wherever_the_url_says() {
    run("locks", "mem: each report was whole");
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let url = format!("file://{}", scratch.path().display());
    let last = format!("{url} each report was whole");
    run_in("locks", Some(url.as_ref()), &last);
}

#[test]
fn rwlock_shows_whole_editions() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let catalogue = scratch.path().join("catalogue");
    run_in(
        "rwlock",
        Some(&catalogue),
        "12 readings, each of a whole edition",
    );
}

#[test]
fn semaphore_keeps_its_limit() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    run_in(
        "semaphore",
        Some(scratch.path()),
        "never more than 4 permits were out",
    );
}

#[test]
fn pid_lock_takes_over_from_the_dead() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = scratch.path().join("worker.pid");
    let mut first = Member::run(example("pid_lock"), &[&path]);
    first.after("works now");
    let mut second = Member::run(example("pid_lock"), &[&path]);
    let holder = second.after("held by pid ");
    assert!(holder.starts_with(&first.pid().to_string()), "{holder}");
    first.kill();
    second.after("died while it held the lock");
    second.after("works now");
    second.tell("");
    second.after("the file is gone");
    second.ends_well();
    assert!(!path.exists());
}

#[test]
fn single_instance_refuses_the_second_one() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = scratch.path().join("app.pid");
    let start = || {
        let mut command = Command::new(example("single_instance"));
        command.arg(&path).stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped());
        command.spawn().expect("the example is built")
    };
    let mut first = start();
    let mut output = std::io::BufReader::new(first.stdout.take().expect("its output"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).expect("a line");
    assert!(line.starts_with("running as process"), "{line}");
    let second = start().wait_with_output().expect("its end");
    let told = String::from_utf8(second.stdout).expect("text");
    assert_eq!(told, format!("already running as process {}\n", first.id()));
    drop(first.stdin.take());
    assert!(first.wait().expect("its end").success());
    assert!(!path.exists());
}

#[cfg(feature = "metrics")]
#[test]
fn metrics_are_exported() {
    let output = Command::new(example("metrics")).output();
    let text = output.expect("the example is built").stdout;
    let text = String::from_utf8(text).expect("text");
    let number = |metric: &str| -> f64 {
        let of_it = |line: &&str| line.starts_with(metric) && line.contains("backend=\"file\"");
        let line = text.lines().find(of_it);
        let number = line.and_then(|it| it.rsplit(' ').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no {metric} in {text}"))
    };
    assert_eq!(
        (number("stanchion_waiting"), number("stanchion_held")),
        (0.0, 1.0)
    );
    // Each of 80 waits ended in one of two ways.
    let granted = number("stanchion_wait_seconds_count") - 1.0;
    assert_eq!(granted + number("stanchion_timeouts_total"), 80.0, "{text}");
    assert!(
        text.contains("# TYPE stanchion_hold_seconds histogram"),
        "{text}"
    );
    assert!(text.contains("/metrics.lock\"}"), "it is named: {text}");
}

/// A signal during a job lets the job finish. A signal during a wait leaves the queue.
#[cfg(unix)]
#[test]
fn shutdown_stops_wherever_it_is() {
    use stanchion::FifoLock;

    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let lock = FifoLock::open(scratch.path().join("shutdown.lock")).expect("a lock");
    let started = || Member::run(example("shutdown"), &[lock.path()]);

    let guard = lock.acquire().block().expect("the lock");
    let worker = started();
    worker.after("gives up");
    drop(guard);
    worker.after("begins job");
    worker.terminate();
    let next = || worker.hear();
    assert!(next().contains("ends job"));
    assert!(next().ends_with("stops"));
    worker.ends_well();

    let _guard = lock.acquire().block().expect("the lock");
    let worker = started();
    worker.after("gives up");
    worker.terminate();
    worker.after("stops");
    worker.ends_well();
    assert!(lock.status().expect("the status").waiters.is_empty());
}
