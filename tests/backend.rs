//! The public traits of a backend: every backend passes the suite, and the suite notices each wrong
//! one.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::{StreamExt, stream};
use stanchion::backend::{
    Address, BoxFuture, BoxPending, Engine, Hold, Line, Mode, Pending, Request,
};
use stanchion::conformance::{self, Report};
use stanchion::{
    AnyLock, AnySemaphore, AnySharedLock, Capabilities, Changes, Error, ErrorKind, Held, Locks,
    Loss, Lost, Owner, Reach, Reentrant, Removal, Result, Status, Tokens, Waiter,
};

#[path = "conformance/one_permit.rs"]
mod one_permit;

use one_permit::OnePermit;

/// The URL of a directory: `file:///run/app`, or `file:///C:/app` on Windows.
fn url_of(directory: &Path) -> String {
    let path = directory.display().to_string().replace('\\', "/");
    format!("file:///{}", path.trim_start_matches('/'))
}

async fn passes(url: &str) {
    let locks = Locks::connect(url).await.expect("locks");
    let report = conformance::run(&locks).await;
    assert!(report.is_ok(), "{url}\n{report}");
    assert!(report.entries().count() > 40, "{report}");
}

/// A backend may repeat its error. A loop over the changes must end.
#[tokio::test]
async fn a_stream_of_changes_ends_after_an_error() {
    let fails = || Err(Error::new(ErrorKind::Unsupported, "no changes"));
    let mut changes = Changes::new(stream::repeat_with(fails));
    let error = changes.next().await.expect("an item").expect_err("fails");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(changes.next().await.is_none());
    assert!(StreamExt::next(&mut changes).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_in_memory_pass() {
    passes("mem:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_in_a_directory_pass() {
    for options in ["", "?method=os", "?method=mkdir", "?method=create_new"] {
        let directory = tempfile::tempdir().expect("a directory");
        passes(&format!("{}{options}", url_of(directory.path()))).await;
    }
}

/// A lock that does not exclude breaks the first property of the suite.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fake_lock_does_not_pass() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("{}?method=fake", url_of(directory.path()));
    let locks = Locks::connect(url).await.expect("locks");
    assert_broken(&conformance::run(&locks).await, "lock: one_caller_holds_it");
}

fn assert_broken(report: &Report, promise: &str) {
    let broken: Vec<_> = report.broken().map(|(name, _)| name).collect();
    assert!(broken.contains(&promise), "{promise}:\n{report}");
}

/// A property that a backend breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// No lie: each request takes longer than the suite watches the callers of a fast backend.
    NoneButIsSlow,
    LetsInTwo,
    LetsInNewcomers,
    LetsInAcquires,
    LetsInOtherHandles,
    ServesTheLastFirst,
    KeepsPlacesOfTheDropped,
    KeepsGrantsOfTheDropped,
    KeepsGuardsOfTheDropped,
    AsksBeforeThePoll,
    QueuesTries,
    CallsContentionAnError,
    CountsNobody,
    RepeatsTokens,
    RepeatsTokensOfWaiters,
    LosesLocks,
    TellsOfCrashes,
    ShowsItFree,
    ShowsNobody,
    RemovesWhatIsHeld,
    MixesUpNames,
    CutsNames,
    MixesReadersAndWriters,
    GrantsTooMany,
    DowngradesToNothing,
    DowngradesForItself,
    CountsGuards,
    ShowsAllPermits,
    SplitsTheGuardOnly,
    GivesPartsNewTokens,
    MergesStrangers,
    MergesAndReleases,
}

/// For each lie, a property that it breaks.
const LIES: &[(Lie, &str)] = &[
    (Lie::LetsInTwo, "lock: one_caller_holds_it"),
    (Lie::LetsInTwo, "lock: no_two_callers_are_inside"),
    (Lie::LetsInNewcomers, "lock: a_newcomer_bypasses_no_waiter"),
    (Lie::LetsInAcquires, "lock: a_newcomer_bypasses_no_waiter"),
    (
        Lie::LetsInOtherHandles,
        "lock: a_newcomer_bypasses_no_waiter",
    ),
    (
        Lie::LetsInNewcomers,
        "rwlock: a_reader_bypasses_no_waiting_writer",
    ),
    (
        Lie::LetsInNewcomers,
        "semaphore: a_small_request_bypasses_no_large_one",
    ),
    (Lie::ServesTheLastFirst, "lock: waiters_are_served_in_order"),
    (
        Lie::KeepsPlacesOfTheDropped,
        "lock: a_dropped_wait_leaves_nothing",
    ),
    (
        Lie::KeepsGrantsOfTheDropped,
        "lock: a_dropped_grant_is_given_back",
    ),
    (
        Lie::KeepsGuardsOfTheDropped,
        "lock: a_dropped_guard_releases",
    ),
    (
        Lie::KeepsGuardsOfTheDropped,
        "lock: a_dropped_release_goes_on",
    ),
    (
        Lie::KeepsGuardsOfTheDropped,
        "semaphore: a_dropped_permit_is_given_back",
    ),
    (
        Lie::AsksBeforeThePoll,
        "lock: nothing_happens_before_the_first_poll",
    ),
    (Lie::QueuesTries, "lock: a_limit_of_zero_is_one_attempt"),
    (Lie::CallsContentionAnError, "lock: a_limit_is_kept"),
    (
        Lie::CountsNobody,
        "lock: waiters_are_counted_or_the_limit_refused",
    ),
    (Lie::RepeatsTokens, "lock: tokens_increase"),
    (Lie::RepeatsTokensOfWaiters, "lock: tokens_increase"),
    (Lie::LosesLocks, "lock: a_guard_that_lives_is_held"),
    (Lie::LosesLocks, "lock: a_closed_handle_grants_nothing"),
    (Lie::TellsOfCrashes, "lock: a_guard_that_lives_is_held"),
    (Lie::ShowsItFree, "lock: the_status_agrees"),
    (
        Lie::ShowsNobody,
        "lock: the_status_names_the_holder_and_the_waiters",
    ),
    (
        Lie::RemovesWhatIsHeld,
        "lock: what_is_in_use_is_not_removed",
    ),
    (Lie::MixesUpNames, "lock: names_mean_different_locks"),
    (Lie::CutsNames, "lock: names_mean_different_locks"),
    (
        Lie::MixesReadersAndWriters,
        "rwlock: readers_share_and_a_writer_does_not",
    ),
    (
        Lie::MixesReadersAndWriters,
        "rwlock: no_writer_is_inside_with_others",
    ),
    (
        Lie::GrantsTooMany,
        "semaphore: there_are_as_many_permits_as_said",
    ),
    (
        Lie::GrantsTooMany,
        "semaphore: no_more_permits_are_held_than_there_are",
    ),
    (
        Lie::DowngradesToNothing,
        "rwlock: a_downgrade_lets_in_readers_and_no_writer",
    ),
    (
        Lie::DowngradesForItself,
        "rwlock: a_downgrade_lets_in_readers_and_no_writer",
    ),
    (Lie::CountsGuards, "semaphore: free_permits_are_counted"),
    (Lie::ShowsAllPermits, "semaphore: free_permits_are_counted"),
    (Lie::SplitsTheGuardOnly, SPLIT),
    (Lie::GivesPartsNewTokens, SPLIT),
    (Lie::MergesStrangers, SPLIT),
    (Lie::MergesAndReleases, SPLIT),
];

const SPLIT: &str = "semaphore: permits_are_split_and_merged";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_honest_backend_passes() {
    all_are_kept(Lie::None, |_| true).await;
}

/// Its callers are in the queue later than those of a fast backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_backend_passes() {
    let depends_on_time = |name: &str| {
        let parts = ["lock: waiters", "lock: the_status_names", "bypasses_no"];
        parts.iter().any(|it| name.contains(it))
    };
    all_are_kept(Lie::NoneButIsSlow, depends_on_time).await;
}

