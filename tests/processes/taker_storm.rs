//! The storm of the child program: many tasks go in and out of a lock that is for one alone, some give up waiting.

use std::fs::OpenOptions;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::task::Poll;

use super::kind::{AnyLock, Wish};
use super::say;

pub(super) async fn storm(lock: &AnyLock, rounds: u64, tasks: u64, leave: u64) {
    let work = (0..tasks).map(|task| {
        let lock = lock.clone();
        tokio::spawn(async move {
            let mut dice = u64::from(std::process::id()) * 1_000 + task + 1;
            for _ in 0..rounds {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let gives_up = leave > 0 && (dice >> 33) % leave == 0;
                one_round(&lock, gives_up).await;
            }
        })
    });
    for task in work.collect::<Vec<_>>() {
        task.await.expect("a round");
    }
}

async fn one_round(lock: &AnyLock, gives_up: bool) {
    let mut acquire = lock.acquire(Wish::Alone, None);
    let first = poll_fn(|context| Poll::Ready(acquire.as_mut().poll(context))).await;
    let result = match first {
        Poll::Ready(result) => result,
        Poll::Pending if gives_up => return tokio::task::yield_now().await,
        Poll::Pending => acquire.await,
    };
    let guard = match result {
        Ok(guard) => guard,
        Err(error) => return say(format_args!("failed 0 {:?} {error}", error.kind())),
    };
    inside(lock.path(), guard.token());
    if let Err(error) = guard.release().await {
        say(format_args!("failed 0 {:?} {error}", error.kind()));
    }
}

/// What the lock protects: a counter without any atomics, and a log of who was inside.
fn inside(lock: &Path, token: u64) {
    let file = |extension| -> PathBuf { lock.with_extension(extension) };
    let open = |path: &Path| OpenOptions::new().append(true).create(true).open(path);
    let mut log = open(&file("log")).expect("the log");
    let pid = std::process::id();
    let mut note = |what: &str| {
        let line = format!("{what} {token} {pid}\n");
        log.write_all(line.as_bytes()).expect("a line in the log");
    };
    note("in");
    let mut counter = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(file("counter"))
        .expect("the counter");
    let mut text = String::new();
    counter.read_to_string(&mut text).expect("its value");
    let value: u64 = text.trim().parse().unwrap_or(0);
    std::thread::yield_now();
    let next = format!("{:020}", value + 1);
    std::os::unix::fs::FileExt::write_all_at(&counter, next.as_bytes(), 0).expect("one more");
    note("out");
}
