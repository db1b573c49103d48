//! `FifoSemaphore` of one permit as a subject.

use std::time::Duration;

use stanchion::{FifoSemaphore, SemaphoreOptions};

use crate::one_permit::OnePermit;
use crate::subject::Subject;
use crate::support::{Place, WINDOW};

pub(crate) struct OfOne(Place);

const NAME: &str = "a.lock";

fn options() -> SemaphoreOptions {
    FifoSemaphore::options().limit(1).claim_window(WINDOW)
}

impl OfOne {
    fn opened(&self, options: SemaphoreOptions, name: &str) -> OnePermit<FifoSemaphore> {
        OnePermit(options.open(self.0.directory(), name).expect("a semaphore"))
    }
}

impl Subject for OfOne {
    type Lock = OnePermit<FifoSemaphore>;

    const FAIR: bool = true;

    fn new() -> Self {
        Self(Place::new())
    }

    fn open(&self) -> OnePermit<FifoSemaphore> {
        self.opened(options(), NAME)
    }

    fn open_without_polling(&self) -> OnePermit<FifoSemaphore> {
        let options = options().poll_interval(Duration::MAX);
        self.opened(options, NAME)
    }

    fn open_by_other_names(&self) -> Vec<OnePermit<FifoSemaphore>> {
        let open = |path: std::path::PathBuf| {
            let directory = path.parent().expect("a directory");
            OnePermit(options().open(directory, NAME).expect("the same semaphore"))
        };
        self.0.other_names().map(open).into()
    }

    fn open_another(&self) -> OnePermit<FifoSemaphore> {
        self.opened(options(), "b.lock")
    }

    fn places(&self) -> usize {
        self.0.tickets().len()
    }

    fn footprint(&self) -> String {
        let read = |name: &String| {
            let path = name.replace("queue/", "a.lock.queue/");
            let content = std::fs::read(self.0.directory().join(path)).unwrap_or_default();
            format!("{name}: {}\n", String::from_utf8_lossy(&content))
        };
        self.0.footprint().iter().map(read).collect()
    }

    fn resources(&self) -> usize {
        self.0.descriptors()
    }
}
