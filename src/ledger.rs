//! The closed flag, the wakers of the waits, and the counts of a lock that has no queue of its own.
//! [`Acquire`](crate::Acquire) keeps them for such a lock.
//!
//! # Invariants
//!
//! 1. A wait that is enrolled before `close` is woken by it; one that is enrolled later sees the flag.
//! 2. No waker is called or dropped under the mutex.

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

/// One handle and its clones.
#[doc(hidden)]
pub struct Ledger {
    closed: AtomicBool,
    waits: Mutex<Waits>,
    /// Of all handles of this process on the same lock.
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Waits {
    last: u64,
    wakers: BTreeMap<u64, SafeWaker>,
}

/// A wait that `close` wakes. Dropped, it does so no longer.
pub(crate) struct Enrolled {
    ledger: Arc<Ledger>,
    number: u64,
}

impl Ledger {
    /// Of a lock of this kind at this address.
    pub(crate) fn new(kind: &'static str, address: Address) -> Arc<Self> {
        Arc::new(Self {
            closed: AtomicBool::new(false),
            waits: Mutex::default(),
            counts: counts_of(Some((kind, address))),
        })
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut self.waits().wakers);
        wakers.into_values().for_each(SafeWaker::wake);
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
        waits.wakers.insert(number, waker);
        drop(waits);
        Enrolled {
            ledger: self.clone(),
            number,
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

    pub(crate) fn stats(&self) -> Stats {
        self.counts.snapshot()
    }
}

impl Enrolled {
    /// The task may have moved.
    pub(crate) fn renew(&self, waker: &Waker) {
        // Declared before the mutex is taken, so that what it replaces is dropped after it is free.
        let mut waker = SafeWaker::of(waker);
        let mut waits = self.ledger.waits();
        if let Some(kept) = waits.wakers.get_mut(&self.number) {
            std::mem::swap(kept, &mut waker);
        }
        drop(waits);
        drop(waker);
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let waker = self.ledger.waits().wakers.remove(&self.number);
        drop(waker);
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
