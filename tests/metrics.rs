//! The metrics of all locks, as a recorder sees them.
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use stanchion::{
    AnyLock, AnySemaphore, ErrorKind, FifoLock, FifoSemaphore, FileLock, Memory, Permit, Reentrant,
    metrics::label_names,
};

#[cfg(all(unix, feature = "redis"))]
#[path = "redis/server.rs"]
mod server;
#[path = "crew/skip.rs"]
#[macro_use]
mod skip;

#[derive(Default)]
struct Durations(Mutex<Vec<f64>>);

impl HistogramFn for Durations {
    fn record(&self, seconds: f64) {
        self.0.lock().expect("no panic").push(seconds);
    }
}

/// What is kept for each metric, with its labels.
#[derive(Default)]
struct Paper {
    numbers: BTreeMap<String, Arc<AtomicU64>>,
    durations: BTreeMap<String, Arc<Durations>>,
    units: BTreeMap<String, Unit>,
}

static PAPER: Mutex<Option<Paper>> = Mutex::new(None);

fn paper<T>(write: impl FnOnce(&mut Paper) -> T) -> T {
    let mut paper = PAPER.lock().expect("no panic");
    write(paper.get_or_insert_default())
}

thread_local! {
    /// What the recorder does when this thread registers the next gauge.
    static MEANWHILE: std::cell::RefCell<Option<Box<dyn FnOnce()>>> = const { std::cell::RefCell::new(None) };
}

struct OnPaper;

impl Recorder for OnPaper {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        paper(|it| {
            it.units
                .extend(unit.map(|it| (key.as_str().to_owned(), it)))
        });
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe_counter(key, unit, text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe_counter(key, unit, text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let kept = paper(|it| it.numbers.entry(shown(key)).or_default().clone());
        Counter::from_arc(kept)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        if let Some(call) = MEANWHILE.take() {
            call();
        }
        let kept = paper(|it| it.numbers.entry(shown(key)).or_default().clone());
        Gauge::from_arc(kept)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let kept = paper(|it| it.durations.entry(shown(key)).or_default().clone());
        Histogram::from_arc(kept)
    }
}

fn shown(key: &Key) -> String {
    let labels = key
        .labels()
        .map(|it| format!(" {}={}", it.key(), it.value()));
    key.name().to_owned() + &labels.collect::<String>()
}

/// The metrics of one lock.
struct Metrics(String);

impl Metrics {
    /// The recorder is that of the process.
    fn of(backend: &str, name: impl std::fmt::Display) -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            metrics::set_global_recorder(OnPaper)
                .map_err(drop)
                .expect("the first");
            label_names(100);
        });
        Self(format!(" backend={backend} name={name}"))
    }

    fn number(&self, metric: &str, more: &str) -> u64 {
        let key = format!("stanchion_{metric}{}{more}", self.0);
        paper(|it| {
            it.numbers
                .get(&key)
                .map_or(0, |it| it.load(Ordering::Relaxed))
        })
    }

    fn gauge(&self, metric: &str) -> f64 {
        f64::from_bits(self.number(metric, ""))
    }

    fn waiting_and_held(&self) -> (f64, f64) {
        (self.gauge("waiting"), self.gauge("held"))
    }

    fn losses(&self, reason: &str) -> u64 {
        self.number("losses_total", &format!(" reason={reason}"))
    }

    fn durations(&self, metric: &str) -> Vec<f64> {
        let key = format!("stanchion_{metric}{}", self.0);
        let found = paper(|it| it.durations.get(&key).cloned());
        found.map_or_else(Vec::new, |it| it.0.lock().expect("no panic").clone())
    }

    /// How many waits were granted, and how many holds have ended.
    fn ended(&self) -> (usize, usize) {
        (
            self.durations("wait_seconds").len(),
            self.durations("hold_seconds").len(),
        )
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A wait that is dropped, one that times out, and one that is granted.
async fn counts(lock: AnyLock, seen: Metrics) {
    let first = lock.acquire().await.expect("free");
    assert_eq!(seen.waiting_and_held(), (0.0, 1.0));

    let mut dropped = lock.acquire();
    assert!(poll(&mut dropped).is_pending());
    let mut second = lock.acquire();
    assert!(poll(&mut second).is_pending());
    assert_eq!(seen.waiting_and_held(), (2.0, 1.0));
    drop(dropped);
    assert_eq!(seen.waiting_and_held(), (1.0, 1.0));

    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        let late = lock.acquire().timeout(limit).await.expect_err("held");
        assert_eq!(late.kind(), ErrorKind::TimedOut);
    }
    assert_eq!(seen.number("timeouts_total", ""), 2);
    assert_eq!(seen.waiting_and_held(), (1.0, 1.0));

    drop(first);
    let second = second.await.expect("its turn");
    assert_eq!(seen.waiting_and_held(), (0.0, 1.0));
    assert_eq!(seen.ended(), (2, 1));
    second.release().await.expect("released");
    assert_eq!(seen.waiting_and_held(), (0.0, 0.0));
    assert_eq!(seen.ended(), (2, 2));
    let third = lock.try_acquire().await.expect("no error");
    assert_eq!(seen.gauge("held"), 1.0);
    drop(third);
    assert_eq!((seen.gauge("held"), seen.ended()), (0.0, (3, 3)));
    let waits = seen.durations("wait_seconds");
    assert!(
        waits[1] > 0.0 && waits.iter().all(|it| *it < 60.0),
        "{waits:?}"
    );
}

