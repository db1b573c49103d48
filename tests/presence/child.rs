//! The child program: takes locks as its standard input orders.
//!
//! | command | answer |
//! |---|---|
//! | `acquire` | `held token crashed` or `failed kind text` |
//! | `try` | the same, or `none` |
//! | `release` | `released`, or `failed kind text` |
//! | `is-held` | `yes` or `no` |
//! | `watch` | `watching`, and when the lock is lost: `lost reason` |
//! | `beside PATH` | takes the lock of another path as well: `beside`. When that is lost: `beside lost reason` |
//! | `let-go` | releases that: `let-go` |
//! | `crowd COUNT` | that many tasks begin to wait, half of them with a handle of their own: `waiting` |
//! | `drop COUNT` | that many of them are dropped: `dropped` |
//! | `serve` | the others acquire and release: `served COUNT` |
//! | `race FIRST LAST` | tries the locks `FIRST..LAST` beside its own, keeps those that it wins: `won N N …` |
//! | `storm ROUNDS` | adds one to a number in a file, that often, under the lock: `stormed` |
//! | `remove` | `removed` or `in-use`, or `failed kind text`; claims only |
//! | `status` | `held PID`, the holder's as the lock shows it, or `free` |
//! | `pid` | its pid as it sees it |
//! | `exec` | the process executes this program once more, in its place: `ready` |
//! | `die` | the process ends as by `kill -9` |
//! | `end` | the process ends regularly |

use std::io::BufRead;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use stanchion::{Acquire, AnyGuard, AnyLock, LockDir, Method, NamedLock, PidLock, Removal};

use crate::crew::child::{duration, path, say};
use crate::family::Kind;

/// A wait that has begun.
type Waiting = Pin<Box<Acquire<AnyGuard>>>;

/// The lock of this path, of the kind that the parent has set, without a safety net.
fn open(path: &Path) -> AnyLock {
    let method = match Kind::of_child() {
        Kind::Pid => {
            let options = PidLock::options().poll_interval(Duration::MAX);
            return options.open(path).expect("a lock").into();
        }
        Kind::Mkdir => Method::Mkdir,
        Kind::CreateNew => Method::CreateNew,
    };
    let options = LockDir::options()
        .method(method)
        .expire(duration("PRESENCE_EXPIRE"));
    let options = options.poll_interval(Duration::MAX);
    let locks = options.open(path.parent().expect("a directory"));
    let name = path.file_stem().and_then(|it| it.to_str()).expect("a name");
    let lock = locks.and_then(|it| it.lock(None, name));
    lock.expect("a lock").into()
}

fn told(result: stanchion::Result<AnyGuard>) -> Option<AnyGuard> {
    match result {
        Ok(guard) => {
            let token = guard.token().unwrap_or(0);
            say(format_args!("held {token} {}", guard.predecessor_crashed()));
            Some(guard)
        }
        Err(error) => {
            say(format_args!("failed {:?} {error}", error.kind()));
            None
        }
    }
}

