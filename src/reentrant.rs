//! Re-entry over any lock: whoever holds it may take it again.
//!
//! # Algorithm
//!
//! A re-entrant lock counts by *holder*, an identity that the caller can show: a [`Holder`] value, the holder of the
//! [`scope`](Holder::scope) it runs in, or, if asked for, its Tokio task. Whoever shows none is a stranger to everybody, also to itself. What a
//! holder has is one guard of the inner lock, shared by all its guards; the last of them releases it.
//!
//! A wait looks, whenever it is polled, whether its holder has the lock by now: so of two waits of one holder the first that
//! is granted lets the other one in, which leaves the line.
//!
//! # Invariants
//!
//! 1. The inner guard lives as long as any guard made from it, and no longer.
//! 2. The table names for each holder the guard that it has now, weakly. An entry that is dead means nothing.
//! 3. Wakers are called after the mutex is free.
//!
//! # Fairness
//!
//! That of the inner lock. A re-entry waits for nobody.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard as StdMutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::acquire::Acquire;
use crate::acquire::sealed::Granted;
use crate::any::{AnyLock, becomes_any};
use crate::error::Result;
use crate::foreign::SafeWaker;
use crate::guard::{Guard, Hold, Lost, guard};
use crate::lock::{Capabilities, Handle, Lock};
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status};

mod pending;

use pending::ReentrantPending;

tokio::task_local! {
    static SCOPE: Holder;
}

/// Someone who may take a [`Reentrant`] lock again while having it. Clones are the same holder.
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
    /// Somebody new.
    #[allow(clippy::new_without_default)] // two defaults would not be equal
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(Identity::Made(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Runs a future as this holder: every [`Reentrant`] lock that it takes by `acquire` or `try_acquire` is this holder's. Not those of tasks
    /// that it spawns. An inner scope hides the outer one.
    ///
    /// # Cancel safety
    ///
    /// That of the future.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        SCOPE.scope(self.clone(), future)
    }

    /// Who runs this code, as far as it has said.
    fn of_here(by_task: bool) -> Self {
        let in_scope = SCOPE.try_with(Self::clone).ok();
        let task = || tokio::task::try_id().filter(|_| by_task);
        in_scope
            .or_else(|| task().map(|id| Self(Identity::Task(id))))
            .unwrap_or_else(Self::new)
    }
}

/// Makes any lock re-entrant: its holder may take it again, and it is released with the last of the holder's guards.
///
/// Who the holder is must be shown: by a guard ([`reenter`](ReentrantGuard::reenter)), by a [`Holder`]
/// ([`acquire_as`](Reentrant::acquire_as), [`scope`](Holder::scope)), or by the Tokio task, but that only if it is asked for
/// ([`by_task`](Reentrant::by_task)). Another handle on the same lock, re-entrant or not, is another party: clone this one.
pub struct Reentrant<L: Lock> {
    lock: Arc<L>,
    table: Arc<Table<L::Guard>>,
    by_task: bool,
}

guard! {
    /// One of the guards of a re-entrant lock's holder. It may move between tasks; the last one
    /// releases the lock inside.
    ///
    /// While the guard inside is [lent](ReentrantGuard::lend), `is_held` returns whether the lock was
    /// held when the loan began.
    ReentrantGuard<G: Guard> holds ReentrantHold<G>, by ReentrantPending<G>
}

/// A share in what a holder has.
#[doc(hidden)]
pub struct ReentrantHold<G: Guard> {
    stake: Option<Arc<Stake<G>>>,
    predecessor_crashed: bool,
    /// The guard of the lock inside, while the last share releases it.
    last: Option<G>,
}

/// What a holder has.
struct Stake<G> {
    /// Locked while it is lent; nobody waits for it.
    guard: Mutex<G>,
    holder: Holder,
    place: PathBuf,
    token: Option<u64>,
    /// Whether the lock was held when the guard was lent last.
    held_when_lent: AtomicBool,
    /// Told when a loan is over.
    loans: Arc<Notify>,
}

