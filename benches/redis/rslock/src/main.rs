//! A process that takes a lock of the crate `rslock`. `process.rs` of the bench lists its orders
//! and answers; `player.rs` is the same with a lock of Stanchion.
//!
//! `rslock-peer URL LOCK EXPIRY`, the expiry in seconds.

use std::io::{self, Write};
use std::time::Duration;

use rslock::{Lock, LockManager};
use rustix::time::{ClockId, clock_gettime};

/// Of a turn, as in `player.rs`.
const HOLD: Duration = Duration::from_millis(2);

/// Nanoseconds on the clock of the bench.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn say(line: &str) {
    let mut output = io::stdout().lock();
    let written = writeln!(output, "{line}").and_then(|()| output.flush());
    written.expect("the parent reads");
}

struct Peer {
    manager: LockManager,
    /// Tries once.
    impatient: LockManager,
    name: Vec<u8>,
    expiry: Duration,
}

impl Peer {
    fn new(url: &str, name: &str, expiry: Duration) -> Self {
        let mut impatient = LockManager::new(vec![url]);
        impatient.set_retry(1, Duration::from_millis(1));
        Self {
            manager: LockManager::new(vec![url]),
            impatient,
            name: name.as_bytes().to_vec(),
            expiry,
        }
    }

    async fn acquire(&self) -> Lock {
        let lock = self.manager.acquire_no_guard(&self.name[..], self.expiry);
        lock.await.expect("its turn")
    }

    /// Acquires. Calls `arrived` when a first attempt was refused.
    async fn acquire_in_sight(&self, arrived: impl FnOnce()) -> Lock {
        if let Ok(lock) = self.impatient.lock(&self.name[..], self.expiry).await {
            return lock;
        }
        arrived();
        self.acquire().await
    }

    async fn alone(&self, rounds: u64) {
        let mut took = Vec::new();
        for _ in 0..rounds {
            let begun = now();
            self.acquire().await.release().await;
            took.push(now() - begun);
        }
        took.sort_unstable();
        let at = |hundredth: usize| took[took.len() * hundredth / 100];
        say(&format!("took {} {}", at(50), at(99)));
    }

    async fn storm(&self, end: u64) {
        let mut count = 0;
        loop {
            let lock = self.acquire().await;
            let over = now() >= end;
            lock.release().await;
            if over {
                break;
            }
            count += 1;
        }
        say(&format!("stormed {count}"));
    }

    async fn turns(&self, pauses: &[u64]) {
        let mut told = "turned".to_owned();
        for pause in pauses {
            tokio::time::sleep(Duration::from_micros(*pause)).await;
            let asked = now();
            let mut arrived = None;
            let lock = self.acquire_in_sight(|| arrived = Some(now())).await;
            let acquired = now();
            tokio::time::sleep(HOLD).await;
            lock.release().await;
            told += &format!(" {asked} {} {acquired}", arrived.unwrap_or(acquired));
        }
        say(&told);
    }

    async fn obey(self) {
        // Connects by locking a name that no other process uses.
        let own = std::process::id().to_string();
        for manager in [&self.manager, &self.impatient] {
            let lock = manager.lock(own.as_bytes(), self.expiry).await;
            lock.expect("the server is there").release().await;
        }
        say("ready");
        let mut held = None;
        loop {
            let mut line = String::new();
            // The process ends with its parent.
            if io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let mut words = line.split_ascii_whitespace();
            let order = words.next().unwrap_or_default();
            let numbers: Vec<u64> = words.map(|it| it.parse().expect("a number")).collect();
            match order {
                "take" => {
                    held = Some(self.acquire_in_sight(|| say("waits")).await);
                    say(&format!("held {}", now()));
                }
                "give" => {
                    let given = now();
                    held.take().expect("it holds").release().await;
                    say(&format!("given {given}"));
                }
                "alone" => self.alone(numbers[0]).await,
                "storm" => self.storm(numbers[0]).await,
                "turns" => self.turns(&numbers).await,
                other => panic!("an unknown order: {other}"),
            }
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [url, name, expiry] = &words[..] else {
        panic!("URL LOCK EXPIRY");
    };
    let expiry = Duration::from_secs(expiry.parse().expect("seconds"));
    // In a task, as the code of a service.
    let obeyed = tokio::spawn(Peer::new(url, name, expiry).obey());
    obeyed.await.expect("the task");
}
