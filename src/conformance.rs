//! Tests whether a backend keeps the promises of this crate for every lock, and those of its own
//! capabilities.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> stanchion::Result<()> {
//! use stanchion::{Locks, conformance};
//!
//! let locks = Locks::connect("mem:").await?;
//! let report = conformance::run(&locks).await;
//! assert!(report.is_ok(), "{report}");
//! # Ok(()) }
//! ```
//!
//! - The suite uses names that begin with `conformance/`.
//! - It fails a step that takes more than ten seconds, and then goes on with the next promise. The
//!   report comes at the end, so a backend with many faults may run for minutes without output. Use
//!   [`run_some`] to test one promise.
//! - One fault may break several promises, and not each promise that it concerns. Begin with the
//!   first one in the report.
//! - The suite cannot test what happens when a process or a server dies.

#![allow(clippy::disallowed_methods)] // It plays the callers, which have a runtime and may sleep.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{Either, LocalBoxFuture, select};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::acquire::Acquire;
use crate::any::{AnyGuard, AnyLock, AnySemaphore, AnySharedLock};
use crate::error::{ErrorKind, Result};
use crate::foreign::surviving_future;
use crate::guard::Guard;
use crate::lock::{Capabilities, Tokens};
use crate::locks::Locks;
use crate::status::{Held, Removal};

/// A step that takes longer than this hangs.
const HANGS: Duration = Duration::from_secs(10);
/// A time limit that the test lets pass.
const SHORT: Duration = Duration::from_millis(30);
/// How long the suite watches a caller that must wait. Longer if the backend is slow.
const WATCHED: Duration = Duration::from_millis(50);
/// The longest time that it watches such a caller.
const LONGEST_WATCHED: Duration = Duration::from_secs(1);

/// The outcome for one promise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The backend keeps the promise.
    Kept,
    /// The backend breaks the promise; the text says how.
    Broken(String),
    /// The backend does not make the promise; the text says why. This is no failure.
    NotMade(&'static str),
}

/// The outcomes for all promises; returned by [`run`] and [`run_some`].
#[derive(Clone, Debug)]
pub struct Report {
    entries: Vec<(String, Outcome)>,
}

impl Report {
    /// Returns whether no promise was broken.
    pub fn is_ok(&self) -> bool {
        self.broken().next().is_none()
    }

    /// Returns the name of each broken promise, and how it is broken.
    pub fn broken(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .filter_map(|(name, outcome)| match outcome {
                Outcome::Broken(how) => Some((&**name, &**how)),
                Outcome::Kept | Outcome::NotMade(_) => None,
            })
    }

    /// Returns the name and the outcome of each promise.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Outcome)> {
        self.entries
            .iter()
            .map(|(name, outcome)| (&**name, outcome))
    }
}

/// Writes a line for each promise.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in self.entries() {
            match outcome {
                Outcome::Kept => writeln!(f, "kept      {name}")?,
                Outcome::Broken(how) => writeln!(f, "BROKEN    {name}: {how}")?,
                Outcome::NotMade(why) => writeln!(f, "not made  {name}: {why}")?,
            }
        }
        Ok(())
    }
}

/// Tests the locks of this place. Needs a Tokio runtime with a timer. On a runtime with several
/// threads, it finds more faults.
///
/// # Cancel safety
///
/// Dropping the future releases the locks of the case that runs.
pub async fn run(locks: &Locks) -> Report {
    run_some(locks, |_| true).await
}

/// Tests only the promises for whose names `wanted` returns `true`. A name is as in the report, for
/// example `lock: tokens_increase`.
///
/// # Cancel safety
///
/// As for [`run`].
pub async fn run_some(locks: &Locks, wanted: impl Fn(&str) -> bool) -> Report {
    let three = |locks: &Locks, name: &str| locks.semaphore(name, 3);
    let writer = |locks: &Locks, name: &str| locks.rwlock(name).map(AnyLock::new);
    let watched = surviving_future(watched(locks)).await;
    let mut suite = Suite {
        locks,
        watched: watched.unwrap_or(WATCHED),
        wanted: &wanted,
        entries: Vec::new(),
    };
    suite.add("lock", EXCLUSIVE, Locks::lock).await;
    suite.add("writer", EXCLUSIVE, writer).await;
    suite.add("rwlock", SHARED, Locks::rwlock).await;
    suite.add("semaphore", PERMITS, three).await;
    Report {
        entries: suite.entries,
    }
}