#[tokio::test]
async fn locks_on_files_count() {
    let home = tempfile::tempdir().expect("a directory");
    let root = home.path().canonicalize().expect("a path");
    let (fair, plain) = (root.join("fair"), root.join("plain"));
    let fair_seen = Metrics::of("file", fair.display());
    counts(FifoLock::open(&fair).expect("a lock").into(), fair_seen).await;
    let plain_seen = Metrics::of("file", plain.display());
    counts(FileLock::open(&plain).expect("a lock").into(), plain_seen).await;
}

/// As one that writes its metrics to a file under a lock.
#[test]
fn a_recorder_may_use_the_semaphore_that_it_records() {
    let seen = Metrics::of("mem", "recorded");
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let permits = Memory::new().semaphore("recorded", 2).expect("a semaphore");
        let same = permits.clone();
        let take = |it: &stanchion::MemSemaphore| it.try_acquire().expect("no error");
        MEANWHILE.set(Some(Box::new(move || drop(take(&same).expect("free")))));
        drop(take(&permits).expect("free"));
        let _ = done.send(());
    });
    let ended = is_done.recv_timeout(Duration::from_secs(60));
    ended.expect("it does not hang");
    assert_eq!(seen.ended(), (2, 2));
    assert_eq!(seen.waiting_and_held(), (0.0, 0.0));
}

#[tokio::test]
async fn locks_in_memory_count() {
    let seen = Metrics::of("mem", "counted in memory");
    let memory = Memory::new();
    let lock = memory.lock("counted in memory").expect("a lock");
    counts(lock.into(), seen).await;
    let units = paper(|it| it.units.clone());
    assert_eq!(units.get("stanchion_hold_seconds"), Some(&Unit::Seconds));
    assert_eq!(units.len(), 6);
}

#[cfg(all(unix, feature = "redis"))]
#[tokio::test]
async fn locks_on_a_server_count() {
    let server = need!(server::Server::start());
    let seen = Metrics::of("redis", "stanchion:counted");
    let options = stanchion::redis::RedisClient::options().quarantine(false);
    let client = server.connect(options);
    counts(client.lock("counted").into(), seen).await;
}

