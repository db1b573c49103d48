//! The child program: takes permits as its standard input says, and prints a line for each thing that happened.
//!
//! As in `tests/processes/taker.rs`, the test binary runs itself: an ignored test, told by the environment. Its lines begin with `@`.
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
//! | `count WHAT` | `count n`: of `fd` or `task` in `/proc/self` |
//! | `storm ROUNDS TASKS` | `stormed`; 0 rounds: until `enough` |
//! | `pester K` | nothing; tries again and again until `enough`, then `pestered n`: so often it got in |
//! | `end` | the process ends in good order |

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io::{BufRead, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use stanchion::{Error, FifoPermit, FifoSemaphore, Removal, SemaphoreOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

#[path = "storming.rs"]
mod storming;

/// What the semaphore of every test is called.
pub(crate) const NAME: &str = "pool";

/// Prints one line for the parent, in one piece.
fn say(line: impl std::fmt::Display) {
    let line = format!("@{line}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
}

#[test]
#[ignore = "the child program of the other tests"]
fn child() {
    let Some(home) = std::env::var_os("HOLDER_HOME") else {
        return;
    };
    println!();
    become_who_was_meant();
    let mut runtime = match std::env::var("HOLDER_THREADS") {
        Ok(threads) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads.parse().expect("a number of threads"));
            builder
        }
        Err(_) => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_time().build().expect("a runtime");
    runtime.block_on(obey(Path::new(&home)));
    drop(runtime);
    std::process::exit(0);
}

/// `HOLDER_USER=id`, for those who are root.
#[allow(unsafe_code)]
fn become_who_was_meant() {
    let user = std::env::var("HOLDER_USER").ok();
    let Some(user) = user.and_then(|it| it.parse::<u32>().ok()) else {
        return;
    };
    if rustix::process::geteuid().is_root() {
        // SAFETY: plain system calls, without pointers that are used.
        let done = unsafe {
            libc::setgroups(0, std::ptr::null()) == 0
                && libc::setgid(user) == 0
                && libc::setuid(user) == 0
        };
        assert!(done, "root can become another user");
    }
}

fn options(limit: Option<&str>) -> SemaphoreOptions {
    let mut options = FifoSemaphore::options().label("holder");
    if let Some(limit) = limit.and_then(|it| it.parse().ok()) {
        options = options.limit(limit);
    }
    if let Some(interval) = duration("HOLDER_POLL") {
        options = options.poll_interval(interval);
    }
    if let Some(window) = duration("HOLDER_WINDOW") {
        options = options.claim_window(window);
    }
    options
}

fn duration(name: &str) -> Option<Duration> {
    let text = std::env::var(name).ok()?;
    let limited = text.parse().map(Duration::from_millis);
    Some(limited.unwrap_or(Duration::MAX))
}

async fn obey(home: &Path) {
    let limit = std::env::var("HOLDER_LIMIT").ok();
    let semaphore = match options(limit.as_deref()).open(home, NAME) {
        Ok(semaphore) => semaphore,
        Err(error) => return say(format_args!("unopened {:?} {error}", error.kind())),
    };
    say("ready");
    let mut commands = commands();
    let mut holder = Holder {
        semaphore,
        places: HashMap::new(),
        enough: Arc::default(),
    };
    while let Some(line) = commands.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words == ["end"] {
            return;
        }
        holder.act(&words, home).await;
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

/// One wait and what comes of it.
struct Place {
    task: JoinHandle<()>,
    /// `true`: by `release`, `false`: by a drop.
    end: Option<oneshot::Sender<bool>>,
    freeze: Option<oneshot::Sender<oneshot::Receiver<()>>>,
    thaw: Option<oneshot::Sender<()>>,
}

struct Holder {
    semaphore: FifoSemaphore,
    places: HashMap<u32, Place>,
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
            "release" => self.end(place, true),
            "drop" => self.end(place, false),
            "cancel" => self.cancel(place).await,
            "freeze" => self.freeze(place),
            "thaw" => self.thaw(place),
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
                Ok(Removal::InUse) => say("in-use"),
                Err(error) => say(format_args!("unremoved {:?} {error}", error.kind())),
            },
            "count" => {
                let entries = std::fs::read_dir(format!("/proc/self/{}", words[1]));
                say(format_args!("count {}", entries.expect("/proc").count()));
            }
            "storm" => self.storm(number(1).unwrap_or(0), place_count(number(2))),
            "pester" => storming::pester(self.semaphore.clone(), place, self.enough.clone()),
            "enough" => self.enough.store(true, Ordering::SeqCst),
            other => panic!("what is {other:?}?"),
        }
    }

    fn acquire(&mut self, number: u32, permits: u32, limit: Option<u64>) {
        let limit = limit.map(Duration::from_millis);
        let acquire = self.semaphore.acquire_many(permits).timeout(limit);
        self.begin(number, |end, freeze| async move {
            match wait(number, Box::pin(acquire), freeze).await {
                Ok(permit) => hold(number, permit, end).await,
                Err(error) => failed(number, &error),
            }
        });
    }

    fn resize(&mut self, number: u32, limit: u32) {
        let semaphore = self.semaphore.clone();
        self.begin(number, |_, freeze| async move {
            let resize = Box::pin(async move { semaphore.resize(limit).await });
            match wait(number, resize, freeze).await {
                Ok(()) => say(format_args!("resized {number}")),
                Err(error) => failed(number, &error),
            }
        });
    }

    fn begin<F>(&mut self, number: u32, work: impl FnOnce(oneshot::Receiver<bool>, Freeze) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (end, ended) = oneshot::channel();
        let (freeze, frozen) = oneshot::channel();
        let place = Place {
            task: tokio::spawn(work(ended, frozen)),
            end: Some(end),
            freeze: Some(freeze),
            thaw: None,
        };
        self.places.insert(number, place);
    }

    fn try_once(&mut self, number: u32, permits: u32) {
        match self.semaphore.try_acquire_many(permits) {
            Ok(None) => say("none"),
            Err(error) => failed(number, &error),
            Ok(Some(permit)) => self.begin(number, |end, _| hold(number, permit, end)),
        }
    }

    fn place(&mut self, number: u32) -> &mut Place {
        self.places.get_mut(&number).expect("a place in use")
    }

    fn end(&mut self, number: u32, by_release: bool) {
        if let Some(sender) = self.place(number).end.take() {
            let _ = sender.send(by_release);
        }
    }

    async fn cancel(&mut self, number: u32) {
        if let Some(place) = self.places.remove(&number) {
            place.task.abort();
            let _ = place.task.await;
        }
        say(format_args!("cancelled {number}"));
    }

    fn freeze(&mut self, number: u32) {
        let (thaw, thawed) = oneshot::channel();
        let place = self.place(number);
        place.thaw = Some(thaw);
        if let Some(freeze) = place.freeze.take() {
            let _ = freeze.send(thawed);
        }
    }

    fn thaw(&mut self, number: u32) {
        if let Some(thaw) = self.place(number).thaw.take() {
            let _ = thaw.send(());
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

fn failed(number: u32, error: &Error) {
    say(format_args!("failed {number} {:?} {error}", error.kind()));
}

type Freeze = oneshot::Receiver<oneshot::Receiver<()>>;

/// Polls once and tells whether it must wait; then waits, with a pause in which nobody polls if that is asked for.
async fn wait<F: Future>(number: u32, mut future: Pin<Box<F>>, mut freeze: Freeze) -> F::Output {
    let first = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    if let Poll::Ready(output) = first {
        return output;
    }
    say(format_args!("queued {number}"));
    tokio::select! {
        biased;
        Ok(thawed) = &mut freeze => {
            say(format_args!("frozen {number}"));
            let _ = thawed.await;
            say(format_args!("thawed {number}"));
            future.await
        }
        output = &mut future => output,
    }
}

async fn hold(number: u32, permit: FifoPermit, end: oneshot::Receiver<bool>) {
    let permits = permit.slot_paths().len();
    say(format_args!("held {number} {} {permits}", permit.token()));
    let result = match end.await {
        Ok(true) => permit.release().await,
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
