//! Several locks at once: all of them or none, and no two callers that wait for each other.
//!
//! # Algorithm
//!
//! Every lock has an address: its backend and its place, the same by whatever handle and spelling it is reached. The
//! requests are sorted by it, and the locks are taken one after the other; those that have come are held while the next
//! one is waited for.
//!
//! # Why nobody waits for ever
//!
//! Who waits for a lock holds only lesser ones. Follow from a waiter to the holder he waits for, who may wait himself, and so on: each waits
//! for a greater lock than the one before, so the chain never comes back to its beginning; and at its end somebody
//! holds who waits for nothing. (Waiting without holding, and starting over when one is refused, would need no order, but then who
//! wants many locks may be passed for ever by those who want few.)
//!
//! # Invariants
//!
//! 1. Nothing is locked before the list is known to name no lock twice.
//! 2. At most one wait is under way, and its lock is greater than all that are held.
//! 3. What was taken goes back in the reverse order, the wait under way first.
//!
//! # After a crash
//!
//! Each lock is freed as it would be alone; the next holder of each is told that this one died.
//!
//! # Fairness
//!
//! That of each lock: the place in its line counts from the moment its turn in the order comes.
//!
//! # Cost
//!
//! A box for each wait and each guard. Nothing is spawned.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use std::vec;

use futures::future::FusedFuture;
use pin_project_lite::pin_project;

use crate::acquire::{Acquire, Limit};
use crate::address::Address;
use crate::any::AnyGuard;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Guard, Lost};

/// Takes several locks of any kind: all of them, or none.
///
/// The locks are taken in an order that is the same for everybody (by backend and path), whatever the order of the
/// requests. So two callers that want the same locks never wait for each other, in whichever order each of
/// them names them. The guards come back in the order of the requests.
///
/// A request is what `acquire()` of a lock returns, before it is awaited, with all that was asked of it:
/// [`max_waiting`](Acquire::max_waiting) and [`on_wait`](Acquire::on_wait) count for that one lock, from its turn on; its own
/// time limit too, which counts from its call as ever, or from `acquire()` where the options of the lock set it: if it
/// has passed when the turn comes, one attempt is left. A limit for the whole goes [onto the future](AcquireAll::timeout).
///
/// While it waits for one lock it holds those before it, so others wait for these as well: name few, and hold them briefly.
///
/// # What the order needs
///
/// - All who take several of these locks take them by this function. Who has a lock already and asks for more
///   waits with it in his hands, outside the order: ask for all at once, or set a limit.
/// - All see the files under the same paths. A file that one sees under another path, by a hard link, a bind mount or in a
///   container, is another lock for the order.
///
/// # Cancel safety
///
/// Dropping the future at any point leaves the line it stands in and releases what it has taken. In between nothing is
/// released: a future that is kept and not polled keeps what it has taken so far.
///
/// # Fairness
///
/// That of each lock; the place in its line counts from its turn.
///
/// # Errors
///
/// [`ErrorKind::Deadlock`] when one lock is named twice, before any is taken. All forms of a lock on one path are one lock:
/// a [`FifoLock`](crate::FifoLock) and a [`FileLock`](crate::FileLock), two shared ones, a [`Reentrant`](crate::Reentrant) and the lock
/// inside it, and the same `Reentrant` twice, also for one holder. (What its holder has from before it may name: that comes at once.)
///
/// [`ErrorKind::TimedOut`] where a limit was set, and everything that acquiring one of the locks alone can end with. No lock is held then.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stanchion::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let [from, to] = ["from", "to"].map(|it| dir.path().join(it));
/// use std::time::Duration;
/// use stanchion::{FifoLock, acquire_all};
///
/// let (from, to) = (FifoLock::open(from)?, FifoLock::open(to)?);
/// let both = acquire_all([from.acquire(), to.acquire()]).timeout(Duration::from_secs(5)).await?;
/// // … move something from the one to the other …
/// both.release().await?; // or just drop them
/// # Ok(()) }
/// ```
///
/// Locks of several kinds:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let [queue, book] = ["queue.lock", "book"].map(|it| dir.path().join(it));
/// use stanchion::{AnyGuard, FifoLock, FileGuard, FileLock, Request, acquire_all};
/// use tokio::io::AsyncWriteExt;
///
/// let (queue, book) = (FifoLock::open(queue)?, FileLock::open(book)?);
/// let both = acquire_all([Request::from(queue.acquire()), book.acquire().into()]).await?;
/// let [queue, book]: [AnyGuard; 2] = both.try_into().expect("two were asked for");
/// let mut book: FileGuard = book.downcast().expect("a file");
/// book.write_all(format!("token {:?}\n", queue.token()).as_bytes()).await?;
/// book.release().await?;
/// # Ok(()) }
/// ```
pub fn acquire_all<R: Into<Request>>(requests: impl IntoIterator<Item = R>) -> AcquireAll {
    let numbered = requests.into_iter().enumerate().map(|(number, request)| {
        let Request(wait) = request.into();
        let address = wait.address();
        Turn {
            address,
            number,
            wait,
        }
    });
    let mut turns: Vec<_> = numbered.collect();
    // Those without an address can only fail, and do so first, before anything is held.
    turns.sort_by(|one, other| one.address.cmp(&other.address));
    let known = turns.iter().filter_map(|turn| turn.address.as_ref());
    let twice = known
        .clone()
        .zip(known.skip(1))
        .find(|(one, next)| one == next);
    let refused = twice.map(|(address, _)| {
        let text = "one lock is asked for twice at once, and would wait for itself";
        Error::at(ErrorKind::Deadlock, text, address.place())
    });
    AcquireAll {
        wait: None,
        number: 0,
        held: Held(Vec::with_capacity(turns.len())),
        turns: turns.into_iter(),
        refused,
        limit: Limit::Never,
        done: false,
    }
}

