//! Makes any lock re-entrant: its holder may acquire it again.
//!
//! # Algorithm
//!
//! A re-entrant lock counts by *holder*, an identity that the caller presents. It is a [`Holder`]
//! value, the holder of the [`scope`](Holder::scope) the caller runs in, or, if enabled, the
//! caller's Tokio task. A caller without an identity is a new holder at each call. A holder has one
//! guard of the inner lock. All guards of the holder share it, and the last of them releases it.
//!
//! Each poll of a wait checks whether its holder has the lock by now. So if one of a holder's waits
//! is granted, its other waits are ready too, and leave the queue. If the holder has lost the lock
//! and still has guards, its waits fail instead: a new guard of a lost lock would protect nothing.
//!
//! The inner guard is in the [`Stake`] of its holder, behind a mutex. A loan takes it out.
//!
//! # Invariants
//!
//! 1. The inner guard lives as long as any guard made from it, and no longer.
//! 2. The table has, for each holder, a weak reference to the guard that it has now. A dead
//!    reference means nothing.
//! 3. Wakers are called after the mutex is free. A stake is dropped after the mutex of the table is
//!    free, because this may release the inner lock.
//!
//! # After a crash
//!
//! As with the inner lock.
//!
//! # Fairness
//!
//! That of the inner lock. A re-entry does not wait.
//!
//! # Forks
//!
//! A forked child is another process: what its copies of the guards hold is its parent's. There, a
//! holder has nothing.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard as StdMutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::Notify;

use crate::acquire::Acquire;
use crate::address::Address;
use crate::any::{AnyLock, becomes_any};
use crate::backend::Hold;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::SafeWaker;
use crate::guard::sealed::Granted;
use crate::guard::{Guard, Waited, guard};
use crate::lock::{Capabilities, Handle, Lock, WeakCore};
use crate::loss::Lost;
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status};
use crate::sys::fork::{Origin, PerProcess};

mod pending;

use pending::ReentrantPending;

tokio::task_local! {
    static SCOPE: Holder;
}

/// An identity that may acquire a [`Reentrant`] lock again while it holds it. Clones are the same
/// holder.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("deploy.lock");
/// use stanchion::{FifoLock, Holder, Reentrant};
///
/// let lock = Reentrant::new(FifoLock::open(path)?);
/// Holder::new()
///     .scope(async {
///         let outer = lock.acquire().await?;
///         let inner = lock.acquire().await?; // the same holder: does not wait
///         drop(outer);
///         inner.release().await // the last one: now the lock is free
///     })
///     .await
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder(Identity);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Made(u64),
    Task(tokio::task::Id),
}