/// Returns how long a caller must be watched until it is in the queue: longer than a grant takes
/// here.
async fn watched(locks: &Locks) -> Duration {
    let begun = Instant::now();
    let name = format!("conformance/{}/pace", std::process::id());
    if let Ok(lock) = locks.lock(&name)
        && let Ok(guard) = ends("an acquire", lock.acquire()).await
    {
        let took = begun.elapsed();
        drop(guard);
        return WATCHED.max(3 * took).min(LONGEST_WATCHED);
    }
    WATCHED
}

struct Suite<'a> {
    locks: &'a Locks,
    /// See [`watched`].
    watched: Duration,
    wanted: &'a dyn Fn(&str) -> bool,
    entries: Vec<(String, Outcome)>,
}

impl Suite<'_> {
    async fn add<L: 'static>(
        &mut self,
        kind: &str,
        cases: &[(&str, Needs, Case<L>)],
        open: fn(&Locks, &str) -> Result<L>,
    ) {
        for (name, needs, case) in cases {
            let name = format!("{kind}: {name}");
            if (self.wanted)(&name) {
                // Also the calls that open the lock may panic.
                let outcome = surviving_future(async {
                    let place = Place::new(self.locks, open, self.watched);
                    judged(*needs, place, *case).await
                });
                let outcome = outcome.await;
                let panicked = || Outcome::Broken("it panicked".to_owned());
                self.entries.push((name, outcome.unwrap_or_else(panicked)));
            }
        }
    }
}

/// Why a promise was broken.
type Broken<T = ()> = std::result::Result<T, String>;

/// The lock of one case. No other case uses its name.
struct Place<L> {
    name: String,
    locks: Locks,
    open: fn(&Locks, &str) -> Result<L>,
    has: Capabilities,
    watched: Duration,
}

type Case<L> = fn(Place<L>) -> LocalBoxFuture<'static, Broken>;

/// The capability on which a promise depends.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Order,
    Names,
    Tokens,
}

impl Needs {
    fn why_not(self, has: Capabilities) -> Option<&'static str> {
        match self {
            Self::Order if !has.fair => Some("the locks are not fair"),
            Self::Names if !has.names_owners => Some("the locks do not name owners"),
            Self::Tokens if has.tokens == Tokens::None => Some("the locks have no tokens"),
            _ => None,
        }
    }
}

async fn judged<L>(needs: Needs, place: Place<L>, case: Case<L>) -> Outcome {
    if let Some(why) = needs.why_not(place.has) {
        return Outcome::NotMade(why);
    }
    match place.beside("") {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return Outcome::NotMade("the backend has no locks of this kind");
        }
        Err(error) => return Outcome::Broken(error.to_string()),
        Ok(_) => {}
    }
    // The parts of a case that may hang have time limits of their own. Their errors name the part.
    match tokio::time::timeout(6 * HANGS, case(place)).await {
        Ok(Ok(())) => Outcome::Kept,
        Ok(Err(how)) => Outcome::Broken(how),
        Err(_) => Outcome::Broken("it did not end".to_owned()),
    }
}

impl<L> Place<L> {
    fn new(locks: &Locks, open: fn(&Locks, &str) -> Result<L>, watched: Duration) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("conformance/{}/{number}", std::process::id()),
            locks: locks.clone(),
            open,
            has: locks.capabilities(),
            watched,
        }
    }

    /// Opens the lock whose name is longer by this.
    fn beside(&self, more: &str) -> Result<L> {
        (self.open)(&self.locks, &format!("{}{more}", self.name))
    }

    fn lock(&self) -> Broken<L> {
        self.beside("")
            .map_err(|error| format!("cannot be opened: {error}"))
    }

    /// A caller that must wait. It has been polled, and is in the queue if there is one.
    async fn waits<G: Guard>(&self, what: &str, wait: Acquire<G>) -> Broken<Waiter<G>> {
        let mut wait = Box::pin(wait);
        match tokio::time::timeout(self.watched, &mut wait).await {
            Err(_) => Ok(wait),
            Ok(Ok(_)) => Err(format!(
                "{what}: it is granted, although the lock is not free"
            )),
            Ok(Err(error)) => Err(format!("{what}: {error}")),
        }
    }
}

type Waiter<G> = Pin<Box<Acquire<G>>>;

fn ensure(kept: bool, otherwise: &str) -> Broken {
    kept.then_some(()).ok_or_else(|| otherwise.to_owned())
}

/// A future that must end.
async fn ends<T>(what: &str, future: impl Future<Output = Result<T>>) -> Broken<T> {
    match tokio::time::timeout(HANGS, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: still not done after {HANGS:?}")),
    }
}

