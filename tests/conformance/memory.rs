//! The locks in memory as subjects.

use stanchion::{Lock, MemLock, MemRwLock, MemSemaphore, Memory};

use crate::one_permit::OnePermit;
use crate::subject::Subject;
use crate::support::{Polled, WINDOW};

/// A kind of lock in a `Memory`.
pub(crate) trait Kept: Lock + Sized + 'static {
    fn open_in(memory: &Memory, name: &str) -> Self;
}

impl Kept for MemLock {
    fn open_in(memory: &Memory, name: &str) -> Self {
        memory.lock(name).expect("a lock")
    }
}

impl Kept for MemRwLock {
    fn open_in(memory: &Memory, name: &str) -> Self {
        memory.rwlock(name).expect("a lock")
    }
}

impl Kept for OnePermit<MemSemaphore> {
    fn open_in(memory: &Memory, name: &str) -> Self {
        OnePermit(memory.semaphore(name, 1).expect("a semaphore"))
    }
}

pub(crate) struct InMemory<L> {
    memory: Memory,
    /// Its own handle, for the suite to see what its other handles have left.
    seen: L,
}

impl<L: Kept> Subject for InMemory<L> {
    type Lock = L;

    const FAIR: bool = true;

    fn new() -> Self {
        let memory = Memory::options().claim_window(WINDOW).build();
        let seen = L::open_in(&memory, "a");
        Self { memory, seen }
    }

    fn open(&self) -> L {
        L::open_in(&self.memory, "a")
    }

    fn open_without_polling(&self) -> L {
        self.open()
    }

    /// A name has one spelling: these are other handles of the same `Memory`.
    fn open_by_other_names(&self) -> Vec<L> {
        let clone = self.memory.clone();
        vec![self.open(), L::open_in(&clone, "a")]
    }

    fn open_another(&self) -> L {
        L::open_in(&self.memory, "b")
    }

    fn places(&self) -> usize {
        let status = Polled::new(self.seen.status()).finish();
        status.expect("a status").waiters.len()
    }

    fn footprint(&self) -> String {
        format!("{:?}", Polled::new(self.seen.status()).finish())
    }

    /// It has no descriptors.
    fn resources(&self) -> usize {
        0
    }
}
