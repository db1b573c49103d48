//! The child program: takes permits as its standard input orders, and prints a line for each event.
//!
//! | command | answer |
//! |---|---|
//! | `acquire N K [ms]` | `queued N` or nothing, then `held N token permits` or `failed N kind text` |
//! | `try N K` | `held N …`, `none` or `failed N …` |
//! | `release N`, `drop N` | `released N`, `released N kind` on failure |
//! | `cancel N` | `cancelled N` |
//! | `freeze N` / `thaw N` | `frozen N` / `thawed N`: the future is kept and not polled in between |
//! | `resize N LIMIT` | `queued N` or nothing, then `resized N` or `failed N kind text` |
//! | `limit` | `limit n` |
//! | `open LIMIT` | `opened` or `unopened kind text`: one more handle, which is closed again |
//! | `status` | `status polling waiters` |
//! | `remove` | `removed`, `in-use` or `unremoved kind text` |
//! | `files N` | `at most n`: limits the open files from now on |
//! | `count WHAT` | `count n`: of `fd` or `task` in `/proc/self` |
//! | `storm ROUNDS TASKS` | `stormed`; 0 rounds: until `enough` |
//! | `pester K` | nothing; tries again and again until `enough`, then `pestered n`: the number of grants |
//! | `end` | the process ends regularly |

use std::future::IntoFuture;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stanchion::{FifoPermit, FifoSemaphore, Removal, SemaphoreOptions};

use crate::crew::child::{self, Orders, Places, failed, say};

#[path = "storming.rs"]
mod storming;

/// The name of the semaphore in every test.
pub(crate) const NAME: &str = "pool";

pub(crate) fn main() {
    let home = child::path("HOLDER_HOME");
    child::block_on(obey(&home));
}

fn options(limit: Option<&str>) -> SemaphoreOptions {
    let options = child::paced!(FifoSemaphore::options().label("holder"));
    match limit.and_then(|it| it.parse().ok()) {
        Some(limit) => options.limit(limit),
        None => options,
    }
}

async fn obey(home: &Path) {
    let limit = std::env::var("HOLDER_LIMIT").ok();
    let semaphore = match options(limit.as_deref()).open(home, NAME) {
        Ok(semaphore) => semaphore,
        Err(error) => return say(format_args!("unopened {:?} {error}", error.kind())),
    };
    say("ready");
    let mut commands = child::commands();
    let mut holder = Holder {
        semaphore,
        places: Places::default(),
        enough: Arc::default(),
    };
    while let Some(line) = commands.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        holder.act(&words, home).await;
    }
}

struct Holder {
    semaphore: FifoSemaphore,
    places: Places,
    enough: Arc<AtomicBool>,
}

impl Holder {
    async fn act(&mut self, words: &[&str], home: &Path) {
        let number = |index: usize| words.get(index).and_then(|it| it.parse::<u64>().ok());
        let place = number(1).unwrap_or(0) as u32;
        let permits = number(2).unwrap_or(1) as u32;
        match words[0] {
            "acquire" => self.acquire(place, permits, number(3)),
            "try" => self.try_once(place, permits),
            "release" | "drop" | "cancel" | "freeze" | "thaw" => {
                self.places.act(words[0], place).await;
            }
            "resize" => self.resize(place, permits),
            "limit" => say(format_args!("limit {}", self.semaphore.limit())),
            "available" => match self.semaphore.available() {
                Ok(free) => say(format_args!("available {free}")),
                Err(error) => say(format_args!("uncounted {:?} {error}", error.kind())),
            },
            "open" => match options(words.get(1).copied()).open(home, NAME) {
                Ok(_) => say("opened"),
                Err(error) => say(format_args!("unopened {:?} {error}", error.kind())),
            },
            "status" => match self.semaphore.status() {
                Ok(it) => say(format_args!("status {} {}", it.polling, it.waiters.len())),
                Err(error) => say(format_args!("status {:?} {error}", error.kind())),
            },
            "remove" => match self.semaphore.remove() {
                Ok(Removal::Removed) => say("removed"),
                Ok(_) => say("in-use"),
                Err(error) => say(format_args!("unremoved {:?} {error}", error.kind())),
            },
            "files" => {
                child::limit_files(number(1).expect("a number of files"));
                say(format_args!("at most {place}"));
            }
            "count" => child::count(words[1]),
            "storm" => self.storm(number(1).unwrap_or(0), place_count(number(2))),
            "pester" => storming::pester(self.semaphore.clone(), place, self.enough.clone()),
            "enough" => self.enough.store(true, Ordering::SeqCst),
            other => panic!("what is {other:?}?"),
        }
    }

    fn acquire(&mut self, number: u32, permits: u32, limit: Option<u64>) {
        let limit = limit.map(Duration::from_millis);
        let acquire = self.semaphore.acquire_many(permits).timeout(limit);
        self.places.begin(number, |orders, freeze| async move {
            match child::wait(number, acquire.into_future(), freeze).await {
                Ok(permit) => hold(number, permit, orders).await,
                Err(error) => failed(number, &error),
            }
        });
    }

    fn resize(&mut self, number: u32, limit: u32) {
        let semaphore = self.semaphore.clone();
        self.places.begin(number, |_, freeze| async move {
            match child::wait(number, semaphore.resize(limit), freeze).await {
                Ok(()) => say(format_args!("resized {number}")),
                Err(error) => failed(number, &error),
            }
        });
    }

    fn try_once(&mut self, number: u32, permits: u32) {
        match self.semaphore.try_acquire_many(permits) {
            Ok(None) => say("none"),
            Err(error) => failed(number, &error),
            Ok(Some(permit)) => self
                .places
                .begin(number, |orders, _| hold(number, permit, orders)),
        }
    }

    fn storm(&self, rounds: u64, tasks: usize) {
        let storm = storming::Storm::new(&self.semaphore, rounds, self.enough.clone());
        tokio::spawn(storm.run(tasks));
    }
}

fn place_count(number: Option<u64>) -> usize {
    number.unwrap_or(1) as usize
}

async fn hold(number: u32, permit: FifoPermit, mut orders: Orders) {
    let permits = permit.slot_paths().len();
    say(format_args!("held {number} {} {permits}", permit.token()));
    let result = match orders.recv().await.as_deref() {
        Some("release") => permit.release().await,
        _ => {
            drop(permit);
            Ok(())
        }
    };
    match result {
        Ok(()) => say(format_args!("released {number}")),
        Err(error) => say(format_args!("released {number} {:?}", error.kind())),
    }
}