async fn all_are_kept(honest: Lie, wanted: impl Fn(&str) -> bool) {
    let report = conformance::run_some(&Locks::with_engine(Toy::new(honest)), wanted).await;
    let mut entries = report.entries();
    assert!(
        entries.all(|(_, it)| *it == conformance::Outcome::Kept),
        "{report}"
    );
    assert!(report.entries().count() > 4, "{report}");
}

/// An engine that panics when it opens its locks.
struct Brash;

impl Engine for Brash {
    fn url(&self) -> String {
        "brash:".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn lock(&self, _: &str) -> Result<AnyLock> {
        panic!("this backend opens nothing");
    }
}

#[tokio::test]
async fn a_panic_of_a_backend_is_in_the_report() {
    let report = conformance::run(&Locks::with_engine(Brash)).await;
    assert!(report.entries().count() > 20, "{report}");
    assert_broken(&report, "lock: one_caller_holds_it");
}

/// Its callers would wait forever for a lock that is never granted.
#[tokio::test]
async fn a_dropped_run_leaves_no_task() {
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    let locks = Locks::with_engine(Toy::new(Lie::KeepsGuardsOfTheDropped));
    let run = conformance::run_some(&locks, |it| it == "lock: no_two_callers_are_inside");
    let mut run = Box::pin(run);
    while alive() == before {
        assert!(futures::poll!(&mut run).is_pending());
        tokio::task::yield_now().await;
    }
    drop(run);
    // A task that was aborted ends when the runtime polls it once more.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backend_that_lies_is_found_out() {
    let mut lies: Vec<_> = LIES.iter().map(|(lie, _)| *lie).collect();
    lies.dedup();
    let runs = lies.into_iter().map(|lie| async move {
        let locks = Locks::with_engine(Toy::new(lie));
        let breaks = |name: &str| LIES.contains(&(lie, name));
        (lie, conformance::run_some(&locks, breaks).await)
    });
    for (lie, report) in futures::future::join_all(runs).await {
        for (_, promise) in LIES.iter().filter(|(it, _)| *it == lie) {
            assert_broken(&report, promise);
        }
    }
}

/// The address of a wait is that of its queue.
#[tokio::test]
async fn one_lock_that_is_named_twice_is_refused() {
    let locks = Locks::with_engine(Toy::new(Lie::None));
    let (one, same) = (locks.lock("a").expect("a"), locks.lock("a").expect("a"));
    let both = stanchion::acquire_all([one.acquire(), same.acquire()]).await;
    assert_eq!(both.expect_err("one lock").kind(), ErrorKind::Deadlock);
    let other = locks.lock("b").expect("another");
    let two = stanchion::acquire_all([one.acquire(), other.acquire()]).await;
    assert_eq!(two.expect("two locks").len(), 2);
}

/// A backend in memory that breaks one promise.
struct Toy {
    lie: Lie,
    rows: Mutex<HashMap<String, Arc<Row>>>,
}

impl Toy {
    fn new(lie: Lie) -> Self {
        let rows = Mutex::default();
        Self { lie, rows }
    }

