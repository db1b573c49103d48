//! Metrics of all locks of this process, for any recorder of the crate
//! [`metrics`](https://docs.rs/metrics).
//!
//! | name | kind | unit | labels | what it counts |
//! |---|---|---|---|---|
//! | `stanchion_waiting` | gauge | waits | `backend` | callers that wait now |
//! | `stanchion_held` | gauge | guards | `backend` | guards that hold a lock now. Several permits in one guard count once |
//! | `stanchion_wait_seconds` | histogram | seconds | `backend` | from the first poll to the grant. A grant at the first poll counts as 0 |
//! | `stanchion_hold_seconds` | histogram | seconds | `backend` | from the grant to the end of the release, or to the loss |
//! | `stanchion_timeouts_total` | counter | waits | `backend` | waits that ended with [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) |
//! | `stanchion_losses_total` | counter | guards | `backend`, `reason` | holds that were lost, see [`Loss`] |
//!
//! - `backend` is `file` for all locks on files, `mem`, `redis`, `postgres`, or the word in the
//!   [`Address`] of a backend of your own.
//! - `reason` is the name of the [`Loss`] in lower case, such as `expired`, or
//!   `unknown`.
//! - `name` is a further label of all six. It is off by default, because each name is a time series
//!   of its own: [`label_names`].
//!
//! With the feature `tracing`, the spans `stanchion.wait` and `stanchion.hold` have the fields
//! `backend` and `name` with the same values.
//!
//! # Use
//!
//! Install a global recorder at the beginning of `main`, before any lock is used. A lock takes its
//! metrics from the recorder at its first use, and a later recorder does not get them. The example
//! `metrics` exports to Prometheus.
//!
//! # What is not seen
//!
//! - The loss of a lock on a file counts when the holder looks: by `lost()`, `is_held()`,
//!   `release()` or `run()`. The loss of a lock on a server counts at once.
//! - Permits that are [forgotten](crate::Permit::forget) are no longer counted as held, because
//!   they have no guard. A guard in `std::mem::forget` stays counted.
//! - All guards of one holder of a [`Reentrant`](crate::Reentrant) lock count once.
//! - In a forked child, the handles of the parent are not measured.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ::metrics::{Counter, Gauge, Histogram, Label, Unit};
use futures::FutureExt;
use futures::future::FusedFuture;

use crate::address::Address;
use crate::foreign::surviving;
use crate::loss::{Loss, LossListener, Lost};
use crate::sys::fork::{Origin, PerProcess};

/// How many names get a label of their own.
static MOST_NAMES: AtomicUsize = AtomicUsize::new(0);

/// Adds the label `name` to the metrics of all locks that are first used after this call.
///
/// The first `most` names of this process each have their own value: the name of the lock, with its
/// namespace on a server, or the path of a lock on a file. Every later name counts as `other`. So
/// the number of time series is bounded, whatever names the program makes up. With 0, the default,
/// there is no such label.
pub fn label_names(most: usize) {
    MOST_NAMES.store(most, Ordering::Relaxed);
}