/// A future that must fail with this kind of error.
async fn fails<T>(what: &str, kind: ErrorKind, future: impl Future<Output = Result<T>>) -> Broken {
    match tokio::time::timeout(HANGS, future).await {
        Ok(result) => fails_at_once(what, kind, result),
        Err(_) => Err(format!(
            "{what}: still not done after {HANGS:?}, instead of {kind:?}"
        )),
    }
}

/// A call that must fail with this kind of error.
fn fails_at_once<T>(what: &str, kind: ErrorKind, result: Result<T>) -> Broken {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(format!(
            "{what}: {:?} instead of {kind:?}: {error}",
            error.kind()
        )),
        Ok(_) => Err(format!("{what}: it succeeds instead of {kind:?}")),
    }
}

async fn poll_once<T>(mut future: Pin<&mut impl Future<Output = T>>) {
    std::future::poll_fn(|cx| {
        drop(future.as_mut().poll(cx));
        Poll::Ready(())
    })
    .await;
}

/// Waits until it is so.
async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> Broken<bool>) -> Broken {
    let begun = Instant::now();
    while !is_so().await? {
        ensure(
            begun.elapsed() < HANGS,
            &format!("{what}: still not so after {HANGS:?}"),
        )?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// No caller holds the lock or waits for it.
async fn is_free_soon(lock: &AnyLock) -> Broken {
    soon("the lock is free again", async || {
        let guard = ends("a try", lock.try_acquire()).await?;
        Ok(guard.is_some())
    })
    .await
}

/// Makes a list of cases from functions.
macro_rules! cases {
    ($list:ident of $lock:ty: $($needs:ident $case:ident,)*) => {
        const $list: &[(&str, Needs, Case<$lock>)] = &[$(
            (stringify!($case), Needs::$needs, |place| Box::pin($case(place))),
        )*];
    };
}

cases! { EXCLUSIVE of AnyLock:
    Nothing one_caller_holds_it,
    Nothing no_two_callers_are_inside,
    Nothing names_mean_different_locks,
    Nothing nothing_happens_before_the_first_poll,
    Nothing a_dropped_wait_leaves_nothing,
    Nothing a_dropped_grant_is_given_back,
    Nothing a_dropped_guard_releases,
    Nothing a_dropped_release_goes_on,
    Nothing a_limit_of_zero_is_one_attempt,
    Nothing a_limit_is_kept,
    Nothing waiters_are_counted_or_the_limit_refused,
    Nothing a_closed_handle_grants_nothing,
    Nothing a_guard_that_lives_is_held,
    Nothing the_status_agrees,
    Nothing what_is_in_use_is_not_removed,
    Names the_status_names_the_holder_and_the_waiters,
    Order waiters_are_served_in_order,
    Order a_newcomer_bypasses_no_waiter,
    Tokens tokens_increase,
}

async fn one_caller_holds_it(place: Place<AnyLock>) -> Broken {
    let (one, two) = (place.lock()?, place.lock()?);
    let guard = ends("the first acquire", one.acquire()).await?;
    for (whose, lock) in [("the same handle", &one), ("another handle", &two)] {
        let tried = ends("a try", lock.try_acquire()).await?;
        ensure(
            tried.is_none(),
            &format!("{whose} is granted the lock while it is held"),
        )?;
    }
    let waiter = place.waits("the second acquire", two.acquire()).await?;
    ends("the release", guard.release()).await?;
    let guard = ends("the second acquire, after the release", waiter).await?;
    let tried = ends("a try", one.try_acquire()).await?;
    ensure(
        tried.is_none(),
        "the first handle is granted the lock while the second has it",
    )?;
    drop(guard);
    is_free_soon(&one).await
}

/// How many callers compete in one promise.
const CALLERS: u32 = 8;

/// Returns what lets all callers start together. A caller that starts alone may end before another
/// one begins, and then competes with no other caller.
fn start() -> Arc<Barrier> {
    Arc::new(Barrier::new(CALLERS as usize))
}

async fn no_two_callers_are_inside(place: Place<AnyLock>) -> Broken {
    let inside = Arc::new(AtomicU32::new(0));
    let start = start();
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        let (lock, inside, start) = (place.lock()?, inside.clone(), start.clone());
        tasks.spawn(async move {
            start.wait().await;
            for round in 0..20_u32 {
                let guard = match (number + round) % 4 {
                    0 => ends("a try", lock.try_acquire()).await?,
                    1 => lock.acquire().timeout(Duration::ZERO).await.ok(),
                    2 => {
                        let wait = lock.acquire();
                        tokio::time::timeout(Duration::from_micros(300), wait)
                            .await
                            .ok()
                            .and_then(Result::ok)
                    }
                    _ => Some(ends("an acquire", lock.acquire()).await?),
                };
                if let Some(guard) = guard {
                    let others = inside.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(guard);
                    ensure(others == 0, "two callers hold the lock at the same time")?;
                }
            }
            Ok(())
        });
    }
    all(tasks).await?;
    is_free_soon(&place.lock()?).await
}

/// Awaits all callers. If one of them fails, or the case is dropped, the others end too.
async fn all(mut tasks: JoinSet<Broken>) -> Broken {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn names_mean_different_locks(place: Place<AnyLock>) -> Broken {
    let mut held = Vec::new();
    // Longer than the columns, keys and file names of many systems.
    let long = "x".repeat(300);
    let (one, two) = (format!("{long}1"), format!("{long}2"));
    for more in [
        "", "/", "A", "a", "é", "e\u{301}", " ", "\n", "%41", "..", "\0", &one, &two,
    ] {
        let lock = match place.beside(more) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::InvalidInput => continue,
            Err(error) => return Err(format!("the name that ends in {more:?}: {error}")),
        };
        let tried = ends("a try", lock.try_acquire()).await?;
        let guard = tried.ok_or_else(|| {
            format!("the name that ends in {more:?} is the same lock as another name")
        })?;
        held.push(guard);
    }
    Ok(())
}

async fn nothing_happens_before_the_first_poll(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    let lazy = lock.acquire();
    let guard = ends("a try beside it", lock.try_acquire()).await?;
    ensure(
        guard.is_some(),
        "a future that was never polled holds the lock",
    )?;
    drop(lazy);
    Ok(())
}

async fn a_dropped_wait_leaves_nothing(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    let guard = ends("the acquire", lock.acquire()).await?;
    for _ in 0..3 {
        drop(
            place
                .waits("an acquire while it is held", lock.acquire())
                .await?,
        );
    }
    let mut polled = Box::pin(lock.acquire());
    poll_once(polled.as_mut()).await;
    drop(polled);
    if place.has.names_owners {
        soon("no waiter is left in the status", async || {
            let status = ends("the status", lock.status()).await?;
            Ok(status.waiters.is_empty())
        })
        .await?;
    }
    ends("the release", guard.release()).await?;
    is_free_soon(&lock).await
}

async fn a_dropped_grant_is_given_back(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    for _ in 0..5 {
        let guard = ends("the acquire", lock.acquire()).await?;
        let waiter = place
            .waits("an acquire while it is held", lock.acquire())
            .await?;
        ends("the release", guard.release()).await?;
        // Granted by now, or soon. It is never polled again.
        drop(waiter);
        drop(ends("an acquire after it", lock.acquire()).await?);
    }
    is_free_soon(&lock).await
}

async fn a_dropped_guard_releases(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    for _ in 0..5 {
        drop(ends("an acquire after a dropped guard", lock.acquire()).await?);
    }
    Ok(())
}

async fn a_dropped_release_goes_on(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    for polls in 0..2 {
        let mut release = Box::pin(ends("the acquire", lock.acquire()).await?.release());
        for _ in 0..polls {
            poll_once(release.as_mut()).await;
        }
        drop(release);
        is_free_soon(&lock).await?;
    }
    Ok(())
}

async fn a_limit_of_zero_is_one_attempt(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    let at_once = || lock.acquire().timeout(Duration::ZERO);
    let guard = ends("an attempt at a free lock", at_once()).await?;
    fails("an attempt at a held lock", ErrorKind::TimedOut, at_once()).await?;
    drop(guard);
    is_free_soon(&lock).await
}

async fn a_limit_is_kept(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    let guard = ends("the acquire", lock.acquire()).await?;
    let begun = Instant::now();
    let limited = lock.acquire().timeout(SHORT);
    fails("an acquire with a limit", ErrorKind::TimedOut, limited).await?;
    ensure(begun.elapsed() >= SHORT, "it times out before its limit")?;
    drop(guard);
    is_free_soon(&lock).await
}

async fn waiters_are_counted_or_the_limit_refused(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    let guard = ends("the acquire", lock.acquire()).await?;
    let busy = lock.acquire().max_waiting(0);
    fails("max_waiting(0) while it is held", ErrorKind::Busy, busy).await?;
    let _waiter = place
        .waits("an acquire while it is held", lock.acquire())
        .await?;
    let kind = match place.has.fair {
        true => ErrorKind::Busy,
        false => ErrorKind::Unsupported,
    };
    fails(
        "max_waiting(1) while one waits",
        kind,
        lock.acquire().max_waiting(1),
    )
    .await?;
    drop(guard);
    Ok(())
}

async fn a_closed_handle_grants_nothing(place: Place<AnyLock>) -> Broken {
    let (lock, other) = (place.lock()?, place.lock()?);
    let guard = ends("the acquire", lock.acquire()).await?;
    let waiter = place
        .waits("an acquire while it is held", lock.acquire())
        .await?;
    lock.close();
    fails(
        "a wait when its handle is closed",
        ErrorKind::Closed,
        waiter,
    )
    .await?;
    fails("an acquire after that", ErrorKind::Closed, lock.acquire()).await?;
    fails("a try after that", ErrorKind::Closed, lock.try_acquire()).await?;
    ensure(
        guard.is_held(),
        "the guard is no longer held when its handle is closed",
    )?;
    ends("the release after that", guard.release()).await?;
    is_free_soon(&other).await
}

async fn a_guard_that_lives_is_held(place: Place<AnyLock>) -> Broken {
    let guard = ends("the acquire", place.lock()?.acquire()).await?;
    let lost = tokio::time::timeout(WATCHED, guard.lost()).await;
    ensure(
        lost.is_err(),
        "a lock that is held and was not lost is reported as lost",
    )?;
    ensure(
        guard.is_held(),
        "a guard that was not lost says that it is not held",
    )?;
    ensure(
        !guard.predecessor_crashed(),
        "a crash is reported where no holder crashed",
    )?;
    ends("the release", guard.release()).await
}

async fn the_status_agrees(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    let held = async || match lock.status().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Held::Unknown),
        status => status
            .map(|it| it.held)
            .map_err(|error| format!("the status: {error}")),
    };
    ensure(
        held().await? != Held::Yes,
        "the status of a free lock says that it is held",
    )?;
    let guard = ends("the acquire", lock.acquire()).await?;
    ensure(
        held().await? != Held::No,
        "the status of a held lock says that it is free",
    )?;
    ends("the release", guard.release()).await?;
    ensure(
        held().await? != Held::Yes,
        "after the release the status says that it is held",
    )
}

