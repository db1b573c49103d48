//! `FifoLock` as a subject.

use std::time::Duration;

use stanchion::FifoLock;

use crate::subject::Subject;
use crate::support::Place;

pub(crate) struct Fifo(Place);

impl Subject for Fifo {
    type Lock = FifoLock;

    const FAIR: bool = true;

    fn new() -> Self {
        Self(Place::new())
    }

    fn open(&self) -> FifoLock {
        self.0.open()
    }

    fn open_without_polling(&self) -> FifoLock {
        self.0
            .open_with(FifoLock::options().poll_interval(Duration::MAX))
    }

    fn open_by_other_names(&self) -> Vec<FifoLock> {
        let open = |name| FifoLock::open(name).expect("the same lock");
        self.0.other_names().map(open).into()
    }

    fn open_another(&self) -> FifoLock {
        FifoLock::open(self.0.directory().join("b.lock")).expect("another lock")
    }

    fn places(&self) -> usize {
        self.0.tickets().len()
    }

    fn footprint(&self) -> String {
        let read = |name: &String| {
            let path = self
                .0
                .directory()
                .join(name.replace("queue/", "a.lock.queue/"));
            let content = std::fs::read(&path).unwrap_or_default();
            format!("{name}: {}\n", String::from_utf8_lossy(&content))
        };
        self.0.footprint().iter().map(read).collect()
    }

    fn resources(&self) -> usize {
        self.0.descriptors()
    }
}
