//! The child program of the process tests: takes locks as its standard input says, and prints a line for each thing
//! that happened.
//!
//! The test binary runs itself: an ignored test, named by its path and told by the environment. Every line it has to say
//! begins with `@`, because the test harness prints on the same output.
//!
//! | command | answer |
//! |---|---|
//! | `acquire N [ms]` | `queued N` or nothing, then `held N token crashed waited-ms mode` or `failed N kind text` |
//! | `write N [ms]`, `read N [ms]` | the same of a reader-writer lock; the mode is `alone` or `read` |
//! | `release N`, `drop N`, `panic N` | `released N`, `released N kind` on failure |
//! | `cancel N` | `cancelled N` |
//! | `freeze N` / `thaw N` | `frozen N` / `thawed N`: the future is kept and not polled in between |
//! | `downgrade N` | `downgraded N token`: the writer goes on as a reader |
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
//! | `end` | the process ends in good order |

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::future::poll_fn;
use std::io::{BufRead, Write};
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use stanchion::{FifoGuard, Removal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

#[path = "taker_fork.rs"]
mod fork;
#[path = "taker_kind.rs"]
mod kind;
#[path = "taker_mixed.rs"]
mod mixed;
#[path = "taker_storm.rs"]
mod storm;
#[path = "taker_user.rs"]
mod user;

use kind::{AnyGuard, AnyLock, Waits, Wish};
use mixed::mixed;
use storm::storm;

/// Prints one line for the parent, in one piece.
fn say(line: impl std::fmt::Display) {
    let line = format!("@{line}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
}

#[test]
#[ignore = "the child program of the other tests"]
fn child() {
    let Some(path) = std::env::var_os("TAKER_LOCK") else {
        return;
    };
    println!();
    user::become_who_was_meant();
    let mut runtime = match std::env::var("TAKER_THREADS") {
        Ok(threads) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads.parse().expect("a number of threads"));
            builder
        }
        Err(_) => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_time().build().expect("a runtime");
    runtime.block_on(obey(Path::new(&path)));
    // Futures and guards first, as in a program that returns from `main`.
    drop(runtime);
    std::process::exit(0);
}

async fn obey(path: &Path) {
    let lock = match AnyLock::open(path) {
        Ok(lock) => lock,
        Err(error) => return say(format_args!("unopened {:?} {error}", error.kind())),
    };
    say("ready");
    let mut commands = commands();
    let mut taker = Taker {
        lock,
        slots: HashMap::new(),
        kept: None,
    };
    while let Some(line) = commands.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words == ["end"] {
            return;
        }
        taker.act(&words).await;
    }
}

fn commands() -> mpsc::UnboundedReceiver<String> {
    let (to, from) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if to.send(line).is_err() {
                return;
            }
        }
    });
    from
}

/// What a holder is told.
#[derive(Clone, Copy)]
enum Order {
    Downgrade,
    IsHeld,
    Release,
    Drop,
    Panic,
}

struct Slot {
    task: JoinHandle<()>,
    orders: mpsc::UnboundedSender<Order>,
    freeze: Option<oneshot::Sender<oneshot::Receiver<()>>>,
    thaw: Option<oneshot::Sender<()>>,
}

struct Taker {
    lock: AnyLock,
    slots: HashMap<u32, Slot>,
    /// The guard of the fork tests.
    kept: Option<FifoGuard>,
}