    fn row(&self, name: &str, parts: u32) -> Handle {
        let name = match self.lie {
            Lie::MixesUpNames => name.to_lowercase(),
            Lie::CutsNames => name.chars().take(255).collect(),
            _ => name.to_owned(),
        };
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry(name.clone()).or_insert_with(|| {
            Arc::new(Row {
                name,
                parts,
                lie: self.lie,
                state: Mutex::default(),
            })
        });
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Handle(row.clone(), NUMBER.fetch_add(1, Ordering::Relaxed))
    }
}

fn capabilities() -> Capabilities {
    let mut can = Capabilities::minimal(Reach::Process);
    (can.fair, can.push, can.names_owners) = (true, true, true);
    can.tokens = Tokens::Strict;
    can
}

/// How many readers there may be.
const READERS: u32 = 1000;

impl Engine for Toy {
    fn url(&self) -> String {
        format!("toy:{:?}", self.lie)
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn lock(&self, name: &str) -> Result<AnyLock> {
        Ok(AnyLock::of_line(self.row(name, 1)))
    }

    fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        Ok(AnySharedLock::of_line(self.row(name, READERS)))
    }

    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        Ok(AnySemaphore::of_line(self.row(name, permits)))
    }
}

struct Row {
    name: String,
    parts: u32,
    lie: Lie,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    held: BTreeMap<u64, u32>,
    /// Their parts, wakers and handles.
    waiters: BTreeMap<u64, (u32, Waker, u64)>,
}