/// One lock that [`acquire_all`] is to take, made from the [`Acquire`] of any lock.
///
/// A list of one kind needs no conversion; in a list of several, name the type once:
/// `[Request::from(a.acquire()), b.acquire().into()]`.
#[must_use = "nothing is locked unless acquire_all gets it and is awaited"]
pub struct Request(Acquire<AnyGuard>);

impl<G: Guard> From<Acquire<G>> for Request {
    fn from(wait: Acquire<G>) -> Self {
        Self(wait.forget_kind())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("lock", &self.0.address().map(|it| it.place()))
            .finish_non_exhaustive()
    }
}

/// A request in the order of taking.
struct Turn {
    address: Option<Address>,
    /// Its place among the requests.
    number: usize,
    wait: Acquire<AnyGuard>,
}

/// What has been taken, in the order of taking, each with its place among the requests.
struct Held(Vec<(usize, AnyGuard)>);

impl Drop for Held {
    /// Releases the last one first.
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

pin_project! {
    /// Waits for all locks of a list; resolves to their guards. Made by [`acquire_all`].
    ///
    /// Lazy: nothing is locked, and no place in a line taken, before the first poll. Owned: it borrows nothing, so it can be stored, spawned
    /// and sent. An empty list is ready at once.
    ///
    /// # Cancel safety
    ///
    /// See [`acquire_all`]: dropping it at any point leaves nothing behind.
    ///
    /// # Runtime
    ///
    /// That of [`Acquire`]: a time limit other than zero needs Tokio's timer.
    #[must_use = "futures do nothing unless awaited"]
    pub struct AcquireAll {
        // Above `held`: the wait is given up before anything is released.
        #[pin]
        wait: Option<Acquire<AnyGuard>>,
        number: usize,
        held: Held,
        turns: vec::IntoIter<Turn>,
        refused: Option<Error>,
        limit: Limit,
        done: bool,
    }
}

impl AcquireAll {
    /// Gives up with [`ErrorKind::TimedOut`] after `limit`, counted from this call, through all waits together. `None`,
    /// the default, waits for ever; limits of single requests, also those from the options of a lock, count beside it. Zero means exactly one attempt
    /// at each lock.
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = Limit::after(limit.into());
        self
    }

    /// Gives up with [`ErrorKind::TimedOut`] at this instant of the monotonic clock.
    pub fn deadline(mut self, when: Instant) -> Self {
        self.limit = Limit::At(when);
        self
    }
}

