//! A semaphore of which one permit at a time is acquired, used as a lock by the suites of locks.

use stanchion::{
    Acquire, Capabilities, Changes, Handle, Lock, Removal, Result, Semaphore, Stats, Status,
};

#[derive(Clone, Debug)]
pub(crate) struct OnePermit<S>(pub(crate) S);

impl<S: Semaphore> Handle for OnePermit<S> {
    async fn status(&self) -> Result<Status> {
        self.0.status().await
    }

    async fn remove(&self) -> Result<Removal> {
        self.0.remove().await
    }

    fn changes(&self) -> Changes {
        self.0.changes()
    }

    fn stats(&self) -> Stats {
        self.0.stats()
    }

    fn close(&self) {
        self.0.close();
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

impl<S: Semaphore> Lock for OnePermit<S> {
    type Guard = S::Permit;

    fn acquire(&self) -> Acquire<S::Permit> {
        self.0.acquire()
    }

    async fn try_acquire(&self) -> Result<Option<S::Permit>> {
        self.0.try_acquire().await
    }
}
