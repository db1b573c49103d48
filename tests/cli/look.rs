//! `status` and `remove`.

use rustix::process::Signal;
use stanchion::Status;

use crate::program::{End, PROGRAM, Site};

#[test]
fn looking_creates_nothing() {
    let site = Site::new();
    for options in [&["status"][..], &["status", "--json"]] {
        let look = site.start(&[options, &["LOCK"]].concat());
        assert!(look.line().contains("free"));
        assert_eq!(look.end(), End::quiet(0));
    }
    let watch = site.start(&["status", "--watch", "LOCK"]);
    assert!(watch.line().contains("free"));
    watch.signal(Signal::INT);
    assert_eq!(watch.end(), End::quiet(-Signal::INT.as_raw()));
    assert!(site.is_empty());
}

#[test]
fn the_table_names_holder_and_waiters() {
    let site = Site::new();
    let mut holder = site.start(&[
        "run",
        "--label",
        "night\x1bly",
        "LOCK",
        "--",
        "sh",
        "-c",
        "echo in; read x",
    ]);
    holder.expect("in");
    let waiting = site.run("echo second");
    site.until_waiting(1);
    let look = site.start(&["status", "LOCK"]);
    assert!(look.line().contains("it.lock: held, 1 waiting, last token"));
    let columns = ["PLACE", "PID", "FOR", "LABEL", "HOST", "COMMAND"];
    let heading = look.line();
    let heading: Vec<_> = heading.split_whitespace().collect();
    assert_eq!(heading, columns);
    let first = look.line();
    assert!(first.starts_with("holder "), "{first}");
    assert!(first.contains("night\u{fffd}ly"), "{first}");
    // A long command is cut: only its beginning is certain to be shown.
    let program: String = PROGRAM.chars().take(100).collect();
    assert!(first.contains(&program), "{first}");
    let second = look.line();
    assert!(second.starts_with("1 "), "{second}");
    assert!(second.contains(&program), "{second}");
    assert_eq!(look.end(), End::quiet(0));

    let look = site.start(&["status", "--json", "LOCK"]);
    let line = look.line();
    // A line of JSON is a status too.
    let status: Status = serde_json::from_str(&line).expect("a status");
    let owner = status.holder.expect("a holder");
    assert_eq!(owner.label.as_deref(), Some("night\u{1b}ly"));
    assert_eq!(status.waiters.len(), 1);
    let pieces = [
        r#""state":"held","kind":"lock","limit":null,"available":null,"#,
        r#""excludes":true,"held":"yes","#,
        r#""waiters":[{"ticket":""#,
        "read x",
        "echo second",
    ];
    for piece in pieces {
        assert!(line.contains(piece), "{piece} in {line}");
    }
    holder.tell("go");
    assert_eq!(waiting.end(), End::quiet(0));
}

/// A width of more than 65,535 is too large for a format string.
#[test]
fn a_long_command_line_is_cut_for_people_and_whole_for_programs() {
    let site = Site::new();
    let long = "long".repeat(20_000);
    let mut holder = site.run(&format!(": {long}; echo in; read x"));
    holder.expect("in");
    let look = site.start(&["status", "LOCK"]);
    let row = look.line_with("holder");
    assert!(row.ends_with('…'), "{row}");
    assert!(row.chars().count() < 400, "{row}");
    assert_eq!(look.end(), End::quiet(0));
    let look = site.start(&["status", "--json", "LOCK"]);
    assert!(look.line().contains(&long));
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
}

#[test]
fn a_lock_without_a_record_is_seen() {
    need!(crate::skip::program("flock"));
    let site = Site::new();
    assert_eq!(site.run("true").end(), End::quiet(0));
    let mut foreign = site.shell("flock \"$LOCK\" sh -c 'echo in; read x'");
    foreign.expect("in");
    let look = site.start(&["status", "LOCK"]);
    if cfg!(any(target_os = "linux", target_os = "android")) {
        assert!(look.line().contains(": locked by a process that left no"));
        assert!(look.line_with("holder").contains("flock"));
    }
    foreign.tell("go");
    assert_eq!(foreign.end(), End::quiet(0));
}

#[test]
fn a_watch_sees_each_change() {
    let site = Site::new();
    let json = site.start(&["status", "--watch", "--json", "LOCK"]);
    let plain = site.start(&["status", "--watch", "LOCK"]);
    assert!(json.line().contains(r#""state":"free""#));
    assert!(plain.line().contains(": free, 0 waiting, no token"));
    let mut holder = site.holder();
    assert!(json.line_with("held").contains(r#""waiters":[]"#));
    plain.line_with(": held by pid ");
    let waiting = site.run("true");
    json.line_with(r#""waiters":[{"#);
    plain.line_with(", 1 waiting");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(waiting.end(), End::quiet(0));
    json.line_with(r#""state":"free""#);
    plain.line_with(": free, 0 waiting, last token");
    json.signal(Signal::INT);
    assert_eq!(json.end(), End::quiet(-Signal::INT.as_raw()));
}

#[test]
fn a_watch_without_a_reader_ends() {
    let site = Site::new();
    let mut watch =
        site.shell("{ $PROGRAM status --watch \"$LOCK\"; echo $? >&2; } | head -n 1; read x");
    assert!(watch.line().contains("free"));
    // Its next output has no reader.
    assert_eq!(site.run("true").end(), End::quiet(0));
    watch.tell("go");
    let expected = End {
        code: 0,
        errors: "0\n".into(),
    };
    assert_eq!(watch.end(), expected);
}

#[test]
fn a_watch_without_a_reader_ends_also_without_changes() {
    let site = Site::new();
    let mut watch =
        site.shell("{ $PROGRAM status --watch \"$LOCK\"; echo $? >&2; } | head -n 1; read x");
    assert!(watch.line().contains("free"));
    watch.tell("go");
    watch.end().expect(0, "0\n");
    for nobody in [">&-", ">/dev/null"] {
        let watch = site.shell(&format!("exec $PROGRAM status --watch \"$LOCK\" {nobody}"));
        assert_eq!(watch.end(), End::quiet(0));
    }
    assert!(site.is_empty());
}

#[test]
fn removing_leaves_nothing() {
    let site = Site::new();
    assert_eq!(site.end_of(&["remove", "LOCK"]), End::quiet(0));
    let mut holder = site.holder();
    site.end_of(&["remove", "LOCK"]).expect(75, "in use");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(site.end_of(&["remove", "LOCK"]), End::quiet(0));
    assert!(site.is_empty());
}

#[test]
fn removing_keeps_what_is_not_the_locks_and_says_so() {
    let site = Site::new();
    assert_eq!(site.run("true").end(), End::quiet(0));
    let foreign = site.directory().join("it.lock.queue/foreign");
    std::fs::write(&foreign, "").expect("a file");
    site.end_of(&["remove", "LOCK"]).expect(75, "foreign files");
    assert!(site.lock().exists());
    std::fs::remove_file(foreign).expect("the file");
    std::fs::write(site.lock(), "data").expect("a file");
    site.end_of(&["remove", "LOCK"]).expect(0, "was kept");
    let content = std::fs::read_to_string(site.lock());
    assert_eq!(content.expect("the lock file"), "data");
    assert!(!site.directory().join("it.lock.queue").exists());
    // Nothing is left to remove, and the file is still there.
    site.end_of(&["remove", "LOCK"]).expect(0, "was kept");
}
