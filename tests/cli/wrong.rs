//! Everything that a user of a shell can do wrong: a clear message, the documented code, nothing
//! left behind.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use crate::program::{End, PROGRAM, Program, Site};

#[test]
fn wrong_usage() {
    let site = Site::new();
    for (arguments, about) in [
        (&[][..], "Usage"),
        (&["dance.lock", "true"], "stanchion run LOCK COMMAND"),
        (&["run"], "LOCK"),
        (&["run", "LOCK"], "COMMAND"),
        (&["run", "LOCK", "--"], "COMMAND"),
        (&["run", "LOCK", "-n"], "COMMAND"),
        (&["run", "LOCK", "-c"], "COMMAND"),
        (&["run", "LOCK", "-c", "true", "--", "ls"], "cannot be used"),
        (&["run", "-u", "9"], "flock -u"),
        (&["run", "-u", "LOCK", "true"], "flock -u"),
        (&["run", "-E", "256", "LOCK", "true"], "256"),
        (&["run", "--loud", "LOCK", "--", "true"], "--loud"),
        (&["run", "--timeout", "soon", "LOCK", "true"], "1h30m"),
        (&["run", "--timeout=-1", "LOCK", "true"], "1h30m"),
        (&["run", "-w", "-1", "LOCK", "true"], "1h30m"),
        (&["run", "-w", "5 parsecs", "LOCK", "true"], "1h30m"),
        (&["run", "--timeout", "1e300", "LOCK", "true"], "1h30m"),
        (
            &["run", "--method=mkdir", "--expire=soon", "LOCK", "true"],
            "1h30m",
        ),
        (
            &["run", "--mode", "rw", "LOCK", "--", "true"],
            "not an octal",
        ),
        (&["run", "--mode", "440", "LOCK", "--", "true"], "the owner"),
        (&["run", "", "--", "true"], "LOCK"),
        (
            &["run", "--timeout", "1", "--no-wait", "LOCK", "--", "true"],
            "cannot be used with",
        ),
        (&["status"], "LOCK"),
        (&["status", "LOCK", "more"], "more"),
        (&["remove"], "LOCK"),
        (&["completions", "csh"], "bash"),
        (&["man", "dance"], "dance"),
        (&["sweep"], "DIR"),
        (&["sweep", "--older-than", "soon", "."], "1h30m"),
    ] {
        site.end_of(arguments).expect(2, about);
    }
    assert!(site.is_empty());
}

#[test]
fn a_label_that_is_no_text() {
    let site = Site::new();
    let mut command = site.command(PROGRAM);
    let label = OsStr::from_bytes(b"\xff");
    command.args(["run", "--label"]).arg(label);
    command.args(["./it.lock", "--", "true"]);
    Program::start(command).end().expect(2, "--label");
    assert!(site.is_empty());
}

#[test]
fn help_names_every_code() {
    let site = Site::new();
    let help = site.start(&["run", "--help"]);
    for code in ["128+n", "2 ", "75 ", "124 ", "125 ", "126 ", "127 "] {
        help.line_with(&format!("  {code}"));
    }
    assert_eq!(help.end(), End::quiet(0));
    let version = site.start(&["--version"]);
    version.expect(concat!("stanchion ", env!("CARGO_PKG_VERSION")));
    assert_eq!(version.end(), End::quiet(0));
}

#[test]
fn help_shows_what_this_build_can_do() {
    let site = Site::new();
    for task in ["run", "status", "remove", "sweep"] {
        let output = site.command(PROGRAM).args([task, "--help"]).output();
        let help = String::from_utf8(output.expect("help").stdout).expect("text");
        let takes_urls = task != "sweep";
        assert_eq!(
            help.contains("redis://"),
            takes_urls && cfg!(feature = "redis"),
            "{help}"
        );
        assert_eq!(
            help.contains("postgres://"),
            takes_urls && cfg!(feature = "postgres"),
            "{help}"
        );
        assert!(!help.contains("--unlock"), "{help}");
    }
}