impl Holder {
    /// Returns a new holder, different from all others.
    #[allow(clippy::new_without_default)] // two defaults would not be equal
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(Identity::Made(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Runs a future as this holder. Every [`Reentrant`] lock that the future acquires with
    /// `acquire` or `try_acquire` belongs to this holder. Locks of tasks that the future spawns do
    /// not. An inner scope replaces the outer one.
    ///
    /// # Cancel safety
    ///
    /// That of the future.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        SCOPE.scope(self.clone(), future)
    }

    /// Returns the holder of the running code: that of the scope, that of the task if `by_task`, or
    /// a new one.
    fn of_here(by_task: bool) -> Self {
        let in_scope = SCOPE.try_with(Self::clone).ok();
        let task = || tokio::task::try_id().filter(|_| by_task);
        in_scope
            .or_else(|| task().map(|id| Self(Identity::Task(id))))
            .unwrap_or_else(Self::new)
    }
}

/// Makes any lock re-entrant: its holder may acquire it again. The last of the holder's guards
/// releases it.
///
/// The caller shows which holder it is in one of these ways:
///
/// - by a guard: [`reenter`](ReentrantGuard::reenter)
/// - by a [`Holder`]: [`acquire_as`](Reentrant::acquire_as), [`scope`](Holder::scope)
/// - by its Tokio task, but only if [`by_task`](Reentrant::by_task) enables that
///
/// Clones of this handle know each other's holders, so clone it. Any other handle on the same lock,
/// re-entrant or not, does not know them, and waits.
pub struct Reentrant<L: Lock> {
    lock: Arc<L>,
    table: Arc<Table<L::Guard>>,
    by_task: bool,
}

guard! {
    /// One of the guards of a re-entrant lock's holder. It may move between tasks. The last guard
    /// releases the inner lock.
    ///
    /// While the inner guard is [lent](ReentrantGuard::lend), `is_held` returns whether the lock
    /// was held when the loan began.
    ///
    /// After a loss, the holder cannot acquire the lock again before all of its guards are dropped.
    ReentrantGuard<G: Guard> holds ReentrantHold<G>, by ReentrantPending<G>
}

/// A share in a holder's guard of the inner lock.
#[doc(hidden)]
pub struct ReentrantHold<G: Guard> {
    stake: Option<Arc<Stake<G>>>,
    predecessor_crashed: bool,
    /// The guard of the inner lock, while the last share releases it.
    last: Option<G>,
}

/// What all guards of one holder share.
struct Stake<G> {
    /// `None` while the guard is lent. The mutex is locked for short queries only.
    guard: StdMutex<Option<G>>,
    holder: Holder,
    place: PathBuf,
    token: Option<u64>,
    /// Whether the lock was held when the guard was last lent.
    held_when_lent: AtomicBool,
    /// Notified when a loan ends.
    loans: Arc<Notify>,
    /// The process that holds the lock.
    origin: Origin,
}

impl<G> Stake<G> {
    fn guard(&self) -> StdMutexGuard<'_, Option<G>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_of_this_process(&self) -> bool {
        self.origin.is_here()
    }
}

impl<G: Guard> Stake<G> {
    /// Returns whether the lock is held. During a loan: whether it was held when the loan began.
    fn is_held(&self) -> bool {
        // Checked first: in a forked child, the mutex may stay locked.
        if !self.is_of_this_process() {
            return false;
        }
        match &*self.guard() {
            Some(guard) => guard.is_held(),
            None => self.held_when_lent.load(Ordering::Relaxed),
        }
    }

    /// Fails if the lock is known to be lost.
    fn refuse_lost(&self) -> Result<()> {
        if self.is_held() {
            return Ok(());
        }
        let text = "this holder has lost the lock: drop all of its guards before it acquires again";
        Err(Error::at(ErrorKind::Lost, text, &self.place))
    }
}

/// The guard of the inner lock, lent by [`ReentrantGuard::lend`] until this value is dropped.
#[must_use = "the loan ends as soon as this is dropped"]
pub struct Lent<'a, G> {
    /// Present until the drop.
    guard: Option<G>,
    stake: &'a Stake<G>,
}

impl<G> Drop for Lent<'_, G> {
    fn drop(&mut self) {
        // In a forked child, the mutex may stay locked forever.
        if self.stake.is_of_this_process() {
            *self.stake.guard() = self.guard.take();
            self.stake.loans.notify_waiters();
        }
    }
}

struct Table<G> {
    entries: PerProcess<StdMutex<HashMap<Holder, Entry<G>>>>,
}

/// The state of a holder that has the lock or waits for it.
struct Entry<G> {
    held: Weak<Stake<G>>,
    waiting: Vec<SafeWaker>,
}

impl<G: Guard> Table<G> {
    fn entries(&self) -> StdMutexGuard<'_, HashMap<Holder, Entry<G>>> {
        let entries = self.entries.get().lock();
        entries.unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what this holder has. If it has nothing, `waker` is called when it acquires the
    /// lock. Fails if what it has is lost.
    fn held_by(&self, holder: &Holder, waker: Option<&Waker>) -> Result<Option<Arc<Stake<G>>>> {
        // Declared before the mutex is locked, so that an unused waker is dropped after the mutex
        // is free.
        let mut waker = waker.map(SafeWaker::of);
        let mut entries = self.entries();
        let found = entries.get(holder).and_then(|it| it.held.upgrade());
        let is_here = found.as_ref().is_some_and(|it| it.is_of_this_process());
        if !is_here && waker.is_some() {
            let entry = entries.entry(holder.clone()).or_insert_with(Entry::empty);
            let known = |it: &SafeWaker| entry.waiting.iter().any(|kept| kept.will_wake(it));
            let fresh = waker.take_if(|it| !known(it));
            entry.waiting.extend(fresh);
        }
        drop(entries);
        let found = found.filter(|_| is_here);
        found.map(|it| it.refuse_lost().map(|()| it)).transpose()
    }

