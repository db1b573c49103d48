//! `run --method`: locks without a queue and without a lock of the operating system.

use crate::program::{End, Site};

/// A method, the name of the lock, and the words that make it.
const METHODS: [(&str, &str); 3] = [
    ("mkdir", "it.lock"),
    ("create-new", "it.lock"),
    ("pid", "it.pid"),
];

#[test]
fn one_at_a_time_and_the_status_names_the_holder() {
    for (method, name) in METHODS {
        let site = Site::new();
        let lock = site.directory().join(name);
        let lock = lock.to_str().expect("plain");
        let run = ["run", "--method", method, "--label", "nightly", lock, "--"];
        let mut holder = site.start(&[&run[..], &["sh", "-c", "echo in; read x"]].concat());
        holder.expect("in");
        let tried = ["run", "--no-wait", "--method", method, lock, "--", "true"];
        site.end_of(&tried).expect(75, "is busy: held by pid");
        let late = [
            "run",
            "--timeout",
            "0.1",
            "--method",
            method,
            lock,
            "--",
            "true",
        ];
        site.end_of(&late).expect(124, "timed out");
        let status = site.start(&["status", "--method", method, lock]);
        let line = status.line_with("nightly");
        assert!(line.contains("stanchion"), "{line}");
        assert_eq!(site.end_of(&["remove", "--method", method, lock]).code, 75);
        holder.tell("go");
        assert_eq!(holder.end(), End::quiet(0));
        assert_eq!(
            site.end_of(&["remove", "--method", method, lock]),
            End::quiet(0)
        );
        assert!(site.is_empty());
    }
}

/// A URL of the library writes it `create_new`.
#[test]
fn both_spellings_of_a_method_are_one() {
    let site = Site::new();
    let lock = site.directory().join("it.lock");
    let lock = lock.to_str().expect("plain");
    for method in ["create-new", "create_new"] {
        let run = ["run", "--method", method, "-w", "5s", lock, "--", "true"];
        assert_eq!(site.end_of(&run), End::quiet(0));
        for task in ["status", "remove"] {
            assert_eq!(site.end_of(&[task, "--method", method, lock]).code, 0);
        }
    }
}

#[test]
fn an_option_that_the_method_does_not_have_is_refused() {
    let site = Site::new();
    let lock = site.directory().join("it.lock");
    let lock = lock.to_str().expect("plain");
    for (options, about) in [
        (&["--expire", "60"][..], "--method"),
        (&["--expire", "60", "--method", "pid"], "--expire"),
        (&["--expire", "0.05", "--method", "mkdir"], "expire"),
        (&["--mode", "660", "--method", "mkdir"], "--mode"),
    ] {
        let run = [&["run"], options, &[lock, "--", "true"]].concat();
        site.end_of(&run).expect(2, about);
    }
    assert!(site.is_empty());
}

#[test]
fn a_dead_holder_is_taken_over_and_reported() {
    for (method, name) in METHODS {
        let site = Site::new();
        let lock = site.directory().join(name);
        let lock = lock.to_str().expect("plain");
        let mut holder = site.start(&[
            "run",
            "--method",
            method,
            lock,
            "--",
            "sh",
            "-c",
            "echo in; read x",
        ]);
        holder.expect("in");
        holder.kill();
        let next = ["run", "--method", method, lock, "--", "echo", "next"];
        let next = site.start(&next);
        next.expect("next");
        next.end().expect(0, "died while it held the lock");
    }
}

#[test]
fn a_claim_is_found_without_its_method() {
    let site = Site::new();
    let lock = site.directory().join("it.lock");
    let lock = lock.to_str().expect("plain");
    let run = [
        "run",
        "--method",
        "mkdir",
        "--expire",
        "60",
        lock,
        "--",
        "sh",
        "-c",
        "echo in; read x",
    ];
    let mut holder = site.start(&run);
    holder.expect("in");
    site.start(&["status", lock]).line_with("held");
    site.end_of(&["remove", lock]).expect(75, "in use");
    site.end_of(&["run", lock, "--", "true"]).expect(2, "mkdir");
    site.end_of(&["status", "--watch", lock])
        .expect(2, "--watch");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(site.end_of(&["remove", lock]), End::quiet(0));
    assert!(site.is_empty());
}

#[test]
fn a_pid_file_is_found_without_its_method() {
    let site = Site::new();
    let lock = site.directory().join("it.pid");
    let lock = lock.to_str().expect("plain");
    let run = ["run", "--method", "pid", lock, "--"];
    let run = [&run[..], &["sh", "-c", "echo in; read x"]].concat();
    let mut holder = site.start(&run);
    holder.expect("in");
    site.start(&["status", lock]).line_with("held");
    site.end_of(&["remove", lock]).expect(75, "in use");
    site.end_of(&["run", lock, "--", "true"])
        .expect(2, "--method pid");
    site.end_of(&["status", "--watch", lock])
        .expect(2, "--watch");
    holder.kill();
    site.start(&["status", lock]).line_with("free");
    assert_eq!(site.end_of(&["remove", lock]), End::quiet(0));
    assert!(site.is_empty());
    std::fs::write(lock, "1\n").expect("written");
    site.end_of(&["remove", "--method", "pid", lock])
        .expect(75, "of another program");
}

#[test]
fn a_file_that_only_begins_as_a_pid_file_is_none() {
    let site = Site::new();
    let lock = site.directory().join("it.pid");
    std::fs::write(&lock, "1\ninit\nsomething else\n").expect("written");
    let text = lock.to_str().expect("plain");
    let ran = ["run", "--quiet", text, "--", "true"];
    assert_eq!(site.end_of(&ran), End::quiet(0));
    site.end_of(&["remove", text]).expect(0, "was kept");
    assert!(lock.exists());
}

#[test]
fn what_does_not_go_together_is_refused() {
    let site = Site::new();
    let lock = site.lock();
    let lock = lock.to_str().expect("plain");
    for words in [
        &["--expire", "5"][..],
        &["--method", "pid", "--expire", "5"],
        &["--method", "mkdir", "--expire", "0.01"],
        &["--method", "mkdir", "--shared"],
        &["--method", "mkdir", "--permits", "1"],
        &["--method", "nothing"],
    ] {
        let words = [&["run"][..], words, &[lock, "--", "true"]].concat();
        assert_eq!(site.end_of(&words).code, 2, "{words:?}");
    }
    let odd = site.directory().join("Odd");
    let odd = odd.to_str().expect("plain");
    site.end_of(&["run", "--method", "mkdir", odd, "--", "true"])
        .expect(2, "NAME.lock");
    assert!(site.is_empty());
}

#[test]
fn a_status_by_a_method_makes_no_directory() {
    let site = Site::new();
    for task in ["status", "remove"] {
        for (method, name) in METHODS {
            let lock = site.directory().join("missing").join(name);
            let lock = lock.to_str().expect("plain");
            site.end_of(&[task, "--method", method, lock])
                .expect(125, "cannot find the directory");
        }
    }
    assert!(site.is_empty());
}
