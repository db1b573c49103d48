//! The child program of the process tests: takes locks as its standard input orders, and prints a
//! line for each event.
//!
//! | command | answer |
//! |---|---|
//! | `acquire N [ms]` | `queued N` or nothing, then `held N token crashed waited-ms mode` or `failed N kind text` |
//! | `at-most N MOST` | as `acquire N`, with at most MOST waiters |
//! | `write N [ms]`, `read N [ms]` | the same of a reader-writer lock; the mode is `alone` or `read` |
//! | `release N`, `drop N`, `panic N` | `released N`, `released N kind` on failure |
//! | `cancel N` | `cancelled N` |
//! | `freeze N` / `thaw N` | `frozen N` / `thawed N`: the future is kept and not polled in between |
//! | `downgrade N` | `downgraded N token`: the writer becomes a reader |
//! | `try N`, `try-write N`, `try-read N` | `held N …` or `none` |
//! | `is-held N`, `is-locked` | `yes` or `no` |
//! | `status` | `status polling failures token waiters holder-pid` |
//! | `remove` | `removed` or `in-use` |
//! | `storm ROUNDS TASKS LEAVE` | `stormed`; one in LEAVE waits is given up; 0: none |
//! | `mixed …` | see [`mixed`] |
//! | `settled` | `settled n` when only an event can wake this process, which has slept n times; else `settled no` |
//! | `count WHAT` | `count n`: of `fd` or `task` in `/proc/self` |
//! | `limit N` | `limited`: from now on at most N open files |
//! | `touch` | `touched`: opens and closes the lock file |
//! | `umask` | `umask bits` |
//! | `list-files` | one `file target` for each descriptor that a program run by exec finds, then `listed` |
//! | `spawn` | `spawned pid`: a program run by exec that lives on |
//! | `fork …` | see [`fork`] |
//! | `end` | the process ends regularly |
#![allow(dead_code)] // Each test binary uses a part.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use stanchion::{FifoGuard, Removal};

use crate::crew::child::{self, Orders, Places, failed, say};

#[cfg(unix)]
#[path = "taker_fork.rs"]
pub(crate) mod fork;
#[path = "taker_kind.rs"]
mod kind;
#[path = "taker_mixed.rs"]
mod mixed;
#[path = "taker_storm.rs"]
mod storm;

use kind::{AnyGuard, AnyLock, Wish};
use mixed::mixed;
use storm::storm;

pub(crate) fn main() {
    let path = child::path("TAKER_LOCK");
    child::block_on(obey(&path));
}

async fn obey(path: &Path) {
    let lock = match AnyLock::open(path) {
        Ok(lock) => lock,
        Err(error) => return say(format_args!("unopened {:?} {error}", error.kind())),
    };
    say("ready");
    let mut commands = child::commands();
    let mut taker = Taker {
        lock,
        places: Places::default(),
        kept: None,
    };
    while let Some(line) = commands.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        taker.act(&words).await;
    }
}

struct Taker {
    lock: AnyLock,
    places: Places,
    /// The guard of the fork tests.
    kept: Option<FifoGuard>,
}

impl Taker {
    async fn act(&mut self, words: &[&str]) {
        let number = |index: usize| words.get(index).and_then(|it| it.parse::<u64>().ok());
        let slot = number(1).unwrap_or(0) as u32;
        match words[0] {
            "acquire" => self.acquire(slot, Wish::Alone, number(2)),
            "at-most" => {
                let most = number(2).expect("how many may wait") as usize;
                self.wait(slot, self.lock.acquire_at_most(most));
            }
            "write" => self.acquire(slot, Wish::Write, number(2)),
            "read" => self.acquire(slot, Wish::Read, number(2)),
            "release" | "drop" | "panic" | "downgrade" | "is-held" | "cancel" | "freeze"
            | "thaw" => {
                self.places.act(words[0], slot).await;
            }
            "try" => self.try_once(slot, Wish::Alone),
            "try-write" => self.try_once(slot, Wish::Write),
            "try-read" => self.try_once(slot, Wish::Read),
            "is-locked" => say(match self.lock.is_locked().expect("an answer") {
                true => "yes",
                false => "no",
            }),
            "status" => self.status(),
            "remove" => say(match self.lock.remove() {
                Ok(Removal::Removed) => "removed".to_owned(),
                Ok(_) => "in-use".to_owned(),
                Err(error) => format!("not-removed {:?} {error}", error.kind()),
            }),
            "storm" => {
                let leave = number(3).unwrap_or(0);
                storm(
                    &self.lock,
                    number(1).unwrap_or(1),
                    number(2).unwrap_or(1),
                    leave,
                )
                .await;
                say("stormed");
            }
            "mixed" => mixed(&self.lock, &words[1..]).await,
            #[cfg(stanchion_test)]
            "settled" => settled().await,
            "count" => child::count(words[1]),
            "touch" => {
                drop(
                    OpenOptions::new()
                        .read(true)
                        .write(true)
                        .open(self.lock.path()),
                );
                say("touched");
            }
            "limit" => {
                #[cfg(unix)]
                child::limit_files(number(1).expect("a number of files"));
                say("limited");
            }
            #[cfg(unix)]
            "umask" => say(format_args!("umask {:o}", umask())),
            "list-files" => list_files(),
            "spawn" => spawn(),
            #[cfg(unix)]
            _ => fork::act(words, self.lock.plain(), &mut self.kept),
            #[cfg(not(unix))]
            _ => panic!("not on this platform: {words:?}"),
        }
    }