impl Future for AcquireAll {
    type Output = Result<AllGuards>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if *this.done {
            return Poll::Pending;
        }
        if let Some(error) = this.refused.take() {
            *this.done = true;
            *this.turns = Vec::new().into_iter();
            return Poll::Ready(Err(error));
        }
        loop {
            let Some(wait) = this.wait.as_mut().as_pin_mut() else {
                let Some(turn) = this.turns.next() else {
                    *this.done = true;
                    return Poll::Ready(Ok(AllGuards::of(this.held)));
                };
                *this.number = turn.number;
                this.wait.set(Some(turn.wait.within(*this.limit)));
                continue;
            };
            let granted = ready!(wait.poll(cx));
            this.wait.set(None);
            match granted {
                Ok(guard) => this.held.0.push((*this.number, guard)),
                Err(error) => {
                    *this.done = true;
                    *this.turns = Vec::new().into_iter();
                    drop(std::mem::replace(this.held, Held(Vec::new())));
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl FusedFuture for AcquireAll {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl fmt::Debug for AcquireAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireAll")
            .field("held", &self.held.0.len())
            .field("to_come", &(self.turns.len() + self.wait.iter().len()))
            .field("limit", &self.limit)
            .field("done", &self.done)
            .finish()
    }
}

/// The guards of several locks, in the order in which [`acquire_all`] was asked for them: a slice of [`AnyGuard`].
///
/// Dropping it releases all, the last taken first. Taken apart, by [`into_vec`](AllGuards::into_vec), `try_into()` an array, or
/// iteration, each guard goes its own way.
#[must_use = "the locks are released as soon as their guards are dropped"]
pub struct AllGuards {
    guards: Vec<AnyGuard>,
    /// Their places above in the order of taking.
    taken: Vec<usize>,
}

impl AllGuards {
    fn of(held: &mut Held) -> Self {
        let mut held = std::mem::take(&mut held.0);
        let taken = held.iter().map(|(number, _)| *number).collect();
        held.sort_by_key(|(number, _)| *number);
        let guards = held.into_iter().map(|(_, guard)| guard).collect();
        Self { guards, taken }
    }

    /// The guards in the order of taking; afterwards this has none.
    fn take_held(&mut self) -> Held {
        let mut guards: Vec<_> = self.guards.drain(..).map(Some).collect();
        let in_order = self.taken.drain(..).filter_map(|number| {
            let guard = guards.get_mut(number)?.take()?;
            Some((number, guard))
        });
        Held(in_order.collect())
    }

    /// The guards, in the order of the requests.
    pub fn into_vec(mut self) -> Vec<AnyGuard> {
        std::mem::take(&mut self.guards)
    }

    /// Whether all of the locks are still held: a look at the present.
    pub fn is_held(&self) -> bool {
        self.guards.iter().all(AnyGuard::is_held)
    }

    /// Resolves when the first of the locks is lost; see [`Lost`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub fn lost(&self) -> Lost {
        let mut each: Vec<_> = self.guards.iter().map(AnyGuard::lost).collect();
        Lost::new(std::future::poll_fn(move |cx| {
            let mut polled = each.iter_mut().map(|lost| Pin::new(lost).poll(cx));
            polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
        }))
    }

    /// Releases all, the last taken first, and says whether that went well. One that fails does not keep the others.
    ///
    /// # Cancel safety
    ///
    /// Dropped half way, it releases the rest as dropped guards do.
    ///
    /// # Errors
    ///
    /// Those of the guards: the first one that came, and in its text the others.
    pub async fn release(mut self) -> Result<()> {
        let mut held = self.take_held();
        let mut outcome = Ok(());
        while let Some((_, guard)) = held.0.pop() {
            outcome = Error::of_both(outcome, guard.release().await);
        }
        outcome
    }
}

impl Drop for AllGuards {
    fn drop(&mut self) {
        drop(self.take_held());
    }
}

impl Deref for AllGuards {
    type Target = [AnyGuard];

    fn deref(&self) -> &[AnyGuard] {
        &self.guards
    }
}

impl DerefMut for AllGuards {
    fn deref_mut(&mut self) -> &mut [AnyGuard] {
        &mut self.guards
    }
}

impl IntoIterator for AllGuards {
    type Item = AnyGuard;
    type IntoIter = vec::IntoIter<AnyGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_vec().into_iter()
    }
}

impl<'a> IntoIterator for &'a AllGuards {
    type Item = &'a AnyGuard;
    type IntoIter = std::slice::Iter<'a, AnyGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.guards.iter()
    }
}

impl<const N: usize> TryFrom<AllGuards> for [AnyGuard; N] {
    /// All of them, still held, when they are not `N`.
    type Error = AllGuards;

    fn try_from(mut all: AllGuards) -> Result<Self, AllGuards> {
        let guards = std::mem::take(&mut all.guards);
        guards.try_into().map_err(|guards| {
            all.guards = guards;
            all
        })
    }
}

impl fmt::Debug for AllGuards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllGuards").field(&self.guards).finish()
    }
}
