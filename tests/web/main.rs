//! Two copies of the example `web`, real processes, with one lock: their answers, and what their
//! page shows. Each test runs with a lock on files. With the feature `redis` it also runs with a
//! lock on a Redis server. The example does not know the difference.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::io::Read;

use futures::executor::block_on;
use serde_json::{Value, json};

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod browser;
#[path = "../crew/mod.rs"]
mod crew;
mod http;
mod pretender;
#[cfg(feature = "redis")]
#[path = "../redis/server.rs"]
mod redis_server;
mod scene;
mod started;

use browser::Browser;
use http::{Answer, Line, connect};
use pretender::Pretender;
use scene::{Place, Scene};
use started::example;

/// Work that takes longer than any test, in milliseconds.
const LONG: u64 = 60_000;

macro_rules! everywhere {
    ($($test:ident)*) => {
        mod on_files {
            $(#[test]
            fn $test() {
                super::$test(super::Place::files());
            })*
        }

        #[cfg(feature = "redis")]
        mod on_redis {
            $(#[test]
            fn $test() {
                super::$test(need!(super::Place::redis()));
            })*
        }
    };
}

everywhere! {
    requests_are_served_in_order_of_arrival
    work_is_done_one_at_a_time
    a_long_queue_is_refused
    a_client_that_disconnects_leaves_the_queue
    the_queue_shows_holder_and_waiters
    a_killed_server_delays_no_waiter
    a_server_that_is_told_to_stop_sends_waiters_away
    a_server_that_is_told_to_stop_finishes_its_work
    the_page_moves_with_the_queue
}

fn pids(line: &Value) -> Vec<&Value> {
    let waiters = line["waiters"].as_array().expect("waiters");
    waiters.iter().map(|it| &it["pid"]).collect()
}

fn token(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["token"].as_u64().expect("a token")
}

fn requests_are_served_in_order_of_arrival(place: Place) {
    let scene = Scene::new(place, 8);
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

fn work_is_done_one_at_a_time(place: Place) {
    let scene = Scene::new(place, 100);
    let servers = [&scene.a, &scene.b];
    let asked: Vec<_> = (0..20).map(|it| servers[it % 2].work(20)).collect();
    let answers = asked.into_iter().map(|it| {
        let answer = it.answer();
        let time = |name| answer.json()[name].as_u64().expect("a time");
        (token(&answer), time("from"), time("to"))
    });
    let mut answers: Vec<_> = answers.collect();
    answers.sort_unstable();
    for pair in answers.windows(2) {
        let [(token, _, end), (next, begin, _)] = pair else {
            unreachable!("two of them");
        };
        assert!(token < next && end <= begin, "{answers:?}");
    }
}

fn a_long_queue_is_refused(place: Place) {
    let scene = Scene::new(place, 2);
    let guard = scene.hold();
    let mut line = Line::of(scene.a.port);
    let first = scene.a.work(0);
    line.until("one waits", |it| pids(it).len() == 1);
    let second = scene.b.work(0);
    line.until("two wait", |it| pids(it).len() == 2);

    let refused = scene.a.work(0).answer();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains(&"retry-after: 1".to_owned()));
    let said = refused.body.starts_with("too many wait: at most 2 may");
    assert!(said, "{refused:?}");
    drop(guard);
    assert!(token(&first.answer()) < token(&second.answer()));
}

fn a_client_that_disconnects_leaves_the_queue(place: Place) {
    let scene = Scene::new(place, 8);
    let guard = scene.hold();
    let mut line = Line::of(scene.b.port);
    let waiting = scene.a.work(0);
    line.until("it waits", |it| pids(it).len() == 1);
    drop(waiting);
    line.until("it is gone", |it| pids(it).is_empty());
    drop(guard);
    assert!(token(&scene.b.work(0).answer()) > 0);
}

fn the_queue_shows_holder_and_waiters(place: Place) {
    let scene = Scene::new(place, 8);
    let guard = scene.hold();
    let mut line = Line::of(scene.b.port);
    let _first = scene.a.work(0);
    line.until("one waits", |it| pids(it).len() == 1);
    let _second = scene.b.work(0);
    let seen = line.until("two wait", |it| pids(it).len() == 2);

    assert_eq!(seen["server"], scene.b.pid());
    assert_eq!(seen["holder"]["pid"], std::process::id());
    let own = block_on(scene.lock.status())
        .expect("the status")
        .holder
        .expect("this test");
    assert_eq!(seen["holder"]["host"], json!(own.host));
    assert!(seen["holder"]["since"].as_u64() <= seen["now"].as_u64());
    assert_eq!(seen["last_token"], json!(guard.token()));
    assert_eq!(pids(&seen), [scene.a.pid(), scene.b.pid()]);
    for (waiter, port) in [(0, scene.a.port), (1, scene.b.port)] {
        let waiter = &seen["waiters"][waiter];
        assert_eq!(waiter["label"], format!("web at port {port}"));
        assert_eq!(waiter["here"], port == scene.b.port);
        let elsewhere = port == scene.a.port;
        assert_eq!(waiter["crowd"], elsewhere && scene.is_on_files());
    }
    assert_eq!(seen["lock"], format!("{}#web", scene.url()));
    drop(guard);
    line.until("the queue is empty", |it| {
        it["holder"].is_null() && pids(it).is_empty()
    });
}

