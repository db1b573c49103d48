//! The fair locks as subjects, with each of the three ways to wait. A reader-writer lock is used by
//! writers only.

use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use stanchion::{FifoLock, FifoRwLock, Lock, Wait};

use crate::subject::Subject;
use crate::support::{Place, WINDOW};
use crate::way::Way;

/// A lock with a queue on disk.
pub(crate) trait Fair: Lock + Sized + 'static {
    fn open_at(path: &Path, wait: Wait, poll_interval: Option<Duration>) -> Self;
}

macro_rules! is_fair {
    ($lock:ty) => {
        impl Fair for $lock {
            fn open_at(path: &Path, wait: Wait, poll_interval: Option<Duration>) -> Self {
                let options = <$lock>::options().wait(wait).claim_window(WINDOW);
                let options = match poll_interval {
                    Some(interval) => options.poll_interval(interval),
                    None => options,
                };
                options.open(path).expect("a lock")
            }
        }
    };
}

is_fair!(FifoLock);
is_fair!(FifoRwLock);

pub(crate) struct Fifo<W, L = FifoLock>(Place, PhantomData<(W, L)>);

impl<W: Way, L: Fair> Subject for Fifo<W, L> {
    type Lock = L;

    const FAIR: bool = true;

    fn new() -> Self {
        Self(Place::new(), PhantomData)
    }

    fn open(&self) -> L {
        L::open_at(&self.0.path(), W::wait(), None)
    }

    fn open_without_polling(&self) -> L {
        L::open_at(&self.0.path(), W::wait(), Some(Duration::MAX))
    }

    fn open_by_other_names(&self) -> Vec<L> {
        let open = |name: std::path::PathBuf| L::open_at(&name, Wait::Watch, None);
        self.0.other_names().map(open).into()
    }

    fn open_another(&self) -> L {
        L::open_at(&self.0.directory().join("b.lock"), Wait::Watch, None)
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