pub(crate) fn main() {
    let path = path("PRESENCE_PATH");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let lock = open(&path);
    let (mut guard, mut beside) = (None, None);
    let mut crowd = Vec::new();
    say("ready");
    let mut lines = std::io::stdin().lock().lines();
    while let Some(line) = lines.next() {
        let line = line.expect("a line");
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["acquire"] => guard = told(runtime.block_on(lock.acquire())),
            ["try"] => match runtime.block_on(lock.try_acquire()) {
                Ok(None) => say("none"),
                other => guard = told(other.map(|it| it.expect("there"))),
            },
            ["release"] => match runtime.block_on(guard.take().expect("held").release()) {
                Ok(()) => say("released"),
                Err(error) => say(format_args!("failed {:?} {error}", error.kind())),
            },
            ["is-held"] => {
                let held = guard.as_ref().is_some_and(|it| it.is_held());
                say(if held { "yes" } else { "no" });
            }
            ["watch"] => {
                let lost = guard.as_ref().expect("held").lost();
                runtime.spawn(async move { say(format_args!("lost {:?}", lost.await)) });
                say("watching");
            }
            ["beside", path] => {
                let taken = runtime.block_on(open(Path::new(path)).acquire());
                let taken = beside.insert(taken.expect("the lock"));
                let lost = taken.lost();
                runtime.spawn(async move { say(format_args!("beside lost {:?}", lost.await)) });
                say("beside");
            }
            ["let-go"] => {
                drop(beside.take());
                say("let-go");
            }
            ["crowd", count] => {
                crowd = runtime.block_on(begin_to_wait(&lock, &path, number(count)));
                say("waiting");
            }
            ["drop", count] => {
                crowd.truncate(crowd.len() - number(count));
                say("dropped");
            }
            ["serve"] => {
                let tasks = std::mem::take(&mut crowd);
                let tasks = tasks
                    .into_iter()
                    .map(|wait| runtime.spawn(pass_through(wait)));
                let served = runtime.block_on(join_all(tasks)).len();
                say(format_args!("served {served}"));
            }
            ["race", first, last] => {
                let won = runtime.block_on(race(&path, number(first), number(last)));
                // Held until all have tried. The parent sends a line then.
                lines.next().expect("a line").expect("a line");
                drop(won);
                say("let-go");
            }
            ["storm", rounds] => {
                let counter = path.with_extension("counter");
                runtime.block_on(storm(&counter, &lock, number(rounds)));
            }
            ["remove"] => remove(&lock),
            ["status"] => match runtime.block_on(lock.status()).expect("a status").holder {
                Some(owner) => say(format_args!("held {}", owner.pid.unwrap_or(0))),
                None => say("free"),
            },
            ["pid"] => say(std::process::id()),
            ["exec"] => panic!("not executed: {}", once_more().exec()),
            ["die"] => {
                let own = rustix::process::getpid();
                let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            }
            ["end"] => break,
            _ => panic!("unknown command {line:?}"),
        }
    }
}

/// This program, with the same arguments and the same environment.
fn once_more() -> Command {
    let mut arguments = std::env::args_os();
    let program = arguments.next().expect("a name");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Returns that many futures that wait. Every other one has a handle of its own.
async fn begin_to_wait(lock: &AnyLock, path: &Path, count: usize) -> Vec<Waiting> {
    let begin = |index| {
        let handle = match index % 2 {
            0 => lock.clone(),
            _ => open(path),
        };
        let mut wait = Box::pin(handle.acquire());
        assert!(wait.as_mut().now_or_never().is_none(), "it waits");
        wait
    };
    (0..count).map(begin).collect()
}

async fn pass_through(wait: Waiting) {
    let guard = wait.await.expect("the lock");
    guard.release().await.expect("released");
}

fn remove(lock: &AnyLock) {
    let lock = lock.downcast_ref::<NamedLock>().expect("a claim");
    match lock.remove() {
        Ok(Removal::Removed) => say("removed"),
        Ok(_) => say("in-use"),
        Err(error) => say(format_args!("failed {:?} {error}", error.kind())),
    }
}

/// One of many locks beside the first.
pub(crate) fn numbered(path: &Path, index: usize) -> PathBuf {
    path.with_file_name(format!("it-{index}.lock"))
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}

/// Tries one lock after the other, and returns those that it has won.
async fn race(path: &Path, first: usize, last: usize) -> Vec<(usize, AnyGuard)> {
    let mut won = Vec::new();
    for index in first..last {
        let lock = open(&numbered(path, index));
        if let Some(guard) = lock.try_acquire().await.expect("no error") {
            won.push((index, guard));
        }
    }
    let numbers: Vec<_> = won.iter().map(|(index, _)| index.to_string()).collect();
    say(format_args!("won {}", numbers.join(" ")));
    won
}

/// Reads a number, adds one, writes it back, so that a lost update shows.
async fn storm(counter: &Path, lock: &AnyLock, rounds: usize) {
    for _ in 0..rounds {
        let guard = lock.acquire().await.expect("the lock");
        let text = std::fs::read_to_string(counter).unwrap_or_default();
        let next = text.parse().unwrap_or(0_u64) + 1;
        std::fs::write(counter, next.to_string()).expect("written");
        drop(guard);
    }
    say("stormed");
}