    /// Records that the holder has acquired the inner lock, and wakes its other waits.
    fn enter(&self, guard: G, holder: Holder) -> Arc<Stake<G>> {
        let held = Arc::new(Stake {
            token: guard.token(),
            place: guard.hold().place().to_path_buf(),
            guard: StdMutex::new(Some(guard)),
            holder: holder.clone(),
            held_when_lent: AtomicBool::new(true),
            loans: Arc::default(),
            origin: Origin::here(),
        });
        let mut entries = self.entries();
        // This removes dead entries of other holders. So the table has only live entries and waits.
        entries.retain(|_, it| it.held.strong_count() > 0 || !it.waiting.is_empty());
        let entry = entries.entry(holder).or_insert_with(Entry::empty);
        entry.held = Arc::downgrade(&held);
        let waiting = std::mem::take(&mut entry.waiting);
        drop(entries);
        waiting.into_iter().for_each(SafeWaker::wake);
        held
    }

    /// Records that a wait of this holder is over.
    fn forget(&self, holder: &Holder) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(holder) else {
            return;
        };
        // The holder's other waits are woken to register again.
        let waiting = std::mem::take(&mut entry.waiting);
        if entry.held.strong_count() == 0 {
            entries.remove(holder);
        }
        drop(entries);
        waiting.into_iter().for_each(SafeWaker::wake);
    }
}

impl<G> Entry<G> {
    fn empty() -> Self {
        Self {
            held: Weak::new(),
            waiting: Vec::new(),
        }
    }
}

impl<L: Lock> Reentrant<L> {
    /// Makes a lock re-entrant. Clones of the result know each other's holders.
    pub fn new(lock: L) -> Self {
        let entries = PerProcess::new(StdMutex::default);
        Self {
            lock: Arc::new(lock),
            table: Arc::new(Table { entries }),
            by_task: false,
        }
    }

    /// Uses the Tokio task as the holder, outside of any [`scope`](Holder::scope).
    ///
    /// Then all code in one task is one holder, also the branches of one `join!` or `select!`: each
    /// branch acquires the lock while another one holds it. A spawned task is another holder.
    ///
    /// The future that `block_on` runs is no task; neither is the body of an async `main` under
    /// `#[tokio::main]`. There, and without Tokio, every `acquire` outside of a scope is that of a
    /// new holder. If it is called while an earlier guard is held, it waits for that guard.
    pub fn by_task(mut self) -> Self {
        self.by_task = true;
        self
    }

    /// Returns the inner lock.
    pub fn inner(&self) -> &L {
        &self.lock
    }

    /// Waits for the lock as the holder of the [`scope`](Holder::scope) this runs in. Outside of
    /// any scope the caller is a new holder, unless [`by_task`](Reentrant::by_task) is set. A
    /// holder that already has the lock gets another guard at once.
    ///
    /// # Cancel safety
    ///
    /// That of the inner lock: dropping the future leaves the queue.
    ///
    /// # Errors
    ///
    /// - Those of the inner lock.
    /// - [`ErrorKind::Lost`] if the holder has lost the lock and still has a guard of it. During a
    ///   [loan](ReentrantGuard::lend), only a loss from before the loan is noticed.
    pub fn acquire(&self) -> Acquire<ReentrantGuard<L::Guard>> {
        self.acquire_as(&Holder::of_here(self.by_task))
    }