async fn what_is_in_use_is_not_removed(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    let guard = ends("the acquire", lock.acquire()).await?;
    match lock.remove().await {
        Ok(Removal::InUse) => {}
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Ok(Removal::Removed) => return Err("a lock that is held is removed".to_owned()),
        Err(error) => return Err(format!("remove: {error}")),
    }
    ends("the release", guard.release()).await?;
    let removed = ends("remove", lock.remove()).await?;
    ensure(
        removed == Removal::Removed,
        "a lock that is free is not removed",
    )?;
    ends("an acquire after that", lock.acquire())
        .await
        .map(drop)
}

async fn the_status_names_the_holder_and_the_waiters(place: Place<AnyLock>) -> Broken {
    let lock = place.lock()?;
    let guard = ends("the acquire", lock.acquire()).await?;
    let _waiter = place
        .waits("an acquire while it is held", lock.acquire())
        .await?;
    let status = ends("the status", lock.status()).await?;
    ensure(
        status.held == Held::Yes,
        "the lock is held, and the status does not say so",
    )?;
    ensure(
        status.holder.is_some(),
        "the status does not name the holder",
    )?;
    ensure(
        !place.has.fair || status.waiters.len() == 1,
        "one caller waits, and the status shows another number",
    )?;
    let token = guard.token().unwrap_or_default();
    ensure(
        status.last_token >= token,
        "the status shows a token below that of the holder",
    )?;
    drop(guard);
    Ok(())
}