/// No task asks whether it is held.
#[cfg(all(unix, feature = "redis"))]
#[tokio::test]
async fn the_loss_of_a_lock_on_a_server_counts_at_once() {
    let server = need!(server::Server::start());
    let seen = Metrics::of("redis", "stanchion:revoked");
    let options = stanchion::redis::RedisClient::options().quarantine(false);
    let client = server.connect(options);
    let lock = client.lock("revoked");
    let guard = lock.acquire().await.expect("free");
    assert_eq!(seen.gauge("held"), 1.0);
    lock.force_release(None).await.expect("revoked");
    while seen.losses("revoked") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((seen.gauge("held"), seen.ended()), (0.0, (1, 1)));
    let error = guard.release().await.expect_err("it is lost");
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert_eq!((seen.gauge("held"), seen.ended()), (0.0, (1, 1)));
    assert_eq!((seen.losses("revoked"), seen.losses("unknown")), (1, 0));
}

#[tokio::test]
async fn the_loss_of_a_lock_on_a_file_counts_once() {
    let home = tempfile::tempdir().expect("a directory");
    let root = home.path().canonicalize().expect("a path");
    for way in ["look", "future", "release"] {
        let path = root.join(way);
        let seen = Metrics::of("file", path.display());
        let guard = FileLock::open(&path)
            .expect("a lock")
            .acquire()
            .await
            .expect("free");
        std::fs::remove_file(&path).expect("deleted");
        match way {
            "look" => assert!(!guard.is_held()),
            "future" => drop(guard.lost().await),
            _ => assert_eq!(seen.gauge("held"), 1.0, "it did not look"),
        }
        if way != "release" {
            assert_eq!(
                (seen.losses("deleted"), seen.gauge("held")),
                (1, 0.0),
                "{way}"
            );
        }
        let error = guard.release().await.expect_err("it is lost");
        assert_eq!(error.kind(), ErrorKind::Lost);
        assert_eq!(
            (seen.losses("deleted"), seen.gauge("held")),
            (1, 0.0),
            "{way}"
        );
        assert_eq!(seen.ended(), (1, 1), "{way}");
    }
}

#[tokio::test]
async fn the_parts_of_a_permit_count_until_they_are_forgotten() {
    let home = tempfile::tempdir().expect("a directory");
    let root = home.path().canonicalize().expect("a path");
    let permits = FifoSemaphore::open(root, "permits", 3).expect("a semaphore");
    let seen = Metrics::of("file", permits.path().display());
    let mut many = AnySemaphore::from(permits)
        .acquire_many(3)
        .await
        .expect("free");
    assert_eq!(seen.gauge("held"), 1.0);
    let (one, other) = (
        many.split(1).expect("a part"),
        many.split(1).expect("a part"),
    );
    assert_eq!(seen.gauge("held"), 3.0);
    many.merge(one).expect("the same semaphore");
    assert_eq!(seen.gauge("held"), 2.0);
    Permit::forget(many);
    assert_eq!(seen.gauge("held"), 1.0);
    drop(other);
    assert_eq!((seen.gauge("held"), seen.ended()), (0.0, (1, 3)));
}

#[tokio::test]
async fn the_guards_of_one_holder_count_once() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().canonicalize().expect("a path").join("again");
    let seen = Metrics::of("file", path.display());
    let lock = Reentrant::new(FifoLock::open(&path).expect("a lock"));
    let outer = lock.acquire().await.expect("free");
    let inner = outer.reenter();
    assert_eq!(seen.gauge("held"), 1.0);
    let late = lock
        .acquire()
        .timeout(Duration::ZERO)
        .await
        .expect_err("another holder");
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    assert_eq!(seen.number("timeouts_total", ""), 1);
    drop(outer);
    assert_eq!(seen.gauge("held"), 1.0);
    inner.release().await.expect("released");
    assert_eq!(
        (seen.waiting_and_held(), seen.ended()),
        ((0.0, 0.0), (1, 1))
    );
}
