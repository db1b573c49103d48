//! Two copies of the example `web`, real processes, around one lock: what they answer, and what their page shows.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // The tests play those who do what the crate must not.

use std::io::Read;

use serde_json::{Value, json};
use stanchion::{FifoGuard, FifoLock};
use tempfile::TempDir;

#[path = "web/browser.rs"]
mod browser;
#[path = "web/http.rs"]
mod http;
#[path = "web/started.rs"]
#[allow(dead_code)]
mod started;

use browser::Browser;
use http::{Answer, Asked, Line, ask, connect};
use started::{Started, example};

/// Work that takes longer than any test, in milliseconds.
const LONG: u64 = 60_000;

/// Two servers, and a lock that the test can take itself.
struct Scene {
    a: Server,
    b: Server,
    lock: FifoLock,
    _scratch: TempDir,
}

struct Server {
    program: Started,
    port: u16,
}

impl Scene {
    fn new(most: usize) -> Self {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let lock = FifoLock::options()
            .label("the test")
            .open(scratch.path().join("web.lock"));
        let lock = lock.expect("a lock");
        Self {
            a: Server::start(&lock, most),
            b: Server::start(&lock, most),
            lock,
            _scratch: scratch,
        }
    }

    fn hold(&self) -> FifoGuard {
        self.lock.blocking_acquire(None).expect("the lock")
    }
}

impl Server {
    fn start(lock: &FifoLock, most: usize) -> Self {
        let path = lock.path().to_str().expect("a plain path").to_owned();
        let program = Started::new(example("web"), &[path, "0".into(), most.to_string()]);
        let port = program.after("listening on http://127.0.0.1:");
        Self {
            port: port.parse().expect("a port"),
            program,
        }
    }

    fn work(&self, ms: u64) -> Asked {
        ask("POST", self.port, &format!("/work?ms={ms}"), "")
    }

    fn pid(&self) -> u32 {
        self.program.pid()
    }
}

fn pids(line: &Value) -> Vec<&Value> {
    let waiters = line["waiters"].as_array().expect("waiters");
    waiters.iter().map(|it| &it["pid"]).collect()
}

fn token(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["token"].as_u64().expect("a token")
}

#[test]
fn requests_are_served_in_order_of_arrival() {
    let scene = Scene::new(8);
    let guard = scene.hold();
    let mut line = Line::of(scene.a.port);
    let mut asked = Vec::new();
    for server in [&scene.a, &scene.b, &scene.a, &scene.b] {
        asked.push(server.work(1));
        line.until("the next one waits", |it| pids(it).len() == asked.len());
    }
    drop(guard);
    let answers = asked.into_iter().map(|it| token(&it.answer()));
    let tokens: Vec<_> = answers.collect();
    assert!(tokens.is_sorted(), "{tokens:?}");
}

#[test]
fn a_long_line_is_refused() {
    let scene = Scene::new(2);
    let guard = scene.hold();
    let mut line = Line::of(scene.a.port);
    let first = scene.a.work(0);
    line.until("one waits", |it| pids(it).len() == 1);
    let second = scene.b.work(0);
    line.until("two wait", |it| pids(it).len() == 2);

    let refused = scene.a.work(0).answer();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains(&"retry-after: 1".to_owned()));
    drop(guard);
    assert!(token(&first.answer()) < token(&second.answer()));
}

#[test]
fn a_client_that_goes_away_leaves_the_line() {
    let scene = Scene::new(8);
    let guard = scene.hold();
    let mut line = Line::of(scene.b.port);
    let waiting = scene.a.work(0);
    line.until("it waits", |it| pids(it).len() == 1);
    drop(waiting);
    line.until("it is gone", |it| pids(it).is_empty());
    drop(guard);
    assert!(token(&scene.b.work(0).answer()) > 0);
}

#[test]
fn the_line_shows_holder_and_waiters() {
    let scene = Scene::new(8);
    let guard = scene.hold();
    let mut line = Line::of(scene.b.port);
    let _first = scene.a.work(0);
    line.until("one waits", |it| pids(it).len() == 1);
    let _second = scene.b.work(0);
    let seen = line.until("two wait", |it| pids(it).len() == 2);

    assert_eq!(seen["server"], scene.b.pid());
    assert_eq!(seen["holder"]["pid"], std::process::id());
    assert_eq!(seen["holder"]["label"], "the test");
    assert!(seen["holder"]["since"].as_u64() <= seen["now"].as_u64());
    assert_eq!(seen["last_token"], guard.token());
    assert_eq!(pids(&seen), [scene.a.pid(), scene.b.pid()]);
    let labels = [&scene.a, &scene.b].map(|it| format!("web :{}", it.port));
    let waiters = [&seen["waiters"][0], &seen["waiters"][1]];
    assert_eq!(waiters.map(|it| &it["label"]), [&labels[0], &labels[1]]);
    drop(guard);
    line.until("nobody is left", |it| {
        it["holder"].is_null() && pids(it).is_empty()
    });
}

