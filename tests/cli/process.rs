//! The program as a process: as process 1, with blocked signals, without standard streams, in place
//! of the command (`--exec`), and nested.

use rustix::process::{Pid, Signal, kill_process};

use crate::crew::until;
use crate::program::{End, Program, Site};
use crate::skip::success;

/// Starts `stanchion` with these arguments as process 1 of a pid namespace; `None` where that is
/// not allowed. Returns the process that started it, which ends with process 1.
fn as_process_1(site: &Site, arguments: &str) -> Option<Program> {
    let script = format!("exec unshare -pf --mount-proc \"$PROGRAM\" {arguments}");
    let mut probe = std::process::Command::new("unshare");
    success(
        probe.args(["-pf", "--mount-proc", "true"]),
        "no pid namespace",
    )?;
    Some(site.shell(&script))
}

/// The one child of a process.
fn child_of(parent: u32) -> Pid {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let mut child = None;
    until("it has a child", || {
        let text = std::fs::read_to_string(&path).expect("it is alive");
        child = text.trim().parse().ok().and_then(Pid::from_raw);
        child.is_some()
    });
    child.expect("just found")
}

#[test]
fn process_1_ends_by_the_code_of_a_signal() {
    let site = Site::new();
    let command = "run \"$LOCK\" -- sh -c 'echo in; exec sleep 1000'";
    let running = need!(as_process_1(&site, command));
    running.expect("in");
    kill_process(child_of(running.id()), Signal::TERM).expect("it runs");
    assert_eq!(running.end(), End::quiet(143));

    let mut holder = site.holder();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let waiting = as_process_1(&site, "run \"$LOCK\" -- true").expect("it was allowed above");
        site.until_waiting(1);
        kill_process(child_of(waiting.id()), signal).expect("it runs");
        assert_eq!(waiting.end(), End::quiet(code));
        site.until_waiting(0);
    }
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    site.expect_clean();
}

#[test]
fn process_1_reaps_orphans() {
    let site = Site::new();
    // The inner shell ends at once, so its child is an orphan. A zombie would keep its entry.
    let orphan = "p=$(sh -c 'sleep 0.01 >/dev/null & echo $!'); while [ -e /proc/$p ]; do sleep 0.01; done; echo reaped";
    let script = site.directory().join("orphan.sh");
    std::fs::write(&script, orphan).expect("a script");
    let program = need!(as_process_1(&site, "run \"$LOCK\" -- sh orphan.sh"));
    program.expect("reaped");
    assert_eq!(program.end(), End::quiet(0));
}

#[test]
fn signals_that_the_parent_blocked_are_heard() {
    let site = Site::new();
    let blocked = "exec env --block-signal=INT --block-signal=TERM --block-signal=CHLD \"$PROGRAM\" run \"$LOCK\" -- ";
    let script = format!(
        "{blocked} sh -c 'trap \"echo term; exit 9\" TERM; echo in; while :; do sleep 0.01; done'"
    );
    let running = site.shell(&script);
    running.expect("in");
    running.signal(Signal::TERM);
    running.expect("term");
    assert_eq!(running.end(), End::quiet(9));

    let mut holder = site.holder();
    let waiting = site.shell(&format!("{blocked} true"));
    site.until_waiting(1);
    waiting.signal(Signal::TERM);
    assert_eq!(waiting.end(), End::quiet(-15));
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    site.expect_clean();
}

#[test]
fn closed_standard_streams_do_not_become_the_lock_file() {
    let site = Site::new();
    let talk = "sh -c 'echo out; echo err >&2; ls -l /proc/$$/fd >\"$LOG\"'";
    for option in ["", "--no-fork"] {
        let script = format!("\"$PROGRAM\" run {option} \"$LOCK\" -- {talk} <&- >&- 2>&-");
        assert_eq!(site.shell(&script).code(), 0, "{option}");
        let content = std::fs::read(site.lock()).expect("the lock file");
        assert!(content.is_empty(), "{option}: {content:?}");
        assert!(site.log().contains("it.lock"), "it is inherited");
        for number in 0..=2 {
            let low = format!(" {number} -> {}/it", site.directory().display());
            assert!(!site.log().contains(&low), "{option}: {}", site.log());
        }
    }
    site.expect_clean();
}

#[test]
fn without_a_fork_the_command_is_the_process() {
    let site = Site::new();
    let mut first = site.start(&["run", "-F", "LOCK", "--", "sh", "-c", "echo $$; read x"]);
    assert_eq!(first.line(), first.id().to_string());
    site.end_of(&["run", "--no-wait", "LOCK", "--", "true"])
        .expect(75, "busy");
    let second = site.run("echo b");
    site.until_waiting(1);
    first.tell("go");
    second.expect("b");
    // No crash is reported: the command has ended, and nothing was left half done.
    assert_eq!(second.end(), End::quiet(0));
    assert_eq!(first.end(), End::quiet(0));
    site.expect_clean();
}

