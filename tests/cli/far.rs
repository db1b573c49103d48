//! A lock on a server by its URL.
#![cfg(feature = "redis")]

use rustix::process::Signal;

use crate::kinds::assert_has;
use crate::program::{End, Site};
use crate::redis_server::Server;

#[test]
fn it_is_acquired_shown_and_released() {
    let site = Site::new();
    let server = need!(Server::start());
    let url = format!("{}#nightly%20job", server.url());
    let run = [
        "run",
        "--label",
        "first",
        &url,
        "--",
        "sh",
        "-c",
        "echo in $STANCHION_TOKEN; read x",
    ];
    // A server that was just started grants nothing for one lease, because it may have forgotten a
    // holder.
    let mut holder = site.start(&run);
    let token: u64 = holder
        .line_with("in ")
        .trim_start_matches("in ")
        .parse()
        .expect("a token");
    assert!(token > 0);
    site.end_of(&["run", "--no-wait", &url, "--", "true"])
        .expect(75, "is busy: held by pid");
    site.start(&["status", &url]).line_with("held");
    site.end_of(&["remove", &url]).expect(2, "by itself");
    let watch = site.start(&["status", "--watch", "--json", &url]);
    assert_has(
        &watch.line(),
        &[r#""kind":"lock","limit":null"#, r#""state":"held""#],
    );
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    watch.line_with(r#""state":"free""#);
    watch.signal(Signal::INT);
    assert_eq!(watch.end(), End::quiet(-Signal::INT.as_raw()));
    assert_eq!(
        site.end_of(&["run", "--no-wait", &url, "--", "true"]),
        End::quiet(0)
    );
}

/// The status shows the recorded kind, also to a watch that began before there was one.
#[test]
fn a_watch_shows_a_semaphore() {
    let site = Site::new();
    let server = need!(Server::start());
    let url = format!("{}?lease=1s#workers", server.url());
    let watch = site.start(&["status", "--watch", &url]);
    watch.line_with("0 waiting");
    let mut run = vec!["run", "--permits", "2", "--of", "3", &url, "--"];
    run.extend(["sh", "-c", "echo in; read x"]);
    let mut holder = site.start(&run);
    holder.line_with("in");
    watch.line_with("semaphore of 3, 1 available, shared by 1, 0 waiting, ");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    watch.line_with("semaphore of 3, 3 available, free, 0 waiting, ");
    watch.signal(Signal::TERM);
    assert_eq!(watch.end(), End::quiet(-Signal::TERM.as_raw()));
}

#[test]
fn what_is_missing_is_said() {
    let site = Site::new();
    let nobody = format!("redis+unix://{}/none.sock#a", site.directory().display());
    site.end_of(&["run", "--timeout", "60", &nobody, "--", "true"])
        .expect(125, "connect");
    site.end_of(&["run", "redis://127.0.0.1", "--", "true"])
        .expect(2, "#NAME");
    let permits = ["run", "--permits", "2", "redis://127.0.0.1#a", "--", "true"];
    site.end_of(&permits).expect(2, "--of");
    for task in [&["status"][..], &["remove"], &["run"]] {
        let rest = ["--method", "mkdir", "redis://127.0.0.1#a", "true"];
        let rest = &rest[..if task == ["run"] { 4 } else { 3 }];
        site.end_of(&[task, rest].concat()).expect(2, "--method");
    }
}
