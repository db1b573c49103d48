//! Counts of what a lock has done in this process, for metrics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::address::Address;
use crate::metrics::{self, Meter};
use crate::sys::fork::{Origin, PerProcess};

/// The number of steps in the histogram. The last one is open.
const STEPS: usize = 28;

/// Counts of what a lock has done in this process so far. They only grow.
///
/// Locks in memory, on servers, and those without a queue count grants, waits, abandoned waits and
/// crashes only.
///
/// A value is a snapshot, of [one lock](crate::FifoLock::stats) or of [all of
/// them](Stats::of_process). To export it, read it whenever your metrics are collected, and set the
/// counters to its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many guards were granted.
    pub grants: u64,
    /// How many of these grants came from another task of this process, without touching the disk.
    pub in_memory: u64,
    /// How many of these grants had to wait.
    pub waits: u64,
    /// How long these waits took.
    pub wait_time: Histogram,
    /// How many waits ended without a guard: dropped, timed out, closed, or failed.
    pub abandoned: u64,
    /// How many frozen waiters of other processes were bypassed.
    pub bypassed: u64,
    /// How often this process was frozen when its turn came: it was bypassed, or an offer was not
    /// claimed in time.
    pub frozen: u64,
    /// How many earlier holders died while they held the lock.
    pub crashes: u64,
    /// How many waits fell back to a thread or to polling, because nothing could be watched.
    pub fallbacks: u64,
    /// How often the lock was lost while it was held. Counts only losses that a call noticed.
    pub losses: u64,
}

impl Stats {
    /// Returns what all locks of this process have done so far, including locks that are no longer
    /// open. A forked child starts at zero.
    pub fn of_process() -> Self {
        let book = Book::open();
        let mut sum = book.past.clone();
        let live = book.live.iter();
        live.for_each(|counts| sum.add(&counts.snapshot()));
        sum
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.grants += other.grants;
        self.in_memory += other.in_memory;
        self.waits += other.waits;
        self.wait_time.merge(&other.wait_time);
        self.abandoned += other.abandoned;
        self.bypassed += other.bypassed;
        self.frozen += other.frozen;
        self.crashes += other.crashes;
        self.fallbacks += other.fallbacks;
        self.losses += other.losses;
    }
}

/// The counters behind a [`Stats`]. One thread at a time writes them; any thread reads them.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) grants: Counter,
    pub(crate) in_memory: Counter,
    pub(crate) waits: Counter,
    steps: [Counter; STEPS],
    waited_ns: Counter,
    pub(crate) abandoned: Counter,
    pub(crate) bypassed: Counter,
    pub(crate) frozen: Counter,
    pub(crate) crashes: Counter,
    pub(crate) fallbacks: Counter,
    pub(crate) losses: Counter,
    meter: metrics::Slot,
    /// Locked by writers that no other mutex excludes from each other.
    writers: Mutex<()>,
    /// The process that created them.
    origin: Origin,
}

/// What kind of lock it is, and its address.
type Known = (&'static str, Address);

/// The counts of all locks of this process.
#[derive(Default)]
struct Book {
    /// The counts of locks that are open, and of some that are gone.
    live: Vec<Arc<Counts>>,
    /// Those that other handles may find.
    known: HashMap<Known, Weak<Counts>>,
    /// How many were left when those that are gone were last removed.
    left: usize,
    /// The sum of those that were removed.
    past: Stats,
}

static BOOK: PerProcess<Mutex<Book>> = PerProcess::new(Mutex::default);

impl Book {
    fn open() -> MutexGuard<'static, Self> {
        BOOK.get().lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&mut self, counts: &Arc<Counts>) {
        if self.live.len() > 2 * self.left + 64 {
            self.remove_gone();
        }
        self.live.push(counts.clone());
    }

    fn remove_gone(&mut self) {
        let Self { live, past, .. } = self;
        live.retain(|counts| {
            // The book has one reference.
            let open = Arc::strong_count(counts) > 1;
            if !open {
                past.add(&counts.snapshot());
            }
            open
        });
        self.left = live.len();
        self.known.retain(|_, counts| counts.strong_count() > 0);
    }
}

/// Returns the counts that another handle of this process on the same lock has, or else new ones.
/// `lock` is its kind and address.
pub(crate) fn counts_of(lock: Option<Known>) -> Arc<Counts> {
    let mut book = Book::open();
    let known = lock.as_ref().and_then(|it| book.known.get(it)?.upgrade());
    // A handle has one more reference than the book and this call.
    if let Some(counts) = known.filter(|it| Arc::strong_count(it) > 2) {
        return counts;
    }
    let counts = Arc::new(Counts::default());
    book.add(&counts);
    if let Some(lock) = lock {
        book.known.insert(lock, Arc::downgrade(&counts));
    }
    counts
}

