//! The closed flag, the wakers of the waits, and the counts of a lock that has no queue of its own.
//! [`Acquire`](crate::Acquire) keeps them for such a lock.
//!
//! # Invariants
//!
//! 1. A wait that is enrolled before `close` is woken by it; one that is enrolled later sees the
//!    flag.
//! 2. No waker is called or dropped under the mutex.
//! 3. A forked child touches no mutex and no list of its parent. A thread that does not exist in
//!    the child may have the mutex, and may have stopped in the middle of a change.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::SafeWaker;
use crate::stats::{Counts, Stats, counts_of};
use crate::sys::fork::{Origin, PerProcess};

/// One handle and its clones.
#[doc(hidden)]
pub struct Ledger {
    closed: AtomicBool,
    waits: Mutex<Waits>,
    /// Of all handles of this process on the same lock.
    counts: Arc<Counts>,
    /// The process that created the handle.
    origin: Origin,
}

/// The wakers of waits, each with the address of its ledger in memory and a number.
#[derive(Default)]
struct Waits {
    last: u64,
    wakers: BTreeMap<(usize, u64), SafeWaker>,
}

/// The waits of this process on handles from before a fork, of all locks.
static AFTER_FORK: PerProcess<Mutex<Waits>> = PerProcess::new(Mutex::default);

/// A wait that `close` wakes. Dropped, it does so no longer.
pub(crate) struct Enrolled {
    ledger: Arc<Ledger>,
    number: u64,
    /// The process that enrolled it.
    origin: Origin,
}

impl Waits {
    /// Removes and returns all wakers of a ledger.
    fn take(&mut self, ledger: usize) -> Vec<SafeWaker> {
        let range = self.wakers.range((ledger, 0)..=(ledger, u64::MAX));
        let keys: Vec<_> = range.map(|(key, _)| *key).collect();
        let wakers = keys.iter().filter_map(|key| self.wakers.remove(key));
        wakers.collect()
    }
}

impl Ledger {
    /// Of a lock of this kind at this address.
    pub(crate) fn new(kind: &'static str, address: Address) -> Arc<Self> {
        Arc::new(Self {
            closed: AtomicBool::new(false),
            waits: Mutex::default(),
            counts: counts_of(Some((kind, address))),
            origin: Origin::here(),
        })
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        let waits = match self.origin.is_here() {
            true => &self.waits,
            false => AFTER_FORK.get(),
        };
        waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its part of the keys in [`Waits`].
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let wakers = self.waits().take(self.key());
        wakers.into_iter().for_each(SafeWaker::wake);
    }

    pub(crate) fn refuse_closed(&self, place: impl FnOnce() -> PathBuf) -> Result<()> {
        match self.closed.load(Ordering::SeqCst) {
            true => Err(Error::at(ErrorKind::Closed, "the lock was closed", place())),
            false => Ok(()),
        }
    }

    /// From now on `close` wakes this wait.
    pub(crate) fn enroll(self: &Arc<Self>, waker: &Waker) -> Enrolled {
        let waker = SafeWaker::of(waker);
        let mut waits = self.waits();
        waits.last += 1;
        let number = waits.last;
        waits.wakers.insert((self.key(), number), waker);
        drop(waits);
        Enrolled {
            ledger: self.clone(),
            number,
            origin: Origin::here(),
        }
    }

    pub(crate) fn granted(&self, waited: Option<Duration>, crashed: bool) {
        self.counts.together(|counts| {
            counts.grants.add(1);
            waited.into_iter().for_each(|it| counts.waited(it));
            counts.crashes.add(u64::from(crashed));
        });
    }

    /// A wait ended without a guard.
    pub(crate) fn abandoned(&self) {
        self.counts.together(|counts| counts.abandoned.add(1));
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counts.snapshot()
    }
}

impl Enrolled {
    /// The task may have moved.
    pub(crate) fn renew(&mut self, waker: &Waker) {
        if !self.origin.is_here() {
            *self = self.ledger.enroll(waker);
            return;
        }
        // Declared before the mutex is taken, so that what it replaces is dropped after it is free.
        let mut waker = SafeWaker::of(waker);
        let mut waits = self.ledger.waits();
        if let Some(kept) = waits.wakers.get_mut(&(self.ledger.key(), self.number)) {
            std::mem::swap(kept, &mut waker);
        }
        drop(waits);
        drop(waker);
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        // In a forked child, the entry is the parent's.
        if self.origin.is_here() {
            let key = (self.ledger.key(), self.number);
            let waker = self.ledger.waits().wakers.remove(&key);
            drop(waker);
        }
    }
}

impl Drop for Ledger {
    /// Leaks the list in a forked child: it may be in the middle of a change.
    fn drop(&mut self) {
        if !self.origin.is_here() {
            let waits = self.waits.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(std::mem::take(waits));
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