impl Row {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether some callers overtake the waiters.
    fn lets_in(&self) -> bool {
        use Lie::{LetsInAcquires, LetsInNewcomers, LetsInOtherHandles};
        matches!(
            self.lie,
            LetsInAcquires | LetsInNewcomers | LetsInOtherHandles
        )
    }

    fn parts(&self, mode: Mode) -> u32 {
        match mode {
            Mode::Exclusive if self.lie == Lie::MixesReadersAndWriters => 1,
            Mode::Exclusive => self.parts,
            Mode::Shared => 1,
            Mode::Permits(permits) => permits,
        }
    }

    fn fits(&self, state: &State, parts: u32) -> bool {
        let held: u32 = state.held.values().sum();
        let more = match self.lie {
            Lie::LetsInTwo => self.parts,
            Lie::GrantsTooMany => 1,
            _ => 0,
        };
        held + parts <= self.parts + more
    }

    /// Grants what is free to the waiters.
    fn settle(&self, state: &mut State) -> Vec<Waker> {
        let mut woken = Vec::new();
        loop {
            let next = match self.lie {
                Lie::ServesTheLastFirst => state.waiters.last_key_value(),
                _ => state.waiters.first_key_value(),
            };
            let Some((number, parts)) = next.map(|(number, it)| (*number, it.0)) else {
                return woken;
            };
            if !self.fits(state, parts) {
                return woken;
            }
            if self.lets_in() {
                // The waiters may try again, together with new callers.
                let wakers = state.waiters.values().map(|it| it.1.clone());
                return wakers.collect();
            }
            state.held.insert(number, parts);
            woken.extend(state.waiters.remove(&number).map(|it| it.1));
        }
    }

    fn release(&self, number: u64) {
        let mut state = self.state();
        state.held.remove(&number);
        let woken = self.settle(&mut state);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// With the number of the handle.
struct Handle(Arc<Row>, u64);

impl Line for Handle {
    fn address(&self) -> Address {
        Address::new("toy", "", &self.0.name)
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn enqueue(&self, mode: Mode) -> BoxPending {
        let mut caller = Caller {
            row: self.0.clone(),
            parts: self.0.parts(mode),
            number: None,
            handle: self.1,
            delay: None,
        };
        if self.0.lie == Lie::AsksBeforeThePoll {
            let mut state = self.0.state();
            state.last += 1;
            caller.number = Some(state.last);
            if self.0.fits(&state, caller.parts) {
                let number = state.last;
                state.held.insert(number, caller.parts);
            }
        }
        Box::new(caller)
    }

    fn limit(&self) -> u32 {
        self.0.parts
    }

    fn available(&self) -> BoxFuture<'_, Result<u32>> {
        let state = self.0.state();
        let held = match self.0.lie {
            Lie::CountsGuards => u32::try_from(state.held.len()).expect("a few"),
            _ => state.held.values().sum(),
        };
        Box::pin(async move { Ok(self.0.parts - held) })
    }

    fn status(&self) -> BoxFuture<'_, Result<Status>> {
        let state = self.0.state();
        let mut status = Status::free();
        if self.0.lie == Lie::ShowsItFree || state.held.is_empty() {
            return Box::pin(async { Ok(status) });
        }
        status.held = Held::Yes;
        if self.0.lie == Lie::ShowsAllPermits {
            status.available = Some(self.0.parts);
        }
        if self.0.lie != Lie::ShowsNobody {
            status.holder = Some(Owner::unknown());
            status.last_token = state.last;
            let waiter = |_| Waiter::new(Owner::unknown());
            status.waiters = state.waiters.keys().map(waiter).collect();
        }
        Box::pin(async { Ok(status) })
    }

    fn remove(&self) -> BoxFuture<'_, Result<Removal>> {
        let in_use = !self.0.state().held.is_empty() && self.0.lie != Lie::RemovesWhatIsHeld;
        Box::pin(async move {
            Ok(if in_use {
                Removal::InUse
            } else {
                Removal::Removed
            })
        })
    }
}