impl Taker {
    async fn act(&mut self, words: &[&str]) {
        let number = |index: usize| words.get(index).and_then(|it| it.parse::<u64>().ok());
        let slot = number(1).unwrap_or(0) as u32;
        match words[0] {
            "acquire" => self.acquire(slot, Wish::Alone, number(2)),
            "write" => self.acquire(slot, Wish::Write, number(2)),
            "read" => self.acquire(slot, Wish::Read, number(2)),
            "release" => self.order(slot, Order::Release),
            "drop" => self.order(slot, Order::Drop),
            "panic" => self.order(slot, Order::Panic),
            "downgrade" => self.order(slot, Order::Downgrade),
            "is-held" => self.order(slot, Order::IsHeld),
            "cancel" => self.cancel(slot).await,
            "freeze" => self.freeze(slot),
            "thaw" => self.thaw(slot),
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
                Ok(Removal::InUse) => "in-use".to_owned(),
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
            "count" => count(words[1]),
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
                user::limit_files(number(1).expect("a number of files"));
                say("limited");
            }
            "umask" => say(format_args!("umask {:o}", user::umask())),
            "list-files" => list_files(),
            "spawn" => spawn(),
            _ => fork::act(words, self.lock.plain(), &mut self.kept),
        }
    }

    fn acquire(&mut self, number: u32, wish: Wish, limit: Option<u64>) {
        let limit = limit.map(Duration::from_millis);
        let waits = self.lock.acquire(wish, limit);
        let (orders, ordered) = mpsc::unbounded_channel();
        let (freeze, frozen) = oneshot::channel();
        let task = tokio::spawn(async move {
            if let Some(guard) = wait(number, waits, frozen).await {
                hold(number, guard, ordered).await;
            }
        });
        let slot = Slot {
            task,
            orders,
            freeze: Some(freeze),
            thaw: None,
        };
        self.slots.insert(number, slot);
    }

    fn try_once(&mut self, number: u32, wish: Wish) {
        match self.lock.try_acquire(wish) {
            Ok(None) => say("none"),
            Err(error) => say(format_args!("failed {number} {:?} {error}", error.kind())),
            Ok(Some(guard)) => {
                announce(number, &guard);
                let (orders, ordered) = mpsc::unbounded_channel();
                let slot = Slot {
                    task: tokio::spawn(hold(number, guard, ordered)),
                    orders,
                    freeze: None,
                    thaw: None,
                };
                self.slots.insert(number, slot);
            }
        }
    }

    fn slot(&mut self, number: u32) -> &mut Slot {
        self.slots.get_mut(&number).expect("a slot in use")
    }

    fn order(&mut self, number: u32, order: Order) {
        let _ = self.slot(number).orders.send(order);
    }

    async fn cancel(&mut self, number: u32) {
        if let Some(slot) = self.slots.remove(&number) {
            slot.task.abort();
            let _ = slot.task.await;
        }
        say(format_args!("cancelled {number}"));
    }

    fn freeze(&mut self, number: u32) {
        let (thaw, thawed) = oneshot::channel();
        let slot = self.slot(number);
        slot.thaw = Some(thaw);
        if let Some(freeze) = slot.freeze.take() {
            let _ = freeze.send(thawed);
        }
    }

    fn thaw(&mut self, number: u32) {
        if let Some(thaw) = self.slot(number).thaw.take() {
            let _ = thaw.send(());
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

type Freeze = oneshot::Receiver<oneshot::Receiver<()>>;

/// Polls once and tells whether it must wait; then waits, with a pause in which nobody polls if that is asked for.
async fn wait(number: u32, mut acquire: Waits, mut freeze: Freeze) -> Option<AnyGuard> {
    let first = poll_fn(|context| Poll::Ready(acquire.as_mut().poll(context))).await;
    let result = match first {
        Poll::Ready(result) => result,
        Poll::Pending => {
            say(format_args!("queued {number}"));
            tokio::select! {
                biased;
                Ok(thawed) = &mut freeze => {
                    say(format_args!("frozen {number}"));
                    let _ = thawed.await;
                    say(format_args!("thawed {number}"));
                    acquire.await
                }
                result = &mut acquire => result,
            }
        }
    };
    match result {
        Ok(guard) => {
            announce(number, &guard);
            Some(guard)
        }
        Err(error) => {
            say(format_args!("failed {number} {:?} {error}", error.kind()));
            None
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

async fn hold(number: u32, mut guard: AnyGuard, mut orders: mpsc::UnboundedReceiver<Order>) {
    loop {
        match orders.recv().await.unwrap_or(Order::Drop) {
            Order::IsHeld => say(match guard.is_held() {
                true => "yes",
                false => "no",
            }),
            Order::Downgrade => match guard.downgrade() {
                Ok(reader) => {
                    guard = reader;
                    say(format_args!("downgraded {number} {}", guard.token()));
                }
                Err(error) => return say(format_args!("downgraded {number} {:?}", error.kind())),
            },
            Order::Release => {
                return match guard.release().await {
                    Ok(()) => say(format_args!("released {number}")),
                    Err(error) => say(format_args!("released {number} {:?}", error.kind())),
                };
            }
            Order::Drop => {
                drop(guard);
                return say(format_args!("released {number}"));
            }
            Order::Panic => {
                panic_with(guard);
                return say(format_args!("released {number}"));
            }
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

/// What was woken before the question has had its turn, and has said what it had to say, before the answer.
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

fn count(what: &str) {
    let entries = std::fs::read_dir(format!("/proc/self/{what}")).expect("/proc/self");
    say(format_args!("count {}", entries.count()));
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
