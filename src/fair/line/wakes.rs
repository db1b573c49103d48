//! Wakers that a step under the mutex leaves for later.

use crate::foreign::SafeWaker;

/// Wakers to call or only to drop, once the mutex is free. A waker is foreign code, and dropping it
/// may drop the last reference to another future that waits for the same lock.
#[derive(Default)]
pub(crate) struct Wakes {
    first: Option<SafeWaker>,
    more: Vec<SafeWaker>,
    discarded: Option<SafeWaker>,
    more_discarded: Vec<SafeWaker>,
}

impl Wakes {
    pub(super) fn push(&mut self, waker: SafeWaker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    pub(super) fn discard(&mut self, waker: Option<SafeWaker>) {
        match (waker, &self.discarded) {
            (Some(waker), None) => self.discarded = Some(waker),
            (Some(waker), Some(_)) => self.more_discarded.push(waker),
            (None, _) => {}
        }
    }

    pub(crate) fn fire(self) {
        self.first
            .into_iter()
            .chain(self.more)
            .for_each(SafeWaker::wake);
    }
}