    fn acquire(&mut self, number: u32, wish: Wish, limit: Option<u64>) {
        let limit = limit.map(Duration::from_millis);
        self.wait(number, self.lock.acquire(wish, limit));
    }

    fn wait(&mut self, number: u32, waits: kind::Waits) {
        self.places.begin(number, |orders, freeze| async move {
            match child::wait(number, waits, freeze).await {
                Ok(guard) => hold(number, guard, orders).await,
                Err(error) => failed(number, &error),
            }
        });
    }

    fn try_once(&mut self, number: u32, wish: Wish) {
        match self.lock.try_acquire(wish) {
            Ok(None) => say("none"),
            Err(error) => failed(number, &error),
            Ok(Some(guard)) => self
                .places
                .begin(number, |orders, _| hold(number, guard, orders)),
        }
    }

    fn status(&self) {
        match self.lock.status() {
            Ok(it) => say(format_args!(
                "status {} {} {} {} {}",
                it.polling,
                it.watch_failures,
                it.last_token,
                it.waiters.len(),
                it.holder.and_then(|holder| holder.pid).unwrap_or(0),
            )),
            Err(error) => say(format_args!("status {:?} {error}", error.kind())),
        }
    }
}

fn announce(number: u32, guard: &AnyGuard) {
    let crashed = u8::from(guard.predecessor_crashed());
    let waited = guard.waited().unwrap_or_default().as_millis();
    say(format_args!(
        "held {number} {} {crashed} {waited} {}",
        guard.token(),
        guard.mode()
    ));
}

async fn hold(number: u32, mut guard: AnyGuard, mut orders: Orders) {
    announce(number, &guard);
    loop {
        match orders.recv().await.as_deref() {
            Some("is-held") => say(match guard.is_held() {
                true => "yes",
                false => "no",
            }),
            Some("downgrade") => match guard.downgrade() {
                Ok(reader) => {
                    guard = reader;
                    say(format_args!("downgraded {number} {}", guard.token()));
                }
                Err(error) => return say(format_args!("downgraded {number} {:?}", error.kind())),
            },
            Some("release") => {
                return match guard.release().await {
                    Ok(()) => say(format_args!("released {number}")),
                    Err(error) => say(format_args!("released {number} {:?}", error.kind())),
                };
            }
            Some("drop") | None => {
                drop(guard);
                return say(format_args!("released {number}"));
            }
            Some("panic") => {
                panic_with(guard);
                return say(format_args!("released {number}"));
            }
            Some(order) => panic!("no such order: {order}"),
        }
    }
}

fn panic_with(guard: AnyGuard) {
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _guard = guard;
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(unwound.is_err());
}

/// Tasks that were woken before the question run, and print their lines, before the answer.
#[cfg(stanchion_test)]
async fn settled() {
    let rounds = stanchion::testing::settled();
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
    match rounds {
        Some(rounds) => say(format_args!("settled {rounds}")),
        None => say(format_args!(
            "settled no {}",
            stanchion::testing::unsettled()
        )),
    }
}

fn list_files() {
    let listing = std::process::Command::new("ls")
        .args(["-l", "/proc/self/fd"])
        .output()
        .expect("ls");
    for line in String::from_utf8_lossy(&listing.stdout).lines() {
        if let Some((_, target)) = line.split_once(" -> ") {
            say(format_args!("file {target}"));
        }
    }
    say("listed");
}

fn spawn() {
    let null = || std::process::Stdio::null();
    let mut command = std::process::Command::new("sleep");
    let child = command
        .arg("60")
        .stdin(null())
        .stdout(null())
        .stderr(null())
        .spawn();
    say(format_args!("spawned {}", child.expect("sleep").id()));
}

/// The file mode mask, read by setting it twice.
#[cfg(unix)]
fn umask() -> rustix::fs::RawMode {
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o77));
    rustix::process::umask(mask);
    mask.bits()
}