/// The backend of a lock, and its name if names are asked for.
type Series = (&'static str, Option<String>);

/// The metrics of each series, and the names that have a series of their own.
#[derive(Default)]
struct Book {
    meters: BTreeMap<Series, &'static Meters>,
    names: BTreeSet<String>,
}

static BOOK: PerProcess<Mutex<Book>> = PerProcess::new(Mutex::default);

impl Book {
    fn open() -> MutexGuard<'static, Self> {
        BOOK.get().lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the series in which this lock counts.
    fn series(&mut self, address: &Address) -> Series {
        let (most, name) = (MOST_NAMES.load(Ordering::Relaxed), address.label());
        let name = match self.names.contains(&name) || self.names.len() < most {
            _ if most == 0 => None,
            true => {
                self.names.insert(name.clone());
                Some(name)
            }
            false => Some("other".to_owned()),
        };
        (address.backend(), name)
    }
}

/// The metrics of one series.
struct Meters {
    labels: Vec<Label>,
    waiting: Gauge,
    held: Gauge,
    wait: Histogram,
    hold: Histogram,
    timeouts: Counter,
}

impl Meters {
    /// Returns the metrics in which this lock counts, or `None` if the recorder panics. They are
    /// never freed, because their number is bounded.
    fn of(address: &Address) -> Option<&'static Self> {
        let (series, known) = {
            let mut book = Book::open();
            let series = book.series(address);
            let known = book.meters.get(&series).copied();
            (series, known)
        };
        if known.is_some() {
            return known;
        }
        // The mutex is free: the recorder is foreign code.
        let meters = surviving(|| Self::register(&series))?;
        let mut book = Book::open();
        let meters = book
            .meters
            .entry(series)
            .or_insert_with(|| Box::leak(Box::new(meters)));
        Some(meters)
    }

    fn register((backend, name): &Series) -> Self {
        describe();
        let mut labels = vec![Label::from_static_parts("backend", backend)];
        labels.extend(name.as_ref().map(|it| Label::new("name", it.clone())));
        Self {
            waiting: ::metrics::gauge!("stanchion_waiting", labels.iter()),
            held: ::metrics::gauge!("stanchion_held", labels.iter()),
            wait: ::metrics::histogram!("stanchion_wait_seconds", labels.iter()),
            hold: ::metrics::histogram!("stanchion_hold_seconds", labels.iter()),
            timeouts: ::metrics::counter!("stanchion_timeouts_total", labels.iter()),
            labels,
        }
    }

    fn lost(&self, reason: &'static str) {
        let mut labels = self.labels.clone();
        labels.push(Label::from_static_parts("reason", reason));
        ::metrics::counter!("stanchion_losses_total", labels).increment(1);
    }
}

/// Tells the recorder units and texts. Repeating it changes nothing.
fn describe() {
    let gauge = |name, text| ::metrics::describe_gauge!(name, Unit::Count, text);
    gauge("stanchion_waiting", "callers that wait for a lock");
    gauge("stanchion_held", "guards that hold a lock");
    let histogram = |name, text| ::metrics::describe_histogram!(name, Unit::Seconds, text);
    histogram("stanchion_wait_seconds", "from the first poll to the grant");
    histogram("stanchion_hold_seconds", "from the grant to the release");
    let counter = |name, text| ::metrics::describe_counter!(name, Unit::Count, text);
    counter("stanchion_timeouts_total", "waits that timed out");
    counter("stanchion_losses_total", "holds that were lost");
}

/// The label of a loss.
fn reason(loss: Option<Loss>) -> &'static str {
    match loss {
        Some(Loss::Deleted) => "deleted",
        Some(Loss::Replaced) => "replaced",
        Some(Loss::Unlocked) => "unlocked",
        Some(Loss::Expired) => "expired",
        Some(Loss::Superseded) => "superseded",
        Some(Loss::Revoked) => "revoked",
        Some(Loss::Disconnected) => "disconnected",
        None => "unknown",
    }
}

/// The meter of one lock, for all its handles. Found at its first use.
#[derive(Debug, Default)]
pub(crate) struct Slot(OnceLock<Meter>);

impl Slot {
    pub(crate) fn meter(&self, address: impl FnOnce() -> Option<Address>) -> Meter {
        if let Some(known) = self.0.get() {
            return *known;
        }
        // Outside of the cell: the recorder is foreign code, and may use this lock.
        let found = Meter(address().and_then(|it| Meters::of(&it)));
        *self.0.get_or_init(|| found)
    }
}