async fn waiters_are_served_in_order(place: Place<AnyLock>) -> Broken {
    let mut guard = ends("the acquire", place.lock()?.acquire()).await?;
    let mut line = Vec::new();
    for _ in 0..5 {
        line.push(
            place
                .waits("an acquire while it is held", place.lock()?.acquire())
                .await?,
        );
    }
    // A waiter in the middle leaves.
    drop(line.remove(2));
    while !line.is_empty() {
        ends("a release", guard.release()).await?;
        let (granted, place) = ends("the next grant", async {
            let (result, place, _) = futures::future::select_all(line.iter_mut()).await;
            result.map(|guard| (guard, place))
        })
        .await?;
        ensure(
            place == 0,
            "a waiter is granted the lock before one that came earlier",
        )?;
        drop(line.remove(0));
        guard = granted;
    }
    drop(guard);
    Ok(())
}

async fn a_newcomer_bypasses_no_waiter(place: Place<AnyLock>) -> Broken {
    let (lock, other) = (place.lock()?, place.lock()?);
    let guard = ends("the acquire", lock.acquire()).await?;
    let waiter = place
        .waits("an acquire while it is held", lock.acquire())
        .await?;
    ends("the release", guard.release()).await?;
    for (whose, newcomer) in [("the same handle", &lock), ("another handle", &other)] {
        let tried = ends("a try", newcomer.try_acquire()).await?;
        ensure(
            tried.is_none(),
            &format!("a try of {whose} is granted the lock although a caller waits"),
        )?;
    }
    let newcomer = Box::pin(other.acquire());
    let (guard, newcomer) = ends("the waiter's grant", async {
        match select(newcomer, waiter).await {
            Either::Left((guard, _)) => guard.map(|guard| (guard, None)),
            Either::Right((guard, newcomer)) => guard.map(|guard| (guard, Some(newcomer))),
        }
    })
    .await?;
    drop(guard);
    let newcomer = newcomer.ok_or("an acquire is granted the lock although a caller waits")?;
    ends("the newcomer's grant", newcomer).await.map(drop)
}

