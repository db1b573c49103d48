//! Locks with their kind erased, as subjects: they behave as before.

use std::marker::PhantomData;

use stanchion::{AnyLock, AnySharedLock, Handle, Lock, SharedLock};

use crate::subject::Subject;

/// What erases the kind of a lock.
pub(crate) trait Forgets<L>: Lock + 'static {
    fn new(lock: L) -> Self;
}

impl<L: Lock + 'static> Forgets<L> for AnyLock {
    fn new(lock: L) -> Self {
        Self::new(lock)
    }
}

impl<L: SharedLock + 'static> Forgets<L> for AnySharedLock {
    fn new(lock: L) -> Self {
        Self::new(lock)
    }
}

/// A subject whose locks go through [`AnyLock::new`] or [`AnySharedLock::new`].
pub(crate) struct Forgotten<S, A = AnyLock>(S, PhantomData<A>);

impl<S: Subject, A: Forgets<S::Lock>> Subject for Forgotten<S, A> {
    type Lock = A;

    const FAIR: bool = S::FAIR;
    const REMOTE: bool = S::REMOTE;

    fn new() -> Self {
        Self(S::new(), PhantomData)
    }

    fn open(&self) -> A {
        A::new(self.0.open())
    }

    fn open_without_polling(&self) -> A {
        A::new(self.0.open_without_polling())
    }

    fn open_by_other_names(&self) -> Vec<A> {
        let others = self.0.open_by_other_names().into_iter();
        others.map(A::new).collect()
    }

    fn open_another(&self) -> A {
        A::new(self.0.open_another())
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

/// The suite cannot see this: a lock that is erased twice is wrapped once, and keeps its path.
#[test]
fn an_erased_lock_keeps_its_identity() {
    let place = crate::support::Place::new();
    let lock = AnyLock::new(AnyLock::from(place.open()));
    let inner = lock.downcast_ref::<stanchion::FifoLock>();
    assert_eq!(inner.map(|it| it.path()), lock.path());
    assert!(lock.downcast_ref::<stanchion::FileLock>().is_none());
    let path = lock.path().expect("a path");
    assert_eq!(lock.to_string(), path.display().to_string());
    assert_eq!(path.file_name(), place.path().file_name());
    assert_eq!(Handle::capabilities(&lock), place.open().capabilities());
}