/// One counter. Adding is only a load and a store, because its writers exclude each other.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0
            .store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counts {
    /// Counts under a mutex, where nothing else excludes writers from each other.
    pub(crate) fn together(&self, count: impl FnOnce(&Self)) {
        // In a forked child, a thread that does not exist there may have the mutex. Then no handle
        // of the child finds these counts, and a lost one is no loss.
        let here = self.origin.is_here();
        let _alone = here.then(|| self.writers.lock().unwrap_or_else(PoisonError::into_inner));
        count(self);
    }

    /// Returns where the lock at this address counts in the metrics.
    pub(crate) fn meter(&self, address: impl FnOnce() -> Option<Address>) -> Meter {
        // A thread that does not exist in a forked child may be about to fill the slot.
        match self.origin.is_here() {
            true => self.meter.meter(address),
            false => Meter::default(),
        }
    }

    pub(crate) fn waited(&self, waited: Duration) {
        self.waits.add(1);
        self.steps[step_of(waited)].add(1);
        self.waited_ns
            .add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            grants: self.grants.get(),
            in_memory: self.in_memory.get(),
            waits: self.waits.get(),
            wait_time: Histogram {
                counts: std::array::from_fn(|step| self.steps[step].get()),
                sum: Duration::from_nanos(self.waited_ns.get()),
            },
            abandoned: self.abandoned.get(),
            bypassed: self.bypassed.get(),
            frozen: self.frozen.get(),
            crashes: self.crashes.get(),
            fallbacks: self.fallbacks.get(),
            losses: self.losses.get(),
        }
    }
}

/// Returns the first step whose upper bound is not below the duration.
fn step_of(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
    let step = micros
        .checked_next_power_of_two()
        .map_or(63, u64::trailing_zeros);
    (step as usize).min(STEPS - 1)
}

/// Durations, counted in steps that double: up to 1 µs, 2 µs, 4 µs and so on, up to 67 s, and
/// beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; STEPS],
    sum: Duration,
}

impl Histogram {
    fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Returns how many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the steps: the upper bound, and how many durations fell into the step. The bound is
    /// included, and is `None` for the last step, which is open. The counts are not cumulative.
    pub fn steps(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bound = |step| (step < STEPS - 1).then(|| Duration::from_micros(1_u64 << step));
        let numbered = self.counts.iter().enumerate();
        numbered.map(move |(step, count)| (bound(step), *count))
    }

    /// Returns the upper bound of the step in which this share of the durations ends, for instance
    /// 0.99. Returns `None` if nothing was counted, or if that step is the open one.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut seen = 0;
        let step = self.steps().find(|(_, count)| {
            seen += count;
            seen > 0 && seen as f64 >= wanted
        });
        step.and_then(|(bound, _)| bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(of: &[u64]) -> Histogram {
        let counts = Counts::default();
        of.iter()
            .for_each(|us| counts.waited(Duration::from_micros(*us)));
        counts.snapshot().wait_time
    }

    #[test]
    fn p62_counts_of_locks_that_are_gone_are_added_up() {
        let before = Stats::of_process().grants;
        for _ in 0..1000 {
            counts_of(None).together(|it| it.grants.add(1));
        }
        assert!(Stats::of_process().grants >= before + 1000);
        assert!(Book::open().live.len() < 500);
    }

    #[test]
    fn steps_double_and_include_their_bound() {
        let histogram = micros(&[0, 1, 2, 3, 4, 5, 1 << 26, (1 << 26) + 1]);
        let counted = histogram.steps().filter(|(_, count)| *count > 0);
        let found: Vec<_> = counted
            .map(|(bound, count)| (bound.map(|it| it.as_micros()), count))
            .collect();
        let expected = [
            (Some(1), 2),
            (Some(2), 1),
            (Some(4), 2),
            (Some(8), 1),
            (Some(1 << 26), 1),
            (None, 1),
        ];
        assert_eq!(found, expected);
        assert_eq!(histogram.count(), 8);
    }

    #[test]
    fn the_longest_duration_is_counted() {
        let counts = Counts::default();
        counts.waited(Duration::MAX);
        let histogram = counts.snapshot().wait_time;
        assert_eq!((histogram.count(), histogram.quantile(0.5)), (1, None));
    }

    #[test]
    fn sums_add_up() {
        let counts = Counts::default();
        counts.waited(Duration::from_micros(3));
        counts.grants.add(2);
        let mut sum = counts.snapshot();
        sum.add(&counts.snapshot());
        assert_eq!((sum.grants, sum.waits), (4, 2));
        assert_eq!(sum.wait_time.sum(), Duration::from_micros(6));
        assert_eq!(sum.wait_time.count(), 2);
    }

    #[test]
    fn quantiles_are_bounds() {
        let histogram = micros(&[10, 10, 10, 1000]);
        let bound = |share| histogram.quantile(share).map(|it| it.as_micros());
        assert_eq!(bound(0.0), Some(16));
        assert_eq!(bound(0.75), Some(16));
        assert_eq!(bound(0.76), Some(1024));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
