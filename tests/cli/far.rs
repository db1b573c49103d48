//! A lock on a server by its URL.
#![cfg(feature = "redis")]

use std::process::{Child, Command, Stdio};

use crate::crew::until;
use crate::program::{End, Site};

/// A server of this test alone, on a socket in a directory whose path is short enough for one.
struct Server {
    process: Child,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> (Self, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("redis.sock");
        let process = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
            ])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let server = Self {
            process,
            _directory: directory,
        };
        until("the server listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        (server, format!("redis+unix://{}", socket.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn it_is_taken_shown_and_given_back() {
    let site = Site::new();
    let (_server, url) = Server::start();
    let url = format!("{url}#nightly%20job");
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
    // A server that was just started grants nothing for one lease: it may have forgotten somebody.
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
}
