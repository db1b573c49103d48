//! `FifoLock` as a subject, its head waiting in each of three ways.

use std::marker::PhantomData;
use std::time::Duration;

use stanchion::{FifoLock, FifoOptions};

use crate::subject::Subject;
use crate::support::Place;
use crate::way::Way;

pub(crate) struct Fifo<W>(Place, PhantomData<W>);

impl<W: Way> Fifo<W> {
    fn options() -> FifoOptions {
        FifoLock::options().wait(W::wait())
    }
}

impl<W: Way> Subject for Fifo<W> {
    type Lock = FifoLock;

    const FAIR: bool = true;

    fn new() -> Self {
        Self(Place::new(), PhantomData)
    }

    fn open(&self) -> FifoLock {
        self.0.open_with(Self::options())
    }

    fn open_without_polling(&self) -> FifoLock {
        self.0
            .open_with(Self::options().poll_interval(Duration::MAX))
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