    /// Waits for the lock as this holder; otherwise as [`acquire`](Reentrant::acquire).
    pub fn acquire_as(&self, holder: &Holder) -> Acquire<ReentrantGuard<L::Guard>> {
        let holder = holder.clone();
        let table = self.table.clone();
        self.lock
            .acquire()
            .map(|inner| ReentrantPending::new(inner, table, holder))
    }

    /// Acquires the lock if its holder already has it, or if that needs no waiting. Otherwise
    /// returns `None`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after the lock was granted, the lock is released.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Reentrant::acquire), except time limits.
    pub async fn try_acquire(&self) -> Result<Option<ReentrantGuard<L::Guard>>> {
        self.try_acquire_as(&Holder::of_here(self.by_task)).await
    }

    /// Tries to acquire the lock as this holder; otherwise as
    /// [`try_acquire`](Reentrant::try_acquire).
    ///
    /// # Cancel safety
    ///
    /// As for [`try_acquire`](Reentrant::try_acquire).
    ///
    /// # Errors
    ///
    /// As for [`try_acquire`](Reentrant::try_acquire).
    pub async fn try_acquire_as(
        &self,
        holder: &Holder,
    ) -> Result<Option<ReentrantGuard<L::Guard>>> {
        if let Some(held) = self.table.held_by(holder, None)? {
            return Ok(Some(ReentrantGuard::granted(
                ReentrantHold::another(held),
                Waited::default(),
            )));
        }
        let guard = self.lock.try_acquire().await?;
        let first = |guard| ReentrantHold::first(guard, holder.clone(), &self.table);
        Ok(guard.map(|guard| ReentrantGuard::granted(first(guard), Waited::default())))
    }
}

impl<L: Lock> Clone for Reentrant<L> {
    fn clone(&self) -> Self {
        Self {
            lock: self.lock.clone(),
            table: self.table.clone(),
            by_task: self.by_task,
        }
    }
}

impl<L: Lock> fmt::Debug for Reentrant<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reentrant").field(&self.lock).finish()
    }
}

becomes_any!(Reentrant<L> => AnyLock, for L: Lock);

/// Everything except acquiring is that of the inner lock.
impl<L: Lock> Handle for Reentrant<L> {
    async fn status(&self) -> Result<Status> {
        self.lock.status().await
    }

    async fn remove(&self) -> Result<Removal> {
        self.lock.remove().await
    }

    fn changes(&self) -> Changes {
        self.lock.changes()
    }

    fn stats(&self) -> Stats {
        self.lock.stats()
    }

    fn close(&self) {
        self.lock.close();
    }

    fn capabilities(&self) -> Capabilities {
        self.lock.capabilities()
    }

    fn address(&self) -> Option<Address> {
        self.lock.address()
    }

    fn core(&self) -> Option<WeakCore> {
        self.lock.core()
    }
}

impl<L: Lock> Lock for Reentrant<L> {
    type Guard = ReentrantGuard<L::Guard>;

    fn acquire(&self) -> Acquire<Self::Guard> {
        Reentrant::acquire(self)
    }

    async fn try_acquire(&self) -> Result<Option<Self::Guard>> {
        Reentrant::try_acquire(self).await
    }
}

impl<G: Guard> ReentrantHold<G> {
    fn first(guard: G, holder: Holder, table: &Table<G>) -> Self {
        let predecessor_crashed = guard.predecessor_crashed();
        Self {
            predecessor_crashed,
            ..Self::another(table.enter(guard, holder))
        }
    }

    fn another(stake: Arc<Stake<G>>) -> Self {
        Self {
            stake: Some(stake),
            predecessor_crashed: false,
            last: None,
        }
    }
}

impl<G: Guard> ReentrantGuard<G> {
    fn stake(&self) -> &Arc<Stake<G>> {
        match &self.held.hold.stake {
            Some(stake) => stake,
            None => unreachable!("a guard has its share until it is consumed"),
        }
    }

