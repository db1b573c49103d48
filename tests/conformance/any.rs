//! Locks whose kind is forgotten, as subjects: each is what it was.

use stanchion::{AnyLock, Handle};

use crate::subject::Subject;

/// A subject whose locks go through [`AnyLock::new`].
pub(crate) struct Forgotten<S>(S);

impl<S: Subject> Subject for Forgotten<S> {
    type Lock = AnyLock;

    const FAIR: bool = S::FAIR;

    fn new() -> Self {
        Self(S::new())
    }

    fn open(&self) -> AnyLock {
        AnyLock::new(self.0.open())
    }

    fn open_without_polling(&self) -> AnyLock {
        AnyLock::new(self.0.open_without_polling())
    }

    fn open_by_other_names(&self) -> Vec<AnyLock> {
        let others = self.0.open_by_other_names().into_iter();
        others.map(AnyLock::new).collect()
    }

    fn open_another(&self) -> AnyLock {
        AnyLock::new(self.0.open_another())
    }

    fn places(&self) -> usize {
        self.0.places()
    }

    fn footprint(&self) -> String {
        self.0.footprint()
    }

    fn resources(&self) -> usize {
        self.0.resources()
    }
}

/// The suite cannot see this: a lock that is forgotten twice is wrapped once, and known by its path.
#[test]
fn a_forgotten_lock_stays_what_it_is() {
    let place = crate::support::Place::new();
    let lock = AnyLock::new(AnyLock::from(place.open()));
    let inner = lock.downcast_ref::<stanchion::FifoLock>();
    assert_eq!(inner.map(|it| it.path()), lock.path());
    assert!(lock.downcast_ref::<stanchion::FileLock>().is_none());
    let path = place.path().canonicalize().unwrap_or(place.path());
    assert_eq!(lock.to_string(), path.display().to_string());
    assert_eq!(Handle::capabilities(&lock), place.open().capabilities());
}
