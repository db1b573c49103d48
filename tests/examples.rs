//! The examples do what they say: they check themselves, so it is enough that they end well.

use std::path::PathBuf;
use std::process::Command;

/// The examples are built beside the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(|deps| deps.parent());
    profile
        .expect("a target directory")
        .join("examples")
        .join(name)
}

fn run(name: &str, last_line: &str) {
    let output = Command::new(example(name))
        .output()
        .expect("the example is built");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert_eq!(text.lines().last(), Some(last_line), "{text}\n{errors}");
}

#[test]
fn queue_serves_in_order() {
    run("queue", "everybody entered in the order of arrival");
}

#[test]
fn select_leaves_nothing_behind() {
    run("select", "closed for the night");
}

#[test]
fn metrics_counts_every_grant() {
    let output = Command::new(example("metrics")).output();
    let text = output.expect("the example is built").stdout;
    let text = String::from_utf8(text).expect("text");
    assert!(text.contains("stanchion_grants_total 20\n"), "{text}");
    assert!(
        text.contains("stanchion_wait_seconds_bucket{le=\"+Inf\"}"),
        "{text}"
    );
}