#[test]
fn a_killed_server_holds_up_nobody() {
    let mut scene = Scene::new(8);
    let mut line = Line::of(scene.b.port);
    let _lost = scene.a.work(LONG);
    let pid = scene.a.pid();
    let before = line.until("A is inside", |it| it["holder"]["pid"] == pid);
    let asked = scene.b.work(0);
    line.until("B waits", |it| pids(it) == [scene.b.pid()]);

    scene.a.program.kill();
    let answer = asked.answer();
    assert!(Some(token(&answer)) > before["last_token"].as_u64());
    assert_eq!(answer.json()["after_crash"], true);
}

#[test]
fn a_server_that_is_told_to_stop_sends_waiters_away() {
    let scene = Scene::new(8);
    let _guard = scene.hold();
    // As browsers do, to be quick later. Before the next one, so that it is accepted when that is answered.
    let mut silent = connect(scene.a.port);
    let mut line = Line::of(scene.a.port);
    let waiting = scene.a.work(0);
    line.until("it waits", |it| pids(it).len() == 1);

    scene.a.program.terminate();
    let refused = waiting.answer();
    assert_eq!(refused.status, 503, "{refused:?}");
    while line.next().is_some() {}
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    assert!(scene.a.program.end().success());
    let left = scene.lock.status().expect("the line");
    assert!(left.waiters.is_empty(), "{left:?}");
}

#[test]
fn a_server_that_is_told_to_stop_finishes_its_work() {
    let scene = Scene::new(8);
    let mut line = Line::of(scene.b.port);
    let working = scene.a.work(500);
    line.until("A has been inside", |it| it["last_token"] != 0);

    scene.a.program.terminate();
    assert!(token(&working.answer()) > 0);
    assert!(scene.a.program.end().success());
    let left = scene.lock.status().expect("the line");
    assert!(left.holder.is_none(), "{left:?}");
}

/// The rows of the page: who they are, and what place they show.
const ROWS: &str = "
    const rows = [...document.querySelectorAll('#line li')];
    const shown = rows.map(it => [+it.dataset.pid, it.querySelector('.place').textContent]);
";

#[test]
fn the_page_moves_with_the_line() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let mut scene = Scene::new(8);
    let [a, b, test] = [scene.a.pid(), scene.b.pid(), std::process::id()];
    let shows = |rows: Value| {
        let same = "return JSON.stringify(shown) === JSON.stringify(arguments[0])";
        browser.until(&format!("{ROWS} {same}"), json!([rows]));
    };
    browser.open(&format!("http://127.0.0.1:{}/", scene.a.port));
    browser.until(
        "return document.querySelector('#link.live')?.textContent.includes(arguments[0])",
        json!([a.to_string()]),
    );
    shows(json!([]));

    // B works, the page's own request waits, and this test behind it.
    let _lost = scene.b.work(LONG);
    shows(json!([[b, "inside"]]));
    browser.run(
        "document.querySelector('#ms').value = arguments[0]",
        json!([LONG]),
    );
    browser.click("#ask button");
    shows(json!([[b, "inside"], [a, "1"]]));
    let lock = scene.lock.clone();
    let last = std::thread::spawn(move || lock.blocking_acquire(None).expect("the lock"));
    shows(json!([[b, "inside"], [a, "1"], [test, "2"]]));
    browser.run(&format!("{ROWS} window.before = rows"), json!([]));

    // The row behind moves up; it is not drawn anew.
    scene.b.program.kill();
    shows(json!([[a, "inside"], [test, "1"]]));
    let same = "return rows[1] === before[2]";
    assert_eq!(browser.run(&format!("{ROWS} {same}"), json!([])), true);

    browser.click("#asked button"); // the page goes away from its work
    shows(json!([[test, "inside"]]));
    drop(last.join().expect("a guard"));
    shows(json!([]));

    // A browser that looks on does not hold up the end of a server, and tells it.
    scene.a.program.terminate();
    assert!(scene.a.program.end().success());
    browser.until("return !document.querySelector('#link.live')", json!([]));
}
