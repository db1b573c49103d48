//! The child program of the process tests: takes locks as its standard input says, and prints a line for each thing
//! that happened.
//!
//! The test binary runs itself: an ignored test, named by its path and told by the environment. Every line it has to say
//! begins with `@`, because the test harness prints on the same output.
//!
//! | command | answer |
//! |---|---|
//! | `acquire N [ms]` | `queued N` or nothing, then `held N token crashed waited-ms` or `failed N kind text` |
//! | `release N`, `drop N`, `panic N` | `released N`, `released N kind` on failure |
//! | `cancel N` | `cancelled N` |
//! | `freeze N` / `thaw N` | `frozen N` / `thawed N`: the future is kept and not polled in between |
//! | `try N` | `held N …` or `none` |
//! | `is-held N` | `yes` or `no` |
//! | `status` | `status polling failures token waiters holder-pid` |
//! | `remove` | `removed` or `in-use` |
//! | `storm ROUNDS TASKS LEAVE` | `stormed`; one in LEAVE waits is given up; 0: none |
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
use std::future::{Future, poll_fn};
use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use stanchion::{Acquire, FifoGuard, FifoLock, FifoOptions, Removal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

#[path = "taker_fork.rs"]
mod fork;
#[path = "taker_user.rs"]
mod user;

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

fn options() -> FifoOptions {
    let mut options = FifoLock::options().label("taker");
    if let Some(interval) = duration("TAKER_POLL") {
        options = options.poll_interval(interval);
    }
    if let Some(window) = duration("TAKER_WINDOW") {
        options = options.claim_window(window);
    }
    if let Ok(label) = std::env::var("TAKER_LABEL") {
        options = options.label(label);
    }
    if std::env::var_os("TAKER_REMOVES").is_some() {
        options = options.remove_when_idle(true);
    }
    if let Ok(mode) = std::env::var("TAKER_MODE") {
        options = options.mode(u32::from_str_radix(&mode, 8).expect("an octal number"));
    }
    options
}

fn duration(name: &str) -> Option<Duration> {
    let text = std::env::var(name).ok()?;
    let limited = text.parse().map(Duration::from_millis);
    Some(limited.unwrap_or(Duration::MAX))
}

async fn obey(path: &Path) {
    let lock = match options().open(path) {
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

/// How a hold ends.
#[derive(Clone, Copy)]
enum End {
    Release,
    Drop,
    Panic,
}

struct Slot {
    task: JoinHandle<()>,
    end: Option<oneshot::Sender<End>>,
    freeze: Option<oneshot::Sender<oneshot::Receiver<()>>>,
    thaw: Option<oneshot::Sender<()>>,
}

struct Taker {
    lock: FifoLock,
    slots: HashMap<u32, Slot>,
    /// The guard of the fork tests.
    kept: Option<FifoGuard>,
}

impl Taker {
    async fn act(&mut self, words: &[&str]) {
        let number = |index: usize| words.get(index).and_then(|it| it.parse::<u64>().ok());
        let slot = number(1).unwrap_or(0) as u32;
        match words[0] {
            "acquire" => self.acquire(slot, number(2)),
            "release" => self.end(slot, End::Release),
            "drop" => self.end(slot, End::Drop),
            "panic" => self.end(slot, End::Panic),
            "cancel" => self.cancel(slot).await,
            "freeze" => self.freeze(slot),
            "thaw" => self.thaw(slot),
            "try" => self.try_once(slot),
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
            _ => fork::act(words, &self.lock, &mut self.kept),
        }
    }

    fn acquire(&mut self, number: u32, limit: Option<u64>) {
        let limit = limit.map(Duration::from_millis);
        let acquire = Box::pin(self.lock.acquire().timeout(limit));
        let (end, ended) = oneshot::channel();
        let (freeze, frozen) = oneshot::channel();
        let task = tokio::spawn(async move {
            if let Some(guard) = wait(number, acquire, frozen).await {
                hold(number, guard, ended).await;
            }
        });
        let slot = Slot {
            task,
            end: Some(end),
            freeze: Some(freeze),
            thaw: None,
        };
        self.slots.insert(number, slot);
    }

    fn try_once(&mut self, number: u32) {
        match self.lock.try_acquire() {
            Ok(None) => say("none"),
            Err(error) => say(format_args!("failed {number} {:?} {error}", error.kind())),
            Ok(Some(guard)) => {
                announce(number, &guard);
                let (end, ended) = oneshot::channel();
                let slot = Slot {
                    task: tokio::spawn(hold(number, guard, ended)),
                    end: Some(end),
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

    fn end(&mut self, number: u32, end: End) {
        if let Some(sender) = self.slot(number).end.take() {
            let _ = sender.send(end);
        }
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
async fn wait(
    number: u32,
    mut acquire: Pin<Box<Acquire<FifoGuard>>>,
    mut freeze: Freeze,
) -> Option<FifoGuard> {
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

fn announce(number: u32, guard: &FifoGuard) {
    let crashed = u8::from(guard.predecessor_crashed());
    let waited = guard.waited().unwrap_or_default().as_millis();
    say(format_args!(
        "held {number} {} {crashed} {waited}",
        guard.token()
    ));
}

async fn hold(number: u32, guard: FifoGuard, end: oneshot::Receiver<End>) {
    match end.await.unwrap_or(End::Drop) {
        End::Release => match guard.release().await {
            Ok(()) => say(format_args!("released {number}")),
            Err(error) => say(format_args!("released {number} {:?}", error.kind())),
        },
        End::Drop => {
            drop(guard);
            say(format_args!("released {number}"));
        }
        End::Panic => {
            let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _guard = guard;
                std::panic::resume_unwind(Box::new("on purpose"));
            }));
            assert!(unwound.is_err());
            say(format_args!("released {number}"));
        }
    }
}

/// Many tasks go in and out, some give up waiting.
async fn storm(lock: &FifoLock, rounds: u64, tasks: u64, leave: u64) {
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

async fn one_round(lock: &FifoLock, gives_up: bool) {
    let mut acquire = Box::pin(lock.acquire());
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