    /// Returns another guard of the same holder, without waiting. Does not check whether the lock
    /// is still held: after a loss, both guards report it.
    pub fn reenter(&self) -> Self {
        Self::granted(
            ReentrantHold::another(self.stake().clone()),
            Waited::default(),
        )
    }

    /// Returns the holder.
    pub fn holder(&self) -> &Holder {
        &self.stake().holder
    }

    /// Lends the guard of the inner lock, for mutable access. That of a
    /// [`FileLock`](crate::FileLock) is the open file. All guards of a holder share this guard, so
    /// there is one position in the file.
    ///
    /// Returns `None` during another loan of it, and in a forked child. Lending never waits, so no
    /// task can wait for itself.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("log");
    /// use stanchion::{FileLock, Reentrant};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// let lock = Reentrant::new(FileLock::open(path)?);
    /// let outer = lock.acquire().await?;
    /// let inner = outer.reenter();
    /// for guard in [outer, inner] {
    ///     let mut file = guard.lend().ok_or("the file is lent already")?;
    ///     file.write_all(b"a line\n").await?;
    ///     file.flush().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn lend(&self) -> Option<Lent<'_, G>> {
        let stake = self.stake();
        if !stake.is_of_this_process() {
            return None;
        }
        let mut kept = stake.guard();
        let is_held = kept.as_ref()?.is_held();
        stake.held_when_lent.store(is_held, Ordering::Relaxed);
        let guard = kept.take();
        drop(kept);
        Some(Lent { guard, stake })
    }
}

impl<G: Guard> Hold for ReentrantHold<G> {
    /// That of the inner lock, the same for all guards of one holder.
    fn token(&self) -> Option<u64> {
        self.stake.as_ref()?.token
    }

    /// Only the first guard of a holder can return `true`.
    fn predecessor_crashed(&self) -> bool {
        self.predecessor_crashed
    }

    fn is_held(&self) -> bool {
        self.stake.as_ref().is_some_and(|it| it.is_held())
    }

    fn lost(&self) -> Lost {
        // In a forked child, the mutex may stay locked forever.
        let here = |it: &&Arc<Stake<G>>| it.is_of_this_process();
        let Some(stake) = self.stake.as_ref().filter(here) else {
            return Lost::never();
        };
        if let Some(guard) = &*stake.guard() {
            return guard.lost();
        }
        // Ask as soon as the loan ends. This future must not keep the lock held.
        let (stake, loans) = (Arc::downgrade(stake), stake.loans.clone());
        Lost::new(async move {
            loop {
                let mut over = std::pin::pin!(loans.notified());
                over.as_mut().enable();
                let lost = stake
                    .upgrade()
                    .map(|it| it.guard().as_ref().map(Guard::lost));
                match lost {
                    Some(Some(lost)) => return lost.await,
                    Some(None) => over.await,
                    None => std::future::pending().await,
                }
            }
        })
    }

    /// The last share releases the inner lock.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(stake) = self.stake.take() {
            let last = Arc::into_inner(stake).map(|it| it.guard.into_inner());
            self.last = last.and_then(|it| it.unwrap_or_else(PoisonError::into_inner));
        }
        let released = match &mut self.last {
            Some(guard) => ready!(guard.hold_mut().poll_release(cx)),
            None => Ok(()),
        };
        self.last = None;
        Poll::Ready(released)
    }

    fn place(&self) -> &Path {
        self.stake.as_ref().map_or(Path::new(""), |it| &it.place)
    }
}

impl<G> Deref for Lent<'_, G> {
    type Target = G;

    fn deref(&self) -> &G {
        match &self.guard {
            Some(guard) => guard,
            None => unreachable!("{LENT}"),
        }
    }
}

impl<G> DerefMut for Lent<'_, G> {
    fn deref_mut(&mut self) -> &mut G {
        match &mut self.guard {
            Some(guard) => guard,
            None => unreachable!("{LENT}"),
        }
    }
}

const LENT: &str = "a loan has the guard until it is dropped";

impl<G: fmt::Debug> fmt::Debug for Lent<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&**self).finish()
    }
}