fn a_killed_server_delays_no_waiter(place: Place) {
    let mut scene = Scene::new(place, 8);
    let mut line = Line::of(scene.b.port);
    let _lost = scene.a.work(LONG);
    let pid = scene.a.pid();
    let before = line.until("A holds the lock", |it| it["holder"]["pid"] == pid);
    let asked = scene.b.work(0);
    line.until("B waits", |it| pids(it) == [scene.b.pid()]);

    scene.a.program.kill();
    let answer = asked.answer();
    assert!(Some(token(&answer)) > before["last_token"].as_u64());
    assert_eq!(answer.json()["after_crash"], true);
}

fn a_server_that_is_told_to_stop_sends_waiters_away(place: Place) {
    let scene = Scene::new(place, 8);
    let _guard = scene.hold();
    // Browsers connect ahead. This connection is made before the next one, so it is accepted when
    // that one is answered.
    let mut silent = connect(scene.a.port);
    let mut line = Line::of(scene.a.port);
    let waiting = scene.a.work(0);
    line.until("it waits", |it| pids(it).len() == 1);

    scene.a.program.terminate();
    let refused = waiting.answer();
    assert_eq!(refused.status, 503, "{refused:?}");
    while line.next().is_some() {}
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    scene.a.program.ends_well();
    // At once, or when the Redis server has not heard from it for long enough.
    let mut left = Line::of(scene.b.port);
    left.until("it is gone", |it| pids(it).is_empty());
}

fn a_server_that_is_told_to_stop_finishes_its_work(place: Place) {
    let scene = Scene::new(place, 8);
    let mut line = Line::of(scene.b.port);
    let before = line.next().expect("a picture")["last_token"].clone();
    let working = scene.a.work(500);
    line.until("A has held the lock", |it| it["last_token"] != before);

    scene.a.program.terminate();
    assert!(token(&working.answer()) > 0);
    scene.a.program.ends_well();
    let left = block_on(scene.lock.status()).expect("the status");
    assert!(left.holder.is_none(), "{left:?}");
}

/// The rows of the page: their labels and positions.
const ROWS: &str = "
    const rows = [...document.querySelectorAll('#line li')];
    const shown = rows.map(it => [+it.dataset.pid, it.querySelector('.place').textContent]);
";

fn the_page_moves_with_the_queue(place: Place) {
    let browser = need!(Browser::start());
    let mut scene = Scene::new(place, 8);
    let [a, b, test] = [scene.a.pid(), scene.b.pid(), std::process::id()];
    let shows = |rows: Value| {
        let same = "return JSON.stringify(shown) === JSON.stringify(arguments[0])";
        browser.until(&format!("{ROWS} {same}"), json!([rows]));
    };
    browser.open(&format!("http://127.0.0.1:{}/", scene.a.port));
    browser.until(
        "return document.querySelector('.live #link')?.textContent.includes(arguments[0])",
        json!([a.to_string()]),
    );
    shows(json!([]));

    // B works, the page's own request waits, and this test waits behind it.
    let _lost = scene.b.work(LONG);
    shows(json!([[b, "holds"]]));
    browser.run(
        "document.querySelector('#ms').value = arguments[0]",
        json!([LONG]),
    );
    browser.click("#ask button");
    shows(json!([[b, "holds"], [a, "1"]]));
    let lock = scene.lock.clone();
    let last = std::thread::spawn(move || block_on(lock.acquire()).expect("the lock"));
    shows(json!([[b, "holds"], [a, "1"], [test, "2"]]));
    browser.run(&format!("{ROWS} window.before = rows"), json!([]));

    // The row behind moves up. It is not drawn again.
    scene.b.program.kill();
    shows(json!([[a, "holds"], [test, "1"]]));
    let same = "return rows[1] === before[2]";
    assert_eq!(browser.run(&format!("{ROWS} {same}"), json!([])), true);

    browser.click("#asked button"); // the page goes away from its work
    shows(json!([[test, "holds"]]));
    drop(last.join().expect("a guard"));
    shows(json!([]));

    // An open page does not delay the end of a server, and is informed of it.
    scene.a.program.terminate();
    scene.a.program.ends_well();
    browser.until("return document.querySelector('body.stale')", json!([]));
}

