//! What a command under the lock gets, and the exit code for each way it ends.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::program::{End, Program, Site};

#[test]
fn the_commands_own_code_comes_through() {
    let site = Site::new();
    for code in [0, 1, 7, 75, 124, 255] {
        let script = format!("exit {code}");
        assert_eq!(site.run(&script).end(), End::quiet(code));
    }
    site.expect_clean();
}

#[test]
fn a_signal_that_ended_the_command_comes_through() {
    let site = Site::new();
    // The program dies of the signals that people send. For other ones it exits with a code.
    for (name, code) in [("TERM", -15), ("INT", -2), ("KILL", 137), ("SEGV", 139)] {
        let script = format!("kill -{name} $$");
        assert_eq!(site.run(&script).end(), End::quiet(code));
    }
    // A shell sees no difference.
    let script = "\"$PROGRAM\" run \"$LOCK\" -- sh -c 'kill -TERM $$'; exit $?";
    assert_eq!(site.shell(script).code(), 143);
    site.expect_clean();
}

#[test]
fn the_command_finds_token_and_lock() {
    let site = Site::new();
    let mut last = 0;
    for _ in 0..3 {
        let program = site.run(r#"echo $STANCHION_TOKEN; echo "$STANCHION_LOCK""#);
        let token: u64 = program.line().parse().expect("a number");
        assert!(token > last, "{token} after {last}");
        last = token;
        let lock = site.lock().canonicalize().expect("the lock file");
        program.expect(lock.to_str().expect("a plain name"));
        assert_eq!(program.end(), End::quiet(0));
    }
}

#[test]
fn the_command_has_the_programs_input_and_output() {
    let site = Site::new();
    let mut program = site.run("read x; echo got $x; echo oops >&2");
    program.tell("it");
    program.expect("got it");
    let expected = End {
        code: 0,
        errors: "oops\n".into(),
    };
    assert_eq!(program.end(), expected);
}

#[test]
fn commands_run_one_after_the_other_as_they_came() {
    let site = Site::new();
    let mut first = site.holder();
    let script = |number: usize| format!("echo in-{number} >>$LOG; echo out-{number} >>$LOG");
    let start = |number| {
        let program = site.run(&script(number));
        site.until_waiting(number);
        program
    };
    let others: Vec<_> = (1..=4).map(start).collect();
    first.tell("go");
    assert_eq!(first.end(), End::quiet(0));
    for program in others {
        assert_eq!(program.end(), End::quiet(0));
    }
    let expected = "in-1 out-1 in-2 out-2 in-3 out-3 in-4 out-4 ";
    assert_eq!(site.log(), expected);
    site.expect_clean();
}

#[test]
fn no_wait_names_the_holder() {
    let site = Site::new();
    let mut holder = site.start(&[
        "run",
        "--label",
        "nightly",
        "LOCK",
        "--",
        "sh",
        "-c",
        "echo in; read x",
    ]);
    holder.expect("in");
    let tail = ["LOCK", "--", "true"];
    let end = |options: &[&str]| site.end_of(&[&["run"], options, &tail].concat());
    end(&["--no-wait"]).expect(75, "\"nightly\"");
    for limit in ["0", "0.02"] {
        let late = end(&["--timeout", limit]);
        late.expect(124, "timed out");
        late.expect(124, ": held by pid ");
        late.expect(124, "\"nightly\"");
        assert_eq!(late.errors.matches("held by").count(), 1, "{}", late.errors);
    }
    assert_eq!(end(&["--no-wait", "--quiet"]), End::quiet(75));
    assert_eq!(end(&["--timeout", "0.02", "-q"]), End::quiet(124));
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(end(&["--timeout", "0"]), End::quiet(0));
    site.expect_clean();
}

#[test]
fn a_wait_for_its_own_end_is_reported_once() {
    let site = Site::new();
    std::os::unix::fs::symlink(".", site.directory().join("here")).expect("a link");
    // Long enough for two reports of the queue.
    let inner = |options: &str| {
        let script = format!("$PROGRAM run {options} ./here/it.lock -- true; echo $?");
        let program = site.run(&script);
        program.expect("124");
        program.end()
    };
    let told = inner("--timeout 1.1");
    let count = told.errors.matches("was started under").count();
    assert_eq!(count, 1, "{told:?}");
    assert_eq!(inner("--timeout 0.01 --quiet"), End::quiet(0));
    let other = site.run("$PROGRAM run ./other.lock -- true");
    assert_eq!(other.end(), End::quiet(0));
    site.expect_clean();
}

#[test]
fn a_process_left_behind_may_wait_for_its_former_lock() {
    let site = Site::new();
    let script = "exec 3<&0; { read x <&3; $PROGRAM run \"$LOCK\" -- echo later; } & echo left";
    let mut first = site.run(script);
    first.expect("left");
    assert_eq!(first.code(), 0);
    let mut holder = site.holder();
    first.tell("go");
    site.until_waiting(1);
    holder.tell("go");
    first.expect("later");
    assert_eq!(first.end(), End::quiet(0));
    assert_eq!(holder.end(), End::quiet(0));
    site.expect_clean();
}

#[test]
fn a_mode_counts_regardless_of_the_umask() {
    let site = Site::new();
    let script = "umask 077; $PROGRAM run --mode 660 \"$LOCK\" -- true";
    assert_eq!(site.shell(script).end(), End::quiet(0));
    let mode = |path: &Path| path.metadata().expect("a file").permissions().mode();
    assert_eq!(mode(&site.lock()) & 0o777, 0o660);
    // The mode has no effect on an existing lock.
    let again = site.end_of(&["run", "--mode", "666", "LOCK", "--", "true"]);
    assert_eq!(again, End::quiet(0));
    assert_eq!(mode(&site.lock()) & 0o777, 0o660);
}

#[test]
fn flock_is_excluded_and_excludes() {
    need!(crate::skip::program("flock"));
    let site = Site::new();
    let mut holder = site.holder();
    let flock = || site.shell("flock -n \"$LOCK\" true");
    assert_eq!(flock().end(), End::quiet(1));
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(flock().end(), End::quiet(0));

    let mut foreign = site.shell("flock \"$LOCK\" sh -c 'echo in; read x'");
    foreign.expect("in");
    let busy = site.end_of(&["run", "--no-wait", "LOCK", "--", "true"]);
    busy.expect(75, "busy");
    if cfg!(any(target_os = "linux", target_os = "android")) {
        busy.expect(75, ": held by pid ");
    }
    let waiting = site.run("echo second");
    site.until_waiting(1);
    foreign.tell("go");
    waiting.expect("second");
    assert_eq!(waiting.end(), End::quiet(0));
    site.expect_clean();
}

#[test]
fn a_lock_that_was_lost_is_a_failure() {
    let site = Site::new();
    site.run("rm \"$LOCK\"").end().expect(125, "was deleted");
    let own = site.run("rm \"$LOCK\"; exit 4").end();
    own.expect(4, "was deleted");
    let share = "--of 2 \"$LOCK.of\" -- sh -c 'rm $STANCHION_SLOTS'";
    let mut command = site.command("sh");
    command.args(["-c", &format!("exec $PROGRAM run {share}")]);
    Program::start(command).end().expect(125, "was deleted");
}

#[test]
fn a_bare_name_is_in_the_working_directory() {
    let site = Site::new();
    let mut command = site.command("sh");
    command.args(["-c", "exec $PROGRAM run bare.lock -- true"]);
    command.current_dir(site.directory());
    assert_eq!(Program::start(command).end(), End::quiet(0));
    assert!(site.directory().join("bare.lock").exists());
}