#[test]
fn completions_and_manual_pages() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = site.start(&["completions", shell]);
        script.line_with("conflict-exit-code");
        assert_eq!(script.end(), End::quiet(0));
    }
    let page = site.start(&["man"]);
    page.line_with(".TH stanchion 1");
    page.line_with("stanchion\\-status(1)");
    assert_eq!(page.end(), End::quiet(0));
    let page = site.start(&["man", "run"]);
    page.line_with(".TH stanchion-run 1");
    page.line_with("conflict\\-exit\\-code");
    page.line_with("Exit codes");
    assert_eq!(page.end(), End::quiet(0));
    let unread = site.shell("{ $PROGRAM man run; echo $? >&2; } | true");
    unread.end().expect(0, "0\n");
}

#[test]
fn commands_that_cannot_be_run() {
    let site = Site::new();
    let plain = site.directory().join("plain");
    std::fs::write(&plain, "no program").expect("a file");
    let rubbish = site.directory().join("rubbish");
    std::fs::write(&rubbish, "no program").expect("a file");
    std::fs::set_permissions(&rubbish, PermissionsExt::from_mode(0o755)).expect("a mode");
    for (command, code, about) in [
        ("./missing", 127, "./missing"),
        ("surely-no-such-command", 127, "surely-no-such-command"),
        ("", 127, "cannot run"),
        ("./plain", 126, "Permission denied"),
        (".", 126, "cannot run"),
        ("./plain/below", 126, "Not a directory"),
        ("./rubbish", 126, "Exec format"),
    ] {
        let end = site.end_of(&["run", "LOCK", "--", command]);
        end.expect(code, about);
        site.expect_clean();
    }
}

#[test]
fn places_where_no_lock_can_be() {
    let site = Site::new();
    for task in [&["run"][..], &["status"], &["remove"]] {
        for (place, about) in [
            (".", "needs a file name"),
            ("/dev", "not a regular file"),
            ("./missing/it.lock", "cannot find the directory"),
            ("/dev/null", "not a regular file"),
        ] {
            let command: &[&str] = if task == ["run"] {
                &["--", "true"]
            } else {
                &[]
            };
            let end = site.end_of(&[task, &[place], command].concat());
            end.expect(125, about);
        }
    }
    assert!(site.is_empty());
}

/// Tokio panics if it cannot make what it needs for signals.
#[test]
fn a_panic_is_one_line_and_a_code() {
    let site = Site::new();
    let few = |count: usize, arguments: &str| {
        let script = format!("ulimit -n {count}; exec $PROGRAM {arguments}");
        site.shell(&script).end()
    };
    few(6, "run \"$LOCK\" -- true").expect(125, "internal error");
    for count in 5..20 {
        let end = few(count, "status \"$LOCK\"");
        assert!([0, 125].contains(&end.code), "{end:?}");
        let lines = end.errors.lines().count();
        assert_eq!(lines, usize::from(end.code != 0), "{end:?}");
    }
}

#[test]
fn a_message_without_a_reader() {
    let site = Site::new();
    for redirected in ["2>&-", "2>/dev/full", ">&- 2>&- <&-"] {
        let code = |arguments: &str| {
            let script = format!("exec $PROGRAM {arguments} {redirected}");
            site.shell(&script).end().code
        };
        assert_eq!(code("run \"$LOCK\" -- sh -c 'exit 3'"), 3);
        assert_eq!(code("run \"$LOCK\" -- ./missing"), 127);
        assert_eq!(code("run ./missing/it.lock -- true"), 125);
        assert_eq!(code("run"), 2);
        assert_eq!(code("status \"$LOCK\""), 0);
        site.expect_clean();
    }
    let full = site.shell("exec $PROGRAM status \"$LOCK\" >/dev/full");
    full.end().expect(125, "cannot write");
}