/// What the page shows while it has no connection, and in its rows: names, and which waiters count
/// as one.
#[test]
fn the_page_says_what_it_does_not_know() {
    let browser = need!(Browser::start());
    let server = Pretender::start();
    let is = |condition: &str| browser.until(&format!("return {condition}"), json!([]));
    let text = |of: &str| {
        let script = format!("return document.querySelector('{of}').textContent");
        browser
            .run(&script, json!([]))
            .as_str()
            .expect("a text")
            .to_owned()
    };
    let style = "getComputedStyle(document.querySelector('#line'";
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a time");
    let now = u64::try_from(now.as_millis()).expect("a time");
    let holder = json!({ "label": "night shift", "pid": 5, "host": "h", "since": now - 9_000 });
    let waiter = json!({ "pid": 6, "host": "h", "since": now, "here": false, "crowd": true });
    let line = json!({
        "lock": "file:///x#web", "server": 4, "now": now, "holder": holder, "waiters": [waiter],
        "last_token": 7, "most": 8,
    });

    // Nothing is known yet, and nothing is shown as known.
    browser.open(&format!("http://127.0.0.1:{}/", server.port));
    let mut listener = server.listener();
    is("document.querySelector('body.connecting')");
    assert_eq!(
        (text("#link").as_str(), text("#count").as_str()),
        ("connecting", "")
    );
    is(&format!(
        "{style}), '::before').content.includes('Connecting')"
    ));

    listener.begin();
    listener.tell(&line);
    is("document.querySelector('body.live')");
    assert_eq!(text("#line .holds .who"), "night shiftpid 5 on h");
    assert_eq!(
        text("#line li:not(.holds) .who"),
        "pid 6on h (its requests count as one)"
    );
    assert_eq!(
        text("#count"),
        "– 0 wait on this server, and 1 elsewhere; at most 8 may wait"
    );

    // The server dies. The page shows the last queue in grey, with its age, and its times stand
    // still.
    drop(listener);
    let says = |said: &str| {
        is(&format!(
            "document.querySelector('#link').textContent === '{said}'"
        ))
    };
    says("the server does not answer, connecting again");
    is(&format!("{style})).filter.startsWith('grayscale')"));
    let (time, age) = (text("#line .holds .time"), text("#age"));
    assert!(age.starts_with("The queue as it was "), "{age}");
    let older = "document.querySelector('#age').textContent !== arguments[0]";
    browser.until(&format!("return {older}"), json!([age]));
    assert_eq!(text("#line .holds .time"), time);

    // Another server answers, and then stops answering.
    let mut listener = server.listener();
    listener.begin();
    listener.tell(&line);
    is("document.querySelector('body.live') && document.querySelector('#age').textContent === ''");
    says("no news from the server");
    is("document.querySelector('body.stale')");

    // The page shows that nothing is known.
    listener.tell(&json!({ "trouble": "no server of locks" }));
    is("document.querySelector('#trouble').textContent === 'no server of locks'");
    says("the lock does not answer");
    is("document.querySelector('body.stale')");
}

#[cfg(feature = "redis")]
#[test]
fn a_server_of_locks_that_is_gone_is_reported() {
    let mut scene = Scene::new(need!(Place::redis()), 8);
    let mut line = Line::of(scene.a.port);
    line.until("it is there", |it| it["trouble"].is_null());
    scene.kill_redis();
    line.until("it is gone", |it| it["trouble"].is_string());
    let refused = scene.b.work(0).answer();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains(&"retry-after: 1".to_owned()));
    if let Some(browser) = Browser::start() {
        browser.open(&format!("http://127.0.0.1:{}/", scene.a.port));
        let told = "document.querySelector('#trouble').textContent";
        let unknown = "document.querySelector('body.connecting')";
        browser.until(&format!("return {told} !== '' && {unknown}"), json!([]));
    }
}

#[test]
fn what_cannot_be_had_is_said() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let nobody = format!("redis+unix://{}", scratch.path().join("nobody").display());
    let said = match cfg!(feature = "redis") {
        true => "web: ",
        false => "web: redis+unix: URLs need the feature `redis`",
    };
    for (url, said) in [("/run/app", "web: not a URL of locks"), (&nobody, said)] {
        let output = std::process::Command::new(example("web")).arg(url).output();
        let output = output.expect("the example is built");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            told.starts_with(said) && told.lines().count() == 1,
            "{told}"
        );
    }
}