async fn tokens_increase(place: Place<AnyLock>) -> Broken {
    let mut last = None;
    for _ in 0..5 {
        let guard = ends("the acquire", place.lock()?.acquire()).await?;
        follows(&guard, &mut last)?;
        let waiter = place.lock()?.acquire();
        let waiter = place.waits("an acquire while it is held", waiter).await?;
        ends("the release", guard.release()).await?;
        let guard = ends("the waiter's grant", waiter).await?;
        follows(&guard, &mut last)?;
        ends("the release", guard.release()).await?;
    }
    Ok(())
}

fn follows(guard: &AnyGuard, last: &mut Option<u64>) -> Broken {
    ensure(guard.token().is_some(), "a grant has no token")?;
    ensure(
        guard.token() > *last,
        "the token of a grant is not greater than the one before",
    )?;
    *last = guard.token();
    Ok(())
}

cases! { SHARED of AnySharedLock:
    Nothing readers_share_and_a_writer_does_not,
    Nothing no_writer_is_inside_with_others,
    Nothing a_downgrade_lets_in_readers_and_no_writer,
    Order a_reader_bypasses_no_waiting_writer,
}

async fn a_downgrade_lets_in_readers_and_no_writer(place: Place<AnySharedLock>) -> Broken {
    let lock = place.lock()?;
    let guard = ends("the writer", lock.acquire()).await?;
    let token = guard.token();
    let reader = place
        .waits("a reader beside a writer", lock.acquire_shared())
        .await?;
    let mut writer = place
        .waits("another writer", place.lock()?.acquire())
        .await?;
    let shared = match guard.downgrade().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        downgraded => ends("the downgrade", std::future::ready(downgraded)).await?,
    };
    let reader = ends("the reader, after the downgrade", reader).await?;
    ensure(
        shared.token() == token,
        "a writer that became a reader has another token",
    )?;
    drop(reader);
    let early = tokio::time::timeout(place.watched, &mut writer).await;
    ensure(
        early.is_err(),
        "a writer is granted the lock beside one that became a reader",
    )?;
    drop(shared);
    ends("the other writer, when all readers are gone", writer)
        .await
        .map(drop)
}

async fn readers_share_and_a_writer_does_not(place: Place<AnySharedLock>) -> Broken {
    let lock = place.lock()?;
    let one = ends("the first reader", lock.acquire_shared()).await?;
    let two = ends("the second reader", place.lock()?.acquire_shared()).await?;
    let three = ends("a try to read", lock.try_acquire_shared()).await?;
    ensure(
        three.is_some(),
        "a reader is refused although only readers hold the lock",
    )?;
    let writer = ends("a try to write", lock.try_acquire()).await?;
    ensure(
        writer.is_none(),
        "a writer is granted the lock beside readers",
    )?;
    let writer = place
        .waits("a writer beside readers", lock.acquire())
        .await?;
    drop((one, two, three));
    let guard = ends("the writer, when all readers are gone", writer).await?;
    let reader = ends("a try to read", lock.try_acquire_shared()).await?;
    ensure(
        reader.is_none(),
        "a reader is granted the lock beside a writer",
    )?;
    let reader = place
        .waits("a reader beside a writer", lock.acquire_shared())
        .await?;
    ends("the writer's release", guard.release()).await?;
    ends("the reader, when the writer is gone", reader)
        .await
        .map(drop)
}

