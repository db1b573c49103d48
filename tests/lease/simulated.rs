//! The clock and the random numbers of the simulation. They replace those of the lease core on one
//! thread.

use std::cell::RefCell;

/// What the lease core sees.
pub(in crate::lease) trait Surroundings {
    fn now_ns(&self) -> u64;
    fn random(&self) -> u64;
}

thread_local! {
    static CURRENT: RefCell<Option<Box<dyn Surroundings>>> = const { RefCell::new(None) };
}

/// Replaces the surroundings of this thread, or restores them.
pub(in crate::lease) fn set(surroundings: Option<Box<dyn Surroundings>>) {
    CURRENT.set(surroundings);
}

pub(in crate::lease) fn now_ns() -> Option<u64> {
    CURRENT.with_borrow(|it| it.as_ref().map(|it| it.now_ns()))
}

pub(in crate::lease) fn random() -> Option<u64> {
    CURRENT.with_borrow(|it| it.as_ref().map(|it| it.random()))
}
