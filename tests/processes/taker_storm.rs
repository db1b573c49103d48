//! The storm of the child program: many tasks acquire and release an exclusive lock, and some give
//! up waiting.

use std::fs::OpenOptions;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::task::Poll;

use super::kind::{AnyLock, Wish};
use crate::crew::Dice;
use crate::crew::child::failed;

pub(super) async fn storm(lock: &AnyLock, rounds: u64, tasks: u64, leave: u64) {
    let work = (0..tasks).map(|task| {
        let lock = lock.clone();
        tokio::spawn(async move {
            let mut dice = Dice(u64::from(std::process::id()) * 1_000 + task + 1);
            for _ in 0..rounds {
                let gives_up = leave > 0 && dice.below(leave) == 0;
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
    let result = match futures::poll!(&mut acquire) {
        Poll::Ready(result) => result,
        Poll::Pending if gives_up => return tokio::task::yield_now().await,
        Poll::Pending => acquire.await,
    };
    let guard = match result {
        Ok(guard) => guard,
        Err(error) => return failed(0, &error),
    };
    inside(lock.path(), guard.token());
    if let Err(error) = guard.release().await {
        failed(0, &error);
    }
}

/// What the lock protects: a counter without atomics, and a log of the holders.
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
    counter.rewind().expect("its start");
    counter.write_all(next.as_bytes()).expect("one more");
    note("out");
}