/// The guard of the lock inside, lent by [`ReentrantGuard::lend`] until this is dropped.
#[must_use = "the loan ends as soon as this is dropped"]
pub struct Lent<'a, G> {
    // Fields drop in order: first the guard is free, then that is told.
    guard: MutexGuard<'a, G>,
    _over: LoanOver<'a>,
}

struct LoanOver<'a>(&'a Notify);

impl Drop for LoanOver<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

struct Table<G> {
    entries: StdMutex<HashMap<Holder, Entry<G>>>,
}

/// What is known of a holder that has the lock or waits for it.
struct Entry<G> {
    held: Weak<Stake<G>>,
    waiting: Vec<SafeWaker>,
}

impl<G: Guard> Table<G> {
    fn entries(&self) -> StdMutexGuard<'_, HashMap<Holder, Entry<G>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guard that this holder has; if none, `waker` is called when it gets one.
    fn held_by(&self, holder: &Holder, waker: Option<&Waker>) -> Option<Arc<Stake<G>>> {
        // Declared before the mutex is taken, so that one that is not needed is dropped after it is free.
        let mut waker = waker.map(SafeWaker::of);
        let mut entries = self.entries();
        let found = entries.get(holder).and_then(|it| it.held.upgrade());
        if found.is_none() && waker.is_some() {
            let entry = entries.entry(holder.clone()).or_insert_with(Entry::empty);
            let known = |it: &SafeWaker| entry.waiting.iter().any(|kept| kept.will_wake(it));
            let fresh = waker.take_if(|it| !known(it));
            entry.waiting.extend(fresh);
        }
        found
    }

    /// The holder has got the inner lock: its other waits may come in.
    fn enter(&self, guard: G, holder: Holder) -> Arc<Stake<G>> {
        let held = Arc::new(Stake {
            token: guard.token(),
            place: guard.hold().place().to_path_buf(),
            guard: Mutex::new(guard),
            holder: holder.clone(),
            held_when_lent: AtomicBool::new(true),
            loans: Arc::default(),
        });
        let mut entries = self.entries();
        // Dead entries of others are cleared away here, so there are never more than live ones and waits.
        entries.retain(|_, it| it.held.strong_count() > 0 || !it.waiting.is_empty());
        let entry = entries.entry(holder).or_insert_with(Entry::empty);
        entry.held = Arc::downgrade(&held);
        let waiting = std::mem::take(&mut entry.waiting);
        drop(entries);
        waiting.into_iter().for_each(SafeWaker::wake);
        held
    }