#[test]
fn without_a_fork_a_killed_command_is_no_crash_and_leaves_no_ticket() {
    let site = Site::new();
    for kind in [&[][..], &["--exclusive"], &["--shared"]] {
        let mut holder = site.start(
            &[
                &["run"],
                kind,
                &["LOCK", "--", "sh", "-c", "echo in; read x"],
            ]
            .concat(),
        );
        holder.expect("in");
        let waited = [
            &["run", "--no-fork"],
            kind,
            &["LOCK", "--", "sh", "-c", "echo in; read x"],
        ];
        let mut waited = site.start(&waited.concat());
        if kind != ["--shared"] {
            until("it waits", || {
                let look = site.start(&["status", "--json", "LOCK"]);
                !look.line().contains(r#""waiters":[]"#)
            });
        }
        holder.tell("go");
        assert_eq!(holder.end(), End::quiet(0));
        waited.expect("in");
        let queue = site.directory().join("it.lock.queue");
        let names = std::fs::read_dir(queue).expect("a queue");
        let names: Vec<_> = names.map(|it| it.expect("an entry").file_name()).collect();
        assert_eq!(names, ["state"], "{kind:?}");
        waited.kill();
        site.expect_clean();
        assert_eq!(site.end_of(&["remove", "LOCK"]), End::quiet(0));
    }
}

#[test]
fn without_a_fork_permits_are_kept_by_the_command() {
    let site = Site::new();
    let head = [
        "run",
        "--no-fork",
        "--permits",
        "2",
        "--of",
        "3",
        "LOCK",
        "--",
    ];
    let mut first = site.start(&[&head[..], &["sh", "-c", "echo in; read x"]].concat());
    first.expect("in");
    site.end_of(&["run", "--no-wait", "--permits", "2", "LOCK", "--", "true"])
        .expect(75, "busy");
    let one = site.end_of(&["run", "--no-wait", "--permits", "1", "LOCK", "--", "true"]);
    assert_eq!(one, End::quiet(0));
    first.kill();
    let all = site.end_of(&["run", "--permits", "3", "LOCK", "--", "true"]);
    assert_eq!(all, End::quiet(0));
}

#[test]
fn without_a_fork_a_command_that_does_not_exist_leaves_the_lock_free() {
    let site = Site::new();
    site.end_of(&["run", "-F", "LOCK", "--", "./no-such-program"])
        .expect(127, "cannot run");
    site.expect_clean();
}

#[test]
fn no_fork_is_refused_where_the_command_cannot_hold_the_lock() {
    let site = Site::new();
    for method in ["mkdir", "create-new", "pid"] {
        site.end_of(&["run", "-F", "--method", method, "LOCK", "--", "true"])
            .expect(2, "--no-fork");
    }
    site.end_of(&["run", "-F", "--close", "LOCK", "--", "true"])
        .expect(2, "--close");
    site.end_of(&["run", "-F", "redis://127.0.0.1:1#it", "--", "true"])
        .expect(2, "--no-fork");
    assert!(site.is_empty());
}

/// The outer locks, from the outside in, and whether a wait for the innermost one may have no
/// limit.
const NESTED: [(&str, &[&str], &str); 7] = [
    ("it.lock", &["./it.lock"], "it.lock"),
    ("deep", &["./it.lock", "./b.lock", "./c.lock"], "it.lock"),
    ("writer", &["-x ./it.lock", "./b.lock"], "-s it.lock"),
    (
        "permits",
        &["--of 2 ./s", "./b.lock", "--of 2 ./s"],
        "--of 2 s",
    ),
    (
        "mkdir",
        &["--method mkdir ./it.lock", "./b.lock"],
        "--method mkdir it.lock",
    ),
    (
        "create",
        &["--method create-new ./it.lock", "./b.lock"],
        "--method create-new it.lock",
    ),
    (
        "pid",
        &["--method pid ./it.lock", "./b.lock"],
        "--method pid it.lock",
    ),
];

#[test]
fn a_command_that_waits_for_itself_is_warned_at_any_depth() {
    for (name, outer, inner) in NESTED {
        let site = Site::new();
        let outer: String = outer
            .iter()
            .map(|it| format!("\"$PROGRAM\" run {it} -- "))
            .collect();
        let (options, lock) = inner.rsplit_once(' ').unwrap_or(("", inner));
        let script = format!("{outer} \"$PROGRAM\" run {options} --timeout 1.5 ./{lock} -- true");
        let end = site.shell(&script).end();
        end.expect(124, "its own end");
        let warnings = end.errors.matches("warning").count();
        assert_eq!(warnings, 1, "{name}: {end:?}");
    }
}

#[test]
fn other_locks_and_ended_holds_are_no_nesting() {
    let site = Site::new();
    // A process left behind by an earlier hold waits for a new one.
    let mut holder = site.holder();
    let stale =
        "STANCHION_HELD=\"1 1 0 $LOCK\" exec \"$PROGRAM\" run --timeout 1.5 \"$LOCK\" -- true";
    let end = site.shell(stale).end();
    end.expect(124, "timed out");
    assert!(!end.errors.contains("warning"), "{end:?}");
    holder.tell("go");
    // Enough permits for both.
    let script = "\"$PROGRAM\" run --of 2 ./s -- \"$PROGRAM\" run --of 2 ./s -- echo in";
    let program = site.shell(script);
    program.expect("in");
    assert_eq!(program.end(), End::quiet(0));
}