async fn no_writer_is_inside_with_others(place: Place<AnySharedLock>) -> Broken {
    const WRITER: u32 = 1000;
    let inside = Arc::new(AtomicU32::new(0));
    let start = start();
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        let (lock, inside, start) = (place.lock()?, inside.clone(), start.clone());
        tasks.spawn(async move {
            start.wait().await;
            for round in 0..15_u32 {
                let writes = (number + round) % 3 == 0;
                let (wait, weight) = match writes {
                    true => (lock.acquire(), WRITER),
                    false => (lock.acquire_shared(), 1),
                };
                let guard = ends("an acquire", wait).await?;
                let others = inside.fetch_add(weight, Ordering::SeqCst);
                tokio::task::yield_now().await;
                inside.fetch_sub(weight, Ordering::SeqCst);
                drop(guard);
                let alone = if writes { others == 0 } else { others < WRITER };
                ensure(
                    alone,
                    "a writer holds the lock at the same time as another caller",
                )?;
            }
            Ok(())
        });
    }
    all(tasks).await
}

async fn a_reader_bypasses_no_waiting_writer(place: Place<AnySharedLock>) -> Broken {
    let lock = place.lock()?;
    let reader = ends("the first reader", lock.acquire_shared()).await?;
    let writer = place
        .waits("a writer beside a reader", lock.acquire())
        .await?;
    let tried = ends("a try to read", lock.try_acquire_shared()).await?;
    ensure(
        tried.is_none(),
        "a reader is granted the lock although a writer waits",
    )?;
    let later = place
        .waits("a reader behind a writer", lock.acquire_shared())
        .await?;
    drop(reader);
    drop(ends("the writer", writer).await?);
    ends("the reader behind it", later).await.map(drop)
}

cases! { PERMITS of AnySemaphore:
    Nothing there_are_as_many_permits_as_said,
    Nothing no_more_permits_are_held_than_there_are,
    Nothing numbers_of_permits_are_checked,
    Nothing free_permits_are_counted,
    Nothing a_dropped_permit_is_given_back,
    Nothing permits_are_split_and_merged,
    Order a_small_request_bypasses_no_large_one,
}

async fn there_are_as_many_permits_as_said(place: Place<AnySemaphore>) -> Broken {
    let semaphore = place.lock()?;
    ensure(
        semaphore.limit() == 3,
        "the limit is not the one that was asked for",
    )?;
    let two = ends("two permits", semaphore.acquire_many(2)).await?;
    ensure(two.permits() == 2, "a guard of two permits does not say so")?;
    let one = ends("the third permit", place.lock()?.acquire()).await?;
    let fourth = ends("a try", semaphore.try_acquire()).await?;
    ensure(fourth.is_none(), "a fourth permit of three is granted")?;
    let waiter = place.waits("a fourth permit", semaphore.acquire()).await?;
    ends("a release", one.release()).await?;
    let one = ends("the permit that came back", waiter).await?;
    ends("the release of two", two.release()).await?;
    drop(one);
    ends("all permits", semaphore.acquire_many(3))
        .await
        .map(drop)
}

async fn no_more_permits_are_held_than_there_are(place: Place<AnySemaphore>) -> Broken {
    let held = Arc::new(AtomicU32::new(0));
    let start = start();
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        let (semaphore, held, start) = (place.lock()?, held.clone(), start.clone());
        tasks.spawn(async move {
            start.wait().await;
            for round in 0..15_u32 {
                let permits = (number + round) % 3 + 1;
                let guard = ends("an acquire", semaphore.acquire_many(permits)).await?;
                let others = held.fetch_add(permits, Ordering::SeqCst);
                tokio::task::yield_now().await;
                held.fetch_sub(permits, Ordering::SeqCst);
                drop(guard);
                ensure(
                    others + permits <= 3,
                    "more than three permits are held at the same time",
                )?;
            }
            Ok(())
        });
    }
    all(tasks).await
}

async fn numbers_of_permits_are_checked(place: Place<AnySemaphore>) -> Broken {
    let semaphore = place.lock()?;
    let kind = ErrorKind::InvalidInput;
    fails("0 permits", kind, semaphore.acquire_many(0)).await?;
    fails("4 permits of 3", kind, semaphore.acquire_many(4)).await?;
    fails(
        "a try for 4 permits of 3",
        kind,
        semaphore.try_acquire_many(4),
    )
    .await
}