struct Caller {
    row: Arc<Row>,
    parts: u32,
    number: Option<u64>,
    handle: u64,
    /// The time until a request is at the server.
    delay: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Caller {
    /// Returns whether it is granted what is free, although others wait.
    fn barges(&self, state: &State, asks: &Request) -> bool {
        match self.row.lie {
            Lie::LetsInNewcomers => true,
            Lie::LetsInAcquires => !asks.try_only,
            Lie::LetsInOtherHandles => state.waiters.values().all(|it| it.2 != self.handle),
            _ => false,
        }
    }
}

impl Pending for Caller {
    type Grant = Box<dyn Hold>;

    fn poll(&mut self, asks: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<Self::Grant>>> {
        let lie = self.row.lie;
        if lie == Lie::NoneButIsSlow && self.number.is_none() {
            let sleep = || Box::pin(tokio::time::sleep(Duration::from_millis(120)));
            let delay = self.delay.get_or_insert_with(sleep).as_mut();
            std::task::ready!(delay.poll(cx));
        }
        let mut state = self.row.state();
        let is_new = self.number.is_none();
        let last = &mut state.last;
        let number = *self.number.get_or_insert_with(|| {
            *last += 1;
            *last
        });
        let barges = self.barges(&state, asks);
        let is_first = self.row.lets_in() && state.waiters.keys().next() == Some(&number);
        let is_free =
            self.row.fits(&state, self.parts) && (state.waiters.is_empty() || is_first || barges);
        if is_free && (is_new || is_first || barges) {
            state.waiters.remove(&number);
            state.held.insert(number, self.parts);
        }
        if state.held.contains_key(&number) {
            drop(state);
            let hold = Share {
                row: self.row.clone(),
                parts: self.parts,
                number: self.number.take(),
                token: match lie {
                    Lie::RepeatsTokensOfWaiters if !is_new => 1,
                    _ => number,
                },
            };
            return Poll::Ready(Ok(Some(Box::new(hold))));
        }
        let waiting = state.waiters.len();
        if is_new && asks.try_only && lie != Lie::QueuesTries {
            self.number = None;
            return Poll::Ready(Ok(None));
        }
        let refused = asks.max_waiting.is_some_and(|most| waiting >= most);
        if is_new && (lie == Lie::CallsContentionAnError || refused && lie != Lie::CountsNobody) {
            self.number = None;
            let kind = match refused {
                true => ErrorKind::Busy,
                false => ErrorKind::Io,
            };
            return Poll::Ready(Err(Error::at(kind, "it is held", &self.row.name)));
        }
        let waiter = (self.parts, cx.waker().clone(), self.handle);
        let replaced = state.waiters.insert(number, waiter);
        drop((state, replaced));
        Poll::Pending
    }

    fn leave(&mut self) {
        let Some(number) = self.number.take() else {
            return;
        };
        let mut state = self.row.state();
        let is_granted = state.held.contains_key(&number);
        match (is_granted, self.row.lie) {
            (true, Lie::KeepsGrantsOfTheDropped) | (false, Lie::KeepsPlacesOfTheDropped) => return,
            _ => {}
        }
        let waker = state.waiters.remove(&number);
        drop(state);
        drop(waker);
        self.row.release(number);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The hold of a caller.
struct Share {
    row: Arc<Row>,
    parts: u32,
    number: Option<u64>,
    token: u64,
}

impl Hold for Share {
    fn token(&self) -> Option<u64> {
        match self.row.lie {
            Lie::RepeatsTokens => Some(1),
            _ => Some(self.token),
        }
    }

    fn predecessor_crashed(&self) -> bool {
        self.row.lie == Lie::TellsOfCrashes
    }

    fn permits(&self) -> u32 {
        self.parts
    }

    fn split(&mut self, permits: u32) -> Result<Self> {
        let mut state = self.row.state();
        state.last += 1;
        let part = Self {
            row: self.row.clone(),
            parts: permits,
            number: (self.row.lie != Lie::SplitsTheGuardOnly).then_some(state.last),
            token: match self.row.lie {
                Lie::GivesPartsNewTokens => state.last,
                _ => self.token,
            },
        };
        self.parts -= permits;
        if let (Some(number), Some(part)) = (self.number, part.number) {
            state.held.insert(number, self.parts);
            state.held.insert(part, permits);
        }
        Ok(part)
    }

    fn merge(&mut self, mut other: Self) -> Result<()> {
        let lie = self.row.lie;
        if !Arc::ptr_eq(&self.row, &other.row) && lie != Lie::MergesStrangers {
            let text = "these are permits of two semaphores";
            return Err(Error::at(ErrorKind::InvalidInput, text, &self.row.name));
        }
        self.parts += other.parts;
        self.token = self.token.max(other.token);
        if lie == Lie::MergesAndReleases {
            return Ok(());
        }
        let mut state = self.row.state();
        if let (Some(number), Some(other)) = (self.number, other.number.take()) {
            state.held.remove(&other);
            state.held.insert(number, self.parts);
        }
        Ok(())
    }

    fn poll_downgrade(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        let number = self.number.expect("it is held");
        let mut state = self.row.state();
        let left = u32::from(self.row.lie != Lie::DowngradesToNothing);
        state.held.insert(number, left);
        let woken = match self.row.lie {
            Lie::DowngradesForItself => Vec::new(),
            _ => self.row.settle(&mut state),
        };
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    fn is_held(&self) -> bool {
        self.row.lie != Lie::LosesLocks
    }

    fn lost(&self) -> Lost {
        match self.row.lie {
            Lie::LosesLocks => Lost::new(async { Loss::Expired }),
            _ => Lost::never(),
        }
    }

    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.number
            .take()
            .into_iter()
            .for_each(|it| self.row.release(it));
        Poll::Ready(Ok(()))
    }

    fn place(&self) -> &Path {
        Path::new(&self.row.name)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.row.lie != Lie::KeepsGuardsOfTheDropped {
            self.number
                .take()
                .into_iter()
                .for_each(|it| self.row.release(it));
        }
    }
}

/// A lock whose waits panic when they end.
struct Brittle;

impl Line for Brittle {
    fn address(&self) -> Address {
        Address::new("toy", "", "brittle")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::minimal(Reach::Process)
    }

    fn enqueue(&self, _: Mode) -> BoxPending {
        Box::new(BrittleWait)
    }
}

struct BrittleWait;

impl Pending for BrittleWait {
    type Grant = Box<dyn Hold>;

    fn poll(&mut self, _: &Request, _: &mut Context<'_>) -> Poll<Result<Option<Self::Grant>>> {
        Poll::Pending
    }

    fn leave(&mut self) {
        panic!("a wait of this backend ends");
    }
}

/// A handle finds its address without a wait, whose end is foreign code.
#[test]
fn a_handle_makes_no_wait() {
    let place = "toy:/brittle";
    let lock = AnyLock::of_line(Brittle);
    assert_eq!(lock.to_string(), place);
    assert_eq!(AnySharedLock::of_line(Brittle).to_string(), place);
    let semaphore = AnySemaphore::of_line(Brittle);
    assert_eq!(semaphore.to_string(), place);
    let reentrant = AnyLock::from(Reentrant::new(lock));
    assert_eq!(reentrant.to_string(), place);
    // Only the waits of this handle know the address.
    let wrapped = AnyLock::new(OnePermit(semaphore));
    assert_eq!(wrapped.to_string(), place);
}