/// Where a lock counts.
#[derive(Clone, Copy, Default)]
pub(crate) struct Meter(Option<&'static Meters>);

impl Meter {
    fn with(self, record: impl FnOnce(&'static Meters)) {
        if let Some(meters) = self.0 {
            surviving(|| record(meters));
        }
    }

    pub(crate) fn granted(self, waited: Option<Duration>) {
        let waited = waited.map_or(0.0, |it| it.as_secs_f64());
        self.with(|it| it.wait.record(waited));
    }

    pub(crate) fn timed_out(self) {
        self.with(|it| it.timeouts.increment(1));
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().flat_map(|it| &it.labels))
            .finish()
    }
}

/// Counts one wait from [`begin`](Self::begin) to [`end`](Self::end), or to its drop.
#[derive(Default)]
pub(crate) struct Wait(Owned);

impl Wait {
    pub(crate) fn begin(&mut self, meter: Meter) {
        self.end();
        meter.with(|it| it.waiting.increment(1.0));
        self.0 = Owned::new(meter);
    }

    pub(crate) fn end(&mut self) {
        let meter = std::mem::take(&mut self.0).here();
        meter.with(|it| it.waiting.decrement(1.0));
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.end();
    }
}

/// The meter of a wait or a hold of one process. A forked child counts nothing for its copy: the
/// recorder's mutexes may stay locked there.
#[derive(Default)]
struct Owned {
    meter: Meter,
    origin: Origin,
}

impl Owned {
    fn new(meter: Meter) -> Self {
        let origin = Origin::here();
        Self { meter, origin }
    }

    fn here(&self) -> Meter {
        match self.origin.is_here() {
            true => self.meter,
            false => Meter::default(),
        }
    }
}

/// Counts one hold from its grant to its loss, or to its drop.
pub(crate) struct Holding {
    meter: Owned,
    since: Instant,
    /// Set when it is no longer counted. It exists once others can report a loss.
    over: OnceLock<Arc<AtomicBool>>,
}

impl Holding {
    pub(crate) fn begin(meter: Meter, since: Option<Instant>) -> Self {
        meter.with(|it| it.held.increment(1.0));
        let since = match (meter.0, since) {
            (Some(_), None) => Instant::now(),
            // Without a recorder nothing reads the time.
            (_, since) => since.unwrap_or_else(Instant::now),
        };
        Self {
            meter: Owned::new(meter),
            since,
            over: OnceLock::new(),
        }
    }

    /// Counts a part of this hold that becomes a hold of its own.
    pub(crate) fn split(&self) -> Self {
        Self::begin(self.meter.here(), Some(self.since))
    }

    /// Counts a loss that the backend notices by itself. `on_loss` is that of the hold.
    pub(crate) fn listen(&self, on_loss: impl FnOnce(&dyn Fn() -> LossListener)) {
        if self.meter.here().0.is_some() {
            on_loss(&|| Box::new(self.loss_counter()));
        }
    }

    /// Counts the loss when this future resolves.
    pub(crate) fn watch(&self, lost: Lost) -> Lost {
        match self.meter.here().0 {
            // A lock that cannot be lost.
            _ if lost.is_terminated() => lost,
            None => lost,
            Some(_) => {
                let count = self.loss_counter();
                Lost::new(lost.inspect(|loss| count(*loss)))
            }
        }
    }

    /// Counts the loss of a hold that is found to be over. `lost` is that of the hold.
    pub(crate) fn is_over(&self, lost: impl FnOnce() -> Lost) {
        if self.meter.here().0.is_some()
            && !self.over().load(Ordering::Relaxed)
            && let Some(loss) = lost().now_or_never()
        {
            self.lost(Some(loss));
        }
    }

    /// Counts a loss that a release reports.
    pub(crate) fn lost(&self, loss: Option<Loss>) {
        let meter = self.meter.here();
        meter.lost(self.since, self.over(), reason(loss));
    }

    /// Ends the count without a drop.
    pub(crate) fn end(&self) {
        let over = self.over.get();
        if over.is_none_or(|it| !it.swap(true, Ordering::Relaxed)) {
            self.meter.here().ended(self.since);
        }
    }

    fn over(&self) -> &Arc<AtomicBool> {
        self.over.get_or_init(Arc::default)
    }

    fn loss_counter(&self) -> impl FnOnce(Loss) + Send + use<> {
        let (meter, since, over) = (self.meter.here(), self.since, self.over().clone());
        move |loss| meter.lost(since, &over, reason(Some(loss)))
    }
}

impl Meter {
    fn ended(self, since: Instant) {
        self.with(|it| {
            it.held.decrement(1.0);
            it.hold.record(since.elapsed().as_secs_f64());
        });
    }

    fn lost(self, since: Instant, over: &AtomicBool, reason: &'static str) {
        if !over.swap(true, Ordering::Relaxed) {
            self.ended(since);
            self.with(|it| it.lost(reason));
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.end();
    }
}