async fn free_permits_are_counted(place: Place<AnySemaphore>) -> Broken {
    let (semaphore, other) = (place.lock()?, place.lock()?);
    let mut held = Vec::new();
    for free in [3, 2, 0] {
        match other.available().await {
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            counted => {
                let counted = ends("the count", std::future::ready(counted)).await?;
                ensure(
                    counted == free,
                    "the number of free permits is not the limit less those that are held",
                )?;
            }
        }
        if let Ok(status) = other.status().await {
            ensure(
                status.limit.is_none_or(|it| it == 3)
                    && status.available.is_none_or(|it| it == free),
                "the status does not agree with the number of free permits",
            )?;
        }
        let next = 3 - free + 1;
        if free > 0 {
            held.push(ends("some permits", semaphore.acquire_many(next)).await?);
        }
    }
    drop(held);
    soon("all permits are free again", async || {
        Ok(ends("the count", other.available()).await? == 3)
    })
    .await
}

async fn a_dropped_permit_is_given_back(place: Place<AnySemaphore>) -> Broken {
    let semaphore = place.lock()?;
    for _ in 0..4 {
        let all = ends("all permits", semaphore.acquire_many(3)).await?;
        let waiter = place
            .waits("a permit while all are held", semaphore.acquire_many(2))
            .await?;
        drop((all, waiter));
    }
    ends("all permits", semaphore.acquire_many(3))
        .await
        .map(drop)
}

async fn permits_are_split_and_merged(place: Place<AnySemaphore>) -> Broken {
    let (semaphore, other) = (place.lock()?, place.lock()?);
    let mut all = ends("all permits", semaphore.acquire_many(3)).await?;
    let token = all.token();
    for wrong in [0, 3] {
        fails_at_once(
            "an invalid split",
            ErrorKind::InvalidInput,
            all.split(wrong),
        )?;
    }
    let mut two = match all.split(2) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        split => split.map_err(|error| format!("the split: {error}"))?,
    };
    let counted = (all.permits(), two.permits()) == (1, 2);
    ensure(counted, "the permits are not those of the split")?;
    let same = two.token() == token && all.token() == token;
    ensure(same, "the parts do not have the token of the grant")?;
    let free = ends("a try", other.try_acquire()).await?;
    ensure(free.is_none(), "a permit is granted although all are held")?;
    let waiter = place
        .waits("a permit while all are held", other.acquire())
        .await?;
    let last = two
        .split(1)
        .map_err(|error| format!("the split: {error}"))?;
    drop(two);
    drop(ends("the permit of a dropped part", waiter).await?);
    merges(&place, all, last).await?;
    ends("all permits", semaphore.acquire_many(3))
        .await
        .map(drop)
}

/// Merges two parts of the semaphore, and refuses the permit of another one.
async fn merges(place: &Place<AnySemaphore>, mut one: AnyGuard, two: AnyGuard) -> Broken {
    let semaphore = place.lock()?;
    one.merge(two)
        .map_err(|error| format!("the merge: {error}"))?;
    ensure(one.permits() == 2, "two merged permits are not counted")?;
    let foreign = place.beside("another").map_err(|it| it.to_string())?;
    let three = ends("permits of another semaphore", foreign.acquire_many(3)).await?;
    let what = "a merge of two semaphores";
    fails_at_once(what, ErrorKind::InvalidInput, one.merge(three))?;
    let three = foreign.acquire_many(3);
    drop(ends("the permits that were not merged", three).await?);
    let all = ends("a try", semaphore.try_acquire_many(2)).await?;
    ensure(all.is_none(), "a merged permit is granted again")?;
    ends("the release of both", one.release()).await
}

async fn a_small_request_bypasses_no_large_one(place: Place<AnySemaphore>) -> Broken {
    let semaphore = place.lock()?;
    let one = ends("one permit", semaphore.acquire()).await?;
    let large = place
        .waits("three permits while one is held", semaphore.acquire_many(3))
        .await?;
    let tried = ends("a try", semaphore.try_acquire()).await?;
    ensure(
        tried.is_none(),
        "one permit is granted although a caller waits for three",
    )?;
    let small = place
        .waits("one permit behind three", semaphore.acquire())
        .await?;
    drop(one);
    drop(ends("the large request", large).await?);
    ends("the small request", small).await.map(drop)
}
