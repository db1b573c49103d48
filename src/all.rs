//! Acquires several locks at once: all of them or none, without a deadlock between callers.
//!
//! # Algorithm
//!
//! Every lock has an address: its backend and its place. The address is the same for every handle
//! and every spelling of the path. The requests are sorted by address, and the locks are acquired
//! one by one. The locks acquired so far stay held during the next wait.
//!
//! # Why no caller waits forever
//!
//! A waiter holds only locks that are less than the one it waits for. Follow the chain from a
//! waiter to the holder of its lock, to the lock that this holder waits for, and so on. Each lock
//! in the chain is greater than the one before, so the chain never returns to its start. At its end
//! is a holder that waits for nothing.
//!
//! The alternative is to wait without holding anything, and to start over when one lock is refused.
//! It needs no order, but callers that want few locks may then bypass a caller that wants many,
//! forever.
//!
//! # Invariants
//!
//! 1. Nothing is locked before the list is known to name no lock twice.
//! 2. At most one wait is under way, and its lock is greater than all that are held.
//! 3. Locks are released in the reverse order of acquiring. The wait under way ends first.
//!
//! # After a crash
//!
//! Each lock is freed as it would be alone. The next holder of each lock learns of the death.
//!
//! # Fairness
//!
//! That of each lock. The place in its queue counts from its turn in the order.
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
use crate::guard::Guard;
use crate::loss::Lost;

/// Acquires several locks of any kind: all of them, or none.
///
/// The locks are acquired in an order that is the same for all callers (by backend and path),
/// whatever the order of the requests. So two callers that want the same locks never wait for each
/// other. The guards come back in the order of the requests.
///
/// A request is what `acquire()` of a lock returns, before it is awaited, with its own settings:
///
/// - [`max_waiting`](Acquire::max_waiting) and [`on_wait`](Acquire::on_wait) apply to that one
///   lock, from its turn on.
/// - Its own time limit counts from the call that set it, or from `acquire()` if the options of the
///   lock set it. If it has passed when the turn comes, one attempt is left.
///
/// A limit for all locks together is set [on this future](AcquireAll::timeout).
///
/// While the future waits for one lock, it holds those before it, and other callers wait for them.
/// So name few locks, and hold them briefly.
///
/// # What the order needs
///
/// - All callers that acquire several of these locks use this function. A caller that already holds
///   a lock and asks for more waits outside the order. Ask for all locks at once, or set a limit.
/// - All callers see the files under the same paths. A file that is seen under two paths counts as
///   two locks: through a hard link, through a bind mount, or in a container.
///
/// # Cancel safety
///
/// Dropping the future at any point leaves the queue it waits in, and releases the locks acquired
/// so far. A future that is kept but not polled keeps these locks.
///
/// # Fairness
///
/// That of each lock. The place in its queue counts from its turn.
///
/// # Errors
///
/// - [`ErrorKind::Deadlock`] if one lock is named twice, before any lock is acquired.
/// - [`ErrorKind::TimedOut`] if a limit was set and has passed.
/// - Every error of acquiring one of the locks alone.
///
/// No lock is held after an error.
///
/// All forms of a lock on one path are one lock: a [`FifoLock`](crate::FifoLock) and a
/// [`FileLock`](crate::FileLock), two shared ones, a [`Reentrant`](crate::Reentrant) and its inner
/// lock. The same `Reentrant` twice is one lock too, even for one holder. A holder that already has
/// a `Reentrant` may name it once, and acquires it at once.
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
/// With locks of several kinds:
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
    // Requests without an address can only fail. They come first, before anything is held.
    turns.sort_by(|one, other| one.address.cmp(&other.address));
    let known = turns.iter().filter_map(|turn| turn.address.as_ref());
    let twice = known
        .clone()
        .zip(known.skip(1))
        .find(|(one, next)| one == next);
    let refused = twice.map(|(address, _)| {
        let text = "the lock is requested twice: the second request would wait for the first";
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

/// One lock for [`acquire_all`], made from the [`Acquire`] of any lock.
///
/// A list of one kind needs no conversion. In a list of several kinds, name the type once:
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

/// A request, in the order of acquiring.
struct Turn {
    address: Option<Address>,
    /// Its index among the requests.
    number: usize,
    wait: Acquire<AnyGuard>,
}

/// The guards so far, in the order of acquiring, each with its index among the requests.
struct Held(Vec<(usize, AnyGuard)>);

impl Drop for Held {
    /// Releases in the reverse order of acquiring.
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

pin_project! {
    /// Waits for all locks of a list; resolves to their guards. Made by [`acquire_all`].
    ///
    /// Before the first poll the future locks nothing and is in no queue. It borrows nothing, so it
    /// can be stored, spawned and sent. With an empty list it is ready at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping it at any point leaves nothing behind; see [`acquire_all`].
    ///
    /// # Runtime
    ///
    /// That of [`Acquire`]: a time limit other than zero needs Tokio's timer.
    #[must_use = "futures do nothing unless awaited"]
    pub struct AcquireAll {
        // Above `held`, so that the wait is dropped before anything is released.
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
    /// Fails with [`ErrorKind::TimedOut`] after `limit`. The limit counts from this call, and
    /// covers all waits together. `None`, the default, waits forever. Zero means exactly one
    /// attempt at each lock.
    ///
    /// Limits of single requests also apply, including those from the options of a lock.
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = Limit::after(limit.into());
        self
    }

    /// Fails with [`ErrorKind::TimedOut`] at this instant of the monotonic clock.
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

/// The guards of several locks, in the order of the requests to [`acquire_all`]. Dereferences to a
/// slice of [`AnyGuard`].
///
/// Dropping it releases all locks in the reverse order of acquiring. To separate the guards, use
/// [`into_vec`](AllGuards::into_vec), `try_into()` an array, or iteration.
#[must_use = "dropping the guards releases the locks: bind them to a name, such as `_guards`, and not to `_`"]
pub struct AllGuards {
    guards: Vec<AnyGuard>,
    /// The indices of the guards in `guards`, in the order of acquiring.
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

    /// Removes and returns the guards, in the order of acquiring.
    fn take_held(&mut self) -> Held {
        let mut guards: Vec<_> = self.guards.drain(..).map(Some).collect();
        let in_order = self.taken.drain(..).filter_map(|number| {
            let guard = guards.get_mut(number)?.take()?;
            Some((number, guard))
        });
        Held(in_order.collect())
    }

    /// Returns the guards, in the order of the requests.
    pub fn into_vec(mut self) -> Vec<AnyGuard> {
        std::mem::take(&mut self.guards)
    }

    /// Returns whether all locks are still held. A lock may be lost right after the call.
    pub fn is_held(&self) -> bool {
        self.guards.iter().all(AnyGuard::is_held)
    }

    /// Resolves when the first of the locks is lost; see [`Lost`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn lost(&self) -> Lost {
        let mut each: Vec<_> = self.guards.iter().map(AnyGuard::lost).collect();
        Lost::new(std::future::poll_fn(move |cx| {
            let mut polled = each.iter_mut().map(|lost| Pin::new(lost).poll(cx));
            polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
        }))
    }

    /// Releases all locks in the reverse order of acquiring, and reports whether that succeeded. If
    /// one release fails, the others still run.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it releases the remaining locks, as dropped guards do.
    ///
    /// # Errors
    ///
    /// Those of the guards. The error is the first one, and its text includes the others.
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
    /// All guards, still held, if their number is not `N`.
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