    /// A wait of this holder is over.
    fn forget(&self, holder: &Holder) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(holder) else {
            return;
        };
        // Whoever still waits is asked to register anew.
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
        let entries = StdMutex::new(HashMap::new());
        Self {
            lock: Arc::new(lock),
            table: Arc::new(Table { entries }),
            by_task: false,
        }
    }

    /// Takes the Tokio task for the holder, outside of any [`scope`](Holder::scope).
    ///
    /// All that runs in one task is one holder then, also the branches of one `join!` or `select!`: each of them gets in while
    /// another one has the lock. A spawned task is another holder.
    ///
    /// What `block_on` runs is no task, so neither is the body of an async `main` under `#[tokio::main]`: there, and without Tokio, every
    /// `acquire` outside of a scope is somebody new's, and one that is made under the guard of another waits for it.
    pub fn by_task(mut self) -> Self {
        self.by_task = true;
        self
    }

    /// The lock inside.
    pub fn inner(&self) -> &L {
        &self.lock
    }

    /// Waits for the lock as the holder of the [`scope`](Holder::scope) this runs in; in none, as somebody new. Whoever has it
    /// already gets another guard at once.
    ///
    /// # Cancel safety
    ///
    /// That of the inner lock: dropping the future leaves the line.
    ///
    /// # Errors
    ///
    /// Those of the inner lock.
    pub fn acquire(&self) -> Acquire<ReentrantGuard<L::Guard>> {
        self.acquire_as(&Holder::of_here(self.by_task))
    }

    /// The same as a holder that the caller shows.
    pub fn acquire_as(&self, holder: &Holder) -> Acquire<ReentrantGuard<L::Guard>> {
        let holder = holder.clone();
        let table = self.table.clone();
        self.lock
            .acquire()
            .map(|inner| ReentrantPending::new(inner, table, holder))
    }

    /// Takes the lock if its holder has it already, or if that needs no waiting; else `None`.
    ///
    /// # Errors
    ///
    /// Those of the inner lock.
    pub async fn try_acquire(&self) -> Result<Option<ReentrantGuard<L::Guard>>> {
        self.try_acquire_as(&Holder::of_here(self.by_task)).await
    }

    /// The same as a holder that the caller shows.
    ///
    /// # Errors
    ///
    /// Those of the inner lock.
    pub async fn try_acquire_as(
        &self,
        holder: &Holder,
    ) -> Result<Option<ReentrantGuard<L::Guard>>> {
        if let Some(held) = self.table.held_by(holder, None) {
            return Ok(Some(ReentrantGuard::granted(
                ReentrantHold::another(held),
                None,
            )));
        }
        let guard = self.lock.try_acquire().await?;
        let first = |guard| ReentrantHold::first(guard, holder.clone(), &self.table);
        Ok(guard.map(|guard| ReentrantGuard::granted(first(guard), None)))
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

/// Everything but acquiring is that of the lock inside.
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

    /// Another guard of the same holder, at once.
    pub fn reenter(&self) -> Self {
        Self::granted(ReentrantHold::another(self.stake().clone()), None)
    }

    /// Who holds.
    pub fn holder(&self) -> &Holder {
        &self.stake().holder
    }

    /// Lends the guard of the lock inside, to change it: that of a [`FileLock`](crate::FileLock) is the open file. All guards of a
    /// holder have the same one, with one position in the file. `None` while another loan of it lasts; nothing waits for that, so no
    /// task waits for itself.
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
        let guard = stake.guard.try_lock().ok()?;
        stake
            .held_when_lent
            .store(guard.is_held(), Ordering::Relaxed);
        Some(Lent {
            guard,
            _over: LoanOver(&stake.loans),
        })
    }
}

impl<G: Guard> Hold for ReentrantHold<G> {
    /// That of the lock inside, the same for all guards of one hold.
    fn token(&self) -> Option<u64> {
        self.stake.as_ref()?.token
    }

    /// Only of the first guard of a hold.
    fn predecessor_crashed(&self) -> bool {
        self.predecessor_crashed
    }

    fn is_held(&self) -> bool {
        let Some(stake) = &self.stake else {
            return false;
        };
        match stake.guard.try_lock() {
            Ok(guard) => guard.is_held(),
            Err(_) => stake.held_when_lent.load(Ordering::Relaxed),
        }
    }

    fn lost(&self) -> Lost {
        let Some(stake) = &self.stake else {
            return Lost::new(std::future::pending());
        };
        if let Ok(guard) = stake.guard.try_lock() {
            return guard.lost();
        }
        // Asked as soon as the loan is over. Neither this future nor its place in a queue may keep the guard from others.
        let (stake, loans) = (Arc::downgrade(stake), stake.loans.clone());
        Lost::new(async move {
            loop {
                let mut over = std::pin::pin!(loans.notified());
                over.as_mut().enable();
                let lost = stake
                    .upgrade()
                    .map(|it| it.guard.try_lock().map(|it| it.lost()));
                match lost {
                    Some(Ok(lost)) => return lost.await,
                    Some(Err(_)) => over.await,
                    None => std::future::pending().await,
                }
            }
        })
    }

    /// The last one releases the lock inside.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(stake) = self.stake.take() {
            self.last = Arc::into_inner(stake).map(|it| it.guard.into_inner());
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
        &self.guard
    }
}

impl<G> DerefMut for Lent<'_, G> {
    fn deref_mut(&mut self) -> &mut G {
        &mut self.guard
    }
}

impl<G: fmt::Debug> fmt::Debug for Lent<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&*self.guard).finish()
    }
}
