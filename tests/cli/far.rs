//! A lock on a server by its URL.
#![cfg(feature = "redis")]

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
    site.end_of(&["status", "--watch", &url])
        .expect(2, "--watch");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(
        site.end_of(&["run", "--no-wait", &url, "--", "true"]),
        End::quiet(0)
    );
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
