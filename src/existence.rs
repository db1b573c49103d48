//! Locks that are held while a name exists: pid files, and claims (directories or files that one
//! process creates). What they share is here: the wait, and what a waiter keeps from one attempt to
//! the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::backend::{Pending, Request};
use crate::error::Result;
use crate::file::wait::{FileWait, Outcome, Target};
use crate::ledger::Ledger;
use crate::status::{self, Owner};

pub(crate) mod claim;
pub(crate) mod pid;

/// A lock that exists as a name.
#[doc(hidden)]
pub trait Presence: Target {
    fn ledger(&self) -> &Arc<Ledger>;
}

/// What a process has left is deleted after this time, if nothing shows whether it lives.
const OLD: Duration = Duration::from_secs(60);

/// Returns whether a file or directory has not changed for a minute.
fn is_old(entry: &std::fs::DirEntry) -> bool {
    let changed = entry.metadata().and_then(|it| it.modified());
    let age = changed.ok().and_then(|it| it.elapsed().ok());
    age.is_some_and(|it| it > OLD)
}

/// The wait of one caller.
#[doc(hidden)]
pub struct PresencePending<C: Presence> {
    lock: Arc<C>,
    waiting: Option<FileWait<C>>,
    /// The holder at the first attempt.
    holder: Option<Owner>,
}

impl<C: Presence> PresencePending<C> {
    fn new(lock: &Arc<C>) -> Self {
        Self {
            lock: lock.clone(),
            waiting: None,
            holder: None,
        }
    }
}

impl<C: Presence> Unpin for PresencePending<C> {}

impl<C: Presence> Pending for PresencePending<C> {
    type Grant = C::Hold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<C::Hold>>> {
        let waiting = match &mut self.waiting {
            Some(waiting) => waiting,
            none => {
                let mut memory = C::Memory::default();
                match self.lock.attempt(&mut memory, None)? {
                    Outcome::Granted(hold) => return Poll::Ready(Ok(Some(hold))),
                    Outcome::Refused(refusal) => self.holder = refusal.owner,
                }
                if request.try_only {
                    return Poll::Ready(Ok(None));
                }
                none.insert(FileWait::begin(self.lock.clone(), memory, cx.waker()))
            }
        };
        let granted = waiting.poll(cx.waker());
        if granted.is_ready() {
            self.leave();
        }
        granted.map_ok(Some)
    }

    fn leave(&mut self) {
        self.waiting = None;
    }

    fn waiting(&self) -> Option<status::Waiting> {
        let holder = match &self.waiting {
            Some(waiting) => waiting.owner(),
            None => self.holder.clone(),
        };
        Some(status::Waiting::behind(holder))
    }

    fn address(&self) -> Option<Address> {
        self.lock.place().map(Address::of_file)
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        Some(self.lock.ledger())
    }

    fn counts_waiters(&self) -> bool {
        false
    }
}

/// Says for a handle whether one of its waiting tasks keeps its record.
///
/// A task writes a record before it tries to publish it. If another process is faster, the next
/// attempt of the task can use the same record, which saves a file. But a record is an open file,
/// and thousands of tasks may wait. So one task of a handle keeps its record, and the others delete
/// theirs. No mutex is involved, so a forked child can use the handle.
#[derive(Debug, Default)]
struct Keeper(Arc<AtomicBool>);

/// The right of one task to keep its record. Dropping it gives it back.
#[derive(Debug)]
struct Keeping(Arc<AtomicBool>);

impl Keeper {
    /// After an attempt that was refused: drops the record, unless this task may keep it.
    fn settle<D>(&self, record: &mut Option<D>, keeping: &mut Option<Keeping>) {
        if record.is_none() || keeping.is_some() {
            return;
        }
        if self.0.swap(true, Ordering::AcqRel) {
            *record = None;
        } else {
            *keeping = Some(Keeping(self.0.clone()));
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// How long a file was seen not to change. The time between two looks counts as at most one step.
/// While the whole machine is suspended, the other process cannot change the file either.
#[derive(Debug)]
struct Stillness {
    looked: Instant,
    seen: Duration,
}

impl Stillness {
    /// Takes the first look.
    fn begin() -> Self {
        Self {
            looked: Instant::now(),
            seen: Duration::ZERO,
        }
    }

    /// Takes another look. Returns how long the file has not changed.
    fn look(&mut self, step: Duration) -> Duration {
        let now = Instant::now();
        self.seen += now.saturating_duration_since(self.looked).min(step);
        self.looked = now;
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p19_a_pause_between_two_looks_counts_one_step() {
        let step = Duration::from_secs(1);
        let mut still = Stillness::begin();
        for looks in 1..=3 {
            // As if the clock had gone on while the process stood still.
            let before = still.looked.checked_sub(Duration::from_secs(60));
            still.looked = before.expect("the machine has been up for a minute");
            assert_eq!(still.look(step), step * looks);
        }
    }
}
